//! Control messages of a lane: golden bytes, round trips, noise.
use super::*;
use proptest::prelude::*;

fn bytes_of(message: &LaneControl) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

fn receipt() -> Receipt {
    Receipt {
        lane: 3,
        generation: 7,
        floor: 0x0102_0304_0506,
        next: 0x0102_0304_0590,
        path: PathId(4),
        delay_us: 20_000,
        lost: 2,
        mask: ReceiptMask::from_words(&[0x10, 0, 1 << 63]),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[track_caller]
fn golden(message: &LaneControl, text: &str) {
    assert_eq!(bytes_of(message), hex(text), "the wire changed");
    assert_eq!(LaneControl::parse(&hex(text)).as_ref(), Ok(message));
}

// protocol 7.2
#[test]
fn golden_switch() {
    let message = LaneControl::Switch { lane: 1, generation: 9, start: 0x1234, from: PathId(0), to: PathId(2) };
    golden(&message, "01 01 09 00 | 00000000 | 00000002 | 0000000000001234");
}

// protocol 7.3
#[test]
fn golden_drain() {
    let message = LaneControl::Drain { lane: 1, generation: 9, start: 0x1234, path: PathId(6) };
    golden(&message, "02 01 09 00 | 00000006 | 0000000000001234");
}

// protocol 7.4
#[test]
fn golden_receipt() {
    golden(
        &LaneControl::Receipt(receipt()),
        "03 03 07 03 | 00000004 | 00004e20 | 00000002 | 0000010203040506 | 0000010203040590 | \
         0000000000000010 0000000000000000 8000000000000000",
    );
}

#[test]
fn golden_empty_receipt() {
    let empty = Receipt { lane: 0, generation: 0, floor: 0, next: 0, path: PathId::RELAY, delay_us: 0, lost: 0, mask: ReceiptMask::new() };
    golden(&LaneControl::Receipt(empty), "03 00 00 00 | 00000000 | 00000000 | 00000000 | 0000000000000000 | 0000000000000000");
}

// protocol 4.3, 7.2
#[test]
fn refuses_lanes_that_are_not_data_lanes() {
    for message in [
        LaneControl::Switch { lane: 0x80, generation: 1, start: 0, from: PathId(0), to: PathId(2) },
        LaneControl::Drain { lane: 0xff, generation: 1, start: 0, path: PathId(0) },
        LaneControl::Receipt(Receipt { lane: 0x7f, ..receipt() }),
    ] {
        assert_eq!(LaneControl::parse(&bytes_of(&message)), Err(Malformed("lane")));
    }
}

// protocol 7.2 to 7.4
#[test]
fn refuses_sequences_of_more_than_56_bits() {
    let high = Counter::MAX_SEQUENCE + 1;
    let message = LaneControl::Receipt(Receipt { floor: high, ..receipt() });
    assert_eq!(LaneControl::parse(&bytes_of(&message)), Err(Malformed("receipt floor")));
    let message = LaneControl::Receipt(Receipt { next: high, ..receipt() });
    assert_eq!(LaneControl::parse(&bytes_of(&message)), Err(Malformed("receipt next")));
    let message = LaneControl::Drain { lane: 0, generation: 0, start: high, path: PathId(0) };
    assert_eq!(LaneControl::parse(&bytes_of(&message)), Err(Malformed("drain start")));
}

// protocol 7.4
#[test]
fn refuses_wrong_masks_and_tails() {
    let good = bytes_of(&LaneControl::Receipt(receipt()));
    let mut long = good.clone();
    long[3] = RECEIPT_MASK_WORDS as u8 + 1;
    assert_eq!(LaneControl::parse(&long), Err(Malformed("receipt mask length")));
    let mut zero_end = good.clone();
    zero_end[3] = 4;
    zero_end.extend_from_slice(&[0; 8]);
    assert_eq!(LaneControl::parse(&zero_end), Err(Malformed("receipt mask ends with a zero word")));
    let mut tail = good.clone();
    tail.push(0);
    assert_eq!(LaneControl::parse(&tail), Err(Malformed("bytes after lane control")));
    for cut in 0..good.len() {
        assert!(LaneControl::parse(&good[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_mask_remembers_its_bits() {
    let mut mask = ReceiptMask::new();
    for bit in [0, 63, 64, 1023] {
        assert!(!mask.get(bit));
        assert!(mask.set(bit));
        assert!(mask.get(bit));
    }
    assert!(!mask.set(ReceiptMask::BITS));
    assert!(!mask.set(u64::MAX));
    assert!(!mask.get(u64::MAX));
    assert_eq!((mask.count(), mask.words().len()), (4, RECEIPT_MASK_WORDS));
    assert_eq!(ReceiptMask::from_words(&[0, 5, 0]).words(), [0, 5]);
    assert_eq!(ReceiptMask::from_words(&[1; 20]).words().len(), RECEIPT_MASK_WORDS);
}

#[test]
fn a_receipt_has_at_most_its_stated_length() {
    let full = Receipt { mask: ReceiptMask::from_words(&[u64::MAX; RECEIPT_MASK_WORDS]), ..receipt() };
    assert_eq!(bytes_of(&LaneControl::Receipt(full)).len(), Receipt::MAX_LEN);
}

fn any_lane_control() -> impl Strategy<Value = LaneControl> {
    let sequence = 0..=Counter::MAX_SEQUENCE;
    let switch = (0..0x7f_u8, any::<u8>(), sequence.clone(), any::<u32>(), any::<u32>()).prop_map(|(lane, generation, start, from, to)| {
        LaneControl::Switch { lane, generation, start, from: PathId(from), to: PathId(to) }
    });
    let drain = (0..0x7f_u8, any::<u8>(), sequence.clone(), any::<u32>()).prop_map(|(lane, generation, start, path)| LaneControl::Drain {
        lane,
        generation,
        start,
        path: PathId(path),
    });
    let words = proptest::collection::vec(any::<u64>(), 0..=RECEIPT_MASK_WORDS);
    let receipt = ((0..0x7f_u8, any::<u8>(), any::<u32>()), (sequence.clone(), sequence), (any::<u32>(), any::<u32>()), words).prop_map(
        |((lane, generation, path), (floor, next), (delay_us, lost), words)| {
            LaneControl::Receipt(Receipt {
                lane,
                generation,
                floor,
                next,
                path: PathId(path),
                delay_us,
                lost,
                mask: ReceiptMask::from_words(&words),
            })
        },
    );
    prop_oneof![switch, drain, receipt]
}

proptest! {
    #[test]
    fn round_trip(message in any_lane_control()) {
        prop_assert_eq!(LaneControl::parse(&bytes_of(&message)), Ok(message));
    }

    #[test]
    fn any_bytes_end_without_panic(kind in 0_u8..5, bytes in proptest::collection::vec(any::<u8>(), 0..200), plain in any::<bool>()) {
        let mut body = vec![kind];
        body.extend(bytes);
        if plain {
            // reserved bytes and high parts zero: gets past the first checks more often
            for index in [1, 3, 4, 8, 12, 16, 24] { if let Some(byte) = body.get_mut(index) { *byte = 0; } }
        }
        if let Ok(message) = LaneControl::parse(&body) {
            prop_assert_eq!(bytes_of(&message), body);
        }
    }

    #[test]
    fn a_changed_byte_never_panics(message in any_lane_control(), at in any::<proptest::sample::Index>(), to: u8) {
        let mut body = bytes_of(&message);
        let at = at.index(body.len());
        body[at] = to;
        if let Ok(other) = LaneControl::parse(&body) {
            prop_assert_eq!(bytes_of(&other), body);
        }
    }
}
