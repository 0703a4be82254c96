//! One partition's records as a stream of their own, which can move to another task.

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

/// Number of records returned in a row without waiting after which other tasks get a turn.
const BURST: u32 = 128;

impl Consumer {
    /// Splits a partition off: its records are returned by the stream alone, in order, while
    /// [`recv`](Self::recv), [`poll`](Self::poll) and [`stream`](Self::stream) continue with the
    /// others (librdkafka: `split_partition_queue`). The stream is owned and can move to another
    /// task.
    ///
    /// The stream begins after the last record that was delivered before. Records of the partition
    /// that the consumer's reader holds at this moment count as held by the stream from now on:
    /// they are done when the stream is asked for its second record. Finish them before that, or
    /// pass them to the stream's task.
    ///
    /// [`seek`](Self::seek), [`pause`](Self::pause), [`position`](Self::position) and commits work
    /// as before, but for partitions that are split off [`commit`](Self::commit) covers only what
    /// is done; [`PartitionStream::commit`] covers what the stream has returned.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// let mut stream = consumer.split_partition(&orders)?;
    /// let reader = tokio::spawn(async move {
    ///     while let Some(record) = stream.recv().await.transpose()? {
    ///         println!("{}: {:?}", record.offset, record.value);
    ///     }
    ///     Ok::<_, ottla::Error>(())
    /// });
    /// // … read the other partitions with `consumer.recv()` …
    /// consumer.close(Duration::from_secs(10)).await?; // ends the stream
    ///     
    /// # reader.await.expect("the reader does not panic")?;
    /// # Ok(()) }
    /// ```
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
    /// Returns the next partition that is assigned and not split off, after [splitting it
    /// off](Self::split_partition); waits for one without a limit. With this each partition that
    /// the group assigns gets a task of its own, which ends when the partition is revoked. A
    /// partition is returned again after its stream was dropped. `None` once the consumer has
    /// ended.
    ///
    /// ```no_run
    /// # async fn example(consumer: ottla::Consumer) {
    /// while let Some(partition) = consumer.next_partition().await {
    ///     let Ok(mut partition) = partition.inspect_err(|error| eprintln!("{error}"))
    ///     else {
    ///         continue;
    ///     };
    ///     tokio::spawn(async move {
    ///         while let Some(record) = partition.recv().await {
    ///             match record {
    ///                 Ok(record) => {
    ///                     println!("{}: {:?}", partition.partition(), record.value)
    ///                 }
    ///                 Err(error) => eprintln!("{}: {error}", partition.partition()),
    ///             }
    ///         }
    ///     });
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those that affect the whole consumer: no broker can be reached, the group cannot be joined,
    /// the membership was lost because no call asked for records in time. Each is returned once,
    /// here or by [`recv`](Self::recv), to the first of the two that is called. The consumer
    /// continues after an error; one that only the user can resolve is retried by the next call of
    /// this function. A [fatal](Error::is_fatal) error is the last.
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
            // Registers before the state is read, so that no partition that arrives afterwards is
            // missed.
            moved.as_mut().enable();
            let (error, next, idle, ended) = buffer.with_state(|state| {
                let error = state.readers.pop_error();
                (error, state.unsplit_partition(), state.partitions.is_empty(), state.readers.has_ended())
            });
            if let Some(error) = error {
                return Some(Err(error));
            }
            if ended {
                return None;
            }
            match next.map(|partition| self.split_off(&partition)) {
                Some(Ok(stream)) => return Some(Ok(stream)),
                // Revoked meanwhile, or split off by another call: look again.
                Some(Err(_)) => continue,
                None => {}
            }
            // As long as there are no partitions to read, this call restarts the poll timer; after
            // that the streams do. All turns of the loop share one guard: a member that was removed
            // for not polling rejoins at the next poll, and a new guard would count as one,
            // although the caller does not know of the removal yet.
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
/// A record is done when the stream is asked for the next one. Until then, a group that revokes the
/// partition waits for it, for `max.poll.interval.ms` at most, and only [`commit`](Self::commit)
/// commits it.
///
/// # When it ends
/// The stream returns `None` when the group revokes the partition, when the partition is lost,
/// assigned again or unsubscribed from, and when the consumer ends or is dropped. A partition that
/// is assigned again later is not split off.
///
/// # When it is dropped
/// The partition returns to the consumer's reader, which continues after the last record that the
/// stream returned. That record is not done, unless the stream was asked for another one: it is
/// committed together with a later record of its partition, and delivered again if there is none.
/// To mark it as done, [`commit`](Self::commit) before the drop.
///
/// # When its reader hangs
/// `max.poll.interval.ms` applies to the consumer as a whole, as in Java: as long as any of its
/// readers asks for records or waits for them, the consumer counts as alive. So a stream that holds
/// a record and is not asked for the next one keeps its partition, while others continue; only if
/// the group wants to revoke it, it is lost after `max.poll.interval.ms`. [`Consumer::status`]
/// shows such a partition. A [`Worker`](crate::Worker) watches each of its handlers separately.
///
/// # When it is not read
/// Other partitions do not wait for it: its partition is fetched up to twice
/// `max.partition.fetch.bytes` ahead, and if other partitions need the memory, these bytes are
/// dropped and fetched again later.
#[must_use = "streams do nothing unless polled"]
pub struct PartitionStream {
    buffer: Arc<FetchBuffer>,
    /// Weak, so that a stream does not keep the consumer alive.
    consumer: Weak<Shared>,
    signs: Option<PollRecorder>,
    id: SplitId,
    reader: Arc<Mutex<RecordReader>>,
    /// Set while the stream waits for a record.
    alive: Option<OwnedPollGuard>,
    max_poll_records: usize,
    burst: u32,
    ended: bool,
}

impl PartitionStream {
    /// Returns the stream's partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.id.partition
    }

    /// Receives the next record, and waits for it without a limit. `None` at the end: see [when it
    /// ends](Self#when-it-ends).
    ///
    /// # Errors
    /// Those of [`Consumer::recv`] that concern this partition. Errors that affect the whole
    /// consumer (no broker can be reached, a group that cannot be joined) are returned by
    /// [`Consumer::recv`] and [`Consumer::next_partition`].
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The previous record is done as soon as this is called.
    pub async fn recv(&mut self) -> Option<Result<ConsumerRecord>> {
        consume_budget().await;
        if self.ended {
            return None;
        }
        let (mut asked, mut alive) = (false, None);
        let next = poll_fn(|cx| {
            let next = if std::mem::replace(&mut asked, true) {
                self.buffer.poll_record(&mut lock(&self.reader), cx)
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

    /// Receives the next records, at most `max.poll.records`. Waits for the first of them until the
    /// timeout; the result is then empty. Like with [`Consumer::poll`], they borrow from the
    /// batches that they came in, and records that are not iterated are returned again. `None` at
    /// the end.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv); `InvalidArgument` while the records of the last poll are
    /// held.
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The previous records are done as soon as this is called.
    pub async fn poll(&mut self, timeout: Duration) -> Option<Result<Records>> {
        consume_budget().await;
        let _alive = match self.begin_poll().await? {
            Ok(alive) => alive,
            Err(error) => return Some(Err(error)),
        };
        let next = poll_fn(|cx| self.buffer.poll_slices(&mut lock(&self.reader), self.max_poll_records, cx));
        // With a timeout of zero the future is still polled once, and returns what is available.
        let Ok(next) = timeout_at(after(timeout), next).await else { return Some(Ok(Records::empty())) };
        self.ended = next.is_none();
        next.map(|portions| portions.map(|portions| Records::new(portions, self.unread_return())))
    }

    /// Completes the records that were returned before, for a call that asks for more than one
    /// record. The stream counts as waiting while the result is held. `None` at the end.
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

    /// Returns the reader to which records return that are not iterated.
    pub(crate) fn unread_return(&self) -> UnreadReturn {
        UnreadReturn::Split(self.buffer.clone(), self.reader.clone())
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Completes the records that were returned before.
    fn next(&self) -> Result<MutexGuard<'_, RecordReader>> {
        let mut reader = lock(&self.reader);
        if reader.lent {
            let message =
                format!("{}: the records of the last poll are still held: drop them first", self.id.partition);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        reader.complete_delivered();
        Ok(reader)
    }

    /// Like [`next`](Self::next), and also returns the next record if it is available: both under
    /// one lock.
    fn poll_next_record(&self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumerRecord>>> {
        if let Some(signs) = &self.signs {
            signs.record_poll();
        }
        let next = match self.next() {
            Ok(mut reader) => self.buffer.poll_record(&mut reader, cx),
            Err(error) => Poll::Ready(Some(Err(error))),
        };
        self.buffer.notify_completed();
        next
    }

    /// Commits the position after the last record that the stream returned. By this call the
    /// program says that it has finished that record. Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// Those of [`Consumer::commit`]; `NotAssigned` once the partition was revoked.
    ///
    /// # Cancel safety
    /// Dropping the future discards the result: the offset may or may not be committed.
    pub async fn commit(&self) -> Result<()> {
        let shared =
            self.consumer.upgrade().ok_or_else(|| Error::new(ErrorKind::Closed, "the consumer was dropped"))?;
        if self.buffer.with_state(|state| state.readers.has_ended()) {
            return Err(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
        if !self.buffer.with_state(|state| state.readers.has_split(&self.id)) {
            let message = format!("{} is no longer assigned to this consumer", self.id.partition);
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
