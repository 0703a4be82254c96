//! Checks histories of Kafka clients for anomalies, in the manner of Jepsen.
//!
//! A history is the list of events that producers, transactions and consumers saw, and the content
//! of the logs at the end. [`check`] finds the events that contradict each other: acknowledged
//! records that are missing, records of aborted transactions that were read, transactions of which
//! only a part is visible, and others ([`Kind`]). The crate's README documents the format.
//!
//! ```
//! use history::{Kind, check, read};
//!
//! let lines = r#"{"type":"history","version":1}
//! {"type":"send","client":"p","topic":"t","value":"a"}
//! {"type":"acknowledged","client":"p","topic":"t","partition":0,"offset":0,"value":"a"}
//! {"type":"log","topic":"t","partition":0,"records":[]}"#;
//! let verdict = check(&read(lines.as_bytes())?);
//! assert_eq!(verdict.count(Kind::Unseen), 1);
//! # Ok::<(), history::ReadError>(())
//! ```

mod checks;
mod event;
mod history;
mod names;
mod read;
mod seen;
mod verdict;

pub use checks::check;
pub use event::{Event, Isolation, Outcome, VERSION};
pub use history::{History, Malformed};
pub use read::{ReadError, read};
pub use verdict::{Anomaly, Kind, Statistics, Verdict};
