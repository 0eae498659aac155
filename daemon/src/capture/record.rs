//! Copies of packets on their way over the control socket: a fixed head, then the bytes.
//!
//! ```text
//! kept 4 | length 4 | nanoseconds since 1970 8 | direction 1 | lost so far 8 | kept bytes       (big-endian)
//! ```
use shadowmesh_runtime_std::peer::{Captured, Direction, Watch};
use smol::{
    io::{AsyncRead, AsyncReadExt},
    stream::{self, Stream},
};
use std::{
    io,
    time::{Duration, UNIX_EPOCH},
};

const HEAD_LEN: usize = 25;

/// The largest packet of an interface: 64 KiB, an Ethernet header and a VLAN tag.
pub(crate) const MAX_PACKET_BYTES: usize = 65_536 + 18;

/// Records that are written together.
const TOGETHER: usize = 64;

/// One packet, as it comes from the running peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Since 1970.
    pub(crate) at: Duration,
    pub(crate) direction: Direction,
    /// Of the whole packet.
    pub(crate) length: u32,
    /// As much of it as was wanted.
    pub(crate) bytes: Vec<u8>,
    /// Packets that were not copied since the capture began.
    pub(crate) lost: u64,
}

/// All copies until the peer ends, several together where several wait.
pub(crate) fn stream(watch: Watch) -> impl Stream<Item = Vec<u8>> {
    stream::unfold(watch, async |watch| {
        let first = watch.next().await?;
        let mut bytes = Vec::new();
        for captured in core::iter::once(first).chain(core::iter::from_fn(|| watch.try_next()).take(TOGETHER - 1)) {
            encode(&captured, watch.lost(), &mut bytes);
        }
        Some((bytes, watch))
    })
}

fn encode(captured: &Captured, lost: u64, into: &mut Vec<u8>) {
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
    let since = captured.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    into.extend_from_slice(&word(captured.bytes.len()));
    into.extend_from_slice(&word(captured.length));
    into.extend_from_slice(&u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
    into.push(u8::from(captured.direction == Direction::In));
    into.extend_from_slice(&lost.to_be_bytes());
    into.extend_from_slice(&captured.bytes);
}

/// The next record; `None` at the end, also when that lies within a record: the peer was killed.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Record>> {
    let mut head = [0; HEAD_LEN];
    if let Err(error) = from.read_exact(&mut head).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let word = |at: usize| u32::from_be_bytes(core::array::from_fn(|byte| head[at + byte]));
    let long = |at: usize| u64::from_be_bytes(core::array::from_fn(|byte| head[at + byte]));
    let kept = usize::try_from(word(0)).unwrap_or(usize::MAX);
    if kept > MAX_PACKET_BYTES || head[16] > 1 {
        return Err(io::Error::other("the running peer sends packets in a form that this version does not know"));
    }
    let mut bytes = vec![0; kept];
    if let Err(error) = from.read_exact(&mut bytes).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let direction = if head[16] == 1 { Direction::In } else { Direction::Out };
    Ok(Some(Record { at: Duration::from_nanos(long(8)), direction, length: word(4), bytes, lost: long(17) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_record_ends_the_reading() {
        let read = |bytes: &[u8]| smol::block_on(read(&mut &*bytes));
        let mut good = vec![0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        good.extend_from_slice(b"abc");
        let record = Record { at: Duration::from_nanos(7), direction: Direction::In, length: 9, bytes: b"abc".to_vec(), lost: 2 };
        assert_eq!(read(&good).expect("reads"), Some(record));
        for len in 0..good.len() {
            assert_eq!(read(&good[..len]).expect("the end"), None, "{len} bytes");
        }
        let mut wrong = good.clone();
        wrong[16] = 2;
        assert!(read(&wrong).is_err());
        good[0] = 1;
        assert!(read(&good).is_err(), "16 MB in one packet");
    }
}
