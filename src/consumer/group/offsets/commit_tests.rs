use std::sync::Arc;

use uuid::Uuid;

use crate::consumer::group::{
    classic::requests::text,
    member_snapshot::{Identity, MemberSnapshot},
    offsets::{
        commit::{AttemptDecision, Commit, CommitContext, CommitOutcome, CommittedOffset, RetryPolicy, ToCommit},
        commit_order::{CommitNumber, CommitOrder, CommitOrigin},
    },
};
use crate::{
    cluster::{Metadata, TopicMetadata},
    consumer::OffsetAndMetadata,
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
    wire::messages::{
        OffsetCommitResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};

pub(super) const OLD: Uuid = Uuid::from_u128(1);
const NEW: Uuid = Uuid::from_u128(2);

pub(super) fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

pub(super) fn member(generation: i32) -> MemberSnapshot {
    let identity = Identity { generation, member_id: "m".into() };
    MemberSnapshot::Member { identity, owned: Arc::new([(tp(0), 1), (tp(1), 1)].into()) }
}

pub(super) fn me(generation: i32) -> Identity {
    Identity { generation, member_id: "m".into() }
}

pub(super) fn nothing_kept() -> MemberSnapshot {
    MemberSnapshot::Rebalancing { identity: me(5), owned: Arc::default() }
}

pub(super) fn of(member: &MemberSnapshot, number: u64, offsets: impl IntoIterator<Item = ToCommit>) -> Result<Commit> {
    by(CommitNumber { at: number, by_user: true }, member, offsets)
}

fn by(number: CommitNumber, member: &MemberSnapshot, offsets: impl IntoIterator<Item = ToCommit>) -> Result<Commit> {
    Commit::new("g".into(), Some("i".into()), member, number, 0, offsets.into_iter().collect())
}

pub(super) fn commit(member: &MemberSnapshot) -> Result<Commit> {
    of(member, 1, [tp(0), tp(1)].map(|partition| (partition, OffsetAndMetadata::new(7), OLD)))
}

/// Returns metadata with the topic under that id, or without it.
pub(super) fn metadata_with(version: u64, id: Option<Uuid>) -> Metadata {
    let topic = |id| ("t".into(), Arc::new(TopicMetadata { name: "t".into(), id, ..TopicMetadata::default() }));
    Metadata { version, topics: id.map(topic).into_iter().collect(), ..Metadata::default() }
}

fn turn_in(
    commit: &mut Commit,
    standing: &MemberSnapshot,
    metadata: &Metadata,
    policy: RetryPolicy,
) -> Result<AttemptDecision> {
    commit.next_attempt(&CommitContext { member: standing, metadata, order: &CommitOrder::default() }, policy)
}

fn turn(commit: &mut Commit, member: &MemberSnapshot) -> Result<AttemptDecision> {
    turn_in(commit, member, &metadata_with(1, Some(OLD)), RetryPolicy::UntilCommitted)
}

/// Returns the member that the attempt is sent for.
fn name(turn: Result<AttemptDecision>) -> Option<Identity> {
    match turn.unwrap() {
        AttemptDecision::Send(identity) => identity,
        other => panic!("{other:?}"),
    }
}

/// Returns the result of a commit with nothing left to send.
fn lost(commit: &mut Commit, turn: Result<AttemptDecision>) -> Error {
    match turn {
        Ok(AttemptDecision::Finished) => commit.result().unwrap_err(),
        other => other.unwrap_err(),
    }
}

pub(super) fn response(codes: &[(i32, ErrorCode)]) -> OffsetCommitResponse {
    let partitions = codes.iter().map(|&(partition, code)| OffsetCommitResponsePartition {
        partition_index: partition,
        error_code: code.code(),
    });
    let topic = OffsetCommitResponseTopic { name: text("t"), partitions: partitions.collect(), ..Default::default() };
    OffsetCommitResponse { topics: vec![topic], ..Default::default() }
}

fn both(code: ErrorCode) -> OffsetCommitResponse {
    response(&[(0, code), (1, code)])
}

fn answered(commit: &mut Commit, response: &OffsetCommitResponse, policy: RetryPolicy) -> CommitOutcome {
    commit.handle_response(response, policy, 1, &mut CommitOrder::default(), &mut Vec::new())
}

fn sent(commit: &Commit) -> Vec<i32> {
    let topics = commit.request(9, None).topics;
    topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.partition_index).collect()
}

#[test]
fn automatic_commit_leaves_out_unowned_partitions() {
    let offsets = [0, 1, 2].map(|partition| (tp(partition), OffsetAndMetadata::new(7), OLD));
    let error = of(&member(5), 1, offsets.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned, "a user commit fails at once");
    let mut made = by(CommitNumber { at: 1, by_user: false }, &member(5), offsets.clone()).unwrap();
    assert_eq!(name(turn(&mut made, &member(5))), Some(me(5)));
    assert_eq!(sent(&made), [0, 1]);
    assert!(matches!(
        answered(&mut made, &both(ErrorCode::NONE), RetryPolicy::UntilCommitted),
        CommitOutcome::Finished
    ));
    let error = made.result().unwrap_err();
    assert!(error.kind() == ErrorKind::NotAssigned && error.to_string().contains("t[2]"), "{error}");
    let nothing = by(CommitNumber { at: 1, by_user: false }, &nothing_kept(), offsets).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(nothing.result().unwrap_err().code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
}

#[test]
fn request_carries_identity_that_its_version_allows() {
    let commit = commit(&member(5)).unwrap();
    let request = commit.request(9, Some(&me(5)));
    assert_eq!((request.generation_id_or_member_epoch, request.member_id.as_str()), (5, "m"));
    assert_eq!(request.group_instance_id.as_deref(), Some("i"));
    assert_eq!(request.topics[0].partitions.len(), 2);
    assert!(commit.request(6, Some(&me(5))).group_instance_id.is_none());
}

#[test]
fn commits_without_generation_outside_group() {
    let offset = OffsetAndMetadata { leader_epoch: Some(4), ..OffsetAndMetadata::new(1) };
    let commit = of(&MemberSnapshot::NoGroup, 1, [(tp(99), offset, Uuid::nil())]).unwrap();
    let request = commit.request(9, None);
    assert_eq!((request.generation_id_or_member_epoch, request.member_id.as_str()), (-1, ""));
    assert!(request.group_instance_id.is_none());
    assert_eq!(request.topics[0].partitions[0].committed_leader_epoch, 4);
    assert_eq!(commit.request(5, None).topics[0].partitions[0].committed_leader_epoch, -1);
}

#[test]
fn rejects_invalid_commit_before_sending() {
    let at = |partition, offset| [(tp(partition), OffsetAndMetadata::new(offset), OLD)];
    assert_eq!(of(&member(5), 1, at(2, 7)).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(of(&member(5), 1, at(0, -1)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let with_metadata = |bytes| {
        let offset = OffsetAndMetadata { metadata: "m".repeat(bytes), ..OffsetAndMetadata::new(7) };
        of(&member(5), 1, [(tp(0), offset, OLD)])
    };
    assert_eq!(with_metadata(32_768).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(with_metadata(32_767).is_ok(), "the broker decides");
    assert_eq!(commit(&nothing_kept()).unwrap_err().code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
    assert_eq!(commit(&MemberSnapshot::Fenced).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert!(of(&MemberSnapshot::Fenced, 1, []).unwrap().is_empty(), "an empty commit needs no member");
    let fenced = Error::broker(ErrorCode::FENCED_INSTANCE_ID, "test");
    assert!(commit(&MemberSnapshot::Ended(fenced)).unwrap_err().is_fatal());
}

#[test]
fn fails_when_assignment_ends_before_sending() {
    let mut made = commit(&member(5)).unwrap();
    assert_eq!(name(turn(&mut made, &member(5))), Some(me(5)));
    for standing in [nothing_kept(), MemberSnapshot::Fenced, MemberSnapshot::NoGroup] {
        let mut made = commit(&member(5)).unwrap();
        let turn = turn(&mut made, &standing);
        assert_eq!(lost(&mut made, turn).kind(), ErrorKind::NotAssigned, "{standing:?}");
    }
}

#[test]
fn commits_kept_partitions_under_new_generation() {
    let kept = |generation| {
        let owned = Arc::new([(tp(0), 1), (tp(1), 1)].into());
        MemberSnapshot::Rebalancing { identity: me(generation), owned }
    };
    let mut made = commit(&member(5)).unwrap();
    assert_eq!(name(turn(&mut made, &kept(5))), Some(me(5)), "kept until the next generation begins");
    assert!(matches!(turn(&mut made, &kept(-1)), Ok(AttemptDecision::AwaitMembership)));
    assert_eq!(name(turn(&mut made, &member(6))), Some(me(6)));
    let mut made = commit(&kept(-1)).unwrap();
    assert_eq!(name(turn(&mut made, &member(6))), Some(me(6)));
}

#[test]
fn leaves_out_and_reports_reassigned_partition() {
    let mut made = commit(&member(5)).unwrap();
    let owned = Arc::new([(tp(0), 1), (tp(1), 2)].into());
    let came_back = MemberSnapshot::Member { identity: me(7), owned };
    assert_eq!(name(turn(&mut made, &came_back)), Some(me(7)));
    assert_eq!(sent(&made), [0]);
    assert!(matches!(
        answered(&mut made, &response(&[(0, ErrorCode::NONE)]), RetryPolicy::UntilCommitted),
        CommitOutcome::Finished
    ));
    let error = made.result().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert!(error.to_string().contains("t[1]") && !error.to_string().contains("t[0]"), "{error}");
}

#[test]
fn fails_when_topic_id_has_changed() {
    for policy in [RetryPolicy::OneResponse, RetryPolicy::UntilCommitted, RetryPolicy::UntilTopicsExist] {
        let mut made = commit(&member(5)).unwrap();
        let turn = turn_in(&mut made, &member(5), &metadata_with(2, Some(NEW)), policy);
        assert_eq!(lost(&mut made, turn).kind(), ErrorKind::NotAssigned, "a topic created again is another topic");
    }
    // Without topic ids in the cluster, or without a known id of the topic, there is nothing to
    // compare.
    let mut made = commit(&member(5)).unwrap();
    assert!(
        name(turn_in(&mut made, &member(5), &metadata_with(2, Some(Uuid::nil())), RetryPolicy::UntilCommitted))
            .is_some()
    );
    let nameless = [(tp(0), OffsetAndMetadata::new(7), Uuid::nil())];
    let mut made = of(&member(5), 1, nameless).unwrap();
    assert!(name(turn_in(&mut made, &member(5), &metadata_with(2, Some(NEW)), RetryPolicy::UntilCommitted)).is_some());
    assert!(name(turn_in(&mut made, &member(5), &metadata_with(2, None), RetryPolicy::UntilCommitted)).is_some());
}

#[test]
fn missing_topic_waits_for_metadata_or_fails() {
    for policy in [RetryPolicy::OneResponse, RetryPolicy::UntilCommitted] {
        let mut made = commit(&member(5)).unwrap();
        let turn = turn_in(&mut made, &member(5), &metadata_with(2, None), policy);
        let error = lost(&mut made, turn);
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), "{error}");
    }
    let patient = RetryPolicy::UntilTopicsExist;
    let mut made = commit(&member(5)).unwrap();
    assert!(matches!(
        turn_in(&mut made, &member(5), &metadata_with(2, None), patient),
        Ok(AttemptDecision::AwaitTopic(_))
    ));
    assert!(sent(&made).is_empty());
    assert!(
        name(turn_in(&mut made, &member(5), &metadata_with(3, Some(OLD)), patient)).is_some(),
        "the topic existed all the time"
    );
    assert_eq!(sent(&made), [0, 1]);
    // The coordinator does not know the topic: metadata from before says nothing of it.
    let unknown = both(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let verdict = made.handle_response(&unknown, patient, 3, &mut CommitOrder::default(), &mut Vec::new());
    assert!(matches!(verdict, CommitOutcome::Retry { find_coordinator: false, .. }), "{verdict:?}");
    assert!(matches!(
        turn_in(&mut made, &member(5), &metadata_with(3, Some(OLD)), patient),
        Ok(AttemptDecision::AwaitTopic(_))
    ));
    assert!(name(turn_in(&mut made, &member(5), &metadata_with(4, Some(OLD)), patient)).is_some());
}

fn response_by_id(id: Uuid, code: ErrorCode) -> OffsetCommitResponse {
    let mut response = both(code);
    (response.topics[0].name, response.topics[0].topic_id) = (text(""), id);
    response
}

#[test]
fn uses_topic_ids_when_all_are_known() {
    let mut made = commit(&member(5)).unwrap();
    assert_eq!(made.max_version(), None);
    assert_eq!(made.request(10, Some(&me(5))).topics[0].topic_id, OLD);
    assert!(made.request(9, Some(&me(5))).topics[0].topic_id.is_nil());
    assert!(matches!(
        answered(&mut made, &response_by_id(OLD, ErrorCode::NONE), RetryPolicy::UntilCommitted),
        CommitOutcome::Finished
    ));
    made.result().unwrap();

    let named = [
        (tp(0), OffsetAndMetadata::new(7), OLD),
        (TopicPartition::new("u", 0), OffsetAndMetadata::new(1), Uuid::nil()),
    ];
    assert_eq!(of(&MemberSnapshot::NoGroup, 1, named).unwrap().max_version(), Some(9), "the id of u is not known");
}

#[test]
fn response_for_other_topic_id_is_error() {
    let mut made = commit(&member(5)).unwrap();
    assert!(matches!(
        answered(&mut made, &response_by_id(NEW, ErrorCode::NONE), RetryPolicy::UntilCommitted),
        CommitOutcome::Finished
    ));
    assert_eq!(made.result().unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn unknown_topic_id_waits_for_metadata() {
    let unknown = response_by_id(OLD, ErrorCode::UNKNOWN_TOPIC_ID);
    let mut made = commit(&member(5)).unwrap();
    assert!(matches!(answered(&mut made, &unknown, RetryPolicy::UntilCommitted), CommitOutcome::Finished));
    assert_eq!(
        made.result().unwrap_err().code(),
        Some(ErrorCode::UNKNOWN_TOPIC_ID),
        "returned if the commit does not wait for topics"
    );

    let patient = RetryPolicy::UntilTopicsExist;
    let mut made = commit(&member(5)).unwrap();
    let verdict = made.handle_response(&unknown, patient, 3, &mut CommitOrder::default(), &mut Vec::new());
    assert!(matches!(verdict, CommitOutcome::Retry { find_coordinator: false, .. }), "{verdict:?}");
    assert!(matches!(
        turn_in(&mut made, &member(5), &metadata_with(3, Some(OLD)), patient),
        Ok(AttemptDecision::AwaitTopic(_))
    ));
    assert_eq!(made.max_version(), None, "the topic is not named");
    let turn = turn_in(&mut made, &member(5), &metadata_with(4, Some(NEW)), patient);
    assert_eq!(lost(&mut made, turn).kind(), ErrorKind::NotAssigned, "the topic was created again");
}

#[test]
fn retries_only_partitions_not_yet_committed() {
    let mut made = commit(&member(5)).unwrap();
    let (mut order, mut committed) = (CommitOrder::default(), Vec::new());
    let first = response(&[(0, ErrorCode::NONE), (1, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)]);
    let verdict = made.handle_response(&first, RetryPolicy::UntilCommitted, 1, &mut order, &mut committed);
    assert!(matches!(verdict, CommitOutcome::Retry { find_coordinator: false, .. }), "{verdict:?}");
    let asker = CommitOrigin { by_user: true, seek_epoch: 0 };
    assert_eq!(committed, [CommittedOffset { partition: tp(0), offset: 7, topic_id: OLD, origin: asker }]);
    assert_eq!(sent(&made), [1]);
    let number = CommitNumber { at: 1, by_user: true };
    assert!(order.is_satisfied(&tp(0), number, 7) && !order.is_satisfied(&tp(1), number, 7));
    assert!(matches!(
        answered(&mut made, &response(&[(1, ErrorCode::NONE)]), RetryPolicy::UntilCommitted),
        CommitOutcome::Finished
    ));
    made.result().unwrap();
}

#[test]
fn skips_partitions_committed_by_later_commit() {
    let mut order = CommitOrder::default();
    let (mut earlier, later) = (commit(&member(5)).unwrap(), CommitNumber { at: 2, by_user: true });
    order.committed(&tp(0), later, 7);
    let (standing, metadata) = (member(5), metadata_with(1, Some(OLD)));
    let mut turn = |order: &CommitOrder| {
        let turn = earlier.next_attempt(
            &CommitContext { member: &standing, metadata: &metadata, order },
            RetryPolicy::UntilCommitted,
        );
        (turn.unwrap(), sent(&earlier))
    };
    assert!(matches!(turn(&order), (AttemptDecision::Send(_), left) if left == [1]));
    order.committed(&tp(1), later, 7);
    assert!(matches!(turn(&order), (AttemptDecision::Finished, _)));
    earlier.result().unwrap();
}

#[test]
fn merges_commits_with_latest_offset_per_partition() {
    let at = |partition, offset| [(tp(partition), OffsetAndMetadata::new(offset), OLD)];
    let commits = [(1, at(0, 5)), (2, at(1, 3)), (3, at(0, 2))].map(|(n, at)| of(&member(5), n, at).unwrap());
    let together = Commit::merge(&commits).unwrap().request(9, None);
    let offsets: Vec<_> =
        together.topics[0].partitions.iter().map(|p| (p.partition_index, p.committed_offset)).collect();
    assert_eq!(offsets, [(0, 2), (1, 3)]);
    assert!(Commit::merge(&[]).is_none());
    let alone = of(&MemberSnapshot::NoGroup, 4, at(0, 2)).unwrap();
    assert!(Commit::merge([&commits[0], &alone]).is_none(), "they are sent for different members");
}

#[test]
fn merged_automatic_commit_never_rewinds_user_commit() {
    let at = |number, by_user, offset| {
        let offsets = vec![(tp(0), OffsetAndMetadata::new(offset), OLD)];
        Commit::new("g".into(), None, &member(5), CommitNumber { at: number, by_user }, 0, offsets).unwrap()
    };
    let offset = |commits: [Commit; 2]| {
        Commit::merge(&commits).unwrap().request(9, None).topics[0].partitions[0].committed_offset
    };
    assert_eq!(offset([at(1, true, 60), at(2, false, 59)]), 60);
    assert_eq!(offset([at(1, true, 60), at(2, false, 80)]), 80, "the reader went on");
    assert_eq!(offset([at(1, false, 80), at(2, true, 60)]), 60, "a later user commit counts");
}

#[test]
fn retries_retriable_errors_and_relocates_coordinator() {
    for (code, moved) in [
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, false),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false),
        (ErrorCode::UNSTABLE_OFFSET_COMMIT, false),
        (ErrorCode::STALE_MEMBER_EPOCH, false),
        (ErrorCode::NOT_COORDINATOR, true),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, true),
        (ErrorCode::REQUEST_TIMED_OUT, true),
    ] {
        match answered(&mut commit(&member(5)).unwrap(), &both(code), RetryPolicy::UntilTopicsExist) {
            CommitOutcome::Retry { find_coordinator, error } => {
                assert_eq!((find_coordinator, error.code()), (moved, Some(code)));
            }
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[test]
fn reports_membership_errors_despite_topic_errors() {
    for (code, kind) in [
        (ErrorCode::REBALANCE_IN_PROGRESS, ErrorKind::Broker),
        (ErrorCode::ILLEGAL_GENERATION, ErrorKind::NotAssigned),
        (ErrorCode::UNKNOWN_MEMBER_ID, ErrorKind::NotAssigned),
        (ErrorCode::GROUP_ID_NOT_FOUND, ErrorKind::NotAssigned),
        (ErrorCode::FENCED_INSTANCE_ID, ErrorKind::Fenced),
    ] {
        // An error of a missing topic does not hide it.
        for other in [code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION] {
            let mixed = response(&[(0, other), (1, code)]);
            match answered(&mut commit(&member(5)).unwrap(), &mixed, RetryPolicy::UntilCommitted) {
                CommitOutcome::StaleMember { error, said } => {
                    assert_eq!((error.kind(), said.code()), (kind, Some(code)));
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }
}

#[test]
fn standalone_commit_fails_on_membership_errors() {
    let alone = |code| {
        let mut made = of(&MemberSnapshot::NoGroup, 1, [(tp(0), OffsetAndMetadata::new(7), OLD)]).unwrap();
        let verdict = answered(&mut made, &response(&[(0, code)]), RetryPolicy::UntilCommitted);
        (made, verdict)
    };
    for code in [ErrorCode::STALE_MEMBER_EPOCH, ErrorCode::ILLEGAL_GENERATION, ErrorCode::UNKNOWN_MEMBER_ID] {
        match alone(code).1 {
            CommitOutcome::StaleMember { error, said } => {
                assert_eq!((error.kind(), said.code()), (ErrorKind::NotAssigned, Some(code)));
                assert!(error.to_string().contains("has members"), "{error}");
            }
            other => panic!("{code}: {other:?}"),
        }
    }
    // Outside a group this code means that the group's type does not take such commits.
    let (made, verdict) = alone(ErrorCode::GROUP_ID_NOT_FOUND);
    assert!(matches!(verdict, CommitOutcome::Finished), "{verdict:?}");
    assert_eq!(made.result().unwrap_err().code(), Some(ErrorCode::GROUP_ID_NOT_FOUND));
}

#[test]
fn permanent_error_fails_only_its_partition() {
    for code in [
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ErrorCode::OFFSET_METADATA_TOO_LARGE,
        ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::new(9_999),
    ] {
        let mut made = commit(&member(5)).unwrap();
        let mixed = response(&[(0, ErrorCode::NOT_COORDINATOR), (1, code)]);
        match answered(&mut made, &mixed, RetryPolicy::UntilCommitted) {
            CommitOutcome::Retry { error, .. } => assert_eq!(error.code(), Some(ErrorCode::NOT_COORDINATOR)),
            other => panic!("{code}: {other:?}"),
        }
        assert_eq!(sent(&made), [0]);
        assert!(matches!(
            answered(&mut made, &response(&[(0, ErrorCode::NONE)]), RetryPolicy::UntilCommitted),
            CommitOutcome::Finished
        ));
        let error = made.result().unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(error.to_string().contains("t[1]") && !error.to_string().contains("t[0]"), "{error}");
    }
}

#[test]
fn missing_partition_in_response_is_error() {
    let mut made = commit(&member(5)).unwrap();
    let verdict = answered(&mut made, &response(&[(0, ErrorCode::NONE)]), RetryPolicy::UntilTopicsExist);
    assert!(matches!(verdict, CommitOutcome::Finished), "{verdict:?}");
    assert_eq!(made.result().unwrap_err().kind(), ErrorKind::Protocol);
}
