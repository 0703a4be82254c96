//! The reader's side: the batches that it took over, the records that it holds, and their
//! completion.
//!
//! There is one common reader at a time, beside those of partitions that are split off. A reader
//! knows neither the consumer's state nor the lock around it: a step that needs either returns a
//! [`ReaderNeed`], which `buffer/reading` meets before it calls the reader again.
//!
//! Sans-IO.

use std::{collections::VecDeque, sync::Arc};

use crate::consumer::{
    buffer::{
        fetched_batch::{BatchContent, DecodeConfig, DecodedRecords, FetchedBatch},
        gathered::Gathered,
        owned_record::owned_record,
        partition_buffer::GROWTH,
        split::SplitId,
    },
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{
    error::{Error, ErrorKind},
    record::{ConsumerRecord, TopicPartition},
    wire::batch::Decompressor,
};

/// A batch of which `count` records are delivered at once.
#[derive(Debug)]
pub(crate) struct RecordSlice {
    pub(crate) batch: FetchedBatch<DecodedRecords>,
    pub(crate) count: usize,
}

/// The slices of one poll.
#[derive(Debug, Default)]
pub(crate) struct RecordSlices {
    slices: Vec<RecordSlice>,
    /// Number of records.
    count: usize,
}

/// The reason for which a step of the reader cannot go on by itself.
#[derive(Debug)]
pub(crate) enum ReaderNeed {
    /// It has no batch left: it needs batches with about that many records.
    Batches(usize),
    /// The log does not have the offset that the reader arrived at: the position has to be reset.
    Reset(Arc<DeliveryProgress>),
    /// The reader arrived at bytes that it cannot read: the partition has to be stopped. They end
    /// before `end`, if that is after the position.
    Stop { progress: Arc<DeliveryProgress>, end: i64, error: Error },
    /// The reader reached the log's end, which is reported as an error.
    Report(Error),
}

#[derive(Debug)]
pub(crate) struct RecordReader {
    /// The partition that it reads; `None` for the common reader of all partitions that are not
    /// split off.
    split: Option<SplitId>,
    /// Batches that were taken over and not delivered yet.
    pending: VecDeque<FetchedBatch>,
    /// Progress of the records that were delivered last.
    delivered: Vec<Arc<DeliveryProgress>>,
    /// True if the reader still holds them.
    holds_delivered: bool,
    /// True if records of its partition that another reader held count as held by this one. This
    /// ends with its first own record, or with its end.
    inherits: bool,
    /// True while the records of a poll are held.
    pub(crate) lent: bool,
    /// True if its user completes records explicitly (see `manual_reader`).
    manual_completion: bool,
    /// True if it took batches over since the last [`take_refilled`](Self::take_refilled).
    refilled: bool,
    /// Number of records that were returned.
    delivered_records: u64,
    /// Number of those that are not counted for their partition yet: those of the progress that is
    /// held.
    uncounted_records: u64,
    /// Approximate ratio of decompressed to compressed size of recent batches.
    growth: usize,
    /// Kept for its capacity.
    spare: Vec<FetchedBatch>,
    decompressor: Decompressor,
    decode_config: DecodeConfig,
}

impl RecordReader {
    pub(crate) fn new(decode_config: DecodeConfig, of: Option<SplitId>) -> Self {
        Self {
            split: of,
            pending: VecDeque::new(),
            delivered: Vec::new(),
            holds_delivered: false,
            inherits: false,
            lent: false,
            manual_completion: false,
            refilled: false,
            delivered_records: 0,
            uncounted_records: 0,
            growth: GROWTH,
            spare: Vec::new(),
            decompressor: Decompressor::default(),
            decode_config,
        }
    }

    /// Makes records complete when the user completes them, and not when the next one is asked for.
    pub(crate) fn with_manual_completion(mut self) -> Self {
        self.manual_completion = true;
        self
    }

    /// Lets records of its partition that another reader holds, if there are any, count as held by
    /// this one.
    pub(crate) fn inheriting(mut self, inherits: bool) -> Self {
        self.inherits = inherits;
        self
    }

    /// Returns the split that it reads; `None` for the common reader.
    pub(crate) fn split(&self) -> Option<&SplitId> {
        self.split.as_ref()
    }

    // ---- held records

    /// Completes the records that it holds, because the user asks for the next ones, or closes.
    pub(crate) fn complete_delivered(&mut self) {
        if !self.manual_completion && std::mem::take(&mut self.holds_delivered) {
            for progress in &self.delivered {
                progress.complete_delivered();
            }
        }
    }

    /// Returns true if the reader holds records of that partition.
    pub(crate) fn holds(&self, partition: &TopicPartition) -> bool {
        let inherited = self.inherits && self.split.as_ref().is_some_and(|of| of.partition == *partition);
        let of_it = |progress: &Arc<DeliveryProgress>| progress.partition() == partition && self.is_held(progress);
        inherited || self.holds_delivered && self.delivered.iter().any(of_it)
    }

    /// Returns true if the reader holds any records.
    pub(crate) fn holds_records(&self) -> bool {
        self.inherits || self.holds_delivered && self.delivered.iter().any(|progress| self.is_held(progress))
    }

    fn is_held(&self, progress: &DeliveryProgress) -> bool {
        !self.manual_completion || progress.completed() < progress.delivered()
    }

    /// Drops the held records of that partition without completing them.
    pub(crate) fn release(&mut self, partition: &TopicPartition) {
        self.count_delivered();
        self.delivered.retain(|progress| progress.partition() != partition);
    }

    /// Ends the reader: records that another reader held no longer count as held by this one.
    pub(crate) fn ended(&mut self) {
        self.inherits = false;
    }

    // ---- single records

    /// Returns the next record, which shares the bytes of its batch.
    #[inline]
    pub(crate) fn next_record(&mut self) -> Result<ConsumerRecord, ReaderNeed> {
        loop {
            if let Some(record) = self.next_decoded() {
                return Ok(record);
            }
            match self.pending.pop_front() {
                Some(next) => self.pass_empty(next)?,
                None => return Err(ReaderNeed::Batches(1)),
            }
        }
    }

    /// Returns the next record of the batch at the front, if that is decoded and has one.
    fn next_decoded(&mut self) -> Option<ConsumerRecord> {
        let front = self.pending.front_mut()?;
        let BatchContent::Decoded(decoded) = &mut front.content else { return None };
        if decoded.left == 0 || front.progress.is_withheld() {
            return None;
        }
        let mut iter = decoded.iter();
        match iter.next() {
            Some(Ok(view)) => {
                let record = owned_record(&front.progress, decoded, &view);
                decoded.position = iter.position();
                decoded.left -= 1;
                front.progress.record_delivered(record.offset + 1);
                self.holds_delivered = true;
                self.inherits = false;
                if !matches!(&self.delivered[..], [held] if Arc::ptr_eq(held, &front.progress)) {
                    count(&self.delivered, &mut self.uncounted_records, &mut self.delivered_records);
                    self.delivered.clear();
                    self.delivered.push(front.progress.clone());
                }
                self.uncounted_records += 1;
                Some(record)
            }
            Some(Err(error)) => {
                front.content = BatchContent::Corrupt(error);
                None
            }
            None => {
                decoded.left = 0;
                None
            }
        }
    }

    /// Adds records of the progress that was delivered last, until there are `max` or no bytes are
    /// `left`. Batches without records, and errors, come with the next call.
    pub(crate) fn take_same_progress(
        &mut self,
        max: usize,
        left: &mut usize,
        out: &mut Vec<ConsumerRecord>,
    ) -> Result<(), ReaderNeed> {
        while out.len() < max && *left > 0 {
            let Some(front) = self.pending.front() else { return Err(ReaderNeed::Batches(max - out.len())) };
            if !self.delivered.last().is_some_and(|progress| Arc::ptr_eq(progress, &front.progress)) {
                break;
            }
            if let Some(record) = self.next_decoded() {
                *left = left.saturating_sub(record.size());
                out.push(record);
                continue;
            }
            if !self.decode_front() {
                break;
            }
        }
        Ok(())
    }

    /// Returns the progress of the record that was delivered last.
    pub(crate) fn last_progress(&self) -> Option<&Arc<DeliveryProgress>> {
        self.delivered.last()
    }

    // ---- slices of many records

    /// Adds slices until there are `max` records, as long as there is room for their decompressed
    /// size, but at least the records of one batch. The slices of one partition are adjacent and in
    /// order. Errors and log ends are left for the next poll if there are records before them.
    pub(crate) fn collect_slices(&mut self, max: usize, out: &mut RecordSlices) -> Result<(), ReaderNeed> {
        while out.count < max {
            let Some(next) = self.pending.pop_front() else { return Err(ReaderNeed::Batches(max - out.count)) };
            if next.progress.is_withheld() {
                continue;
            }
            // The next poll decodes it, or reports it, when these records are done.
            if !out.is_empty() && (next.is_stop() || !self.has_room_to_decode(&next)) {
                self.pending.push_front(next);
                break;
            }
            match next.into_decoded() {
                Ok(batch) => out.add(batch, max),
                Err(next) => self.pass_between(next, out)?,
            }
        }
        Ok(())
    }

    /// Moves past a batch without decoded records. A skipped range belongs to the records before
    /// it.
    fn pass_between(&mut self, next: FetchedBatch, out: &mut RecordSlices) -> Result<(), ReaderNeed> {
        match (&next.content, out.last_of(&next.progress)) {
            (BatchContent::Skip, Some(slice)) => {
                slice.batch.end = next.end;
                Ok(())
            }
            _ => self.pass_empty(next),
        }
    }

    /// Marks the records of these slices as held, and returns them.
    pub(crate) fn hold_slices(&mut self, slices: RecordSlices) -> Vec<RecordSlice> {
        let RecordSlices { slices, .. } = slices;
        self.holds_delivered = true;
        self.inherits = false;
        self.count_delivered();
        self.delivered.clear();
        for slice in &slices {
            if !self.delivered.last().is_some_and(|last| Arc::ptr_eq(last, &slice.batch.progress)) {
                self.delivered.push(slice.batch.progress.clone());
            }
        }
        self.lent = true;
        slices
    }

    /// Puts unread batches back at the front, in order.
    pub(crate) fn take_back(&mut self, unread: Vec<FetchedBatch>) {
        for batch in unread.into_iter().rev() {
            self.pending.push_front(batch);
        }
    }

    // ---- batches

    /// Takes batches over. `spare` is what [`take_spare`](Self::take_spare) returned, filled.
    pub(crate) fn take_over(&mut self, mut spare: Vec<FetchedBatch>) {
        self.refilled |= !spare.is_empty();
        self.pending.extend(spare.drain(..));
        self.spare = spare;
    }

    /// Returns an empty vector to be filled with batches.
    pub(crate) fn take_spare(&mut self) -> Vec<FetchedBatch> {
        std::mem::take(&mut self.spare)
    }

    /// Returns true if it took batches over since the last call.
    pub(crate) fn take_refilled(&mut self) -> bool {
        std::mem::take(&mut self.refilled)
    }

    /// Returns the number of batches that were taken over and not delivered yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Counts the records that wait for delivery, starting at that batch.
    pub(crate) fn count_pending(&self, from: usize) -> Gathered {
        let mut gathered = Gathered::default();
        let pending = self.pending.iter().skip(from).filter(|batch| !batch.progress.is_withheld());
        pending.for_each(|batch| gathered.add(batch));
        gathered
    }

    /// Keeps only batches that may still be delivered, after partitions were paused, repositioned
    /// or revoked. `may_deliver` returns true if this reader may deliver those of a progress now,
    /// false if later or another reader may, and `None` if no reader may any more. Returns the
    /// batches that go back to the buffer, in order.
    pub(crate) fn withdraw(
        &mut self,
        may_deliver: impl Fn(Option<&SplitId>, &Arc<DeliveryProgress>) -> Option<bool>,
    ) -> Vec<FetchedBatch> {
        let of = self.split.as_ref();
        if self.pending.iter().all(|batch| may_deliver(of, &batch.progress) == Some(true)) {
            return Vec::new();
        }
        let (mut stay, mut back) = (VecDeque::new(), Vec::new());
        for batch in self.pending.drain(..) {
            match may_deliver(of, &batch.progress) {
                Some(true) => stay.push_back(batch),
                Some(false) => back.push(batch),
                None => {}
            }
        }
        self.pending = stay;
        back
    }

    /// Drops the batches of a stopped partition. This comes after the stop, because the memory that
    /// the batches release lets the next fetch start.
    pub(crate) fn drop_pending(&mut self, progress: &Arc<DeliveryProgress>) {
        self.pending.retain(|batch| !Arc::ptr_eq(&batch.progress, progress));
    }

    /// Moves past a batch that has no record to deliver now.
    fn pass_empty(&mut self, next: FetchedBatch) -> Result<(), ReaderNeed> {
        if next.progress.is_withheld() {
            return Ok(());
        }
        let FetchedBatch { progress, end, content, .. } = next;
        match content {
            // The buffer never hands out a batch that is being decompressed.
            BatchContent::Decoded(_) | BatchContent::Skip | BatchContent::Decompressing => {
                self.skip(&progress, end);
                Ok(())
            }
            BatchContent::Encoded(_) => {
                self.pending.push_front(FetchedBatch { progress, end, content, ..next });
                self.decode_front();
                Ok(())
            }
            BatchContent::OutOfRange => Err(ReaderNeed::Reset(progress)),
            BatchContent::LogEnd => {
                let partition = progress.partition();
                let message = format!("{partition}: the reader reached the end at offset {end}");
                let error = Error::new(ErrorKind::EndOfPartition, message);
                Err(ReaderNeed::Report(error.at(partition.topic.clone(), partition.partition, end)))
            }
            BatchContent::Corrupt(error) => {
                let (partition, at) = (progress.partition(), progress.delivered());
                let error = error.context(format_args!("read of {partition} from offset {at}"));
                let error = error.at(partition.topic.clone(), partition.partition, at);
                Err(ReaderNeed::Stop { progress, end, error })
            }
        }
    }

    /// Moves past a range before `end` that has no records to deliver.
    fn skip(&mut self, progress: &Arc<DeliveryProgress>, end: i64) {
        if self.manual_completion {
            return progress.skip_gap(end);
        }
        // Records that a previous reader of the partition still holds are completed with the next
        // record.
        let settled = progress.completed() >= progress.delivered();
        progress.record_delivered(end);
        if settled && !(self.holds_delivered && self.delivered.iter().any(|held| Arc::ptr_eq(held, progress))) {
            progress.complete_delivered();
        }
    }

    /// Decodes the batch at the front. Returns false if it is not an encoded one.
    fn decode_front(&mut self) -> bool {
        if !self.pending.front().is_some_and(|front| matches!(front.content, BatchContent::Encoded(_))) {
            return false;
        }
        let Some(front) = self.pending.pop_front() else { return false };
        let is_compressed =
            matches!(&front.content, BatchContent::Encoded(encoded) if encoded.batch.header.is_compressed());
        let front = front.decoded(&mut self.decompressor, &self.decode_config);
        if is_compressed && let BatchContent::Decoded(decoded) = &front.content {
            let growth = decoded.records.size().div_ceil(front.bytes.max(1)).max(1);
            self.growth = growth.max(self.growth / 8 * 7);
        }
        self.pending.push_front(front);
        true
    }

    /// Returns true if there is room for the batch's decoded size, as far as it can be estimated.
    fn has_room_to_decode(&self, batch: &FetchedBatch) -> bool {
        let BatchContent::Encoded(encoded) = &batch.content else { return true };
        // An uncompressed batch needs no more room.
        !encoded.batch.header.is_compressed()
            || encoded.reservation.quota().has_room_for(batch.bytes.saturating_mul(self.growth))
    }

    // ---- counting

    /// Returns the number of records that were returned so far.
    pub(crate) fn delivered_records(&mut self) -> u64 {
        self.count_delivered();
        self.delivered_records
    }

    /// Adds records to the number of those that were returned.
    pub(crate) fn add_delivered_records(&mut self, given: u64) {
        self.delivered_records += given;
    }

    fn count_delivered(&mut self) {
        count(&self.delivered, &mut self.uncounted_records, &mut self.delivered_records);
    }
}

impl RecordSlices {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds records of a batch, until there are `max`.
    fn add(&mut self, batch: FetchedBatch<DecodedRecords>, max: usize) {
        let slice = RecordSlice { count: batch.content.left.min(max - self.count), batch };
        self.count += slice.count;
        let is_same = |other: &RecordSlice| Arc::ptr_eq(&other.batch.progress, &slice.batch.progress);
        let at = self.slices.iter().rposition(is_same).map_or(self.slices.len(), |last| last + 1);
        self.slices.insert(at, slice);
    }

    /// Returns the last slice of a progress.
    fn last_of(&mut self, progress: &Arc<DeliveryProgress>) -> Option<&mut RecordSlice> {
        self.slices.iter_mut().rev().find(|slice| Arc::ptr_eq(&slice.batch.progress, progress))
    }
}

/// Adds the records of the held progress to the counters all at once, which is cheaper than
/// counting each record.
fn count(held: &[Arc<DeliveryProgress>], uncounted: &mut u64, delivered: &mut u64) {
    let more = std::mem::take(uncounted);
    if let Some(progress) = held.first().filter(|_| more > 0) {
        progress.add_delivered_records(more);
    }
    *delivered += more;
}
