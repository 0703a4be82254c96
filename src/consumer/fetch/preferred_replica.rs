//! The replica nearby that a partition's leader recommends (KIP-392): for how long its word holds,
//! and what becomes of it when the replica fails.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::cluster::Backoff;

/// The longest that a replica which fails is left alone.
pub(crate) const SHUNNED: Duration = Duration::from_secs(30);

/// What is known of one partition's replica nearby.
#[derive(Debug)]
pub(crate) struct PreferredReplica {
    /// Read from, until when.
    present: Option<(i32, Instant)>,
    /// Failed last, and is not to be gone to before then.
    failed: Option<(i32, Instant)>,
    /// How long a replica is left alone that fails again and again.
    retries: Backoff,
}

impl PreferredReplica {
    /// `retry` is the first wait after a failure.
    pub(crate) fn new(retry: Duration) -> Self {
        Self { present: None, failed: None, retries: Backoff::new(retry, SHUNNED) }
    }

    /// The replica to read from in the leader's place.
    pub(crate) fn node(&self) -> Option<i32> {
        self.present.map(|(node, _)| node)
    }

    /// Until when the leader need not be asked again.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.present.map(|(_, until)| until)
    }

    /// The leader recommends a replica. Gives until when to wait before going there, where it has
    /// failed lately.
    pub(crate) fn recommend(&mut self, node: i32, until: Instant, now: Instant) -> Option<Instant> {
        self.present = Some((node, until));
        self.failed.filter(|(failed, again)| *failed == node && *again > now).map(|(_, again)| again)
    }

    /// The replica cannot be read from: its leader is, at least until what this gives. One that is
    /// `dead` gave no answer at all: to find that out may take as long as a request's timeout, and
    /// its leader may go on to recommend it.
    pub(crate) fn fail(&mut self, dead: bool, now: Instant, rng: &mut StdRng) -> Instant {
        let wait = self.retries.next(rng);
        let again = now + if dead { SHUNNED } else { wait };
        if let Some((node, _)) = self.present.take() {
            self.failed = Some((node, again));
        }
        again
    }

    /// The replica serves.
    pub(crate) fn served(&mut self) {
        self.failed = None;
        self.retries.reset();
    }

    /// Back to the leader, without anything held against the replica.
    pub(crate) fn abandon(&mut self) {
        self.present = None;
    }

    /// Whether the leader is to be asked again; it then is.
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
