//! Reading: calls a reader, and meets its needs from the consumer's state until there is something
//! to return.
//!
//! A reader's lock is taken for each record that `recv` returns. Others take it only briefly (for a
//! seek or a rebalance). It is taken before the lock of `ConsumerState`, never inside it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use crate::consumer::{
    buffer::{
        fetch_buffer::FetchBuffer,
        gathered::Gathered,
        record_reader::{ReaderNeed, RecordReader, RecordSlice, RecordSlices},
    },
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{
    error::{Error, Result},
    record::ConsumerRecord,
};

/// Result of an attempt to meet a reader's need.
enum Met {
    /// The reader can go on.
    Yes,
    /// There are no batches now; a waiting reader is woken when there are.
    NotYet,
    /// There will be no more batches.
    Ended,
    Error(Error),
}

impl FetchBuffer {
    /// Returns the next record, which shares the bytes of its batch. `None` at the end.
    pub(crate) fn poll_record(
        &self,
        reader: &mut RecordReader,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumerRecord>>> {
        loop {
            let need = match reader.next_record() {
                Ok(record) => return Poll::Ready(Some(Ok(record))),
                Err(need) => need,
            };
            match self.meet(need, reader, Some(cx)) {
                Met::Yes => {}
                Met::NotYet => return Poll::Pending,
                Met::Ended => return Poll::Ready(None),
                Met::Error(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Waits for one record, then returns up to `max` records and about `bytes` bytes that are
    /// already available, all of one progress. `None` at the end.
    pub(crate) fn poll_owned(
        &self,
        reader: &mut RecordReader,
        max: usize,
        bytes: usize,
        cx: &mut Context<'_>,
        out: &mut Vec<ConsumerRecord>,
    ) -> Poll<Option<Result<Arc<DeliveryProgress>>>> {
        let first = match self.poll_record(reader, cx) {
            Poll::Ready(Some(Ok(record))) => record,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let mut left = bytes.saturating_sub(first.size());
        out.push(first);
        while let Err(need) = reader.take_same_progress(max, &mut left, out)
            && matches!(self.meet(need, reader, None), Met::Yes)
        {}
        Poll::Ready(reader.last_progress().cloned().map(Ok))
    }

    /// Returns up to `max` records, as long as there is room for their decompressed size, but at
    /// least those of one batch. The slices of one partition are adjacent and in order. `None` at
    /// the end.
    pub(crate) fn poll_slices(
        &self,
        reader: &mut RecordReader,
        max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Vec<RecordSlice>>>> {
        let mut slices = RecordSlices::default();
        while let Err(need) = reader.collect_slices(max, &mut slices) {
            let waiting = slices.is_empty().then_some(&mut *cx);
            match self.meet(need, reader, waiting) {
                Met::Yes => {}
                Met::NotYet if slices.is_empty() => return Poll::Pending,
                Met::NotYet => break,
                Met::Ended => return Poll::Ready(None),
                Met::Error(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(Some(Ok(reader.hold_slices(slices))))
    }

    /// Takes over batches until there are `records` records, but delivers none: they stay with the
    /// reader for the next call, whichever it is. Ready earlier if more batches would not help, see
    /// [`Gathered::is_enough`]. `None` at the end.
    pub(crate) fn poll_full_batch(
        &self,
        reader: &mut RecordReader,
        records: usize,
        gathered: &mut Option<Gathered>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<()>>> {
        let mut known = gathered.take().unwrap_or_else(|| reader.count_pending(0));
        loop {
            if known.is_enough(records) {
                // Some records may have been withdrawn meanwhile (by a seek or the group).
                known = reader.count_pending(0);
                if known.is_enough(records) {
                    return Poll::Ready(Some(Ok(())));
                }
            }
            let before = reader.pending();
            match self.refill(known.missing(records), reader, Some(&mut *cx)) {
                Met::Yes => known.merge(reader.count_pending(before)),
                Met::Ended => return Poll::Ready(None),
                Met::Error(error) => return Poll::Ready(Some(Err(error))),
                Met::NotYet => {
                    *gathered = Some(known);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Does what a reader needs to go on. A reader that waits gives its context.
    fn meet(&self, need: ReaderNeed, reader: &mut RecordReader, waiting: Option<&mut Context<'_>>) -> Met {
        match need {
            ReaderNeed::Batches(records) => self.refill(records, reader, waiting),
            ReaderNeed::Reset(progress) => {
                self.with_state(|state| state.handle_out_of_range(&progress));
                Met::Yes
            }
            ReaderNeed::Stop { progress, end, error } => {
                self.with_state(|state| state.stop_at_corruption(&progress, end));
                Met::Error(error)
            }
            ReaderNeed::Report(error) => Met::Error(error),
        }
    }

    /// Gives the reader the available batches. Returns errors and the end only if the reader waits.
    /// Without batches, a waiting reader is registered to be woken.
    fn refill(&self, records: usize, reader: &mut RecordReader, waiting: Option<&mut Context<'_>>) -> Met {
        let mut batches = reader.take_spare();
        let of = reader.split();
        let met = self.with_state(|state| {
            if waiting.is_some()
                && let Some(error) = state.readers.pop_error_for(of)
            {
                return Met::Error(error);
            }
            state.collect_for(of, records, &mut batches);
            match waiting {
                _ if !batches.is_empty() => Met::Yes,
                Some(_) if state.has_ended_for(of) => Met::Ended,
                Some(cx) => {
                    state.register_waker_for(of, cx.waker());
                    Met::NotYet
                }
                None => Met::NotYet,
            }
        });
        if matches!(met, Met::Ended) {
            reader.ended();
        }
        reader.take_over(batches);
        met
    }
}
