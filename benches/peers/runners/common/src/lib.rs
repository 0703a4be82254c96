//! The code that the runners share: their command line, the data, the clocks, and the line that
//! they print at their end.
//!
//! The runners in Go and Java read the same command line and print the same line.

mod counter;
mod tally;

use std::{
    fmt::Write,
    fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

pub use counter::Counter;
pub use tally::Tally;

/// An error that ends a run without a result.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Number of different keys.
pub const KEYS: usize = 10_000;
/// Number of records between two readings of the clock.
pub const STRIDE: u64 = 256;
/// Time without a record after which a reader has failed.
pub const STALLED: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Sends as fast as possible.
    Produce,
    /// Sends at a fixed rate.
    Latency,
    /// Reads as fast as possible.
    Consume,
}

/// The command line.
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
    pub fn from_args() -> Result<Self, Failure> {
        let mut args = std::env::args().skip(1);
        let mode = match args.next().as_deref() {
            Some("produce") => Mode::Produce,
            Some("latency") => Mode::Latency,
            Some("consume") => Mode::Consume,
            other => return Err(format!("the mode is produce, latency or consume, not {other:?}").into()),
        };
        let mut work = Self {
            mode,
            bootstrap: String::new(),
            topic: "perf".to_owned(),
            partitions: 1,
            compression: "none".to_owned(),
            level: None,
            batch_size: None,
            linger_ms: if mode == Mode::Produce { 5 } else { 0 },
            keyed: false,
            rate: 2_000,
            warmup: Duration::from_millis(300),
            timed: Duration::from_millis(1_500),
            records: u64::MAX,
            api: None,
            ca: None,
            values: Vec::new(),
            keys: (0..KEYS).map(key).collect(),
        };
        let (mut size, mut file) = (100_usize, None);
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} requires a value"))?;
            match name.as_str() {
                "--bootstrap-server" => work.bootstrap = value,
                "--topic" => work.topic = value,
                "--values" => file = Some(value),
                "--size" => size = value.parse()?,
                "--partitions" => work.partitions = value.parse()?,
                "--compression" => work.compression = value,
                "--level" => work.level = optional(&value)?,
                "--batch-size" => work.batch_size = optional(&value)?,
                "--keyed" => work.keyed = value.parse()?,
                "--rate" => work.rate = value.parse()?,
                "--warmup" => work.warmup = Duration::from_secs_f64(value.parse()?),
                "--seconds" => work.timed = Duration::from_secs_f64(value.parse()?),
                "--records" => work.records = value.parse()?,
                "--api" => work.api = Some(value),
                "--ca" => work.ca = Some(value),
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        let bytes = fs::read(file.ok_or("--values requires a file")?)?.leak();
        work.values = bytes.chunks_exact(size).collect();
        if work.values.is_empty() || work.rate == 0 || work.partitions == 0 {
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

fn optional<T: std::str::FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    if text == "default" { Ok(None) } else { text.parse().map(Some) }
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

/// The result of a run.
pub struct Outcome {
    client: String,
    version: String,
    records: u64,
    time: Duration,
    cpu: Duration,
    latencies: Vec<Duration>,
    tally: Option<Tally>,
}

impl Outcome {
    pub fn with_latencies(mut self, latencies: Vec<Duration>) -> Self {
        self.latencies = latencies;
        self
    }

    fn line(mut self) -> Result<String, Failure> {
        let (records, seconds) = (self.records as f64, self.time.as_secs_f64());
        let mut line = format!(
            "{{\"client\":\"{}\",\"version\":\"{}\",\"records\":{},\"seconds\":{seconds:.6},\"records_per_s\":{:.1},\
             \"cpu_us_per_record\":{:.5},\"rss_peak_mb\":{:.1}",
            self.client,
            self.version,
            self.records,
            records / seconds,
            self.cpu.as_secs_f64() * 1e6 / records,
            rss_peak_mb()?,
        );
        if !self.latencies.is_empty() {
            self.latencies.sort_unstable();
            for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
                let at = ((self.latencies.len() - 1) as f64 * share).round() as usize;
                write!(line, ",\"{name}\":{:.1}", self.latencies[at].as_secs_f64() * 1e6)?;
            }
        }
        if let Some(Tally { bytes, firsts, .. }) = self.tally {
            write!(line, ",\"bytes\":{bytes},\"firsts\":{firsts}")?;
        }
        line.push('}');
        Ok(line)
    }
}

/// Prints the result or the error of the run.
pub fn finish(outcome: Result<Outcome, Failure>) -> ExitCode {
    match outcome.and_then(Outcome::line) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(u64::try_from(micros.iter().sum::<i64>())?))
}

/// Returns the peak of the resident memory.
fn rss_peak_mb() -> Result<f64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("VmHWM without a number")?.parse()?;
    Ok(kib / 1024.0)
}
