//! One rule of membership after the other.

use super::*;
use crate::consumer::group::range::Range;

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
        client_rack: None,
        exclude_internal_topics: true,
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

/// A member and its clock; each answer is given by hand.
struct Bench {
    member: Membership,
    now: Instant,
}

impl Bench {
    fn new(instance_id: Option<&str>) -> Self {
        let now = Instant::now();
        let backoff = (Duration::from_millis(100), Duration::from_secs(1));
        Self { member: Membership::new(settings(instance_id), vec![Arc::new(Range)], backoff, 7, now), now }
    }

    /// A member that follows in generation 5 and owns the partitions 0 and 1 of `t`.
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

    /// To the next thing that time does.
    fn wait(&mut self) {
        self.now = self.member.next_wake().expect("something to wait for").max(self.now);
        self.member.tick(self.now);
    }

    fn expect_join(&mut self) -> (Ticket, String) {
        match self.action() {
            Action::Join { ticket, member_id, .. } => (ticket, member_id.to_string()),
            other => panic!("expected a join, found {other:?}"),
        }
    }

    fn join_fails(&mut self, code: ErrorCode) {
        let (ticket, _) = self.expect_join();
        self.member.joined(self.now, ticket, Joined::Failed(error(code)));
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
        let (ticket, _) = self.expect_join();
        self.member.joined(self.now, ticket, Joined::In(Self::answer(generation, member_id)));
    }

    /// Enters as the leader of itself and another member, both of which want `t`.
    fn lead(&mut self, keep: bool) -> Ticket {
        let (ticket, _) = self.expect_join();
        let subscription =
            MemberSubscription { topics: vec!["t".into()], generation: -1, ..MemberSubscription::default() };
        let metadata = subscription.encode().unwrap();
        let member = |id: &str| JoinedMember { id: id.to_owned(), instance_id: None, metadata: metadata.clone() };
        let broken = JoinedMember { id: "z".to_owned(), instance_id: None, metadata: vec![0, 9, 9].into() };
        let members = vec![member("m"), member("n"), broken];
        let answer = JoinAnswer { leads: true, skip_assignment: keep, members, ..Self::answer(5, "m") };
        self.member.joined(self.now, ticket, Joined::In(answer));
        match self.action() {
            Action::Count { ticket, topics: asked } => {
                assert_eq!(asked, topics(&["t"]));
                ticket
            }
            other => panic!("expected a count, found {other:?}"),
        }
    }

    fn sync(&mut self, given: &[TopicPartition]) {
        let ticket = match self.action() {
            Action::Sync { ticket, .. } => ticket,
            other => panic!("expected a sync, found {other:?}"),
        };
        let answer = SyncAnswer {
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol: Some("range".to_owned()),
            assignment: protocol::encode_assignment(given).unwrap(),
        };
        self.member.synced(self.now, ticket, Ok(answer));
    }

    fn sync_fails(&mut self, code: ErrorCode) {
        match self.action() {
            Action::Sync { ticket, .. } => self.member.synced(self.now, ticket, Err(error(code))),
            other => panic!("expected a sync, found {other:?}"),
        }
    }

    fn assigned(&mut self) -> Vec<TopicPartition> {
        match self.action() {
            Action::Assigned { partitions } => partitions,
            other => panic!("expected an assignment, found {other:?}"),
        }
    }

    fn heartbeat(&mut self) -> (Ticket, Identity) {
        self.wait();
        match self.action() {
            Action::Heartbeat { ticket, identity } => (ticket, identity),
            other => panic!("expected a heartbeat, found {other:?}"),
        }
    }

    fn heartbeat_gives(&mut self, answer: Result<(), Error>) {
        let (ticket, _) = self.heartbeat();
        self.member.heartbeat_answered(self.now, ticket, answer);
    }

    fn revoking(&mut self) -> Ticket {
        match self.action() {
            Action::Revoke { ticket, partitions: asked } => {
                assert_eq!(asked, partitions("t", 0..2));
                ticket
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
        assert!(matches!(self.member.standing(), Standing::Out));
        error
    }

    fn generation(&self) -> Option<i32> {
        match self.member.standing() {
            Standing::Member { identity, .. } => Some(identity.generation),
            _ => None,
        }
    }
}

#[test]
fn a_follower_takes_what_it_is_given() {
    let mut bench = Bench::new(None);
    assert!(matches!(bench.member.standing(), Standing::Alone));
    bench.subscribe(&["t", "u"]);
    match bench.action() {
        Action::Join { ticket, member_id, protocols, reason } => {
            assert_eq!((&*member_id, reason.is_empty()), ("", false));
            let [("range", metadata)] = &protocols[..] else { panic!("{protocols:?}") };
            let read = MemberSubscription::decode(metadata).unwrap();
            assert_eq!(read.topics, [Arc::from("t"), Arc::from("u")]);
            assert!(read.owned.is_empty());
            assert_eq!(read.generation, -1);
            bench.member.joined(bench.now, ticket, Joined::In(Bench::answer(5, "m")));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(bench.member.standing(), Standing::Rebalancing));
    bench.sync(&partitions("t", 0..2));
    assert_eq!(bench.assigned(), partitions("t", 0..2));
    let Standing::Member { identity, owned } = bench.member.standing() else { panic!() };
    assert_eq!(identity, Identity { generation: 5, member_id: "m".into() });
    assert_eq!(owned.len(), 2);
    bench.idle();
}

#[test]
fn an_empty_assignment_is_told_too() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.sync(&[]);
    assert!(bench.assigned().is_empty());
    assert_eq!(bench.generation(), Some(1));
}

#[test]
fn the_leader_shares_out_what_exists_and_leaves_out_whom_it_cannot_read() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let ticket = bench.lead(false);
    bench.member.counted(bench.now, ticket, [("t".into(), 3)].into());
    match bench.action() {
        Action::Sync { assignments, identity, protocol, .. } => {
            assert_eq!((identity.generation, protocol), (5, "range"));
            let read: Vec<_> = assignments
                .iter()
                .map(|(id, bytes)| (id.as_str(), protocol::decode_assignment(bytes).unwrap()))
                .collect();
            assert_eq!(read[0], ("m", partitions("t", 0..2)));
            assert_eq!(read[1], ("n", partitions("t", 2..3)));
            assert_eq!(read[2], ("z", Vec::new()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_leader_rebalances_when_partitions_are_added_or_the_topic_appears() {
    for (first, then) in [(Some(3), Some(6)), (None, Some(1)), (Some(2), None)] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        let ticket = bench.lead(false);
        bench.member.counted(bench.now, ticket, first.map(|count| ("t".into(), count)).into_iter().collect());
        bench.sync(&partitions("t", 0..2));
        bench.assigned();
        bench.member.metadata_changed(bench.now, |_| first);
        bench.idle();
        bench.member.metadata_changed(bench.now, |_| then);
        let ticket = bench.revoking();
        bench.member.revoked(bench.now, ticket);
        assert_eq!(bench.expect_join().1, "m");
    }
}

#[test]
fn a_follower_leaves_the_counts_to_the_leader() {
    let mut bench = Bench::stable();
    bench.member.metadata_changed(bench.now, |_| Some(99));
    bench.idle();
}

#[test]
fn a_leader_that_is_to_skip_the_assignment_sends_none_but_watches() {
    let mut bench = Bench::new(Some("i"));
    bench.subscribe(&["t"]);
    let ticket = bench.lead(true);
    bench.member.counted(bench.now, ticket, [("t".into(), 3)].into());
    let Some(Action::Sync { ticket, assignments, .. }) = bench.member.next_action() else { panic!() };
    assert!(assignments.is_empty());
    let assignment = protocol::encode_assignment(&partitions("t", 0..2)).unwrap();
    bench.member.synced(bench.now, ticket, Ok(SyncAnswer { protocol_type: None, protocol: None, assignment }));
    bench.assigned();
    bench.member.metadata_changed(bench.now, |_| Some(4));
    bench.revoking();
}

#[test]
fn a_required_member_id_is_taken_at_once_and_only_once_at_once() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (ticket, _) = bench.expect_join();
    bench.member.joined(bench.now, ticket, Joined::MemberIdRequired("m1".to_owned()));
    let (ticket, member_id) = bench.expect_join();
    assert_eq!(member_id, "m1");
    bench.member.joined(bench.now, ticket, Joined::MemberIdRequired("m2".to_owned()));
    bench.idle();
    bench.wait();
    assert_eq!(bench.expect_join().1, "m2");
}

#[test]
fn join_errors_that_pass_are_tried_again_after_a_backoff() {
    let codes = [
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::REQUEST_TIMED_OUT,
    ];
    for code in codes {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        bench.join_fails(code);
        bench.idle();
        assert!(bench.member.next_wake().unwrap() > bench.now, "{code}");
        bench.wait();
        bench.expect_join();
    }
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (ticket, _) = bench.expect_join();
    bench.member.joined(bench.now, ticket, Joined::Failed(Error::new(ErrorKind::Network, "refused")));
    bench.wait();
    bench.expect_join();
}

#[test]
fn join_errors_that_only_the_user_can_mend_are_raised_once_and_tried_again_at_the_next_poll() {
    let codes = [
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ErrorCode::INVALID_SESSION_TIMEOUT,
        ErrorCode::INVALID_GROUP_ID,
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ErrorCode::GROUP_MAX_SIZE_REACHED,
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::new(9_999),
    ];
    for code in codes {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        bench.join_fails(code);
        assert_eq!(bench.parked().code(), Some(code));
        bench.member.polled(bench.now);
        bench.wait();
        bench.expect_join();

        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        bench.follow(1, "m");
        bench.sync_fails(code);
        assert_eq!(bench.parked().code(), Some(code));
        bench.member.polled(bench.now + POLL);
        assert_eq!(bench.expect_join().1, "m");
    }
}

#[test]
fn a_fenced_static_member_ends_for_good_wherever_it_learns_it() {
    let fenced = || error(ErrorCode::FENCED_INSTANCE_ID);
    let ended = |bench: &mut Bench| {
        assert!(matches!(bench.action(), Action::Error { fatal: true, .. }));
        bench.subscribe(&["other"]);
        bench.member.polled(bench.now);
        bench.idle();
        assert!(matches!(bench.member.standing(), Standing::Ended(_)));
    };
    let mut bench = Bench::new(Some("i"));
    bench.subscribe(&["t"]);
    bench.join_fails(ErrorCode::FENCED_INSTANCE_ID);
    ended(&mut bench);

    let mut bench = Bench::new(Some("i"));
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.sync_fails(ErrorCode::FENCED_INSTANCE_ID);
    ended(&mut bench);

    let mut bench = Bench::stable_as(Some("i"));
    bench.heartbeat_gives(Err(fenced()));
    bench.lost();
    ended(&mut bench);

    let mut bench = Bench::stable_as(Some("i"));
    let identity = Identity { generation: 5, member_id: "m".into() };
    bench.member.commit_refused(bench.now, &identity, &fenced());
    bench.lost();
    ended(&mut bench);
}

#[test]
fn a_forgotten_member_comes_again_without_its_name() {
    for sync in [false, true] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        let (ticket, _) = bench.expect_join();
        bench.member.joined(bench.now, ticket, Joined::MemberIdRequired("m".to_owned()));
        if sync {
            bench.follow(1, "m");
            bench.sync_fails(ErrorCode::UNKNOWN_MEMBER_ID);
        } else {
            bench.join_fails(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        assert_eq!(bench.expect_join().1, "");
    }
}

#[test]
fn an_old_generation_or_another_rebalance_keeps_the_name() {
    for code in [ErrorCode::ILLEGAL_GENERATION, ErrorCode::REBALANCE_IN_PROGRESS] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        bench.follow(1, "m");
        bench.sync_fails(code);
        assert_eq!(bench.expect_join().1, "m", "{code}");
    }
}

#[test]
fn answers_that_ask_to_come_at_once_do_not_make_a_hot_loop() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let mut at_once = 0;
    while bench.member.next_wake().is_none() {
        bench.join_fails(ErrorCode::REBALANCE_IN_PROGRESS);
        at_once += 1;
        assert!(at_once < 10);
    }
    bench.idle();
    assert!(bench.member.next_wake().unwrap() > bench.now);
}

#[test]
fn answers_to_earlier_attempts_are_stale() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (old, _) = bench.expect_join();
    bench.member.joined(bench.now, old, Joined::Failed(error(ErrorCode::NOT_COORDINATOR)));
    bench.wait();
    bench.follow(2, "m");
    bench.member.joined(bench.now, old, Joined::Failed(error(ErrorCode::FENCED_INSTANCE_ID)));
    bench.sync(&partitions("t", 0..2));
    bench.assigned();
    let (ticket, _) = bench.heartbeat();
    bench.member.heartbeat_answered(bench.now, old, Err(error(ErrorCode::UNKNOWN_MEMBER_ID)));
    bench.idle();
    bench.member.heartbeat_answered(bench.now, ticket, Ok(()));
    bench.member.counted(bench.now, old, BTreeMap::new());
    bench.member.revoked(bench.now, old);
    let identity = Identity { generation: 1, member_id: "m".into() };
    bench.member.commit_refused(bench.now, &identity, &error(ErrorCode::ILLEGAL_GENERATION));
    bench.idle();
    assert_eq!(bench.generation(), Some(2));
}

#[test]
fn a_rebalance_gives_everything_up_before_joining_and_heartbeats_meanwhile() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    let ticket = bench.revoking();
    assert_eq!(bench.generation(), Some(5), "what the reader finishes is committed for this generation");
    for _ in 0..3 {
        bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
        bench.idle();
    }
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.expect_join().1, "m");
    assert_eq!(bench.generation(), None);
}

#[test]
fn a_revocation_that_takes_longer_than_the_rebalance_is_a_loss() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Ok(()));
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    let ticket = bench.revoking();
    let began = bench.now;
    loop {
        bench.member.polled(bench.now);
        bench.wait();
        match bench.action() {
            Action::Heartbeat { ticket, .. } => {
                bench.member.heartbeat_answered(bench.now, ticket, Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
            }
            Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..2)),
            other => panic!("{other:?}"),
        }
    }
    // The coordinator may have waited since just after the last heartbeat that found no rebalance.
    assert_eq!(bench.now, began - INTERVAL + POLL);
    assert_eq!(bench.expect_join().1, "m");
    bench.member.revoked(bench.now, ticket);
    bench.idle();
}

#[test]
fn a_member_without_partitions_joins_a_rebalance_at_once() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.sync(&[]);
    bench.assigned();
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    bench.expect_join();
}

#[test]
fn expelled_members_lose_their_partitions_and_come_again() {
    for (code, name) in [(ErrorCode::UNKNOWN_MEMBER_ID, ""), (ErrorCode::ILLEGAL_GENERATION, "m")] {
        let mut bench = Bench::stable();
        bench.heartbeat_gives(Err(error(code)));
        bench.lost();
        assert_eq!(bench.expect_join().1, name);

        // The same from a commit, and in the middle of giving up.
        let mut bench = Bench::stable();
        bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
        let ticket = bench.revoking();
        let identity = Identity { generation: 5, member_id: "m".into() };
        bench.member.commit_refused(bench.now, &identity, &error(code));
        bench.lost();
        assert_eq!(bench.expect_join().1, name);
        bench.member.revoked(bench.now, ticket);
        bench.idle();
    }
}

#[test]
fn a_commit_that_finds_a_rebalance_begins_it() {
    let mut bench = Bench::stable();
    let identity = Identity { generation: 5, member_id: "m".into() };
    bench.member.commit_refused(bench.now, &identity, &error(ErrorCode::REBALANCE_IN_PROGRESS));
    bench.revoking();
}

#[test]
fn heartbeats_go_out_by_their_interval_and_one_at_a_time() {
    let mut bench = Bench::stable();
    let mut last = bench.now;
    for _ in 0..5 {
        let (ticket, identity) = bench.heartbeat();
        assert_eq!(bench.now - last, INTERVAL);
        assert_eq!(identity.generation, 5);
        last = bench.now;
        bench.pass(Duration::from_secs(1));
        bench.idle();
        bench.member.heartbeat_answered(bench.now, ticket, Ok(()));
    }
    // One that is answered late is followed at once.
    let (ticket, _) = bench.heartbeat();
    bench.pass(INTERVAL * 2);
    bench.idle();
    bench.member.heartbeat_answered(bench.now, ticket, Ok(()));
    assert!(matches!(bench.action(), Action::Heartbeat { .. }));
}

#[test]
fn a_failed_heartbeat_is_repeated_sooner_and_ends_nothing() {
    let codes =
        [ErrorCode::NOT_COORDINATOR, ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS];
    for code in codes {
        let mut bench = Bench::stable();
        bench.heartbeat_gives(Err(error(code)));
        bench.idle();
        assert!(bench.member.next_wake().unwrap() <= bench.now + Duration::from_millis(120));
        bench.heartbeat_gives(Ok(()));
        assert_eq!(bench.generation(), Some(5));
    }
}

#[test]
fn a_heartbeat_that_is_not_allowed_is_told_once() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Err(error(ErrorCode::GROUP_AUTHORIZATION_FAILED)));
    assert_eq!(bench.raised().kind(), ErrorKind::Authorization);
    bench.heartbeat_gives(Err(error(ErrorCode::GROUP_AUTHORIZATION_FAILED)));
    bench.idle();
    bench.heartbeat_gives(Ok(()));
    bench.heartbeat_gives(Err(error(ErrorCode::GROUP_AUTHORIZATION_FAILED)));
    bench.raised();
}

#[test]
fn a_session_without_an_answered_heartbeat_is_lost() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Ok(()));
    let alive = bench.now;
    loop {
        bench.wait();
        match bench.action() {
            Action::Heartbeat { ticket, .. } => {
                let silence = Err(Error::new(ErrorKind::Timeout, "no answer"));
                bench.member.heartbeat_answered(bench.now, ticket, silence);
            }
            Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..2)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.now, alive + SESSION);
    assert_eq!(bench.expect_join().1, "m", "the coordinator may know the name still");
}

#[test]
fn the_session_runs_while_joining_is_not_through() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.lead(false);
    let (heartbeat, _) = bench.heartbeat();
    bench.wait();
    assert_eq!(bench.expect_join().1, "m", "nobody counted, nobody answered the heartbeat");
    bench.member.heartbeat_answered(bench.now, heartbeat, Err(error(ErrorCode::UNKNOWN_MEMBER_ID)));
    bench.idle();
}

#[test]
fn a_reader_that_does_not_come_back_leaves_the_group_until_it_does() {
    let mut bench = Bench::stable();
    let began = bench.now;
    loop {
        bench.wait();
        match bench.action() {
            Action::Heartbeat { ticket, .. } => bench.member.heartbeat_answered(bench.now, ticket, Ok(())),
            Action::Leave { member_id, .. } => break assert_eq!(&*member_id, "m"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.now, began + POLL);
    bench.lost();
    let error = bench.parked();
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert!(error.to_string().contains("max.poll.interval.ms"));
    bench.now += POLL;
    bench.member.polled(bench.now);
    assert_eq!(bench.expect_join().1, "");
}

#[test]
fn a_reader_that_comes_in_time_stays() {
    let mut bench = Bench::stable();
    for _ in 0..1000 {
        bench.heartbeat_gives(Ok(()));
        bench.member.polled(bench.now);
    }
    bench.idle();
    assert_eq!(bench.generation(), Some(5));
}

#[test]
fn a_static_member_does_not_leave() {
    let mut bench = Bench::stable_as(Some("i"));
    bench.member.close();
    bench.idle();

    let mut bench = Bench::stable_as(Some("i"));
    bench.member.heartbeat.alive += POLL * 2;
    bench.member.heartbeat.due += POLL * 2;
    bench.pass(POLL);
    bench.lost();
    bench.parked();
}

#[test]
fn a_changed_subscription_gives_up_and_joins_with_the_new_topics() {
    let mut bench = Bench::stable();
    bench.subscribe(&["t"]);
    bench.idle();
    bench.subscribe(&["t", "u"]);
    let ticket = bench.revoking();
    bench.subscribe(&["u"]);
    bench.idle();
    bench.member.revoked(bench.now, ticket);
    let Action::Join { protocols, .. } = bench.action() else { panic!() };
    assert_eq!(MemberSubscription::decode(&protocols[0].1).unwrap().topics, [Arc::from("u")]);
}

#[test]
fn a_subscription_that_changed_while_joining_joins_again() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.subscribe(&["u"]);
    bench.sync(&partitions("t", 0..2));
    let Action::Join { protocols, .. } = bench.action() else { panic!() };
    assert_eq!(MemberSubscription::decode(&protocols[0].1).unwrap().topics, [Arc::from("u")]);
}

#[test]
fn topics_that_nobody_asked_for_are_not_taken() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.sync(&partitions("other", 0..2));
    bench.idle();
    assert_eq!(bench.generation(), None);
    bench.wait();
    bench.expect_join();
}

#[test]
fn answers_that_do_not_fit_are_raised() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (ticket, _) = bench.expect_join();
    let answer = JoinAnswer { protocol: Some("sticky".to_owned()), ..Bench::answer(1, "m") };
    bench.member.joined(bench.now, ticket, Joined::In(answer));
    assert_eq!(bench.parked().code(), Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));

    for (protocol_type, bytes, code) in [
        (Some("connect".to_owned()), vec![], Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)),
        (None, vec![0, 0, 0], None),
    ] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        bench.follow(1, "m");
        let Action::Sync { ticket, .. } = bench.action() else { panic!() };
        let answer = SyncAnswer { protocol_type, protocol: None, assignment: bytes.into() };
        bench.member.synced(bench.now, ticket, Ok(answer));
        assert_eq!(bench.parked().code(), code);
    }
}

#[test]
fn unsubscribing_gives_up_then_leaves() {
    let mut bench = Bench::stable();
    bench.member.subscribe(bench.now, None);
    let ticket = bench.revoking();
    bench.member.revoked(bench.now, ticket);
    assert!(matches!(bench.action(), Action::Leave { .. }));
    bench.idle();
    assert!(matches!(bench.member.standing(), Standing::Alone));
    bench.subscribe(&["t"]);
    assert_eq!(bench.expect_join().1, "");
}

#[test]
fn subscribing_again_before_everything_is_given_up_stays() {
    let mut bench = Bench::stable();
    bench.member.subscribe(bench.now, None);
    let ticket = bench.revoking();
    bench.subscribe(&["u"]);
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.expect_join().1, "m");
}

#[test]
fn a_name_that_comes_too_late_is_given_back() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (ticket, _) = bench.expect_join();
    bench.member.subscribe(bench.now, None);
    bench.idle();
    bench.member.joined(bench.now, ticket, Joined::In(Bench::answer(1, "late")));
    let Action::Leave { member_id, .. } = bench.action() else { panic!() };
    assert_eq!(&*member_id, "late");
    assert!(matches!(bench.member.standing(), Standing::Alone));
}

#[test]
fn closing_leaves_and_says_nothing_more() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    bench.member.close();
    assert!(matches!(bench.action(), Action::Leave { .. }));
    bench.idle();
    bench.subscribe(&["u"]);
    bench.member.polled(bench.now);
    bench.idle();
    assert!(bench.member.next_wake().is_none());
    let mut bench = Bench::new(None);
    bench.member.close();
    bench.idle();
}
