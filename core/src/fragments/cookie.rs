//! The cookie that shows that an address was really used (protocol 8.6): a function of the address and a secret, so nothing is kept for it.
use super::{Cookie, first_half};
use crate::{
    crypto::hash::HmacKey,
    time::{Duration, Instant},
    wire::addr::socket_bytes,
};
use core::net::SocketAddr;
use zeroize::Zeroizing;

/// Life of a secret.
pub(super) const RENEW_AFTER: Duration = Duration::from_mins(2);
/// The secret before is good for so long after it was replaced.
pub(super) const OLD_FOR: Duration = Duration::from_secs(10);

struct Secret {
    key: HmacKey,
    made_at: Instant,
}

/// Makes cookies and knows them again.
#[derive(Default)]
pub struct Cookies {
    current: Option<Secret>,
    previous: Option<Secret>,
}

impl Cookies {
    /// Makes a secret of fresh bytes where there is none, or the one that is there is too old.
    pub fn renew(&mut self, now: Instant, fresh: impl FnOnce() -> Zeroizing<[u8; 32]>) {
        if self.current.as_ref().is_none_or(|current| now.since(current.made_at) >= RENEW_AFTER) {
            self.previous = self.current.replace(Secret { key: HmacKey::new(&*fresh()), made_at: now });
        }
    }

    /// The cookie of an address in this attempt, by the secret of now.
    pub fn cookie(&self, remote: SocketAddr, sid: u32) -> Option<Cookie> {
        self.current.as_ref().map(|secret| secret.cookie(remote, sid))
    }

    /// The cookies that are taken from this address in this attempt: one, or two shortly after a secret was replaced.
    pub fn taken(&self, now: Instant, remote: SocketAddr, sid: u32) -> impl Iterator<Item = Cookie> {
        // one that nobody renewed in time is old all the same
        let current = self.current.as_ref().filter(|secret| now.since(secret.made_at) < RENEW_AFTER + OLD_FOR);
        let previous = self.previous.as_ref().filter(|secret| now.since(secret.made_at) < RENEW_AFTER + OLD_FOR);
        let cookies = [current, previous].map(|secret| secret.map(|secret| secret.cookie(remote, sid)));
        cookies.into_iter().flatten()
    }
}

impl Secret {
    /// protocol 8.6: HMAC(secret, ip ‖ port ‖ `sid_i`)[..16], the address in the form of 1.5
    fn cookie(&self, remote: SocketAddr, sid: u32) -> Cookie {
        first_half(self.key.mac(&[&socket_bytes(remote), &sid.to_be_bytes()]))
    }
}
