use std::sync::Arc;

use uuid::Uuid;

use super::{
    commit::{Commit, Committed, Insistence, Now, ToCommit, Turn, Verdict},
    membership::{Identity, Standing},
    order::{Asker, Number, Order},
    requests::text,
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

const OLD: Uuid = Uuid::from_u128(1);
const NEW: Uuid = Uuid::from_u128(2);

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn member(generation: i32) -> Standing {
    let identity = Identity { generation, member_id: "m".into() };
    Standing::Member { identity, owned: Arc::new([(tp(0), 1), (tp(1), 1)].into()) }
}

fn me(generation: i32) -> Identity {
    Identity { generation, member_id: "m".into() }
}

fn nothing_kept() -> Standing {
    Standing::Rebalancing { identity: me(5), owned: Arc::default() }
}

fn of(standing: &Standing, number: u64, offsets: impl IntoIterator<Item = ToCommit>) -> Result<Commit> {
    by(Number { at: number, by_user: true }, standing, offsets)
}

fn by(number: Number, standing: &Standing, offsets: impl IntoIterator<Item = ToCommit>) -> Result<Commit> {
    Commit::new("g".into(), Some("i".into()), standing, number, 0, offsets.into_iter().collect())
}

fn commit(standing: &Standing) -> Result<Commit> {
    of(standing, 1, [tp(0), tp(1)].map(|partition| (partition, OffsetAndMetadata::new(7), OLD)))
}

/// A picture with the topic under that id, or without it.
fn picture(version: u64, id: Option<Uuid>) -> Metadata {
    let topic = |id| ("t".into(), Arc::new(TopicMetadata { name: "t".into(), id, ..TopicMetadata::default() }));
    Metadata { version, topics: id.map(topic).into_iter().collect(), ..Metadata::default() }
}

fn turn_in(commit: &mut Commit, standing: &Standing, picture: &Metadata, insistence: Insistence) -> Result<Turn> {
    commit.turn(&Now { standing, picture, order: &Order::default() }, insistence)
}

fn turn(commit: &mut Commit, standing: &Standing) -> Result<Turn> {
    turn_in(commit, standing, &picture(1, Some(OLD)), Insistence::Through)
}

/// The name that it goes in.
fn name(turn: Result<Turn>) -> Option<Identity> {
    match turn.unwrap() {
        Turn::Now(identity) => identity,
        other => panic!("{other:?}"),
    }
}

/// How it came out of which nothing is left.
fn lost(commit: &mut Commit, turn: Result<Turn>) -> Error {
    match turn {
        Ok(Turn::Over) => commit.end().unwrap_err(),
        other => other.unwrap_err(),
    }
}

fn response(codes: &[(i32, ErrorCode)]) -> OffsetCommitResponse {
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

fn answered(commit: &mut Commit, response: &OffsetCommitResponse, insistence: Insistence) -> Verdict {
    commit.answered(response, insistence, 1, &mut Order::default(), &mut Vec::new())
}

fn sent(commit: &Commit) -> Vec<i32> {
    let topics = commit.request(9, None).topics;
    topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.partition_index).collect()
}

#[test]
fn what_is_committed_by_itself_is_committed_of_all_that_is_owned() {
    let offsets = [0, 1, 2].map(|partition| (tp(partition), OffsetAndMetadata::new(7), OLD));
    let error = of(&member(5), 1, offsets.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned, "the user has to hear of it before");
    let mut made = by(Number { at: 1, by_user: false }, &member(5), offsets.clone()).unwrap();
    assert_eq!(name(turn(&mut made, &member(5))), Some(me(5)));
    assert_eq!(sent(&made), [0, 1]);
    assert!(matches!(answered(&mut made, &both(ErrorCode::NONE), Insistence::Through), Verdict::Over));
    let error = made.end().unwrap_err();
    assert!(error.kind() == ErrorKind::NotAssigned && error.to_string().contains("t[2]"), "{error}");
    let nothing = by(Number { at: 1, by_user: false }, &nothing_kept(), offsets).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(nothing.end().unwrap_err().code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
}

#[test]
fn requests_carry_who_we_are_as_far_as_their_version_can() {
    let commit = commit(&member(5)).unwrap();
    let request = commit.request(9, Some(&me(5)));
    assert_eq!((request.generation_id_or_member_epoch, request.member_id.as_str()), (5, "m"));
    assert_eq!(request.group_instance_id.as_deref(), Some("i"));
    assert_eq!(request.topics[0].partitions.len(), 2);
    assert!(commit.request(6, Some(&me(5))).group_instance_id.is_none());
}

#[test]
fn without_a_group_any_partition_is_committed_without_a_generation() {
    let offset = OffsetAndMetadata { leader_epoch: Some(4), ..OffsetAndMetadata::new(1) };
    let commit = of(&Standing::Alone, 1, [(tp(99), offset, Uuid::nil())]).unwrap();
    let request = commit.request(9, None);
    assert_eq!((request.generation_id_or_member_epoch, request.member_id.as_str()), (-1, ""));
    assert!(request.group_instance_id.is_none());
    assert_eq!(request.topics[0].partitions[0].committed_leader_epoch, 4);
    assert_eq!(commit.request(5, None).topics[0].partitions[0].committed_leader_epoch, -1);
}

#[test]
fn what_is_not_ours_is_refused_before_it_is_sent() {
    let at = |partition, offset| [(tp(partition), OffsetAndMetadata::new(offset), OLD)];
    assert_eq!(of(&member(5), 1, at(2, 7)).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(of(&member(5), 1, at(0, -1)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(commit(&nothing_kept()).unwrap_err().code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
    assert_eq!(commit(&Standing::Out).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert!(of(&Standing::Out, 1, []).unwrap().is_empty(), "nothing is anybody's to commit");
    let fenced = Error::broker(ErrorCode::FENCED_INSTANCE_ID, "test");
    assert!(commit(&Standing::Ended(fenced)).unwrap_err().is_fatal());
}

#[test]
fn a_commit_does_not_outlive_its_assignment() {
    let mut made = commit(&member(5)).unwrap();
    assert_eq!(name(turn(&mut made, &member(5))), Some(me(5)));
    for standing in [nothing_kept(), Standing::Out, Standing::Alone] {
        let mut made = commit(&member(5)).unwrap();
        let turn = turn(&mut made, &standing);
        assert_eq!(lost(&mut made, turn).kind(), ErrorKind::NotAssigned, "{standing:?}");
    }
}

#[test]
fn what_is_kept_over_a_rebalance_is_committed_after_it_in_the_new_name() {
    let kept = |generation| {
        let owned = Arc::new([(tp(0), 1), (tp(1), 1)].into());
        Standing::Rebalancing { identity: me(generation), owned }
    };
    let mut made = commit(&member(5)).unwrap();
    assert_eq!(name(turn(&mut made, &kept(5))), Some(me(5)), "until the next generation begins");
    assert!(matches!(turn(&mut made, &kept(-1)), Ok(Turn::Later)));
    assert_eq!(name(turn(&mut made, &member(6))), Some(me(6)));
    let mut made = commit(&kept(-1)).unwrap();
    assert_eq!(name(turn(&mut made, &member(6))), Some(me(6)));
}

#[test]
fn what_was_away_in_between_is_left_out_of_a_commit_and_named() {
    let mut made = commit(&member(5)).unwrap();
    let owned = Arc::new([(tp(0), 1), (tp(1), 2)].into());
    let came_back = Standing::Member { identity: me(7), owned };
    assert_eq!(name(turn(&mut made, &came_back)), Some(me(7)));
    assert_eq!(sent(&made), [0]);
    assert!(matches!(answered(&mut made, &response(&[(0, ErrorCode::NONE)]), Insistence::Through), Verdict::Over));
    let error = made.end().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert!(error.to_string().contains("t[1]") && !error.to_string().contains("t[0]"), "{error}");
}

#[test]
fn a_commit_does_not_outlive_its_topic() {
    for insistence in [Insistence::OneAnswer, Insistence::Through, Insistence::AlsoForTopics] {
        let mut made = commit(&member(5)).unwrap();
        let turn = turn_in(&mut made, &member(5), &picture(2, Some(NEW)), insistence);
        assert_eq!(lost(&mut made, turn).kind(), ErrorKind::NotAssigned, "its successor is another topic");
    }
    // Where the cluster knows no ids, or nobody knew that of the topic, there is nothing to
    // compare.
    let mut made = commit(&member(5)).unwrap();
    assert!(name(turn_in(&mut made, &member(5), &picture(2, Some(Uuid::nil())), Insistence::Through)).is_some());
    let nameless = [(tp(0), OffsetAndMetadata::new(7), Uuid::nil())];
    let mut made = of(&member(5), 1, nameless).unwrap();
    assert!(name(turn_in(&mut made, &member(5), &picture(2, Some(NEW)), Insistence::Through)).is_some());
    assert!(name(turn_in(&mut made, &member(5), &picture(2, None), Insistence::Through)).is_some());
}

#[test]
fn a_topic_that_is_not_seen_is_waited_for_or_given_up_but_not_asked_for_by_its_name() {
    for insistence in [Insistence::OneAnswer, Insistence::Through] {
        let mut made = commit(&member(5)).unwrap();
        let turn = turn_in(&mut made, &member(5), &picture(2, None), insistence);
        let error = lost(&mut made, turn);
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), "{error}");
    }
    let patient = Insistence::AlsoForTopics;
    let mut made = commit(&member(5)).unwrap();
    assert!(matches!(turn_in(&mut made, &member(5), &picture(2, None), patient), Ok(Turn::NoTopic(_))));
    assert!(sent(&made).is_empty());
    assert!(name(turn_in(&mut made, &member(5), &picture(3, Some(OLD)), patient)).is_some(), "it was there all along");
    assert_eq!(sent(&made), [0, 1]);
    // The coordinator does not know it: a picture from before that says nothing.
    let unknown = both(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let verdict = made.answered(&unknown, patient, 3, &mut Order::default(), &mut Vec::new());
    assert!(matches!(verdict, Verdict::Again { find_coordinator: false, .. }), "{verdict:?}");
    assert!(matches!(turn_in(&mut made, &member(5), &picture(3, Some(OLD)), patient), Ok(Turn::NoTopic(_))));
    assert!(name(turn_in(&mut made, &member(5), &picture(4, Some(OLD)), patient)).is_some());
}

fn response_by_id(id: Uuid, code: ErrorCode) -> OffsetCommitResponse {
    let mut response = both(code);
    (response.topics[0].name, response.topics[0].topic_id) = (text(""), id);
    response
}

#[test]
fn topics_go_by_id_where_all_ids_are_known() {
    let mut made = commit(&member(5)).unwrap();
    assert_eq!(made.max_version(), None);
    assert_eq!(made.request(10, Some(&me(5))).topics[0].topic_id, OLD);
    assert!(made.request(9, Some(&me(5))).topics[0].topic_id.is_nil());
    assert!(matches!(answered(&mut made, &response_by_id(OLD, ErrorCode::NONE), Insistence::Through), Verdict::Over));
    made.end().unwrap();

    let named = [
        (tp(0), OffsetAndMetadata::new(7), OLD),
        (TopicPartition::new("u", 0), OffsetAndMetadata::new(1), Uuid::nil()),
    ];
    assert_eq!(of(&Standing::Alone, 1, named).unwrap().max_version(), Some(9), "the id of u is not known");
}

#[test]
fn answer_for_another_topic_id_is_none() {
    let mut made = commit(&member(5)).unwrap();
    assert!(matches!(answered(&mut made, &response_by_id(NEW, ErrorCode::NONE), Insistence::Through), Verdict::Over));
    assert_eq!(made.end().unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn unknown_topic_id_waits_for_metadata() {
    let unknown = response_by_id(OLD, ErrorCode::UNKNOWN_TOPIC_ID);
    let mut made = commit(&member(5)).unwrap();
    assert!(matches!(answered(&mut made, &unknown, Insistence::Through), Verdict::Over));
    assert_eq!(made.end().unwrap_err().code(), Some(ErrorCode::UNKNOWN_TOPIC_ID), "told where it is not waited for");

    let patient = Insistence::AlsoForTopics;
    let mut made = commit(&member(5)).unwrap();
    let verdict = made.answered(&unknown, patient, 3, &mut Order::default(), &mut Vec::new());
    assert!(matches!(verdict, Verdict::Again { find_coordinator: false, .. }), "{verdict:?}");
    assert!(matches!(turn_in(&mut made, &member(5), &picture(3, Some(OLD)), patient), Ok(Turn::NoTopic(_))));
    assert_eq!(made.max_version(), None, "not by name");
    let turn = turn_in(&mut made, &member(5), &picture(4, Some(NEW)), patient);
    assert_eq!(lost(&mut made, turn).kind(), ErrorKind::NotAssigned, "the topic was made anew");
}

#[test]
fn what_was_committed_is_told_and_not_sent_again() {
    let mut made = commit(&member(5)).unwrap();
    let (mut order, mut committed) = (Order::default(), Vec::new());
    let first = response(&[(0, ErrorCode::NONE), (1, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)]);
    let verdict = made.answered(&first, Insistence::Through, 1, &mut order, &mut committed);
    assert!(matches!(verdict, Verdict::Again { find_coordinator: false, .. }), "{verdict:?}");
    let asker = Asker { by_user: true, positioned: 0 };
    assert_eq!(committed, [Committed { partition: tp(0), offset: 7, topic_id: OLD, asker }]);
    assert_eq!(sent(&made), [1]);
    let number = Number { at: 1, by_user: true };
    assert!(order.is_through(&tp(0), number, 7) && !order.is_through(&tp(1), number, 7));
    assert!(matches!(answered(&mut made, &response(&[(1, ErrorCode::NONE)]), Insistence::Through), Verdict::Over));
    made.end().unwrap();
}

#[test]
fn what_was_committed_for_somebody_who_asked_later_is_left_out() {
    let mut order = Order::default();
    let (mut earlier, later) = (commit(&member(5)).unwrap(), Number { at: 2, by_user: true });
    order.committed(&tp(0), later, 7);
    let (standing, picture) = (member(5), picture(1, Some(OLD)));
    let mut turn = |order: &Order| {
        let turn = earlier.turn(&Now { standing: &standing, picture: &picture, order }, Insistence::Through);
        (turn.unwrap(), sent(&earlier))
    };
    assert!(matches!(turn(&order), (Turn::Now(_), left) if left == [1]));
    order.committed(&tp(1), later, 7);
    assert!(matches!(turn(&order), (Turn::Over, _)));
    earlier.end().unwrap();
}

#[test]
fn commits_that_go_together_take_what_was_asked_for_last() {
    let at = |partition, offset| [(tp(partition), OffsetAndMetadata::new(offset), OLD)];
    let commits = [(1, at(0, 5)), (2, at(1, 3)), (3, at(0, 2))].map(|(n, at)| of(&member(5), n, at).unwrap());
    let together = Commit::together(&commits).unwrap().request(9, None);
    let offsets: Vec<_> =
        together.topics[0].partitions.iter().map(|p| (p.partition_index, p.committed_offset)).collect();
    assert_eq!(offsets, [(0, 2), (1, 3)]);
    assert!(Commit::together(&[]).is_none());
    let alone = of(&Standing::Alone, 4, at(0, 2)).unwrap();
    assert!(Commit::together([&commits[0], &alone]).is_none(), "they go in different names");
}

#[test]
fn of_what_goes_together_the_consumers_own_does_not_go_back_behind_the_users() {
    let at = |number, by_user, offset| {
        let offsets = vec![(tp(0), OffsetAndMetadata::new(offset), OLD)];
        Commit::new("g".into(), None, &member(5), Number { at: number, by_user }, 0, offsets).unwrap()
    };
    let offset = |commits: [Commit; 2]| {
        Commit::together(&commits).unwrap().request(9, None).topics[0].partitions[0].committed_offset
    };
    assert_eq!(offset([at(1, true, 60), at(2, false, 59)]), 60);
    assert_eq!(offset([at(1, true, 60), at(2, false, 80)]), 80, "the reader went on");
    assert_eq!(offset([at(1, false, 80), at(2, true, 60)]), 60, "the user's later word");
}

#[test]
fn errors_that_may_pass_are_tried_again() {
    for (code, moved) in [
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, false),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false),
        (ErrorCode::UNSTABLE_OFFSET_COMMIT, false),
        (ErrorCode::STALE_MEMBER_EPOCH, false),
        (ErrorCode::NOT_COORDINATOR, true),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, true),
        (ErrorCode::REQUEST_TIMED_OUT, true),
    ] {
        match answered(&mut commit(&member(5)).unwrap(), &both(code), Insistence::AlsoForTopics) {
            Verdict::Again { find_coordinator, error } => {
                assert_eq!((find_coordinator, error.code()), (moved, Some(code)));
            }
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[test]
fn errors_of_membership_are_told_to_it() {
    for (code, kind) in [
        (ErrorCode::REBALANCE_IN_PROGRESS, ErrorKind::Broker),
        (ErrorCode::ILLEGAL_GENERATION, ErrorKind::NotAssigned),
        (ErrorCode::UNKNOWN_MEMBER_ID, ErrorKind::NotAssigned),
        (ErrorCode::GROUP_ID_NOT_FOUND, ErrorKind::NotAssigned),
        (ErrorCode::FENCED_INSTANCE_ID, ErrorKind::Fenced),
    ] {
        // A topic that is gone does not hide it.
        for other in [code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION] {
            let mixed = response(&[(0, other), (1, code)]);
            match answered(&mut commit(&member(5)).unwrap(), &mixed, Insistence::Through) {
                Verdict::NotOurName { error, said } => {
                    assert_eq!((error.kind(), said.code()), (kind, Some(code)));
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }
}

#[test]
fn who_is_in_no_group_does_not_wait_for_an_epoch() {
    let alone = |code| {
        let mut made = of(&Standing::Alone, 1, [(tp(0), OffsetAndMetadata::new(7), OLD)]).unwrap();
        let verdict = answered(&mut made, &response(&[(0, code)]), Insistence::Through);
        (made, verdict)
    };
    for code in [ErrorCode::STALE_MEMBER_EPOCH, ErrorCode::ILLEGAL_GENERATION, ErrorCode::UNKNOWN_MEMBER_ID] {
        match alone(code).1 {
            Verdict::NotOurName { error, said } => {
                assert_eq!((error.kind(), said.code()), (ErrorKind::NotAssigned, Some(code)));
                assert!(error.to_string().contains("has members"), "{error}");
            }
            other => panic!("{code}: {other:?}"),
        }
    }
    // Without a member it says that the group is of a kind that takes no such commits.
    let (made, verdict) = alone(ErrorCode::GROUP_ID_NOT_FOUND);
    assert!(matches!(verdict, Verdict::Over), "{verdict:?}");
    assert_eq!(made.end().unwrap_err().code(), Some(ErrorCode::GROUP_ID_NOT_FOUND));
}

#[test]
fn what_is_refused_for_good_is_given_up_and_the_others_go_on() {
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
        match answered(&mut made, &mixed, Insistence::Through) {
            Verdict::Again { error, .. } => assert_eq!(error.code(), Some(ErrorCode::NOT_COORDINATOR)),
            other => panic!("{code}: {other:?}"),
        }
        assert_eq!(sent(&made), [0]);
        assert!(matches!(answered(&mut made, &response(&[(0, ErrorCode::NONE)]), Insistence::Through), Verdict::Over));
        let error = made.end().unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(error.to_string().contains("t[1]") && !error.to_string().contains("t[0]"), "{error}");
    }
}

#[test]
fn an_answer_that_leaves_a_partition_out_is_no_success() {
    let mut made = commit(&member(5)).unwrap();
    let verdict = answered(&mut made, &response(&[(0, ErrorCode::NONE)]), Insistence::AlsoForTopics);
    assert!(matches!(verdict, Verdict::Over), "{verdict:?}");
    assert_eq!(made.end().unwrap_err().kind(), ErrorKind::Protocol);
}
