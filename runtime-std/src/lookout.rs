//! Looks out for what changes the ways to others: addresses of this machine, its default routes, and sleep.
//!
//! ```text
//!   netlink ── News ──▶ a look is due, at most each 20 ms ──▶ list the addresses ──▶ others than before, or rerouted, or slept: tell
//!   safety net: each 60 s; where there is no netlink, each 10 s
//! ```
use crate::{
    interfaces,
    netlink::{Netlink, News},
};
use core::{net::IpAddr, time::Duration};
use shadowmesh_core::time::Instant;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// A look costs a fraction of a millisecond. The first word is followed at once; what comes within so long after it is one more look: an
/// address goes, the next one comes, and its routes behind it.
const MERGE: Duration = Duration::from_millis(20);
/// Without word of the kernel: a safety net where there is netlink, the only way where there is none.
const SAFETY_INTERVAL: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// A default route that is written again and again must not make us ask all peers again and again: once a second, and some at once, since
/// routes come in pieces.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
const TELL_BURST: Duration = Duration::from_secs(4);
/// The clock that counts sleep went ahead of the other by so much: this machine slept. Reading two clocks takes less.
const SLEPT: Duration = Duration::from_millis(500);

/// Addresses of this machine with prefix length.
pub(crate) type Addresses = Vec<(IpAddr, u8)>;

/// The lookout of one peer.
pub(crate) struct Lookout {
    /// The overlay's own interface.
    except: Option<String>,
    netlink: Option<Netlink>,
    known: Option<Addresses>,
    look_at: Instant,
    looked_at: Option<Instant>,
    /// The ways to others may be new ones, though the addresses are the same; to be told by then.
    tell_at: Option<Instant>,
    /// So far is told: each telling of a route moves this on by `TELL_INTERVAL`, and it may lie `TELL_BURST` ahead.
    told_until: Instant,
    /// Sleep of this machine since it booted.
    slept: Duration,
}

impl Lookout {
    /// A first look is due at once. `slept` is how long this machine has slept since it booted.
    pub(crate) fn new(now: Instant, slept: Duration, except: Option<String>) -> Self {
        Self { except, netlink: None, known: None, look_at: now, looked_at: None, tell_at: None, told_until: now, slept }
    }

    /// Listens to the kernel from now on. `watch` gets the socket and has to see to it that [`Lookout::hear`] is called whenever something
    /// can be read there.
    pub(crate) fn listen(&mut self, watch: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>) {
        let listening = Netlink::open().and_then(|netlink| watch(netlink.as_fd()).map(|()| netlink));
        match listening {
            Ok(netlink) => self.netlink = Some(netlink),
            Err(why) => tracing::info!(%why, "changes of addresses are noticed only every {} s", POLL_INTERVAL.as_secs()),
        }
    }

    /// The kernel has something to say. True when there may be more.
    ///
    /// # Errors
    /// It says nothing any more, and should not be watched.
    pub(crate) fn hear(&mut self, now: Instant) -> io::Result<bool> {
        let Some(netlink) = &self.netlink else { return Err(io::ErrorKind::NotConnected.into()) };
        match netlink.hear() {
            Ok(news) => {
                self.take(now, news);
                Ok(news.more)
            }
            Err(why) => {
                tracing::warn!(%why, "the kernel tells no changes of addresses any more: they are noticed every {} s", POLL_INTERVAL.as_secs());
                self.netlink = None;
                self.look_at = now;
                Err(why)
            }
        }
    }

    fn take(&mut self, now: Instant, news: News) {
        if news.addresses || news.routes {
            let merged = self.looked_at.map_or(now, |at| now.max(at + MERGE));
            self.look_at = self.look_at.min(merged);
        }
        if news.routes {
            self.tell(now);
        }
    }

    /// How long this machine has slept since it booted; true when that has become more.
    pub(crate) fn slept(&mut self, now: Instant, slept: Duration) {
        let before = core::mem::replace(&mut self.slept, slept);
        let more = slept.saturating_sub(before);
        if more >= SLEPT {
            tracing::debug!(seconds = more.as_secs(), "this machine slept");
            self.look_at = now;
            self.tell(now);
        }
    }

    /// Whoever asks has to hear the addresses, changed or not.
    fn tell(&mut self, now: Instant) {
        let merged = self.looked_at.map_or(now, |at| now.max(at + MERGE));
        let at = merged.max(now + self.told_until.since(now).saturating_sub(TELL_BURST));
        self.tell_at = Some(self.tell_at.map_or(at, |known| known.min(at)));
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.tell_at.map_or(self.look_at, |at| at.min(self.look_at))
    }

    /// Looks when it is time to: the addresses without those of the overlay's interface, when there is news of them or of the ways.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Addresses> {
        if self.deadline() > now {
            return None;
        }
        self.looked_at = Some(now);
        self.look_at = now + if self.netlink.is_some() { SAFETY_INTERVAL } else { POLL_INTERVAL };
        match interfaces::local_addresses(self.except.as_deref()) {
            Ok(found) => self.compare(now, found.iter().map(|a| (a.address, a.prefix)).collect()),
            Err(why) => {
                tracing::warn!(%why, "cannot list the addresses of this machine");
                None
            }
        }
    }

    fn compare(&mut self, now: Instant, found: Addresses) -> Option<Addresses> {
        let is_due = self.tell_at.is_some_and(|at| at <= now);
        if self.known.as_ref() == Some(&found) && !is_due {
            return None;
        }
        if is_due {
            self.tell_at = None;
            self.told_until = self.told_until.max(now) + TELL_INTERVAL;
        }
        Some(self.known.insert(found).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: News = News { addresses: true, routes: false, more: false };
    const ROUTE: News = News { addresses: false, routes: true, more: false };
    const START: Instant = Instant::from_millis(100_000);

    fn after(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    /// One that has looked once.
    fn lookout() -> Lookout {
        let mut lookout = Lookout::new(START, Duration::ZERO, None);
        assert!(lookout.look(START).is_some(), "the first look tells what there is");
        lookout
    }

    #[test]
    fn word_of_the_kernel_is_followed_at_once_and_more_of_it_is_merged() {
        let mut lookout = lookout();
        assert_eq!(lookout.deadline(), START + POLL_INTERVAL, "this one has no netlink");
        lookout.take(after(1_000), ADDRESS);
        assert_eq!(lookout.deadline(), after(1_000));
        assert_eq!(lookout.look(after(1_000)), None, "nothing is new");
        for millis in 1_001..1_010 {
            lookout.take(after(millis), ADDRESS);
            assert_eq!(lookout.deadline(), after(1_000) + MERGE);
        }
    }

    #[test]
    fn other_addresses_are_told_and_so_is_a_default_route_but_not_again_and_again() {
        let mut lookout = lookout();
        let one = vec![(IpAddr::from([192, 0, 2, 1]), 24)];
        assert_eq!(lookout.compare(after(2_000), one.clone()), Some(one.clone()));
        assert_eq!(lookout.compare(after(2_001), one.clone()), None);
        for _ in 0..5 {
            lookout.take(after(2_100), ROUTE);
            assert_eq!(lookout.compare(after(2_100), one.clone()), Some(one.clone()), "routes come in pieces");
        }
        lookout.take(after(2_100), ROUTE);
        assert_eq!(lookout.compare(after(2_100), one.clone()), None, "but not for ever");
        assert_eq!(lookout.tell_at, Some(after(3_100)));
        assert_eq!(lookout.compare(after(3_100), one.clone()), Some(one.clone()));
        assert_eq!(lookout.compare(after(9_000), one), None);
    }

    #[test]
    fn a_machine_that_slept_looks_anew_and_tells() {
        let mut lookout = lookout();
        lookout.slept(after(3_000), SLEPT / 2);
        assert_eq!(lookout.tell_at, None, "two clocks are not read at one instant");
        lookout.slept(after(3_000), SLEPT / 2 + Duration::from_mins(1));
        assert_eq!(lookout.deadline(), after(3_000));
        assert!(lookout.look(after(3_000)).is_some(), "the same addresses");
        lookout.slept(after(9_000), SLEPT / 2 + Duration::from_mins(1));
        assert_eq!(lookout.tell_at, None, "it did not sleep since");
    }

    #[test]
    fn with_netlink_the_look_of_the_safety_net_is_rare_and_without_it_is_not() {
        let mut lookout = Lookout::new(START, Duration::ZERO, None);
        lookout.listen(|_| Ok(()));
        lookout.look(START);
        assert_eq!(lookout.deadline(), START + SAFETY_INTERVAL);
        let mut lookout = Lookout::new(START, Duration::ZERO, None);
        lookout.listen(|_| Err(io::ErrorKind::PermissionDenied.into()));
        lookout.look(START);
        assert_eq!(lookout.deadline(), START + POLL_INTERVAL);
        assert!(lookout.hear(START).is_err(), "there is nothing to watch");
    }
}
