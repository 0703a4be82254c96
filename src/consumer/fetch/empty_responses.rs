//! Detects a broker that answers fetches at once without data.
//!
//! A broker waits up to `fetch.max.wait.ms` for `fetch.min.bytes`. A broker that does not wait
//! would otherwise be asked in a busy loop.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

/// Number of early empty responses in a row from which on the next fetch waits. A sound broker
/// gives fewer, though changes of the session and of partitions cut its wait short.
const USUAL: u32 = 8;

#[derive(Debug, Default)]
pub(crate) struct EmptyResponses {
    asked: Option<Instant>,
    in_a_row: u32,
}

impl EmptyResponses {
    /// Records that a fetch is sent.
    pub(crate) fn record_sent(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// Records a response. If the next fetch has to wait, returns by how many early empty responses
    /// the limit is exceeded. `max_wait` is zero if the broker was not asked to wait.
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
        assert_eq!(answer(true, 500, wait), None, "the broker waited");
        for _ in 0..100 {
            assert_eq!(answer(true, 1, Duration::ZERO), None, "the broker was not asked to wait");
            assert_eq!(answer(false, 1, wait), None, "the response has data");
        }
    }
}
