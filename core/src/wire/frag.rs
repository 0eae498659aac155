//! FRAG and `COOKIE_REPLY` (protocol 8.6): a handshake message by UDP, in fragments. Layout only; tags are made and checked in
//! `crate::fragments`.
//!
//! ```text
//!   FRAG 27         = type | kind | index | mark | sid_i u32 | total u16 | tag 16 | body ≤ 926          952 bytes at most
//!   kind            = 01 INIT, 02 RESP, 03 FIN; with the bit 80 the tag is under the cookie
//!   COOKIE_REPLY 28 = type | 0, 0, 0 | sid_i u32 | cookie 16 | mac 16                                  40 bytes
//! ```
//! Where a fragment stands follows from its index, and how long it is from that and the total: fragments of one message can neither overlap
//! nor leave a gap.
use super::{Malformed, Reader, TYPE_COOKIE_REPLY, TYPE_FIN, TYPE_FRAG, TYPE_INIT, TYPE_RESP};
use crate::handshake::{FIN_LEN_MAX, FIN_LEN_MIN, INIT_LEN_MAX, INIT_LEN_MIN, RESP_LEN_MAX, RESP_LEN_MIN};

/// Bytes before the body: ten of fields and the tag.
pub const FRAGMENT_HEADER_LEN: usize = 26;
/// Bytes of a fragment's tag.
pub const FRAGMENT_TAG_LEN: usize = 16;
/// Bytes of the message in each fragment but the last: an IP packet of 1,000 bytes carries it, with the headers of IPv6 and UDP.
pub const FRAGMENT_BODY_LEN: usize = 926;
/// Bytes of a fragment at most.
pub const FRAGMENT_MAX_LEN: usize = FRAGMENT_HEADER_LEN + FRAGMENT_BODY_LEN;
/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 16;
/// Bytes of `COOKIE_REPLY`.
pub const COOKIE_REPLY_LEN: usize = 40;

/// The tag is under the cookie.
const WITH_COOKIE: u8 = 0x80;

/// Which message a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FragmentKind {
    /// The first message of a handshake.
    Init,
    /// Its answer.
    Resp,
    /// The last one.
    Fin,
}

impl FragmentKind {
    /// The first byte of the message.
    pub const fn code(self) -> u8 {
        match self {
            Self::Init => TYPE_INIT,
            Self::Resp => TYPE_RESP,
            Self::Fin => TYPE_FIN,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            TYPE_INIT => Some(Self::Init),
            TYPE_RESP => Some(Self::Resp),
            TYPE_FIN => Some(Self::Fin),
            _ => None,
        }
    }

    /// Whether a message of this kind can have so many bytes.
    fn has_len(self, total: u16) -> bool {
        let range = match self {
            Self::Init => INIT_LEN_MIN..=INIT_LEN_MAX,
            Self::Resp => RESP_LEN_MIN..=RESP_LEN_MAX,
            Self::Fin => FIN_LEN_MIN..=FIN_LEN_MAX,
        };
        range.contains(&usize::from(total))
    }
}

/// A part of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Which message it is of.
    pub kind: FragmentKind,
    /// Its tag is under the cookie, not under the mac1 key alone.
    pub with_cookie: bool,
    /// Which part, from 0.
    pub index: u8,
    /// Tells messages of one kind and one attempt apart.
    pub mark: u8,
    /// The session number that the handshake's initiator chose.
    pub sid: u32,
    /// Bytes of the whole message.
    pub total: u16,
    /// Its tag.
    pub tag: [u8; FRAGMENT_TAG_LEN],
    /// Its part of the message.
    pub body: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Reads a whole FRAG.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let [first, kind, index, mark] = reader.array("fragment header")?;
        if first != TYPE_FRAG {
            return Err(Malformed("fragment type"));
        }
        let with_cookie = kind & WITH_COOKIE != 0;
        let kind = FragmentKind::from_code(kind & !WITH_COOKIE).ok_or(Malformed("fragment kind"))?;
        let sid = reader.u32("fragment sid")?;
        let total = reader.u16("fragment total")?;
        if !kind.has_len(total) {
            return Err(Malformed("fragment total"));
        }
        let tag = reader.array("fragment tag")?;
        let body = reader.rest(FRAGMENT_BODY_LEN, "fragment body")?;
        if Some(body.len()) != body_len(total, index) {
            return Err(Malformed("fragment body"));
        }
        Ok(Self { kind, with_cookie, index, mark, sid, total, tag, body })
    }

    /// Appends it all.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.fields());
        out.extend_from_slice(&self.tag);
        out.extend_from_slice(self.body);
    }

    /// What stands before the tag.
    pub fn fields(&self) -> [u8; FRAGMENT_HEADER_LEN - FRAGMENT_TAG_LEN] {
        let kind = self.kind.code() | if self.with_cookie { WITH_COOKIE } else { 0 };
        let ([s0, s1, s2, s3], [t0, t1]) = (self.sid.to_be_bytes(), self.total.to_be_bytes());
        [TYPE_FRAG, kind, self.index, self.mark, s0, s1, s2, s3, t0, t1]
    }

    /// Parts of its message.
    pub fn count(&self) -> usize {
        usize::from(self.total).div_ceil(FRAGMENT_BODY_LEN)
    }

    /// Where its body begins in the message.
    pub fn offset(&self) -> usize {
        usize::from(self.index) * FRAGMENT_BODY_LEN
    }
}

/// Bytes of the message in this fragment; None: it lies behind the end.
fn body_len(total: u16, index: u8) -> Option<usize> {
    let left = usize::from(total).checked_sub(usize::from(index) * FRAGMENT_BODY_LEN)?;
    (left > 0).then(|| left.min(FRAGMENT_BODY_LEN))
}

/// The answer to a first fragment without a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// That of the fragment.
    pub sid: u32,
    /// What tags must be under from now on.
    pub cookie: [u8; COOKIE_LEN],
    /// Over all before, and the tag of the fragment that is answered.
    pub mac: [u8; FRAGMENT_TAG_LEN],
}

impl CookieReply {
    /// Reads a whole `COOKIE_REPLY`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.array("cookie header")? {
            [TYPE_COOKIE_REPLY, 0, 0, 0] => {}
            [TYPE_COOKIE_REPLY, ..] => return Err(Malformed("cookie reserved bytes")),
            _ => return Err(Malformed("cookie type")),
        }
        let (sid, cookie, mac) = (reader.u32("cookie sid")?, reader.array("cookie")?, reader.array("cookie mac")?);
        reader.end("cookie length")?;
        Ok(Self { sid, cookie, mac })
    }

    /// Appends it all.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.fields());
        out.extend_from_slice(&self.mac);
    }

    /// What stands before the mac.
    pub fn fields(&self) -> [u8; COOKIE_REPLY_LEN - FRAGMENT_TAG_LEN] {
        let mut out = [0; COOKIE_REPLY_LEN - FRAGMENT_TAG_LEN];
        let all = [TYPE_COOKIE_REPLY, 0, 0, 0].into_iter().chain(self.sid.to_be_bytes()).chain(self.cookie);
        for (to, from) in out.iter_mut().zip(all) {
            *to = from;
        }
        out
    }
}

#[cfg(test)]
#[path = "frag/tests.rs"]
mod tests;
