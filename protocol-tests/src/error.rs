//! Errors of a Kafka started for a test.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// An error of a real Kafka, or of a program that speaks to it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// This machine cannot run Kafka: a program is missing or the jars cannot be fetched. Tests are
    /// then skipped, or fail if `CI=true` is set in the environment.
    Unavailable(String),
    /// The arguments are impossible: a version without KRaft, or text that a console tool cannot
    /// carry.
    Unfit(String),
    /// A process ended that should have continued, or ended with a failure.
    Ended {
        /// The process.
        what: String,
        /// Its exit status.
        status: ExitStatus,
        /// The end of its output.
        log: String,
    },
    /// An operation did not complete within its timeout.
    TimedOut {
        /// The operation.
        what: String,
        /// The timeout.
        after: Duration,
        /// The end of the output of the process concerned; empty if there is none.
        log: String,
    },
    /// A broker refused, with Kafka's error code.
    Refused {
        /// The request.
        what: String,
        /// Kafka's error code.
        code: i16,
        /// The broker's message, if it gave one.
        message: String,
    },
    /// Kafka's own code refused its input.
    Rejected {
        /// The operation.
        what: String,
        /// Kafka's exception.
        why: String,
    },
    /// A program's output cannot be parsed.
    Garbled {
        /// The program.
        what: String,
        /// The output, or the part that cannot be parsed.
        answer: String,
    },
    /// The operating system refused.
    Io {
        /// The operation.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Adds the operation to an error of the operating system.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Returns true if the machine lacks something, so that nothing was tested and nothing failed.
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
                write!(f, "{what} gave output that cannot be parsed: {answer}")
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

/// Returns the last lines of a log, for an error that has to be understood without the files.
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
