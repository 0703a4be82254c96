//! The code that the examples share: reading arguments, and ending with an error and advice.
#![allow(dead_code, unreachable_pub, reason = "each example uses only a part of this")]

pub mod history;
pub mod json;
pub mod verifiable;

use std::{
    collections::{BTreeSet, VecDeque},
    process::ExitCode,
};

/// An error that ends a program; its message goes to standard error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The words after the program's name, read one by one.
pub struct Args {
    rest: VecDeque<String>,
    /// The options that were read with their values.
    given: BTreeSet<String>,
}

impl Args {
    pub fn from_env() -> Self {
        Self { rest: std::env::args().skip(1).collect(), given: BTreeSet::new() }
    }

    /// Returns the next word; `--name=value` counts as two.
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

    /// Returns the value after `option`, which may be given once. A second value is an error,
    /// because the user would not see which of the two counts.
    pub fn value(&mut self, option: &str) -> Result<String, Failure> {
        let name = match option {
            "-b" | "--broker-list" => "--bootstrap-server",
            "-t" => "--topic",
            "-p" => "--partition",
            "--consumer.config" | "--producer.config" => "--command-config",
            option => option,
        };
        if !self.given.insert(name.to_owned()) {
            return Err(format!("{option} is given twice; give it once").into());
        }
        self.repeated(option)
    }

    /// Returns the value after `option`, which may be given many times.
    pub fn repeated(&mut self, option: &str) -> Result<String, Failure> {
        self.rest.pop_front().ok_or_else(|| format!("{option} requires a value").into())
    }

    /// Returns the number after `option`, which may be given once.
    pub fn number<T: std::str::FromStr>(&mut self, option: &str) -> Result<T, Failure> {
        let value = self.value(option)?;
        number(option, &value)
    }

    /// Returns the number after `option`, which may be given many times.
    pub fn repeated_number<T: std::str::FromStr>(&mut self, option: &str) -> Result<T, Failure> {
        let value = self.repeated(option)?;
        number(option, &value)
    }
}

fn number<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| format!("{option} requires a number, not {value:?}").into())
}

/// Turns a program's result into its exit code, and prints an error on standard error.
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
