//! A path by UDP that carries less than the largest frame: what is sealed is cut, and what was sealed before goes where it fits.
use super::*;
use crate::wire::INNER_PIECE;

const SMALL: Via = Via { conn: ConnId::flow(9), handle: None };
const SMALL_PATH: PathId = PathId(4);
const BUDGET: usize = 1_096;

impl End {
    fn small_path(&mut self, now: Instant) {
        let rtt = Some(Duration::from_millis(10));
        self.apply(now, Edit::Path { link: LINK, path: SMALL_PATH, via: SMALL, window: None, rtt, budget: Some(BUDGET) });
    }
}

impl World {
    fn with_small(mode: Mode) -> Self {
        let mut world = Self::of(mode);
        world.small_paths();
        for end in [&mut world.a, &mut world.b] {
            end.apply(at(1), Edit::Switch { link: LINK, to: SMALL_PATH });
        }
        world.exchange(&[]);
        world
    }

    fn small_paths(&mut self) {
        for end in [&mut self.a, &mut self.b] {
            end.small_path(self.now);
        }
    }

    /// Packets of 1,280 bytes.
    fn large_packets(&mut self, count: u32) {
        for _ in 0..count {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            packet.extend(self.sent.to_be_bytes());
            packet.resize(1_280, 7);
            self.sent += 1;
            self.a.plane.outbound(self.now, &packet, &mut self.a.ports);
        }
    }

    /// The frames of `a` on its way, by path; none is longer than the small path carries.
    fn on_their_way(&self, via: Via) -> usize {
        assert!(self.a.ports.out.iter().all(|(to, frame)| *to != SMALL || frame.len() <= BUDGET), "no frame is too long for its path");
        self.a.ports.out.iter().filter(|(to, _)| *to == via).count()
    }

    fn all_came_whole_and_in_order(&self) {
        self.all_came_in_order();
        assert!(self.b.ports.shapes.iter().all(|(len, _)| *len == 1_280), "{:?}", self.b.ports.shapes);
    }
}

// protocol 8.3
#[test]
fn packets_go_in_pieces_over_a_path_that_carries_less_and_come_whole() {
    for mode in [Mode::SwitchLossless, Mode::Reliable, Mode::Redundant, Mode::Off] {
        let mut world = World::with_small(mode);
        world.large_packets(100);
        assert_eq!(world.on_their_way(SMALL), 200);
        world.wait(50, &[]);
        world.all_came_whole_and_in_order();
        let tally = world.a.plane.tally().links[0].clone();
        let there = world.b.plane.tally().links[0].clone();
        assert_eq!((tally.tx_bytes, there.rx_bytes), (128_000, 128_000), "what pieces add is not counted as traffic");
    }
}

#[test]
fn a_packet_that_waited_is_cut_too() {
    let mut world = World::with_small(Mode::SwitchLossless);
    world.a.ports.full = Some(SMALL.conn);
    world.large_packets(5);
    assert_eq!(world.on_their_way(SMALL), 0);
    world.a.ports.full = None;
    world.a.plane.writable(world.now, SMALL.conn, &mut world.a.ports);
    assert_eq!(world.on_their_way(SMALL), 10);
    world.wait(50, &[]);
    assert_eq!(world.b.ports.delivered.len(), 5);
}

// protocol 7.5: as soon as such a path lives, all is cut, so that copies of all can go there
#[test]
fn frames_on_the_relay_fit_the_small_path_and_go_again_there_when_the_relay_ends() {
    let mut world = World::new();
    world.small_paths();
    world.large_packets(20);
    assert_eq!((world.on_their_way(RELAY), world.on_their_way(SMALL)), (40, 0));
    world.a.ports.out.clear();
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::Unpath { link: LINK, path: PathId::RELAY });
        end.apply(world.now, Edit::FallBack { link: LINK, to: SMALL_PATH });
    }
    assert!(world.on_their_way(SMALL) >= 40);
    world.large_packets(20);
    world.wait(100, &[]);
    world.all_came_whole_and_in_order();
}

#[test]
fn when_the_small_path_dies_all_pieces_go_again_over_the_relay() {
    let mut world = World::with_small(Mode::SwitchLossless);
    world.large_packets(50);
    world.wait(20, &[SMALL]);
    world.a.apply(world.now, Edit::Hedge { link: LINK, rescue: PathId::RELAY });
    world.large_packets(10);
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
        end.apply(world.now, Edit::Unpath { link: LINK, path: SMALL_PATH });
    }
    world.large_packets(10);
    world.wait(100, &[SMALL]);
    world.all_came_whole_and_in_order();
    world.large_packets(1);
    assert_eq!(world.on_their_way(RELAY), 1, "nothing is cut any more");
}

/// Frames that were sealed before the small path was there are too long for it: those that are owed when the lane is on it go the relay.
// protocol 8.3
#[test]
fn what_is_too_long_for_the_path_goes_again_over_the_relay_and_in_order() {
    let mut world = World::with_direct();
    world.large_packets(30);
    // the path dies with all that is on it, and another one by UDP is there, which is smaller
    world.wait(5, &[DIRECT]);
    world.small_paths();
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::FallBack { link: LINK, to: SMALL_PATH });
        end.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    }
    assert!(world.on_their_way(RELAY) >= 30);
    world.large_packets(30);
    assert!(world.on_their_way(SMALL) >= 60);
    // what goes by UDP overtakes what goes the relay
    carry(world.now, &mut world.a, &mut world.b, &[RELAY]);
    assert!(world.b.ports.delivered.is_empty(), "it waits for what is before it");
    world.wait(1_500, &[]);
    assert_eq!(world.b.ports.delivered, (30..60).collect::<Vec<u32>>(), "the copies on the relay were lost, and are waited for 500 ms");
}

// protocol 8.3
#[test]
fn what_is_too_long_comes_before_what_follows_it_on_the_small_path() {
    let mut world = World::with_direct();
    world.large_packets(30);
    world.wait(5, &[DIRECT]);
    world.small_paths();
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::FallBack { link: LINK, to: SMALL_PATH });
        end.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    }
    world.large_packets(30);
    let relayed: Vec<(Via, Vec<u8>)> = world.a.ports.out.iter().filter(|(via, _)| *via == RELAY).cloned().collect();
    world.a.ports.out.retain(|(via, _)| *via != RELAY);
    world.wait(60, &[]);
    assert!(world.b.ports.delivered.is_empty(), "it waits for what is before it, and longer than a path by UDP is waited for");
    world.a.ports.out.extend(relayed);
    world.wait(100, &[]);
    world.all_came_whole_and_in_order();
}

#[test]
fn what_no_path_carries_any_more_is_lost_and_stops_nothing() {
    for mode in [Mode::SwitchLossless, Mode::Reliable] {
        let mut world = World::of(mode);
        world.a.path(at(1), DIRECT_PATH, DIRECT);
        world.b.path(at(1), DIRECT_PATH, DIRECT);
        for end in [&mut world.a, &mut world.b] {
            end.apply(at(1), Edit::Switch { link: LINK, to: DIRECT_PATH });
        }
        world.exchange(&[]);
        world.large_packets(30);
        world.wait(5, &[DIRECT]);
        world.small_paths();
        for end in [&mut world.a, &mut world.b] {
            end.apply(world.now, Edit::Unpath { link: LINK, path: PathId::RELAY });
            end.apply(world.now, Edit::FallBack { link: LINK, to: SMALL_PATH });
            end.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
        }
        assert_eq!(world.a.plane.tally().links[0].tx_lost, 30);
        world.large_packets(30);
        world.wait(5_000, &[]);
        assert_eq!(world.b.ports.delivered, (30..60).collect::<Vec<u32>>());
        assert_eq!(world.a.plane.tally().links[0].tx_lost, 30, "and counted once");
        assert_eq!(world.a.plane.deadline(), None, "nothing is owed");
    }
}

#[test]
fn a_hedge_over_a_small_path_leaves_what_is_too_long_where_it_is() {
    let mut world = World::with_direct();
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::Unpath { link: LINK, path: PathId::RELAY });
    }
    world.large_packets(10);
    world.wait(5, &[DIRECT]);
    world.small_paths();
    world.a.apply(world.now, Edit::Hedge { link: LINK, rescue: SMALL_PATH });
    world.large_packets(10);
    assert_eq!(world.on_their_way(SMALL), 20);
    world.a.apply(world.now, Edit::Calm { link: LINK });
    // the suspicion was wrong, but what is out was lost: the oldest goes again, and then all
    world.wait(2_500, &[]);
    let late: Vec<u32> = world.b.ports.delivered.iter().copied().filter(|number| *number < 10).collect();
    assert!(late.is_empty(), "the floor has passed them: {late:?}");
    assert_eq!(world.b.ports.delivered, (10..20).collect::<Vec<u32>>());
    assert!(world.a.plane.deadline().is_none(), "nothing is owed");
}

#[test]
fn a_piece_that_is_lost_loses_one_packet() {
    let mut world = World::with_small(Mode::SwitchLossless);
    world.large_packets(50);
    let data = |(via, frame): &(Via, Vec<u8>)| *via == SMALL && FrameHeader::parse(frame).is_ok_and(|header| header.counter.0 == 33);
    world.a.ports.out.retain(|sent| !data(sent));
    world.wait(100, &[]);
    assert_eq!(world.b.ports.delivered, (0..50).filter(|number| *number != 16).collect::<Vec<u32>>());
    assert_eq!(world.a.plane.tally().links[0].tx_lost, 1);
}

// protocol 4.2
#[test]
fn a_whole_of_pieces_is_looked_at_like_any_packet() {
    let mut world = World::new();
    world.b.path(world.now, DIRECT_PATH, DIRECT);
    let keys = chain(7).keys(Side::Initiator, &RustCrypto);
    let foreign = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 9, 10, 0, 0, 2, 0, 0, 0, 0];
    let own = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0];
    let wholes = [(2, &foreign, Drop::Source), (INNER_CONTROL, &own, Drop::Unexpected), (INNER_PIECE, &own, Drop::Unexpected)];
    for (round, (kind, packet, reason)) in wholes.into_iter().enumerate() {
        let (head, tail) = packet.split_at(10);
        for (index, (place, part)) in [(0, head), (0x81, tail)].into_iter().enumerate() {
            let mut frame = vec![0; FRAME_HEADER_LEN];
            frame.extend([INNER_PIECE, kind, place]);
            frame.extend(part);
            frame.extend([0; TAG_LEN]);
            let counter = Counter::new(0, (2 * round + index) as u64);
            keys.seal.seal(FrameHeader { epoch: 0, generation: 0, receiver: 20, counter }, &mut frame);
            world.b.plane.inbound(world.now, DIRECT.conn, &mut frame, &mut world.b.ports);
            assert_eq!(world.b.plane.tally().drops.get(reason), if index == 0 { u64::from(round == 2) } else { 1 + u64::from(round == 2) });
        }
    }
    assert!(world.b.ports.delivered.is_empty());
}
