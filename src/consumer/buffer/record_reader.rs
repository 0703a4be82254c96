//! The reader's side: the batches that it took over, the records that it holds, and their
//! completion.
//!
//! There is one common reader at a time, beside those of partitions that are split off. Its lock is
//! taken for each record that `recv` returns. Others take the lock only briefly (for a seek or a
//! rebalance). It is taken before the lock of `ConsumerState`, never inside it.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use crate::consumer::buffer::owned_record::owned_record;
use crate::consumer::{
    buffer::{
        decoded_batch::{DecodeConfig, DecodedBatch},
        fetch_buffer::FetchBuffer,
        gathered::Gathered,
        partition_buffer::{CollectedItem, GROWTH},
        split::SplitId,
    },
    state::ConsumerState,
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{ConsumerRecord, TopicPartition},
    wire::batch::Decompressor,
};

/// A batch of which `count` records are delivered at once.
#[derive(Debug)]
pub(crate) struct RecordSlice {
    pub(crate) batch: DecodedBatch,
    pub(crate) count: usize,
}

/// Result of taking batches from the consumer's state.
enum Refill {
    Some,
    Error(Error),
    Ended,
    Nothing,
}

#[derive(Debug)]
pub(crate) struct RecordReader {
    /// The partition that it reads; `None` for the common reader of all partitions that are not
    /// split off.
    split: Option<SplitId>,
    /// Entries that were taken over and not delivered yet.
    pending: VecDeque<CollectedItem>,
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
    taken: Vec<CollectedItem>,
    decompressor: Decompressor,
    decode_config: DecodeConfig,
}

impl RecordReader {
    pub(crate) fn new(opening: DecodeConfig, of: Option<SplitId>) -> Self {
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
            taken: Vec::new(),
            decompressor: Decompressor::default(),
            decode_config: opening,
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
        count(&self.delivered, &mut self.uncounted_records, &mut self.delivered_records);
        self.delivered.retain(|progress| progress.partition() != partition);
    }

    /// Returns the next record, which shares the bytes of its batch. `None` at the end.
    pub(crate) fn poll_record(
        &mut self,
        buffer: &FetchBuffer,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumerRecord>>> {
        loop {
            if let Some(record) = self.next_decoded() {
                return Poll::Ready(Some(Ok(record)));
            }
            if let Some(next) = self.pending.pop_front() {
                if let Some(error) = self.pass_empty(next, buffer) {
                    return Poll::Ready(Some(Err(error)));
                }
                continue;
            }
            match self.refill(1, buffer, Some(cx)) {
                Refill::Some => {}
                Refill::Error(error) => return Poll::Ready(Some(Err(error))),
                Refill::Ended => return Poll::Ready(None),
                Refill::Nothing => return Poll::Pending,
            }
        }
    }

    /// Returns the next record of the batch at the front, if that is decoded and has one.
    fn next_decoded(&mut self) -> Option<ConsumerRecord> {
        let Some(CollectedItem::Decoded(part)) = self.pending.front_mut() else { return None };
        if part.left == 0 || part.progress.is_withheld() {
            return None;
        }
        let mut iter = part.iter();
        match iter.next() {
            Some(Ok(view)) => {
                let record = owned_record(part, &view);
                part.position = iter.position();
                part.left -= 1;
                part.progress.record_delivered(record.offset + 1);
                self.holds_delivered = true;
                self.inherits = false;
                if !matches!(&self.delivered[..], [held] if Arc::ptr_eq(held, &part.progress)) {
                    count(&self.delivered, &mut self.uncounted_records, &mut self.delivered_records);
                    self.delivered.clear();
                    self.delivered.push(part.progress.clone());
                }
                self.uncounted_records += 1;
                Some(record)
            }
            Some(Err(error)) => {
                let (progress, end) = (part.progress.clone(), part.end);
                self.pending.pop_front();
                self.pending.push_front(CollectedItem::Corrupt { progress, error, end });
                None
            }
            None => {
                part.left = 0;
                None
            }
        }
    }

    /// Waits for one record, then returns up to `max` records and about `bytes` bytes that are
    /// already available, all of one progress. `None` at the end.
    pub(crate) fn poll_owned(
        &mut self,
        max: usize,
        bytes: usize,
        buffer: &FetchBuffer,
        cx: &mut Context<'_>,
        out: &mut Vec<ConsumerRecord>,
    ) -> Poll<Option<Result<Arc<DeliveryProgress>>>> {
        let first = match self.poll_record(buffer, cx) {
            Poll::Ready(Some(Ok(record))) => record,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let Some(progress) = self.delivered.last().cloned() else { return Poll::Ready(None) };
        let mut left = bytes.saturating_sub(first.size());
        out.push(first);
        while out.len() < max && left > 0 {
            match self.pending.front().map(|next| Arc::ptr_eq(next.progress(), &progress)) {
                None if matches!(self.refill(max - out.len(), buffer, None), Refill::Some) => continue,
                Some(true) => {}
                _ => break,
            }
            if let Some(record) = self.next_decoded() {
                left = left.saturating_sub(record.size());
                out.push(record);
                continue;
            }
            // Entries without records, and errors, come with the next call.
            if !matches!(self.pending.front(), Some(CollectedItem::Fetched { .. })) {
                break;
            }
            if let Some(next) = self.pending.pop_front() {
                let opened = self.decode(next);
                self.pending.push_front(opened);
            }
        }
        Poll::Ready(Some(Ok(progress)))
    }

    /// Returns up to `max` records, as long as there is room for their decompressed size, but at
    /// least those of one batch. The slices of one partition are adjacent and in order. `None` at
    /// the end.
    pub(crate) fn poll_slices(
        &mut self,
        max: usize,
        buffer: &FetchBuffer,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Vec<RecordSlice>>>> {
        let mut portions: Vec<RecordSlice> = Vec::new();
        let mut count = 0;
        loop {
            while count < max
                && let Some(next) = self.pending.pop_front()
            {
                match next {
                    next if next.progress().is_withheld() => {}
                    CollectedItem::Decoded(part) if part.left > 0 => {
                        let portion = RecordSlice { count: part.left.min(max - count), batch: part };
                        count += portion.count;
                        let same = |other: &RecordSlice| Arc::ptr_eq(&other.batch.progress, &portion.batch.progress);
                        let at = portions.iter().rposition(same).map_or(portions.len(), |last| last + 1);
                        portions.insert(at, portion);
                    }
                    // The next poll decodes it, when these records are done.
                    next @ CollectedItem::Fetched { .. } if count > 0 && !self.has_room_to_decode(&next) => {
                        self.pending.push_front(next);
                        return self.hold_slices(portions);
                    }
                    CollectedItem::Fetched { .. } => {
                        let opened = self.decode(next);
                        self.pending.push_front(opened);
                    }
                    // A skipped range belongs to the records before it.
                    CollectedItem::Skip { progress, end } if count > 0 => {
                        match portions.iter_mut().rev().find(|portion| Arc::ptr_eq(&portion.batch.progress, &progress))
                        {
                            Some(portion) => portion.batch.end = end,
                            None => self.skip(&progress, end),
                        }
                    }
                    // Errors and log ends are reported after the records before them.
                    trouble @ (CollectedItem::Corrupt { .. }
                    | CollectedItem::OutOfRange { .. }
                    | CollectedItem::End { .. })
                        if count > 0 =>
                    {
                        self.pending.push_front(trouble);
                        return self.hold_slices(portions);
                    }
                    next => {
                        if let Some(error) = self.pass_empty(next, buffer) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
            }
            if count >= max {
                return self.hold_slices(portions);
            }
            let waiting = if count == 0 { Some(&mut *cx) } else { None };
            match self.refill(max - count, buffer, waiting) {
                Refill::Some => {}
                Refill::Error(error) => return Poll::Ready(Some(Err(error))),
                Refill::Ended => return Poll::Ready(None),
                Refill::Nothing if count == 0 => return Poll::Pending,
                Refill::Nothing => return self.hold_slices(portions),
            }
        }
    }

    /// Takes over batches until there are `records` records, but delivers none: they stay with the
    /// reader for the next call, whichever it is. Ready earlier if more batches would not help, see
    /// [`Gathered::is_enough`]. `None` at the end.
    pub(crate) fn poll_full_batch(
        &mut self,
        records: usize,
        gathered: &mut Option<Gathered>,
        buffer: &FetchBuffer,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<()>>> {
        let mut known = match gathered.take() {
            Some(known) => known,
            None => self.count_pending(0),
        };
        loop {
            if known.is_enough(records) {
                // Some records may have been withdrawn meanwhile (by a seek or the group).
                known = self.count_pending(0);
                if known.is_enough(records) {
                    return Poll::Ready(Some(Ok(())));
                }
            }
            let before = self.pending.len();
            match self.refill(known.missing(records), buffer, Some(&mut *cx)) {
                Refill::Some => known.merge(self.count_pending(before)),
                Refill::Error(error) => return Poll::Ready(Some(Err(error))),
                Refill::Ended => return Poll::Ready(None),
                Refill::Nothing => {
                    *gathered = Some(known);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Counts the records that wait for delivery, starting at that entry.
    fn count_pending(&self, from: usize) -> Gathered {
        let mut gathered = Gathered::default();
        self.pending
            .iter()
            .skip(from)
            .filter(|pending| !pending.progress().is_withheld())
            .for_each(|pending| gathered.add(pending));
        gathered
    }

    /// Marks the records of these slices as held.
    fn hold_slices(&mut self, portions: Vec<RecordSlice>) -> Poll<Option<Result<Vec<RecordSlice>>>> {
        self.holds_delivered = true;
        self.inherits = false;
        count(&self.delivered, &mut self.uncounted_records, &mut self.delivered_records);
        self.delivered.clear();
        for portion in &portions {
            if !self.delivered.last().is_some_and(|last| Arc::ptr_eq(last, &portion.batch.progress)) {
                self.delivered.push(portion.batch.progress.clone());
            }
        }
        self.lent = true;
        Poll::Ready(Some(Ok(portions)))
    }

    /// Moves past an entry without records, and returns its error if it is one.
    fn pass_empty(&mut self, next: CollectedItem, buffer: &FetchBuffer) -> Option<Error> {
        if next.progress().is_withheld() {
            return None;
        }
        match next {
            CollectedItem::Decoded(DecodedBatch { progress, end, .. }) | CollectedItem::Skip { progress, end } => {
                self.skip(&progress, end)
            }
            next @ CollectedItem::Fetched { .. } => {
                let opened = self.decode(next);
                self.pending.push_front(opened);
            }
            CollectedItem::OutOfRange { progress } => {
                buffer.with_state(|assignment| assignment.handle_out_of_range(&progress));
            }
            CollectedItem::End { progress, at } => {
                let partition = progress.partition();
                let message = format!("{partition}: the reader reached the end at offset {at}");
                let error = Error::new(ErrorKind::EndOfPartition, message);
                return Some(error.at(partition.topic.clone(), partition.partition, at));
            }
            CollectedItem::Corrupt { progress, error, end } => {
                buffer.with_state(|assignment| assignment.stop_at_corruption(&progress, end));
                self.pending.retain(|pending| !Arc::ptr_eq(pending.progress(), &progress));
                let at = progress.delivered();
                let partition = progress.partition();
                let error = error.context(format_args!("read of {partition} from offset {at}"));
                return Some(error.at(partition.topic.clone(), partition.partition, at));
            }
        }
        None
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

    /// Takes over the available batches. Returns errors and the end only if the reader waits.
    /// Without batches, a waiting reader is registered to be woken.
    fn refill(&mut self, records: usize, buffer: &FetchBuffer, waiting: Option<&mut Context<'_>>) -> Refill {
        let mut taken = std::mem::take(&mut self.taken);
        let refill = buffer.with_state(|assignment| {
            if waiting.is_some()
                && let Some(error) = assignment.readers.pop_error_for(self.split.as_ref())
            {
                return Refill::Error(error);
            }
            assignment.collect_for(self.split.as_ref(), records, &mut taken);
            match waiting {
                _ if !taken.is_empty() => Refill::Some,
                Some(_) if assignment.has_ended_for(self.split.as_ref()) => {
                    self.inherits = false;
                    Refill::Ended
                }
                Some(cx) => {
                    assignment.register_waker_for(self.split.as_ref(), cx.waker());
                    Refill::Nothing
                }
                None => Refill::Nothing,
            }
        });
        self.refilled |= !taken.is_empty();
        self.pending.extend(taken.drain(..));
        self.taken = taken;
        refill
    }

    /// Checks and decompresses a fetched batch; returns other entries unchanged.
    fn decode(&mut self, taken: CollectedItem) -> CollectedItem {
        let CollectedItem::Fetched { progress, batch, reservation, start, end } = taken else { return taken };
        match DecodedBatch::decode(
            &progress,
            &batch,
            start..end,
            reservation,
            &mut self.decompressor,
            &self.decode_config,
        ) {
            Ok(Some(part)) => {
                if batch.header.is_compressed() {
                    let growth = part.records.size().div_ceil(part.bytes.max(1)).max(1);
                    self.growth = growth.max(self.growth / 8 * 7);
                }
                CollectedItem::Decoded(part)
            }
            Ok(None) => CollectedItem::Skip { progress, end },
            Err(error) => CollectedItem::Corrupt { progress, error, end },
        }
    }

    /// Returns true if there is room for the entry's decoded size, as far as it can be estimated.
    fn has_room_to_decode(&self, taken: &CollectedItem) -> bool {
        let CollectedItem::Fetched { batch, reservation, .. } = taken else { return true };
        let bytes = batch.bytes().len().saturating_mul(self.growth);
        // An uncompressed batch needs no more room.
        !batch.header.is_compressed() || reservation.quota().has_room_for(bytes)
    }

    /// Returns true if it took batches over since the last call.
    pub(crate) fn take_refilled(&mut self) -> bool {
        std::mem::take(&mut self.refilled)
    }

    /// Returns the number of records that were returned so far.
    pub(crate) fn delivered_records(&mut self) -> u64 {
        count(&self.delivered, &mut self.uncounted_records, &mut self.delivered_records);
        self.delivered_records
    }

    /// Adds records to the number of those that were returned.
    pub(crate) fn add_delivered_records(&mut self, given: u64) {
        self.delivered_records += given;
    }

    /// Puts unread slices back at the front, in order.
    pub(crate) fn take_back(&mut self, unread: Vec<CollectedItem>) {
        for taken in unread.into_iter().rev() {
            self.pending.push_front(taken);
        }
    }

    /// Keeps only entries that may still be delivered, after partitions were paused, repositioned
    /// or revoked. Entries of paused partitions, and those that another reader now delivers, return
    /// to the buffer.
    pub(crate) fn reconcile(&mut self, assignment: &mut ConsumerState) {
        let of = self.split.as_ref();
        let all_stay =
            self.pending.iter().all(|pending| assignment.is_deliverable_by(of, pending.progress()) == Some(true));
        if all_stay {
            return;
        }
        let (mut stay, mut back) = (VecDeque::new(), Vec::new());
        for pending in self.pending.drain(..) {
            match assignment.is_deliverable_by(of, pending.progress()) {
                Some(true) => stay.push_back(pending),
                Some(false) => back.push(pending),
                None => {}
            }
        }
        self.pending = stay;
        for pending in back.into_iter().rev() {
            assignment.return_unread(pending);
        }
    }
}

/// Adds the records of the held progress to the counters all at once, which is cheaper than
/// counting each record.
fn count(held: &[Arc<DeliveryProgress>], uncounted: &mut u64, given: &mut u64) {
    let more = std::mem::take(uncounted);
    if let Some(progress) = held.first().filter(|_| more > 0) {
        progress.add_delivered_records(more);
    }
    *given += more;
}
