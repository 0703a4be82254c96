//! The [`Consumer`] type: subscribing, reading, committing and closing.

use std::{collections::BTreeMap, fmt, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use tokio::{
    task::{coop::consume_budget, yield_now},
    time::{Instant, timeout_at},
};

use crate::consumer::api::checks::{check_offset, check_partition};
use crate::consumer::{
    ConsumerBuilder, OffsetAndMetadata, PendingCommit, RebalanceListener, RecordStream, Records,
    api::{rebalance_listener::CurrentListener, records::UnreadReturn},
    background::{
        leave_on_drop::LeaveOnDrop,
        shared::{Mode, Offsets, Shared, after},
    },
    fetch::fetch_task::close_sessions,
    group::RetryPolicy,
    lock::lock,
    subscription::{fetch_position::FetchState, topics::Subscription},
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{ConsumerRecord, Offset, TopicPartition},
};

/// Largest part of a close's timeout that is reserved for the steps after the final commit: half of
/// it for the rebalance listener, the rest for leaving the group.
const LEAVE_RESERVE: Duration = Duration::from_secs(2);
/// Longest time for which a close waits for brokers to confirm that its fetch sessions are closed.
const SESSION_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads records: of the partitions passed to [`assign`](Self::assign), or of the partitions that
/// the group assigns after [`subscribe`](Self::subscribe).
///
/// All methods take `&self`, and clones are the same consumer (a clone costs two reference counts):
/// clone it to commit, seek or pause from other tasks. There is *one reader at a time*, over all
/// clones: while a [`recv`](Self::recv), [`recv_batch`](Self::recv_batch) or [`poll`](Self::poll)
/// is under way, or [`Records`] of a poll or a polled [`stream`](Self::stream) exist, another read
/// returns an `InvalidArgument` error and does nothing.
///
/// # When a record is done
/// A record is done when its reader asks for the next one (by `recv`, `poll`, or the stream) or
/// closes the consumer. Automatic commits (`enable.auto.commit`: every `auto.commit.interval.ms`,
/// when the group revokes partitions, and on close) cover only records that are done; so after a
/// crash during the processing of a record, that record is delivered again. When the group revokes
/// a partition, the consumer keeps it until the reader is done with the partition's records that it
/// holds, for `max.poll.interval.ms` at most.
///
/// # When it ends
/// [`close`](Self::close) commits, leaves the group and ends everything, for all clones, and
/// returns an error for any step that failed. When the last clone is dropped without a close, no
/// more records are delivered and the rest happens in the background, for five seconds at most and
/// only while its runtime lives: the consumer commits what is done (with `enable.auto.commit`) and
/// what was passed to [`commit_async`](Self::commit_async), then leaves the group, so that other
/// members need not wait for the session to time out. A record that the reader still holds is not
/// done, and is delivered again. A static member
/// ([`group_instance_id`](ConsumerBuilder::group_instance_id)) keeps its place, as with `close`.
/// The rebalance listener is not called, and a failure appears only in the log.
///
/// ```no_run
/// # async fn example() -> ottla::Result<()> {
/// use std::time::Duration;
/// use ottla::{Consumer, consumer::OffsetReset};
///
/// let consumer = Consumer::builder("localhost:9092")
///     .group("billing")
///     .auto_offset_reset(OffsetReset::Earliest)
///     .build()
///     .await?;
/// consumer.subscribe(["orders", "^audit\\..*"])?;
/// while let Some(record) = consumer.recv().await.transpose()? {
///     println!("{}[{}]@{}", record.topic, record.partition, record.offset);
/// }
/// consumer.close(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Consumer {
    pub(crate) shared: Arc<Shared>,
    leave: Arc<LeaveOnDrop>,
}

impl Consumer {
    /// Returns a builder for a consumer of the cluster with these bootstrap servers (`host:port`,
    /// with commas between them).
    ///
    /// ```
    /// use ottla::{Consumer, consumer::OffsetReset};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let consumer = Consumer::builder("broker-1:9092,broker-2:9092")
    ///     .group("billing")
    ///     .auto_offset_reset(OffsetReset::Earliest)
    ///     .build()
    ///     .await?; // waits for no broker
    /// # Ok(()) }
    /// ```
    pub fn builder(bootstrap_servers: impl AsRef<str>) -> ConsumerBuilder {
        ConsumerBuilder::new(bootstrap_servers.as_ref())
    }

    /// Builds a consumer from properties by their Java or librdkafka names. The same properties may
    /// build a producer and an admin client: one warning names those that mean nothing to a
    /// consumer.
    ///
    /// # Errors
    /// Those of [`ConsumerBuilder::build`]. The error for an unknown property names the nearest
    /// known one. A property that cannot be honoured, and without which security or delivery would
    /// be weaker, is an error that gives the reason.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn from_properties<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        ConsumerBuilder::empty().properties(pairs).build().await
    }

    pub(crate) fn new(shared: Arc<Shared>, leave: Arc<LeaveOnDrop>) -> Self {
        Self { shared, leave }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.shared.buffer.with_state(|state| state.readers.has_ended()) {
            return Err(closed());
        }
        Ok(())
    }

    // ---- assignment and subscription

    /// Reads exactly these partitions from now on, each from its offset. Partitions that were read
    /// before and are not among them are no longer read. No group is involved, but offsets can be
    /// committed for one.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// consumer.assign([(orders, Offset::Beginning)])?;
    /// let first = consumer.recv().await.transpose()?;
    /// # assert!(first.is_some_and(|record| record.offset == 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for a topic name that Kafka forbids, a negative partition or offset, and
    /// while subscribed; `Closed`.
    pub fn assign<O: Into<Offset>>(&self, partitions: impl IntoIterator<Item = (TopicPartition, O)>) -> Result<()> {
        let mut wanted: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for (partition, offset) in partitions {
            check_partition(&partition)?;
            wanted.insert(partition.clone(), check_offset(&partition, offset.into())?);
        }
        self.check_open()?;
        self.enter(if wanted.is_empty() { Mode::None } else { Mode::Assigned })?;
        self.shared.client.want_topics(wanted.keys().map(|partition| &*partition.topic));
        let metadata = self.shared.client.metadata();
        let now = Instant::now().into_std();
        let commits = self.shared.auto_commits();
        let left = self.shared.buffer.with_state_and_readers(|state| {
            let left = commits.then(|| self.shared.request_commit_completed(state, None));
            state.clear();
            for (partition, offset) in wanted {
                state.assign(partition, FetchState::at(offset), &metadata, now);
            }
            left
        });
        match left {
            // Enqueued before any commit of the new partitions. A failure appears only in the log.
            Some(Ok(left)) if !left.is_empty() => drop(self.shared.enqueue_commit(Ok(left))),
            None => {}
            Some(left) => {
                if let Err(error) = left.and_then(|left| left.end()) {
                    self.shared.log_failed_commit(&error);
                }
            }
        }
        Ok(())
    }

    /// Joins the group to read these topics. A later call replaces them, at any time; an empty list
    /// is an [`unsubscribe`](Self::unsubscribe). A listener of an earlier
    /// [`subscribe_with`](Self::subscribe_with) is no longer called.
    ///
    /// ```
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// // The topic `orders`, and all topics that begin with `audit.`, now or later.
    /// consumer.subscribe(["orders", "^audit\\..*"])?;
    /// while let Some(record) = consumer.recv().await.transpose()? {
    ///     println!("{}[{}]@{}", record.topic, record.partition, record.offset);
    ///     # break;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Regular expressions
    /// A topic that starts with `^` is a regular expression (in the syntax of the `regex` crate,
    /// which is that of RE2), matched against all topics again whenever the cluster changes. It is
    /// *searched for*, as in librdkafka: it matches every topic in which it occurs, so `^audit`
    /// matches `audit-1` too; end it with `$` to match the whole name. To find text anywhere in a
    /// name, begin with `^.*`. Kafka's own topics (`__consumer_offsets`, `__transaction_state`) are
    /// skipped unless `exclude.internal.topics` is false.
    ///
    /// An expression means the same with both group protocols. In a group of the consumer protocol
    /// (KIP-848) the brokers match expressions, against whole names and against all topics that the
    /// consumer may see, Kafka's own topics included. They receive `.*(?:re).*`, and several
    /// expressions as one, `.*(?:(?:re1)|(?:re2)).*`. The consumer itself matches the expressions
    /// that would mean something else to the brokers, whenever it refreshes metadata
    /// (`metadata.max.age.ms`), and sends the names that it finds; it does so as well with brokers
    /// before Kafka 4.0. These expressions are: those that match Kafka's own topics where these are
    /// to be skipped (`^.*`), those that cannot be combined into one (two groups of one name), and
    /// those with syntax that RE2 does not have (`[a-z&&[^b]]`, `(?x)`, `(?<name>…)`).
    ///
    /// # Errors
    /// `InvalidArgument` without a `group.id`, for a topic name that Kafka forbids or an expression
    /// that cannot be parsed, and while partitions are assigned by [`assign`](Self::assign);
    /// `Closed`.
    pub fn subscribe<S: AsRef<str>>(&self, topics: impl IntoIterator<Item = S>) -> Result<()> {
        self.subscribe_for(topics, CurrentListener::default())
    }

    /// Subscribes like [`subscribe`](Self::subscribe), with a listener that is called when
    /// partitions are assigned, revoked or lost, and that may set the offsets from which they are
    /// read.
    ///
    /// # Errors
    /// Those of [`subscribe`](Self::subscribe).
    pub fn subscribe_with<S: AsRef<str>>(
        &self,
        topics: impl IntoIterator<Item = S>,
        listener: impl RebalanceListener,
    ) -> Result<()> {
        self.subscribe_for(topics, CurrentListener(Some(Arc::new(listener))))
    }

    fn subscribe_for<S: AsRef<str>>(
        &self,
        topics: impl IntoIterator<Item = S>,
        listener: CurrentListener,
    ) -> Result<()> {
        let subscription = Subscription::parse(topics)?;
        let group = self.shared.group("subscribe")?;
        if subscription.is_empty() {
            return self.unsubscribe();
        }
        self.check_open()?;
        self.enter(Mode::Subscribed)?;
        *lock(&self.shared.listener) = listener;
        let (metadata, now) = (self.shared.client.metadata(), Instant::now().into_std());
        self.shared.buffer.with_state(|state| {
            state.stats.rebalances.subscribed(now);
            state.wanted_topics.subscribe(subscription.clone(), self.shared.settings.exclude_internal_topics);
            state.update_wanted_topics(&metadata, now);
        });
        group.subscribe(Some(subscription));
        self.shared.buffer.task.notify_one();
        Ok(())
    }

    /// Leaves the group after committing what is done (with `enable.auto.commit`), or stops reading
    /// the assigned partitions.
    /// Records that the reader holds are not done, and are delivered again to the next reader of
    /// their partitions in the group.
    ///
    /// # Errors
    /// `Closed`.
    pub fn unsubscribe(&self) -> Result<()> {
        self.check_open()?;
        let before = std::mem::replace(&mut *lock(&self.shared.mode), Mode::None);
        match (before, &self.shared.group) {
            (Mode::Subscribed, Some(group)) => {
                self.shared.buffer.with_state(|state| {
                    state.stats.rebalances.left();
                    state.wanted_topics.subscribe(Subscription::default(), true);
                });
                group.subscribe(None);
            }
            (Mode::Assigned, _) => self.assign(std::iter::empty::<(TopicPartition, Offset)>())?,
            _ => {}
        }
        Ok(())
    }

    fn enter(&self, mode: Mode) -> Result<()> {
        let mut current = lock(&self.shared.mode);
        match (*current, mode) {
            (Mode::Subscribed, Mode::Assigned | Mode::None) | (Mode::Assigned, Mode::Subscribed) => Err(Error::new(
                ErrorKind::InvalidArgument,
                "a consumer either assigns partitions itself or subscribes through its group: unsubscribe first",
            )),
            _ => {
                *current = mode;
                Ok(())
            }
        }
    }

    /// Returns the partitions that are read at present, sorted.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.buffer.with_state(|state| state.partitions.names())
    }

    // ---- reading

    /// Receives the next record, and waits for it without a limit. Errors are returned as they
    /// occur, and reading continues after them; a fatal one ([`Error::is_fatal`]) is returned once.
    /// Returns `None` after a fatal error, and once the consumer is closed.
    ///
    /// The record shares the bytes of the batch that it came in: see [`ConsumerRecord::detach`].
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// use ottla::ErrorKind;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// while let Some(next) = consumer.recv().await {
    ///     match next {
    ///         Ok(record) => println!("{}: {:?}", record.offset, record.value),
    ///         // The client keeps trying. The next record follows when it succeeds.
    ///         Err(error) if error.kind() == ErrorKind::Network => eprintln!("{error}"),
    ///         Err(error) => return Err(error),
    ///     }
    ///     # break;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// - `Corrupt`: stored records are damaged. The error names the partition and the offset. That
    ///   partition is read no further until it is [sought](Self::seek) past the damage; other
    ///   partitions continue.
    /// - `NoOffset`: there is no offset to read from and `auto.offset.reset` is `none`; the
    ///   partition waits for a seek.
    /// - `UnknownTopicOrPartition`: topics that are subscribed to or assigned have been missing for
    ///   [`topic.metadata.propagation.max.ms`](ConsumerBuilder::topic_metadata_propagation_max);
    ///   returned once, and again after a change. Or a partition of a topic that exists has had no
    ///   leader for ten seconds. They are read as soon as they exist.
    /// - `Network`: no broker could be reached yet; the client keeps trying.
    /// - `Authorization`, `Authentication`: the client retries, seldom. A forbidden topic is
    ///   reported like a missing one.
    /// - `InvalidArgument`: there is another reader.
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The previous record is done as soon as this is called.
    pub async fn recv(&self) -> Option<Result<ConsumerRecord>> {
        consume_budget().await;
        let buffer = &*self.shared.buffer;
        let _one_reader = match buffer.start_reading() {
            Ok(reading) => reading,
            Err(error) => return Some(Err(error)),
        };
        let group = self.shared.group.as_ref();
        if let Some(group) = group {
            group.record_poll();
        }
        let mut alive = None;
        poll_fn(|cx| {
            let next = buffer.poll_record(&mut buffer.reader(), cx);
            if next.is_pending() && alive.is_none() {
                alive = group.map(|group| group.begin_poll());
            }
            next
        })
        .await
    }

    /// Receives the next records, at most `max.poll.records`. Waits for the first of them until the
    /// timeout; the result is then empty, which is no error. A timeout of zero returns what is
    /// available at once. Decompresses as many compressed batches as there is room for in
    /// `queued.max.messages.kbytes`, and at least one.
    ///
    /// Records borrow from the batches that they came in, without an allocation for any of them.
    /// Records that are not iterated are returned again by the next call. A record that was
    /// iterated is returned again only if it was not committed and the consumer restarts.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// let records = consumer.poll(Duration::from_secs(10)).await?;
    /// for record in records.iter() {
    ///     println!("{}: {:?}", record.offset(), record.value()); // borrowed from the batch
    /// }
    /// # assert_eq!(records.len(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv), and `Closed` once the consumer has ended.
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The previous records are done as soon as this is called.
    pub async fn poll(&self, timeout: Duration) -> Result<Records> {
        consume_budget().await;
        let buffer = &*self.shared.buffer;
        let one_reader = buffer.start_reading()?;
        lock(&self.shared.poll_stats).record_poll(Instant::now().into_std());
        let _alive = self.shared.group.as_ref().map(|group| group.begin_poll());
        if buffer.reader_should_yield() {
            // Yields before any record is taken, so that none is lost if this future is dropped
            // here.
            yield_now().await;
        }
        let max = self.shared.settings.max_poll_records;
        let look = || poll_fn(|cx| Poll::Ready(buffer.poll_slices(&mut buffer.reader(), max, cx)));
        // If records are available, no timer is needed.
        let mut state = look().await;
        if state.is_pending() && timeout.is_zero() {
            // A timer would take a millisecond at least.
            yield_now().await;
            state = look().await;
        } else if state.is_pending() {
            let next = poll_fn(|cx| buffer.poll_slices(&mut buffer.reader(), max, cx));
            state = timeout_at(after(timeout), next).await.map_or(Poll::Pending, Poll::Ready);
        }
        let Poll::Ready(portions) = state else { return Ok(Records::empty()) };
        let Some(portions) = portions else { return Err(closed()) };
        let portions = portions?;
        Ok(one_reader
            .into_owned_guard()
            .map_or_else(Records::empty, |reading| Records::new(portions, UnreadReturn::Common(reading))))
    }

    /// Returns the records as a [`Stream`](futures_core::Stream), with the items of
    /// [`recv`](Self::recv). The stream is the consumer's one reader from its first poll until it
    /// is dropped.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// use futures_util::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// let mut values = consumer.stream().map(|record| record.map(|record| record.value));
    /// while let Some(value) = values.next().await.transpose()? {
    ///     println!("{value:?}");
    ///     # break;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream(&self) -> RecordStream<'_> {
        RecordStream::new(&self.shared)
    }

    // ---- commits

    /// Commits the position of every partition: everything that was delivered so far. By this call
    /// the program says that it has finished those records. Earlier commits by
    /// [`commit_async`](Self::commit_async) are complete when this returns. Takes at most
    /// `default.api.timeout.ms`; if the cluster does not know a topic, the consumer retries for
    /// that whole time, because the topic may be about to appear.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().group("billing").auto_commit(false).build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// // `enable.auto.commit` is false.
    /// if let Some(record) = consumer.recv().await.transpose()? {
    ///     println!("{:?}", record.value);
    ///     consumer.commit().await?; // this record, and all before it, are finished
    /// }
    /// # assert_eq!(cluster.committed("billing", "orders", 0), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` without a `group.id`; `NotAssigned` if the group has meanwhile assigned
    /// partitions to other members, or their topic was deleted and created again (all other
    /// partitions are committed all the same); `Closed`; others as the broker answers.
    ///
    /// # Cancel safety
    /// Dropping the future discards the result: the offsets may or may not be committed.
    pub async fn commit(&self) -> Result<()> {
        self.check_open()?;
        self.shared.commit_position(None).await
    }

    /// Commits these offsets: for each partition that of the *next* record to be read. Takes at
    /// most `default.api.timeout.ms`.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().group("billing").auto_commit(false).build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// if let Some(record) = consumer.recv().await.transpose()? {
    ///     let next = record.offset + 1;
    ///     consumer.commit_offsets([(record.topic_partition(), next)]).await?;
    /// }
    /// # assert_eq!(cluster.committed("billing", "orders", 0), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit); `InvalidArgument` for a topic name that Kafka forbids, a
    /// negative partition or offset.
    ///
    /// # Cancel safety
    /// Like [`commit`](Self::commit).
    pub async fn commit_offsets<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<()> {
        let offsets = checked(offsets)?;
        self.check_open()?;
        self.shared.commit(offsets, RetryPolicy::UntilTopicsExist).await
    }

    /// Commits the offset after a record, with the leader epoch under which the record was
    /// appended. By this call the program says that it has finished the record and all before it in
    /// its partition. Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit).
    ///
    /// # Cancel safety
    /// Like [`commit`](Self::commit).
    pub async fn commit_record(&self, record: &ConsumerRecord) -> Result<()> {
        let partition = TopicPartition { topic: record.topic.clone(), partition: record.partition };
        self.commit_offsets([(partition, OffsetAndMetadata::behind(record))]).await
    }

    /// Commits these offsets in the background: for each partition that of the *next* record to be
    /// read. Commits run in the order of their calls; those that wait for their turn are combined,
    /// so that each does not cost a request. A [`close`](Self::close) waits for them. The consumer
    /// does not wait for a topic that the cluster does not know.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().group("billing").auto_commit(false).build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// if let Some(record) = consumer.recv().await.transpose()? {
    ///     let pending = consumer.commit_async([(record.topic_partition(), record.offset + 1)])?;
    ///     // … handle other records meanwhile …
    ///     pending.await?;
    /// }
    /// # assert_eq!(cluster.committed("billing", "orders", 0), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` without a `group.id`, for a topic name that Kafka forbids, a negative
    /// partition or offset; `Closed`. The [`PendingCommit`] returns the broker's errors.
    pub fn commit_async<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<PendingCommit> {
        let offsets = checked(offsets)?;
        self.check_open()?;
        self.shared.group("commit offsets")?;
        Ok(self.shared.commit_in_background(offsets))
    }

    // ---- closing

    /// Closes the consumer: stops delivering records, commits what is done (with
    /// `enable.auto.commit`; the records that the reader holds are done by this call), leaves the
    /// group, closes its fetch sessions at the brokers (for a second at most), and ends all tasks
    /// and connections. [Streams of partitions](Self::split_partition) end; for half of the timeout
    /// they may finish the records that they hold, which are done when the next record is asked
    /// for. Never takes longer than the timeout; a quarter of it (two seconds at most) is reserved
    /// for leaving the group, whatever the result of the commits.
    ///
    /// The close waits for an `on_revoked` of the rebalance listener that is under way, so the
    /// listener itself must not wait for the close.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// consumer.subscribe(["orders"])?;
    /// if let Some(record) = consumer.recv().await.transpose()? {
    ///     println!("{:?}", record.value);
    /// }
    /// consumer.close(Duration::from_secs(10)).await?; // commits the record and leaves the group
    /// # assert_eq!(cluster.committed("billing", "orders", 0), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Returned for a step that could not be done in time: a commit that failed, a listener that
    /// did not return, a group that could not be left. The consumer is closed all the same.
    ///
    /// # Cancel safety
    /// A close that was dropped continues when it is called again.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let deadline = after(timeout);
        // A commit that fails must not use up the time for leaving the group, because the group
        // would wait for the session of a departed member to time out. Nor may the listener, which
        // is called in between.
        let kept = LEAVE_RESERVE.min(timeout / 4);
        let (commit_by, tell_by) = (after(timeout - kept), after(timeout - kept / 2));
        let buffer = &self.shared.buffer;
        buffer.reader().complete_delivered();
        buffer.with_state_and_readers(|state| state.close_reading());
        buffer.wait_for_split_readers(after(timeout / 2)).await;
        // Earlier commits run first, so that the offsets of the records that were done last are
        // committed last.
        self.shared.run_queued_commits(commit_by).await;
        let committed = if self.shared.auto_commits() {
            self.shared.commit_completed(None, RetryPolicy::UntilCommitted, commit_by).await
        } else {
            Ok(())
        };
        let told = self.shared.announce_revocation(None, tell_by).await;
        let left = match &self.shared.group {
            Some(group) => group.close(deadline).await,
            None => Ok(()),
        };
        self.shared.commit_queue.end();
        // The fetch task ends first, because a further fetch would open new sessions.
        self.leave.end_task();
        let closes = buffer.with_state_and_readers(|state| {
            let closes = state.connections.end_sessions();
            state.end(None);
            closes
        });
        close_sessions(self.shared.fetch_task(), closes, deadline.min(after(SESSION_CLOSE_TIMEOUT))).await;
        self.leave.end();
        committed.and(told).and(left)
    }

    /// Ends the consumer, like dropping its last clone.
    pub(crate) fn abandon(&self) {
        self.leave.leave();
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = &self.shared.settings.group_id;
        f.debug_struct("Consumer").field("group", group).field("assignment", &self.assignment()).finish()
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer is closed")
}

fn checked<O: Into<OffsetAndMetadata>>(offsets: impl IntoIterator<Item = (TopicPartition, O)>) -> Result<Offsets> {
    let offsets: Offsets = offsets.into_iter().map(|(partition, offset)| (partition, offset.into())).collect();
    for (partition, offset) in &offsets {
        check_partition(partition)?;
        check_offset(partition, Offset::At(offset.offset))?;
    }
    Ok(offsets)
}
