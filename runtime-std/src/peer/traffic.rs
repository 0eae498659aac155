//! The doors of a peer's control room for packets and datagrams, which come and go in batches.
//!
//! ```text
//!   interface ── packet, packet, … ── packets_over ─┐
//!   socket ───── datagrams ─────────────────────────┼─▶ Plane ─▶ Flows gather ─▶ at the end of the batch: a run for each flow
//!   room again ─ datagram_room ─────────────────────┘
//! ```
//!
//! Nothing is held back for longer than the batch that it belongs to, and there is no timer.
use super::{Control, Direction, Number, PeerDoors, lanes::Word};
use crate::room::{Room, TURN_PACKETS};
use core::time::Duration;
use shadowmesh_core::{id::ConnId, offload::Offload, plane::Sink, time::Instant, wire::RECORD_HEADER_LEN};

/// How often it is tried to send what has no route; the kernel's word of a change comes sooner.
const ROUTE_INTERVAL: Duration = Duration::from_millis(10);

impl<D: PeerDoors> Control<D> {
    /// One packet from the interface, or a large one with what is still to be done to it; how many packets that were. What it sends may wait
    /// for [`Control::packets_over`].
    pub fn packet(&mut self, now: Instant, offload: Offload, packet: &[u8]) -> usize {
        self.ports.gather();
        self.ports.see(Direction::Out, offload, packet);
        if self.inside.as_mut().is_some_and(|inside| inside.takes(packet)) {
            return 1;
        }
        self.plane.outbound_offloaded(now, offload, packet, &mut self.ports)
    }

    /// Lanes beyond the first have said something.
    pub(super) fn hear_lanes(&mut self, now: Instant) {
        self.ports.gather();
        let mut debtors = Vec::new();
        for (lane, word) in self.ports.lanes.hear() {
            match word {
                Word::Record(via, frame) => {
                    self.ports.send(via, &frame);
                    self.ports.lanes.owe(via.conn, lane, RECORD_HEADER_LEN + frame.len());
                    debtors.push(via.conn);
                }
                Word::Punt(conn, handle, mut bytes) => self.ports.punt(conn, handle, &mut bytes),
                Word::Stray(remote, mut bytes) => self.ports.stray(remote, &mut bytes),
                Word::Report(report) => self.ports.report(report),
                Word::Passed(mut what) => self.plane.passed(now, what.lend(), &mut self.ports),
                Word::Counted(counted) => self.ports.lanes.counted(lane, *counted),
                Word::Gone(why) => self.interface_gone(why),
            }
        }
        for conn in debtors {
            self.ports.pay(conn);
        }
        self.release();
    }

    /// There are no more packets at the moment, or it is the turn of others.
    pub fn packets_over(&mut self) {
        self.release();
    }

    /// Takes the datagrams that wait in a socket, up to a number; true when there may be more.
    pub fn datagrams(&mut self, now: Instant, number: Number) -> bool {
        let (mut taken, mut more) = (0, !self.is_busy());
        self.ports.gather();
        while more && taken < TURN_PACKETS {
            match self.ports.flows.socket(number).map(|socket| self.arrivals.receive(socket)) {
                Some(Ok(Some((remote, datagrams)))) => {
                    taken += datagrams.len().max(1);
                    let Ok(flow) = self.ports.flows.of(number, remote) else { continue };
                    self.plane.datagrams(now, flow, remote, datagrams, &mut self.ports);
                }
                Some(Ok(None)) | None => more = false,
                Some(Err(why)) => {
                    tracing::warn!(%why, "datagrams cannot be read for the moment");
                    more = false;
                }
            }
        }
        self.release();
        more
    }

    /// A socket has room again; true when that is still wanted.
    pub fn datagram_room(&mut self, now: Instant, number: Number) -> bool {
        if !self.ports.flows.flush(number) {
            return true;
        }
        self.room_again(now);
        false
    }

    /// Sends what waits for a route, where there is one again.
    pub(super) fn try_routes(&mut self, now: Instant) {
        self.route_at = now + ROUTE_INTERVAL;
        let freed = self.ports.flows.try_again();
        self.ports.await_room();
        if freed {
            self.room_again(now);
        }
    }

    /// Sends what was gathered. What has no route then wants an alarm.
    pub(super) fn release(&mut self) {
        self.ports.release();
        self.rearm();
    }

    /// Which flow does not matter: whatever waits for room looks for it anew.
    fn room_again(&mut self, now: Instant) {
        self.ports.gather();
        self.plane.writable(now, ConnId(0), &mut self.ports);
        self.release();
    }
}
