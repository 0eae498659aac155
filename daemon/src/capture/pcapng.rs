//! A file of packets: pcapng (draft-ietf-opsawg-pcapng), of one interface, with nanoseconds and directions, in little-endian.
//!
//! ```text
//!   section header │ interface description │ packet │ packet │ … │ interface statistics (received, lost)
//! ```
use super::record::Record;
use shadowmesh_runtime_std::peer::Direction;
use std::{
    io::{self, Write},
    time::Duration,
};

/// `LINKTYPE_RAW`: IPv4 or IPv6 packets.
const LINK_RAW: u16 = 101;
/// `LINKTYPE_ETHERNET`.
const LINK_ETHERNET: u16 = 1;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Writes packets behind each other.
pub(super) struct Writer<W> {
    to: W,
    received: u64,
    last: Duration,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(super) fn new(to: W, interface: &str, is_ethernet: bool, snaplen: u32) -> io::Result<Self> {
        let mut writer = Self { to, received: 0, last: Duration::ZERO };
        let program = concat!("shadowmesh ", env!("CARGO_PKG_VERSION"));
        // byte order, version 1.0, a section of unknown length; shb_userappl
        let mut body = [0x1a2b_3c4d_u32.to_le_bytes(), [1, 0, 0, 0], [0xff; 4], [0xff; 4]].concat();
        option(&mut body, 4, program.as_bytes());
        writer.block(SECTION, body, true)?;
        let link = if is_ethernet { LINK_ETHERNET } else { LINK_RAW };
        let mut body = [&link.to_le_bytes()[..], &[0, 0], &snaplen.to_le_bytes()].concat();
        // if_name, if_tsresol: 10^-9 s
        option(&mut body, 2, interface.as_bytes());
        option(&mut body, 9, &[9]);
        writer.block(INTERFACE, body, true)?;
        Ok(writer)
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, record: &Record) -> io::Result<()> {
        self.received += 1;
        self.last = record.at;
        let kept = u32::try_from(record.bytes.len()).unwrap_or(u32::MAX);
        let mut body = [&[0; 4][..], &stamp(record.at), &kept.to_le_bytes(), &record.length.to_le_bytes(), &record.bytes].concat();
        pad(&mut body);
        // epb_flags: 1 = inbound, 2 = outbound, as this machine sees its interface
        let direction = if record.direction == Direction::In { 1_u32 } else { 2 };
        option(&mut body, 2, &direction.to_le_bytes());
        self.block(PACKET, body, true)
    }

    /// How many there are so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Hands what was written to who reads along.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Ends the file with what was received and lost.
    pub(super) fn finish(mut self, lost: u64) -> io::Result<W> {
        let mut body = [&[0; 4][..], &stamp(self.last)].concat();
        // isb_ifrecv, isb_ifdrop
        option(&mut body, 4, &(self.received + lost).to_le_bytes());
        option(&mut body, 5, &lost.to_le_bytes());
        self.block(STATISTICS, body, true)?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// One block, with its length in front and behind.
    fn block(&mut self, kind: u32, mut body: Vec<u8>, has_options: bool) -> io::Result<()> {
        if has_options {
            body.extend_from_slice(&[0; 4]); // opt_endofopt
        }
        let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_le_bytes();
        self.to.write_all(&[&kind.to_le_bytes()[..], &length, &body, &length].concat())
    }
}

/// Nanoseconds, the upper half first.
fn stamp(at: Duration) -> [u8; 8] {
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((nanos >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(nanos as u32).to_le_bytes());
    bytes
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

/// All parts begin at multiples of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and body of each block, after a look at both lengths.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = u32::from_le_bytes(file[4..8].try_into().expect("four bytes"));
            let (block, rest) = file.split_at(length as usize);
            assert_eq!((block.len() % 4, &block[block.len() - 4..]), (0, &file[4..8]));
            blocks.push((u32::from_le_bytes(block[..4].try_into().expect("four bytes")), block[8..block.len() - 4].to_vec()));
            file = rest;
        }
        blocks
    }

    #[test]
    fn a_file_holds_what_was_put_into_it() {
        let mut writer = Writer::new(Vec::new(), "mesh0", false, 4).expect("memory takes all");
        let at = Duration::new(1_700_000_000, 123_456_789);
        for (direction, bytes) in [(Direction::Out, b"\x45abcd"), (Direction::In, b"\x60wxyz")] {
            let record = Record { at, direction, length: 99, bytes: bytes.to_vec(), lost: 0 };
            writer.packet(&record).expect("memory takes all");
        }
        let file = writer.finish(7).expect("memory takes all");
        let blocks = blocks(&file);
        assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, INTERFACE, PACKET, PACKET, STATISTICS]);
        assert_eq!(blocks[0].1[..8], [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
        assert_eq!(blocks[1].1[..8], [101, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(blocks[1].1[8..], *b"\x02\x00\x05\x00mesh0\0\0\0\x09\x00\x01\x00\x09\0\0\0\0\0\0\0");
        let packet = &blocks[3].1;
        let half = |at: usize| u64::from(u32::from_le_bytes(packet[at..at + 4].try_into().expect("four bytes")));
        assert_eq!(half(4) << 32 | half(8), 1_700_000_000_123_456_789);
        assert_eq!((half(12), half(16)), (5, 99));
        assert_eq!(packet[20..28], *b"\x60wxyz\0\0\0");
        assert_eq!(packet[28..], [2, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0], "inbound");
        assert_eq!(blocks[2].1[32], 2, "outbound");
        assert_eq!(blocks[4].1[12..28], [4, 0, 8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 8, 0]);
        assert_eq!(blocks[4].1[28], 7);
    }

    #[test]
    fn an_ethernet_interface_says_so() {
        let file = Writer::new(Vec::new(), "mesh0", true, 65_554).expect("memory takes all").finish(0).expect("memory takes all");
        assert_eq!(blocks(&file)[1].1[..2], LINK_ETHERNET.to_le_bytes());
    }
}
