//! What the compiler's instrumentation tells: how often each edge was taken, and what was compared
//! with what.
//!
//! LLVM's SanitizerCoverage calls these functions by their names. Nothing of its runtime library is
//! linked: this is all of it that is needed.

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static STOP: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// Each module says on start where the program's counters are; it is the same place for all.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Relaxed);
    STOP.store(stop, Relaxed);
}

/// How many of the last comparisons are remembered; a power of two.
const COMPARISONS: usize = 512;
static NEXT: AtomicUsize = AtomicUsize::new(0);
static COMPARED: [AtomicU64; COMPARISONS] = [const { AtomicU64::new(0) }; COMPARISONS];

/// Remembers what something of the input was compared with. Small numbers are everywhere and say
/// nothing.
#[inline(always)]
fn compared(one: u64, other: u64) {
    if one == other {
        return;
    }
    for value in [one, other] {
        if value > 255 {
            let at = NEXT.fetch_add(1, Relaxed) % COMPARISONS;
            COMPARED[at].store(value, Relaxed);
        }
    }
}

macro_rules! comparisons {
    ($($name:ident: $int:ty,)*) => {
        $(#[unsafe(no_mangle)]
        pub extern "C" fn $name(one: $int, other: $int) {
            compared(u64::from(one), u64::from(other));
        })*
    };
}

comparisons! {
    __sanitizer_cov_trace_cmp1: u8,
    __sanitizer_cov_trace_cmp2: u16,
    __sanitizer_cov_trace_cmp4: u32,
    __sanitizer_cov_trace_cmp8: u64,
    __sanitizer_cov_trace_const_cmp1: u8,
    __sanitizer_cov_trace_const_cmp2: u16,
    __sanitizer_cov_trace_const_cmp4: u32,
    __sanitizer_cov_trace_const_cmp8: u64,
}

/// A switch's cases are edges of their own, which coverage finds.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_trace_switch(_value: u64, _cases: *mut u64) {}

/// One of the values that were compared last; 0 where there is none.
pub fn a_compared_value(pick: u64) -> u64 {
    COMPARED[pick as usize % COMPARISONS].load(Relaxed)
}

/// The counters of all edges. Only one thread runs what is counted while they are looked at.
fn counters() -> &'static mut [u8] {
    let (start, stop) = (START.load(Relaxed), STOP.load(Relaxed));
    if start.is_null() {
        return &mut [];
    }
    // SAFETY: the compiler's own section of counters, which is there as long as the program is, is
    // written to by plain instructions that the compiler put between those of the program. The
    // slice is made and dropped between two runs of a target, by the thread that runs it; other
    // threads (the watchdog) hardly count, and a count of theirs that is lost or seen too early
    // costs an input that is kept for nothing.
    unsafe { std::slice::from_raw_parts_mut(start, stop as usize - start as usize) }
}

/// What has been seen of each edge: a bit for each order of magnitude of how often a run took it.
pub struct Coverage {
    seen: Vec<u8>,
    edges: usize,
}

impl Coverage {
    pub fn new() -> Self {
        Self { seen: vec![0; counters().len()], edges: 0 }
    }

    /// How many edges there are in the whole program, with all that it links.
    pub fn size(&self) -> usize {
        self.seen.len()
    }

    /// How many of them were taken in any run.
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Forgets what was counted before a run.
    pub fn begin(&self) {
        counters().fill(0);
    }

    /// Takes what a run counted; whether anything of it is new.
    pub fn end(&mut self) -> bool {
        let counters = counters();
        let length = counters.len().min(self.seen.len());
        // SAFETY: both have so many bytes, and neither is looked at by anybody else meanwhile.
        let found = unsafe { __sanitizer_take_counters(counters.as_ptr(), self.seen.as_mut_ptr(), length) };
        self.edges += found >> 1;
        found & 1 == 1
    }
}

/// Adds what was counted to what has been seen. Twice the number of edges that had not been seen
/// before, and 1 more where anything is new.
///
/// This goes over every edge of the program after every run. What begins with this name the
/// compiler leaves as it is: under the instrumentation it would take a hundred times as long.
///
/// # Safety
/// There are `length` bytes at either place, which nobody else writes to.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_take_counters(counters: *const u8, seen: *mut u8, length: usize) -> usize {
    let (mut edges, mut new, mut at) = (0, 0, 0);
    while at < length {
        // SAFETY: `at` is below `length`, and eight words are read only where there are as many.
        unsafe {
            // Nearly all of it is zero.
            if length - at >= 64 {
                let words = counters.add(at).cast::<[u64; 8]>().read_unaligned();
                let [a, b, c, d, e, f, g, h] = words;
                if a | b | c | d | e | f | g | h == 0 {
                    at += 64;
                    continue;
                }
            }
            let end = if length - at >= 64 { at + 64 } else { length };
            while at < end {
                let bit = magnitude(*counters.add(at));
                let before = *seen.add(at);
                if before & bit != bit {
                    edges += (before == 0) as usize;
                    *seen.add(at) = before | bit;
                    new = 1;
                }
                at += 1;
            }
        }
    }
    edges * 2 + new
}

/// 1, 2, 3, 4–7, 8–15, 16–31, 32–127 and 128 times, a bit for each.
#[inline(always)]
fn magnitude(count: u8) -> u8 {
    match count {
        0 => 0,
        1..=3 => 1 << (count - 1),
        4..=7 => 1 << 3,
        8..=15 => 1 << 4,
        16..=31 => 1 << 5,
        32..=127 => 1 << 6,
        128.. => 1 << 7,
    }
}
