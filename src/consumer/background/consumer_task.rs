//! The consumer's own task: asks for positions, begins to fetch, follows the group, commits by
//! itself.

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
        shared::{Mode, Shared, after},
    },
    buffer::fetch_buffer::FetchBuffer,
    fetch::connection_id::FetchConnectionId,
    group::status::GroupState,
    group::{GroupEvent, RetryPolicy},
    lock::lock,
    observability::consumer_status::STALLED,
    subscription::{fetch_position::FetchState, ownership::Ownership},
};
use crate::{
    error::{Error, ErrorKind},
    log::{event, several},
};

/// How often a partition without a leader is looked after.
const SOON: Duration = Duration::from_secs(1);
/// How often the topics that are read are said to be still of interest.
const SELDOM: Duration = Duration::from_secs(60);
/// How often topics are asked for that are subscribed to and missing or forbidden.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// Partitions that are to be given up.
struct Revocation {
    partitions: Vec<Ownership>,
    done: oneshot::Sender<()>,
}

/// What a task that this one started was for.
enum EndedTask {
    /// Fetching from that broker over that connection: the one or the other is gone.
    Fetch(FetchConnectionId),
    OffsetRequest,
    AutoCommit,
    Revocation,
    SessionClose,
    /// Goes on as long as the consumer.
    Listener,
    QueuedCommits,
}

pub(crate) struct ConsumerTask {
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<GroupEvent>,
    listener_calls: Option<mpsc::UnboundedReceiver<RebalanceCall>>,
    /// Ended with this one, whichever way it ends.
    children: JoinSet<EndedTask>,
    fetching: HashSet<FetchConnectionId>,
    revocations: Vec<Revocation>,
    next_commit: Instant,
    committing: bool,
    committing_queued: bool,
    next_health_check: Instant,
    next_observation: Instant,
    /// Here, so that it is spoken also when the runtime is dropped before the task has begun.
    _termination_guard: TerminationGuard,
}

/// Tells the reader when the task has ended without a close: its runtime was dropped.
struct TerminationGuard(Arc<FetchBuffer>);

impl Drop for TerminationGuard {
    fn drop(&mut self) {
        self.0.with_state(|assignment| {
            if !assignment.has_ended() {
                assignment.end(Some(Error::new(ErrorKind::Closed, "the consumer's runtime was dropped")));
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

    /// Goes on until it is aborted, or the client is closed.
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
                    self.shared.buffer.with_state(|assignment| assignment.metadata_changed(&metadata, now));
                }
                Some(ended) = self.children.join_next() => self.ended(ended),
                () = shared.buffer.task.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn next_due(&self) -> Instant {
        let (question, absence) = self.shared.buffer.with_state(|assignment| {
            let (question, absence) = (assignment.next_offset_request_at(), assignment.wanted_topics.next_due());
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
                self.shared.buffer.with_state(|assignment| assignment.end(Some(error)));
            }
            Err(_) => {}
        }
    }

    // ---- fetching

    /// A task for each connection to a broker over which something is to be fetched.
    fn start_fetch_tasks(&mut self) {
        let fetching = &self.fetching;
        let new: Vec<FetchConnectionId> = self.shared.buffer.with_state(|assignment| {
            assignment.connections.keys().copied().filter(|node| !fetching.contains(node)).collect()
        });
        for node in new {
            self.fetching.insert(node);
            let task = self.shared.fetch_task();
            self.children.spawn(async move {
                task.run(node).await;
                EndedTask::Fetch(node)
            });
        }
    }

    /// Tells brokers of sessions that are over.
    fn close_ended_sessions(&mut self) {
        for close in self.shared.buffer.with_state(|assignment| assignment.take_session_closes()) {
            let task = self.shared.fetch_task();
            self.children.spawn(async move {
                task.close_session(close, task.timeout).await;
                EndedTask::SessionClose
            });
        }
    }

    /// Looks for what has been in the way for long, and keeps the client interested in our topics.
    fn check_health(&mut self) {
        let now = Instant::now();
        let absence = self.shared.buffer.with_state(|assignment| assignment.wanted_topics.next_due());
        if now < self.next_health_check && absence.is_none_or(|due| now.into_std() < due) {
            return;
        }
        let client = &self.shared.client;
        let failure = client.metadata_failure();
        let subscribed = self.is_subscribed();
        let metadata = client.metadata();
        let (assigned, lacking, absent) = self.shared.buffer.with_state(|assignment| {
            assignment.update_wanted_topics(&metadata, now.into_std());
            assignment.report_persistent_failures(failure, subscribed, now.into_std());
            let lacking = assignment.lacks_leaders() || (subscribed && assignment.lacks_metadata());
            (assignment.assigned(), lacking, assignment.wanted_topics.any_absent())
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

    /// Looks every second what each partition waits for.
    fn observe(&mut self) {
        let now = Instant::now();
        if now >= self.next_observation {
            self.next_observation = now + SOON;
            let group = self.shared.group.as_ref().map(|group| group.status().state);
            let is_out = matches!(group, Some(GroupState::Unsubscribed | GroupState::WaitingForReader));
            self.shared.buffer.with_state(|assignment| {
                if is_out {
                    assignment.stats.rebalances.left();
                }
                assignment.observe(STALLED, now.into_std());
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
        let (questions, lacking) = self.shared.buffer.with_state(|assignment| {
            (
                assignment.due_offset_requests(now),
                assignment.lacks_leaders() || (subscribed && assignment.lacks_metadata()),
            )
        });
        if lacking {
            // Something new to read: no need to wait for the next look around.
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
        let buffer = self.shared.buffer.clone();
        match event {
            GroupEvent::Assigned { partitions } => {
                self.shared.client.want_topics(partitions.iter().map(|partition| &*partition.topic));
                let metadata = self.shared.client.metadata();
                let now = Instant::now().into_std();
                let listens = self.shared.has_listener();
                let held = buffer.with_state_and_readers(|assignment| {
                    assignment.stats.rebalances.assigned(partitions.len(), now);
                    let mut held = Vec::new();
                    if !self.is_subscribed() {
                        // The user has turned away, and the group will hear of it: it takes them
                        // back at once.
                        return held;
                    }
                    for partition in partitions {
                        if assignment.is_owned(&partition) {
                            continue;
                        }
                        if listens {
                            let generation = assignment.assign_held(&partition, &metadata, now);
                            held.push((partition, generation));
                        } else {
                            assignment.assign_by_group(&partition, FetchState::Initializing, &metadata, now);
                        }
                    }
                    held
                });
                if listens {
                    self.shared.call_listener(RebalanceCall::Assigned(held));
                }
            }
            GroupEvent::Revoking { partitions, done } => {
                let now = Instant::now().into_std();
                let partitions = buffer.with_state_and_readers(|assignment| {
                    assignment.stats.rebalances.revoking(partitions.len(), now);
                    let ownerships = assignment.ownerships(&partitions);
                    assignment.revoke(&ownerships);
                    ownerships
                });
                buffer.revocations.fetch_add(1, SeqCst);
                self.revocations.push(Revocation { partitions, done });
            }
            GroupEvent::Lost { partitions } => {
                let now = Instant::now().into_std();
                let (lost, untold) = buffer.with_state_and_readers(|assignment| {
                    assignment.stats.rebalances.lost(partitions.len(), now);
                    let lost = assignment.ownerships(&partitions);
                    let untold = assignment.announce_revocation(Some(&lost));
                    assignment.remove_all(&lost);
                    (lost, untold)
                });
                if !untold.is_empty() && self.shared.has_listener() {
                    self.shared.call_listener(RebalanceCall::Lost(untold));
                }
                for revocation in &mut self.revocations {
                    revocation.partitions.retain(|partition| !lost.contains(partition));
                }
            }
            GroupEvent::Error { error, fatal: true } => {
                buffer.with_state_and_readers(|assignment| assignment.end(Some(error)))
            }
            GroupEvent::Error { error, fatal: false } => buffer.with_state(|assignment| assignment.push_error(error)),
        }
    }

    /// Gives up what the reader no longer holds: commits what it has done of it, and answers the
    /// group.
    fn finish_revocations(&mut self) {
        if self.revocations.is_empty() {
            return;
        }
        let buffer = &self.shared.buffer;
        // Who unsubscribes gives up at once, what is in hand too (it is not committed).
        let waits = self.is_subscribed();
        let held = |revocation: &mut Revocation| {
            waits && buffer.holds(&buffer.with_state(|assignment| assignment.still_owned(&revocation.partitions)))
        };
        let free: Vec<Revocation> = self.revocations.extract_if(.., |revocation| !held(revocation)).collect();
        buffer.revocations.fetch_sub(free.len(), SeqCst);
        for Revocation { partitions, done } in free {
            let shared = self.shared.clone();
            self.children.spawn(async move {
                let deadline = after(shared.settings.max_poll_interval.min(shared.settings.session_timeout));
                shared.run_queued_commits(deadline).await;
                let read = shared.buffer.with_state(|assignment| assignment.still_owned(&partitions));
                if shared.auto_commits()
                    && let Err(error) =
                        shared.commit_completed(Some(&read), RetryPolicy::UntilCommitted, deadline).await
                {
                    event!(
                        WARN, shared.client.origin(), %error, partitions = %several(&read), count = read.len(),
                        "offsets of revoked partitions could not be committed: the member that reads them next reads \
                         records again from the last commit on"
                    );
                }
                let deadline = after(shared.settings.max_poll_interval);
                if let Err(error) = shared.announce_revocation(Some(&partitions), deadline).await {
                    event!(
                        WARN, shared.client.origin(), %error,
                        "partitions are given up though the rebalance listener is not done with them"
                    );
                }
                shared.buffer.with_state_and_readers(|assignment| assignment.remove_all(&partitions));
                // The group may have given up waiting.
                let _ = done.send(());
                EndedTask::Revocation
            });
        }
    }

    /// Commits in the background what the user asked for.
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
