//! An allocator that counts, so that an input which takes more memory than it may is a finding like
//! a panic.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

/// What nothing here may ever take: what would is ended before the machine suffers.
const CAP: usize = 3 << 30;

pub struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Bytes that are allocated.
pub fn now() -> usize {
    NOW.load(Relaxed)
}

/// Begins to look for the most that is allocated from now on.
pub fn watch() {
    PEAK.store(now(), Relaxed);
}

/// The most that was allocated since [`watch`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

fn grow(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

/// Ends the program for an allocation that goes beyond all bounds, with its input saved.
fn check(bytes: usize) {
    if now().saturating_add(bytes) > CAP && !ENDING.swap(true, Relaxed) {
        crate::findings::fatal(&format!("an allocation of {bytes} bytes"));
    }
}

// SAFETY: every call goes to the system's allocator as it came; what is counted beside it has no
// part in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        grow(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        grow(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size.saturating_sub(layout.size()));
        grow(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
}
