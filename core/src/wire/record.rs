//! Records: the 8-byte header before each frame on a stream transport (protocol 9.1).
//!
//! A WebSocket message whose first byte is 30 or 31 is a sequence of records; any other message is one bare message.
//! Client to relay: FWD, the handle names the destination. Relay to client: DLV, the handle names the source.
//! On a direct connection: FWD with handle 0.
use super::{Malformed, Reader, TYPE_DLV, TYPE_FWD};
use crate::id::Handle;

/// Length of the header of a record in bytes.
pub const RECORD_HEADER_LEN: usize = 8;

/// Set on handshake and PATH messages: first in the relay's queue (protocol 9.2).
pub const RECORD_FLAG_URGENT: u8 = 1;

/// One record of a WebSocket message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// `TYPE_FWD` or `TYPE_DLV`.
    pub kind: u8,
    /// `RECORD_FLAG_URGENT` or 0; unknown bits are ignored.
    pub flags: u8,
    /// Destination (FWD) or source (DLV); 0 on a direct connection.
    pub handle: Handle,
    /// A handshake message, sealed frame or PATH message; at least one byte.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Appends the header and the payload.
    ///
    /// # Panics
    /// When the payload is longer than 65,535 bytes: our own fault, since frames are bounded far below.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let len = u16::try_from(self.payload.len()).expect("a record's payload fits its 16-bit length");
        out.extend_from_slice(&record_header(self.kind, self.flags, self.handle, len));
        out.extend_from_slice(self.payload);
    }
}

/// The header: type, flags, length of the payload, handle.
pub const fn record_header(kind: u8, flags: u8, handle: Handle, payload_len: u16) -> [u8; RECORD_HEADER_LEN] {
    let [l0, l1] = payload_len.to_be_bytes();
    let [h0, h1, h2, h3] = handle.0.to_be_bytes();
    [kind, flags, l0, l1, h0, h1, h2, h3]
}

/// Handle and payload length of the record that `message` begins with, when it is whole: for walking over it in place.
pub fn peek_record(message: &[u8]) -> Option<(Handle, usize)> {
    let record = Records::new(message).next()?.ok()?;
    Some((record.handle, record.payload.len()))
}

/// The records of one WebSocket message in turn; stops after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    reader: Reader<'a>,
}

impl<'a> Records<'a> {
    /// Starts at the first record of `message`.
    pub const fn new(message: &'a [u8]) -> Self {
        Self { reader: Reader::new(message) }
    }

    fn record(&mut self) -> Result<Record<'a>, Malformed> {
        let kind = self.reader.u8("record type")?;
        if kind != TYPE_FWD && kind != TYPE_DLV {
            return Err(Malformed("record type"));
        }
        let flags = self.reader.u8("record flags")?;
        let len = self.reader.u16("record length")?;
        if len == 0 {
            return Err(Malformed("record length"));
        }
        let handle = Handle(self.reader.u32("record handle")?);
        let payload = self.reader.bytes(usize::from(len), "record payload")?;
        Ok(Record { kind, flags, handle, payload })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol 9.1
    #[test]
    fn golden_two_records() {
        let mut out = Vec::new();
        Record { kind: TYPE_FWD, flags: 0, handle: Handle(0x0102_0304), payload: &[0xaa, 0xbb] }.emit(&mut out);
        Record { kind: TYPE_DLV, flags: RECORD_FLAG_URGENT, handle: Handle(5), payload: &[0xcc] }.emit(&mut out);
        assert_eq!(out, [0x30, 0, 0, 2, 1, 2, 3, 4, 0xaa, 0xbb, 0x31, 1, 0, 1, 0, 0, 0, 5, 0xcc]);
        let records: Vec<_> = Records::new(&out).collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1], Ok(Record { kind: TYPE_DLV, flags: 1, handle: Handle(5), payload: &[0xcc] }));
    }

    // protocol 9.1
    #[test]
    fn stops_after_the_first_error() {
        let cut = [0x30, 0, 0, 1, 0, 0, 0, 9, 0x10, 0x30, 0, 0, 5, 0, 0, 0, 9, 1];
        let records: Vec<_> = Records::new(&cut).collect();
        assert!(records[0].is_ok());
        assert_eq!(records[1], Err(Malformed("record payload")));
        assert_eq!(records.len(), 2);
        assert_eq!(Records::new(&[0x30, 0, 0, 0, 0, 0, 0, 1]).next(), Some(Err(Malformed("record length"))));
        assert_eq!(Records::new(&[0x32, 0, 0, 1, 0, 0, 0, 1, 1]).next(), Some(Err(Malformed("record type"))));
        assert_eq!(Records::new(&[]).next(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let good: usize = Records::new(&bytes).flatten().map(|r| r.payload.len() + RECORD_HEADER_LEN).sum();
            prop_assert!(good <= bytes.len());
        }

        #[test]
        fn round_trip(list in proptest::collection::vec((any::<bool>(), any::<u8>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 1..90)), 0..9)) {
            let mut out = Vec::new();
            let records: Vec<_> = list.iter().map(|(dlv, flags, handle, payload)| Record {
                kind: if *dlv { TYPE_DLV } else { TYPE_FWD }, flags: *flags, handle: Handle(*handle), payload,
            }).collect();
            for record in &records { record.emit(&mut out); }
            prop_assert_eq!(Records::new(&out).collect::<Result<Vec<_>, _>>(), Ok(records));
        }
    }
}
