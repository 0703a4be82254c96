//! What the log is told of many partitions in one line: positions that are reset, and partitions
//! that stand still.
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

/// Partitions that stand still newly are told of so long after the last line about any, at the
/// earliest.
const SOON: Duration = Duration::from_secs(10);
/// Partitions that stand still are told of again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// What is to be written with the next look at the partitions, which comes every second.
#[derive(Debug, Default)]
pub(crate) struct LogDigest {
    /// By cause and by what they are reset to.
    resets: BTreeMap<(&'static str, String), Vec<String>>,
    truncated: Vec<String>,
    /// The lines of late, by their cause: what follows soon after one is gathered for the next.
    lines: Limiter<String>,
    /// When partitions that stand still were last told of.
    stalls_told: Option<Instant>,
}

/// Partitions that stand still for one cause.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) longest: Duration,
    pub(crate) error: Option<Error>,
}

impl LogDigest {
    /// A position is reset by `auto.offset.reset`, because of `cause`; `from` is the offset that it
    /// had.
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

    /// The log lost records that were read already.
    pub(crate) fn truncated(&mut self, partition: &TopicPartition, from: i64, to: i64) {
        self.truncated.push(format!("{partition} (from offset {from} to {to})"));
    }

    /// Writes what has gathered: one line for each cause, and none sooner than ten seconds after
    /// the last of that cause.
    pub(crate) fn write(&mut self, origin: &Origin, now: Instant) {
        let Self { resets, lines, .. } = self;
        resets.retain(|(cause, to), partitions| {
            if lines.admit(format!("{cause} {to}"), now).is_none() {
                return true;
            }
            event!(
                INFO, origin, partitions = %several(partitions), count = partitions.len(), cause, to,
                "positions are reset as auto.offset.reset says"
            );
            false
        });
        if !self.truncated.is_empty() && self.lines.admit("truncated".to_owned(), now).is_some() {
            let truncated = std::mem::take(&mut self.truncated);
            event!(
                WARN, origin, partitions = %several(&truncated), count = truncated.len(),
                "logs were truncated behind what was read, by an unclean leader election as a rule: reading goes on at \
                 their ends; records that were handed out may no longer be in the log"
            );
        }
    }

    /// Whether the partitions that stand still are to be told of now; `new`: some have not been
    /// yet.
    pub(crate) fn is_due_for_stalls(&mut self, new: bool, now: Instant) -> bool {
        let wait = if new { SOON } else { AGAIN };
        let due = self.stalls_told.is_none_or(|told| now.saturating_duration_since(told) >= wait);
        if due {
            self.stalls_told = Some(now);
        }
        due
    }
}

impl Stall {
    pub(crate) fn write(&self, reason: &str, origin: &Origin) {
        let error = self.error.as_ref().map(tracing::field::display);
        let (partitions, count, stalled_s) = (several(&self.partitions), self.partitions.len(), self.longest.as_secs());
        event!(
            WARN, origin, %partitions, count, reason, error, stalled_s,
            "partitions get no further; each is tried again by itself (Consumer::status says what each waits for)"
        );
    }
}

/// A start as `auto.offset.reset` names it.
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
