//! One session in the plane: its sending and its receiving half, and what passes between them.
use super::{
    Install, Paths, Sink, Via,
    board::Peer,
    bridge::Bridge,
    order::newer,
    pieces::Pieces,
    recv::{Opened, RecvLane},
    ring::{Pool, Ring},
    send::SendLane,
    shard::Place,
};
use crate::{
    config::Mode,
    drops::{Drop, Drops},
    id::LinkId,
    offload::{Checksum, Layout},
    session::{EpochKeys, Sealer},
    time::Instant,
    wire::{FrameHeader, INNER_ETHERNET, INNER_ETHERNET_PARTIAL, INNER_IP, INNER_IP_PARTIAL, LANE_CONTROL_BIT, LaneControl},
};
use std::sync::Arc;

/// What an authentic frame said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Nothing for the other rooms.
    Plain,
    /// The other end says that this session has ended.
    Ended,
}

/// Both halves of one data lane of a session.
#[cfg_attr(test, derive(Clone, Hash))]
pub(super) struct Session {
    pub(super) link: LinkId,
    /// Our index of it.
    pub(super) local: u32,
    pub(super) tx: SendLane,
    pub(super) rx: RecvLane,
    /// What came of packets that are not whole yet.
    pub(super) pieces: Pieces,
    /// The armed timer.
    pub(super) timer: Option<Instant>,
    /// A newer session has taken over; this one goes away then.
    pub(super) retire_at: Option<Instant>,
    /// The session whose end this one waits for, by our index (protocol 3.10).
    pub(super) after: Option<u32>,
    /// The other end has said that nothing more comes.
    pub(super) ended: bool,
    /// Seals as soon as the other end has sealed in its epoch (protocol 4.5).
    next_sealer: Option<Arc<Sealer>>,
}

impl Session {
    pub(super) fn new(now: Instant, link: LinkId, install: &Install, mode: Mode, pool: Pool, lane: u8) -> Self {
        let sealer = Arc::clone(&install.keys.seal);
        let place = Place { lane, lanes: install.lanes };
        let ring = Ring::sharing(pool, &install.slabs);
        Self {
            link,
            local: install.local,
            tx: SendLane::new(now, link, install.remote, sealer, install.main, mode, ring).at(place),
            rx: RecvLane::new(&install.keys, mode == Mode::Reliable, place),
            pieces: Pieces::default(),
            timer: None,
            retire_at: None,
            after: None,
            ended: false,
            next_sealer: None,
        }
    }

    pub(super) fn add_keys(&mut self, now: Instant, keys: &EpochKeys, seal: bool) {
        if !self.rx.has_epoch(keys.epoch) {
            self.rx.add_epoch(now, keys);
        }
        if seal {
            self.tx.set_sealer(Arc::clone(&keys.seal));
        } else {
            self.next_sealer = Some(Arc::clone(&keys.seal));
        }
        self.follow_epoch();
    }

    /// The first frame of a new epoch that comes here may be one of this lane: no word of the control room is needed.
    fn follow_epoch(&mut self) {
        if let Some(sealer) = self.next_sealer.take_if(|next| next.epoch() <= self.rx.newest_opened()) {
            self.tx.set_sealer(sealer);
        }
    }

    /// One sealed frame for this session. None: it is not authentic.
    #[expect(clippy::too_many_arguments, reason = "the rooms a frame crosses, each borrowed apart")]
    pub(super) fn inbound(
        &mut self,
        now: Instant,
        header: FrameHeader,
        via: Via,
        frame: &mut [u8],
        peer: &mut Peer,
        bridge: &mut Bridge,
        drops: &mut Drops,
        sink: &mut dyn Sink,
    ) -> Option<Came> {
        let (link, pieces) = (self.link, &mut self.pieces);
        let mut ended = false;
        match self.rx.open(now, header, frame) {
            Err(reason) => {
                drops.count(reason);
                return None;
            }
            Ok(Opened::Data(plain)) => {
                let path = peer.paths.heard(now, via);
                let deliver = &mut |at, plain: &[u8]| hand_in(now, link, (at, plain), pieces, bridge, drops, sink);
                self.rx.take(now, header, via, path, plain, deliver);
            }
            Ok(Opened::Control(body)) => match LaneControl::parse(body) {
                Err(_) => drops.count(Drop::Malformed),
                // protocol 7.2 to 7.4: a message speaks of its own lane only
                Ok(message) if LANE_CONTROL_BIT | message.lane() != header.counter.lane() => drops.count(Drop::Malformed),
                Ok(LaneControl::Receipt(receipt)) => {
                    peer.paths.heard(now, via);
                    if self.tx.receipt(now, &mut peer.paths, &receipt) {
                        self.tx.fill_holes(now, &peer.paths, sink);
                    } else {
                        drops.count(Drop::Receipt);
                    }
                }
                Ok(LaneControl::Switch { generation, start, .. }) => {
                    let deliver = &mut |at, plain: &[u8]| hand_in(now, link, (at, plain), pieces, bridge, drops, sink);
                    self.rx.order().switch(now, generation, start, deliver);
                    let path = peer.paths.of(via);
                    self.rx.owe_receipt(now, via, path);
                }
                Ok(LaneControl::Drain { generation, start, .. }) => {
                    // a generation that no SWITCH announced: the session ends here (protocol 3.10, 7.3)
                    ended = newer(generation, self.rx.order().generation());
                    let deliver = &mut |at, plain: &[u8]| hand_in(now, link, (at, plain), pieces, bridge, drops, sink);
                    // what was sent before it on a path of datagrams may come behind it
                    self.rx.order().drain(now, generation, start, !via.conn.is_flow(), deliver);
                }
            },
        }
        self.ended |= ended;
        self.follow_epoch();
        self.answer(now, sink);
        Some(if ended { Came::Ended } else { Came::Plain })
    }

    /// Whether all that was sent in it has come out.
    pub(super) fn is_done(&self) -> bool {
        self.ended && !self.rx.is_gated()
    }

    pub(super) fn open_gate(&mut self, now: Instant, bridge: &mut Bridge, drops: &mut Drops, sink: &mut dyn Sink) {
        let (link, pieces) = (self.link, &mut self.pieces);
        let deliver = &mut |at, plain: &[u8]| hand_in(now, link, (at, plain), pieces, bridge, drops, sink);
        self.rx.order().open_gate(now, deliver);
    }

    pub(super) fn deadline(&self, paths: &Paths) -> Option<Instant> {
        [self.tx.deadline(paths), self.rx.deadline(), self.retire_at].into_iter().flatten().min()
    }

    pub(super) fn alarm(&mut self, now: Instant, peer: &mut Peer, bridge: &mut Bridge, drops: &mut Drops, sink: &mut dyn Sink) {
        {
            let (link, pieces) = (self.link, &mut self.pieces);
            let deliver = &mut |at, plain: &[u8]| hand_in(now, link, (at, plain), pieces, bridge, drops, sink);
            self.rx.alarm(now, deliver);
        }
        self.answer(now, sink);
        self.tx.alarm(now, &peer.paths, sink);
        self.tx.fill_holes(now, &peer.paths, sink);
        if self.retire_at.is_some() {
            // an old session has no new packets, but may owe copies
            self.tx.pump_copies(now, &peer.paths, sink);
        }
    }

    /// Sends the receipt that is due.
    fn answer(&mut self, now: Instant, sink: &mut dyn Sink) {
        if self.rx.receipt_is_due(now)
            && let Some((receipt, via, second)) = self.rx.receipt(now)
        {
            let receipt = LaneControl::Receipt(receipt);
            self.tx.send_control_via(via, &receipt, sink);
            if let Some(second) = second {
                self.tx.send_control_via(second, &receipt, sink);
            }
        }
    }
}

/// An ordered frame on its last step: whole, right kind, right source, to the interface.
fn hand_in(
    now: Instant,
    link: LinkId,
    (sequence, plain): (u64, &[u8]),
    pieces: &mut Pieces,
    bridge: &mut Bridge,
    drops: &mut Drops,
    sink: &mut dyn Sink,
) {
    let Some((inner, packet)) = pieces.take(sequence, plain, drops).and_then(<[u8]>::split_first) else { return };
    let layer2 = bridge.is_layer2();
    let checksum = match (*inner, layer2) {
        (INNER_ETHERNET, true) | (INNER_IP, false) => Checksum::Full,
        (INNER_ETHERNET_PARTIAL, true) | (INNER_IP_PARTIAL, false) => Checksum::Partial,
        _ => return drops.count(Drop::Unexpected),
    };
    if checksum == Checksum::Partial && Layout::of(layer2, packet).is_none() {
        return drops.count(Drop::Packet);
    }
    match bridge.inbound(now, link, packet) {
        Ok(()) => sink.deliver(packet, checksum),
        Err(reason) => drops.count(reason),
    }
}
