//! Signs of life from whoever reads, without a clock or a lock on the way of each record.

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

/// What the reader leaves for the membership's task.
///
/// The reader only raises a flag; the task lowers it when it looks, at every heartbeat at least,
/// and takes the reader to have come at that moment. So `max.poll.interval.ms` is measured up to
/// one heartbeat interval too long, never too short.
#[derive(Debug, Default)]
pub(super) struct PollActivity {
    state: AtomicU8,
    waiting: AtomicUsize,
    resumed: Notify,
    busy_since: OnceLock<BusySince>,
}

/// Says since when its reader has been at what it has been at for longest.
struct BusySince(Box<dyn Fn() -> Option<Instant> + Send + Sync>);

impl fmt::Debug for BusySince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusySince")
    }
}

impl PollActivity {
    /// The reader asks for records.
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

    /// Whether the reader came since the last look, or waits right now.
    pub(super) fn take_poll(&self) -> bool {
        match self.state.compare_exchange(POLLED, QUIET, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(PARKED) => false,
            Err(_) => self.waiting.load(SeqCst) > 0,
        }
    }

    /// The reader works on many records at once, and `max.poll.interval.ms` counts from when it
    /// took the one that it has been at for longest. It is asked when the task looks. To be set
    /// once; later ones are not asked.
    pub(super) fn set_busy_since(&self, busy_since: impl Fn() -> Option<Instant> + Send + Sync + 'static) {
        // One reader at a time is all that a consumer has.
        let _ = self.busy_since.set(BusySince(Box::new(busy_since)));
    }

    /// When a reader that was seen came, as far as `max.poll.interval.ms` is concerned.
    pub(super) fn last_poll_at(&self, now: Instant) -> Instant {
        self.busy_since.get().and_then(|busy| busy.0()).map_or(now, |since| since.min(now))
    }

    /// From now on only a reader that comes anew counts; [`came_back`](Self::came_back) tells.
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
        assert!(!reader.take_poll(), "it waits, but it does not know yet what parked us");
        reader.end_waiting();
        reader.resumed().await;
        assert!(reader.take_poll());
    }
}
