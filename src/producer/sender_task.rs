//! The task of the [`Sender`]: carries out its requests and effects as IO, and passes the results
//! to it as events.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    ProducerShared,
    accumulator::Partition,
    counters::Counters,
    idempotence::{ProducerId, TransactionIdentity},
    purge::PurgeScope,
    requests::{EndedRequest, Requests},
    sender::{Effect, Sender},
    topics::AppendContext,
};
use crate::producer::{
    sender_mailbox::{Phase, SenderRequest},
    transaction::{action::Action, coordinator_requests::EndedAttempt, protocol::Protocol, versions::produce_versions},
    transaction_task::TransactionTask,
};
use crate::{
    cluster::{Client, ConnectionKind, Metadata, Route},
    error::{Error, ErrorCode, ErrorKind, Result},
    log::{Lasting, Outage, event},
    record::TopicPartition,
    wire::messages::{InitProducerIdRequest, InitProducerIdResponse},
};

/// The task of a producer. It ends when the producer is closed, or when it is dropped and all
/// records have their results.
pub(super) struct SenderTask {
    // Fields are in the order in which they are to be dropped: batches give their records results
    // before the end is published.
    ending: UnfinishedGuard,
    sender: Sender,
    requests: Requests,
    transactions: Option<Box<TransactionTask>>,
    errands: JoinSet<BackgroundResult>,
    client: Client,
    changes: watch::Receiver<u64>,
    looking: HashSet<Arc<str>>,
    noticed: Vec<Arc<Partition>>,
    used: HashMap<Arc<str>, u64>,
    check_use_at: Instant,
    flushes: u64,
    end: TerminationGuard,
}

/// The result of a background task.
enum BackgroundResult {
    ProducerId(Result<ProducerId>),
    /// The result of looking for a topic, with the deadline.
    Topic(Arc<str>, Instant, Result<()>),
}

/// Marks records without a result as given up, however the task ends.
struct UnfinishedGuard(Arc<Counters>);

impl Drop for UnfinishedGuard {
    fn drop(&mut self) {
        self.0.ending();
    }
}

/// Publishes the end of the task, however it ended.
struct TerminationGuard(Arc<ProducerShared>);

impl Drop for TerminationGuard {
    fn drop(&mut self) {
        let shared = &self.0;
        let error = shared.gate.get_or_init(ended).clone();
        shared.topics.close(&error);
        shared.batch_shared.buffer.close();
        shared.batch_shared.reports.close();
        shared.client.close();
        shared.batch_shared.counters.ended();
        shared.ended.send_replace(true);
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the producer has ended, because its runtime was shut down")
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl SenderTask {
    pub(super) fn new(shared: Arc<ProducerShared>, sender: Sender, requests: Requests) -> Self {
        let client = shared.client.clone();
        let transactions = shared.transactions.clone();
        Self {
            transactions: transactions.map(|shared| Box::new(TransactionTask::new(shared, client.clone(), now()))),
            ending: UnfinishedGuard(shared.batch_shared.counters.clone()),
            sender,
            requests,
            errands: JoinSet::new(),
            changes: client.metadata_changes(),
            check_use_at: Instant::now() + use_interval(&client),
            client,
            looking: HashSet::new(),
            noticed: Vec::new(),
            used: HashMap::new(),
            flushes: 0,
            end: TerminationGuard(shared),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            if self.changes.has_changed().unwrap_or(false) {
                self.changes.mark_unchanged();
                self.metadata_changed();
            }
            let metadata = self.client.metadata();
            self.handle_notified(&metadata);
            self.drive_transactions(&metadata);
            if self.is_done() {
                break;
            }
            self.send_ready(&metadata);
            // A transaction that has just ended may have been the last thing to wait for.
            if self.is_done() {
                break;
            }
            let failures = self.end.0.batch_shared.failures_due().map(Instant::from_std);
            let transactions = self.transactions.as_ref().and_then(|transactions| transactions.next_timer());
            let wake = self.sender.next_wake().into_iter().chain(transactions).map(Instant::from_std).chain(failures);
            let wake = wake.fold(self.check_use_at, Instant::min);
            let quiet = self.end.0.mailbox.park(Some(wake.into_std()));
            tokio::select! {
                biased;
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.changes.mark_changed();
                }
                Some(done) = self.errands.join_next() => match done {
                    Ok(done) => self.handle_background(done),
                    // Ending the producer is better than waiting for a result that will never come.
                    Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
                    Err(_) => break,
                },
                ended = next_attempt(&mut self.transactions) => {
                    if let Some(transactions) = &mut self.transactions {
                        transactions.handle_ended(ended, now());
                    }
                }
                // After the rare events, because a continuous stream of answers would starve them.
                ended = self.requests.next() => self.handle_ended(ended),
                () = self.end.0.mailbox.woken() => {}
                // Yields to other tasks even if notifications never end.
                () = tokio::task::yield_now(), if !quiet => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            self.end.0.mailbox.unpark();
        }
        self.finish();
    }

    /// Handles a request that has ended, and all others that have ended by now, so that their
    /// effects are sent together.
    fn handle_ended(&mut self, first: EndedRequest) {
        let metadata = self.client.metadata();
        let mut next = Some(first);
        while let Some(ended) = next {
            ended.read(|request, response| self.sender.handle_response(request, response, now(), &metadata));
            next = self.requests.next_ended();
        }
    }

    /// Handles requests, notifications, flushes and timers.
    fn handle_notified(&mut self, metadata: &Metadata) {
        let shared = self.end.0.clone();
        let now = now();
        let questions = shared.mailbox.take_requests();
        shared.mailbox.take_notified(&mut self.noticed);
        for partition in self.noticed.drain(..) {
            self.sender.partition_notified(&partition, now, metadata);
        }
        let flushes = shared.mailbox.flushes();
        if flushes != self.flushes {
            self.flushes = flushes;
            self.flush(metadata);
        }
        // Batches do not linger while a call waits for room, or for the end of the producer or of a
        // transaction. Records that waited for their topic come later than the call.
        let hurry = shared.batch_shared.buffer.has_waiters()
            || shared.mailbox.phase() != Phase::Running
            || self.transactions.as_ref().is_some_and(|transactions| transactions.is_ending());
        self.sender.set_hurry(hurry, now, metadata);
        if shared.look_for_topics.swap(false, std::sync::atomic::Ordering::AcqRel) {
            for name in shared.topics.take_unseen() {
                self.look_for_topic(name);
            }
        }
        for question in questions {
            self.handle_request(question, metadata);
        }
        if self.sender.next_wake().is_some_and(|at| at <= now) {
            self.sender.set_cause(self.client.metadata_failure());
            self.sender.tick(now, metadata);
        }
        if shared.batch_shared.failures_due().is_some_and(|at| at <= now) {
            shared.batch_shared.write_failures(false);
        }
        if Instant::now() >= self.check_use_at {
            self.keep_topics_in_use();
        }
    }

    fn handle_request(&mut self, question: SenderRequest, metadata: &Metadata) {
        match question {
            SenderRequest::UpdateTopic { topic, done } => {
                self.update_topics([&*topic], &self.client.metadata());
                let _ = done.send(());
            }
            SenderRequest::Purge { what, done } => {
                let mut records = self.sender.purge(what, now(), metadata);
                if what.queued() {
                    records += self.end.0.topics.fail_all_waiting(|topic| PurgeScope::error(topic));
                }
                let _ = done.send(records);
            }
        }
    }

    fn flush(&mut self, metadata: &Metadata) {
        for topic in self.end.0.topics.all() {
            topic.ever().for_each(|partition| partition.flush());
        }
        self.sender.flushed(now(), metadata);
    }

    /// Sends ready requests, and carries out effects, until there are none.
    fn send_ready(&mut self, metadata: &Metadata) {
        loop {
            while let Some(request) = self.sender.next_request(now(), metadata) {
                self.requests.start(request);
            }
            for effect in self.sender.take_effects() {
                self.carry_out(effect);
            }
            if !self.drive_transactions(metadata) {
                return;
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::RefreshMetadata => self.client.refresh_metadata(),
            Effect::WantTopic(name) => self.client.want_topics([&*name]),
            Effect::LearnLeader { topic, partition, leader, epoch, endpoints } => {
                self.client.learn_leader(&topic, partition, leader, epoch, &endpoints);
            }
            Effect::Throttle { node, millis } => self.client.throttle(node, ConnectionKind::Main, millis),
            Effect::Clogged { node, clogged } => self.end.0.topics.set_unavailable(node, clogged),
            Effect::RequestProducerId => {
                self.errands.spawn(request_producer_id(self.client.clone()));
            }
            Effect::AddPartition { number, topic, partition, slot } => {
                if let Some(transactions) = &mut self.transactions {
                    transactions.partition_wanted(number, TopicPartition { topic, partition }, slot, now());
                }
            }
            Effect::TransactionStarted { number } => {
                if let Some(transactions) = &mut self.transactions {
                    transactions.batch_sent(number);
                }
            }
            Effect::EpochUsedUp { number, topic, partition } => {
                if let Some(transactions) = &mut self.transactions {
                    transactions.epoch_used_up(number, &TopicPartition { topic, partition }, now());
                }
            }
        }
    }

    /// Passes events to the transactions, and carries out what they ask of the sender. Returns
    /// false if there was nothing.
    fn drive_transactions(&mut self, metadata: &Metadata) -> bool {
        let Some(transactions) = &mut self.transactions else { return false };
        let (shared, now) = (&self.end.0, now());
        let (is_closing, senders_left) = (shared.mailbox.phase() != Phase::Running, transactions.senders_left());
        transactions.handle_calls(now);
        // After the calls: a commit that was made before the producer was dropped stands.
        if is_closing {
            transactions.start_closing(self.sender.delivery_timeout(), now);
        }
        if let Some(failed) = shared.batch_shared.take_failed() {
            transactions.records_failed(failed, now);
        }
        let nothing_outstanding = || senders_left && self.sender.requests_in_flight() == 0 && shared.outstanding() == 0;
        if transactions.has_become_idle(nothing_outstanding) {
            transactions.idle(now);
        }
        let mut is_busy = false;
        while let Some(transactions) = &mut self.transactions {
            let actions = transactions.take_actions();
            if actions.is_empty() {
                transactions.publish(now);
                break;
            }
            for action in actions {
                is_busy |= self.carry_out_action(action, now, metadata);
            }
        }
        is_busy
    }

    /// Carries out an action of the transactions; returns true if it is one of the sender.
    fn carry_out_action(&mut self, action: Action, now: std::time::Instant, metadata: &Metadata) -> bool {
        let is_of_sender = match &action {
            Action::SetIdentity { producer, number, protocol } => {
                let adds_partitions = *protocol == Protocol::V1;
                self.requests.set_versions(produce_versions(*protocol));
                let identity = TransactionIdentity { producer: *producer, number: *number, adds_partitions };
                self.sender.begin_transaction(identity, now, metadata);
                true
            }
            Action::PartitionsAdded(number, slots) => {
                self.sender.partitions_added(*number, slots, now, metadata);
                true
            }
            Action::FlushAll => {
                self.sender.set_hurry(true, now, metadata);
                true
            }
            Action::FailUnsent(cause) => {
                if let (Some(transactions), Some(cause)) = (&self.transactions, cause) {
                    transactions.refuse(cause);
                }
                let error = not_committed(cause.clone());
                self.end.0.topics.fail_all_waiting(|_| error.clone());
                self.sender.fail_transaction(error, now, metadata);
                true
            }
            Action::Send { .. }
            | Action::ForgetTransactionCoordinator
            | Action::ForgetGroupCoordinator(_)
            | Action::CloseGate
            | Action::Reply(..)
            | Action::Notice(_) => false,
        };
        if let Some(transactions) = &mut self.transactions {
            transactions.carry_out(action, now);
        }
        is_of_sender
    }

    fn metadata_changed(&mut self) {
        let metadata = self.client.metadata();
        let shared = self.end.0.clone();
        let waited_for = shared.topics.waited_for();
        let known = shared.topics.all();
        let known = known.iter().map(|topic| &*topic.name);
        self.update_topics(known.chain(waited_for.iter().map(|(name, _)| &**name)), &metadata);
        self.sender.metadata_changed(now(), &metadata);
    }

    /// Updates the producer's table with these topics of the metadata.
    fn update_topics<'n>(&self, names: impl IntoIterator<Item = &'n str>, metadata: &Metadata) {
        let shared = &self.end.0;
        let tell = |partition: &Arc<Partition>, event| shared.mailbox.notify(partition, event, || false);
        shared.topics.update(
            names,
            metadata,
            &mut AppendContext { shared: &shared.batch_shared, clock: now, notify: tell },
        );
    }

    /// Looks for a topic if records wait for it, unless that is already under way.
    fn look_for_topic(&mut self, name: Arc<str>) {
        let Some(deadline) = self.end.0.topics.first_deadline(&name) else { return };
        if self.looking.insert(name.clone()) {
            let known = self.end.0.topics.get(&name).is_some();
            self.errands.spawn(look_for(self.client.clone(), name, deadline.into(), known));
        }
    }

    fn handle_background(&mut self, done: BackgroundResult) {
        match done {
            BackgroundResult::ProducerId(answer) => {
                if let Err(error) = &answer {
                    event!(
                        WARN, self.client.origin(), %error,
                        "the broker refused a producer id: records that wait for it fail, and later records request \
                         one again"
                    );
                }
                self.sender.producer_id(answer, now(), &self.client.metadata());
            }
            BackgroundResult::Topic(name, deadline, found) => {
                self.looking.remove(&name);
                self.update_topics([&*name], &self.client.metadata());
                self.fail_waiting(&name, deadline, found);
                self.look_for_topic(name);
            }
        }
    }

    /// Fails records that have waited too long for their topic, or all that wait for it if looking
    /// for the topic failed early.
    fn fail_waiting(&mut self, name: &Arc<str>, looked_until: Instant, found: Result<()>) {
        let topics = &self.end.0.topics;
        let now = now();
        let partitions = topics.get(name).map_or(0, |topic| topic.partitions.len());
        // A failure before the deadline is not a timeout. The records that wait now may have come
        // after those for which the topic was looked for, if these were purged.
        let early = found.is_err() && now < looked_until.into_std();
        let timeout = topics.topic_timeout();
        topics.fail_waiting(name, now, early, |name| match &found {
            Err(error) if partitions == 0 && early => error.clone().context(format_args!("topic {name}")),
            Err(error) if partitions == 0 => {
                error.clone().context(format_args!("topic {name} did not appear within {timeout}"))
            }
            _ => Error::new(
                ErrorKind::UnknownTopicOrPartition,
                format!(
                    "topic {name} has {partitions} partitions, and the one asked for did not appear within {timeout}"
                ),
            ),
        });
    }

    /// Keeps the metadata of topics that were written to recently.
    fn keep_topics_in_use(&mut self) {
        self.check_use_at = Instant::now() + use_interval(&self.client);
        for topic in self.end.0.topics.all() {
            let appended: u64 = topic.ever().map(|partition| partition.appended()).sum();
            if self.used.insert(topic.name.clone(), appended) != Some(appended) {
                self.client.want_topics([&*topic.name]);
            }
        }
    }

    fn is_done(&self) -> bool {
        let shared = &self.end.0;
        match shared.mailbox.phase() {
            Phase::Running => false,
            Phase::Draining => {
                let is_closed = self.transactions.as_ref().is_none_or(|transactions| transactions.is_closed());
                is_closed && shared.outstanding() == 0
            }
            Phase::Aborting => true,
        }
    }

    /// Fails the remaining batches, each with its own status.
    fn finish(mut self) {
        if let Some(transactions) = &mut self.transactions {
            transactions.finish(now());
        }
        drop(self.ending);
        let error = self.end.0.gate.get().cloned().unwrap_or_else(Sender::closing_error);
        self.end.0.topics.close(&error);
        self.sender.fail_all(&error);
        self.end.0.batch_shared.write_failures(true);
    }
}

/// Waits for the next attempt of a transaction's request; never returns if there is none.
async fn next_attempt(transactions: &mut Option<Box<TransactionTask>>) -> EndedAttempt {
    match transactions {
        Some(transactions) => transactions.next().await,
        None => std::future::pending().await,
    }
}

/// Returns the error of records that are dropped because their transaction will not commit.
fn not_committed(cause: Option<Error>) -> Error {
    let message = "the record's transaction was aborted before the record was acknowledged";
    let error = Error::new(ErrorKind::TransactionAborted, message);
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

/// Returns the interval for reporting topics in use to the client: well below the time after which
/// it forgets them.
fn use_interval(client: &Client) -> Duration {
    (client.settings().metadata_max_idle / 3).max(Duration::from_millis(100))
}

/// Waits for a topic, or, if it is known and lacks a partition, for newer metadata.
async fn look_for(client: Client, name: Arc<str>, deadline: Instant, known: bool) -> BackgroundResult {
    client.want_topics([&*name]);
    let found = if known {
        let version = client.metadata().version;
        client.newer_metadata(version, deadline).await.map(drop)
    } else {
        client.topic(&name, deadline).await.map(drop)
    };
    BackgroundResult::Topic(name, deadline, found)
}

/// Number of UNKNOWN_SERVER_ERROR answers that are retried, because that code is a transient
/// failure of the broker more often than a refusal.
const MISHAPS: u32 = 5;

/// Requests a producer id until there is one or it is refused.
async fn request_producer_id(client: Client) -> BackgroundResult {
    let mut mishaps = 0;
    let mut outage = Outage::after(Duration::ZERO);
    loop {
        match init_producer_id(&client).await {
            // Brokers treat a batch without id or epoch as that of a producer without idempotence.
            Ok(response) if response.producer_id < 0 || response.producer_epoch < 0 => {
                if let Some(Lasting { duration, attempts }) = outage.failed(now()) {
                    let outage_s = duration.as_secs();
                    event!(
                        WARN,
                        client.origin(),
                        ?response,
                        outage_s,
                        attempts,
                        "the broker answered with an invalid producer id; the producer requests one again"
                    );
                }
            }
            Ok(response) => {
                let id = ProducerId { id: response.producer_id, epoch: response.producer_epoch };
                let outage_s = outage.ended(now()).map(|outage| outage.duration.as_secs());
                event!(INFO, client.origin(), producer_id = id.id, epoch = id.epoch, outage_s, "got a producer id");
                return BackgroundResult::ProducerId(Ok(id));
            }
            // An unreadable answer cost its connection; as for a batch, another connection may
            // work.
            Err(error) if error.is_retriable() || error.kind() == ErrorKind::Protocol => {
                if let Some(Lasting { duration, attempts }) = outage.failed(now()) {
                    let outage_s = duration.as_secs();
                    event!(
                        WARN, client.origin(), %error, outage_s, attempts,
                        "no producer id yet, so nothing is sent; the producer requests one again"
                    );
                }
            }
            Err(error) if error.code() == Some(ErrorCode::UNKNOWN_SERVER_ERROR) && mishaps < MISHAPS => {
                mishaps += 1;
                event!(DEBUG, client.origin(), %error, mishaps, "no producer id yet; the producer requests one again");
            }
            Err(error) => return BackgroundResult::ProducerId(Err(error.context("no producer id available"))),
        }
        tokio::time::sleep(client.settings().retry_backoff_max).await;
    }
}

/// Requests a producer id with one call.
async fn init_producer_id(client: &Client) -> Result<InitProducerIdResponse> {
    let deadline = Instant::now() + client.settings().default_api_timeout;
    let response = client
        .call::<InitProducerIdRequest>(
            Route::Any,
            ConnectionKind::Main,
            deadline,
            |_version| InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: i32::MAX,
                producer_id: -1,
                producer_epoch: -1,
            },
            |response| ErrorCode::new(response.error_code),
        )
        .await?;
    match ErrorCode::new(response.error_code).ok() {
        Ok(()) => Ok(response),
        Err(code) => Err(Error::broker(code, "InitProducerId")),
    }
}
