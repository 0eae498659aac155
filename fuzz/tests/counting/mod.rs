//! The system's allocator, counted. One for a whole process: a test program that uses it has one test.
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What the allocator was asked for so far.
pub(crate) struct Counts {
    /// Bytes that were given out and did not come back.
    pub(crate) live: AtomicUsize,
    /// Requests.
    pub(crate) asked: AtomicUsize,
}

pub(crate) static COUNTS: Counts = Counts { live: AtomicUsize::new(0), asked: AtomicUsize::new(0) };

struct Counting;

// SAFETY: each call goes to the system's allocator as it came; beside that, only counters change.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTS.live.fetch_add(layout.size(), Relaxed);
        COUNTS.asked.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        COUNTS.live.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
