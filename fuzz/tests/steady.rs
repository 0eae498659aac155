//! Frames in a steady stream cost no memory: counted by the allocator, in both directions, at once cut and joined.
//!
//! One test, because the counter is one for the whole process; the `RustCrypto` back end, because what `aws-lc` takes from the C
//! library is not seen here.
mod counting;

use counting::COUNTS;
use shadowmesh_core::{crypto::rustcrypto::RustCrypto, session::Suite};
use shadowmesh_fuzz::pair::{PIECES, Pair, SIZE};
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn a_frame_in_a_steady_stream_asks_for_no_memory() {
    const ROUNDS: usize = 500;
    let mut pair = Pair::new(Suite::ChaCha20Poly1305, &RustCrypto);
    pair.run(ROUNDS);
    let before = COUNTS.asked.load(Relaxed);
    let came = pair.run(ROUNDS);
    let asked = COUNTS.asked.load(Relaxed) - before;
    assert_eq!(came.bytes, 2 * ROUNDS * PIECES * usize::from(SIZE), "all came");
    assert_eq!(came.large, 2 * ROUNDS, "and was joined as it had been before it was cut");
    assert_eq!(asked, 0, "for {} frames", 2 * ROUNDS * PIECES);
}
