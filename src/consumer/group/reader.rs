//! Signs of life from whoever reads, without a clock or a lock on the way of each record.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

const QUIET: u8 = 0;
const POLLED: u8 = 1;
const PARKED: u8 = 2;

/// What the reader leaves for the membership's task.
///
/// The reader only raises a flag; the task lowers it when it looks, at every heartbeat at least, and takes the reader to
/// have come at that moment. So `max.poll.interval.ms` is measured up to one heartbeat interval too long, never too short.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: AtomicU8,
    waiting: AtomicUsize,
    came_back: Notify,
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
