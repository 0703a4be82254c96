//! How much is asked for in one fetch: as little as keeps the reader busy, since small answers are still in the processor's
//! caches when they are read; more where the line is long or slow, so that it is full all the same. Decides; does no IO.

use std::time::{Duration, Instant};

/// Asked for on a line that is fast.
const SMALL: usize = 1 << 20;
/// Bytes a second from which on larger answers would not fill the line any better.
const FAST: f64 = (512 << 20) as f64;

/// What is asked for of one broker.
#[derive(Debug)]
pub(super) struct AnswerSize {
    bytes: usize,
    /// Of the fetch that is under way: how much may come, and since when it is waited for.
    asked: Option<(usize, Instant)>,
}

impl Default for AnswerSize {
    fn default() -> Self {
        Self { bytes: SMALL, asked: None }
    }
}

impl AnswerSize {
    /// How much to ask for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So much is asked for.
    pub(super) fn ask(&mut self, bytes: usize, now: Instant) {
        self.asked = Some((bytes, now));
    }

    /// So much came, while so much from before still waits for its reader; no answer ever asks for more than `most`.
    pub(super) fn answered(&mut self, bytes: usize, waits: usize, most: usize, now: Instant) {
        let Some((asked, since)) = self.asked.take() else { return };
        if waits > bytes {
            // The reader is what takes its time.
            self.bytes = (self.bytes - self.bytes / 8).max(SMALL);
        } else if bytes >= asked / 4 * 3 && asked >= self.bytes {
            // All that was asked for came, and the reader has next to nothing else.
            let took = now.saturating_duration_since(since).max(Duration::from_micros(1));
            if (bytes as f64) < FAST * took.as_secs_f64() {
                self.bytes = self.bytes.saturating_mul(2).min(most.max(SMALL));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const MOST: usize = 8 * MIB;

    /// What is asked for after so many full answers that took that long each.
    fn after(size: &mut AnswerSize, answers: usize, took: Duration, waits: usize) -> usize {
        let mut now = Instant::now();
        for _ in 0..answers {
            let bytes = size.bytes();
            size.ask(bytes, now);
            now += took;
            size.answered(bytes, waits, MOST, now);
        }
        size.bytes()
    }

    #[test]
    fn a_long_line_is_filled_and_a_short_one_kept_small() {
        let mut size = AnswerSize::default();
        assert_eq!(after(&mut size, 20, Duration::from_micros(700), 0), MIB);
        assert_eq!(after(&mut size, 2, Duration::from_millis(30), 0), 4 * MIB);
        assert_eq!(after(&mut size, 20, Duration::from_millis(30), 0), MOST);
        assert_eq!(after(&mut size, 20, Duration::from_micros(700), MOST + 1), MIB, "the reader has enough to do");
    }

    #[test]
    fn answers_that_are_not_full_say_nothing_of_the_line() {
        let mut size = AnswerSize::default();
        let now = Instant::now();
        size.ask(MIB, now);
        size.answered(MIB / 2, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "there was no more to send");
        size.ask(MIB / 8, now);
        size.answered(MIB / 8, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "no more was asked for, for want of room");
        size.answered(MIB, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "nothing was asked");
    }
}
