//! What `poll` gives: records that borrow from the batches that they came in.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::consumer::{
    api::record_ref::RecordRef,
    buffer::{
        decoded_batch::DecodedBatch,
        fetch_buffer::{FetchBuffer, OwnedReadGuard},
        partition_buffer::CollectedItem,
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

/// Records of one [`poll`](crate::consumer::Consumer::poll), by partition, each partition's in the log's
/// order.
///
/// They are read lazily from the batches that the broker sent, without an allocation for any of
/// them. A record counts as handed out when an iterator gives it. What no iterator has given comes
/// again with the next poll, and so does nothing else: iterating twice gives the same records
/// twice, but they are handed out once.
///
/// While this is held, no other call reads from the consumer (of a
/// [`PartitionStream`](crate::consumer::PartitionStream): from that stream); commits, seeks and pauses work.
/// Records of a partition that is sought or taken away meanwhile are not given any more.
#[must_use = "records that are not iterated come again"]
pub struct Records {
    held: Vec<HeldSlice>,
    /// There where something is held.
    home: Option<UnreadReturn>,
}

/// Where the unread part goes back to.
pub(crate) enum UnreadReturn {
    /// The reader of all that is not split off.
    Common(OwnedReadGuard),
    /// That of one partition.
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
    part: DecodedBatch,
    count: usize,
    iteration: Mutex<SliceProgress>,
}

/// How far the furthest iterator has come.
#[derive(Debug, Default)]
struct SliceProgress {
    given: usize,
    /// Where to go on; `None` before the first record.
    position: Option<RecordPosition>,
    next: i64,
    broken: Option<Error>,
}

impl Records {
    pub(crate) fn empty() -> Self {
        Self { held: Vec::new(), home: None }
    }

    pub(crate) fn new(portions: Vec<RecordSlice>, home: UnreadReturn) -> Self {
        let held = portions.into_iter().map(|RecordSlice { batch: part, count }| HeldSlice {
            part,
            count,
            iteration: Mutex::default(),
        });
        Self { held: held.collect(), home: Some(home) }
    }

    /// Whether there are none: the time was up before something came.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.iter().map(|held| held.count).sum()
    }

    /// All records, one partition after the other. Starts with the first of them each time it is
    /// called.
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter::new(&self.held)
    }

    /// The records of each partition for itself.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionRecords<'_>> {
        let runs = self.held.chunk_by(|one, next| one.part.progress.partition() == next.part.progress.partition());
        runs.filter_map(|held| held.first().map(|first| PartitionRecords { first, held }))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.held.iter().map(|held| (held.part.progress.partition().to_string(), held.count));
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
            held.part.progress.add_delivered_records(records);
            given += records;
        }
        let unread: Vec<CollectedItem> = self.held.drain(..).filter_map(HeldSlice::into_unread).collect();
        let all_read = unread.is_empty();
        let mut reader = home.reader();
        reader.lent = false;
        reader.add_delivered_records(given);
        reader.take_back(unread);
        drop(reader);
        if all_read {
            return;
        }
        // A partition may have been paused or given up while these were held.
        home.buffer().with_state_and_readers(|_| ());
    }
}

impl HeldSlice {
    /// Writes down how far an iterator has come.
    fn record_progress(&self, given: usize, position: RecordPosition, next: i64, broken: Option<Error>) {
        self.part.progress.record_delivered_exact(next);
        let mut iteration = lock(&self.iteration);
        if given > iteration.given {
            *iteration = SliceProgress { given, position: Some(position), next, broken: iteration.broken.take() };
        }
        iteration.broken = iteration.broken.take().or(broken);
    }

    fn into_unread(mut self) -> Option<CollectedItem> {
        let iteration = self.iteration.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let progress = self.part.progress.clone();
        if iteration.given > 0 {
            progress.record_delivered_exact(iteration.next);
        }
        if progress.is_withheld() {
            return None;
        }
        if let Some(error) = iteration.broken {
            return Some(CollectedItem::Corrupt { progress, error, end: self.part.end });
        }
        self.part.position = iteration.position.unwrap_or(self.part.position);
        self.part.left = self.part.left.saturating_sub(iteration.given);
        if self.part.left == 0 {
            progress.record_delivered_exact(self.part.end);
            return None;
        }
        Some(CollectedItem::Decoded(self.part))
    }
}

/// The records of one partition, of one [`Records`].
#[derive(Clone, Copy)]
pub struct PartitionRecords<'a> {
    first: &'a HeldSlice,
    held: &'a [HeldSlice],
}

impl<'a> PartitionRecords<'a> {
    /// The partition that they are of.
    pub fn partition(&self) -> &'a TopicPartition {
        self.first.part.progress.partition()
    }

    /// How many there are: at least one.
    #[expect(clippy::len_without_is_empty, reason = "a partition without records is not there")]
    pub fn len(&self) -> usize {
        self.held.iter().map(|held| held.count).sum()
    }

    /// The records in the log's order, from the first of them on.
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

    /// Ends the current part, and goes on with the next one.
    #[cold]
    fn advance(&mut self, broken: Option<Error>) -> bool {
        if let Some(current) = self.current.take() {
            current.settle(broken);
        }
        let Some((held, rest)) = self.rest.split_first() else { return false };
        self.rest = rest;
        self.current =
            Some(Current { held, progress: &held.part.progress, iter: held.part.iter(), given: 0, next: i64::MIN });
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
                        return Some(RecordRef { view, part: &current.held.part });
                    }
                    Some(Err(error)) => {
                        // What follows in this partition comes after the error.
                        broken = Some(error);
                        let partition = current.held.part.progress.partition();
                        let same =
                            self.rest.iter().take_while(|held| held.part.progress.partition() == partition).count();
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
