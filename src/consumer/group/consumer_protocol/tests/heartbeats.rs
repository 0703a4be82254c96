use super::*;

#[test]
fn join_sends_everything_and_owns_nothing() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t", "u"]);
    let (_, beat) = bench.beat();
    assert_eq!((&*beat.member_id, beat.epoch, beat.full), ("m", 0, true));
    assert_eq!(beat.names, Some(wanted(&["t", "u"]).names));
    assert_eq!((beat.regex, beat.owned), (None, Some(PartitionsByTopicId::new())));
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::Rebalancing { .. }));
    bench.idle();
}

#[test]
fn heartbeats_send_changes_at_brokers_interval() {
    let mut bench = Bench::settled();
    let mut last = bench.now;
    for _ in 0..3 {
        let (attempt, beat) = bench.next_beat();
        assert_eq!((bench.now - last, beat.epoch), (INTERVAL, 5));
        assert!(!beat.full && beat.names.is_none() && beat.regex.is_none() && beat.owned.is_none());
        last = bench.now;
        bench.pass(Duration::from_secs(1));
        bench.idle();
        bench.answer(attempt, 5, None);
    }
    // The broker asks for a longer interval; then its response has none.
    for interval in [Some(Duration::from_secs(20)), None] {
        let (attempt, _) = bench.next_beat();
        let answer = HeartbeatResponse { node: 1, epoch: 5, interval, ..HeartbeatResponse::default() };
        last = bench.now;
        bench.member.handle_response(bench.now, attempt, Ok(answer));
    }
    bench.next_beat();
    assert_eq!(bench.now - last, Duration::from_secs(20));
}

#[test]
fn late_response_is_followed_by_heartbeat() {
    let mut bench = Bench::settled();
    let (attempt, _) = bench.next_beat();
    bench.pass(INTERVAL * 2);
    bench.idle();
    bench.answer(attempt, 5, None);
    bench.beat();
}

#[test]
fn error_causes_full_heartbeat_with_owned_partitions() {
    for code in [ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ErrorCode::NOT_COORDINATOR] {
        let mut bench = Bench::settled();
        let (attempt, _) = bench.next_beat();
        bench.refuse(attempt, code);
        bench.idle();
        assert!(bench.member.next_wake().unwrap() <= bench.now + Duration::from_millis(120));
        let (attempt, beat) = bench.next_beat();
        assert_eq!((beat.epoch, beat.full), (5, true));
        assert_eq!(beat.owned, Some(held(&[(T, 0..2)])));
        bench.answer(attempt, 6, Some(held(&[(T, 0..2)])));
        bench.idle();
        assert_eq!(bench.epoch(), Some(6));
        assert!(!bench.next_beat().1.full);
    }
}

#[test]
fn new_coordinator_gets_one_full_heartbeat() {
    let mut bench = Bench::settled();
    let (attempt, _) = bench.next_beat();
    let answer = HeartbeatResponse { node: 2, epoch: 5, interval: Some(INTERVAL), ..HeartbeatResponse::default() };
    bench.member.handle_response(bench.now, attempt, Ok(answer.clone()));
    let (attempt, beat) = bench.beat();
    assert!(beat.full);
    bench.member.handle_response(bench.now, attempt, Ok(answer));
    bench.idle();
}

#[test]
fn changed_subscription_is_sent_at_once() {
    let mut bench = Bench::settled();
    bench.subscribe(&["t"]);
    bench.idle();
    bench.subscribe(&["t", "u"]);
    let (attempt, beat) = bench.beat();
    assert_eq!(beat.names, Some(wanted(&["t", "u"]).names));
    assert!(!beat.full && beat.owned.is_none());
    // Changed again during the heartbeat: it is sent as soon as the response arrives.
    bench.subscribe(&["u"]);
    bench.idle();
    bench.answer(attempt, 6, None);
    assert_eq!(bench.beat().1.names, Some(wanted(&["u"]).names));
}

#[test]
fn empty_regex_replaces_previous_regex() {
    let mut bench = Bench::new(None);
    let regex = |regex: &str| TopicsToSubscribe { names: BTreeSet::new(), regex: Some(regex.into()) };
    bench.member.subscribe(bench.now, Some(regex("a.*")));
    let (attempt, beat) = bench.beat();
    assert_eq!((beat.regex.as_deref(), beat.names), (Some("a.*"), Some(BTreeSet::new())));
    bench.answer(attempt, 1, Some(PartitionsByTopicId::new()));
    assert!(bench.assigned().is_empty());
    bench.idle();
    bench.subscribe(&["t"]);
    let (attempt, beat) = bench.beat();
    assert_eq!((beat.regex.as_deref(), beat.full), (Some(""), false));
    // It is unknown whether the coordinator received it.
    bench.refuse(attempt, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    let (attempt, beat) = bench.next_beat();
    assert_eq!((beat.regex.as_deref(), beat.full), (Some(""), true));
    bench.answer(attempt, 2, Some(PartitionsByTopicId::new()));
    bench.idle();
    let (attempt, _) = bench.next_beat();
    bench.refuse(attempt, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    assert_eq!(bench.next_beat().1.regex, None, "nothing left to take back");
}

#[test]
fn ignores_response_to_heartbeat_before_rejoin() {
    let mut bench = Bench::settled();
    let (old, _) = bench.next_beat();
    bench.member.subscribe(bench.now, None);
    let (attempt, _) = bench.revoking();
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.left(), -1);
    bench.subscribe(&["t"]);
    assert_eq!(bench.beat().1.epoch, 0);
    bench.answer(old, 9, Some(held(&[(T, 0..9)])));
    bench.refuse(old, ErrorCode::FENCED_MEMBER_EPOCH);
    bench.idle();
    assert_eq!(bench.epoch(), None);
}

#[test]
fn ignores_zero_and_negative_member_epoch() {
    for epoch in [-2, -1, 0] {
        let mut bench = Bench::settled();
        let (attempt, _) = bench.next_beat();
        bench.answer(attempt, epoch, Some(PartitionsByTopicId::new()));
        bench.raised();
        assert_eq!(bench.epoch(), Some(5));
        let (_, beat) = bench.next_beat();
        assert_eq!((beat.epoch, beat.full), (5, true));
    }
}

#[test]
fn uses_member_id_from_broker() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.beat();
    let member_id = Some("given".to_owned());
    let answer = HeartbeatResponse {
        node: 1,
        member_id,
        epoch: 1,
        interval: None,
        assignment: Some(PartitionsByTopicId::new()),
    };
    bench.member.handle_response(bench.now, attempt, Ok(answer));
    bench.assigned();
    assert_eq!(&*bench.next_beat().1.member_id, "given");
}

#[test]
fn session_timeout_loses_partitions_and_rejoins() {
    let mut bench = Bench::settled();
    let alive = bench.now;
    loop {
        bench.wait();
        match bench.action() {
            Action::Send { attempt, .. } => bench.refuse(attempt, ErrorCode::COORDINATOR_NOT_AVAILABLE),
            Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..2)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.now, alive + SESSION);
    let (_, beat) = bench.beat();
    assert_eq!((&*beat.member_id, beat.epoch), ("m", 0));
}

#[test]
fn poll_timer_expiry_leaves_until_next_poll() {
    for (instance_id, leave) in [(None, -1), (Some("i"), -2)] {
        let mut bench = Bench::settled_as(instance_id);
        let began = bench.member.poll_timer.expires_at() - POLL;
        loop {
            bench.wait();
            match bench.action() {
                Action::Send { attempt, .. } => bench.answer(attempt, 5, None),
                Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..2)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bench.now, began + POLL);
        assert_eq!(bench.left(), leave);
        assert!(bench.parked().to_string().contains("max.poll.interval.ms"));
        bench.now += POLL;
        bench.member.polled(bench.now);
        assert_eq!(bench.beat().1.epoch, 0);
    }
}

#[test]
fn stays_while_reader_polls_in_time() {
    let mut bench = Bench::settled();
    for _ in 0..1000 {
        let (attempt, _) = bench.next_beat();
        bench.answer(attempt, 5, None);
        bench.member.polled(bench.now);
    }
    bench.idle();
    assert_eq!(bench.epoch(), Some(5));
}

#[test]
fn close_leaves_and_sends_nothing_more() {
    for (instance_id, leave) in [(None, -1), (Some("i"), -2)] {
        let mut bench = Bench::settled_as(instance_id);
        bench.told(6, PartitionsByTopicId::new());
        bench.member.close();
        assert_eq!(bench.left(), leave);
        bench.idle();
        bench.subscribe(&["u"]);
        bench.member.polled(bench.now);
        bench.idle();
        assert!(bench.member.next_wake().is_none());
    }
    let mut bench = Bench::new(None);
    bench.member.close();
    bench.idle();
}

#[test]
fn unsubscribing_while_joining_leaves_group() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.beat();
    bench.member.subscribe(bench.now, None);
    assert_eq!(bench.left(), -1);
    bench.answer(attempt, 4, Some(held(&[(T, 0..2)])));
    bench.idle();
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::NoGroup));
}
