//! Tests of the rules of membership, one at a time.

mod cooperative;
mod joining;
mod settled;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    consumer::group::{
        GroupSettings,
        actions::AttemptId,
        assignor::{PartitionRacks, RangeAssignor},
        classic::{
            actions::{
                Action, ClassicRequest, JoinAnswer, JoinOutcome, JoinedMember, LeaveGroup, PROTOCOL_TYPE, SyncAnswer,
            },
            classic_membership::ClassicMembership,
            member_metadata::{self, MemberSubscription},
        },
        member_snapshot::{Identity, MemberSnapshot},
        membership::Membership,
    },
    error::{Error, ErrorCode, ErrorKind},
    record::TopicPartition,
};

const SESSION: Duration = Duration::from_secs(45);
const INTERVAL: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_secs(300);

pub(super) fn settings(instance_id: Option<&str>) -> GroupSettings {
    GroupSettings {
        group_id: "g".into(),
        group_instance_id: instance_id.map(Arc::from),
        session_timeout: SESSION,
        heartbeat_interval: INTERVAL,
        max_poll_interval: POLL,
        assignors: vec![Arc::new(RangeAssignor)],
        client_rack: None,
        exclude_internal_topics: true,
        origin: crate::log::Origin::default(),
    }
}

pub(super) fn error(code: ErrorCode) -> Error {
    Error::broker(code, "test")
}

pub(super) fn topics(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|&name| name.into()).collect()
}

pub(super) fn partitions(topic: &str, numbers: std::ops::Range<i32>) -> Vec<TopicPartition> {
    numbers.map(|number| TopicPartition::new(topic, number)).collect()
}

/// Returns `count` partitions without racks.
fn racks(count: usize) -> Vec<PartitionRacks> {
    vec![PartitionRacks::new(); count]
}

/// A member and its clock; each response is given by the test.
struct Bench {
    member: ClassicMembership,
    now: Instant,
}

impl Bench {
    fn new(instance_id: Option<&str>) -> Self {
        let now = Instant::now();
        let backoff = (Duration::from_millis(100), Duration::from_secs(1));
        Self { member: ClassicMembership::new(settings(instance_id), backoff, 7, now), now }
    }

    /// Creates a member that follows in generation 5 and owns the partitions 0 and 1 of `t`.
    fn stable() -> Self {
        Self::stable_as(None)
    }

    fn stable_as(instance_id: Option<&str>) -> Self {
        let mut bench = Self::new(instance_id);
        bench.subscribe(&["t"]);
        bench.follow(5, "m");
        bench.sync(&partitions("t", 0..2));
        assert_eq!(bench.assigned(), partitions("t", 0..2));
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
        self.member.subscribe(self.now, Some(topics(names)));
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

    fn expect_join(&mut self) -> (AttemptId, String) {
        match self.action() {
            Action::Send { attempt, request: ClassicRequest::Join { member_id, .. } } => {
                (attempt, member_id.to_string())
            }
            other => panic!("expected a join, found {other:?}"),
        }
    }

    fn join_fails(&mut self, code: ErrorCode) {
        let (attempt, _) = self.expect_join();
        self.member.joined(self.now, attempt, JoinOutcome::Failed(error(code)));
    }

    fn answer(generation: i32, member_id: &str) -> JoinAnswer {
        JoinAnswer {
            generation,
            member_id: member_id.to_owned(),
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol: Some("range".to_owned()),
            leads: false,
            skip_assignment: false,
            members: Vec::new(),
        }
    }

    fn follow(&mut self, generation: i32, member_id: &str) {
        let (attempt, _) = self.expect_join();
        self.member.joined(self.now, attempt, JoinOutcome::Member(Self::answer(generation, member_id)));
    }

    /// Joins as the leader of itself and another member, both of which subscribe to `t`.
    fn lead(&mut self, keep: bool) -> AttemptId {
        let (attempt, _) = self.expect_join();
        let subscription =
            MemberSubscription { topics: vec!["t".into()], generation: -1, ..MemberSubscription::default() };
        let metadata = subscription.encode().unwrap();
        let member = |id: &str| JoinedMember { id: id.to_owned(), instance_id: None, metadata: metadata.clone() };
        let broken = JoinedMember { id: "z".to_owned(), instance_id: None, metadata: vec![0, 9, 9].into() };
        let members = vec![member("m"), member("n"), broken];
        let answer = JoinAnswer { leads: true, skip_assignment: keep, members, ..Self::answer(5, "m") };
        self.member.joined(self.now, attempt, JoinOutcome::Member(answer));
        match self.action() {
            Action::Send { attempt, request: ClassicRequest::Count { topics: asked } } => {
                assert_eq!(asked, topics(&["t"]));
                attempt
            }
            other => panic!("expected a count, found {other:?}"),
        }
    }

    fn sync(&mut self, given: &[TopicPartition]) {
        let attempt = match self.action() {
            Action::Send { attempt, request: ClassicRequest::Sync { .. } } => attempt,
            other => panic!("expected a sync, found {other:?}"),
        };
        let answer = SyncAnswer {
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol: Some("range".to_owned()),
            assignment: member_metadata::encode_assignment(given).unwrap(),
        };
        self.member.synced(self.now, attempt, Ok(answer));
    }

    fn sync_fails(&mut self, code: ErrorCode) {
        match self.action() {
            Action::Send { attempt, request: ClassicRequest::Sync { .. } } => {
                self.member.synced(self.now, attempt, Err(error(code)))
            }
            other => panic!("expected a sync, found {other:?}"),
        }
    }

    fn assigned(&mut self) -> Vec<TopicPartition> {
        match self.action() {
            Action::Assigned { partitions } => partitions,
            other => panic!("expected an assignment, found {other:?}"),
        }
    }

    fn heartbeat(&mut self) -> (AttemptId, Identity) {
        self.wait();
        match self.action() {
            Action::Send { attempt, request: ClassicRequest::Heartbeat { identity } } => (attempt, identity),
            other => panic!("expected a heartbeat, found {other:?}"),
        }
    }

    fn heartbeat_gives(&mut self, answer: Result<(), Error>) {
        let (attempt, _) = self.heartbeat();
        self.member.heartbeat_answered(self.now, attempt, answer);
    }

    fn revoking(&mut self) -> AttemptId {
        match self.action() {
            Action::Revoke { attempt, partitions: asked } => {
                assert_eq!(asked, partitions("t", 0..2));
                attempt
            }
            other => panic!("expected a revocation, found {other:?}"),
        }
    }

    fn lost(&mut self) {
        match self.action() {
            Action::Lost { partitions: lost } => assert_eq!(lost, partitions("t", 0..2)),
            other => panic!("expected a loss, found {other:?}"),
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

    fn generation(&self) -> Option<i32> {
        match self.member.snapshot() {
            MemberSnapshot::Member { identity, .. } => Some(identity.generation),
            _ => None,
        }
    }
}
