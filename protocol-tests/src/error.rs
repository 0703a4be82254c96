//! What can go wrong with a Kafka started for a test.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a real Kafka, or a program that speaks to it, did not do what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// This machine cannot run Kafka: a program is missing or the jars cannot be fetched.
    /// Tests are left out then, or fail when the environment says `CI=true`.
    Unavailable(String),
    /// The request makes no sense here: a version without KRaft, text that a console tool cannot
    /// carry.
    Unfit(String),
    /// A process ended that should have gone on, or ended with a failure.
    Ended {
        /// Which process.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        log: String,
    },
    /// Nothing came within the time allowed.
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The end of what the process in question wrote; empty when none is in question.
        log: String,
    },
    /// A broker refused, with Kafka's error code.
    Refused {
        /// What was asked.
        what: String,
        /// Kafka's error code.
        code: i16,
        /// The broker's own words, where it gave any.
        message: String,
    },
    /// Kafka's own code refused what it was given.
    Rejected {
        /// What it was asked.
        what: String,
        /// Its exception.
        why: String,
    },
    /// A program answered with something that cannot be read.
    Garbled {
        /// Whose answer.
        what: String,
        /// The answer, or the part of it that could not be read.
        answer: String,
    },
    /// The operating system refused.
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
}

impl Error {
    /// Names what was being done when the operating system refused.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// True when the machine lacks something, so that nothing was proved and nothing failed.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(missing) => write!(f, "no real Kafka here: {missing}"),
            Self::Unfit(why) => f.write_str(why),
            Self::Ended { what, status, log } => write!(f, "{what} ended ({status}):\n{log}"),
            Self::TimedOut { what, after, log } if log.is_empty() => {
                write!(f, "{what} took longer than {after:?}")
            }
            Self::TimedOut { what, after, log } => {
                write!(f, "{what} took longer than {after:?}:\n{log}")
            }
            Self::Refused { what, code, message } => write!(f, "{what}: error {code} {message}"),
            Self::Rejected { what, why } => write!(f, "Kafka rejects {what}: {why}"),
            Self::Garbled { what, answer } => {
                write!(f, "{what} gave an answer that cannot be read: {answer}")
            }
            Self::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The last lines of a log, for an error that somebody must understand without the files.
pub(crate) fn tail(paths: &[PathBuf]) -> String {
    const LINES: usize = 40;
    let mut text = String::new();
    for path in paths {
        match std::fs::read(path) {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => {
                let whole = String::from_utf8_lossy(&bytes);
                let lines: Vec<&str> = whole.lines().collect();
                let from = lines.len().saturating_sub(LINES);
                text.push_str(&format!("--- {}\n{}\n", path.display(), lines[from..].join("\n")));
            }
            Err(error) => text.push_str(&format!("--- {}: {error}\n", path.display())),
        }
    }
    text
}
