//! Where fragments come in at the responder: first the tag, then the cookie, and only then a place in memory (protocol 8.6).
use super::{Cookies, FragmentKey, Inbox, reply};
use crate::{
    bound::Bound,
    drops::Drop,
    handshake::Mac1Key,
    time::Instant,
    wire::{Fragment, FragmentKind},
};
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Addresses from which fragments are gathered at one time, and those of them with one IP address.
const PLACES_MAX: usize = 256;
const PLACES_PER_IP: usize = 16;

/// What became of a fragment.
pub enum Arrived {
    /// Its sender has to show that it is there: this goes back to it.
    Asked(Vec<u8>),
    /// It is kept, or is here already.
    Kept,
    /// With it a message is whole.
    Whole {
        /// Which.
        kind: FragmentKind,
        /// The session number that the initiator chose.
        sid: u32,
        /// Makes the tags of what is answered.
        key: FragmentKey,
        /// The message.
        message: Vec<u8>,
    },
}

/// The door of a responder.
#[derive(Default)]
pub struct Door {
    cookies: Cookies,
    /// One for each address that has shown itself.
    places: BTreeMap<SocketAddr, Inbox>,
}

impl Door {
    /// A fragment of INIT or FIN has come from there, for whom `mac1` is the key of. `fresh`: bytes for a new secret, when one is due.
    pub fn take(
        &mut self,
        now: Instant,
        mac1: &Mac1Key,
        remote: SocketAddr,
        fragment: &Fragment<'_>,
        fresh: impl FnOnce() -> Zeroizing<[u8; 32]>,
    ) -> Result<Arrived, Drop> {
        if fragment.kind == FragmentKind::Resp {
            return Err(Drop::Unexpected);
        }
        if !fragment.with_cookie {
            // the first alone: it is the longest, so the answer is never larger
            if fragment.index != 0 {
                return Err(Drop::Unexpected);
            }
            if !FragmentKey::first(mac1).verify(fragment) {
                return Err(Drop::Forged);
            }
            self.cookies.renew(now, fresh);
            let cookie = self.cookies.cookie(remote, fragment.sid).ok_or(Drop::Unexpected)?;
            return Ok(Arrived::Asked(reply(mac1, fragment, cookie)));
        }
        let keys = self.cookies.taken(now, remote, fragment.sid).map(|cookie| FragmentKey::with_cookie(mac1, &cookie));
        let key = keys.into_iter().find(|key| key.verify(fragment)).ok_or(Drop::Forged)?;
        self.keep(now, remote, fragment, key)
    }

    /// A fragment of an address that was shown to be there.
    fn keep(&mut self, now: Instant, remote: SocketAddr, fragment: &Fragment<'_>, key: FragmentKey) -> Result<Arrived, Drop> {
        self.expire(now);
        match self.places.get(&remote) {
            Some(place) if place.is_of(fragment) => {}
            Some(place) if !place.gives_way_to(fragment) => return Err(Drop::Late),
            None if self.is_full_for(remote.ip()) => return Err(Drop::HandshakeRate),
            Some(_) | None => _ = self.places.insert(remote, Inbox::new(now, fragment)),
        }
        let Some(message) = self.places.get_mut(&remote).and_then(|place| place.put(fragment)) else { return Ok(Arrived::Kept) };
        self.places.remove(&remote);
        Ok(Arrived::Whole { kind: fragment.kind, sid: fragment.sid, key, message })
    }

    fn is_full_for(&self, ip: IpAddr) -> bool {
        self.places.len() >= PLACES_MAX || self.places.keys().filter(|remote| remote.ip() == ip).count() >= PLACES_PER_IP
    }

    /// Gives up what has waited for too long.
    pub fn expire(&mut self, now: Instant) {
        self.places.retain(|_, place| place.until() > now);
    }

    /// When something is given up next.
    pub fn deadline(&self) -> Option<Instant> {
        self.places.values().map(Inbox::until).min()
    }

    /// What it keeps, beside the most.
    pub fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("addresses that send a handshake in fragments", self.places.len(), PLACES_MAX));
        let bytes = self.places.values().map(Inbox::held).sum();
        each(Bound::new("bytes of handshakes in fragments", bytes, PLACES_MAX * crate::handshake::FIN_LEN_MAX));
    }
}
