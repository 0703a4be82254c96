//! Combines log events of many partitions into one line each: positions that are reset, truncated
//! logs, and partitions that make no progress.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use crate::consumer::subscription::fetch_position::ResetTarget;
use crate::{
    error::Error,
    log::{Limiter, Origin, event, several},
    record::TopicPartition,
};

/// Shortest time between the last line about stalled partitions and one about newly stalled ones.
const SOON: Duration = Duration::from_secs(10);
/// Time after which stalled partitions are logged again.
const AGAIN: Duration = Duration::from_secs(60);

/// Events to log with the next observation of the partitions, which happens every second.
#[derive(Debug, Default)]
pub(crate) struct LogDigest {
    /// Partitions by cause and by the position to which they are reset.
    resets: BTreeMap<(&'static str, String), Vec<String>>,
    truncated: Vec<String>,
    /// Recent lines by their cause: events soon after one are collected for the next.
    lines: Limiter<String>,
    /// Time at which stalled partitions were last logged.
    stalls_logged_at: Option<Instant>,
}

/// Partitions that make no progress, for one cause.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) longest: Duration,
    pub(crate) error: Option<Error>,
}

impl LogDigest {
    /// Records that a position is reset by `auto.offset.reset`, because of `cause`; `from` is the
    /// offset before the reset.
    pub(crate) fn reset(
        &mut self,
        partition: &TopicPartition,
        cause: &'static str,
        from: Option<i64>,
        to: ResetTarget,
    ) {
        let what = match from {
            Some(offset) => format!("{partition} (offset {offset})"),
            None => partition.to_string(),
        };
        self.resets.entry((cause, ResetName(to).to_string())).or_default().push(what);
    }

    /// Records that the log lost records that were already read.
    pub(crate) fn truncated(&mut self, partition: &TopicPartition, from: i64, to: i64) {
        self.truncated.push(format!("{partition} (from offset {from} to {to})"));
    }

    /// Logs the collected events: one line for each cause, and at most one in ten seconds for the
    /// same cause.
    pub(crate) fn write(&mut self, origin: &Origin, now: Instant) {
        let Self { resets, lines, .. } = self;
        resets.retain(|(cause, to), partitions| {
            if lines.admit(format!("{cause} {to}"), now).is_none() {
                return true;
            }
            event!(
                INFO, origin, partitions = %several(partitions), count = partitions.len(), cause, to,
                "positions are reset by auto.offset.reset"
            );
            false
        });
        if !self.truncated.is_empty() && self.lines.admit("truncated".to_owned(), now).is_some() {
            let truncated = std::mem::take(&mut self.truncated);
            event!(
                WARN, origin, partitions = %several(&truncated), count = truncated.len(),
                "logs were truncated before the position, usually by an unclean leader election: reading continues at \
                 their ends; records that were delivered may no longer be in the log"
            );
        }
    }

    /// Returns true if stalled partitions are to be logged now; `new`: some have not been logged
    /// yet.
    pub(crate) fn is_due_for_stalls(&mut self, new: bool, now: Instant) -> bool {
        let wait = if new { SOON } else { AGAIN };
        let due = self.stalls_logged_at.is_none_or(|told| now.saturating_duration_since(told) >= wait);
        if due {
            self.stalls_logged_at = Some(now);
        }
        due
    }
}

impl Stall {
    /// Adds a partition that has made no progress for that long.
    pub(crate) fn add(&mut self, partition: &TopicPartition, error: Option<Error>, stuck: Duration) {
        self.longest = self.longest.max(stuck);
        self.error = self.error.take().or(error);
        self.partitions.push(partition.clone());
    }

    pub(crate) fn write(&self, reason: &str, origin: &Origin) {
        let error = self.error.as_ref().map(tracing::field::display);
        let (partitions, count, stalled_s) = (several(&self.partitions), self.partitions.len(), self.longest.as_secs());
        event!(
            WARN, origin, %partitions, count, reason, error, stalled_s,
            "partitions make no progress; the consumer retries each by itself (Consumer::status shows what each waits for)"
        );
    }
}

/// A reset target as `auto.offset.reset` names it.
struct ResetName(ResetTarget);

impl fmt::Display for ResetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ResetTarget::Earliest => f.write_str("earliest"),
            ResetTarget::Latest => f.write_str("latest"),
            ResetTarget::Since(duration) => write!(f, "by_duration, {} ms back", duration.as_millis()),
            ResetTarget::At(millis) => write!(f, "timestamp {millis}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::observability::log_digest::*;

    #[test]
    fn combines_resets_within_log_interval() {
        let (mut journal, start) = (LogDigest::default(), Instant::now());
        let mut left = Vec::new();
        for second in 0..12 {
            journal.reset(&TopicPartition::new("t", 0), "no offset", None, ResetTarget::Latest);
            journal.write(&Origin::default(), start + second * Duration::from_secs(1));
            left.push(journal.resets.values().map(Vec::len).sum::<usize>());
        }
        assert_eq!(left, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    }

    #[test]
    fn logs_stalls_at_once_then_every_minute() {
        let (mut journal, start) = (LogDigest::default(), Instant::now());
        let told = |journal: &mut LogDigest, new: bool, second: u32| {
            journal.is_due_for_stalls(new, start + second * Duration::from_secs(1))
        };
        assert!(told(&mut journal, true, 0));
        assert!(!told(&mut journal, true, 9) && told(&mut journal, true, 10));
        assert!(!told(&mut journal, false, 69) && told(&mut journal, false, 70));
    }

    #[test]
    fn combines_resets_with_same_cause() {
        let mut journal = LogDigest::default();
        for partition in 0..200 {
            journal.reset(&TopicPartition::new("t", partition), "cause", Some(7), ResetTarget::Earliest);
        }
        assert_eq!(journal.resets.len(), 1);
        assert_eq!(journal.resets[&("cause", "earliest".to_owned())][0], "t[0] (offset 7)");
        journal.write(&Origin::default(), Instant::now());
        assert!(journal.resets.is_empty());
    }
}
