//! The settings of a worker.
//!
//! Sans-IO.

use std::time::Duration;

use crate::worker::schedule::rules::Rules;
use crate::{
    cluster::Backoff,
    config::parse::FOREVER,
    error::{Error, ErrorKind, Result},
};

/// Selects the records of a partition that are handled one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderBy {
    /// All records, in the order of the log. At most as many records run at once as there are
    /// partitions, so a handler that waits for something limits the worker to partitions ÷ that
    /// wait: see [how fast it can be](super::Worker#how-fast-it-can-be). The default.
    #[default]
    Partition,
    /// Records with the same key, in the order of the log. Other records run in parallel, including
    /// those without a key. Only the contiguous completed prefix is committed: after a crash,
    /// records completed beyond the first incomplete one are handled again.
    Key,
}

/// The handling of a record after its last attempt has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Failed {
    #[default]
    Stop,
    Skip,
    DeadLetter,
}

/// Time that handlers have to finish, if none is set.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) concurrency: usize,
    pub(super) order_by: OrderBy,
    pub(super) buffer_records: usize,
    pub(super) buffer_bytes: usize,
    pub(super) max_batch: usize,
    pub(super) batch_linger: Duration,
    pub(super) retries: u32,
    pub(super) backoff: (Duration, Duration),
    pub(super) timeout: Option<Duration>,
    pub(super) failed: Failed,
    pub(super) skip_corrupt: bool,
    /// `None` if it is not set.
    pub(super) drain: Option<Duration>,
    pub(super) transaction_records: u64,
    pub(super) transaction_bytes: u64,
    pub(super) transaction_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 16,
            order_by: OrderBy::default(),
            buffer_records: 500,
            buffer_bytes: 64 * 1024 * 1024,
            max_batch: 500,
            batch_linger: Duration::ZERO,
            retries: 5,
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            timeout: None,
            failed: Failed::default(),
            skip_corrupt: false,
            drain: None,
            transaction_records: 1_000,
            transaction_bytes: 8 * 1024 * 1024,
            transaction_interval: Duration::from_millis(100),
        }
    }
}

impl Settings {
    /// Returns the time that handlers have to finish.
    pub(super) fn drain(&self, patience: Option<Duration>) -> Duration {
        let drain = self.drain.unwrap_or(DRAIN);
        patience.map_or(drain, |patience| drain.min(patience / 2)).min(FOREVER)
    }

    /// Adjusts the times of handlers to a transaction's, so that a transaction commits before the
    /// coordinator aborts it.
    ///
    /// # Errors
    /// `Configuration` if times that were set do not fit, and for limits that allow nothing.
    pub(super) fn fit_to_transactions(&mut self, timeout: Duration) -> Result<()> {
        let nothing = [
            ("transaction_records", self.transaction_records == 0),
            ("transaction_bytes", self.transaction_bytes == 0),
        ];
        if let Some((name, _)) = nothing.iter().find(|(_, nothing)| *nothing) {
            return Err(Error::new(ErrorKind::Configuration, format!("{name} of a worker must be more than 0")));
        }
        let drain = *self.drain.get_or_insert(DRAIN.min(timeout / 2));
        let handler = *self.timeout.get_or_insert(timeout.saturating_sub(drain));
        if handler.is_zero() || handler.saturating_add(drain) > timeout {
            let message = format!(
                "handler_timeout ({} ms) and drain_timeout ({} ms) of an exactly-once worker must together not be more \
                 than transaction.timeout.ms ({} ms), because the coordinator aborts an older transaction: lower the \
                 former or raise the latter",
                handler.as_millis(),
                drain.as_millis(),
                timeout.as_millis()
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(())
    }

    /// # Errors
    /// `Configuration` for settings that allow nothing or contradict each other.
    pub(super) fn rules(&self, batches: bool, patience: Option<Duration>) -> Result<Rules> {
        let nothing = [
            ("concurrency", self.concurrency == 0),
            ("buffer_records", self.buffer_records == 0),
            ("buffer_bytes", self.buffer_bytes == 0),
            ("max_batch", self.max_batch == 0),
            ("handler_timeout", self.timeout.is_some_and(|timeout| timeout.is_zero())),
        ];
        if let Some((name, _)) = nothing.iter().find(|(_, nothing)| *nothing) {
            return Err(Error::new(ErrorKind::Configuration, format!("{name} of a worker must be more than 0")));
        }
        if batches && self.order_by == OrderBy::Key {
            let message = "a worker's batches hold records of all keys: order_by must be OrderBy::Partition for them";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        if !batches && !self.batch_linger.is_zero() {
            let message = "batch_linger of a worker is for batches (run_batches): one record does not wait for others";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        if !self.batch_linger.is_zero() && self.buffer_records < self.max_batch {
            let message = format!(
                "with batch_linger, buffer_records ({}) of a worker must not be less than max_batch ({}): no batch would \
                 ever be full",
                self.buffer_records, self.max_batch
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        let queues = match self.order_by {
            OrderBy::Partition => 1,
            // A number of queues at which different keys seldom wait for each other.
            OrderBy::Key => self.concurrency.saturating_mul(4).clamp(16, 1024),
        };
        Ok(Rules {
            concurrency: self.concurrency,
            queues,
            batch: batches.then_some(self.max_batch),
            linger: self.batch_linger.min(FOREVER),
            buffer_records: self.buffer_records,
            buffer_bytes: self.buffer_bytes,
            retries: self.retries,
            backoff: Backoff::new(self.backoff.0, self.backoff.1),
            failed: self.failed,
            patience,
        })
    }
}
