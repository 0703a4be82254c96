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

use super::{
    assignment::Tenure,
    consumer_status::STALLED,
    group::{GroupEvent, Insistence},
    inbox::{Inbox, lock},
    lanes::Source,
    listener_task::{ListenerTask, Tell},
    position::State,
    questions_task::ask,
    shared::{Mode, Shared, after},
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
    partitions: Vec<Tenure>,
    done: oneshot::Sender<()>,
}

/// What a task that this one started was for.
enum Ended {
    /// Fetching from that broker over that connection: the one or the other is gone.
    Fetching(Source),
    Question,
    AutoCommit,
    Revocation,
    Farewell,
    /// Goes on as long as the consumer.
    Listener,
    Asked,
}

pub(super) struct ConsumerTask {
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<GroupEvent>,
    calls: Option<mpsc::UnboundedReceiver<Tell>>,
    /// Ended with this one, whichever way it ends.
    children: JoinSet<Ended>,
    fetching: HashSet<Source>,
    revocations: Vec<Revocation>,
    next_commit: Instant,
    committing: bool,
    committing_asked: bool,
    next_look: Instant,
    next_observation: Instant,
    /// Here, so that it is spoken also when the runtime is dropped before the task has begun.
    _last_word: LastWord,
}

/// Tells the reader when the task has ended without a close: its runtime was dropped.
struct LastWord(Arc<Inbox>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.with(|assignment| {
            if !assignment.has_ended() {
                assignment.end(Some(Error::new(ErrorKind::Closed, "the consumer's runtime was dropped")));
            }
        });
    }
}

impl ConsumerTask {
    pub(super) fn new(
        shared: Arc<Shared>,
        events: mpsc::UnboundedReceiver<GroupEvent>,
        calls: mpsc::UnboundedReceiver<Tell>,
    ) -> Self {
        Self {
            _last_word: LastWord(shared.inbox.clone()),
            next_commit: after(shared.settings.auto_commit_interval),
            shared,
            events,
            calls: Some(calls),
            children: JoinSet::new(),
            fetching: HashSet::new(),
            revocations: Vec::new(),
            committing: false,
            committing_asked: false,
            next_look: Instant::now(),
            next_observation: Instant::now(),
        }
    }

    /// Goes on until it is aborted, or the client is closed.
    pub(super) async fn run(mut self) {
        let mut changes = self.shared.client.metadata_changes();
        if let Some(calls) = self.calls.take() {
            let task = ListenerTask { shared: self.shared.clone(), calls };
            self.children.spawn(async move {
                task.run().await;
                Ended::Listener
            });
        }
        loop {
            self.begin_fetching();
            self.bid_farewell();
            self.ask_questions();
            self.give_up();
            self.look_after();
            self.observe();
            self.commit_by_itself();
            self.commit_asked();
            let due = self.next_due();
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.follow(event),
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let metadata = self.shared.client.metadata();
                    let now = Instant::now().into_std();
                    self.shared.inbox.with(|assignment| assignment.metadata_changed(&metadata, now));
                }
                Some(ended) = self.children.join_next() => self.ended(ended),
                () = shared.inbox.driver.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn next_due(&self) -> Instant {
        let (question, absence) = self.shared.inbox.with(|assignment| {
            let (question, absence) = (assignment.next_question(), assignment.topics.next_due());
            (question.map(Instant::from_std), absence.map(Instant::from_std))
        });
        let commit = (self.shared.commits_by_itself() && !self.committing).then_some(self.next_commit);
        [question, absence, commit].into_iter().flatten().fold(self.next_look.min(self.next_observation), Instant::min)
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended::AutoCommit) => self.committing = false,
            Ok(Ended::Asked) => self.committing_asked = false,
            Ok(Ended::Fetching(node)) => _ = self.fetching.remove(&node),
            Ok(Ended::Question | Ended::Farewell | Ended::Revocation | Ended::Listener) => {}
            Err(error) if error.is_panic() => {
                let error = Error::new(ErrorKind::Internal, "a task of the consumer panicked").with_source(error);
                self.shared.inbox.with(|assignment| assignment.end(Some(error)));
            }
            Err(_) => {}
        }
    }

    // ---- fetching

    /// A task for each connection to a broker over which something is to be fetched.
    fn begin_fetching(&mut self) {
        let fetching = &self.fetching;
        let new: Vec<Source> = self
            .shared
            .inbox
            .with(|assignment| assignment.nodes.keys().copied().filter(|node| !fetching.contains(node)).collect());
        for node in new {
            self.fetching.insert(node);
            let task = self.shared.fetch_task();
            self.children.spawn(async move {
                task.run(node).await;
                Ended::Fetching(node)
            });
        }
    }

    /// Tells brokers of sessions that are over.
    fn bid_farewell(&mut self) {
        for farewell in self.shared.inbox.with(|assignment| assignment.take_farewells()) {
            let task = self.shared.fetch_task();
            self.children.spawn(async move {
                task.close_session(farewell, task.timeout).await;
                Ended::Farewell
            });
        }
    }

    /// Looks for what has been in the way for long, and keeps the client interested in our topics.
    fn look_after(&mut self) {
        let now = Instant::now();
        let absence = self.shared.inbox.with(|assignment| assignment.topics.next_due());
        if now < self.next_look && absence.is_none_or(|due| now.into_std() < due) {
            return;
        }
        let client = &self.shared.client;
        let failure = client.metadata_failure();
        let subscribed = self.is_subscribed();
        let metadata = client.metadata();
        let (assigned, lacking, absent) = self.shared.inbox.with(|assignment| {
            assignment.look_at_topics(&metadata, now.into_std());
            assignment.check_trouble(failure, subscribed, now.into_std());
            let lacking = assignment.lacks_leaders() || (subscribed && assignment.is_blind());
            (assignment.assigned(), lacking, assignment.topics.any_absent())
        });
        client.want_topics(assigned.iter().map(|partition| &*partition.topic));
        if lacking || absent {
            client.refresh_metadata();
        }
        self.next_look = now
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
            self.shared.inbox.with(|assignment| assignment.observe(STALLED, now.into_std()));
        }
    }

    fn is_subscribed(&self) -> bool {
        *lock(&self.shared.mode) == Mode::Subscribed
    }

    // ---- positions

    fn ask_questions(&mut self) {
        let now = Instant::now().into_std();
        let subscribed = self.is_subscribed();
        let (questions, lacking) = self.shared.inbox.with(|assignment| {
            (assignment.questions(now), assignment.lacks_leaders() || (subscribed && assignment.is_blind()))
        });
        if lacking {
            // Something new to read: no need to wait for the next look around.
            self.next_look = self.next_look.min(Instant::now() + SOON);
        }
        for question in questions {
            let shared = self.shared.clone();
            self.children.spawn(async move {
                if ask(&shared, question).await {
                    shared.client.refresh_metadata();
                }
                Ended::Question
            });
        }
    }

    // ---- the group

    fn follow(&mut self, event: GroupEvent) {
        let inbox = self.shared.inbox.clone();
        match event {
            GroupEvent::Assigned { partitions } => {
                self.shared.client.want_topics(partitions.iter().map(|partition| &*partition.topic));
                let metadata = self.shared.client.metadata();
                let now = Instant::now().into_std();
                let listens = self.shared.has_listener();
                let held = inbox.control(|assignment| {
                    assignment.watch.rebalances.assigned(partitions.len(), now);
                    let mut held = Vec::new();
                    if !self.is_subscribed() {
                        // The user has turned away, and the group will hear of it: it takes them
                        // back at once.
                        return held;
                    }
                    for partition in partitions {
                        if assignment.keeps(&partition) {
                            continue;
                        }
                        if listens {
                            let generation = assignment.hold(&partition, &metadata, now);
                            held.push((partition, generation));
                        } else {
                            assignment.assign_by_group(&partition, State::Committed, &metadata, now);
                        }
                    }
                    held
                });
                if listens {
                    self.shared.tell(Tell::Assigned(held));
                }
            }
            GroupEvent::Revoking { partitions, done } => {
                let now = Instant::now().into_std();
                let partitions = inbox.control(|assignment| {
                    assignment.watch.rebalances.revoking(partitions.len(), now);
                    let tenures = assignment.tenures(&partitions);
                    assignment.revoke(&tenures);
                    tenures
                });
                inbox.revocations.fetch_add(1, SeqCst);
                self.revocations.push(Revocation { partitions, done });
            }
            GroupEvent::Lost { partitions } => {
                let now = Instant::now().into_std();
                let (lost, untold) = inbox.control(|assignment| {
                    assignment.watch.rebalances.lost(partitions.len(), now);
                    let lost = assignment.tenures(&partitions);
                    let untold = assignment.take_leave(Some(&lost));
                    assignment.remove_all(&lost);
                    (lost, untold)
                });
                if !untold.is_empty() && self.shared.has_listener() {
                    self.shared.tell(Tell::Lost(untold));
                }
                for revocation in &mut self.revocations {
                    revocation.partitions.retain(|partition| !lost.contains(partition));
                }
            }
            GroupEvent::Error { error, fatal: true } => inbox.control(|assignment| assignment.end(Some(error))),
            GroupEvent::Error { error, fatal: false } => inbox.with(|assignment| assignment.push_error(error)),
        }
    }

    /// Gives up what the reader no longer holds: commits what it has done of it, and answers the
    /// group.
    fn give_up(&mut self) {
        if self.revocations.is_empty() {
            return;
        }
        let inbox = &self.shared.inbox;
        // Who unsubscribes gives up at once, what is in hand too (it is not committed).
        let waits = self.is_subscribed();
        let held = |revocation: &mut Revocation| {
            waits && inbox.holds(&inbox.with(|assignment| assignment.still_read(&revocation.partitions)))
        };
        let free: Vec<Revocation> = self.revocations.extract_if(.., |revocation| !held(revocation)).collect();
        inbox.revocations.fetch_sub(free.len(), SeqCst);
        for Revocation { partitions, done } in free {
            let shared = self.shared.clone();
            self.children.spawn(async move {
                let deadline = after(shared.settings.max_poll_interval.min(shared.settings.session_timeout));
                shared.commit_asked(deadline).await;
                let read = shared.inbox.with(|assignment| assignment.still_read(&partitions));
                if shared.commits_by_itself()
                    && let Err(error) = shared.commit_done(Some(&read), Insistence::Through, deadline).await
                {
                    event!(
                        WARN, shared.client.origin(), %error, partitions = %several(&read), count = read.len(),
                        "offsets of revoked partitions could not be committed: the member that reads them next reads \
                         records again from the last commit on"
                    );
                }
                let deadline = after(shared.settings.max_poll_interval);
                if let Err(error) = shared.take_leave(Some(&partitions), deadline).await {
                    event!(
                        WARN, shared.client.origin(), %error,
                        "partitions are given up though the rebalance listener is not done with them"
                    );
                }
                shared.inbox.control(|assignment| assignment.remove_all(&partitions));
                // The group may have given up waiting.
                let _ = done.send(());
                Ended::Revocation
            });
        }
    }

    /// Commits in the background what the user asked for.
    fn commit_asked(&mut self) {
        if !self.committing_asked && !self.shared.asked.is_empty() {
            self.committing_asked = true;
            let shared = self.shared.clone();
            self.children.spawn(async move {
                shared.commit_asked(shared.deadline()).await;
                Ended::Asked
            });
        }
    }

    /// Commits what is done, every `auto.commit.interval.ms`.
    fn commit_by_itself(&mut self) {
        let due = self.shared.commits_by_itself() && !self.committing && Instant::now() >= self.next_commit;
        if !due {
            return;
        }
        self.committing = true;
        self.next_commit = after(self.shared.settings.auto_commit_interval);
        let shared = self.shared.clone();
        self.children.spawn(async move {
            let deadline = shared.deadline();
            if let Err(error) = shared.commit_done(None, Insistence::OneAnswer, deadline).await {
                shared.tell_failed_commit(&error);
            }
            Ended::AutoCommit
        });
    }
}
