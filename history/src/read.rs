//! Reads a history from lines of JSON.

use std::fmt;
use std::io::{self, BufRead};

use crate::event::Event;
use crate::history::{History, Malformed};

/// A history that cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The file cannot be read.
    Io(io::Error),
    /// A line is not an event, or cannot follow those before it.
    Malformed(Malformed),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Malformed(malformed) => write!(f, "{malformed}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Reads a history: one JSON object a line. Empty lines are skipped.
///
/// # Errors
/// The input cannot be read, a line is not an event of the format, or it contradicts the lines
/// before it.
pub fn read(mut input: impl BufRead) -> Result<History, ReadError> {
    let mut history = History::default();
    let mut line = String::new();
    let mut number = 0;
    loop {
        line.clear();
        if input.read_line(&mut line).map_err(ReadError::Io)? == 0 {
            break;
        }
        number += 1;
        if line.trim().is_empty() {
            continue;
        }
        let event: Event =
            serde_json::from_str(&line).map_err(|error| Malformed { line: number, reason: error.to_string() })?;
        history.add(number, &event)?;
    }
    if history.is_empty() {
        return Err(Malformed { line: 1, reason: "the history is empty".to_owned() }.into());
    }
    Ok(history)
}
