//! A counting allocator, so that an input that takes more memory than it may is a finding like a
//! panic.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

/// Maximum allocated bytes: the program ends before the machine runs out of memory.
const CAP: usize = 3 << 30;

pub struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Returns the allocated bytes.
pub fn now() -> usize {
    NOW.load(Relaxed)
}

/// Resets the peak to the bytes that are allocated now.
pub fn watch() {
    PEAK.store(now(), Relaxed);
}

/// Returns the maximum of the allocated bytes since [`watch`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

fn grow(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

/// Ends the program for an allocation beyond [`CAP`], and saves its input.
fn check(bytes: usize) {
    if now().saturating_add(bytes) > CAP && !ENDING.swap(true, Relaxed) {
        crate::findings::fatal(&format!("an allocation of {bytes} bytes"));
    }
}

// SAFETY: every call is passed to the system's allocator unchanged; the counters do not affect it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        grow(layout.size());
        // SAFETY: the caller's guarantees hold for the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        grow(layout.size());
        // SAFETY: the caller's guarantees hold for the system's allocator.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's guarantees hold for the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size.saturating_sub(layout.size()));
        grow(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's guarantees hold for the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}
