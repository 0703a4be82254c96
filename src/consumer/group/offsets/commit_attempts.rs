//! The attempts at one commit, as a state machine: [`transition`] is its table.
//!
//! ```text
//! AwaitTurn ──► InFlight ──► Finished                        nothing is left to commit
//!     │             ├──► Backoff ──► AwaitTurn               another attempt may succeed
//!     │             ├──► AwaitTopics ──► AwaitTurn           a topic is not known
//!     │             ├──► CompareMember                       the member is refused
//!     │             │         ├──► Backoff                   there is another generation by now
//!     │             │         ├──► AwaitRebalance ──► Backoff    it follows soon
//!     │             │         └──► Failed
//!     │             └──► Failed
//!     ├──► AwaitMember ──► AwaitTurn                         there is no generation to commit in
//!     ├──► AwaitTopics ──► AwaitTurn
//!     └──► Finished, Failed or TimedOut
//! ```
//!
//! The task waits as the state says, and reports the end of the wait. Waits end at the deadline at
//! the latest, which `AwaitTurn` then finds passed. The deadline of a request is that of the
//! commit, so `InFlight` ends by then as well.
//!
//! A caller may drop the commit in any state. Nothing has to be undone: the turn is free again, and
//! the offsets that are left stay in the [`Commit`](super::commit::Commit), which can be run again
//! with new attempts. The coordinator may have committed those of the last attempt.
//!
//! Sans-IO.

use crate::consumer::group::{
    member_snapshot::{Identity, MemberSnapshot},
    offsets::{
        commit::{AttemptDecision, CommitOutcome, RetryPolicy},
        commit_response::is_unknown_topic,
    },
};
use crate::error::{Error, ErrorCode, ErrorKind, Result};

/// State of a commit between its start and its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptState {
    /// Waits for its turn, because one attempt is sent at a time. Then the commit is checked
    /// ([`Commit::next_attempt`](super::commit::Commit::next_attempt)).
    AwaitTurn,
    /// Keeps its turn and waits for the response. The coordinator is looked up first if it is not
    /// known.
    InFlight,
    /// The coordinator has refused the member: it is compared with the member of now.
    CompareMember,
    /// Waits until the membership changes, because there is no generation to commit in.
    AwaitMember,
    /// Waits until the membership changes, because the commit came too late for its generation.
    AwaitRebalance,
    /// Waits for the retry backoff, then for newer metadata, which may have the topics.
    AwaitTopics,
    /// Waits for the retry backoff.
    Backoff,
    /// Nothing is left to commit. Some partitions may have failed:
    /// [`Commit::result`](super::commit::Commit::result).
    Finished,
    /// The commit has failed with the last error.
    Failed,
    TimedOut,
}

/// An input of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptEvent {
    /// The deadline passed before the commit had its turn.
    DeadlinePassed,
    /// The membership in which the commit was made is over, or has no generation for a commit that
    /// does not wait for one.
    NotAllowed,
    /// The commit may be sent now.
    Allowed,
    /// There is no generation to commit in before the rebalance is complete.
    NoGeneration,
    /// The metadata has none of the topics that are left, or the coordinator does not know one.
    TopicsMissing,
    /// All partitions are committed or given up.
    NothingLeft,
    /// The request cannot be sent, and a retry does not help.
    NotSent,
    /// There was no response, or another broker is the coordinator.
    CoordinatorLost,
    /// The coordinator cannot commit yet.
    NotReady,
    /// The member's epoch is over; the member is current (KIP-848).
    StaleEpoch,
    /// The coordinator does not accept the member or its generation.
    StaleMember,
    /// REBALANCE_IN_PROGRESS for a member that was rebalancing when the commit was sent: the
    /// membership knows of the rebalance, and may have completed it with the same member id before
    /// this response arrived.
    RebalanceKnown,
    /// The group does not accept a commit without a member.
    NoMember,
    /// There is another generation to commit in.
    MemberRenewed,
    /// The next generation follows soon.
    MemberRebalancing,
    /// The member is the same that was refused, or out of the group.
    MemberNotRenewed,
    /// The wait of the state is over.
    Waited,
}

/// A side effect of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptAction {
    None,
    /// Record for the log that commits succeed.
    RecordSuccess,
    /// Record the error for the log.
    RecordError,
    /// Record the error for the log, and report it to the membership: the member may have to join
    /// again, or needs a heartbeat for its next epoch.
    ReportToMembership,
}

/// Returns the next state and the side effect. Events that a state does not expect change nothing.
pub(super) fn transition(
    state: AttemptState,
    event: AttemptEvent,
    policy: RetryPolicy,
) -> (AttemptState, AttemptAction) {
    use AttemptAction::{RecordError, RecordSuccess, ReportToMembership};
    use AttemptEvent::*;
    use AttemptState::*;
    const NOTHING: AttemptAction = AttemptAction::None;
    let one_response = policy == RetryPolicy::OneResponse;
    match (state, event) {
        (AwaitTurn, DeadlinePassed) => (TimedOut, NOTHING),
        (AwaitTurn, NotAllowed) => (Failed, NOTHING),
        (AwaitTurn, NothingLeft) => (Finished, NOTHING),
        (AwaitTurn, NoGeneration) => (AwaitMember, NOTHING),
        (AwaitTurn, TopicsMissing) => (AwaitTopics, NOTHING),
        (AwaitTurn, Allowed) => (InFlight, NOTHING),

        (InFlight, NothingLeft) => (Finished, RecordSuccess),
        (InFlight, NotSent) => (Failed, NOTHING),
        // The coordinator has not answered, so a commit of one response is sent again, too.
        (InFlight, CoordinatorLost) => (Backoff, RecordError),
        (InFlight, NoMember) => (Failed, RecordError),
        (InFlight, NotReady) if one_response => (Failed, RecordError),
        (InFlight, NotReady) => (Backoff, RecordError),
        (InFlight, TopicsMissing) if one_response => (Failed, RecordError),
        (InFlight, TopicsMissing) => (AwaitTopics, RecordError),
        (InFlight, StaleEpoch) if one_response => (Failed, ReportToMembership),
        (InFlight, StaleEpoch) => (Backoff, ReportToMembership),
        (InFlight, StaleMember) if one_response => (Failed, ReportToMembership),
        (InFlight, StaleMember) => (CompareMember, ReportToMembership),
        (InFlight, RebalanceKnown) if one_response => (Failed, RecordError),
        (InFlight, RebalanceKnown) => (CompareMember, RecordError),

        (CompareMember, MemberRenewed) => (Backoff, NOTHING),
        (CompareMember, MemberRebalancing) => (AwaitRebalance, NOTHING),
        (CompareMember, MemberNotRenewed) => (Failed, NOTHING),

        (AwaitRebalance, Waited) => (Backoff, NOTHING),
        (AwaitMember | AwaitTopics | Backoff, Waited) => (AwaitTurn, NOTHING),

        (unchanged, _) => (unchanged, NOTHING),
    }
}

/// The attempts at one commit.
#[derive(Debug)]
pub(super) struct CommitAttempts {
    policy: RetryPolicy,
    state: AttemptState,
    /// The member of the last attempt; `None` if it was sent without a generation.
    identity: Option<Identity>,
    /// True if that member was rebalancing when the attempt was sent.
    was_rebalancing: bool,
    /// True if the coordinator refused that member because of the rebalance that it was in.
    rebalance_known: bool,
    last_error: Option<Error>,
}

impl CommitAttempts {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            state: AttemptState::AwaitTurn,
            identity: None,
            was_rebalancing: false,
            rebalance_known: false,
            last_error: None,
        }
    }

    pub(super) fn state(&self) -> AttemptState {
        self.state
    }

    /// Returns the member of the last attempt; `None` if it was sent without a generation.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(super) fn deadline_passed(&mut self) {
        self.handle(AttemptEvent::DeadlinePassed);
    }

    /// Handles the decision about the next attempt, which was made for that member.
    pub(super) fn decided(&mut self, decision: Result<AttemptDecision>, member: &MemberSnapshot) {
        let event = match decision {
            Ok(AttemptDecision::Finished) => AttemptEvent::NothingLeft,
            Ok(AttemptDecision::AwaitMembership) => AttemptEvent::NoGeneration,
            Ok(AttemptDecision::AwaitTopic(error)) => {
                self.last_error = Some(error);
                AttemptEvent::TopicsMissing
            }
            Ok(AttemptDecision::Send(identity)) => {
                self.identity = identity;
                self.was_rebalancing = matches!(member, MemberSnapshot::Rebalancing { .. });
                AttemptEvent::Allowed
            }
            Err(error) => {
                self.last_error = Some(error);
                AttemptEvent::NotAllowed
            }
        };
        self.handle(event);
    }

    /// Handles the coordinator's response.
    pub(super) fn answered(&mut self, outcome: CommitOutcome) -> AttemptAction {
        let event = match outcome {
            CommitOutcome::Finished => AttemptEvent::NothingLeft,
            CommitOutcome::Retry { find_coordinator, error } => {
                let event = match error.code() {
                    Some(ErrorCode::STALE_MEMBER_EPOCH) => AttemptEvent::StaleEpoch,
                    Some(code) if is_unknown_topic(code) => AttemptEvent::TopicsMissing,
                    _ if find_coordinator => AttemptEvent::CoordinatorLost,
                    _ => AttemptEvent::NotReady,
                };
                self.last_error = Some(error);
                event
            }
            CommitOutcome::StaleMember { error, said } => {
                self.last_error = Some(error);
                self.rebalance_known = self.was_rebalancing && said.code() == Some(ErrorCode::REBALANCE_IN_PROGRESS);
                match self.identity {
                    None => AttemptEvent::NoMember,
                    Some(_) if self.rebalance_known => AttemptEvent::RebalanceKnown,
                    Some(_) => AttemptEvent::StaleMember,
                }
            }
        };
        self.handle(event)
    }

    /// Handles a request that got no response.
    pub(super) fn unanswered(&mut self, error: Error) -> AttemptAction {
        // An address that cannot be resolved is an error of the configuration.
        let may_succeed = error.is_retriable() && error.kind() != ErrorKind::Resolution;
        self.last_error = Some(error);
        self.handle(if may_succeed { AttemptEvent::CoordinatorLost } else { AttemptEvent::NotSent })
    }

    /// Compares the refused member with that of now.
    pub(super) fn compare(&mut self, now: &MemberSnapshot) {
        self.handle(match now {
            MemberSnapshot::Member { identity, .. }
                if self.rebalance_known || self.identity.as_ref() != Some(identity) =>
            {
                AttemptEvent::MemberRenewed
            }
            MemberSnapshot::Rebalancing { .. } => AttemptEvent::MemberRebalancing,
            _ => AttemptEvent::MemberNotRenewed,
        });
    }

    pub(super) fn waited(&mut self) {
        self.handle(AttemptEvent::Waited);
    }

    /// Returns the error of a commit that has failed or timed out.
    pub(super) fn error(&self, group_id: &str) -> Error {
        let message = |cause: &str| format!("commit for group {group_id}: timed out; last error: {cause}");
        match &self.last_error {
            Some(error) if self.state == AttemptState::Failed => error.clone(),
            Some(error) => Error::new(ErrorKind::Timeout, message(&error.to_string())).with_source(error.clone()),
            None => Error::new(ErrorKind::Timeout, message("it waited for other commits")),
        }
    }

    fn handle(&mut self, event: AttemptEvent) -> AttemptAction {
        let (next, action) = transition(self.state, event, self.policy);
        self.state = next;
        action
    }
}
