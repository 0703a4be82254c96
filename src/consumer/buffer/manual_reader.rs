//! Readers for a program that works on many records at once and completes them explicitly: the
//! worker.
//!
//! A record is done when its mark says so, and not when the next one is asked for. Everything else
//! is as with partitions that are split off: the order, commits of what is done, revocations that
//! wait for records that are held.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, Instant},
};

use crate::consumer::buffer::partition_end::PartitionEnd;
use crate::consumer::{
    Consumer, OffsetAndMetadata,
    buffer::{
        fetch_buffer::{FetchBuffer, OwnedReadGuard},
        record_reader::RecordReader,
        split::SplitId,
    },
    group::OwnedPollGuard,
    lock::lock,
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{
    error::{Error, Result},
    log::Origin,
    record::{ConsumerRecord, TopicPartition},
};

/// Exclusive right to read a consumer with manual completion, until it is dropped.
#[derive(Debug)]
pub(crate) struct ManualReader {
    consumer: Consumer,
    _one_reader: Option<OwnedReadGuard>,
    /// While it is set, the reader counts as polling.
    poll_guard: Option<OwnedPollGuard>,
}

/// Events for the owner of a manual reader.
#[derive(Debug)]
pub(crate) enum ManualReaderEvent {
    /// A partition that is assigned from now on.
    Partition(ManualPartitionReader),
    /// An error that affects all partitions; the consumer continues.
    Error(Error),
    /// The consumer was closed, or ended with this error.
    Ended(Option<Error>),
}

impl Consumer {
    /// Returns `max.poll.interval.ms`, if there is a group.
    pub(crate) fn max_poll_interval(&self) -> Option<Duration> {
        self.shared.group.is_some().then_some(self.shared.settings.max_poll_interval)
    }

    /// Returns the consumer's name in log lines.
    pub(crate) fn origin(&self) -> &Origin {
        self.shared.client.origin()
    }

    pub(crate) fn group_id(&self) -> Option<Arc<str>> {
        self.shared.settings.group_id.clone()
    }
}

impl ManualReader {
    /// Becomes the one reader of a consumer. `busy_since` returns the time at which the reader
    /// began the record that it has worked on for longest: `max.poll.interval.ms` counts from then.
    ///
    /// # Errors
    /// `InvalidArgument` while another call reads.
    pub(crate) fn new(
        consumer: Consumer,
        busy_since: impl Fn() -> Option<Instant> + Send + Sync + 'static,
    ) -> Result<Self> {
        consumer.check_open()?;
        let one_reader = consumer.shared.buffer.start_reading()?.into_owned_guard();
        if let Some(group) = &consumer.shared.group {
            group.set_busy_since(busy_since);
        }
        let mut reader = Self { consumer, _one_reader: one_reader, poll_guard: None };
        reader.recover();
        Ok(reader)
    }

    /// Declares the reader alive, so that a member that was removed for not polling may join again.
    pub(crate) fn recover(&mut self) {
        self.poll_guard = None;
        self.poll_guard = self.consumer.shared.group.as_ref().map(|group| group.poll_recorder().begin_poll());
    }

    /// Waits for the next event, without a limit.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub(crate) async fn next(&self) -> ManualReaderEvent {
        let buffer = &self.consumer.shared.buffer;
        loop {
            let mut moved = pin!(buffer.position_waiters.notified());
            // Registers before the state is read, so that no partition that arrives afterwards is
            // missed.
            moved.as_mut().enable();
            let state = poll_fn(|cx| {
                let state = buffer.with_state(|state| {
                    if state.readers.has_ended() {
                        // The last error is the reason for the end.
                        let last = std::iter::from_fn(|| state.readers.pop_error()).last();
                        return Some(NextEvent::Event(ManualReaderEvent::Ended(last)));
                    }
                    if let Some(error) = state.readers.pop_error() {
                        return Some(NextEvent::Event(ManualReaderEvent::Error(error)));
                    }
                    let new = state.unsplit_partition().map(NextEvent::New);
                    if new.is_none() {
                        state.register_waker(cx.waker());
                    }
                    new
                });
                if let Some(state) = state {
                    return Poll::Ready(Some(state));
                }
                moved.as_mut().poll(cx).map(|()| None)
            });
            match state.await {
                Some(NextEvent::Event(event)) => return event,
                Some(NextEvent::New(partition)) => {
                    // An error here means that the partition was revoked meanwhile, which needs no
                    // report: look again.
                    if let Ok((id, reader)) = buffer.split(&partition, true) {
                        return ManualReaderEvent::Partition(ManualPartitionReader {
                            buffer: buffer.clone(),
                            id,
                            reader,
                        });
                    }
                }
                None => {}
            }
        }
    }
}

enum NextEvent {
    Event(ManualReaderEvent),
    New(TopicPartition),
}

/// One partition, read with manual completion. Dropping it releases the records that are not done,
/// and the group may revoke the partition.
#[derive(Debug)]
pub(crate) struct ManualPartitionReader {
    buffer: Arc<FetchBuffer>,
    id: SplitId,
    reader: Arc<Mutex<RecordReader>>,
}

impl ManualPartitionReader {
    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.id.partition
    }

    /// Waits for one record, then returns up to `max` records and about `bytes` bytes that are
    /// already available. `None` once the partition is no longer read.
    ///
    /// # Errors
    /// Those of [`PartitionStream::recv`](crate::consumer::PartitionStream::recv).
    ///
    /// # Cancel safety
    /// Safe: no record is lost.
    pub(crate) async fn receive(
        &self,
        max: usize,
        bytes: usize,
        out: &mut Vec<ConsumerRecord>,
    ) -> Option<Result<CompletionMark>> {
        let progress = poll_fn(|cx| self.buffer.poll_owned(&mut lock(&self.reader), max, bytes, cx, out)).await?;
        Some(progress.map(CompletionMark))
    }

    /// Waits until the partition must be given up, or is gone.
    pub(crate) async fn ended(&self) -> PartitionEnd {
        self.until(|ending| ending.is_some()).await.unwrap_or(PartitionEnd::Gone)
    }

    /// Waits until the partition is gone.
    pub(crate) async fn gone(&self) {
        self.until(|ending| ending == Some(PartitionEnd::Gone)).await;
    }

    async fn until(&self, wanted: impl Fn(Option<PartitionEnd>) -> bool) -> Option<PartitionEnd> {
        loop {
            let mut moved = pin!(self.buffer.position_waiters.notified());
            moved.as_mut().enable();
            let ending = self.buffer.with_state(|state| state.partition_end(&self.id));
            if wanted(ending) {
                return ending;
            }
            moved.await;
        }
    }
}

impl Drop for ManualPartitionReader {
    fn drop(&mut self) {
        self.buffer.join_split(&self.id, &self.reader);
    }
}

/// Completes records that were received together.
#[derive(Clone, Debug)]
pub(crate) struct CompletionMark(Arc<DeliveryProgress>);

impl CompletionMark {
    /// Marks all records before this offset as done.
    pub(crate) fn complete_to(&self, next: i64) {
        self.0.complete_to(next);
    }

    /// Returns the offset to commit when all records before `next` are done. It lies behind offsets
    /// without a record that follow them, such as the marks at the end of transactions.
    pub(crate) fn to_commit(&self, next: i64) -> OffsetAndMetadata {
        self.0.to_commit(self.0.behind_gap(next))
    }

    /// Returns true if both marks belong to the same delivery progress.
    pub(crate) fn is_same_progress(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns true if its records are no longer wanted: the partition was sought or revoked.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_superseded()
    }
}
