//! Sends commits to the coordinator: one attempt at a time, for any number of commits under way.

use std::{collections::HashSet, sync::Arc};

use tokio::time::{Instant, timeout_at};

use crate::consumer::group::{
    GroupHandle,
    classic::{Identity, MemberSnapshot},
    command::Command,
    coordinator::{ask_up_to, request_timeout},
    offsets::{
        commit::{
            AttemptDecision, Commit, CommitContext, CommitOutcome, CommittedOffset, RetryPolicy, ToCommit,
            is_unknown_topic, rebalancing,
        },
        commit_order::{CommitNumber, CommitOrigin},
    },
    retry_wait::RetryWait,
    shared::MembershipShared,
};
use crate::{
    cluster::{ConnectionKind, CoordinatorKind},
    error::{Error, ErrorCode, ErrorKind, Result},
    log::event,
    record::TopicPartition,
    wire::messages::OffsetCommitResponse,
};

/// A commit, with the assignment of the time when it was requested.
#[derive(Debug)]
pub(crate) struct RequestedCommit {
    commit: Commit,
    _place: CommitSlot,
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
        let place = CommitSlot::new(&self.shared, origin.by_user);
        let (member, CommitOrigin { seek_epoch: positioned, .. }) = (self.shared.member(), origin);
        let commit = Commit::new(group_id, instance_id, &member, place.number, positioned, offsets)?;
        Ok(RequestedCommit { commit, _place: place })
    }

    /// Merges several commits, with the latest offset of each partition. Returns `None` if they
    /// cannot be sent as one.
    pub(crate) fn together<'a>(&self, asked: impl IntoIterator<Item = &'a RequestedCommit>) -> Option<RequestedCommit> {
        let commit = Commit::merge(asked.into_iter().map(|asked| &asked.commit))?;
        Some(RequestedCommit { commit, _place: CommitSlot::new(&self.shared, true) })
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
        mut hear: impl FnMut(CommitEvent) + Send,
    ) -> Result<()> {
        let commit = &mut asked.commit;
        let once = policy == RetryPolicy::OneResponse;
        let mut pace = RetryWait::new(&self.client);
        let mut last = None;
        while Instant::now() < deadline {
            if commit.is_empty() {
                return commit.result();
            }
            let Ok(attempt) = timeout_at(deadline, self.shared.attempt.lock()).await else { break };
            let (member, metadata) = (self.shared.member(), self.client.metadata());
            let turn = {
                let order = self.shared.order();
                commit.next_attempt(&CommitContext { member: &member, metadata: &metadata, order: &order }, policy)?
            };
            let identity = match turn {
                AttemptDecision::Finished => return commit.result(),
                AttemptDecision::Send(identity) => identity,
                AttemptDecision::AwaitMembership if once => return Err(rebalancing(&self.shared.settings.group_id)),
                AttemptDecision::AwaitMembership => {
                    drop(attempt);
                    // An incremental rebalance keeps the partitions and will be complete soon.
                    let _ = timeout_at(deadline, self.shared.member_changed(&member)).await;
                    continue;
                }
                AttemptDecision::AwaitTopic(error) => {
                    drop(attempt);
                    last = Some(error);
                    self.wait_for_topics(metadata.version, &mut pace, deadline).await;
                    continue;
                }
            };
            let mut going: Vec<TopicPartition> = commit.next_partitions().cloned().collect();
            hear(CommitEvent::Sent(going.clone()));
            let answer = self.try_commit(commit, identity.as_ref(), deadline).await;
            let seen = self.client.metadata().version;
            let verdict = match answer {
                Ok((node, response)) => {
                    let codes = response.topics.iter().flat_map(|topic| &topic.partitions);
                    if codes
                        .map(|partition| partition.error_code)
                        .any(|code| code == ErrorCode::UNKNOWN_TOPIC_ID.code())
                    {
                        self.client.refresh_metadata();
                    }
                    let mut committed = Vec::new();
                    let verdict = {
                        let mut order = self.shared.order();
                        commit.handle_response(&response, policy, seen, &mut order, &mut committed)
                    };
                    let through: HashSet<_> = committed.iter().map(|one| &one.partition).collect();
                    going.retain(|partition| !commit.wants(partition) && !through.contains(partition));
                    hear(CommitEvent::Committed(committed));
                    hear(CommitEvent::Refused(going));
                    if matches!(verdict, CommitOutcome::Retry { find_coordinator: true, .. }) {
                        let group_id = &self.shared.settings.group_id;
                        self.client.forget_coordinator(CoordinatorKind::Group, group_id, node);
                    }
                    verdict
                }
                // A coordinator that could not be reached has not answered, so `OneResponse`
                // retries too.
                Err(error) if error.is_retriable() && error.kind() != ErrorKind::Resolution => {
                    CommitOutcome::Retry { find_coordinator: true, error }
                }
                Err(error) => return Err(error),
            };
            drop(attempt);
            match &verdict {
                CommitOutcome::Finished => self.shared.commit_succeeded(),
                // The log receives the coordinator's error, with Kafka's code.
                CommitOutcome::Retry { error, .. } | CommitOutcome::StaleMember { said: error, .. } => {
                    self.shared.commit_refused(error);
                }
            }
            last = Some(match verdict {
                CommitOutcome::Finished => return commit.result(),
                CommitOutcome::Retry { find_coordinator, error } => {
                    if let (Some(ErrorCode::STALE_MEMBER_EPOCH), Some(identity)) = (error.code(), identity) {
                        // The next heartbeat brings the epoch in which this can be committed.
                        let _ = self.commands.send(Command::CommitRefused { identity, said: error.clone() });
                    }
                    if once && !find_coordinator {
                        return Err(error);
                    }
                    if error.code().is_some_and(is_unknown_topic) {
                        self.wait_for_topics(seen, &mut pace, deadline).await;
                        last = Some(error);
                        continue;
                    }
                    error
                }
                CommitOutcome::StaleMember { error, said } => {
                    let Some(identity) = identity else { return Err(error) };
                    // During a rebalance the code is about that very rebalance: the membership
                    // knows of it, and may have completed it with the same member id before this
                    // response arrives.
                    let midway = matches!(*member, MemberSnapshot::Rebalancing { .. })
                        && said.code() == Some(ErrorCode::REBALANCE_IN_PROGRESS);
                    if !midway {
                        let _ = self.commands.send(Command::CommitRefused { identity: identity.clone(), said });
                    }
                    if once {
                        return Err(error);
                    }
                    match &*self.shared.member() {
                        MemberSnapshot::Member { identity: current, .. } if midway || *current != identity => {}
                        // It came too late for this generation; the next one follows soon.
                        MemberSnapshot::Rebalancing { .. } => {
                            let _ = timeout_at(deadline, self.shared.member_changed(&member)).await;
                        }
                        _ => return Err(error),
                    }
                    error
                }
            });
            pace.wait(deadline).await;
        }
        Err(self.commit_timed_out(last))
    }

    async fn try_commit(
        &self,
        commit: &Commit,
        identity: Option<&Identity>,
        deadline: Instant,
    ) -> Result<(i32, OffsetCommitResponse)> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = request_timeout(&self.client).min(left);
        let build = |version| commit.request(version, identity);
        let group_id = &self.shared.settings.group_id;
        ask_up_to(&self.client, group_id, ConnectionKind::Group, timeout, commit.max_version(), build).await
    }

    /// Waits for newer metadata, which may have the topics.
    async fn wait_for_topics(&self, than: u64, pace: &mut RetryWait, deadline: Instant) {
        pace.wait(deadline).await;
        if let Err(error) = self.client.newer_metadata(than, deadline).await {
            event!(DEBUG, self.shared.settings.origin, %error, "a commit waits for its topics");
        }
    }

    fn commit_timed_out(&self, last: Option<Error>) -> Error {
        let group_id = &self.shared.settings.group_id;
        let cause = last.as_ref().map_or_else(|| "it waited for other commits".to_owned(), Error::to_string);
        let error =
            Error::new(ErrorKind::Timeout, format!("commit for group {group_id}: timed out; last error: {cause}"));
        match last {
            Some(last) => error.with_source(last),
            None => error,
        }
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
