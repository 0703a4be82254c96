//! The result of `poll`: records that borrow from the batches that they came in.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::consumer::{
    api::record_ref::RecordRef,
    buffer::{
        fetch_buffer::{FetchBuffer, OwnedReadGuard},
        fetched_batch::{BatchContent, DecodedRecords, FetchedBatch},
        record_reader::{RecordReader, RecordSlice},
    },
    lock::lock,
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{
    error::Error,
    record::TopicPartition,
    wire::batch::{RecordIter, RecordPosition},
};

/// Records of one [`poll`](crate::consumer::Consumer::poll), grouped by partition, each partition's
/// in the log's order.
///
/// They are decoded lazily from the batches that the broker sent, without an allocation for any of
/// them. A record counts as delivered when an iterator returns it. Records that no iterator has
/// returned come again with the next poll, and no others do: iterating twice returns the same
/// records twice, but they are delivered once.
///
/// While this exists, no other call reads from the consumer (for a
/// [`PartitionStream`](crate::consumer::PartitionStream): from that stream); commits, seeks and
/// pauses work. If a partition is sought or revoked meanwhile, its records are no longer returned.
#[must_use = "records that are not iterated are returned again by the next poll"]
pub struct Records {
    held: Vec<HeldSlice>,
    /// `None` if there are no records.
    home: Option<UnreadReturn>,
}

/// Reader to which unread records are returned.
pub(crate) enum UnreadReturn {
    /// The reader of all partitions that are not split off.
    Common(OwnedReadGuard),
    /// The reader of one partition that is split off.
    Split(Arc<FetchBuffer>, Arc<Mutex<RecordReader>>),
}

impl UnreadReturn {
    fn buffer(&self) -> &Arc<FetchBuffer> {
        match self {
            Self::Common(reading) => reading.buffer(),
            Self::Split(buffer, _) => buffer,
        }
    }

    fn reader(&self) -> MutexGuard<'_, RecordReader> {
        match self {
            Self::Common(reading) => reading.buffer().reader(),
            Self::Split(_, reader) => lock(reader),
        }
    }
}

/// Some records of one partition.
struct HeldSlice {
    batch: FetchedBatch<DecodedRecords>,
    count: usize,
    iteration: Mutex<SliceProgress>,
}

/// Progress of the iterator that is furthest ahead.
#[derive(Debug, Default)]
struct SliceProgress {
    given: usize,
    /// Position of the next record; `None` before the first one was returned.
    position: Option<RecordPosition>,
    next: i64,
    broken: Option<Error>,
}

impl Records {
    pub(crate) fn empty() -> Self {
        Self { held: Vec::new(), home: None }
    }

    pub(crate) fn new(slices: Vec<RecordSlice>, home: UnreadReturn) -> Self {
        let held = slices.into_iter().map(|RecordSlice { batch, count }| HeldSlice {
            batch,
            count,
            iteration: Mutex::default(),
        });
        Self { held: held.collect(), home: Some(home) }
    }

    /// Returns true if there are no records, because the timeout passed before any arrived.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.held.iter().map(|held| held.count).sum()
    }

    /// Iterates over all records, one partition after the other. Each call starts with the first of
    /// them.
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter::new(&self.held)
    }

    /// Iterates over the partitions, each with its records.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionRecords<'_>> {
        let runs = self.held.chunk_by(|one, next| one.batch.progress.partition() == next.batch.progress.partition());
        runs.filter_map(|held| held.first().map(|first| PartitionRecords { first, held }))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.held.iter().map(|held| (held.batch.progress.partition().to_string(), held.count));
        f.debug_map().entries(counts).finish()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = RecordRef<'a>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut given = 0;
        for held in &self.held {
            let records = lock(&held.iteration).given as u64;
            held.batch.progress.add_delivered_records(records);
            given += records;
        }
        let unread: Vec<FetchedBatch> = self.held.drain(..).filter_map(HeldSlice::into_unread).collect();
        let all_read = unread.is_empty();
        let mut reader = home.reader();
        reader.lent = false;
        reader.add_delivered_records(given);
        reader.take_back(unread);
        drop(reader);
        if all_read {
            return;
        }
        // Applies a pause or a revocation that happened while the records were lent.
        home.buffer().with_state_and_readers(|_| ());
    }
}

impl HeldSlice {
    /// Records the progress of an iterator.
    fn record_progress(&self, given: usize, position: RecordPosition, next: i64, broken: Option<Error>) {
        self.batch.progress.record_delivered_exact(next);
        let mut iteration = lock(&self.iteration);
        if given > iteration.given {
            *iteration = SliceProgress { given, position: Some(position), next, broken: iteration.broken.take() };
        }
        iteration.broken = iteration.broken.take().or(broken);
    }

    /// Returns the batch with the records that no iterator has returned; `None` without any.
    fn into_unread(mut self) -> Option<FetchedBatch> {
        let iteration = self.iteration.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let progress = &self.batch.progress;
        if iteration.given > 0 {
            progress.record_delivered_exact(iteration.next);
        }
        if progress.is_withheld() {
            return None;
        }
        if let Some(error) = iteration.broken {
            return Some(self.batch.with_content(BatchContent::Corrupt(error)));
        }
        let records = &mut self.batch.content;
        records.position = iteration.position.unwrap_or(records.position);
        records.left = records.left.saturating_sub(iteration.given);
        if records.left == 0 {
            progress.record_delivered_exact(self.batch.end);
            return None;
        }
        Some(self.batch.map_content(BatchContent::Decoded))
    }
}

/// The records of one partition in [`Records`].
#[derive(Clone, Copy)]
pub struct PartitionRecords<'a> {
    first: &'a HeldSlice,
    held: &'a [HeldSlice],
}

impl<'a> PartitionRecords<'a> {
    /// Returns the partition of the records.
    pub fn partition(&self) -> &'a TopicPartition {
        self.first.batch.progress.partition()
    }

    /// Returns the number of records: at least one.
    #[expect(clippy::len_without_is_empty, reason = "a partition without records is not listed")]
    pub fn len(&self) -> usize {
        self.held.iter().map(|held| held.count).sum()
    }

    /// Iterates over the records in the log's order, starting with the first of them.
    pub fn iter(&self) -> RecordsIter<'a> {
        RecordsIter::new(self.held)
    }
}

impl<'a> IntoIterator for PartitionRecords<'a> {
    type Item = RecordRef<'a>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &PartitionRecords<'a> {
    type Item = RecordRef<'a>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for PartitionRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} records", self.partition(), self.len())
    }
}

/// Iterates over the records of one poll; allocates nothing.
pub struct RecordsIter<'a> {
    current: Option<Current<'a>>,
    rest: &'a [HeldSlice],
}

struct Current<'a> {
    held: &'a HeldSlice,
    progress: &'a DeliveryProgress,
    iter: RecordIter<'a>,
    given: usize,
    next: i64,
}

impl<'a> RecordsIter<'a> {
    fn new(held: &'a [HeldSlice]) -> Self {
        Self { current: None, rest: held }
    }

    /// Ends the current slice, and starts the next one.
    #[cold]
    fn advance(&mut self, broken: Option<Error>) -> bool {
        if let Some(current) = self.current.take() {
            current.settle(broken);
        }
        let Some((held, rest)) = self.rest.split_first() else { return false };
        self.rest = rest;
        self.current = Some(Current {
            held,
            progress: &held.batch.progress,
            iter: held.batch.content.iter(),
            given: 0,
            next: i64::MIN,
        });
        true
    }
}

impl Current<'_> {
    fn settle(&self, broken: Option<Error>) {
        self.held.record_progress(self.given, self.iter.position(), self.next, broken);
    }
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        loop {
            let mut broken = None;
            if let Some(current) = &mut self.current
                && current.given < current.held.count
                && !current.progress.is_withheld()
            {
                match current.iter.next() {
                    Some(Ok(view)) => {
                        current.given += 1;
                        current.next = view.offset + 1;
                        current.progress.record_delivered(current.next);
                        return Some(RecordRef { view, batch: &current.held.batch });
                    }
                    Some(Err(error)) => {
                        // Further records of this partition come after the error.
                        broken = Some(error);
                        let partition = current.held.batch.progress.partition();
                        let same =
                            self.rest.iter().take_while(|held| held.batch.progress.partition() == partition).count();
                        self.rest = self.rest.get(same..).unwrap_or_default();
                    }
                    None => {}
                }
            }
            if !self.advance(broken) {
                return None;
            }
        }
    }
}

impl Drop for RecordsIter<'_> {
    fn drop(&mut self) {
        if let Some(current) = &self.current {
            current.settle(None);
        }
    }
}

impl std::iter::FusedIterator for RecordsIter<'_> {}

impl fmt::Debug for RecordsIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordsIter").finish_non_exhaustive()
    }
}
