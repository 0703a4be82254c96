//! Records the reader's polls, without a clock or a lock on the path of each record.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use tokio::sync::Notify;

const QUIET: u8 = 0;
const POLLED: u8 = 1;
const PARKED: u8 = 2;

/// The reader's activity, as the membership's task sees it.
///
/// The reader only sets a flag; the task clears it when it checks, at least at every heartbeat, and
/// assumes that the reader polled at that moment. So `max.poll.interval.ms` is measured up to one
/// heartbeat interval too long, never too short.
#[derive(Debug, Default)]
pub(super) struct PollActivity {
    state: AtomicU8,
    waiting: AtomicUsize,
    resumed: Notify,
    busy_since: OnceLock<BusySince>,
}

/// Returns the time since which the reader's oldest record has been handled.
struct BusySince(Box<dyn Fn() -> Option<Instant> + Send + Sync>);

impl fmt::Debug for BusySince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusySince")
    }
}

impl PollActivity {
    /// Records that the reader polls.
    pub(super) fn polled(&self) {
        if self.state.load(SeqCst) != POLLED && self.state.swap(POLLED, SeqCst) == PARKED {
            self.resumed.notify_one();
        }
    }

    pub(super) fn begin_waiting(&self) {
        self.waiting.fetch_add(1, SeqCst);
        self.polled();
    }

    pub(super) fn end_waiting(&self) {
        // In this order, so that the task sees one of the two.
        self.polled();
        self.waiting.fetch_sub(1, SeqCst);
    }

    /// Returns true if the reader has polled since the last check, or waits for records now.
    pub(super) fn take_poll(&self) -> bool {
        match self.state.compare_exchange(POLLED, QUIET, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(PARKED) => false,
            Err(_) => self.waiting.load(SeqCst) > 0,
        }
    }

    /// Sets a callback for a reader that handles many records at once: `max.poll.interval.ms`
    /// counts from the start of its oldest record. The task calls it at each check. Only the first
    /// callback that is set is called.
    pub(super) fn set_busy_since(&self, busy_since: impl Fn() -> Option<Instant> + Send + Sync + 'static) {
        // A consumer has one reader at a time.
        let _ = self.busy_since.set(BusySince(Box::new(busy_since)));
    }

    /// Returns the time from which `max.poll.interval.ms` counts, for a reader that has polled.
    pub(super) fn last_poll_at(&self, now: Instant) -> Instant {
        self.busy_since.get().and_then(|busy| busy.0()).map_or(now, |since| since.min(now))
    }

    /// Ignores earlier polls: only a new one counts from now on, and [`resumed`](Self::resumed)
    /// waits for it.
    pub(super) fn await_poll(&self) {
        self.state.store(PARKED, SeqCst);
    }

    pub(super) async fn resumed(&self) {
        self.resumed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::group::poll_activity::*;

    #[test]
    fn reports_poll_once_but_waiting_always() {
        let reader = PollActivity::default();
        assert!(!reader.take_poll());
        reader.polled();
        reader.polled();
        assert!(reader.take_poll());
        assert!(!reader.take_poll());
        reader.begin_waiting();
        assert!(reader.take_poll() && reader.take_poll());
        reader.end_waiting();
        assert!(reader.take_poll());
        assert!(!reader.take_poll());
    }

    #[test]
    fn busy_reader_counts_as_polled_at_start() {
        let (reader, now) = (PollActivity::default(), Instant::now());
        assert_eq!(reader.last_poll_at(now), now);
        let began = now + std::time::Duration::from_secs(5);
        reader.set_busy_since(move || Some(began));
        assert_eq!(reader.last_poll_at(now), now);
        assert_eq!(reader.last_poll_at(began + std::time::Duration::from_secs(9)), began);
    }

    #[tokio::test(start_paused = true)]
    async fn only_new_poll_resumes_stopped_member() {
        let reader = PollActivity::default();
        reader.begin_waiting();
        reader.await_poll();
        assert!(!reader.take_poll(), "it waits, but has not polled since the stop");
        reader.end_waiting();
        reader.resumed().await;
        assert!(reader.take_poll());
    }
}
