//! The differential test. The C libraries decode the output of Ottla's encoders, and Ottla decodes
//! the output of theirs at all levels and with all options, byte for byte. Damaged bytes cause no
//! panic, and Ottla decodes them to the C library's output or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use codec_tests::{
    check::{Checker, Counts, Finding},
    inputs::Inputs,
    random::Random,
    versions::versions,
};

/// Number of findings at which the run ends.
const ENOUGH: usize = 20;
const PROGRESS: Duration = Duration::from_secs(30);

/// Compares Ottla's codecs with the C libraries, byte for byte.
#[derive(Parser)]
struct Args {
    /// number of inputs, each for all codecs
    #[arg(long, default_value_t = 5_000)]
    inputs: u64,
    /// seed of the inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// number of a single input
    #[arg(long, value_name = "NUMBER")]
    only: Option<u64>,
    /// files to be used whole, instead of generated inputs
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The state that all threads share.
struct Run {
    inputs: Inputs,
    seed: u64,
    next: AtomicU64,
    end: u64,
    counts: Mutex<Counts>,
    findings: Mutex<Vec<String>>,
}

impl Run {
    fn work(&self, files: &[PathBuf]) {
        let mut checker = Checker::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.end || self.findings.lock().expect("no panic").len() >= ENOUGH {
                break;
            }
            let mut random = Random::new(self.seed, number);
            let input = match files.get(number as usize) {
                Some(file) => fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
                None => self.inputs.next(&mut random),
            };
            for finding in checker.check(&input, &mut random) {
                let described = self.write_down(number, &input, &finding);
                eprintln!("{described}");
                self.findings.lock().expect("no panic").push(described);
            }
            if number % 256 == 0 {
                self.count(&mut checker);
            }
        }
        self.count(&mut checker);
    }

    fn count(&self, checker: &mut Checker) {
        self.counts.lock().expect("no panic").add(&checker.counts);
        checker.counts = Counts::default();
    }

    /// Writes a finding's bytes to `found/` and returns its description.
    fn write_down(&self, number: u64, input: &[u8], finding: &Finding) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
        let name = format!("{}-{number}-{:?}", self.seed, finding.codec).to_lowercase();
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(format!("{name}.input")), input))
            .and_then(|()| fs::write(folder.join(format!("{name}.encoded")), &finding.encoded));
        let kept = written.map_or_else(|error| format!("could not be written: {error}"), |()| "kept in found/".into());
        format!("{:?}: {} (--seed {} --only {number}; {name} {kept})", finding.codec, finding.what, self.seed)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match versions() {
        Ok(versions) => println!("{} beside zstd {}", versions.join(", "), zstd_safe::version_string()),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    // A panic of a codec is a finding, so its backtrace is not printed.
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    let inputs = Inputs::new();
    let (files, bytes) = inputs.real();
    println!("seed {}; real inputs are parts of {files} files of {bytes} bytes", args.seed);
    let (next, end) = match args.only {
        Some(only) => (only, only + 1),
        None if !args.files.is_empty() => (0, args.files.len() as u64),
        None => (0, args.inputs),
    };
    let run =
        Run { inputs, seed: args.seed, next: next.into(), end, counts: Mutex::default(), findings: Mutex::default() };
    let start = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| run.work(&args.files))).collect();
        let mut reported = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if reported.elapsed() > PROGRESS {
                println!("{:.0?}: {}", start.elapsed(), run.counts.lock().expect("no panic"));
                reported = Instant::now();
            }
        }
    });
    println!("{:.1?}: {}", start.elapsed(), run.counts.lock().expect("no panic"));
    let findings = run.findings.lock().expect("no panic");
    if findings.is_empty() {
        println!("no difference");
        return ExitCode::SUCCESS;
    }
    println!("{} differences:\n{}", findings.len(), findings.join("\n"));
    ExitCode::FAILURE
}
