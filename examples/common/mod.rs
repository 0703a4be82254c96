//! What the examples share: reading arguments, and ending with an error that a person can use.
#![allow(dead_code, unreachable_pub, reason = "each example takes what it needs of this")]

pub mod json;
pub mod verifiable;

use std::{
    collections::{BTreeSet, VecDeque},
    process::ExitCode,
};

/// What ends a program: a message for standard error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The words behind the program's name, taken one by one.
pub struct Args {
    rest: VecDeque<String>,
    /// Options whose value was taken.
    given: BTreeSet<String>,
}

impl Args {
    pub fn from_env() -> Self {
        Self { rest: std::env::args().skip(1).collect(), given: BTreeSet::new() }
    }

    /// The next word; `--name=value` comes as two.
    pub fn next(&mut self) -> Option<String> {
        let word = self.rest.pop_front()?;
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                self.rest.push_front(value.to_owned());
                Some(name.to_owned())
            }
            _ => Some(word),
        }
    }

    /// The value that has to stand behind `option`, which may be given once: the last of several
    /// would win unseen.
    pub fn value(&mut self, option: &str) -> Result<String, Failure> {
        let name = match option {
            "-b" | "--broker-list" => "--bootstrap-server",
            "-t" => "--topic",
            "-p" => "--partition",
            "--consumer.config" | "--producer.config" => "--command-config",
            option => option,
        };
        if !self.given.insert(name.to_owned()) {
            return Err(format!("{option} is given twice, and only one value can count").into());
        }
        self.repeated(option)
    }

    /// The value that has to stand behind `option`, which may be given many times.
    pub fn repeated(&mut self, option: &str) -> Result<String, Failure> {
        self.rest.pop_front().ok_or_else(|| format!("{option} wants a value").into())
    }

    /// The number that has to stand behind `option`, which may be given once.
    pub fn number<T: std::str::FromStr>(&mut self, option: &str) -> Result<T, Failure> {
        let value = self.value(option)?;
        number(option, &value)
    }

    /// The number that has to stand behind `option`, which may be given many times.
    pub fn repeated_number<T: std::str::FromStr>(&mut self, option: &str) -> Result<T, Failure> {
        let value = self.repeated(option)?;
        number(option, &value)
    }
}

fn number<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| format!("{option} wants a number, not {value:?}").into())
}

/// Turns how a program ended into its exit code, the error on standard error.
pub fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<ottla::Error>() {
                Some(known) => eprintln!("error: {known}\nhint: {}", known.advice()),
                None => eprintln!("error: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}
