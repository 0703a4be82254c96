//! What was found: panics, too much memory, inputs that take too long. Each is saved with its
//! input.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    panic,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// An input that takes more of the processor than this is a finding. Not of the clock, where there
/// is another way: on a busy machine the program may stand still for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same by the clock, for one that waits and takes nothing of the processor.
const WAITS: Duration = Duration::from_secs(600);

/// The input under way, and of which target.
static CURRENT: Mutex<(String, Vec<u8>)> = Mutex::new((String::new(), Vec::new()));
/// Where the last panic was, and what it said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// How many runs have begun and ended: it is odd while one is under way.
static RUN: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the program has had of the processor, where the system says so; else what has passed.
fn spent(started: Instant) -> Duration {
    processor().unwrap_or_else(|| started.elapsed())
}

/// User and system time, of which Linux tells in hundredths of a second.
fn processor() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may have spaces in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

/// Takes panics over, and watches the time.
pub fn watch(started: Instant) {
    panic::set_hook(Box::new(|info| {
        let at = info.location().map_or("somewhere".to_owned(), |at| format!("{}:{}", at.file(), at.line()));
        let said = info.payload_as_str().unwrap_or("something");
        *lock(&PANIC) = Some(format!("panic at {at}: {said}"));
    }));
    std::thread::spawn(move || {
        let mut last = (0, Duration::ZERO, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let (run, spent) = (RUN.load(Relaxed), spent(started));
            if run != last.0 || run % 2 == 0 {
                last = (run, spent, Instant::now());
            } else if spent.saturating_sub(last.1) > PATIENCE || last.2.elapsed() > WAITS {
                fatal(&format!("no end after {PATIENCE:?} of the processor, or {WAITS:?}"));
            }
        }
    });
}

/// A run begins.
pub fn begin(input: &[u8]) {
    let mut current = lock(&CURRENT);
    current.1.clear();
    current.1.extend_from_slice(input);
    drop(current);
    RUN.fetch_add(1, Relaxed);
}

/// A run has ended.
pub fn end() {
    RUN.fetch_add(1, Relaxed);
}

/// What the last panic said.
pub fn take_panic() -> String {
    lock(&PANIC).take().unwrap_or_else(|| "a panic".to_owned())
}

/// Something after which the program cannot go on: saves the input and ends it.
pub fn fatal(what: &str) -> ! {
    let (target, input) = match CURRENT.try_lock() {
        Ok(current) => current.clone(),
        Err(_) => (String::new(), Vec::new()),
    };
    let path = save(&target, what, &input);
    eprintln!("FOUND in {target}: {what}; its input: {}", path.display());
    std::process::abort();
}

/// Where what was found goes.
fn folder(target: &str) -> PathBuf {
    Path::new("found").join(target)
}

fn save(target: &str, what: &str, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (what, input).hash(&mut hasher);
    let path = folder(target).join(format!("{:016x}", hasher.finish()));
    let saved = fs::create_dir_all(folder(target)).and_then(|()| fs::write(&path, input));
    if let Err(error) = saved {
        eprintln!("{} cannot be written: {error}; the input: {}", path.display(), input.escape_ascii());
    }
    path
}

/// What was found in a target, once for each place.
pub struct Findings {
    target: &'static str,
    known: BTreeMap<String, u64>,
}

impl Findings {
    pub fn new(target: &'static str) -> Self {
        target.clone_into(&mut lock(&CURRENT).0);
        Self { target, known: BTreeMap::new() }
    }

    /// One more. The first of each kind is told and saved.
    pub fn add(&mut self, what: String, input: &[u8]) {
        let kind = what.split(": ").next().unwrap_or(&what).to_owned();
        let count = self.known.entry(kind).or_default();
        *count += 1;
        if *count == 1 {
            let path = save(self.target, &what, input);
            println!("FOUND in {}: {what}; its input of {} bytes: {}", self.target, input.len(), path.display());
        }
    }

    pub fn kinds(&self) -> usize {
        self.known.len()
    }
}
