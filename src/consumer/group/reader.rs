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
pub(super) struct Reader {
    state: AtomicU8,
    waiting: AtomicUsize,
    came_back: Notify,
    busy_since: OnceLock<BusySince>,
}

/// Says since when its reader has been at what it has been at for longest.
struct BusySince(Box<dyn Fn() -> Option<Instant> + Send + Sync>);

impl fmt::Debug for BusySince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusySince")
    }
}

impl Reader {
    /// The reader asks for records.
    pub(super) fn polled(&self) {
        if self.state.load(SeqCst) != POLLED && self.state.swap(POLLED, SeqCst) == PARKED {
            self.came_back.notify_one();
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
    pub(super) fn look(&self) -> bool {
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
    pub(super) fn came_at(&self, now: Instant) -> Instant {
        self.busy_since.get().and_then(|busy| busy.0()).map_or(now, |since| since.min(now))
    }

    /// From now on only a reader that comes anew counts; [`came_back`](Self::came_back) tells.
    pub(super) fn park(&self) {
        self.state.store(PARKED, SeqCst);
    }

    pub(super) async fn came_back(&self) {
        self.came_back.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_seen_once_for_each_time_it_came_and_all_the_while_it_waits() {
        let reader = Reader::default();
        assert!(!reader.look());
        reader.polled();
        reader.polled();
        assert!(reader.look());
        assert!(!reader.look());
        reader.begin_waiting();
        assert!(reader.look() && reader.look());
        reader.end_waiting();
        assert!(reader.look());
        assert!(!reader.look());
    }

    #[test]
    fn a_reader_that_is_busy_came_when_it_began() {
        let (reader, now) = (Reader::default(), Instant::now());
        assert_eq!(reader.came_at(now), now);
        let began = now + std::time::Duration::from_secs(5);
        reader.set_busy_since(move || Some(began));
        assert_eq!(reader.came_at(now), now);
        assert_eq!(reader.came_at(began + std::time::Duration::from_secs(9)), began);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_member_hears_only_of_readers_that_come_anew() {
        let reader = Reader::default();
        reader.begin_waiting();
        reader.park();
        assert!(!reader.look(), "it waits, but it does not know yet what parked us");
        reader.end_waiting();
        reader.came_back().await;
        assert!(reader.look());
    }
}
