//! The findings: panics, too much memory, inputs that take too long. Each is saved with its input.

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

/// Processor time above which an input is a finding. The clock counts only if the processor time is
/// unknown, because on a busy machine the program may stand still for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time by the clock above which an input is a finding, for one that waits without using the
/// processor.
const WAITS: Duration = Duration::from_secs(600);

/// The target of the current input, and the input.
static CURRENT: Mutex<(String, Vec<u8>)> = Mutex::new((String::new(), Vec::new()));
/// The place and the message of the last panic.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// Number of runs that have begun plus number of runs that have ended: it is odd during a run.
static RUN: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the processor time of the program if the system reports it, and the elapsed time
/// otherwise.
fn spent(started: Instant) -> Duration {
    processor().unwrap_or_else(|| started.elapsed())
}

/// Returns user and system time, which Linux reports in hundredths of a second.
fn processor() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The fields after the name, which may contain spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

/// Records panics in place of printing them, and starts the watchdog.
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
                fatal(&format!("the input takes more than {PATIENCE:?} of processor time, or more than {WAITS:?}"));
            }
        }
    });
}

/// Begins a run.
pub fn begin(input: &[u8]) {
    let mut current = lock(&CURRENT);
    current.1.clear();
    current.1.extend_from_slice(input);
    drop(current);
    RUN.fetch_add(1, Relaxed);
}

/// Ends a run.
pub fn end() {
    RUN.fetch_add(1, Relaxed);
}

/// Returns the message of the last panic.
pub fn take_panic() -> String {
    lock(&PANIC).take().unwrap_or_else(|| "a panic".to_owned())
}

/// Ends the program after a failure that it cannot survive, and saves the input.
pub fn fatal(what: &str) -> ! {
    let (target, input) = match CURRENT.try_lock() {
        Ok(current) => current.clone(),
        Err(_) => (String::new(), Vec::new()),
    };
    let path = save(&target, what, &input);
    eprintln!("FOUND in {target}: {what}; its input: {}", path.display());
    std::process::abort();
}

/// Returns the folder for the findings of a target.
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

/// The findings in a target, one for each place.
pub struct Findings {
    target: &'static str,
    known: BTreeMap<String, u64>,
}

impl Findings {
    pub fn new(target: &'static str) -> Self {
        target.clone_into(&mut lock(&CURRENT).0);
        Self { target, known: BTreeMap::new() }
    }

    /// Adds a finding. The first of each kind is printed and saved.
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
