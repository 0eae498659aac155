//! Frames in a steady stream cost no memory: counted by the allocator, in both directions, at once cut and joined.
//!
//! One test, because the counter is one for the whole process; the `RustCrypto` back end, because what `aws-lc` takes from the C
//! library is not seen here.
use shadowmesh_core::{crypto::rustcrypto::RustCrypto, session::Suite};
use shadowmesh_fuzz::pair::{PIECES, Pair, SIZE};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The system's allocator, and how often it was asked.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call goes to the system's allocator as it came; beside that, only a counter changes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_frame_in_a_steady_stream_asks_for_no_memory() {
    const ROUNDS: usize = 500;
    let mut pair = Pair::new(Suite::ChaCha20Poly1305, &RustCrypto);
    pair.run(ROUNDS);
    let before = ASKED.load(Relaxed);
    let came = pair.run(ROUNDS);
    let asked = ASKED.load(Relaxed) - before;
    assert_eq!(came.bytes, 2 * ROUNDS * PIECES * usize::from(SIZE), "all came");
    assert_eq!(came.large, 2 * ROUNDS, "and was joined as it had been before it was cut");
    assert_eq!(asked, 0, "for {} frames", 2 * ROUNDS * PIECES);
}
