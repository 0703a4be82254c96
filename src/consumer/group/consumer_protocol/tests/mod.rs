//! Tests of the rules of membership, one at a time.

mod errors;
mod heartbeats;
mod reconciling;

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    actions::{Action, HeartbeatFields, HeartbeatResponse, LeavingHeartbeat, PartitionsByTopicId, TopicsToSubscribe},
    consumer_membership::ConsumerMembership,
};
use crate::{
    consumer::group::{
        GroupSettings,
        actions::AttemptId,
        member_snapshot::{Identity, MemberSnapshot},
        membership::Membership,
    },
    error::{Error, ErrorCode},
    record::TopicPartition,
};

const INTERVAL: Duration = Duration::from_secs(5);
const SESSION: Duration = Duration::from_secs(45);
pub(super) const POLL: Duration = Duration::from_secs(300);
const T: Uuid = Uuid::from_u128(1);
const U: Uuid = Uuid::from_u128(2);

pub(super) fn settings(instance_id: Option<&str>) -> GroupSettings {
    GroupSettings {
        group_id: "g".into(),
        group_instance_id: instance_id.map(Arc::from),
        session_timeout: Duration::from_secs(45),
        heartbeat_interval: Duration::from_secs(3),
        max_poll_interval: POLL,
        assignors: crate::consumer::group::assignor::defaults(),
        client_rack: None,
        exclude_internal_topics: true,
        origin: crate::log::Origin::default(),
    }
}

fn error(code: ErrorCode) -> Error {
    Error::broker(code, "test")
}

fn wanted(names: &[&str]) -> TopicsToSubscribe {
    TopicsToSubscribe { names: names.iter().map(|&name| name.into()).collect(), regex: None }
}

fn held(topics: &[(Uuid, Range<i32>)]) -> PartitionsByTopicId {
    topics.iter().map(|(id, partitions)| (*id, partitions.clone().collect())).collect()
}

fn partitions(topic: &str, numbers: Range<i32>) -> Vec<TopicPartition> {
    numbers.map(|number| TopicPartition::new(topic, number)).collect()
}

fn name_of(id: Uuid) -> Option<Arc<str>> {
    match id {
        T => Some("t".into()),
        U => Some("u".into()),
        _ => None,
    }
}

/// A member and its clock; each response is given by the test.
struct Bench {
    member: ConsumerMembership,
    now: Instant,
}

impl Bench {
    fn new(instance_id: Option<&str>) -> Self {
        let now = Instant::now();
        let backoff = (Duration::from_millis(100), Duration::from_secs(1));
        Self { member: ConsumerMembership::new(settings(instance_id), "m".into(), backoff, 7, now), now }
    }

    /// Creates a member in epoch 5 that owns the partitions 0 and 1 of `t`, and has reported them.
    fn settled() -> Self {
        Self::settled_as(None)
    }

    fn settled_as(instance_id: Option<&str>) -> Self {
        let mut bench = Self::new(instance_id);
        bench.subscribe(&["t"]);
        let (attempt, beat) = bench.beat();
        assert_eq!(beat.epoch, 0);
        bench.answer(attempt, 5, Some(held(&[(T, 0..2)])));
        bench.names();
        assert_eq!(bench.assigned(), partitions("t", 0..2));
        let (attempt, _) = bench.beat();
        bench.answer(attempt, 5, None);
        bench.idle();
        bench
    }

    fn action(&mut self) -> Action {
        self.member.next_action().expect("an action")
    }

    fn idle(&mut self) {
        if let Some(action) = self.member.next_action() {
            panic!("unexpected {action:?}");
        }
    }

    fn subscribe(&mut self, names: &[&str]) {
        self.member.subscribe(self.now, Some(wanted(names)));
    }

    fn names(&mut self) {
        self.member.names_known(self.now, name_of);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.member.tick(self.now);
    }

    /// Moves the clock to the member's next wake-up.
    fn wait(&mut self) {
        self.now = self.member.next_wake().expect("something to wait for").max(self.now);
        self.member.tick(self.now);
    }

    fn beat(&mut self) -> (AttemptId, HeartbeatFields) {
        match self.action() {
            Action::Send { attempt, request: beat } => (attempt, beat),
            other => panic!("expected a heartbeat, found {other:?}"),
        }
    }

    fn next_beat(&mut self) -> (AttemptId, HeartbeatFields) {
        self.wait();
        self.beat()
    }

    fn answer(&mut self, attempt: AttemptId, epoch: i32, assignment: Option<PartitionsByTopicId>) {
        let answer = HeartbeatResponse { node: 1, member_id: None, epoch, interval: Some(INTERVAL), assignment };
        self.member.handle_response(self.now, attempt, Ok(answer));
    }

    fn refuse(&mut self, attempt: AttemptId, code: ErrorCode) {
        self.member.handle_response(self.now, attempt, Err(error(code)));
    }

    /// Answers the next heartbeat with this assignment.
    fn told(&mut self, epoch: i32, assignment: PartitionsByTopicId) {
        let (attempt, _) = self.next_beat();
        self.answer(attempt, epoch, Some(assignment));
    }

    fn assigned(&mut self) -> Vec<TopicPartition> {
        match self.action() {
            Action::Assigned { partitions } => partitions,
            other => panic!("expected an assignment, found {other:?}"),
        }
    }

    fn revoking(&mut self) -> (AttemptId, Vec<TopicPartition>) {
        match self.action() {
            Action::Revoke { attempt, partitions } => (attempt, partitions),
            other => panic!("expected a revocation, found {other:?}"),
        }
    }

    fn lost(&mut self) -> Vec<TopicPartition> {
        match self.action() {
            Action::Lost { partitions } => partitions,
            other => panic!("expected a loss, found {other:?}"),
        }
    }

    /// Lets the member leave, with a response.
    fn left(&mut self) -> i32 {
        let epoch = self.leaves();
        self.member.leave_ended(self.now);
        epoch
    }

    fn leaves(&mut self) -> i32 {
        match self.action() {
            Action::Leave(LeavingHeartbeat { member_id, epoch }) => {
                assert_eq!(&*member_id, "m");
                epoch
            }
            other => panic!("expected a leave, found {other:?}"),
        }
    }

    fn raised(&mut self) -> Error {
        match self.action() {
            Action::Error { error, fatal: false } => error,
            other => panic!("expected an error, found {other:?}"),
        }
    }

    fn parked(&mut self) -> Error {
        assert!(matches!(self.action(), Action::AwaitPoll));
        let error = self.raised();
        self.idle();
        assert!(self.member.next_wake().is_none(), "nothing happens before the reader comes again");
        assert!(matches!(self.member.snapshot(), MemberSnapshot::Fenced));
        error
    }

    fn owned(&self) -> Vec<TopicPartition> {
        match self.member.snapshot() {
            MemberSnapshot::Member { owned, .. } | MemberSnapshot::Rebalancing { owned, .. } => {
                owned.keys().cloned().collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn epoch(&self) -> Option<i32> {
        match self.member.snapshot() {
            MemberSnapshot::Member { identity, .. } | MemberSnapshot::Rebalancing { identity, .. } => {
                Some(identity.generation).filter(|epoch| *epoch > 0)
            }
            _ => None,
        }
    }

    fn is_settled(&self) -> bool {
        matches!(self.member.snapshot(), MemberSnapshot::Member { .. })
    }
}
