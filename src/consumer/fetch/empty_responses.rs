//! Recognizes a broker that answers fetches at once and with nothing.
//!
//! A broker waits up to `fetch.max.wait.ms` for `fetch.min.bytes`. One that does not would be asked
//! in a circle without a wait.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

/// Early empty answers in a row that a sound broker may give: changes of the session and of
/// partitions cut a wait short.
const USUAL: u32 = 8;

#[derive(Debug, Default)]
pub(crate) struct EmptyResponses {
    asked: Option<Instant>,
    in_a_row: u32,
}

impl EmptyResponses {
    /// A fetch leaves.
    pub(crate) fn record_sent(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// Takes an answer, and gives how many too many there have been if the next fetch is to wait.
    /// `max_wait` is zero where the broker was not asked to wait.
    pub(crate) fn record_response(&mut self, is_empty: bool, max_wait: Duration, now: Instant) -> Option<u32> {
        let took = self.asked.take().map(|asked| now.saturating_duration_since(asked));
        let early = took.is_some_and(|took| took < max_wait / 2);
        self.in_a_row = if is_empty && early { self.in_a_row.saturating_add(1) } else { 0 };
        self.in_a_row.checked_sub(USUAL)
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::fetch::empty_responses::*;

    #[test]
    fn repeated_early_empty_responses_cause_backoff() {
        let (start, wait) = (Instant::now(), Duration::from_millis(500));
        let mut empty = EmptyResponses::default();
        let mut answer = |is_empty, took: u64, max_wait| {
            empty.record_sent(start);
            empty.record_response(is_empty, max_wait, start + Duration::from_millis(took))
        };
        for _ in 1..USUAL {
            assert_eq!(answer(true, 1, wait), None);
        }
        assert_eq!((answer(true, 1, wait), answer(true, 1, wait)), (Some(0), Some(1)));
        assert_eq!(answer(true, 500, wait), None, "it waited");
        for _ in 0..100 {
            assert_eq!(answer(true, 1, Duration::ZERO), None, "it was not asked to wait");
            assert_eq!(answer(false, 1, wait), None, "it had something");
        }
    }
}
