//! The result of a run, and the line of JSON that a runner prints of it.

use std::{fs, process::ExitCode, time::Duration};

use serde::Serialize;

use crate::{Failure, Tally};

/// The result of a run.
pub struct Outcome {
    pub(crate) client: String,
    pub(crate) version: String,
    pub(crate) records: u64,
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
    pub(crate) latencies: Vec<Duration>,
    pub(crate) tally: Option<Tally>,
}

/// The fields of the line, in the order of the runners in Go and Java.
#[derive(Serialize)]
struct Line<'a> {
    client: &'a str,
    version: &'a str,
    records: u64,
    seconds: f64,
    records_per_s: f64,
    cpu_us_per_record: f64,
    rss_peak_mb: f64,
    #[serde(flatten)]
    latencies: Option<Latencies>,
    #[serde(flatten)]
    sums: Option<Sums>,
}

#[derive(Serialize)]
struct Latencies {
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

#[derive(Serialize)]
struct Sums {
    bytes: u64,
    firsts: u64,
}

impl Outcome {
    pub fn with_latencies(mut self, latencies: Vec<Duration>) -> Self {
        self.latencies = latencies;
        self
    }

    fn line(&self, rss_peak_mb: f64) -> Result<String, Failure> {
        let (records, seconds) = (self.records as f64, self.time.as_secs_f64());
        let (records_per_s, cpu_us_per_record) = (records / seconds, self.cpu.as_secs_f64() * 1e6 / records);
        // JSON has no such numbers, and the run measured nothing.
        if !records_per_s.is_finite() || !cpu_us_per_record.is_finite() {
            return Err(format!("{records} records in {seconds} s").into());
        }
        let line = Line {
            client: &self.client,
            version: &self.version,
            records: self.records,
            seconds: rounded(seconds, 6),
            records_per_s: rounded(records_per_s, 1),
            cpu_us_per_record: rounded(cpu_us_per_record, 5),
            rss_peak_mb: rounded(rss_peak_mb, 1),
            latencies: Latencies::of(&self.latencies),
            sums: self.tally.map(|Tally { bytes, firsts, .. }| Sums { bytes, firsts }),
        };
        Ok(serde_json::to_string(&line)?)
    }
}

impl Latencies {
    /// Returns the quantiles; `None` if no latency was measured.
    fn of(latencies: &[Duration]) -> Option<Self> {
        let mut latencies = latencies.to_vec();
        latencies.sort_unstable();
        let last = latencies.len().checked_sub(1)?;
        let quantile = |share: f64| rounded(latencies[(last as f64 * share).round() as usize].as_secs_f64() * 1e6, 1);
        Some(Self { p50_us: quantile(0.5), p99_us: quantile(0.99), p999_us: quantile(0.999) })
    }
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

/// Prints the result or the error of the run.
pub fn finish(outcome: Result<Outcome, Failure>) -> ExitCode {
    match outcome.and_then(|outcome| outcome.line(rss_peak_mb()?)) {
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

/// Returns the peak of the resident memory.
fn rss_peak_mb() -> Result<f64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("VmHWM without a number")?.parse()?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(records: u64) -> Outcome {
        Outcome {
            client: "ottla".to_owned(),
            version: "0.1.0".to_owned(),
            records,
            time: Duration::from_micros(1_500_001),
            cpu: Duration::from_millis(2),
            latencies: Vec::new(),
            tally: None,
        }
    }

    const HEAD: &str = r#"{"client":"ottla","version":"0.1.0","records":3000,"seconds":1.500001,"records_per_s":2000.0,"cpu_us_per_record":0.66667,"rss_peak_mb":12.3"#;

    #[test]
    fn line_holds_rounded_numbers_in_order() {
        assert_eq!(outcome(3_000).line(12.34).unwrap(), format!("{HEAD}}}"));
    }

    #[test]
    fn line_of_latencies_holds_three_quantiles() {
        let latencies = (0..1_001).rev().map(|n| Duration::from_nanos(n * 1_000 + 340)).collect();
        let line = outcome(3_000).with_latencies(latencies).line(12.34).unwrap();
        assert_eq!(line, format!(r#"{HEAD},"p50_us":500.3,"p99_us":990.3,"p999_us":999.3}}"#));
    }

    #[test]
    fn line_of_reader_holds_sums() {
        let tally = Tally { records: 3_000, bytes: 300_000, firsts: 369_000 };
        let line = Outcome { tally: Some(tally), ..outcome(3_000) }.line(12.34).unwrap();
        assert_eq!(line, format!(r#"{HEAD},"bytes":300000,"firsts":369000}}"#));
    }

    #[test]
    fn run_without_records_is_an_error() {
        assert!(outcome(0).line(12.34).is_err());
    }
}
