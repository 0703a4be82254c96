//! Where records come in: one partition's open batch and the full ones behind it, under the partition's own lock.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    batch::{Batch, Ledger, Run},
    cell::Cell,
    credits::Charge,
    flush::FlushGroup,
    partitioner::{Sticky, turn_is_over},
};
use crate::{
    error::Error,
    wire::batch::{BATCH_HEADER_SIZE, BatchBuilder, RecordParts},
};

/// One partition as `send` sees it.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Its place in the sender's list; never used again for another.
    pub(crate) slot: usize,
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    accumulator: Mutex<Accumulator>,
}

#[derive(Debug, Default)]
struct Accumulator {
    full: VecDeque<Batch>,
    open: Option<Batch>,
    /// What the sender knows already, so that it is told once.
    told: Told,
    /// Set when nobody will ever drain this again.
    closed: Option<Error>,
    /// Records that ever came in.
    appended: u64,
    /// Bytes of records without keys since the partition's turn began.
    sticky_bytes: usize,
    /// What the last batch weighed when it was closed: so much room the next one gets at once.
    usual_size: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    #[default]
    Nothing,
    /// There is an open batch.
    Open,
    /// There is a full one.
    Full,
}

/// A record and where its result goes.
pub(crate) struct Entry<'a> {
    pub(crate) parts: RecordParts<'a>,
    /// An upper bound of its bytes in a batch, taken from the credits.
    pub(crate) bound: u32,
    pub(crate) timestamp: i64,
    /// The topic's turns, for a record that may go to any partition.
    pub(crate) sticky: Option<&'a Sticky>,
}

/// A record that waited for its topic: it has a place for its result already.
#[derive(Debug)]
pub(crate) struct Waited {
    pub(crate) run: Run,
    pub(crate) charge: Charge,
    pub(crate) group: FlushGroup,
}

/// What became of an attempt to append.
#[derive(Debug)]
pub(crate) enum Appended {
    /// The record is in the batch; its result will be at that index of the cell.
    Done { place: Option<(Arc<Cell>, u32)>, news: News },
    /// The partition's turn is over: choose again.
    TurnOver { news: News, waited: Option<Waited> },
    /// The producer has ended.
    Closed { error: Error, waited: Option<Waited> },
}

/// What the sender has to be told, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    None,
    /// A batch was begun at that time.
    Opened(Instant),
    /// A batch is full.
    Full,
}

/// What the sender sees of a partition's accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    /// When the oldest batch was begun.
    pub(crate) created: Instant,
    /// It is full or was flushed, so nothing is to be waited for.
    pub(crate) due: bool,
    pub(crate) size: usize,
}

impl Partition {
    pub(crate) fn new(slot: usize, topic: Arc<str>, index: i32) -> Self {
        Self { slot, topic, index, accumulator: Mutex::default() }
    }

    /// Encodes a record into the open batch. `clock` is asked when a batch is begun only.
    pub(crate) fn append(
        &self,
        entry: &Entry<'_>,
        waited: Option<Waited>,
        batch_size: usize,
        ledger: &Arc<Ledger>,
        clock: impl FnOnce() -> Instant,
    ) -> Appended {
        let mut acc = self.lock();
        if let Some(error) = &acc.closed {
            return Appended::Closed { error: error.clone(), waited };
        }
        let bound = entry.bound as usize;
        let mut news = News::None;
        let fits = match &acc.open {
            Some(batch) => batch.size() + bound <= batch_size,
            None => false,
        };
        let closed = !fits && acc.open.is_some();
        if closed {
            news = acc.close();
        }
        if let Some(sticky) = entry.sticky.filter(|sticky| sticky.has_choice()) {
            let mine = sticky.current() == self.index as u32;
            let had_its_share = turn_is_over(acc.sticky_bytes, batch_size, acc.open.is_none())
                || (closed && acc.sticky_bytes + bound > batch_size);
            if !mine || had_its_share {
                acc.sticky_bytes = 0;
                sticky.leave(self.index as u32);
                return Appended::TurnOver { news, waited };
            }
            acc.sticky_bytes += bound;
        }
        if acc.open.is_none() {
            let now = clock();
            let room = acc.usual_size.max(BATCH_HEADER_SIZE + bound).min(batch_size.max(BATCH_HEADER_SIZE + bound));
            let builder = BatchBuilder::with_capacity(room);
            acc.open = Some(Batch::new(self.topic.clone(), self.index, builder, now, ledger));
            if news == News::None && acc.told < Told::Open {
                acc.told = Told::Open;
                news = News::Opened(now);
            }
        }
        acc.appended += 1;
        let Some(batch) = &mut acc.open else { return Appended::TurnOver { news, waited } };
        let place = batch.append(entry, waited);
        Appended::Done { place, news }
    }

    /// What the oldest batch looks like, and from now on the sender knows about it.
    pub(crate) fn glance(&self) -> Option<Glance> {
        let mut acc = self.lock();
        acc.told = if !acc.full.is_empty() {
            Told::Full
        } else if acc.open.is_some() {
            Told::Open
        } else {
            Told::Nothing
        };
        let full = acc.full.front().map(|batch| (batch, true));
        let (batch, due) = full.or(acc.open.as_ref().map(|batch| (batch, batch.flushed)))?;
        Some(Glance { created: batch.created, due, size: batch.size() })
    }

    /// Takes the oldest batch, closing it if it is still open.
    pub(crate) fn take(&self) -> Option<Batch> {
        let mut acc = self.lock();
        let batch = acc.full.pop_front().or_else(|| acc.open.take());
        if let Some(batch) = &batch {
            acc.usual_size = batch.size();
        }
        batch
    }

    /// Takes the oldest batch if it was begun before that time.
    pub(crate) fn take_older_than(&self, limit: Instant) -> Option<Batch> {
        let mut acc = self.lock();
        match acc.full.front().or(acc.open.as_ref()) {
            Some(batch) if batch.created <= limit => acc.full.pop_front().or_else(|| acc.open.take()),
            _ => None,
        }
    }

    /// Lets the open batch leave without waiting for its linger.
    pub(crate) fn flush(&self) {
        if let Some(batch) = &mut self.lock().open {
            batch.flushed = true;
        }
    }

    /// Refuses all further records with this error and gives out what is left.
    pub(crate) fn close(&self, error: Error) -> Vec<Batch> {
        let mut acc = self.lock();
        acc.closed = Some(error);
        let mut left: Vec<Batch> = acc.full.drain(..).collect();
        left.extend(acc.open.take());
        left
    }

    /// Records that ever came in.
    pub(crate) fn appended(&self) -> u64 {
        self.lock().appended
    }

    fn lock(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accumulator {
    /// Moves the open batch to the full ones.
    fn close(&mut self) -> News {
        let Some(batch) = self.open.take() else { return News::None };
        self.usual_size = batch.size();
        self.full.push_back(batch);
        if self.told < Told::Full {
            self.told = Told::Full;
            News::Full
        } else {
            News::None
        }
    }
}
