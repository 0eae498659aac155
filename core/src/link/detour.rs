//! A path of datagrams over a relay, where there is no direct one for long (protocol 8.8).
//!
//! ```text
//!   data on the relay path for 5 s, no direct path ─▶ ROUTE, REQ to the relay's UDP port ─▶ the other end asks and answers likewise
//!   RSP ─▶ sized like each path by UDP ─▶ better than the relay path, worse than any direct one
//!   a direct path has carried the traffic of both for 10 s, or the relay is gone ─▶ let go of
//! ```
//! Everything else is as with a direct path by UDP: proof, probes, suspicion, hedging over the relay path, death. But it never follows
//! anybody to another address, and it makes nothing that leads straight to the peer needless.
use super::{Link, direct::Direct};
use crate::{
    id::{Handle, PathId},
    node::Room,
    path::backoff::Backoff,
    plane::LinkTally,
    time::{Duration, Instant},
};
use core::net::SocketAddr;

/// A direct path has so long to be found before the relay is asked to pass datagrams on.
pub(super) const DETOUR_AFTER: Duration = Duration::from_secs(5);
/// A detour stays for so long beside a direct path that carries the traffic.
const DETOUR_RESTS: Duration = Duration::from_secs(10);
/// Wait after one that was not found or died; then doubling.
const AGAIN_FIRST: Duration = Duration::from_secs(10);
const AGAIN_MOST: Duration = Duration::from_mins(5);
/// One that lived so long was good.
const LIVED_WELL: Duration = Duration::from_secs(30);

/// What is known of the way over a relay by UDP.
#[derive(Default)]
pub(super) struct Detour {
    /// Frames of the overlay so far.
    carried: u64,
    /// Most peers need none.
    tries: Option<Box<Tries>>,
}

struct Tries {
    /// What a relay was told last: which one, the receiver, and whom we mean by it.
    named: Option<(usize, u32, Handle)>,
    again: Backoff,
    /// Where one failed, and how long none is asked for there.
    rests: Option<(SocketAddr, Instant)>,
}

impl Detour {
    /// The relay over which it leads.
    pub(super) fn relay(&self) -> Option<usize> {
        self.tries.as_ref()?.named.map(|(uplink, ..)| uplink)
    }

    fn tries(&mut self) -> &mut Tries {
        self.tries.get_or_insert_with(|| Box::new(Tries { named: None, again: Backoff::new(AGAIN_FIRST, AGAIN_MOST), rests: None }))
    }

    /// Whether one at this address failed lately.
    fn rests(&self, now: Instant, door: SocketAddr) -> bool {
        self.tries.as_ref().and_then(|tries| tries.rests).is_some_and(|(at, until)| at == door && until > now)
    }
}

impl Link {
    /// Whether new traffic goes over a relay by UDP.
    pub(super) fn is_on_detour(&self) -> bool {
        let main = self.steer.main();
        self.directs.iter().any(|direct| direct.path() == main && direct.is_detour())
    }

    /// Looks each second whether datagrams over the relay are worth the while.
    pub(super) fn consider_detour(&mut self, now: Instant, room: &mut Room, tally: &LinkTally) {
        let frames = tally.tx_frames + tally.rx_frames;
        let flows = core::mem::replace(&mut self.detour.carried, frames) < frames;
        let settled = now.since(self.steer.main_since()) >= DETOUR_RESTS;
        if self.is_direct() {
            // the other end may still need what this one does not
            let is_used = |direct: &&Direct| {
                let heard = tally.paths.iter().find(|path| path.path == direct.path()).and_then(|path| path.heard_at);
                heard.is_some_and(|at| now.since(at) < DETOUR_RESTS)
            };
            if settled && !self.directs.iter().filter(|direct| direct.is_detour()).any(|direct| is_used(&direct)) {
                self.drop_detours(now, room, None, "a direct path carries the traffic");
            }
            return;
        }
        let waits = now.since(self.steer.main_since()) < DETOUR_AFTER;
        if !flows || waits || self.live.is_none() || self.steer.main() != PathId::RELAY || !room.config.relay_udp {
            return;
        }
        if self.directs.iter().any(Direct::is_straight) {
            // it is held down, or about to be taken
            return;
        }
        if self.directs.iter().any(|direct| direct.is_detour() && direct.is_usable()) {
            self.consider(now, room);
        } else if !self.directs.iter().any(Direct::is_detour)
            && let Some(door) = self.relay_via().and_then(|(uplink, _, _)| room.door(uplink))
            && !self.detour.rests(now, door)
            && room.udp_port_for(door.ip()).is_some()
        {
            let _ = self.begin_flow(now, room, door, now);
        }
    }

    /// Tells the relay at this address, if it is one, whom we mean by what we send there.
    pub(super) fn name_receiver_at(&mut self, room: &mut Room, address: SocketAddr) {
        let receiver = self.live.as_ref().map(super::Live::remote);
        if let (Some(uplink), Some(receiver)) = (room.relay_at(address), receiver)
            && let Some(to) = self.relays.handle(uplink)
            && self.detour.tries().named.replace((uplink, receiver, to)) != Some((uplink, receiver, to))
        {
            room.name_receiver(uplink, receiver, to);
        }
    }

    /// A detour that was not found, or died: the next try is later.
    pub(super) fn detour_died(&mut self, now: Instant, room: &mut Room, dead: &Direct) {
        let tries = self.detour.tries();
        let lived_well = dead.usable_since().is_some_and(|since| now.since(since) >= LIVED_WELL);
        // another relay has done nothing wrong
        if lived_well || tries.rests.is_some_and(|(at, _)| at != dead.remote()) {
            tries.again.reset();
        }
        tries.rests = Some((dead.remote(), now + tries.again.fail(&mut room.entropy)));
        // what the relay knows may be gone, too
        tries.named = None;
    }

    /// This relay is gone, or the peer is not there any more.
    pub(super) fn leave_detour(&mut self, now: Instant, room: &mut Room, uplink: usize, why: &'static str) {
        let door = room.door(uplink);
        if door.is_some() {
            self.drop_detours(now, room, door, why);
        }
        if self.detour.relay() == Some(uplink) {
            self.detour.tries().named = None;
        }
    }

    fn drop_detours(&mut self, now: Instant, room: &mut Room, at: Option<SocketAddr>, why: &'static str) {
        let is_it = |direct: &&Direct| direct.is_detour() && at.is_none_or(|at| direct.remote() == at);
        while let Some(path) = self.directs.iter().find(is_it).map(Direct::path) {
            self.path_died(now, room, path, why);
        }
    }
}

#[cfg(test)]
#[path = "detour/tests.rs"]
mod tests;
