//! A handshake by UDP (protocol 8.6): messages in fragments, and nothing for an address that has not shown that it is there.
//!
//! ```text
//!   initiator                                                      responder
//!   first fragment, tag under the mac1 key ─────────────────────▶ Door: tag holds ─▶ a cookie for this address, and nothing kept
//!            ◀───────────────────────────────── COOKIE_REPLY ────
//!   Parcel: all fragments, tags under the cookie ───────────────▶ Door: a place for them, at most 5 s ─▶ INIT, FIN
//!   Inbox ◀───────────────────────────── RESP in fragments ────── Parcel
//! ```
//! A tag needs the network's secret, and behind the first one the cookie, too: who is no member makes none, and who sees one pass can only
//! repeat it, from the address that it came from.
mod cookie;
mod door;
mod inbox;
mod parcel;
#[cfg(test)]
mod tests;

pub use cookie::Cookies;
pub use door::{Arrived, Door};
pub use inbox::Inbox;
pub use parcel::Parcel;

use crate::{
    crypto::hash::{HmacKey, equal, sha512_prefix},
    handshake::Mac1Key,
    wire::{COOKIE_LEN, COOKIE_REPLY_LEN, CookieReply, FRAGMENT_BODY_LEN, FRAGMENT_TAG_LEN, Fragment, FragmentKind},
};

/// What a responder gives an address, to be shown by the tags of what comes from there.
pub type Cookie = [u8; COOKIE_LEN];

const FRAGMENT: &[u8] = b"shadowmesh/1 fragment";
const REPLY: &[u8] = b"shadowmesh/1 cookie-reply";
const UNDER_COOKIE: &[u8] = b"shadowmesh/1 cookie";

/// Makes and checks the tags of fragments (protocol 8.6).
#[derive(Clone)]
pub struct FragmentKey {
    key: HmacKey,
    with_cookie: bool,
}

impl FragmentKey {
    /// For a first fragment, which asks for a cookie.
    pub fn first(mac1: &Mac1Key) -> Self {
        Self { key: mac1.hmac().clone(), with_cookie: false }
    }

    /// For all others.
    pub fn with_cookie(mac1: &Mac1Key, cookie: &Cookie) -> Self {
        Self { key: HmacKey::new(&mac1.hmac().mac(&[UNDER_COOKIE, cookie])), with_cookie: true }
    }

    /// The fragments of a message, in order. Of a message that no fragment can be of, none.
    pub fn cut(&self, kind: FragmentKind, sid: u32, message: &[u8]) -> Vec<Vec<u8>> {
        let Ok(total) = u16::try_from(message.len()) else { return Vec::new() };
        let [mark] = sha512_prefix(&[message]);
        let parts = message.chunks(FRAGMENT_BODY_LEN).zip(0_u8..);
        let fragment = |(body, index)| {
            let mut fragment = Fragment { kind, with_cookie: self.with_cookie, index, mark, sid, total, tag: [0; FRAGMENT_TAG_LEN], body };
            fragment.tag = self.tag(&fragment);
            let mut bytes = Vec::new();
            fragment.emit(&mut bytes);
            bytes
        };
        parts.map(fragment).collect()
    }

    /// Whether the tag of this fragment holds.
    pub fn verify(&self, fragment: &Fragment<'_>) -> bool {
        fragment.with_cookie == self.with_cookie && equal(&self.tag(fragment), &fragment.tag)
    }

    fn tag(&self, fragment: &Fragment<'_>) -> [u8; FRAGMENT_TAG_LEN] {
        first_half(self.key.mac(&[FRAGMENT, &fragment.fields(), fragment.body]))
    }
}

/// The answer to a first fragment whose tag holds.
pub(crate) fn reply(mac1: &Mac1Key, fragment: &Fragment<'_>, cookie: Cookie) -> Vec<u8> {
    let mut reply = CookieReply { sid: fragment.sid, cookie, mac: [0; FRAGMENT_TAG_LEN] };
    reply.mac = mac_of_reply(mac1, &reply, &fragment.tag);
    let mut bytes = Vec::with_capacity(COOKIE_REPLY_LEN);
    reply.emit(&mut bytes);
    bytes
}

/// The cookie in an answer to this first fragment of ours; None: it is none.
pub fn cookie_of(mac1: &Mac1Key, asked: &[u8], reply: &CookieReply) -> Option<Cookie> {
    let asked = Fragment::parse(asked).ok().filter(|asked| asked.sid == reply.sid)?;
    equal(&mac_of_reply(mac1, reply, &asked.tag), &reply.mac).then_some(reply.cookie)
}

fn mac_of_reply(mac1: &Mac1Key, reply: &CookieReply, tag: &[u8; FRAGMENT_TAG_LEN]) -> [u8; FRAGMENT_TAG_LEN] {
    first_half(mac1.hmac().mac(&[REPLY, tag, &reply.fields()]))
}

fn first_half(whole: [u8; 32]) -> [u8; 16] {
    core::array::from_fn(|at| whole[at])
}
