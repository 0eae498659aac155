//! Packets cut and made whole: any packet, any budget, any order; what is lost; and what a member of ill will may send.
use super::*;
use crate::wire::{INNER_CONTROL, INNER_ETHERNET, INNER_IP, INNER_IP_PARTIAL};
use proptest::prelude::*;

/// A packet whose bytes tell where they belong.
fn packet(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect()
}

/// The plain frames of a packet, in its order.
fn cut(plain: Plain<'_>, budget: Option<usize>) -> Vec<Vec<u8>> {
    let cut = Cut::new(plain.len(), budget);
    let frames = (0..cut.frames()).map(|index| {
        let (piece, mut bytes) = (cut.frame(plain, index), Vec::new());
        piece.emit(&mut bytes);
        assert_eq!(piece.sealed(), bytes.len() + FRAME_OVERHEAD - 1);
        bytes
    });
    let frames: Vec<Vec<u8>> = frames.collect();
    assert_eq!(cut.sealed(), frames.iter().map(|frame| frame.len() + FRAME_OVERHEAD - 1).sum::<usize>());
    frames
}

/// What comes out of these frames, and what was given up.
fn take(frames: &[(u64, Vec<u8>)]) -> (Vec<Vec<u8>>, Drops, Pieces) {
    let (mut pieces, mut drops, mut out) = (Pieces::default(), Drops::default(), Vec::new());
    for (sequence, frame) in frames {
        out.extend(pieces.take(*sequence, frame, &mut drops).map(<[u8]>::to_vec));
        pieces.bounds(&mut |bound| assert!(bound.is_kept(), "{bound:?}"));
    }
    (out, drops, pieces)
}

fn whole(inner: u8, packet: &[u8]) -> Vec<u8> {
    [&[inner], packet].concat()
}

// protocol 4.2
#[test]
fn golden_pieces() {
    let packet = packet(1, 2_100);
    let frames = cut(Plain::whole(INNER_IP, &packet), Some(LEAST_BUDGET));
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1_008, 1_008, 93]);
    assert_eq!([&frames[0][..3], &frames[1][..3], &frames[2][..3]], [[4, 2, 0], [4, 2, 1], [4, 2, 0x82]]);
    assert_eq!(frames[0][3..], packet[..1_005]);
    assert_eq!(frames[2][3..], packet[2_010..]);
}

#[test]
fn what_fits_goes_whole() {
    for (len, budget) in [(1_280, None), (1_280, Some(1_313)), (0, Some(LEAST_BUDGET)), (LEAST_BUDGET - FRAME_OVERHEAD, Some(1))] {
        let packet = packet(3, len);
        assert_eq!(cut(Plain::whole(INNER_IP, &packet), budget), [whole(INNER_IP, &packet)]);
    }
    assert_eq!(Cut::new(PACKET_BYTES, Some(0)).frames(), 9, "no path carries less than the least");
}

#[test]
fn the_loss_of_a_piece_loses_its_packet_alone_and_is_counted() {
    let packets: Vec<Vec<u8>> = (0..200).map(|seed| packet(seed, 1_280)).collect();
    let frames = packets.iter().flat_map(|packet| cut(Plain::whole(INNER_IP, packet), Some(1_096)));
    let frames: Vec<(u64, Vec<u8>)> = (0..).zip(frames).filter(|(sequence, _)| sequence % 20 != 6).collect();
    let (out, drops, pieces) = take(&frames);
    let expected: Vec<Vec<u8>> =
        packets.iter().enumerate().filter(|(index, _)| index % 10 != 3).map(|(_, packet)| whole(INNER_IP, packet)).collect();
    assert_eq!(out, expected);
    assert_eq!(drops.get(Drop::HoldFull) + pieces.waiting.len() as u64, 20);
}

#[test]
fn a_piece_waits_no_longer_than_others_can_be_late() {
    let frames = cut(Plain::whole(INNER_IP, &packet(5, 1_280)), Some(1_096));
    let at = |sequence: u64, index: usize| (sequence, frames[index].clone());
    let (out, drops, _) = take(&[at(0, 0), at(REACH, 0), at(1, 1)]);
    assert_eq!((out.len(), drops.get(Drop::HoldFull)), (1, 0));
    let (out, drops, _) = take(&[at(0, 0), at(REACH + 1, 0), at(1, 1)]);
    assert_eq!((out.len(), drops.get(Drop::HoldFull)), (0, 1));
}

#[test]
fn pieces_that_make_no_packet_are_dropped_or_wait_in_vain() {
    let piece = |kind: u8, place: u8, len: usize| [&[INNER_PIECE, kind, place][..], &vec![7; len]].concat();
    for refused in [vec![INNER_PIECE], vec![INNER_PIECE, 2], piece(2, 0x80, 0), piece(2, 16, 9), piece(2, 0, PACKET_BYTES + 1)] {
        let (out, drops, _) = take(&[(9, refused)]);
        assert_eq!((out.len(), drops.get(Drop::Malformed)), (0, 1));
    }
    // one that says it is the fourth of its packet, and is the first frame of all
    assert!(take(&[(2, piece(2, 3, 9))]).0.is_empty());
    // two kinds in one packet; two ends; a place left out
    for places in [[(2, 0), (1, 0x81)], [(2, 0x80), (2, 0x81)], [(2, 0), (2, 0x82)]] {
        let frames: Vec<(u64, Vec<u8>)> = (4..).zip(places.map(|(kind, place)| piece(kind, place, 9))).collect();
        assert!(take(&frames).0.iter().all(|plain| *plain == whole(2, &[7; 9])), "no more than one that was whole alone");
    }
    // a packet longer than any
    let (out, drops, pieces) = take(&[(4, piece(2, 0, PACKET_BYTES)), (5, piece(2, 0x81, 1))]);
    assert_eq!((out.len(), drops.get(Drop::Packet), pieces.waiting.len(), pieces.bytes), (0, 1, 0, 0));
}

proptest! {
    // protocol 8.3
    #[test]
    fn any_packets_at_any_budget_come_whole_and_in_order(
        lens in proptest::collection::vec((0..=PACKET_BYTES, 0..=PACKET_BYTES), 1..12), budget in LEAST_BUDGET..9_100,
    ) {
        let (mut frames, mut expected) = (Vec::new(), Vec::new());
        for (seed, (len, head)) in lens.into_iter().enumerate() {
            let packet = packet(seed as u8, len);
            let (head, body) = packet.split_at(head.min(len));
            for frame in cut(Plain { inner: INNER_IP_PARTIAL, head, body }, Some(budget)) {
                prop_assert!(frame.len() + FRAME_OVERHEAD - 1 <= budget);
                frames.push((frames.len() as u64, frame));
            }
            expected.push(whole(INNER_IP_PARTIAL, &packet));
        }
        let (out, drops, pieces) = take(&frames);
        prop_assert_eq!(out, expected);
        prop_assert_eq!((drops.get(Drop::HoldFull), pieces.waiting.len(), pieces.bytes), (0, 0, 0));
    }

    #[test]
    fn each_packet_comes_once_in_whatever_order_its_pieces_do(
        lens in proptest::collection::vec(1..3_000_usize, 1..12), shuffle in proptest::collection::vec(any::<u16>(), 48),
    ) {
        let packets: Vec<Vec<u8>> = lens.into_iter().enumerate().map(|(seed, len)| packet(seed as u8, len)).collect();
        let frames = packets.iter().flat_map(|packet| cut(Plain::whole(INNER_ETHERNET, packet), Some(LEAST_BUDGET)));
        let mut frames: Vec<(u64, Vec<u8>)> = (7..).zip(frames).collect();
        frames.sort_by_key(|(sequence, _)| shuffle[*sequence as usize]);
        let mut out = take(&frames).0;
        out.sort();
        let mut expected: Vec<Vec<u8>> = packets.iter().map(|packet| whole(INNER_ETHERNET, packet)).collect();
        expected.sort();
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn pieces_of_ill_will_keep_the_bounds_and_make_no_packet_longer_than_any(
        frames in proptest::collection::vec((0..40_u64, any::<bool>(), 0..18_u8, any::<bool>(), 0..9_100_usize), 0..300),
    ) {
        let made = frames.into_iter().map(|(sequence, far, place, last, len)| {
            let place = place | if last { LAST } else { 0 };
            let sequence = if far { sequence + 1_000_000 } else { sequence };
            (sequence, [&[INNER_PIECE, INNER_CONTROL, place][..], &vec![1; len]].concat())
        });
        for plain in take(&made.collect::<Vec<_>>()).0 {
            prop_assert!(plain.len() <= 1 + PACKET_BYTES);
        }
    }
}
