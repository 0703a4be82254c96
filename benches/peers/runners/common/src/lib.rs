//! The code that the runners share: their command line, the data, the clocks, and the line that
//! they print at their end.
//!
//! The runners in Go and Java read the same command line and print the same line.

mod args;
mod counter;
mod outcome;
mod tally;
mod transactions;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use args::Args;
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};

pub use args::Mode;
pub use counter::Counter;
pub use outcome::{Outcome, finish};
pub use tally::Tally;
pub use transactions::Transactions;

/// An error that ends a run without a result.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Number of different keys.
pub const KEYS: usize = 10_000;
/// Number of records between two readings of the clock.
pub const STRIDE: u64 = 256;
/// Time without a record after which a reader has failed.
pub const STALLED: Duration = Duration::from_secs(20);

/// The work that the command line asks for.
pub struct Work {
    pub mode: Mode,
    pub bootstrap: String,
    pub topic: String,
    pub partitions: usize,
    pub compression: String,
    /// `None` stands for the client's own default.
    pub level: Option<i32>,
    /// `None` stands for the client's own default.
    pub batch_size: Option<usize>,
    pub linger_ms: u64,
    pub keyed: bool,
    /// Records per second, for `latency`.
    pub rate: u64,
    /// Records of each transaction, for `transact`.
    pub transaction: u64,
    pub warmup: Duration,
    pub timed: Duration,
    /// Maximum number of records that are sent in the timed part, or read in all, whatever the
    /// time.
    pub records: u64,
    /// Name of the way to send or to read, if a client has several.
    pub api: Option<String>,
    /// The authority (a PEM file) that issued the broker's certificate; `None` stands for no TLS.
    pub ca: Option<String>,
    pub values: Vec<&'static [u8]>,
    pub keys: Vec<[u8; 8]>,
}

impl Work {
    /// Reads the command line and the values. Ends the program if an argument is wrong.
    ///
    /// # Errors
    /// The file of the values cannot be read, or holds less than one value.
    pub fn from_args() -> Result<Self, Failure> {
        let args = Args::parse();
        let bytes = fs::read(&args.values)?.leak();
        let work = Self {
            mode: args.mode,
            bootstrap: args.bootstrap_server,
            topic: args.topic,
            partitions: args.partitions,
            compression: args.compression,
            level: args.level.0,
            batch_size: args.batch_size.0,
            linger_ms: if args.mode == Mode::Latency { 0 } else { 5 },
            keyed: args.keyed,
            rate: args.rate,
            transaction: args.transaction,
            warmup: args.warmup,
            timed: args.seconds,
            records: args.records,
            api: args.api,
            ca: args.ca,
            values: bytes.chunks_exact(args.size).collect(),
            keys: (0..KEYS).map(key).collect(),
        };
        if work.values.is_empty() {
            return Err("nothing to send".into());
        }
        Ok(work)
    }

    /// Returns the value of the `n`th record.
    pub fn value(&self, n: u64) -> &'static [u8] {
        self.values[(n % self.values.len() as u64) as usize]
    }

    /// Returns the key of the `n`th record.
    pub fn key(&self, n: u64) -> &[u8; 8] {
        &self.keys[(n % KEYS as u64) as usize]
    }

    /// Sends until the time has passed or all records are sent, reading the clock every [`STRIDE`]
    /// records. Returns the number of records sent.
    pub fn until_done(&self, time: Duration, mut send: impl FnMut(u64) -> Result<(), Failure>) -> Result<u64, Failure> {
        let end = Instant::now() + time;
        let mut n = 0;
        while n < self.records {
            send(n)?;
            n += 1;
            if n % STRIDE == 0 && Instant::now() >= end {
                break;
            }
        }
        Ok(n)
    }

    /// Returns the maximum number of records read before the clock starts, so that a log with an
    /// end leaves the other half to be timed.
    pub fn most_to_warm_up(&self) -> u64 {
        self.records / 2
    }

    /// Returns the number of records left for the timed part after the warm-up.
    pub fn most_to_time(&self, warmed_up: &Tally) -> u64 {
        self.records.saturating_sub(warmed_up.records)
    }

    /// Returns the number of records that `latency` sends in that time.
    pub fn scheduled(&self, time: Duration) -> u64 {
        ((time.as_secs_f64() * self.rate as f64) as u64).clamp(1, self.records)
    }

    /// Waits, as a thread, until the `n`th record is due. Returns the time from which its latency
    /// counts: that of the call or, if the sender is behind its schedule, the time at which the
    /// record was due.
    pub fn wait_until_due(&self, start: Instant, n: u64) -> Instant {
        let due = start + Duration::from_nanos(n * 1_000_000_000 / self.rate);
        match due.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => {
                thread::sleep(left);
                Instant::now()
            }
            _ => due,
        }
    }
}

/// Returns the `n`th key: eight digits.
fn key(n: usize) -> [u8; 8] {
    let mut key = [b'0'; 8];
    for (place, digit) in key.iter_mut().rev().zip(format!("{n}").bytes().rev()) {
        *place = digit;
    }
    key
}

/// Measures the timed part: real time, and this process's CPU time, user and system.
pub struct Clock {
    started: Instant,
    cpu: Duration,
}

impl Clock {
    pub fn start() -> Result<Self, Failure> {
        Ok(Self { started: Instant::now(), cpu: cpu()? })
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// Ends the timed part, once all results of these records have arrived.
    pub fn stop(self, client: &str, version: &str, records: u64) -> Result<Outcome, Failure> {
        let (time, cpu) = (self.started.elapsed(), cpu()?.saturating_sub(self.cpu));
        Ok(Outcome {
            client: client.to_owned(),
            version: version.to_owned(),
            records,
            time,
            cpu,
            latencies: Vec::new(),
            tally: None,
        })
    }

    /// Ends the timed part of reading.
    pub fn stop_reading(self, client: &str, version: &str, tally: Tally) -> Result<Outcome, Failure> {
        let mut outcome = self.stop(client, version, tally.records)?;
        outcome.tally = Some(tally);
        Ok(outcome)
    }
}

fn cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(u64::try_from(micros.iter().sum::<i64>())?))
}
