//! Frames that a plane must not act on: forged, of another lane, of keys that are over, with receipts that cannot be true.
use super::*;
use crate::{
    session::EpochKeys,
    wire::{LANE_CONTROL_BIT, LaneControl, Receipt, ReceiptMask},
};

const CONTROL: u8 = LANE_CONTROL_BIT;

/// A frame for the end with this index, sealed with the keys of its other end.
fn sealed(keys: &EpochKeys, receiver: u32, (lane, sequence): (u8, u64), inner: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_LEN];
    frame.push(inner);
    frame.extend_from_slice(body);
    frame.extend([0; TAG_LEN]);
    let header = FrameHeader { epoch: keys.epoch as u8, generation: 0, receiver, counter: Counter::new(lane, sequence) };
    keys.seal.seal(header, &mut frame);
    frame
}

fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend(number.to_be_bytes());
    packet
}

// protocol 4.2
#[test]
fn a_checksum_that_is_only_begun_needs_a_packet_in_which_both_ends_find_it() {
    let mut world = World::new();
    let keys = chain(7).keys(Side::Initiator, &RustCrypto);
    let mut plain = packet(9);
    plain[3] = 28;
    plain.extend([0, 8, 0, 0]);
    plain[24..26].copy_from_slice(&[0, 8]);
    plain.truncate(28);
    // whole, a fragment, one byte more than it says
    let fragment = [&plain[..6], &[0x20], &plain[7..]].concat();
    let longer = [&plain[..], &[0]].concat();
    for (sequence, packet) in [plain.clone(), fragment, longer].into_iter().enumerate() {
        let frame = sealed(&keys, 20, (0, sequence as u64), INNER_IP_PARTIAL, &packet);
        let mut record = crate::wire::record_header(TYPE_DLV, 0, RELAY.handle.expect("a relay"), frame.len() as u16).to_vec();
        record.extend(frame);
        world.b.plane.inbound(world.now, RELAY.conn, &mut record, &mut world.b.ports);
    }
    assert_eq!(world.b.ports.shapes, [(28, Checksum::Partial)]);
    assert_eq!(world.b.plane.tally().drops.get(Drop::Packet), 2);
}

// protocol 4.2
#[test]
fn a_frame_of_a_kind_that_is_reserved_unknown_or_not_ours_is_dropped_and_counted() {
    let mut world = World::new();
    world.b.path(world.now, DIRECT_PATH, DIRECT);
    let keys = chain(7).keys(Side::Initiator, &RustCrypto);
    let kinds = [INNER_ETHERNET_PARTIAL, 0x06, INNER_ETHERNET, INNER_CONTROL, 0x7f];
    for (sequence, kind) in kinds.into_iter().enumerate() {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.push(kind);
        frame.extend([0x45; 30]);
        frame.extend([0; TAG_LEN]);
        let header = FrameHeader { epoch: 0, generation: 0, receiver: 20, counter: Counter::new(0, sequence as u64) };
        keys.seal.seal(header, &mut frame);
        world.b.plane.inbound(world.now, DIRECT.conn, &mut frame, &mut world.b.ports);
        assert_eq!(world.b.plane.tally().drops.get(Drop::Unexpected), sequence as u64 + 1, "kind {kind:02x}");
    }
    assert!(world.b.ports.delivered.is_empty());
}

fn body_of(message: &LaneControl) -> Vec<u8> {
    let mut body = Vec::new();
    message.emit(&mut body);
    body
}

/// Hands a frame to an end as if it came on a direct connection that is proven.
fn hand(end: &mut End, now: Instant, mut frame: Vec<u8>) {
    end.path(now, DIRECT_PATH, DIRECT);
    end.plane.inbound(now, DIRECT.conn, &mut frame, &mut end.ports);
}

fn dropped(end: &End, reason: Drop) -> u64 {
    end.plane.tally().drops.get(reason)
}

// protocol 4.4
#[test]
fn a_forged_frame_takes_no_place_in_a_window() {
    let mut world = World::new();
    let keys = chain(7).keys(Side::Initiator, &RustCrypto);
    let switch = LaneControl::Switch { lane: 0, generation: 1, start: 0, from: PathId::RELAY, to: DIRECT_PATH };
    let genuine = [sealed(&keys, 20, (0, 5), INNER_IP, &packet(5)), sealed(&keys, 20, (CONTROL, 9), INNER_CONTROL, &body_of(&switch))];
    for frame in &genuine {
        let mut forged = frame.clone();
        *forged.last_mut().expect("a tag") ^= 1;
        hand(&mut world.b, world.now, forged);
    }
    assert_eq!(dropped(&world.b, Drop::Forged), 2);
    assert!(world.b.ports.out.is_empty() && world.b.ports.delivered.is_empty(), "nothing happens for a forged frame");
    for frame in genuine {
        hand(&mut world.b, world.now, frame);
    }
    assert_eq!(world.b.ports.delivered, [5]);
    assert!(!world.b.ports.out.is_empty(), "SWITCH is answered by a receipt");
    assert_eq!((dropped(&world.b, Drop::Duplicate), dropped(&world.b, Drop::Late)), (0, 0));
}

// protocol 4.3
#[test]
fn frames_of_a_lane_that_is_not_there_are_dropped() {
    let mut world = World::new();
    let keys = chain(7).keys(Side::Initiator, &RustCrypto);
    for (count, lane) in [1, 0x7e, CONTROL | 1].into_iter().enumerate() {
        hand(&mut world.b, world.now, sealed(&keys, 20, (lane, 0), INNER_IP, &packet(0)));
        assert_eq!(dropped(&world.b, Drop::Unexpected), count as u64 + 1, "lane {lane:02x}");
    }
    assert!(world.b.ports.delivered.is_empty());
}

// protocol 7.2 to 7.4
#[test]
fn a_message_of_another_lane_than_its_own_is_dropped() {
    let mut world = World::with_direct();
    world.packets(10);
    world.a.ports.out.clear();
    let keys = chain(7).keys(Side::Responder, &RustCrypto);
    let (lane, generation, start, path) = (1, 9, 0, DIRECT_PATH);
    let messages = [
        LaneControl::Receipt(Receipt { lane, ..receipt(10, 10) }),
        LaneControl::Switch { lane, generation, start, from: path, to: PathId::RELAY },
        LaneControl::Drain { lane, generation, start, path },
    ];
    for (count, message) in messages.into_iter().enumerate() {
        hand(&mut world.a, world.now, sealed(&keys, 10, (CONTROL, 900 + count as u64), INNER_CONTROL, &body_of(&message)));
        assert_eq!(dropped(&world.a, Drop::Malformed), count as u64 + 1, "{message:?}");
    }
    world.a.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
    world.wait(700, &[DIRECT]);
    world.all_came_in_order();
}

// protocol 7.4
#[test]
fn a_receipt_of_frames_that_were_never_sealed_frees_nothing() {
    let mut world = World::with_direct();
    let keys = chain(7).keys(Side::Responder, &RustCrypto);
    world.packets(10);
    world.a.ports.out.clear();
    for (sequence, (floor, next)) in [(11, 11), (11, 0), (0, 11), (1 << 40, 1 << 40)].into_iter().enumerate() {
        let lie = LaneControl::Receipt(receipt(floor, next));
        hand(&mut world.a, world.now, sealed(&keys, 10, (CONTROL, 900 + sequence as u64), INNER_CONTROL, &body_of(&lie)));
        assert_eq!(dropped(&world.a, Drop::Receipt), sequence as u64 + 1, "floor {floor}, next {next}");
    }
    world.a.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
    world.wait(700, &[DIRECT]);
    world.all_came_in_order();
}

// protocol 4.5
#[test]
fn keys_of_an_epoch_open_for_ten_seconds_after_a_frame_of_the_next_and_sixty_without_one() {
    let (first, second) = (chain(7), Arc::new(chain(7).next(&[1; 32], &[2; 32], &[3; 64])));
    let [old, new] = [&first, &second].map(|chain| chain.keys(Side::Initiator, &RustCrypto));
    let heard_after = |world: &mut World, seconds: u64, sequence: u64| {
        let before = dropped(&world.b, Drop::UnknownEpoch);
        world.now = at(seconds);
        world.b.plane.alarm(world.now, &mut world.b.ports);
        hand(&mut world.b, world.now, sealed(&old, 20, (0, sequence), INNER_IP, &packet(0)));
        dropped(&world.b, Drop::UnknownEpoch) == before
    };
    for used in [true, false] {
        let mut world = World::new();
        let keys = second.keys(Side::Responder, &RustCrypto);
        world.b.apply(at(100), Edit::Epoch { link: LINK, local: 20, keys, seal: false });
        if used {
            hand(&mut world.b, at(100), sealed(&new, 20, (0, 50), INNER_IP, &packet(50)));
        }
        let last = if used { 110 } else { 160 };
        assert!(heard_after(&mut world, 101, 1) && heard_after(&mut world, last - 1, 2), "the old keys still open");
        assert!(!heard_after(&mut world, last, 3), "and then no more; used: {used}");
    }
}

fn receipt(floor: u64, next: u64) -> Receipt {
    let path = DIRECT_PATH;
    Receipt { lane: 0, generation: 1, floor, next, path, delay_us: 0, lost: 0, mask: ReceiptMask::default() }
}
