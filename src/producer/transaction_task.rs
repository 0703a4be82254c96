//! Drives the transaction manager within the producer's task: passes it the user's calls, the
//! answers of coordinators and the time, and carries out its actions.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::transaction::{
    action::{Action, Reply},
    coordinator_requests::{CoordinatorRequests, EndedAttempt},
    log::TransactionLog,
    manager::{State, TransactionManager},
    planted::{self, Bug},
    protocol::FEATURE,
    request::{Answer, CallId},
    shared::{PendingCall, TransactionCall, TransactionShared},
    status::TransactionStatus,
};
use crate::{
    cluster::{Client, ConnectionKind, CoordinatorKind},
    error::{Error, ErrorCode, ErrorKind},
    net::BoxFuture,
    record::TopicPartition,
};

/// The call with which the task closes the manager itself, because the producer was dropped.
const OWN_CALL: CallId = CallId(u64::MAX);

/// The transactions of one producer, driven by its task.
pub(super) struct TransactionTask {
    manager: TransactionManager,
    shared: Arc<TransactionShared>,
    requests: CoordinatorRequests,
    /// The attempts in flight: at most one to the transaction's coordinator and one to a group's.
    /// They are polled here and not spawned, because each hand-over between tasks is a part of the
    /// time of a commit.
    attempts: Vec<BoxFuture<'static, EndedAttempt>>,
    replies: HashMap<CallId, oneshot::Sender<Reply>>,
    /// The broker that was last asked as coordinator, by group; `None` for the transactional id.
    coordinators: HashMap<Option<Arc<str>>, i32>,
    log: TransactionLog,
    /// Time at which the features were last asked for or learnt.
    features_at: Instant,
    /// Time until which the task waits for the end of what is open, once the producer was dropped.
    close_by: Option<Instant>,
    is_closed: bool,
    changed: bool,
}

impl TransactionTask {
    pub(super) fn new(shared: Arc<TransactionShared>, client: Client, now: Instant) -> Self {
        let rules = shared.rules().clone();
        Self {
            log: TransactionLog::new(client.origin().clone(), rules.transactional_id.clone()),
            requests: CoordinatorRequests {
                client,
                transactional_id: rules.transactional_id.clone(),
                transaction_timeout: rules.timeout,
            },
            manager: TransactionManager::new(rules),
            shared,
            attempts: Vec::new(),
            replies: HashMap::new(),
            coordinators: HashMap::new(),
            features_at: now,
            close_by: None,
            is_closed: false,
            changed: true,
        }
    }

    /// Waits for the next attempt that has ended; never returns if none is in flight.
    ///
    /// Safe to drop: nothing is lost.
    pub(super) async fn next(&mut self) -> EndedAttempt {
        poll_fn(|cx| {
            for at in 0..self.attempts.len() {
                if let Some(attempt) = self.attempts.get_mut(at)
                    && let Poll::Ready(ended) = attempt.as_mut().poll(cx)
                {
                    drop(self.attempts.swap_remove(at));
                    return Poll::Ready(ended);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Passes the user's calls to the manager, and the time.
    pub(super) fn handle_calls(&mut self, now: Instant) {
        for call in self.shared.take_calls() {
            self.changed = true;
            self.learn_feature();
            self.handle_call(call, now);
        }
        if self.manager.next_timer().is_some_and(|at| at <= now) {
            self.changed = true;
            self.manager.poll(now);
        }
        if self.close_by.is_some_and(|at| at <= now) {
            self.close_now();
        }
    }

    fn handle_call(&mut self, PendingCall { id, call, reply }: PendingCall, now: Instant) {
        let manager = &mut self.manager;
        let replies = &mut self.replies;
        let waits = || _ = replies.insert(id, reply);
        match call {
            TransactionCall::Init => {
                waits();
                manager.init(id, now);
            }
            TransactionCall::Begin => {
                waits();
                manager.begin(id, now);
                self.refresh_features(now);
            }
            TransactionCall::SendOffsets(group, offsets) => {
                waits();
                // Their ids are known to later requests (KIP-1319).
                self.requests.client.want_topics(offsets.iter().map(|(partition, _)| &*partition.topic));
                manager.send_offsets(id, group, offsets, now);
            }
            TransactionCall::Commit => {
                waits();
                manager.commit(id, now);
            }
            TransactionCall::Abort => {
                waits();
                manager.abort(Some(id), now);
            }
            TransactionCall::AbortUnseen if planted::has(Bug::DroppedTransactionGoesOn) => {}
            TransactionCall::AbortUnseen => manager.abort(None, now),
            TransactionCall::Fail(_) if planted::has(Bug::RefusedRecordIsForgotten) => {}
            TransactionCall::Fail(error) => manager.record_refused(error, now),
            TransactionCall::Close => {
                waits();
                manager.close(id, now);
            }
            TransactionCall::CloseNow => self.close_now(),
            TransactionCall::Forget(call) => {
                replies.remove(&call);
                manager.forget(call);
            }
        }
    }

    /// Passes the failure of records to the manager.
    pub(super) fn records_failed(&mut self, (error, numbered): (Error, bool), now: Instant) {
        self.changed = true;
        self.manager.record_failed(self.manager.number(), error, numbered, now);
    }

    /// Passes a partition that is to be added to the manager.
    pub(super) fn partition_wanted(&mut self, number: u64, partition: TopicPartition, slot: usize, now: Instant) {
        self.changed = true;
        self.manager.partition_wanted(number, partition, slot, now);
    }

    /// Passes the first batch of a transaction to the manager.
    pub(super) fn batch_sent(&mut self, number: u64) {
        self.manager.batch_sent(number);
    }

    /// Passes a partition that cannot continue under its sequence numbers to the manager.
    pub(super) fn epoch_used_up(&mut self, number: u64, partition: &TopicPartition, now: Instant) {
        let message = format!(
            "the sequence numbers of {}[{}] cannot continue within this transaction",
            partition.topic, partition.partition
        );
        self.changed = true;
        self.manager.epoch_used_up(number, Error::new(ErrorKind::TransactionFailed, message), now);
    }

    /// Returns true if no call of a `TransactionSender` is in progress. Read this before the calls
    /// are taken: a call that ends later may have queued the failure of its record.
    pub(super) fn senders_left(&self) -> bool {
        self.shared.gate().senders() == 0
    }

    /// Returns true if the end of a transaction waits for the results of its records.
    pub(super) fn is_ending(&self) -> bool {
        self.manager.waits_for_idle()
    }

    /// Returns true if the manager waits until no record is without a result, and none is.
    pub(super) fn has_become_idle(&self, nothing_outstanding: impl FnOnce() -> bool) -> bool {
        let overtakes = match self.manager.state() {
            State::Flushing => planted::has(Bug::CommitOvertakesRecords),
            _ => planted::has(Bug::AbortOvertakesRecords),
        };
        self.manager.waits_for_idle() && (overtakes || nothing_outstanding())
    }

    /// Tells the manager that no record is without a result, and no request in flight.
    pub(super) fn idle(&mut self, now: Instant) {
        self.changed = true;
        self.manager.idle(self.manager.number(), now);
    }

    /// Handles an attempt that has ended.
    pub(super) fn handle_ended(&mut self, ended: EndedAttempt, now: Instant) {
        self.changed = true;
        self.learn_feature();
        if let Some(node) = ended.node {
            self.coordinators.insert(ended.group, node);
        }
        match ended.result {
            Ok(answer) => {
                if names_unknown_id(&answer) {
                    // The topic was created again: the metadata has its new id.
                    self.requests.client.refresh_metadata();
                }
                self.manager.answered(ended.id, &answer, now);
            }
            Err(failure) => self.manager.failed(ended.id, failure, now),
        }
        self.log.repeated(self.manager.repeated(), now);
    }

    /// Starts to end what is open, because the producer was dropped; at most for `time`.
    pub(super) fn start_closing(&mut self, time: Duration, now: Instant) {
        if self.close_by.is_none() && !self.is_closed {
            self.changed = true;
            self.close_by = Some(now + time);
            self.manager.close(OWN_CALL, now);
        }
    }

    /// Gives up what is open.
    pub(super) fn close_now(&mut self) {
        if !self.is_closed {
            self.changed = true;
            self.manager.close_now();
            self.is_closed = true;
        }
    }

    /// Returns true if nothing is left to do at the coordinators.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns the time at which [`handle_calls`](Self::handle_calls) is due without a call.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.manager.next_timer().into_iter().chain(self.close_by.filter(|_| !self.is_closed)).min()
    }

    /// Returns the manager's next actions. They are carried out one after the other, each by the
    /// sender first: as soon as a call has its reply, another thread may send.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        let actions = self.manager.take_actions();
        // The outcome is readable before the call returns.
        if !actions.is_empty()
            && let Some((number, outcome)) = self.manager.last_outcome()
        {
            self.shared.set_last_outcome(*number, outcome.clone());
        }
        actions
    }

    /// Carries out the part of an action that is not the sender's.
    pub(super) fn carry_out(&mut self, action: Action, now: Instant) {
        match action {
            Action::Send { attempt, request, versions } => {
                self.attempts.push(Box::pin(self.requests.clone().attempt(attempt, request, versions)));
            }
            Action::ForgetTransactionCoordinator => self.forget_coordinator(None),
            Action::ForgetGroupCoordinator(group) => self.forget_coordinator(Some(group)),
            Action::Reply(call, reply) => self.reply(call, reply, now),
            Action::Notice(notice) => self.log.write(&notice, now),
            Action::SetIdentity { number, .. } => self.shared.gate().open(number),
            Action::CloseGate => self.shared.gate().close(),
            Action::FailUnsent(_) | Action::PartitionsAdded(..) | Action::FlushAll => {}
        }
    }

    /// Refuses further records of a transaction that has failed; before the sender fails those that
    /// wait, so that few come after them.
    pub(super) fn refuse(&self, cause: &Error) {
        self.shared.gate().fail(cause.clone());
    }

    /// Publishes the manager's state, if it may have changed.
    pub(super) fn publish(&mut self, now: Instant) {
        if std::mem::take(&mut self.changed) {
            self.shared.publish(TransactionStatus::of(&self.manager), now);
        }
    }

    /// Gives up what is open, and replies to the calls that wait: the producer has ended.
    pub(super) fn finish(&mut self, now: Instant) {
        self.close_now();
        for action in self.take_actions() {
            self.carry_out(action, now);
        }
        self.publish(now);
    }

    fn reply(&mut self, call: CallId, reply: Reply, now: Instant) {
        if matches!(reply, Reply::Closed) {
            self.is_closed = true;
        }
        let began = matches!(reply, Reply::Began(Ok(_)));
        let was_taken = self.replies.remove(&call).is_some_and(|caller| caller.send(reply).is_ok());
        if began && !was_taken {
            // Its caller has gone, so nothing else would end the transaction.
            self.manager.abort(None, now);
        }
    }

    fn forget_coordinator(&mut self, group: Option<Arc<str>>) {
        let Some(node) = self.coordinators.remove(&group) else { return };
        let client = &self.requests.client;
        match &group {
            Some(group) => client.forget_coordinator(CoordinatorKind::Group, group, node),
            None => client.forget_coordinator(CoordinatorKind::Transaction, &self.requests.transactional_id, node),
        }
    }

    /// Tells the manager the level of the feature that decides on the protocol.
    fn learn_feature(&mut self) {
        let level = self.requests.client.feature_with_epoch(FEATURE).map(|(level, _)| level);
        self.manager.feature_learned(level);
    }

    /// Asks the coordinator for the cluster's features if that was not done for
    /// `metadata.max.age.ms`: its connection may be older than a change of them.
    fn refresh_features(&mut self, now: Instant) {
        let client = &self.requests.client;
        if now.saturating_duration_since(self.features_at) < client.settings().metadata_max_age {
            return;
        }
        if let Some(node) = self.coordinators.get(&None) {
            self.features_at = now;
            client.refresh_features(*node, ConnectionKind::Main);
        }
    }
}

fn names_unknown_id(answer: &Answer) -> bool {
    matches!(answer, Answer::Partitions(codes) if codes.iter().any(|(_, code)| *code == ErrorCode::UNKNOWN_TOPIC_ID))
}
