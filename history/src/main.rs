//! Reads histories of Kafka clients and reports their anomalies.
//!
//! ```sh
//! history-checker history.jsonl
//! some-program | history-checker --json -
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};
use history::{Verdict, check, read};

/// The exit code for a history with anomalies.
const INVALID: u8 = 1;
/// The exit code for a history that cannot be read, and for wrong arguments.
const UNREADABLE: u8 = 2;

fn command() -> Command {
    Command::new("history-checker")
        .about("Checks a history of Kafka clients for anomalies")
        .after_help("Exit codes: 0 no anomaly, 1 anomalies, 2 the history or the arguments cannot be read")
        .args([
            Arg::new("file")
                .value_name("FILE")
                .help("the history, JSON lines; several files are read one after the other, - is standard input")
                .action(ArgAction::Append)
                .required(true),
            Arg::new("json").long("json").help("prints the verdict as one JSON object").action(ArgAction::SetTrue),
        ])
}

fn main() -> ExitCode {
    let given = match command().try_get_matches() {
        Ok(given) => given,
        Err(why) => {
            // If the stream is closed, the text cannot be printed anywhere.
            let _ = why.print();
            return ExitCode::from(if why.use_stderr() { UNREADABLE } else { 0 });
        }
    };
    let files: Vec<&String> = given.get_many("file").into_iter().flatten().collect();
    let verdict = match open(&files).and_then(|input| Ok(check(&read(input)?))) {
        Ok(verdict) => verdict,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(UNREADABLE);
        }
    };
    match print(&verdict, given.get_flag("json")) {
        Ok(()) if verdict.valid => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(INVALID),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}

type Failure = Box<dyn std::error::Error>;

/// Opens all files as one.
fn open(files: &[&String]) -> Result<Box<dyn BufRead>, Failure> {
    let mut all: Box<dyn Read> = Box::new(io::empty());
    for file in files {
        let next: Box<dyn Read> = if file.as_str() == "-" {
            Box::new(io::stdin())
        } else {
            let path = Path::new(file.as_str());
            Box::new(File::open(path).map_err(|error| format!("{}: {error}", path.display()))?)
        };
        all = Box::new(all.chain(next));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 20, all)))
}

fn print(verdict: &Verdict, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, verdict)?;
        writeln!(out)?;
    } else {
        write!(out, "{verdict}")?;
    }
    out.flush()
}
