//! Counts memberships that a coordinator ends before it has answered one of their heartbeats.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::cluster::Backoff;

/// Failed memberships in a row that rebalances of a healthy group may cause.
const USUAL: u32 = 4;
/// The longest wait before the next join.
const LONGEST: Duration = Duration::from_secs(10);
/// A row is reported once it has lasted this long: while other members join and leave, or while a
/// group migrates between the protocols (KIP-848), rebalances follow each other within seconds.
const REPORTED_AFTER: Duration = Duration::from_secs(10);

/// The generations (or memberships, under KIP-848) in a row that ended before a heartbeat was
/// answered in them.
#[derive(Debug)]
pub(super) struct FailedMemberships {
    count: u32,
    since: Option<Instant>,
    reported: bool,
    pace: Backoff,
    not_before: Option<Instant>,
}

impl FailedMemberships {
    /// Starts with no failed membership. A wait takes at most a third of `session`.
    pub(super) fn new(first: Duration, session: Duration) -> Self {
        let pace = Backoff::new(first, LONGEST.min(session / 3));
        Self { count: 0, since: None, reported: false, pace, not_before: None }
    }

    /// Counts a failed membership. Returns true if the reader is to be told, at most once in a row.
    pub(super) fn record(&mut self, now: Instant, rng: &mut StdRng) -> bool {
        self.count = self.count.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        let Some(beyond) = self.count.checked_sub(USUAL + 1) else { return false };
        self.not_before = Some(now + self.pace.after(beyond.saturating_mul(2), rng));
        let lasting = now.saturating_duration_since(since) >= REPORTED_AFTER;
        lasting && !std::mem::replace(&mut self.reported, true)
    }

    /// Ends the row: a heartbeat was answered.
    pub(super) fn clear(&mut self) {
        (self.count, self.since, self.reported, self.not_before) = (0, None, false, None);
    }

    /// Returns the time before which the group is not joined again.
    pub(super) fn join_not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| now < *at)
    }

    pub(super) fn describe(&self, group: &str) -> String {
        format!(
            "group {group}: the coordinator ended {} memberships in a row before it answered a heartbeat of them; the \
             consumer keeps joining with growing waits, up to 10 s",
            self.count
        )
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use crate::consumer::group::failed_memberships::*;

    #[test]
    fn repeated_setbacks_delay_joins_until_heartbeat() {
        let (rng, now) = (&mut StdRng::seed_from_u64(1), Instant::now());
        let mut setbacks = FailedMemberships::new(Duration::from_millis(100), Duration::from_secs(45));
        for n in 1..20 {
            assert!(!setbacks.record(now, rng), "a group in motion");
            assert_eq!(setbacks.join_not_before(now).is_some(), n > USUAL);
        }
        assert!(setbacks.record(now + REPORTED_AFTER, rng), "it lasts");
        assert!(!setbacks.record(now + 2 * REPORTED_AFTER, rng), "reported once");
        assert!(!setbacks.record(now, rng), "once in a row");
        let wait = setbacks.join_not_before(now).unwrap() - now;
        assert!(wait > LONGEST * 7 / 10 && wait <= LONGEST, "{wait:?}");
        assert_eq!(setbacks.join_not_before(now + wait), None);
        setbacks.clear();
        assert!(!setbacks.record(now, rng) && setbacks.join_not_before(now).is_none());
    }
}
