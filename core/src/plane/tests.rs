//! Two planes and the paths between them: what is lost, doubled or out of order when paths and receipts fail.
use super::*;
use crate::{
    crypto::rustcrypto::RustCrypto,
    id::PathId,
    session::{Chain, Side, Suite},
    wire::{Counter, FRAME_HEADER_LEN, INNER_CONTROL, TAG_LEN, TYPE_DLV, TYPE_PATH_CMP},
};
use core::net::Ipv4Addr;
use std::{collections::VecDeque, sync::Arc};
use zeroize::Zeroizing;

mod epochs;
mod ethernet;
mod hostile;
mod large;
mod pieces;
mod sessions;
mod shards;

const LINK: LinkId = LinkId(0);
const RELAY: Via = Via { conn: ConnId(0), handle: Some(Handle(9)) };
const RELAY_ANEW: Via = Via { conn: ConnId(4), handle: Some(Handle(11)) };
const DIRECT: Via = Via { conn: ConnId(2), handle: None };
const DIRECT_PATH: PathId = PathId(2);

/// What one plane gives away.
#[derive(Default)]
struct Ports {
    out: VecDeque<(Via, Vec<u8>)>,
    delivered: Vec<u32>,
    shapes: Vec<(usize, Checksum)>,
    reports: Vec<Report>,
    punted: usize,
    strays: Vec<SocketAddr>,
    full: Option<ConnId>,
    passed: VecDeque<(u8, shards::Owned)>,
}

impl Sink for Ports {
    fn room(&self, conn: ConnId) -> usize {
        if self.full == Some(conn) { 0 } else { 1 << 20 }
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        self.out.push_back((via, frame.to_vec()));
    }
    fn deliver(&mut self, packet: &[u8], checksum: Checksum) {
        self.shapes.push((packet.len(), checksum));
        self.delivered.push(u32::from_be_bytes(packet[20..24].try_into().expect("four bytes")));
    }
    fn punt(&mut self, _conn: ConnId, _handle: Option<Handle>, _bytes: &mut [u8]) {
        self.punted += 1;
    }
    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
    fn stray(&mut self, remote: SocketAddr, _bytes: &mut [u8]) {
        self.strays.push(remote);
    }
    fn pass(&mut self, lane: u8, what: Passed<'_>) {
        self.passed.push_back((lane, shards::Owned::of(what)));
    }
}

struct End {
    plane: Plane,
    ports: Ports,
}

impl End {
    fn new(own: u8, other: u8, mode: Mode) -> Self {
        let config = PlaneConfig { layer2: false, addresses: vec![host(own)], mac: [2; 6], mode };
        let mut end = Self { plane: Plane::new(config), ports: Ports::default() };
        end.apply(at(0), Edit::Peer { link: LINK, addresses: vec![host(other)], mac: [4; 6] });
        end
    }

    fn apply(&mut self, now: Instant, edit: Edit) {
        self.plane.apply(now, edit, &mut self.ports);
    }

    fn path(&mut self, now: Instant, path: PathId, via: Via) {
        let window = via.handle.map(|_| 256);
        self.apply(now, Edit::Path { link: LINK, path, via, window, rtt: Some(Duration::from_millis(10)), budget: None });
    }

    fn session(&mut self, now: Instant, chain: &Chain, side: Side, (local, remote): (u32, u32)) {
        let keys = chain.keys(side, &RustCrypto);
        let install = Install { session: chain.session_id(), local, remote, keys, main: PathId::RELAY, lanes: 1, slabs: Slabs::default() };
        self.apply(now, Edit::Install { link: LINK, install: Box::new(install) });
        self.apply(now, Edit::Promote { link: LINK, local });
    }
}

/// Two ends; `a` sends packets to `b`.
struct World {
    a: End,
    b: End,
    now: Instant,
    sent: u32,
}

impl World {
    fn new() -> Self {
        Self::of(Mode::SwitchLossless)
    }

    fn of(mode: Mode) -> Self {
        let mut world = Self { a: End::new(1, 2, mode), b: End::new(2, 1, mode), now: at(1), sent: 0 };
        world.a.path(at(1), PathId::RELAY, RELAY);
        world.b.path(at(1), PathId::RELAY, RELAY);
        world.a.session(at(1), &chain(7), Side::Initiator, (10, 20));
        world.b.session(at(1), &chain(7), Side::Responder, (20, 10));
        world
    }

    fn with_direct() -> Self {
        let mut world = Self::new();
        for end in [&mut world.a, &mut world.b] {
            end.path(at(1), DIRECT_PATH, DIRECT);
            end.apply(at(1), Edit::Switch { link: LINK, to: DIRECT_PATH });
        }
        world.exchange(&[]);
        world
    }

    fn packets(&mut self, count: u32) {
        for _ in 0..count {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            packet.extend(self.sent.to_be_bytes());
            self.sent += 1;
            self.a.plane.outbound(self.now, &packet, &mut self.a.ports);
        }
    }

    /// Carries what is on its way, but what is on `lost`, until nothing moves.
    fn exchange(&mut self, lost: &[Via]) {
        while !self.a.ports.out.is_empty() || !self.b.ports.out.is_empty() {
            carry(self.now, &mut self.a, &mut self.b, lost);
            carry(self.now, &mut self.b, &mut self.a, lost);
        }
    }

    fn wait(&mut self, millis: u64, lost: &[Via]) {
        for _ in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            for end in [&mut self.a, &mut self.b] {
                end.plane.alarm(self.now, &mut end.ports);
                assert!(end.plane.deadline().is_none_or(|due| due.at > self.now), "an alarm rings for ever");
            }
            self.exchange(lost);
        }
    }

    /// A second session takes over at both ends.
    fn replace_session(&mut self) {
        self.b.session(self.now, &chain(8), Side::Responder, (21, 11));
        self.a.session(self.now, &chain(8), Side::Initiator, (11, 21));
    }

    /// Both ends learn that the direct path has died.
    fn lose_direct(&mut self) {
        for end in [&mut self.a, &mut self.b] {
            end.apply(self.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
            end.apply(self.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
        }
    }

    fn all_came_in_order(&self) {
        assert_eq!(self.b.ports.delivered, (0..self.sent).collect::<Vec<u32>>());
    }
}

fn carry(now: Instant, from: &mut End, to: &mut End, lost: &[Via]) {
    for (via, mut frame) in core::mem::take(&mut from.ports.out) {
        if lost.contains(&via) {
            continue;
        }
        match via.handle {
            None => to.plane.inbound(now, via.conn, &mut frame, &mut to.ports),
            Some(handle) => {
                let mut record = crate::wire::record_header(TYPE_DLV, 0, handle, frame.len() as u16).to_vec();
                record.extend(frame);
                to.plane.inbound(now, via.conn, &mut record, &mut to.ports);
            }
        }
    }
}

fn host(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

fn chain(secret: u8) -> Arc<Chain> {
    Arc::new(Chain::start(Zeroizing::new([secret; 64]), Suite::ChaCha20Poly1305))
}

#[test]
fn packets_go_and_come_over_relay_and_direct_path() {
    let mut world = World::new();
    world.packets(300);
    world.wait(50, &[]);
    world.all_came_in_order();
    let mut world = World::with_direct();
    world.packets(1000);
    world.wait(50, &[]);
    world.all_came_in_order();
}

// protocol 7.5
#[test]
fn a_path_that_died_with_its_receipts_does_not_stop_the_lane_for_ever() {
    let mut world = World::with_direct();
    world.packets(1000);
    // b has all, and its receipts go down with the path
    carry(world.now, &mut world.a, &mut world.b, &[]);
    world.b.ports.out.clear();
    world.wait(100, &[DIRECT]);
    assert_eq!(world.b.ports.delivered.len(), 1000);
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
        end.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    }
    world.packets(10);
    world.wait(200, &[DIRECT]);
    world.all_came_in_order();
}

// protocol 7.1, 7.5
#[test]
fn a_path_that_takes_nothing_is_suspected_also_when_nothing_is_out() {
    let mut world = World::with_direct();
    // all that filled it came over another path, and was receipted
    world.a.ports.full = Some(DIRECT.conn);
    world.packets(1);
    world.wait(100, &[]);
    let is_stall = |report: &Report| matches!(report.what, Noticed::Stalled { path: DIRECT_PATH, .. });
    assert!(world.a.ports.reports.iter().any(is_stall), "{:?}", world.a.ports.reports);
    world.a.apply(world.now, Edit::Hedge { link: LINK, rescue: PathId::RELAY });
    world.wait(50, &[]);
    world.all_came_in_order();
}

// protocol 7.5
#[test]
fn a_relay_that_dropped_the_whole_window_does_not_stop_the_lane_for_ever() {
    let mut world = World::new();
    world.packets(300);
    world.wait(1, &[RELAY]);
    world.wait(2000, &[]);
    world.all_came_in_order();
}

// protocol 7.7
#[test]
fn with_mode_off_a_relay_that_dropped_the_whole_window_does_not_stop_the_lane_for_ever_either() {
    let mut world = World::of(Mode::Off);
    world.packets(256);
    world.wait(2000, &[RELAY]);
    assert_eq!(world.a.plane.tally().links[0].lost, 256, "also while nobody else can know");
    world.packets(44);
    world.wait(100, &[]);
    assert!(world.b.ports.delivered.iter().copied().eq(256..300), "{:?}", world.b.ports.delivered);
    let tally = world.a.plane.tally();
    assert_eq!((tally.links[0].resent, tally.links[0].lost), (0, 256), "nothing is sent twice, nor counted");
}

/// Each answer to the probes of a path called the stall off, so that it never lasted long enough for the oldest frame to go again.
// protocol 7.5
#[test]
fn a_path_that_answers_probes_and_has_lost_the_last_frame_gets_it_again() {
    let mut world = World::with_direct();
    world.packets(5);
    world.a.ports.out.clear();
    for _ in 0..20 {
        world.wait(100, &[]);
        world.a.apply(world.now, Edit::Calm { link: LINK });
    }
    world.all_came_in_order();
}

// protocol 8.4
#[test]
fn a_frame_from_where_no_path_leads_is_taken_and_answered_on_one() {
    let mut world = World::new();
    let nowhere = Via { conn: ConnId::flow(9), handle: None };
    world.a.path(world.now, DIRECT_PATH, nowhere);
    world.a.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    world.packets(5);
    world.wait(100, &[]);
    world.all_came_in_order();
    assert!(world.a.plane.deadline().is_none(), "it was receipted");
}

// protocol 5.4
#[test]
fn an_ended_session_says_nothing_on_a_path_of_the_next_one_with_the_same_number() {
    let mut world = World::with_direct();
    world.packets(5);
    world.a.ports.out.clear();
    world.replace_session();
    let again = Via { conn: ConnId(77), handle: None };
    world.a.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    world.a.path(world.now, DIRECT_PATH, again);
    for _ in 0..50 {
        world.now = world.now + Duration::from_millis(100);
        world.a.plane.alarm(world.now, &mut world.a.ports);
    }
    let said = world.a.ports.out.iter().filter(|(via, _)| *via == again).count();
    assert_eq!(said, 0, "nobody has proven it");
}

// protocol 7.6
#[test]
fn copies_that_a_replaced_relay_connection_swallowed_go_again() {
    let mut world = World::with_direct();
    world.packets(100);
    world.wait(1, &[DIRECT]);
    world.a.apply(world.now, Edit::Hedge { link: LINK, rescue: PathId::RELAY });
    world.wait(1, &[DIRECT, RELAY]);
    world.a.path(world.now, PathId::RELAY, RELAY_ANEW);
    world.b.path(world.now, PathId::RELAY, RELAY_ANEW);
    world.a.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
    world.a.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    world.packets(10);
    world.wait(400, &[DIRECT, RELAY]);
    world.all_came_in_order();
}

// protocol 7.2
#[test]
fn a_switch_away_from_a_path_that_is_gone_sends_again_what_it_swallowed() {
    let mut world = World::new();
    world.packets(50);
    world.wait(1, &[RELAY]);
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::Unpath { link: LINK, path: PathId::RELAY });
        end.path(world.now, DIRECT_PATH, DIRECT);
        end.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    }
    world.packets(50);
    world.wait(400, &[RELAY]);
    world.all_came_in_order();
}

#[test]
fn an_upgrade_while_copies_are_owed_loses_and_reorders_nothing() {
    let mut world = World::with_direct();
    world.packets(2000);
    world.wait(1, &[DIRECT]);
    world.a.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
    world.a.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    // 256 copies are on the relay; the rest goes the new direct path
    world.a.path(world.now, DIRECT_PATH, DIRECT);
    world.a.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    world.packets(100);
    world.wait(600, &[]);
    world.all_came_in_order();
}

// protocol 7.1
#[test]
fn no_more_frames_than_the_window_are_on_their_way_over_a_relay() {
    let mut world = World::new();
    let on_their_way = |world: &World| world.a.ports.out.iter().filter(|(_, frame)| frame[8] == 0).count();
    world.packets(1_000);
    assert_eq!(on_their_way(&world), 256);
    world.now = world.now + Duration::from_millis(1);
    world.a.plane.alarm(world.now, &mut world.a.ports);
    assert_eq!(on_their_way(&world), 256, "time alone opens no window");
    world.exchange(&[]);
    world.wait(100, &[]);
    // each packet is a flow of its own here, and flows take turns in the queue
    world.b.ports.delivered.sort_unstable();
    world.all_came_in_order();
}

// protocol 6.2; found by the simulator: a stranger who had overheard a frame of the relay path once made it overtake all before it
#[test]
fn a_frame_on_a_connection_that_has_proven_nothing_is_left_to_the_control_room() {
    let mut world = World::new();
    world.packets(10);
    let (_, mut overheard) = world.a.ports.out.back().cloned().expect("ten frames are on their way");
    world.b.plane.inbound(world.now, DIRECT.conn, &mut overheard, &mut world.b.ports);
    assert!(world.b.ports.delivered.is_empty() && world.b.ports.punted == 1);
    assert!(world.b.plane.deadline().is_none(), "and nothing is owed for it");
    world.exchange(&[]);
    world.all_came_in_order();
}

// protocol 6.2: the control room may look at COMPLETE later than the plane at what follows it
#[test]
fn data_right_behind_complete_is_delivered() {
    let mut world = World::new();
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, DIRECT_PATH, DIRECT);
    }
    world.a.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    world.packets(1);
    let mut message = Vec::new();
    for payload in [vec![TYPE_PATH_CMP; 76]].into_iter().chain(world.a.ports.out.drain(..).filter(|out| out.0 == DIRECT).map(|out| out.1)) {
        message.extend(crate::wire::record_header(TYPE_FWD, 0, Handle(0), payload.len() as u16));
        message.extend(payload);
    }
    world.b.plane.inbound(world.now, DIRECT.conn, &mut message, &mut world.b.ports);
    assert_eq!(world.b.ports.punted, 1);
    world.all_came_in_order();
}

// protocol 7.2
#[test]
fn a_switch_without_data_is_confirmed_and_then_all_is_silent() {
    let mut world = World::with_direct();
    world.wait(100, &[]);
    assert!([&world.a, &world.b].iter().all(|end| end.plane.deadline().is_none()), "nobody waits for anything");
}

/// The confirmation once went only to where data came last: into the path that had died.
#[test]
fn a_fallback_while_no_data_flows_is_confirmed_on_the_path_that_lives() {
    let mut world = World::with_direct();
    world.packets(1);
    world.wait(100, &[]);
    world.all_came_in_order();
    world.a.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
    world.wait(5_000, &[DIRECT]);
    assert!([&world.a, &world.b].iter().all(|end| end.plane.deadline().is_none()), "nobody waits for anything");
}

/// Frames that were under way on the relay when its connection ended, just after a switch away from it, once were given up after 500 ms:
/// nobody sent them again, since the lane had left that path already.
#[test]
fn a_path_that_dies_just_after_the_lane_has_left_it_loses_nothing() {
    let mut world = World::new();
    world.packets(50);
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, DIRECT_PATH, DIRECT);
        end.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    }
    world.packets(50);
    world.exchange(&[RELAY]);
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::Unpath { link: LINK, path: PathId::RELAY });
    }
    world.exchange(&[RELAY]);
    world.all_came_in_order();
    world.wait(200, &[RELAY]);
    assert!([&world.a, &world.b].iter().all(|end| end.plane.deadline().is_none()), "nobody waits for anything");
}

/// A second switch before the first path had come to its end: its DRAIN, on a quick path, once made the receiver give up what was
/// still on the slow one.
#[test]
fn two_switches_in_a_row_wait_for_the_slowest_path() {
    const THIRD: Via = Via { conn: ConnId(6), handle: None };
    let mut world = World::new();
    world.packets(50);
    let slow: Vec<_> = world.a.ports.out.drain(..).collect();
    for (path, via) in [(DIRECT_PATH, DIRECT), (PathId(3), THIRD)] {
        for end in [&mut world.a, &mut world.b] {
            end.path(world.now, path, via);
        }
        world.a.apply(world.now, Edit::Switch { link: LINK, to: path });
        world.packets(50);
    }
    // the direct paths are quick, all that the relay carries comes later
    let (mut late, quick): (VecDeque<_>, VecDeque<_>) = world.a.ports.out.drain(..).partition(|(via, _)| *via == RELAY);
    world.a.ports.out = quick;
    world.exchange(&[]);
    assert!(world.b.ports.delivered.is_empty(), "what is on the relay comes first");
    late.extend(slow);
    late.rotate_right(50);
    world.a.ports.out = late;
    world.exchange(&[]);
    world.all_came_in_order();
    world.wait(600, &[]);
    assert!([&world.a, &world.b].iter().all(|end| end.plane.deadline().is_none()), "nobody waits for anything");
}

/// The mask of a receipt tells what came behind a hole (protocol 7.4): only what is missing goes again.
#[test]
fn a_fallback_sends_again_only_what_the_receipts_show_missing() {
    let mut world = World::with_direct();
    world.packets(100);
    // the third frame of the run is lost on the way
    world.a.ports.out.remove(2);
    world.exchange(&[]);
    world.wait(10, &[]);
    assert_eq!(world.b.ports.delivered.len(), 99);
    let before = world.a.plane.tally().links[0].resent;
    world.a.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
    let resent = world.a.plane.tally().links[0].resent - before;
    assert!((1..=36).contains(&resent), "64 of 100 are receipted: {resent}");
    world.exchange(&[]);
    assert_eq!(world.b.ports.delivered.len(), 100, "and it is delivered after all");
}

// protocol 7.3
#[test]
fn drain_tells_at_once_what_the_old_path_lost() {
    let mut world = World::new();
    world.packets(10);
    world.a.ports.out.remove(4);
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, DIRECT_PATH, DIRECT);
        end.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    }
    world.packets(10);
    world.exchange(&[]);
    let came: Vec<u32> = (0..20).filter(|number| *number != 4).collect();
    assert_eq!(world.b.ports.delivered, came, "without waiting for 500 ms");
    assert_eq!(world.b.plane.tally().links[0].lost, 1);
}

/// A suspect path of datagrams that came to life again once brought new frames ahead of the copies of those that it had lost: they were
/// delivered at once, and the copies out of order or not at all.
// protocol 7.5
#[test]
fn datagrams_that_come_through_again_do_not_overtake_the_copies_of_those_that_were_lost() {
    const DATAGRAMS: Via = Via { conn: ConnId::flow(3), handle: None };
    let mut world = World::new();
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, DIRECT_PATH, DATAGRAMS);
        end.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    }
    world.exchange(&[]);
    world.packets(10);
    world.a.ports.out.clear();
    world.a.apply(world.now, Edit::Hedge { link: LINK, rescue: PathId::RELAY });
    world.packets(5);
    world.a.ports.out.retain(|(via, _)| *via == RELAY);
    // it lives again, and is quicker than the relay
    world.packets(5);
    world.a.apply(world.now, Edit::Calm { link: LINK });
    world.packets(5);
    let (slow, quick): (VecDeque<_>, VecDeque<_>) = world.a.ports.out.drain(..).partition(|(via, _)| *via == RELAY);
    world.a.ports.out = quick;
    world.wait(30, &[RELAY]);
    world.a.ports.out.extend(slow);
    world.wait(200, &[]);
    world.all_came_in_order();
    assert!([&world.a, &world.b].iter().all(|end| end.plane.deadline().is_none()), "nobody waits for anything");
}

/// A lane that had moved to a path which swallowed all took the receipts of what the old path still brought for a sign of life of the new
/// one; when that lived again meanwhile, what it had swallowed was given up.
// protocol 7.5
#[test]
fn what_the_old_path_still_brings_does_not_speak_for_the_new_one() {
    let mut world = World::new();
    world.packets(200);
    let mut slow: VecDeque<_> = world.a.ports.out.drain(..).collect();
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, DIRECT_PATH, DIRECT);
        end.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    }
    world.packets(5);
    for _ in 0..100 {
        world.a.ports.out.extend(slow.pop_front());
        world.wait(1, &[DIRECT]);
    }
    assert!(!slow.is_empty(), "the old path brings something all the time");
    let stalled = |report: &Report| matches!(report.what, Noticed::Stalled { path: DIRECT_PATH, .. });
    assert!(world.a.ports.reports.iter().any(stalled), "{:?}", world.a.ports.reports);
}
