//! One partition's records as a stream of their own, which can go to another task.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use tokio::{
    task::{coop::consume_budget, yield_now},
    time::timeout_at,
};

use crate::consumer::{
    Consumer, Records,
    api::records::UnreadReturn,
    background::shared::{Shared, after},
    buffer::{fetch_buffer::FetchBuffer, record_reader::RecordReader, split::SplitId},
    group::{OwnedPollGuard, PollRecorder},
    lock::lock,
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{ConsumerRecord, TopicPartition},
};

/// After so many records in a row that were there at once, other tasks get a turn.
const BURST: u32 = 128;

impl Consumer {
    /// Splits a partition off: its records come through the stream alone, in order, while
    /// [`recv`](Self::recv), [`poll`](Self::poll) and [`stream`](Self::stream) go on with the
    /// others (librdkafka: `split_partition_queue`). The stream is owned and can move to another
    /// task.
    ///
    /// It begins behind what was handed out before. What the consumer's reader holds of the
    /// partition at this moment counts as in the stream's hand from now on: it is done when the
    /// stream gives its second record. Finish it before, or hand it to the stream's task.
    ///
    /// [`seek`](Self::seek), [`pause`](Self::pause), [`position`](Self::position) and commits work
    /// as before, but [`commit`](Self::commit) takes of partitions that are split off only what is
    /// done; [`PartitionStream::commit`] takes what it has given.
    ///
    /// # Errors
    /// `NotAssigned`; `InvalidArgument` if it is split off already; `Closed`.
    pub fn split_partition(&self, partition: &TopicPartition) -> Result<PartitionStream> {
        self.check_open()?;
        self.split_off(partition)
    }

    fn split_off(&self, partition: &TopicPartition) -> Result<PartitionStream> {
        let (id, reader) = self.shared.buffer.split(partition, false)?;
        Ok(PartitionStream {
            buffer: self.shared.buffer.clone(),
            consumer: Arc::downgrade(&self.shared),
            signs: self.shared.group.as_ref().map(|group| group.poll_recorder()),
            id,
            reader,
            alive: None,
            max_poll_records: self.shared.settings.max_poll_records,
            burst: 0,
            ended: false,
        })
    }
}

impl Consumer {
    /// The next partition that is assigned and not split off, [split off](Self::split_partition);
    /// waits for one as long as it takes. So each partition that the group gives goes to a task of
    /// its own, and each that it takes back ends one. One whose stream was dropped comes again.
    /// `None` once the consumer has ended.
    ///
    /// ```no_run
    /// # async fn example(consumer: ottla::Consumer) {
    /// while let Some(partition) = consumer.next_partition().await {
    ///     let Ok(mut partition) = partition.inspect_err(|error| eprintln!("{error}")) else { continue };
    ///     tokio::spawn(async move {
    ///         while let Some(record) = partition.recv().await {
    ///             match record {
    ///                 Ok(record) => println!("{}: {:?}", partition.partition(), record.value),
    ///                 Err(error) => eprintln!("{}: {error}", partition.partition()),
    ///             }
    ///         }
    ///     });
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// What is in the way of the whole consumer: no broker can be reached, the group cannot be
    /// joined, the membership was lost because nobody asked for records in time. Each is told once,
    /// here or by [`recv`](Self::recv), whichever asks first. The consumer goes on after it; where
    /// only its user could mend it, it tries again when this is called next. A
    /// [fatal](Error::is_fatal) one is the last.
    ///
    /// # Cancel safety
    /// Safe: no partition and no error is lost.
    pub async fn next_partition(&self) -> Option<Result<PartitionStream>> {
        let buffer = &self.shared.buffer;
        let group = self.shared.group.as_ref();
        if let Some(group) = group {
            group.record_poll();
        }
        let mut alive = None;
        loop {
            let mut moved = pin!(buffer.position_waiters.notified());
            // From here on it hears of partitions that come.
            moved.as_mut().enable();
            let (error, next, idle, ended) = buffer.with_state(|assignment| {
                let error = assignment.pop_error();
                (error, assignment.unsplit_partition(), assignment.partitions.is_empty(), assignment.has_ended())
            });
            if let Some(error) = error {
                return Some(Err(error));
            }
            if ended {
                return None;
            }
            match next.map(|partition| self.split_off(&partition)) {
                Some(Ok(stream)) => return Some(Ok(stream)),
                // Taken away meanwhile, or split off by another call: look again.
                Some(Err(_)) => continue,
                None => {}
            }
            // As long as there is nothing to read, this is the sign of life; after that the streams
            // give it. The same one over all turns, so that a member that was put out hears only of
            // a caller that knows why.
            if !idle {
                alive = None;
            } else if alive.is_none() {
                alive = group.map(|group| group.begin_poll());
            }
            moved.await;
        }
    }
}

/// The stream of [`Consumer::split_partition`].
///
/// A record is done when the stream is asked for the next one. While it is not, a group that takes
/// the partition back waits for it, for `max.poll.interval.ms` at most, and nothing commits it but
/// [`commit`](Self::commit).
///
/// # When it ends
/// When the group takes the partition back, or it is lost, assigned anew or unsubscribed from, and
/// when the consumer ends or is dropped: then it gives `None`. A partition that comes back later is
/// not split off.
///
/// # When it is dropped
/// The partition goes back to the consumer's reader, which goes on behind the last record that the
/// stream gave. That record is not done, unless the stream was asked for another one: it is
/// committed together with a later one of its partition, and comes again if none does. To say that
/// it is done, [`commit`](Self::commit) before.
///
/// # When its reader hangs
/// `max.poll.interval.ms` is about the consumer as a whole, as in Java: as long as any of its
/// readers asks for records or waits for them, the consumer counts as alive. So a stream that holds
/// a record and does not come back for the next one keeps its partition, while others go on; only
/// when the group wants to take it back, its time is up after `max.poll.interval.ms`.
/// [`Consumer::status`] shows such a partition. A [`Worker`](crate::Worker) looks after each of its
/// handlers by itself.
///
/// # When it is not read
/// It holds nobody up: its partition is fetched up to twice `max.partition.fetch.bytes` ahead, and
/// where those bytes are needed by others they are dropped and fetched anew.
#[must_use = "streams do nothing unless polled"]
pub struct PartitionStream {
    buffer: Arc<FetchBuffer>,
    /// Not kept alive by it.
    consumer: Weak<Shared>,
    signs: Option<PollRecorder>,
    id: SplitId,
    reader: Arc<Mutex<RecordReader>>,
    /// While a record is waited for.
    alive: Option<OwnedPollGuard>,
    max_poll_records: usize,
    burst: u32,
    ended: bool,
}

impl PartitionStream {
    /// The partition that it reads.
    pub fn partition(&self) -> &TopicPartition {
        &self.id.partition
    }

    /// The next record; waits for it as long as it takes. `None` at the end: see [when it
    /// ends](Self#when-it-ends).
    ///
    /// # Errors
    /// As [`Consumer::recv`], where they are about this partition. What is in the way of all (no
    /// broker can be reached, a group that cannot be joined) is told by [`Consumer::recv`] and
    /// [`Consumer::next_partition`].
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The record before it is done as soon as this is called.
    pub async fn recv(&mut self) -> Option<Result<ConsumerRecord>> {
        consume_budget().await;
        if self.ended {
            return None;
        }
        let (mut asked, mut alive) = (false, None);
        let next = poll_fn(|cx| {
            let next = if std::mem::replace(&mut asked, true) {
                lock(&self.reader).poll_record(&self.buffer, cx)
            } else {
                self.poll_next_record(cx)
            };
            if next.is_pending() && alive.is_none() {
                alive = self.signs.as_ref().map(PollRecorder::begin_poll);
            }
            next
        });
        let next = next.await;
        self.ended = next.is_none();
        next
    }

    /// The next records, at most `max.poll.records`; waits for the first of them until the time is
    /// up, and is then empty. They borrow from the batches that they came in, and what is not
    /// iterated comes again: all as with [`Consumer::poll`]. `None` at the end.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); `InvalidArgument` while the records of the last poll are held.
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The records before are done as soon as this is called.
    pub async fn poll(&mut self, timeout: Duration) -> Option<Result<Records>> {
        consume_budget().await;
        let _alive = match self.begin_poll().await? {
            Ok(alive) => alive,
            Err(error) => return Some(Err(error)),
        };
        let next = poll_fn(|cx| lock(&self.reader).poll_slices(self.max_poll_records, &self.buffer, cx));
        // A time that is up already still takes what is there.
        let Ok(next) = timeout_at(after(timeout), next).await else { return Some(Ok(Records::empty())) };
        self.ended = next.is_none();
        next.map(|portions| portions.map(|portions| Records::new(portions, self.unread_return())))
    }

    /// It asks for more than one record, and is done with what it gave before. Counts as waiting
    /// while the result is held. `None` at the end.
    pub(crate) async fn begin_poll(&self) -> Option<Result<Option<OwnedPollGuard>>> {
        if self.ended {
            return None;
        }
        let alive = self.signs.as_ref().map(PollRecorder::begin_poll);
        if let Err(error) = self.next().map(drop) {
            return Some(Err(error));
        }
        self.buffer.notify_completed();
        if self.buffer.should_yield(&self.reader) {
            yield_now().await;
        }
        Some(Ok(alive))
    }

    pub(crate) fn source(&self) -> (&FetchBuffer, &Mutex<RecordReader>) {
        (&self.buffer, &self.reader)
    }

    /// Where records go back to that are not iterated.
    pub(crate) fn unread_return(&self) -> UnreadReturn {
        UnreadReturn::Split(self.buffer.clone(), self.reader.clone())
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// It is done with what it gave before.
    fn next(&self) -> Result<MutexGuard<'_, RecordReader>> {
        let mut reader = lock(&self.reader);
        if reader.lent {
            let message = format!("{}: the records of the last poll are still held", self.id.partition);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        reader.complete_delivered();
        Ok(reader)
    }

    /// The same, and the next record if it is there: both under one lock.
    fn poll_next_record(&self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumerRecord>>> {
        if let Some(signs) = &self.signs {
            signs.record_poll();
        }
        let next = match self.next() {
            Ok(mut reader) => reader.poll_record(&self.buffer, cx),
            Err(error) => Poll::Ready(Some(Err(error))),
        };
        self.buffer.notify_completed();
        next
    }

    /// Commits the position behind the last record that it gave: whoever calls this says that it is
    /// finished. Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// As [`Consumer::commit`]; `NotAssigned` once the partition was taken away.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up: the offset may or may not be committed.
    pub async fn commit(&self) -> Result<()> {
        let shared =
            self.consumer.upgrade().ok_or_else(|| Error::new(ErrorKind::Closed, "the consumer was dropped"))?;
        if self.buffer.with_state(|assignment| assignment.has_ended()) {
            return Err(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
        if !self.buffer.with_state(|assignment| assignment.is_split(&self.id)) {
            let message = format!("{} was taken away from this consumer", self.id.partition);
            return Err(Error::new(ErrorKind::NotAssigned, message));
        }
        shared.commit_position(Some(std::slice::from_ref(&self.id.partition))).await
    }
}

impl Stream for PartitionStream {
    type Item = Result<ConsumerRecord>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.burst >= BURST {
            this.burst = 0;
            let done = this.next().map(drop);
            this.buffer.notify_completed();
            if let Err(error) = done {
                return Poll::Ready(Some(Err(error)));
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.burst += 1;
        let next = this.poll_next_record(cx);
        match &next {
            Poll::Pending => {
                this.burst = 0;
                if this.alive.is_none() {
                    this.alive = this.signs.as_ref().map(PollRecorder::begin_poll);
                }
            }
            Poll::Ready(record) => {
                this.alive = None;
                this.ended = record.is_none();
            }
        }
        next
    }
}

impl Drop for PartitionStream {
    fn drop(&mut self) {
        self.buffer.join_split(&self.id, &self.reader);
    }
}

impl fmt::Debug for PartitionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partition = &self.id.partition;
        f.debug_struct("PartitionStream")
            .field("partition", partition)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
