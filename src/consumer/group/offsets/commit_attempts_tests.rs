use std::sync::Arc;

use AttemptState::{
    AwaitMember, AwaitRebalance, AwaitTopics, AwaitTurn, Backoff, CompareMember, Failed, Finished, InFlight, TimedOut,
};

use crate::consumer::{
    OffsetAndMetadata,
    group::{
        member_snapshot::{Identity, MemberSnapshot},
        offsets::{
            commit::{AttemptDecision, Commit, CommitContext, RetryPolicy},
            commit_attempts::{AttemptAction, AttemptEvent, AttemptState, CommitAttempts, transition},
            commit_order::CommitOrder,
            commit_tests::{OLD, me, member, metadata_with, nothing_kept, of, response, tp},
        },
    },
};
use crate::error::{Error, ErrorCode, ErrorKind};

const POLICIES: [RetryPolicy; 3] =
    [RetryPolicy::OneResponse, RetryPolicy::UntilCommitted, RetryPolicy::UntilTopicsExist];
const WAITS: [AttemptState; 4] = [AwaitMember, AwaitRebalance, AwaitTopics, Backoff];
const ENDS: [AttemptState; 3] = [Finished, Failed, TimedOut];
const EVENTS: [AttemptEvent; 17] = [
    AttemptEvent::DeadlinePassed,
    AttemptEvent::NotAllowed,
    AttemptEvent::Allowed,
    AttemptEvent::NoGeneration,
    AttemptEvent::TopicsMissing,
    AttemptEvent::NothingLeft,
    AttemptEvent::NotSent,
    AttemptEvent::CoordinatorLost,
    AttemptEvent::NotReady,
    AttemptEvent::StaleEpoch,
    AttemptEvent::StaleMember,
    AttemptEvent::RebalanceKnown,
    AttemptEvent::NoMember,
    AttemptEvent::MemberRenewed,
    AttemptEvent::MemberRebalancing,
    AttemptEvent::MemberNotRenewed,
    AttemptEvent::Waited,
];

/// Returns a commit of one offset and its attempts, the first of which was sent for that member.
fn sent_for(member: &MemberSnapshot, policy: RetryPolicy) -> (Commit, CommitAttempts) {
    let mut commit = of(member, 1, [(tp(0), OffsetAndMetadata::new(7), OLD)]).unwrap();
    let mut attempts = CommitAttempts::new(policy);
    let (metadata, order) = (metadata_with(1, Some(OLD)), CommitOrder::default());
    let decision = commit.next_attempt(&CommitContext { member, metadata: &metadata, order: &order }, policy);
    attempts.decided(decision, member);
    assert_eq!(attempts.state(), InFlight);
    (commit, attempts)
}

fn answer(commit: &mut Commit, attempts: &mut CommitAttempts, code: ErrorCode, policy: RetryPolicy) -> AttemptAction {
    let response = response(&[(0, code)]);
    let outcome = commit.handle_response(&response, policy, 1, &mut CommitOrder::default(), &mut Vec::new());
    attempts.answered(outcome)
}

fn rebalancing(generation: i32) -> MemberSnapshot {
    MemberSnapshot::Rebalancing { identity: me(generation), owned: Arc::new([(tp(0), 1)].into()) }
}

/// Each code of an OffsetCommit response: the next state with `OneResponse`, `UntilCommitted` and
/// `UntilTopicsExist`, and the side effect. Other codes are permanent errors of their partition.
const FOR_MEMBER: &[(ErrorCode, [AttemptState; 3], AttemptAction)] = &[
    (ErrorCode::NONE, [Finished; 3], AttemptAction::RecordSuccess),
    (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, [Failed, Backoff, Backoff], AttemptAction::RecordError),
    (ErrorCode::UNSTABLE_OFFSET_COMMIT, [Failed, Backoff, Backoff], AttemptAction::RecordError),
    (ErrorCode::COORDINATOR_NOT_AVAILABLE, [Backoff; 3], AttemptAction::RecordError),
    (ErrorCode::NOT_COORDINATOR, [Backoff; 3], AttemptAction::RecordError),
    (ErrorCode::REQUEST_TIMED_OUT, [Backoff; 3], AttemptAction::RecordError),
    (ErrorCode::STALE_MEMBER_EPOCH, [Failed, Backoff, Backoff], AttemptAction::ReportToMembership),
    (ErrorCode::REBALANCE_IN_PROGRESS, [Failed, CompareMember, CompareMember], AttemptAction::ReportToMembership),
    (ErrorCode::ILLEGAL_GENERATION, [Failed, CompareMember, CompareMember], AttemptAction::ReportToMembership),
    (ErrorCode::UNKNOWN_MEMBER_ID, [Failed, CompareMember, CompareMember], AttemptAction::ReportToMembership),
    (ErrorCode::FENCED_INSTANCE_ID, [Failed, CompareMember, CompareMember], AttemptAction::ReportToMembership),
    (ErrorCode::GROUP_ID_NOT_FOUND, [Failed, CompareMember, CompareMember], AttemptAction::ReportToMembership),
];
const WITHOUT_MEMBER: &[(ErrorCode, [AttemptState; 3], AttemptAction)] = &[
    (ErrorCode::NONE, [Finished; 3], AttemptAction::RecordSuccess),
    (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, [Failed, Backoff, Backoff], AttemptAction::RecordError),
    (ErrorCode::UNSTABLE_OFFSET_COMMIT, [Failed, Backoff, Backoff], AttemptAction::RecordError),
    (ErrorCode::COORDINATOR_NOT_AVAILABLE, [Backoff; 3], AttemptAction::RecordError),
    (ErrorCode::NOT_COORDINATOR, [Backoff; 3], AttemptAction::RecordError),
    (ErrorCode::REQUEST_TIMED_OUT, [Backoff; 3], AttemptAction::RecordError),
    (ErrorCode::STALE_MEMBER_EPOCH, [Failed; 3], AttemptAction::RecordError),
    (ErrorCode::REBALANCE_IN_PROGRESS, [Failed; 3], AttemptAction::RecordError),
    (ErrorCode::ILLEGAL_GENERATION, [Failed; 3], AttemptAction::RecordError),
    (ErrorCode::UNKNOWN_MEMBER_ID, [Failed; 3], AttemptAction::RecordError),
    (ErrorCode::FENCED_INSTANCE_ID, [Failed; 3], AttemptAction::RecordError),
];

#[test]
fn each_error_code_has_its_next_state() {
    for (member, rows) in [(member(5), FOR_MEMBER), (MemberSnapshot::NoGroup, WITHOUT_MEMBER)] {
        for code in (-1..=200).map(ErrorCode::new) {
            for (i, policy) in POLICIES.into_iter().enumerate() {
                let (mut commit, mut attempts) = sent_for(&member, policy);
                let action = answer(&mut commit, &mut attempts, code, policy);
                let (state, case) = (attempts.state(), format!("{code}, {policy:?}, {member:?}"));
                let unknown = [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID].contains(&code);
                if let Some((_, states, expected)) = rows.iter().find(|(row, ..)| *row == code) {
                    assert_eq!((state, action), (states[i], *expected), "{case}");
                } else if unknown && policy == RetryPolicy::UntilTopicsExist {
                    assert_eq!((state, action), (AwaitTopics, AttemptAction::RecordError), "{case}");
                } else {
                    assert_eq!(state, Finished, "{case}");
                    assert_eq!(commit.result().unwrap_err().code(), Some(code), "{case}");
                }
                assert_eq!(commit.is_empty(), state == Finished, "{case}: the rest is kept for the next attempt");
            }
        }
    }
}

#[test]
fn one_response_ends_commit_unless_coordinator_moves() {
    for event in EVENTS {
        let (once, _) = transition(InFlight, event, RetryPolicy::OneResponse);
        let (patient, _) = transition(InFlight, event, RetryPolicy::UntilTopicsExist);
        match event {
            AttemptEvent::CoordinatorLost => assert_eq!((once, patient), (Backoff, Backoff)),
            _ if patient != InFlight => assert!(ENDS.contains(&once), "{event:?}: {once:?}"),
            _ => assert_eq!(once, InFlight, "{event:?} is no event of a request"),
        }
    }
}

#[test]
fn waits_and_ends_ignore_late_events() {
    for policy in POLICIES {
        for event in EVENTS {
            for state in ENDS {
                assert_eq!(transition(state, event, policy), (state, AttemptAction::None), "{event:?}");
            }
            for state in WAITS {
                let then = if state == AwaitRebalance { Backoff } else { AwaitTurn };
                let expected = if event == AttemptEvent::Waited { then } else { state };
                assert_eq!(transition(state, event, policy), (expected, AttemptAction::None), "{event:?}");
            }
            for state in [AwaitTurn, CompareMember] {
                assert_eq!(transition(state, event, policy).1, AttemptAction::None, "there was no response");
            }
        }
    }
}

#[test]
fn decision_leads_to_attempt_wait_or_end() {
    let error = || Error::broker(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "test");
    for (decision, expected) in [
        (Ok(AttemptDecision::Send(Some(me(5)))), InFlight),
        (Ok(AttemptDecision::AwaitMembership), AwaitMember),
        (Ok(AttemptDecision::AwaitTopic(error())), AwaitTopics),
        (Ok(AttemptDecision::Finished), Finished),
        (Err(error()), Failed),
    ] {
        let mut attempts = CommitAttempts::new(RetryPolicy::UntilTopicsExist);
        attempts.decided(decision, &member(5));
        assert_eq!(attempts.state(), expected);
    }
    let mut attempts = CommitAttempts::new(RetryPolicy::UntilTopicsExist);
    attempts.deadline_passed();
    assert_eq!(attempts.state(), TimedOut);
}

#[test]
fn one_response_does_not_await_generation() {
    for (policy, expected) in [(RetryPolicy::OneResponse, Failed), (RetryPolicy::UntilCommitted, AwaitMember)] {
        let mut commit = of(&rebalancing(5), 1, [(tp(0), OffsetAndMetadata::new(7), OLD)]).unwrap();
        let (metadata, order, now) = (metadata_with(1, Some(OLD)), CommitOrder::default(), rebalancing(-1));
        let mut attempts = CommitAttempts::new(policy);
        let decision = commit.next_attempt(&CommitContext { member: &now, metadata: &metadata, order: &order }, policy);
        attempts.decided(decision, &now);
        assert_eq!(attempts.state(), expected);
        if expected == Failed {
            assert_eq!(attempts.error("g").code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
        }
    }
}

/// Returns the state after the comparison of a refused member with the member of then.
fn compared(sent: &MemberSnapshot, code: ErrorCode, now: &MemberSnapshot) -> (AttemptAction, AttemptState) {
    let policy = RetryPolicy::UntilCommitted;
    let (mut commit, mut attempts) = sent_for(sent, policy);
    let action = answer(&mut commit, &mut attempts, code, policy);
    assert_eq!(attempts.state(), CompareMember);
    attempts.compare(now);
    (action, attempts.state())
}

#[test]
fn refused_commit_continues_under_next_generation() {
    let ended = MemberSnapshot::Ended(Error::broker(ErrorCode::FENCED_INSTANCE_ID, "test"));
    let other = Identity { generation: 5, member_id: "other".into() };
    let other = MemberSnapshot::Member { identity: other, owned: Arc::default() };
    for (now, expected) in [
        (member(5), Failed),
        (member(6), Backoff),
        (other, Backoff),
        (rebalancing(5), AwaitRebalance),
        (nothing_kept(), AwaitRebalance),
        (MemberSnapshot::Fenced, Failed),
        (MemberSnapshot::NoGroup, Failed),
        (ended, Failed),
    ] {
        for code in [ErrorCode::ILLEGAL_GENERATION, ErrorCode::REBALANCE_IN_PROGRESS] {
            let reached = compared(&member(5), code, &now);
            assert_eq!(reached, (AttemptAction::ReportToMembership, expected), "{code}, {now:?}");
        }
    }
}

#[test]
fn known_rebalance_is_not_reported_again() {
    let known = ErrorCode::REBALANCE_IN_PROGRESS;
    assert_eq!(compared(&rebalancing(5), known, &member(5)), (AttemptAction::RecordError, Backoff), "it is complete");
    assert_eq!(compared(&rebalancing(5), known, &rebalancing(5)), (AttemptAction::RecordError, AwaitRebalance));
    assert_eq!(compared(&rebalancing(5), known, &MemberSnapshot::Fenced), (AttemptAction::RecordError, Failed));
    let expelled = compared(&rebalancing(5), ErrorCode::UNKNOWN_MEMBER_ID, &member(5));
    assert_eq!(expelled, (AttemptAction::ReportToMembership, Failed), "another error is news to the membership");
}

#[test]
fn missing_response_is_retried_unless_permanent() {
    for (kind, state, action) in [
        (ErrorKind::Network, Backoff, AttemptAction::RecordError),
        (ErrorKind::Timeout, Backoff, AttemptAction::RecordError),
        (ErrorKind::Resolution, Failed, AttemptAction::None),
        (ErrorKind::Authentication, Failed, AttemptAction::None),
    ] {
        for policy in POLICIES {
            let (commit, mut attempts) = sent_for(&member(5), policy);
            assert_eq!(attempts.unanswered(Error::new(kind, "test")), action, "{kind:?}");
            assert_eq!(attempts.state(), state, "{kind:?}");
            assert!(!commit.is_empty());
        }
    }
}

#[test]
fn timeout_error_names_last_error() {
    let mut attempts = CommitAttempts::new(RetryPolicy::UntilCommitted);
    attempts.deadline_passed();
    assert!(attempts.error("g").to_string().contains("it waited for other commits"));

    let policy = RetryPolicy::UntilCommitted;
    let (mut commit, mut attempts) = sent_for(&member(5), policy);
    answer(&mut commit, &mut attempts, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, policy);
    attempts.waited();
    attempts.deadline_passed();
    let error = attempts.error("g");
    assert_eq!((attempts.state(), error.kind()), (TimedOut, ErrorKind::Timeout));
    assert!(error.to_string().contains("COORDINATOR_LOAD_IN_PROGRESS"), "{error}");
}
