//! The 16-byte header of a sealed frame, its counter and the inner types (protocol 4.1 to 4.3).
//!
//! ```text
//! 10 | epoch | generation | 0 | receiver u32 | counter u64 | ciphertext of (inner type ‖ body) | tag 16
//! ```
use super::{Malformed, Reader, TYPE_FRAME};

/// Length of the header of a sealed frame in bytes; it is the associated data of the seal.
pub const FRAME_HEADER_LEN: usize = 16;
/// Length of the AEAD tag in bytes.
pub const TAG_LEN: usize = 16;
/// Bytes that a frame has besides its body: header, inner type, tag.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER_LEN + 1 + TAG_LEN;

/// The smallest budget of a path by UDP: sealed frames of so many bytes come through (protocol 8.3). The longest control frame between peers
/// has two less.
pub const LEAST_BUDGET: usize = 1_040;

/// The Node's own control lane (protocol 4.3).
pub const LANE_NODE: u8 = 0xff;
/// Set in the number of the lane that carries receipts and switches of data lane n (protocol 4.3).
pub const LANE_CONTROL_BIT: u8 = 0x80;
/// Data lanes that there can be: 00 to 7E (protocol 4.3).
pub const DATA_LANES: u8 = 0x7f;

/// Inner type of an empty frame that only shows life.
pub const INNER_KEEPALIVE: u8 = 0x00;
/// Inner type of one Ethernet frame.
pub const INNER_ETHERNET: u8 = 0x01;
/// Inner type of one IP packet.
pub const INNER_IP: u8 = 0x02;
/// Inner type of one IP packet whose TCP or UDP checksum is only begun.
pub const INNER_IP_PARTIAL: u8 = 0x03;
/// Inner type of a piece of a packet (protocol 4.2).
pub const INNER_PIECE: u8 = 0x04;
/// Inner type of one Ethernet frame whose TCP or UDP checksum is only begun.
pub const INNER_ETHERNET_PARTIAL: u8 = 0x05;
/// Inner type of control messages.
pub const INNER_CONTROL: u8 = 0x80;

/// Counter of a frame: lane in the top byte, sequence in the 56 bits below. It is nonce, order and receipt number at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter(pub u64);

impl Counter {
    /// The last sequence of a lane.
    pub const MAX_SEQUENCE: u64 = (1 << 56) - 1;

    /// The counter of `sequence` in `lane`.
    ///
    /// # Panics
    /// When `sequence` is above [`Self::MAX_SEQUENCE`]: sessions are replaced long before (protocol 3.10).
    pub const fn new(lane: u8, sequence: u64) -> Self {
        assert!(sequence <= Self::MAX_SEQUENCE, "a lane is replaced before its 56-bit sequence ends");
        Self(((lane as u64) << 56) | sequence)
    }

    /// The lane.
    pub const fn lane(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The sequence within the lane.
    pub const fn sequence(self) -> u64 {
        self.0 & Self::MAX_SEQUENCE
    }
}

/// What stands in clear before each sealed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Low byte of the epoch under whose key the frame is sealed.
    pub epoch: u8,
    /// Generation of the switch that was in force at sealing.
    pub generation: u8,
    /// The session number that the receiver chose in the handshake.
    pub receiver: u32,
    /// Lane and sequence.
    pub counter: Counter,
}

impl FrameHeader {
    /// Reads the header at the start of a frame.
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        // protocol 4.1
        let mut reader = Reader::new(frame);
        if reader.u8("frame type")? != TYPE_FRAME {
            return Err(Malformed("frame type"));
        }
        let epoch = reader.u8("frame epoch")?;
        let generation = reader.u8("frame generation")?;
        reader.zero("frame reserved byte")?;
        let receiver = reader.u32("frame receiver")?;
        let counter = Counter(reader.u64("frame counter")?);
        Ok(Self { epoch, generation, receiver, counter })
    }

    /// The header as it is sent and authenticated.
    pub const fn to_bytes(self) -> [u8; FRAME_HEADER_LEN] {
        let [r0, r1, r2, r3] = self.receiver.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.0.to_be_bytes();
        [TYPE_FRAME, self.epoch, self.generation, 0, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol 4.1
    #[test]
    fn golden_header() {
        let header = FrameHeader { epoch: 2, generation: 3, receiver: 0x0a0b_0c0d, counter: Counter::new(0x85, 0x1122_3344_5566) };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [0x10, 2, 3, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0x85, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66]);
        assert_eq!(FrameHeader::parse(&bytes), Ok(header));
        assert_eq!(header.counter.lane(), 0x85);
        assert_eq!(header.counter.sequence(), 0x1122_3344_5566);
    }

    // protocol 4.1
    #[test]
    fn refuses_wrong_type_reserved_byte_and_short_header() {
        let good = FrameHeader { epoch: 0, generation: 0, receiver: 1, counter: Counter::new(0, 7) }.to_bytes();
        assert_eq!(FrameHeader::parse(&good[..15]), Err(Malformed("frame counter")));
        let mut wrong = good;
        wrong[0] = 0x11;
        assert_eq!(FrameHeader::parse(&wrong), Err(Malformed("frame type")));
        let mut wrong = good;
        wrong[3] = 1;
        assert_eq!(FrameHeader::parse(&wrong), Err(Malformed("frame reserved byte")));
    }

    // protocol 4.1, 4.3
    #[test]
    #[should_panic(expected = "56-bit")]
    fn a_counter_never_runs_into_its_lane() {
        let _ = Counter::new(0, Counter::MAX_SEQUENCE + 1);
    }

    proptest! {
        #[test]
        fn accepted_bytes_are_the_only_form(bytes in proptest::collection::vec(any::<u8>(), 0..40), fix in any::<bool>()) {
            let mut bytes = bytes;
            if fix && bytes.len() >= 4 { bytes[0] = TYPE_FRAME; bytes[3] = 0; }
            if let Ok(header) = FrameHeader::parse(&bytes) {
                prop_assert_eq!(&header.to_bytes()[..], &bytes[..FRAME_HEADER_LEN]);
            } else {
                prop_assert!(!fix || bytes.len() < FRAME_HEADER_LEN);
            }
        }

        #[test]
        fn round_trip(epoch: u8, generation: u8, receiver: u32, lane: u8, sequence in 0..=Counter::MAX_SEQUENCE) {
            let header = FrameHeader { epoch, generation, receiver, counter: Counter::new(lane, sequence) };
            prop_assert_eq!(FrameHeader::parse(&header.to_bytes()), Ok(header));
            prop_assert_eq!((header.counter.lane(), header.counter.sequence()), (lane, sequence));
        }
    }
}
