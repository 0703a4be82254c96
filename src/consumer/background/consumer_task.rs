//! The consumer's main task: resolves positions, starts fetch tasks, follows the group, and commits
//! automatically.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::consumer::{
    background::{
        offset_request_task::send_offset_request,
        rebalance_call::RebalanceCall,
        rebalance_listener_task::ListenerTask,
        revocation_task::Revocation,
        shared::{Mode, Shared, after},
    },
    buffer::fetch_buffer::FetchBuffer,
    fetch::connection_id::FetchConnectionId,
    group::{GroupEvent, RetryPolicy},
    lock::lock,
    observability::consumer_status::STALLED,
    subscription::fetch_position::FetchState,
};
use crate::{
    error::{Error, ErrorKind},
    record::TopicPartition,
};

/// Interval of health checks while a partition has no leader, and of observations.
const SOON: Duration = Duration::from_secs(1);
/// Interval at which the client is told that the topics are still of interest.
const SELDOM: Duration = Duration::from_secs(60);
/// Interval of metadata requests for subscribed topics that are missing or forbidden.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// The kind of a child task that has ended.
enum EndedTask {
    /// A fetch task of that connection: the broker or the connection is no longer used.
    Fetch(FetchConnectionId),
    OffsetRequest,
    AutoCommit,
    Revocation,
    SessionClose,
    /// The listener task, which runs as long as the consumer.
    Listener,
    QueuedCommits,
}

pub(crate) struct ConsumerTask {
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<GroupEvent>,
    listener_calls: Option<mpsc::UnboundedReceiver<RebalanceCall>>,
    /// Tasks that end with this one, however it ends.
    children: JoinSet<EndedTask>,
    fetching: HashSet<FetchConnectionId>,
    revocations: Vec<Revocation>,
    next_commit: Instant,
    committing: bool,
    committing_queued: bool,
    next_health_check: Instant,
    next_observation: Instant,
    /// A field of the task, so that it is dropped even if the runtime is dropped before the task
    /// starts.
    _termination_guard: TerminationGuard,
}

/// Reports to the reader that the task has ended without a close, because its runtime was dropped.
struct TerminationGuard(Arc<FetchBuffer>);

impl Drop for TerminationGuard {
    fn drop(&mut self) {
        self.0.with_state(|state| {
            if !state.readers.has_ended() {
                state.end(Some(Error::new(ErrorKind::Closed, "the consumer's runtime was dropped")));
            }
        });
    }
}

impl ConsumerTask {
    pub(crate) fn new(
        shared: Arc<Shared>,
        events: mpsc::UnboundedReceiver<GroupEvent>,
        calls: mpsc::UnboundedReceiver<RebalanceCall>,
    ) -> Self {
        Self {
            _termination_guard: TerminationGuard(shared.buffer.clone()),
            next_commit: after(shared.settings.auto_commit_interval),
            shared,
            events,
            listener_calls: Some(calls),
            children: JoinSet::new(),
            fetching: HashSet::new(),
            revocations: Vec::new(),
            committing: false,
            committing_queued: false,
            next_health_check: Instant::now(),
            next_observation: Instant::now(),
        }
    }

    /// Runs until it is aborted, or the client is closed.
    pub(crate) async fn run(mut self) {
        let mut changes = self.shared.client.metadata_changes();
        if let Some(calls) = self.listener_calls.take() {
            let task = ListenerTask { shared: self.shared.clone(), calls };
            self.children.spawn(async move {
                task.run().await;
                EndedTask::Listener
            });
        }
        loop {
            self.start_fetch_tasks();
            self.close_ended_sessions();
            self.send_offset_requests();
            self.finish_revocations();
            self.check_health();
            self.observe();
            self.auto_commit();
            self.run_queued_commits();
            let due = self.next_due();
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.handle_group_event(event),
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let metadata = self.shared.client.metadata();
                    let now = Instant::now().into_std();
                    self.shared.buffer.with_state(|state| state.metadata_changed(&metadata, now));
                }
                Some(ended) = self.children.join_next() => self.ended(ended),
                () = shared.buffer.task.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn next_due(&self) -> Instant {
        let (question, absence) = self.shared.buffer.with_state(|state| {
            let (question, absence) = (state.next_offset_request_at(), state.wanted_topics.next_due());
            (question.map(Instant::from_std), absence.map(Instant::from_std))
        });
        let commit = (self.shared.auto_commits() && !self.committing).then_some(self.next_commit);
        [question, absence, commit]
            .into_iter()
            .flatten()
            .fold(self.next_health_check.min(self.next_observation), Instant::min)
    }

    fn ended(&mut self, ended: Result<EndedTask, JoinError>) {
        match ended {
            Ok(EndedTask::AutoCommit) => self.committing = false,
            Ok(EndedTask::QueuedCommits) => self.committing_queued = false,
            Ok(EndedTask::Fetch(node)) => _ = self.fetching.remove(&node),
            Ok(EndedTask::OffsetRequest | EndedTask::SessionClose | EndedTask::Revocation | EndedTask::Listener) => {}
            Err(error) if error.is_panic() => {
                let error = Error::new(ErrorKind::Internal, "a task of the consumer panicked").with_source(error);
                self.shared.buffer.with_state(|state| state.end(Some(error)));
            }
            Err(_) => {}
        }
    }

    // ---- fetching

    /// Starts a task for each new fetch connection.
    fn start_fetch_tasks(&mut self) {
        let fetching = &self.fetching;
        let new: Vec<FetchConnectionId> = self
            .shared
            .buffer
            .with_state(|state| state.connections.ids().filter(|node| !fetching.contains(node)).collect());
        for node in new {
            self.fetching.insert(node);
            let task = self.shared.fetch_task();
            self.children.spawn(async move {
                task.run(node).await;
                EndedTask::Fetch(node)
            });
        }
    }

    /// Closes ended fetch sessions at their brokers.
    fn close_ended_sessions(&mut self) {
        for close in self.shared.buffer.with_state(|state| state.connections.take_session_closes()) {
            let task = self.shared.fetch_task();
            self.children.spawn(async move {
                task.close_session(close, task.timeout).await;
                EndedTask::SessionClose
            });
        }
    }

    /// Reports failures that last, and keeps the client interested in the consumer's topics.
    fn check_health(&mut self) {
        let now = Instant::now();
        let absence = self.shared.buffer.with_state(|state| state.wanted_topics.next_due());
        if now < self.next_health_check && absence.is_none_or(|due| now.into_std() < due) {
            return;
        }
        let client = &self.shared.client;
        let failure = client.metadata_failure();
        let subscribed = self.is_subscribed();
        let metadata = client.metadata();
        let (assigned, lacking, absent) = self.shared.buffer.with_state(|state| {
            state.update_wanted_topics(&metadata, now.into_std());
            state.report_persistent_failures(failure, subscribed, now.into_std());
            let lacking = state.lacks_leaders() || (subscribed && !state.health.has_metadata());
            (state.partitions.names(), lacking, state.wanted_topics.any_absent())
        });
        client.want_topics(assigned.iter().map(|partition| &*partition.topic));
        if lacking || absent {
            client.refresh_metadata();
        }
        self.next_health_check = now
            + match (lacking, absent) {
                (true, _) => SOON,
                (false, true) => NOW_AND_THEN,
                (false, false) => SELDOM,
            };
    }

    /// Updates the wait reason of each partition every second.
    fn observe(&mut self) {
        let now = Instant::now();
        if now >= self.next_observation {
            self.next_observation = now + SOON;
            let is_out = self.shared.group.as_ref().is_some_and(|group| group.status().state.is_out());
            self.shared.buffer.with_state(|state| {
                if is_out {
                    state.stats.rebalances.left();
                }
                state.observe(STALLED, now.into_std());
            });
        }
    }

    fn is_subscribed(&self) -> bool {
        *lock(&self.shared.mode) == Mode::Subscribed
    }

    // ---- positions

    fn send_offset_requests(&mut self) {
        let now = Instant::now().into_std();
        let subscribed = self.is_subscribed();
        let (questions, lacking) = self.shared.buffer.with_state(|state| {
            (state.due_offset_requests(now), state.lacks_leaders() || (subscribed && !state.health.has_metadata()))
        });
        if lacking {
            // There are new partitions to read, so the next health check must come soon.
            self.next_health_check = self.next_health_check.min(Instant::now() + SOON);
        }
        for question in questions {
            let shared = self.shared.clone();
            self.children.spawn(async move {
                if send_offset_request(&shared, question).await {
                    shared.client.refresh_metadata();
                }
                EndedTask::OffsetRequest
            });
        }
    }

    // ---- the group

    fn handle_group_event(&mut self, event: GroupEvent) {
        let buffer = &self.shared.buffer;
        match event {
            GroupEvent::Assigned { partitions } => self.take_assigned(partitions),
            GroupEvent::Revoking { partitions, done } => self.begin_revocation(&partitions, done),
            GroupEvent::Lost { partitions } => self.drop_lost(&partitions),
            GroupEvent::Error { error, fatal: true } => {
                buffer.with_state_and_readers(|state| state.end(Some(error)));
            }
            GroupEvent::Error { error, fatal: false } => buffer.with_state(|state| state.readers.push_error(error)),
        }
    }

    /// Starts to read assigned partitions. If there is a rebalance listener, they are held until
    /// its `on_assigned` has returned.
    fn take_assigned(&self, partitions: Vec<TopicPartition>) {
        let shared = &self.shared;
        shared.client.want_topics(partitions.iter().map(|partition| &*partition.topic));
        let (metadata, now) = (shared.client.metadata(), Instant::now().into_std());
        let listens = shared.has_listener();
        let held = shared.buffer.with_state_and_readers(|state| {
            state.stats.rebalances.assigned(partitions.len(), now);
            let mut held = Vec::new();
            if !self.is_subscribed() {
                // The user has unsubscribed, but the group does not know it yet; it will revoke
                // these partitions at once.
                return held;
            }
            for partition in partitions {
                if state.partitions.is_owned(&partition) {
                    continue;
                }
                if listens {
                    let generation = state.assign_held(&partition, &metadata, now);
                    held.push((partition, generation));
                } else {
                    state.assign_by_group(&partition, FetchState::Initializing, &metadata, now);
                }
            }
            held
        });
        if listens {
            shared.call_listener(RebalanceCall::Assigned(held));
        }
    }

    /// Delivers nothing more of revoked partitions. They are given up by
    /// [`finish_revocations`](Self::finish_revocations).
    fn begin_revocation(&mut self, partitions: &[TopicPartition], done: oneshot::Sender<()>) {
        let (buffer, now) = (&self.shared.buffer, Instant::now().into_std());
        let revoked = buffer.with_state_and_readers(|state| {
            state.stats.rebalances.revoking(partitions.len(), now);
            let ownerships = state.partitions.ownerships(partitions);
            state.revoke(&ownerships);
            ownerships
        });
        buffer.revocations.fetch_add(1, SeqCst);
        self.revocations.push(Revocation::new(revoked, done));
    }

    /// Removes lost partitions at once; other members may own them already.
    fn drop_lost(&mut self, partitions: &[TopicPartition]) {
        let (shared, now) = (&self.shared, Instant::now().into_std());
        let (lost, unannounced) = shared.buffer.with_state_and_readers(|state| {
            state.stats.rebalances.lost(partitions.len(), now);
            let lost = state.partitions.ownerships(partitions);
            let unannounced = state.partitions.announce_revocation(Some(&lost));
            state.remove_all(&lost);
            (lost, unannounced)
        });
        if !unannounced.is_empty() && shared.has_listener() {
            shared.call_listener(RebalanceCall::Lost(unannounced));
        }
        self.revocations.iter_mut().for_each(|revocation| revocation.leave_out(&lost));
    }

    /// Completes the revocations of partitions that no reader holds any more.
    fn finish_revocations(&mut self) {
        if self.revocations.is_empty() {
            return;
        }
        let buffer = &self.shared.buffer;
        // After an unsubscribe the partitions are given up at once; records that the reader holds
        // are not committed.
        let waits = self.is_subscribed();
        let free: Vec<Revocation> =
            self.revocations.extract_if(.., |revocation| !(waits && revocation.is_held(buffer))).collect();
        buffer.revocations.fetch_sub(free.len(), SeqCst);
        for revocation in free {
            let shared = self.shared.clone();
            self.children.spawn(async move {
                revocation.complete(&shared).await;
                EndedTask::Revocation
            });
        }
    }

    /// Runs the user's queued commits in the background.
    fn run_queued_commits(&mut self) {
        if !self.committing_queued && !self.shared.commit_queue.is_empty() {
            self.committing_queued = true;
            let shared = self.shared.clone();
            self.children.spawn(async move {
                shared.run_queued_commits(shared.deadline()).await;
                EndedTask::QueuedCommits
            });
        }
    }

    /// Commits what is done, every `auto.commit.interval.ms`.
    fn auto_commit(&mut self) {
        let due = self.shared.auto_commits() && !self.committing && Instant::now() >= self.next_commit;
        if !due {
            return;
        }
        self.committing = true;
        self.next_commit = after(self.shared.settings.auto_commit_interval);
        let shared = self.shared.clone();
        self.children.spawn(async move {
            let deadline = shared.deadline();
            if let Err(error) = shared.commit_completed(None, RetryPolicy::OneResponse, deadline).await {
                shared.log_failed_commit(&error);
            }
            EndedTask::AutoCommit
        });
    }
}
