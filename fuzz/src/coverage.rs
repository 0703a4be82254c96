//! The data of the compiler's instrumentation: the number of times that each edge was taken, and
//! the values that were compared.
//!
//! LLVM's SanitizerCoverage calls these functions by their names. Its runtime library is not
//! linked, because these functions are all that is needed.

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static STOP: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// Each module passes the place of the program's counters at start; it is the same place for all.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Relaxed);
    STOP.store(stop, Relaxed);
}

/// Number of the last comparisons that are remembered; a power of two.
const COMPARISONS: usize = 512;
static NEXT: AtomicUsize = AtomicUsize::new(0);
static COMPARED: [AtomicU64; COMPARISONS] = [const { AtomicU64::new(0) }; COMPARISONS];

/// Remembers the values of a comparison, one of which may come from the input. Values below 256 are
/// left out, because they are frequent and carry no information.
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

/// The cases of a switch are edges of their own, which coverage finds.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_trace_switch(_value: u64, _cases: *mut u64) {}

/// Returns one of the values that were compared last, or 0 if there is none.
pub fn a_compared_value(pick: u64) -> u64 {
    COMPARED[pick as usize % COMPARISONS].load(Relaxed)
}

/// Returns the counters of all edges. No counted code but this thread's runs while they are read.
fn counters() -> &'static mut [u8] {
    let (start, stop) = (START.load(Relaxed), STOP.load(Relaxed));
    if start.is_null() {
        return &mut [];
    }
    // SAFETY: the slice is the compiler's own section of counters, which exists as long as the
    // program, and which the instructions that the compiler inserts into the program write to. The
    // slice is made and dropped between two runs of a target, by the thread that runs it. Other
    // threads (the watchdog) hardly count, and a count of theirs that is lost or seen too early
    // only keeps an input without need.
    unsafe { std::slice::from_raw_parts_mut(start, stop as usize - start as usize) }
}

/// The counts seen of each edge: a bit for each order of magnitude of the number of times that a
/// run took it.
pub struct Coverage {
    seen: Vec<u8>,
    edges: usize,
}

impl Coverage {
    pub fn new() -> Self {
        Self { seen: vec![0; counters().len()], edges: 0 }
    }

    /// Returns the number of edges in the whole program, with all that it links.
    pub fn size(&self) -> usize {
        self.seen.len()
    }

    /// Returns the number of edges that any run took.
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Resets the counters before a run.
    pub fn begin(&self) {
        counters().fill(0);
    }

    /// Adds the counters of a run. Returns true if any of them is new.
    pub fn end(&mut self) -> bool {
        let counters = counters();
        let length = counters.len().min(self.seen.len());
        // SAFETY: both have `length` bytes, and no other code accesses them meanwhile.
        let found = unsafe { __sanitizer_take_counters(counters.as_ptr(), self.seen.as_mut_ptr(), length) };
        self.edges += found >> 1;
        found & 1 == 1
    }
}

/// Adds the counters to the counts seen. Returns twice the number of edges that were not seen
/// before, plus 1 if anything is new.
///
/// It visits every edge of the program after every run. The compiler does not instrument functions
/// with names that begin with `__sanitizer_`; with the instrumentation it would take a hundred
/// times as long.
///
/// # Safety
/// Both pointers are valid for `length` bytes, which no other code writes to.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_take_counters(counters: *const u8, seen: *mut u8, length: usize) -> usize {
    let (mut edges, mut new, mut at) = (0, 0, 0);
    while at < length {
        // SAFETY: `at` is below `length`, and eight words are read only if that many are left.
        unsafe {
            // Nearly all counters are zero.
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

/// Returns one bit for each of 1, 2, 3, 4–7, 8–15, 16–31, 32–127 and 128 times.
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
