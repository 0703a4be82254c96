//! A coordinator that ends each membership before it has answered a heartbeat of it. Decides; does
//! no IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::cluster::Backoff;

/// Setbacks in a row that a group in motion may bring.
const USUAL: u32 = 4;
/// The longest wait before the next join.
const LONGEST: Duration = Duration::from_secs(10);

/// The generations in a row (or memberships, under KIP-848) that ended before a heartbeat was
/// answered in them.
#[derive(Debug)]
pub(super) struct FailedMemberships {
    count: u32,
    pace: Backoff,
    not_before: Option<Instant>,
}

impl FailedMemberships {
    /// A wait never costs more than a third of the session.
    pub(super) fn new(first: Duration, session: Duration) -> Self {
        Self { count: 0, pace: Backoff::new(first, LONGEST.min(session / 3)), not_before: None }
    }

    /// Counts one; true if the reader is to be told, which is once in a row.
    pub(super) fn record(&mut self, now: Instant, rng: &mut StdRng) -> bool {
        self.count = self.count.saturating_add(1);
        let Some(beyond) = self.count.checked_sub(USUAL + 1) else { return false };
        self.not_before = Some(now + self.pace.after(beyond.saturating_mul(2), rng));
        beyond == 0
    }

    /// The membership is sound: a heartbeat of it was answered.
    pub(super) fn clear(&mut self) {
        (self.count, self.not_before) = (0, None);
    }

    /// The time before which the group is not to be joined again.
    pub(super) fn join_not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| now < *at)
    }

    pub(super) fn describe(&self, group: &str) -> String {
        format!(
            "group {group}: the coordinator put the member out {} times in a row, each time before it had answered a \
             heartbeat; it goes on to join, more and more seldom",
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
            assert_eq!(setbacks.record(now, rng), n == USUAL + 1, "told once");
            assert_eq!(setbacks.join_not_before(now).is_some(), n > USUAL);
        }
        let wait = setbacks.join_not_before(now).unwrap() - now;
        assert!(wait > LONGEST * 7 / 10 && wait <= LONGEST, "{wait:?}");
        assert_eq!(setbacks.join_not_before(now + wait), None);
        setbacks.clear();
        assert!(!setbacks.record(now, rng) && setbacks.join_not_before(now).is_none());
    }
}
