//! Delays resets of a position that the leader refuses again.
//!
//! A log that lost its start answers OFFSET_OUT_OF_RANGE once, and the offset that ListOffsets
//! returns then is in the log. A leader that refuses that offset too would otherwise be asked with
//! ListOffsets and Fetch in a busy loop.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::cluster::Backoff;

/// Number of refused resets after which the error is reported to the reader.
const TOLD_AFTER: u32 = 6;

/// The resets of one partition since its last fetch without an error.
#[derive(Clone, Debug)]
pub(crate) struct Resets {
    backoff: Backoff,
    count: u32,
    refused_at: Option<Instant>,
}

/// The wait before a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// Time of the response that made the reset necessary.
    pub(crate) since: Instant,
    /// Wait, counted from `since`.
    pub(crate) wait: Duration,
    /// True if the error is reported to the reader now.
    pub(crate) tell: bool,
}

impl Resets {
    pub(crate) fn new(first: Duration) -> Self {
        Self { backoff: Backoff::new(first, HUMAN), count: 0, refused_at: None }
    }

    /// Records that the leader answered OFFSET_OUT_OF_RANGE.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.refused_at = Some(now);
    }

    /// Forgets the resets, because a fetch succeeded or the user chose another position.
    pub(crate) fn clear(&mut self) {
        (self.count, self.refused_at) = (0, None);
    }

    /// Counts a reset. The first is made at once, and each further one waits longer, up to 30 s.
    pub(crate) fn next(&mut self, rng: &mut StdRng) -> Option<Pause> {
        let since = self.refused_at.take()?;
        let before = self.count;
        self.count = before.saturating_add(1);
        let wait = self.backoff.after(before.checked_sub(1)?, rng);
        Some(Pause { since, wait, tell: before == TOLD_AFTER })
    }
}

/// Wait before the next attempt after an error that does not pass without an operator.
pub(crate) const HUMAN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use crate::consumer::subscription::reset_backoff::*;

    #[test]
    fn repeated_resets_wait_longer_until_a_fetch() {
        let (rng, now) = (&mut StdRng::seed_from_u64(1), Instant::now());
        let mut resets = Resets::new(Duration::from_millis(100));
        assert_eq!(resets.next(rng), None, "no fetch was refused");
        let mut waits = Vec::new();
        for n in 0..20 {
            resets.refused(now);
            let pause = resets.next(rng);
            assert_eq!(pause.is_some_and(|pause| pause.tell), n == TOLD_AFTER, "reported once");
            waits.push(pause.map_or(Duration::ZERO, |pause| pause.wait));
        }
        assert!(waits[0].is_zero() && waits[..8].is_sorted(), "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait >= HUMAN * 8 / 10 && *wait <= HUMAN), "{waits:?}");
        resets.clear();
        resets.refused(now);
        assert_eq!(resets.next(rng), None);
    }
}
