//! A coverage-guided fuzzer for Ottla's decoders, without any C code. See README.md.

mod coverage;
mod findings;
mod memory;
mod mutate;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{
    Parser,
    builder::{PossibleValuesParser, TypedValueParser},
};
use coverage::Coverage;
use findings::Findings;
use mutate::{Dice, mutate};
use ottla::fuzz::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Runs mutated inputs through Ottla's decoders.
#[derive(Parser)]
struct Args {
    /// all: each target in turn, each for that many seconds; list: prints the targets' names
    #[arg(value_name = "TARGET", value_parser = selection())]
    selection: Selection,
    /// time for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// seed of the mutations
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// maximum bytes of an input
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    longest: usize,
    /// runs these inputs once, and no others
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Clone)]
enum Selection {
    List,
    Targets(Vec<Target>),
}

fn selection() -> impl TypedValueParser<Value = Selection> {
    let names = TARGETS.iter().map(|target| target.name);
    PossibleValuesParser::new(names.chain(["all", "list"])).map(|name| match name.as_str() {
        "list" => Selection::List,
        "all" => Selection::Targets(TARGETS.to_vec()),
        name => Selection::Targets(TARGETS.into_iter().filter(|target| target.name == name).collect()),
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Selection::Targets(targets) = &args.selection else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    };
    findings::watch(Instant::now());
    let mut kinds = 0;
    for target in targets {
        let mut fuzzer = Fuzzer::new(*target);
        if args.files.is_empty() {
            fuzzer.fuzz(&args);
        } else {
            fuzzer.run_files(&args.files);
        }
        kinds += fuzzer.findings.kinds();
    }
    if kinds == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One target that is being fuzzed.
struct Fuzzer {
    target: Target,
    coverage: Coverage,
    /// Every input with new coverage.
    corpus: Vec<Vec<u8>>,
    findings: Findings,
    runs: u64,
    /// Maximum memory that an input took, beyond the program's own.
    most: usize,
}

impl Fuzzer {
    fn new(target: Target) -> Self {
        Self {
            target,
            coverage: Coverage::new(),
            corpus: Vec::new(),
            findings: Findings::new(target.name),
            runs: 0,
            most: 0,
        }
    }

    /// Runs an input. Returns true if it has new coverage.
    fn run(&mut self, input: &[u8]) -> bool {
        self.runs += 1;
        findings::begin(input);
        let before = memory::now();
        memory::watch();
        self.coverage.begin();
        let ended = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        let new = self.coverage.end();
        let took = memory::peak().saturating_sub(before);
        findings::end();
        self.most = self.most.max(took);
        let (base, each) = self.target.memory;
        if ended.is_err() {
            self.findings.add(findings::take_panic(), input);
        } else if took > base + each * input.len() {
            self.findings.add(format!("too much memory: {took} bytes for an input of {}", input.len()), input);
        }
        new
    }

    fn take(&mut self, input: Vec<u8>) {
        if self.run(&input) {
            self.corpus.push(input);
        }
    }

    fn run_files(&mut self, files: &[PathBuf]) {
        for file in files {
            match fs::read(file) {
                Ok(input) => _ = self.run(&input),
                Err(error) => eprintln!("{}: {error}", file.display()),
            }
        }
        println!("{}: {} inputs, {} kinds of findings", self.target.name, self.runs, self.findings.kinds());
    }

    fn fuzz(&mut self, args: &Args) {
        let name = self.target.name;
        let begun = Instant::now();
        self.take(Vec::new());
        for seed in (self.target.seeds)() {
            self.take(seed);
        }
        for folder in ["kept", "corpus"] {
            for input in inputs(&Path::new(folder).join(name)) {
                self.take(input);
            }
        }
        let (first, mut written) = (self.corpus.len(), 0);
        let mut dice = Dice::new(args.seed);
        let until = begun + Duration::from_secs(args.seconds);
        let mut told = begun;
        while Instant::now() < until {
            let now = Instant::now();
            if now.duration_since(told) >= Duration::from_secs(60) {
                told = now;
                self.tell(begun);
            }
            // The clock is read only once for 64 inputs.
            for _ in 0..64 {
                // Half of the inputs come from the newest ones, because the code that they reach
                // may lead further.
                let newest = self.corpus.len().min(if dice.below(2) == 0 { 32 } else { usize::MAX });
                let at = self.corpus.len() - 1 - dice.below(newest);
                let mut input = self.corpus[at].clone();
                let other = dice.below(self.corpus.len());
                mutate(&mut input, &self.corpus[other], args.longest, &mut dice);
                self.take(input);
            }
            for input in &self.corpus[first + written..] {
                keep(name, input);
                written += 1;
            }
        }
        self.tell(begun);
    }

    fn tell(&self, begun: Instant) {
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{}: {seconds:.0} s, {} runs ({:.0} a second), {} of {} edges, {} inputs kept, at most {} KiB for one, {} kinds of \
             findings",
            self.target.name,
            self.runs,
            self.runs as f64 / seconds.max(1e-9),
            self.coverage.edges(),
            self.coverage.size(),
            self.corpus.len(),
            self.most / 1024,
            self.findings.kinds(),
        );
    }
}

/// Returns the files of a folder, or none if the folder does not exist yet.
fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// Saves an input, with which the next run begins.
fn keep(target: &str, input: &[u8]) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let folder = Path::new("corpus").join(target);
    let path = folder.join(format!("{:016x}", hasher.finish()));
    if let Err(error) = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)) {
        eprintln!("{}: {error}", path.display());
    }
}
