//! Sends commits to the coordinator: one attempt at a time, for any number of commits under way.

use std::{collections::HashSet, sync::Arc};

use tokio::{
    sync::MutexGuard,
    time::{Instant, timeout_at},
};

use crate::consumer::group::{
    GroupHandle,
    command::Command,
    coordinator::{ask_up_to, request_timeout},
    member_snapshot::MemberSnapshot,
    offsets::{
        commit::{Commit, CommitContext, CommitOutcome, CommittedOffset, RetryPolicy, ToCommit},
        commit_attempts::{AttemptAction, AttemptState, CommitAttempts},
        commit_order::{CommitNumber, CommitOrigin},
    },
    retry_wait::RetryWait,
    shared::MembershipShared,
};
use crate::{
    cluster::{ConnectionKind, CoordinatorKind},
    error::{Error, ErrorCode, Result},
    log::event,
    record::TopicPartition,
    wire::messages::OffsetCommitResponse,
};

/// A commit, with the assignment of the time when it was requested.
#[derive(Debug)]
pub(crate) struct RequestedCommit {
    commit: Commit,
    _slot: CommitSlot,
}

/// Progress of a commit.
#[derive(Debug)]
pub(crate) enum CommitEvent {
    /// An attempt with these partitions is sent.
    Sent(Vec<TopicPartition>),
    /// The coordinator has refused these for good.
    Refused(Vec<TopicPartition>),
    /// These offsets are committed.
    Committed(Vec<CommittedOffset>),
}

impl RequestedCommit {
    pub(crate) fn is_empty(&self) -> bool {
        self.commit.is_empty()
    }

    /// Returns the result of a commit with nothing left to send.
    pub(crate) fn end(&self) -> Result<()> {
        self.commit.result()
    }
}

/// A commit's place in the order of commits, held as long as it may still be sent.
#[derive(Debug)]
struct CommitSlot {
    number: CommitNumber,
    shared: Arc<MembershipShared>,
}

impl CommitSlot {
    fn new(shared: &Arc<MembershipShared>, by_user: bool) -> Self {
        Self { number: shared.order().begin(by_user), shared: shared.clone() }
    }
}

impl Drop for CommitSlot {
    fn drop(&mut self) {
        self.shared.order().end();
    }
}

impl GroupHandle {
    /// Registers a commit for the current assignment; for a consumer that is not subscribed,
    /// without a member. It counts as later than all that were registered before.
    ///
    /// # Errors
    /// `NotAssigned` if a partition is not owned; `REBALANCE_IN_PROGRESS` (as
    /// [`Error::code`](crate::Error::code)) if the group is rebalancing. An auto-commit leaves such
    /// partitions out, and returns the error at its end.
    pub(crate) fn request_commit(&self, offsets: Vec<ToCommit>, origin: CommitOrigin) -> Result<RequestedCommit> {
        let MembershipShared { settings, .. } = &*self.shared;
        let (group_id, instance_id) = (settings.group_id.clone(), settings.group_instance_id.clone());
        let slot = CommitSlot::new(&self.shared, origin.by_user);
        let member = self.shared.member();
        let commit = Commit::new(group_id, instance_id, &member, slot.number, origin.seek_epoch, offsets)?;
        Ok(RequestedCommit { commit, _slot: slot })
    }

    /// Merges several commits, with the latest offset of each partition. Returns `None` if they
    /// cannot be sent as one.
    pub(crate) fn together<'a>(&self, asked: impl IntoIterator<Item = &'a RequestedCommit>) -> Option<RequestedCommit> {
        let commit = Commit::merge(asked.into_iter().map(|asked| &asked.commit))?;
        Some(RequestedCommit { commit, _slot: CommitSlot::new(&self.shared, true) })
    }

    /// Returns true if some registered commit has not ended.
    pub(crate) fn is_committing(&self) -> bool {
        self.shared.order().has_any_in_flight()
    }

    /// Sends the commit and retries until it is done; reports each attempt and each success to
    /// `hear`. Partitions that are kept over a rebalance are committed after it. While this commit
    /// waits, other commits continue; partitions that a later commit has committed are left out.
    ///
    /// # Errors
    /// `NotAssigned` if a partition was revoked meanwhile or its topic was created again (all other
    /// partitions are committed nevertheless), and other kinds as the broker answers.
    /// `REBALANCE_IN_PROGRESS` if the group is rebalancing.
    ///
    /// # Cancel safety
    /// Dropping the future drops the response: the offsets may or may not be committed. The commit
    /// can be sent again.
    pub(crate) async fn run_commit(
        &self,
        asked: &mut RequestedCommit,
        policy: RetryPolicy,
        deadline: Instant,
        hear: impl FnMut(CommitEvent) + Send,
    ) -> Result<()> {
        if asked.commit.is_empty() {
            return asked.commit.result();
        }
        let run = CommitRun {
            group: self,
            commit: &mut asked.commit,
            policy,
            deadline,
            hear,
            attempts: CommitAttempts::new(policy),
            retry_wait: RetryWait::new(&self.client),
            member: self.shared.member(),
            metadata_version: 0,
        };
        run.run().await
    }

    /// Commits as the user, and waits for the result.
    #[cfg(all(test, feature = "testkit"))]
    pub(crate) async fn commit(
        &self,
        offsets: Vec<(TopicPartition, crate::consumer::OffsetAndMetadata)>,
        deadline: Instant,
    ) -> Result<()> {
        let offsets = offsets.into_iter().map(|(partition, offset)| (partition, offset, uuid::Uuid::nil()));
        let mut asked = self.request_commit(offsets.collect(), CommitOrigin { by_user: true, seek_epoch: 0 })?;
        self.run_commit(&mut asked, RetryPolicy::UntilTopicsExist, deadline, drop).await
    }
}

/// One run of a commit: a loop over the state of its [`CommitAttempts`].
struct CommitRun<'a, H> {
    group: &'a GroupHandle,
    commit: &'a mut Commit,
    policy: RetryPolicy,
    deadline: Instant,
    hear: H,
    attempts: CommitAttempts,
    retry_wait: RetryWait,
    /// The member that the last attempt was decided for.
    member: Arc<MemberSnapshot>,
    /// Version of the metadata that lacked a topic.
    metadata_version: u64,
}

impl<'a, H: FnMut(CommitEvent) + Send> CommitRun<'a, H> {
    async fn run(mut self) -> Result<()> {
        let mut turn = None;
        loop {
            match self.attempts.state() {
                AttemptState::AwaitTurn => turn = self.await_turn().await,
                AttemptState::InFlight => {
                    self.send().await;
                    drop(turn.take());
                }
                AttemptState::CompareMember => self.attempts.compare(&self.group.shared.member()),
                AttemptState::AwaitMember | AttemptState::AwaitRebalance => self.await_member().await,
                AttemptState::AwaitTopics => self.await_topics().await,
                AttemptState::Backoff => {
                    self.retry_wait.wait(self.deadline).await;
                    self.attempts.waited();
                }
                AttemptState::Finished => return self.commit.result(),
                AttemptState::Failed | AttemptState::TimedOut => {
                    return Err(self.attempts.error(&self.group.shared.settings.group_id));
                }
            }
        }
    }

    /// Waits for the turn and decides the next attempt. Returns the turn if an attempt is to be
    /// sent.
    async fn await_turn(&mut self) -> Option<MutexGuard<'a, ()>> {
        let group = self.group;
        let mut turn = None;
        if Instant::now() < self.deadline {
            turn = timeout_at(self.deadline, group.shared.attempt.lock()).await.ok();
        }
        let Some(turn) = turn else {
            self.attempts.deadline_passed();
            return None;
        };
        self.member = group.shared.member();
        let metadata = group.client.metadata();
        self.metadata_version = metadata.version;
        let decision = {
            let order = group.shared.order();
            let context = CommitContext { member: &self.member, metadata: &metadata, order: &order };
            self.commit.next_attempt(&context, self.policy)
        };
        self.attempts.decided(decision, &self.member);
        (self.attempts.state() == AttemptState::InFlight).then_some(turn)
    }

    /// Sends an attempt, and handles its response.
    async fn send(&mut self) {
        let partitions: Vec<TopicPartition> = self.commit.next_partitions().cloned().collect();
        (self.hear)(CommitEvent::Sent(partitions.clone()));
        let answer = self.request().await;
        self.metadata_version = self.group.client.metadata().version;
        let (action, said) = match answer {
            Ok((node, response)) => {
                let outcome = self.handle_response(node, &response, partitions);
                let said = outcome.said().cloned();
                (self.attempts.answered(outcome), said)
            }
            Err(error) => (self.attempts.unanswered(error.clone()), Some(error)),
        };
        self.carry_out(action, said);
    }

    async fn request(&self) -> Result<(i32, OffsetCommitResponse)> {
        let GroupHandle { client, shared, .. } = self.group;
        let timeout = request_timeout(client).min(self.deadline.saturating_duration_since(Instant::now()));
        let (commit, identity) = (&*self.commit, self.attempts.identity());
        let build = |version| commit.request(version, identity);
        let group_id = &shared.settings.group_id;
        ask_up_to(client, group_id, ConnectionKind::Group, timeout, commit.max_version(), build).await
    }

    /// Handles the response to an attempt with these partitions.
    fn handle_response(
        &mut self,
        node: i32,
        response: &OffsetCommitResponse,
        sent: Vec<TopicPartition>,
    ) -> CommitOutcome {
        let GroupHandle { client, shared, .. } = self.group;
        let mut codes = response.topics.iter().flat_map(|topic| &topic.partitions).map(|it| it.error_code);
        if codes.any(|code| code == ErrorCode::UNKNOWN_TOPIC_ID.code()) {
            client.refresh_metadata();
        }
        let mut committed = Vec::new();
        let outcome = self.commit.handle_response(
            response,
            self.policy,
            self.metadata_version,
            &mut shared.order(),
            &mut committed,
        );
        let through: HashSet<_> = committed.iter().map(|one| &one.partition).collect();
        let is_refused = |partition: &TopicPartition| !self.commit.wants(partition) && !through.contains(partition);
        let refused = sent.into_iter().filter(is_refused).collect();
        (self.hear)(CommitEvent::Committed(committed));
        (self.hear)(CommitEvent::Refused(refused));
        if matches!(outcome, CommitOutcome::Retry { find_coordinator: true, .. }) {
            client.forget_coordinator(CoordinatorKind::Group, &shared.settings.group_id, node);
        }
        outcome
    }

    /// Carries out the side effect of a response, or of a missing one, with the coordinator's error
    /// (`said`).
    fn carry_out(&self, action: AttemptAction, said: Option<Error>) {
        let GroupHandle { shared, commands, .. } = self.group;
        match (action, said) {
            (AttemptAction::RecordSuccess, _) => shared.commit_succeeded(),
            (AttemptAction::RecordError, Some(said)) => shared.commit_refused(&said),
            (AttemptAction::ReportToMembership, Some(said)) => {
                shared.commit_refused(&said);
                if let Some(identity) = self.attempts.identity().cloned() {
                    // A task that has ended has reported the reason to the consumer.
                    let _ = commands.send(Command::CommitRefused { identity, said });
                }
            }
            (AttemptAction::None | AttemptAction::RecordError | AttemptAction::ReportToMembership, _) => {}
        }
    }

    async fn await_member(&mut self) {
        // The deadline is checked before the next attempt.
        let _ = timeout_at(self.deadline, self.group.shared.member_changed(&self.member)).await;
        self.attempts.waited();
    }

    /// Waits for newer metadata, which may have the topics.
    async fn await_topics(&mut self) {
        let GroupHandle { client, shared, .. } = self.group;
        self.retry_wait.wait(self.deadline).await;
        if let Err(error) = client.newer_metadata(self.metadata_version, self.deadline).await {
            event!(DEBUG, shared.settings.origin, %error, "a commit waits for its topics");
        }
        self.attempts.waited();
    }
}
