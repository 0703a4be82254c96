//! The preferred read replica that a partition's leader names (KIP-392): for how long it is used,
//! and what happens when it fails.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::cluster::Backoff;

/// Longest time for which a failed replica is avoided.
pub(crate) const SHUNNED: Duration = Duration::from_secs(30);

/// Preferred read replica of one partition.
#[derive(Debug)]
pub(crate) struct PreferredReplica {
    /// The replica to read from, and the time at which that expires.
    present: Option<(i32, Instant)>,
    /// The replica that failed last, and the time before which it is not used again.
    failed: Option<(i32, Instant)>,
    /// Time for which a replica is avoided that fails repeatedly.
    retries: Backoff,
}

impl PreferredReplica {
    /// Creates the state; `retry` is the first wait after a failure.
    pub(crate) fn new(retry: Duration) -> Self {
        Self { present: None, failed: None, retries: Backoff::new(retry, SHUNNED) }
    }

    /// Returns the replica to read from instead of the leader.
    pub(crate) fn node(&self) -> Option<i32> {
        self.present.map(|(node, _)| node)
    }

    /// Returns the time until which the replica is used without asking the leader again.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.present.map(|(_, until)| until)
    }

    /// Uses the replica that the leader recommends. If it has failed recently, returns the time
    /// until which to wait before fetching from it.
    pub(crate) fn recommend(&mut self, node: i32, until: Instant, now: Instant) -> Option<Instant> {
        self.present = Some((node, until));
        self.failed.filter(|(failed, again)| *failed == node && *again > now).map(|(_, again)| again)
    }

    /// Leaves a replica that cannot be read from; returns the time until which the leader is read
    /// from. `dead` says that the replica did not answer at all. It is then avoided for the longest
    /// time, because detecting that may take a whole request timeout and its leader may keep
    /// recommending it.
    pub(crate) fn fail(&mut self, dead: bool, now: Instant, rng: &mut StdRng) -> Instant {
        let wait = self.retries.next(rng);
        let again = now + if dead { SHUNNED } else { wait };
        if let Some((node, _)) = self.present.take() {
            self.failed = Some((node, again));
        }
        again
    }

    /// Clears earlier failures, because the replica serves.
    pub(crate) fn served(&mut self) {
        self.failed = None;
        self.retries.reset();
    }

    /// Returns to the leader without counting a failure of the replica.
    pub(crate) fn abandon(&mut self) {
        self.present = None;
    }

    /// Returns to the leader if the replica has expired; returns true if it did.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        self.present.take_if(|(_, until)| *until <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use crate::consumer::fetch::preferred_replica::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn replica_lasts_until_expiry_or_failure() {
        let rng = &mut StdRng::seed_from_u64(1);
        let now = Instant::now();
        let later = now + 10 * SECOND;
        let mut replica = PreferredReplica::new(SECOND);
        assert_eq!(replica.recommend(2, later, now), None);
        assert_eq!((replica.node(), replica.until(), replica.expire(now)), (Some(2), Some(later), false));
        assert!(replica.expire(later) && replica.node().is_none());
        replica.recommend(2, later, now);
        let again = replica.fail(false, now, rng);
        assert!(again > now && replica.node().is_none());
        assert_eq!(replica.recommend(2, later, now), Some(again), "not at once");
        assert_eq!(replica.recommend(3, later, now), None, "another one did not fail");
        assert_eq!(replica.recommend(2, later, again), None);
        let second = replica.fail(false, now, rng);
        assert!(second > again, "longer each time");
        replica.recommend(2, later, second);
        assert_eq!(replica.fail(true, now, rng), now + SHUNNED);
        replica.served();
        assert_eq!(replica.recommend(2, later, now), None);
    }
}
