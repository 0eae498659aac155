//! Planes of several shards, driven by scripts of chance: switches, deaths of a path, hedges, rekeys, new sessions (protocol 4.3, 7).
use proptest::prelude::*;
use shadowmesh_fuzz::targets::plane;

proptest! {
    // protocol 4.3, 7.2, 7.5
    #[test]
    fn each_flow_comes_out_whole_and_in_order_whatever_lane_it_is_in(
        shards in 0_u8..4, small: bool, script in proptest::collection::vec(any::<u8>(), 0..700),
    ) {
        plane(&[&[shards << 2 | u8::from(small) << 1], &script[..]].concat());
    }

    #[test]
    fn edits_without_sense_double_nothing(shards in 1_u8..4, script in proptest::collection::vec(any::<u8>(), 0..700)) {
        plane(&[&[shards << 2 | 1], &script[..]].concat());
    }
}
