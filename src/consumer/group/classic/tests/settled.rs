use crate::consumer::group::classic::tests::*;

#[test]
fn rebalance_revokes_before_joining_and_keeps_heartbeating() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    let attempt = bench.revoking();
    assert_eq!(bench.generation(), Some(5), "what the reader finishes is committed for this generation");
    for _ in 0..3 {
        bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
        bench.idle();
    }
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.expect_join().1, "m");
    assert_eq!(bench.generation(), None);
}

#[test]
fn revocation_beyond_rebalance_timeout_loses_partitions() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Ok(()));
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    let attempt = bench.revoking();
    let began = bench.now;
    loop {
        bench.member.polled(bench.now);
        bench.wait();
        match bench.action() {
            Action::Send { attempt, request: ClassicRequest::Heartbeat { .. } } => {
                bench.member.heartbeat_answered(bench.now, attempt, Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
            }
            Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..2)),
            other => panic!("{other:?}"),
        }
    }
    // The coordinator may have begun to wait just after the last heartbeat that found no rebalance.
    assert_eq!(bench.now, began - INTERVAL + POLL);
    assert_eq!(bench.expect_join().1, "m");
    bench.member.revoked(bench.now, attempt);
    bench.idle();
}

#[test]
fn joins_rebalance_at_once_without_partitions() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.sync(&[]);
    bench.assigned();
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    bench.expect_join();
}

#[test]
fn generations_without_heartbeat_back_off() {
    for code in [ErrorCode::REBALANCE_IN_PROGRESS, ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::ILLEGAL_GENERATION] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        let (start, mut generation, mut told) = (bench.now, 0, Vec::new());
        while bench.now < start + Duration::from_secs(120) {
            let now = bench.now;
            match bench.member.next_action() {
                Some(Action::Send { attempt, request: ClassicRequest::Join { .. } }) => {
                    generation += 1;
                    bench.member.joined(now, attempt, JoinOutcome::Member(Bench::answer(generation, "m")));
                    bench.sync(&partitions("t", 0..2));
                }
                Some(Action::Send { attempt, request: ClassicRequest::Heartbeat { .. } }) => {
                    bench.member.heartbeat_answered(now, attempt, Err(error(code)));
                }
                Some(Action::Revoke { attempt, .. }) => bench.member.revoked(now, attempt),
                Some(Action::Error { error, fatal: false }) => told.push(error),
                Some(Action::Assigned { .. } | Action::Lost { .. }) => {}
                Some(other) => panic!("unexpected {other:?}"),
                None => bench.wait(),
            }
        }
        assert!((8..20).contains(&generation), "{code}: {generation} generations in two minutes");
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].code(), Some(code));
    }
}

#[test]
fn expelled_member_loses_partitions_and_rejoins() {
    for (code, name) in [(ErrorCode::UNKNOWN_MEMBER_ID, ""), (ErrorCode::ILLEGAL_GENERATION, "m")] {
        let mut bench = Bench::stable();
        bench.heartbeat_gives(Err(error(code)));
        bench.lost();
        assert_eq!(bench.expect_join().1, name);

        // The error is now from a commit, and during a revocation.
        let mut bench = Bench::stable();
        bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
        let attempt = bench.revoking();
        let identity = Identity { generation: 5, member_id: "m".into() };
        bench.member.commit_refused(bench.now, &identity, &error(code));
        bench.lost();
        assert_eq!(bench.expect_join().1, name);
        bench.member.revoked(bench.now, attempt);
        bench.idle();
    }
}

#[test]
fn rebalance_error_on_commit_starts_revocation() {
    let mut bench = Bench::stable();
    let identity = Identity { generation: 5, member_id: "m".into() };
    bench.member.commit_refused(bench.now, &identity, &error(ErrorCode::REBALANCE_IN_PROGRESS));
    bench.revoking();
}

#[test]
fn heartbeats_follow_interval_one_at_a_time() {
    let mut bench = Bench::stable();
    let mut last = bench.now;
    for _ in 0..5 {
        let (attempt, identity) = bench.heartbeat();
        assert_eq!(bench.now - last, INTERVAL);
        assert_eq!(identity.generation, 5);
        last = bench.now;
        bench.pass(Duration::from_secs(1));
        bench.idle();
        bench.member.heartbeat_answered(bench.now, attempt, Ok(()));
    }
    // A heartbeat with a late response is followed by the next at once.
    let (attempt, _) = bench.heartbeat();
    bench.pass(INTERVAL * 2);
    bench.idle();
    bench.member.heartbeat_answered(bench.now, attempt, Ok(()));
    assert!(matches!(bench.action(), Action::Send { request: ClassicRequest::Heartbeat { .. }, .. }));
}

#[test]
fn failed_heartbeat_is_retried_after_backoff() {
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
fn heartbeat_authorization_error_is_reported_once() {
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
fn session_timeout_loses_partitions_and_rejoins() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Ok(()));
    let alive = bench.now;
    loop {
        bench.wait();
        match bench.action() {
            Action::Send { attempt, request: ClassicRequest::Heartbeat { .. } } => {
                let silence = Err(Error::new(ErrorKind::Timeout, "no answer"));
                bench.member.heartbeat_answered(bench.now, attempt, silence);
            }
            Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..2)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.now, alive + SESSION);
    assert_eq!(bench.expect_join().1, "m", "the coordinator may know the name still");
}

#[test]
fn poll_timer_expiry_leaves_until_next_poll() {
    let mut bench = Bench::stable();
    let began = bench.now;
    loop {
        bench.wait();
        match bench.action() {
            Action::Send { attempt, request: ClassicRequest::Heartbeat { .. } } => {
                bench.member.heartbeat_answered(bench.now, attempt, Ok(()))
            }
            Action::Leave(LeaveGroup { member_id, .. }) => break assert_eq!(&*member_id, "m"),
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
fn stays_while_reader_polls_in_time() {
    let mut bench = Bench::stable();
    for _ in 0..1000 {
        bench.heartbeat_gives(Ok(()));
        bench.member.polled(bench.now);
    }
    bench.idle();
    assert_eq!(bench.generation(), Some(5));
}

#[test]
fn static_member_never_sends_leave_request() {
    let mut bench = Bench::stable_as(Some("i"));
    bench.member.close();
    bench.idle();

    let mut bench = Bench::stable_as(Some("i"));
    bench.member.session.alive += POLL * 2;
    bench.member.session.heartbeat_due += POLL * 2;
    bench.pass(POLL);
    bench.lost();
    bench.parked();
}

#[test]
fn changed_subscription_revokes_then_rejoins() {
    let mut bench = Bench::stable();
    bench.subscribe(&["t"]);
    bench.idle();
    bench.subscribe(&["t", "u"]);
    let attempt = bench.revoking();
    bench.subscribe(&["u"]);
    bench.idle();
    bench.member.revoked(bench.now, attempt);
    let Action::Send { request: ClassicRequest::Join { protocols, .. }, .. } = bench.action() else { panic!() };
    assert_eq!(MemberSubscription::read(&protocols[0].1).0.topics, [Arc::from("u")]);
}

#[test]
fn unsubscribing_revokes_then_leaves() {
    let mut bench = Bench::stable();
    bench.member.subscribe(bench.now, None);
    let attempt = bench.revoking();
    bench.member.revoked(bench.now, attempt);
    assert!(matches!(bench.action(), Action::Leave(_)));
    bench.idle();
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::NoGroup));
    bench.subscribe(&["t"]);
    assert_eq!(bench.expect_join().1, "");
}

#[test]
fn resubscribing_during_revocation_keeps_member_id() {
    let mut bench = Bench::stable();
    bench.member.subscribe(bench.now, None);
    let attempt = bench.revoking();
    bench.subscribe(&["u"]);
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.expect_join().1, "m");
}

#[test]
fn close_leaves_and_sends_nothing_more() {
    let mut bench = Bench::stable();
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    bench.member.close();
    assert!(matches!(bench.action(), Action::Leave(_)));
    bench.idle();
    bench.subscribe(&["u"]);
    bench.member.polled(bench.now);
    bench.idle();
    assert!(bench.member.next_wake().is_none());
    let mut bench = Bench::new(None);
    bench.member.close();
    bench.idle();
}

#[test]
fn fenced_instance_id_is_always_fatal() {
    let fenced = || error(ErrorCode::FENCED_INSTANCE_ID);
    let ended = |bench: &mut Bench| {
        assert!(matches!(bench.action(), Action::Error { fatal: true, .. }));
        bench.subscribe(&["other"]);
        bench.member.polled(bench.now);
        bench.idle();
        assert!(matches!(bench.member.snapshot(), MemberSnapshot::Ended(_)));
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
fn leader_rebalances_when_partition_count_changes() {
    for (first, then) in [(Some(3), Some(6)), (None, Some(1)), (Some(2), None)] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        let attempt = bench.lead(false);
        bench.member.partitions_counted(
            bench.now,
            attempt,
            first.map(|count| ("t".into(), racks(count))).into_iter().collect(),
        );
        bench.sync(&partitions("t", 0..2));
        bench.assigned();
        bench.member.metadata_changed(bench.now, |_| first.map(racks));
        bench.idle();
        bench.member.metadata_changed(bench.now, |_| then.map(racks));
        let attempt = bench.revoking();
        bench.member.revoked(bench.now, attempt);
        assert_eq!(bench.expect_join().1, "m");
    }
}

#[test]
fn follower_ignores_partition_count_changes() {
    let mut bench = Bench::stable();
    bench.member.metadata_changed(bench.now, |_| Some(racks(99)));
    bench.idle();
}
