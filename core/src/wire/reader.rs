//! The one way in which bytes from outside are read: a cursor that checks each length before it is used.
use core::fmt;

/// A message that does not follow its layout; the text names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// A cursor over bytes that came in. Each read takes from the front or refuses, naming the field.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Number of bytes not yet read.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True when everything was read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed(field))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes, copied out.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed(field))?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// Takes one reserved byte, which must be zero.
    pub fn zero(&mut self, field: &'static str) -> Result<(), Malformed> {
        if self.u8(field)? == 0 { Ok(()) } else { Err(Malformed(field)) }
    }

    /// All that is left, at most `max_len` bytes.
    pub fn rest(&mut self, max_len: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        if self.rest.len() > max_len {
            return Err(Malformed(field));
        }
        Ok(core::mem::take(&mut self.rest))
    }

    /// Demands that nothing is left.
    pub fn end(&self, field: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(field)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_big_endian_and_keeps_count() {
        let mut reader = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 9, 8]);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16("b"), Ok(2));
        assert_eq!(reader.u32("c"), Ok(3));
        assert_eq!(reader.u64("d"), Ok(4));
        assert_eq!(reader.remaining(), 2);
        assert_eq!(reader.bytes(2, "e"), Ok(&[9_u8, 8][..]));
        assert_eq!(reader.end("tail"), Ok(()));
    }

    #[test]
    fn refuses_what_is_not_there_and_takes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32("word"), Err(Malformed("word")));
        assert_eq!(reader.bytes(4, "bytes"), Err(Malformed("bytes")));
        assert_eq!(reader.bytes(usize::MAX, "bytes"), Err(Malformed("bytes")));
        assert_eq!(reader.remaining(), 3);
        assert_eq!(reader.rest(2, "rest"), Err(Malformed("rest")));
        assert_eq!(reader.end("tail"), Err(Malformed("tail")));
        assert_eq!(reader.zero("reserved"), Err(Malformed("reserved")));
    }
}
