//! The consumer as its user sees it.

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

/// What a close keeps of its time, at most, for what comes behind its commits.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a close waits for brokers to hear that their fetch sessions are over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Reads records: of partitions that it is told ([`assign`](Self::assign)), or of those that its
/// group gives it ([`subscribe`](Self::subscribe)).
///
/// All methods take `&self`, and clones are the same consumer (a clone costs two reference counts):
/// clone it to commit, seek or pause from other tasks. There is *one reader at a time*, over all
/// clones: while a [`recv`](Self::recv), [`recv_batch`](Self::recv_batch) or [`poll`](Self::poll)
/// is under way, or the [`Records`] of a poll or a [`stream`](Self::stream) are held, another one
/// gives an `InvalidArgument` error and does nothing.
///
/// # When a record is done
/// A record is done when its reader asks for the next one (by `recv`, `poll`, or the stream) or
/// closes the consumer. What commits by itself (`enable.auto.commit`: every
/// `auto.commit.interval.ms`, when the group takes partitions back, and on close) commits only what
/// is done; so a crash while a record is worked on brings that record again. When the group takes a
/// partition back, that waits until the reader is done with what it holds of it, for
/// `max.poll.interval.ms` at most.
///
/// # When it ends
/// [`close`](Self::close) commits, leaves the group and ends everything, for all clones, and says
/// what could not be done. Dropping the last clone without it hands out nothing more and does the
/// rest in the background, for five seconds at most and as long as its runtime lives: what is done
/// is committed (with `enable.auto.commit`) and what [`commit_async`](Self::commit_async) was asked
/// for, then the group is left, so that other members need not wait for the session to time out. A
/// record in its reader's hand is not done, and comes again. A static member
/// ([`group_instance_id`](ConsumerBuilder::group_instance_id)) keeps its place, as with `close`.
/// The rebalance listener is not called, and a failure is told in the log alone.
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
    /// Settings for a consumer of the cluster that is found through these addresses (`host:port`,
    /// with commas between them).
    pub fn builder(bootstrap_servers: impl AsRef<str>) -> ConsumerBuilder {
        ConsumerBuilder::new(bootstrap_servers.as_ref())
    }

    /// Builds a consumer from properties by their Java or librdkafka names. The same properties may
    /// build a producer and an admin client: those that mean nothing to a consumer are named in one
    /// warning.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::build`]; an unknown property is named together with the nearest known
    /// one, and one whose loss would weaken security or delivery with the reason.
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
        if self.shared.buffer.with_state(|assignment| assignment.has_ended()) {
            return Err(closed());
        }
        Ok(())
    }

    // ---- what is read

    /// Reads exactly these partitions from now on, each from its place; those that it read before
    /// and that are not among them are no longer read. No group is asked, but offsets can be
    /// committed for one.
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
        let left = self.shared.buffer.with_state_and_readers(|assignment| {
            let left = commits.then(|| self.shared.request_commit_completed(assignment, None));
            assignment.clear();
            for (partition, offset) in wanted {
                assignment.assign(partition, FetchState::at(offset), &metadata, now);
            }
            left
        });
        match left {
            // Before what is committed of the new ones; a failure is told in the log.
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

    /// Joins the group to read these topics. A later call replaces them, at any time; none at all
    /// is [`unsubscribe`](Self::unsubscribe). A listener of an earlier
    /// [`subscribe_with`](Self::subscribe_with) is no longer called.
    ///
    /// # Regular expressions
    /// What starts with `^` is a regular expression (in the syntax of the `regex` crate, which is
    /// that of RE2), matched against all topics again whenever the cluster changes. It is *searched
    /// for*, as in librdkafka: it stands for every topic in which it occurs, so `^audit` stands for
    /// `audit-1` too; end it with `$` to mean the whole name. To find something anywhere in a name,
    /// begin with `^.*`. Kafka's own topics (`__consumer_offsets`, `__transaction_state`) are
    /// passed over unless `exclude.internal.topics` is false.
    ///
    /// It means the same by both protocols. In a group of the consumer protocol (KIP-848) the
    /// brokers match expressions, against whole names and all topics that the consumer may see,
    /// their own among them. They are sent `.*(?:re).*`, and several as one,
    /// `.*(?:(?:re1)|(?:re2)).*`. What would not mean the same to them is matched by the consumer
    /// whenever it looks at the cluster (`metadata.max.age.ms`), and they are sent the names that
    /// it finds, as brokers before Kafka 4.0 are: expressions that find Kafka's own topics where
    /// these are to be passed over (`^.*`), that cannot be put into one (two groups of one name),
    /// or that have what RE2 has not (`[a-z&&[^b]]`, `(?x)`, `(?<name>…)`).
    ///
    /// # Errors
    /// `InvalidArgument` without a `group.id`, for a topic name that Kafka forbids or an expression
    /// that cannot be read, and while partitions are assigned by [`assign`](Self::assign);
    /// `Closed`.
    pub fn subscribe<S: AsRef<str>>(&self, topics: impl IntoIterator<Item = S>) -> Result<()> {
        self.subscribe_for(topics, CurrentListener::default())
    }

    /// As [`subscribe`](Self::subscribe), with a listener that is told of partitions that come and
    /// go, and may say from where they are read.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
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
        self.shared.buffer.with_state(|assignment| {
            assignment.stats.rebalances.subscribed(now);
            assignment.wanted_topics.subscribe(subscription.clone(), self.shared.settings.exclude_internal_topics);
            assignment.update_wanted_topics(&metadata, now);
        });
        group.subscribe(Some(subscription));
        self.shared.buffer.task.notify_one();
        Ok(())
    }

    /// Leaves the group, once what is done was committed, or no longer reads what was assigned.
    /// Records that the reader holds are not done, and come again to whoever reads on for the
    /// group.
    ///
    /// # Errors
    /// `Closed`.
    pub fn unsubscribe(&self) -> Result<()> {
        self.check_open()?;
        let before = std::mem::replace(&mut *lock(&self.shared.mode), Mode::None);
        match (before, &self.shared.group) {
            (Mode::Subscribed, Some(group)) => {
                self.shared.buffer.with_state(|assignment| {
                    assignment.stats.rebalances.left();
                    assignment.wanted_topics.subscribe(Subscription::default(), true);
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
                "partitions are either assigned by hand or subscribed to through the group: unsubscribe first",
            )),
            _ => {
                *current = mode;
                Ok(())
            }
        }
    }

    /// The partitions that are read at present, sorted.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.buffer.with_state(|assignment| assignment.assigned())
    }

    // ---- reading

    /// The next record; waits for it as long as it takes. Errors come as they occur, and reading
    /// goes on after them; a fatal one ([`Error::is_fatal`]) comes once. `None` after that, and
    /// once the consumer is closed.
    ///
    /// The record shares the bytes of the batch that it came in: see [`ConsumerRecord::detach`].
    ///
    /// # Errors
    /// - `Corrupt`: stored records are damaged; names the partition and the offset, and that
    ///   partition is read no further until it is [sought](Self::seek) past the damage. Other
    ///   partitions go on.
    /// - `NoOffset`: there is no offset to read from and `auto.offset.reset` is `none`; the
    ///   partition waits for a seek.
    /// - `UnknownTopicOrPartition`: topics that are subscribed to or assigned have been missing for
    ///   [`topic.metadata.propagation.max.ms`](ConsumerBuilder::topic_metadata_propagation_max),
    ///   told once, and again after a change; or a partition of a topic that exists has had no
    ///   leader for ten seconds. They are read as soon as they are there.
    /// - `Network`: no broker could be reached yet; it is tried on.
    /// - `Authorization`, `Authentication`: it is tried again, seldom. A topic that is forbidden is
    ///   told as one that is missing.
    /// - `InvalidArgument`: there is another reader.
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The record before it is done as soon as this is called.
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
            let next = buffer.reader().poll_record(buffer, cx);
            if next.is_pending() && alive.is_none() {
                alive = group.map(|group| group.begin_poll());
            }
            next
        })
        .await
    }

    /// The next records, at most `max.poll.records`; waits for the first of them until the time is
    /// up, and is then empty, which is no error. A timeout of zero gives what is there. Of
    /// compressed batches it decompresses as many as there is room for in
    /// `queued.max.messages.kbytes`, and one at least.
    ///
    /// Records borrow from the batches that they came in, without an allocation for any of them.
    /// What is not iterated comes again with the next call; so does a record that was iterated only
    /// if it was not committed and the consumer restarts.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and `Closed` once the consumer has ended.
    ///
    /// # Cancel safety
    /// Safe: no record is lost. The records before are done as soon as this is called.
    pub async fn poll(&self, timeout: Duration) -> Result<Records> {
        consume_budget().await;
        let buffer = &*self.shared.buffer;
        let one_reader = buffer.start_reading()?;
        lock(&self.shared.poll_stats).record_poll(Instant::now().into_std());
        let _alive = self.shared.group.as_ref().map(|group| group.begin_poll());
        if buffer.reader_should_yield() {
            // Before anything is taken, so that nothing is lost when this future is dropped here.
            yield_now().await;
        }
        let max = self.shared.settings.max_poll_records;
        let look = || poll_fn(|cx| Poll::Ready(buffer.reader().poll_slices(max, buffer, cx)));
        // Where something is there, no timer is needed.
        let mut state = look().await;
        if state.is_pending() && timeout.is_zero() {
            // A timer would take a millisecond at least.
            yield_now().await;
            state = look().await;
        } else if state.is_pending() {
            let next = poll_fn(|cx| buffer.reader().poll_slices(max, buffer, cx));
            state = timeout_at(after(timeout), next).await.map_or(Poll::Pending, Poll::Ready);
        }
        let Poll::Ready(portions) = state else { return Ok(Records::empty()) };
        let Some(portions) = portions else { return Err(closed()) };
        let portions = portions?;
        Ok(one_reader
            .into_owned_guard()
            .map_or_else(Records::empty, |reading| Records::new(portions, UnreadReturn::Common(reading))))
    }

    /// The records as a [`Stream`](futures_core::Stream), as [`recv`](Self::recv) gives them. It is
    /// the one reader until it is dropped.
    pub fn stream(&self) -> RecordStream<'_> {
        RecordStream::new(&self.shared)
    }

    // ---- commits

    /// Commits the position of every partition: all that was handed out so far, for whoever calls
    /// this says that it is finished. What was asked for before by
    /// [`commit_async`](Self::commit_async) is through when this returns. Takes at most
    /// `default.api.timeout.ms`, and so long where a topic is not known to the cluster: it may be
    /// about to come.
    ///
    /// # Errors
    /// `InvalidArgument` without a `group.id`; `NotAssigned` where the group has given partitions
    /// to others meanwhile, or their topic was deleted and created again (all others are committed
    /// all the same); `Closed`; others as the broker answers.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up: the offsets may or may not be committed.
    pub async fn commit(&self) -> Result<()> {
        self.check_open()?;
        self.shared.commit_position(None).await
    }

    /// Commits these offsets: of each partition the *next* record to be read. Takes at most
    /// `default.api.timeout.ms`.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); `InvalidArgument` for a topic name that Kafka forbids, a
    /// negative partition or offset.
    ///
    /// # Cancel safety
    /// As [`commit`](Self::commit).
    pub async fn commit_offsets<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<()> {
        let offsets = checked(offsets)?;
        self.check_open()?;
        self.shared.commit(offsets, RetryPolicy::UntilTopicsExist).await
    }

    /// Commits the offset behind a record, with the leader epoch that it was appended under:
    /// whoever calls this says that the record and all before it in its partition are finished.
    /// Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    ///
    /// # Cancel safety
    /// As [`commit`](Self::commit).
    pub async fn commit_record(&self, record: &ConsumerRecord) -> Result<()> {
        let partition = TopicPartition { topic: record.topic.clone(), partition: record.partition };
        self.commit_offsets([(partition, OffsetAndMetadata::behind(record))]).await
    }

    /// Commits these offsets in the background: of each partition the *next* record to be read.
    /// Commits are carried out in the order in which they were asked for; what waits for its turn
    /// is put together, so that it costs no request for each. A [`close`](Self::close) waits for
    /// them. A topic that is not known to the cluster is not waited for.
    ///
    /// # Errors
    /// `InvalidArgument` without a `group.id`, for a topic name that Kafka forbids, a negative
    /// partition or offset; `Closed`. What the broker says comes by the [`PendingCommit`].
    pub fn commit_async<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<PendingCommit> {
        let offsets = checked(offsets)?;
        self.check_open()?;
        self.shared.group("commit offsets")?;
        Ok(self.shared.commit_in_background(offsets))
    }

    // ---- the end

    /// Hands out nothing more, commits what is done (with `enable.auto.commit`; what the reader
    /// holds is done by this call), leaves the group, closes its fetch sessions at the brokers (for
    /// a second at most), and ends all tasks and connections. [Streams of
    /// partitions](Self::split_partition) end; for half of the timeout they may finish what they
    /// hold, which is done when they are asked for the next record. Never takes longer than the
    /// timeout; a quarter of it (two seconds at most) is kept for leaving the group, however the
    /// commits come out.
    ///
    /// It waits for an `on_revoked` of the rebalance listener that is under way, so the listener
    /// itself must not wait for it.
    ///
    /// # Errors
    /// What could not be done in time: a commit that failed, a listener that was not done, a group
    /// that could not be left. The consumer is closed all the same.
    ///
    /// # Cancel safety
    /// A close that was dropped goes on when it is called again.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let deadline = after(timeout);
        // A commit that does not get through must not cost the goodbye: the group would wait for
        // the session of a member that is gone. Nor may the listener, who is told in between.
        let kept = GOODBYE.min(timeout / 4);
        let (commit_by, tell_by) = (after(timeout - kept), after(timeout - kept / 2));
        let buffer = &self.shared.buffer;
        buffer.reader().complete_delivered();
        buffer.with_state_and_readers(|assignment| assignment.close_reading());
        buffer.wait_for_split_readers(after(timeout / 2)).await;
        // First what was asked for before: the last to be committed is what was done last.
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
        // Nothing fetches any more, which would begin new sessions.
        self.leave.end_task();
        let closes = buffer.with_state_and_readers(|assignment| {
            let closes = assignment.end_sessions();
            assignment.end(None);
            closes
        });
        close_sessions(self.shared.fetch_task(), closes, deadline.min(after(FAREWELL))).await;
        self.leave.end();
        committed.and(told).and(left)
    }

    /// Ends the consumer as dropping its last clone does.
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
