use crate::consumer::group::classic::tests::*;

#[test]
fn follower_joins_and_owns_its_assignment() {
    let mut bench = Bench::new(None);
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::NoGroup));
    bench.subscribe(&["t", "u"]);
    match bench.action() {
        Action::Send { attempt, request: ClassicRequest::Join { member_id, protocols, reason } } => {
            assert_eq!((&*member_id, reason.is_empty()), ("", false));
            let [(name, metadata)] = &protocols[..] else { panic!("{protocols:?}") };
            assert_eq!(&**name, "range");
            let read = MemberSubscription::read(metadata).0;
            assert_eq!(read.topics, [Arc::from("t"), Arc::from("u")]);
            assert!(read.owned.is_empty());
            assert_eq!(read.generation, -1);
            bench.member.joined(bench.now, attempt, JoinOutcome::Member(Bench::answer(5, "m")));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::Rebalancing { .. }));
    bench.sync(&partitions("t", 0..2));
    assert_eq!(bench.assigned(), partitions("t", 0..2));
    let MemberSnapshot::Member { identity, owned } = bench.member.snapshot() else { panic!() };
    assert_eq!(identity, Identity { generation: 5, member_id: "m".into() });
    assert_eq!(owned.len(), 2);
    bench.idle();
}

#[test]
fn empty_assignment_is_reported() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.sync(&[]);
    assert!(bench.assigned().is_empty());
    assert_eq!(bench.generation(), Some(1));
}

#[test]
fn leader_assigns_nothing_to_unreadable_members() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let attempt = bench.lead(false);
    bench.member.partitions_counted(bench.now, attempt, [("t".into(), racks(3))].into());
    match bench.action() {
        Action::Send { request: ClassicRequest::Sync { assignments, identity, protocol, .. }, .. } => {
            assert_eq!((identity.generation, &*protocol), (5, "range"));
            let read: Vec<_> = assignments
                .iter()
                .map(|(id, bytes)| (&**id, member_metadata::decode_assignment(bytes).unwrap()))
                .collect();
            assert_eq!(read[0], ("m", partitions("t", 0..2)));
            assert_eq!(read[1], ("n", partitions("t", 2..3)));
            assert_eq!(read[2], ("z", Vec::new()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn leader_assigns_to_foreign_client_subscriptions() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.expect_join();
    // The subscription to `t` in version 1, from which sarama-cluster and kafka-go leave out the
    // owned partitions.
    let foreign = [0, 1, 0, 0, 0, 1, 0, 1, b't'];
    let null_user_data = [&foreign[..], &[255; 4]].concat();
    let cut_off = [&null_user_data[..], &[0, 0, 0, 9, 0]].concat();
    let members = [("m", &foreign[..]), ("n", &null_user_data), ("o", &cut_off), ("p", &[]), ("q", &[255; 40])];
    let members = members.map(|(id, metadata)| JoinedMember {
        id: id.to_owned(),
        instance_id: None,
        metadata: metadata.to_vec().into(),
    });
    let answer = JoinAnswer { leads: true, members: members.into(), ..Bench::answer(5, "m") };
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer));
    let Some(Action::Send { attempt, request: ClassicRequest::Count { .. } }) = bench.member.next_action() else {
        panic!("no count")
    };
    bench.member.partitions_counted(bench.now, attempt, [("t".into(), racks(3))].into());
    let Some(Action::Send { request: ClassicRequest::Sync { assignments, .. }, .. }) = bench.member.next_action()
    else {
        panic!("no sync")
    };
    let read: Vec<_> =
        assignments.iter().map(|(id, bytes)| (&**id, member_metadata::decode_assignment(bytes).unwrap())).collect();
    let one = |number| partitions("t", number..number + 1);
    assert_eq!(read, [("m", one(0)), ("n", one(1)), ("o", one(2)), ("p", Vec::new()), ("q", Vec::new())]);
}

#[test]
fn skip_assignment_sends_none_but_watches_partitions() {
    let mut bench = Bench::new(Some("i"));
    bench.subscribe(&["t"]);
    let attempt = bench.lead(true);
    bench.member.partitions_counted(bench.now, attempt, [("t".into(), racks(3))].into());
    let Some(Action::Send { attempt, request: ClassicRequest::Sync { assignments, .. } }) = bench.member.next_action()
    else {
        panic!()
    };
    assert!(assignments.is_empty());
    let assignment = member_metadata::encode_assignment(&partitions("t", 0..2)).unwrap();
    bench.member.synced(bench.now, attempt, Ok(SyncAnswer { protocol_type: None, protocol: None, assignment }));
    bench.assigned();
    bench.member.metadata_changed(bench.now, |_| Some(racks(4)));
    bench.revoking();
}

#[test]
fn first_required_member_id_rejoins_at_once() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.expect_join();
    bench.member.joined(bench.now, attempt, JoinOutcome::MemberIdRequired("m1".to_owned()));
    let (attempt, member_id) = bench.expect_join();
    assert_eq!(member_id, "m1");
    bench.member.joined(bench.now, attempt, JoinOutcome::MemberIdRequired("m2".to_owned()));
    bench.idle();
    bench.wait();
    assert_eq!(bench.expect_join().1, "m2");
}

#[test]
fn repeated_or_empty_member_id_backs_off() {
    for id in ["", "m"] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        let (start, mut joins, mut told) = (bench.now, 0, Vec::new());
        while bench.now < start + Duration::from_secs(60) {
            match bench.member.next_action() {
                Some(Action::Send { attempt, request: ClassicRequest::Join { .. } }) => {
                    joins += 1;
                    bench.member.joined(bench.now, attempt, JoinOutcome::MemberIdRequired(id.to_owned()));
                }
                Some(Action::Error { error, fatal: false }) => told.push(error),
                Some(other) => panic!("unexpected {other:?}"),
                None => bench.wait(),
            }
        }
        assert!((30..100).contains(&joins), "{joins} joins in a minute");
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].code(), Some(ErrorCode::MEMBER_ID_REQUIRED));
    }
}

#[test]
fn retries_join_after_backoff_on_retriable_error() {
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
    let (attempt, _) = bench.expect_join();
    bench.member.joined(bench.now, attempt, JoinOutcome::Failed(Error::new(ErrorKind::Network, "refused")));
    bench.wait();
    bench.expect_join();
}

#[test]
fn long_join_failure_is_reported_once() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (started, mut told) = (bench.now, Vec::new());
    while bench.now < started + Duration::from_secs(60) {
        match bench.action() {
            Action::Send { attempt, request: ClassicRequest::Join { .. } } => {
                let failed = JoinOutcome::Failed(error(ErrorCode::COORDINATOR_NOT_AVAILABLE));
                bench.member.joined(bench.now, attempt, failed);
            }
            Action::Error { error, fatal: false } => {
                told.push((bench.now - started, error));
                continue;
            }
            other => panic!("unexpected {other:?}"),
        }
        bench.wait();
    }
    let [(after, error)] = &told[..] else { panic!("told {} times", told.len()) };
    assert!(*after >= Duration::from_secs(10) && *after < Duration::from_secs(13), "{after:?}");
    assert_eq!(error.code(), Some(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    assert!(error.to_string().contains("group g"), "{error}");

    // After a successful join, the next failure is reported again.
    bench.follow(5, "m");
    bench.sync(&partitions("t", 0..1));
    assert_eq!(bench.assigned(), partitions("t", 0..1));
    assert_eq!(bench.member.retries.failing_since, None);
}

#[test]
fn permanent_join_error_waits_for_next_poll() {
    let codes = [
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ErrorCode::INVALID_SESSION_TIMEOUT,
        ErrorCode::INVALID_GROUP_ID,
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
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
fn unknown_member_rejoins_without_member_id() {
    for sync in [false, true] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        let (attempt, _) = bench.expect_join();
        bench.member.joined(bench.now, attempt, JoinOutcome::MemberIdRequired("m".to_owned()));
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
fn retriable_sync_error_keeps_member_id() {
    for code in [ErrorCode::ILLEGAL_GENERATION, ErrorCode::REBALANCE_IN_PROGRESS] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        bench.follow(1, "m");
        bench.sync_fails(code);
        assert_eq!(bench.expect_join().1, "m", "{code}");
    }
}

#[test]
fn repeated_rebalances_while_joining_back_off() {
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
fn ignores_responses_to_earlier_attempts() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (old, _) = bench.expect_join();
    bench.member.joined(bench.now, old, JoinOutcome::Failed(error(ErrorCode::NOT_COORDINATOR)));
    bench.wait();
    bench.follow(2, "m");
    bench.member.joined(bench.now, old, JoinOutcome::Failed(error(ErrorCode::FENCED_INSTANCE_ID)));
    bench.sync(&partitions("t", 0..2));
    bench.assigned();
    let (attempt, _) = bench.heartbeat();
    bench.member.heartbeat_answered(bench.now, old, Err(error(ErrorCode::UNKNOWN_MEMBER_ID)));
    bench.idle();
    bench.member.heartbeat_answered(bench.now, attempt, Ok(()));
    bench.member.partitions_counted(bench.now, old, BTreeMap::new());
    bench.member.revoked(bench.now, old);
    let identity = Identity { generation: 1, member_id: "m".into() };
    bench.member.commit_refused(bench.now, &identity, &error(ErrorCode::ILLEGAL_GENERATION));
    bench.idle();
    assert_eq!(bench.generation(), Some(2));
}

#[test]
fn rejoins_when_subscription_changes_while_joining() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.follow(1, "m");
    bench.subscribe(&["u"]);
    bench.sync(&partitions("t", 0..2));
    let Action::Send { request: ClassicRequest::Join { protocols, .. }, .. } = bench.action() else { panic!() };
    assert_eq!(MemberSubscription::read(&protocols[0].1).0.topics, [Arc::from("u")]);
}

#[test]
fn rejoins_after_assignment_of_unsubscribed_topics() {
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
fn reports_inconsistent_protocol_and_malformed_assignment() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.expect_join();
    let answer = JoinAnswer { protocol: Some("sticky".to_owned()), ..Bench::answer(1, "m") };
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer));
    assert_eq!(bench.parked().code(), Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));

    for (protocol_type, bytes, code) in [
        (Some("connect".to_owned()), vec![], Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)),
        (None, vec![0, 0, 0], None),
    ] {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        bench.follow(1, "m");
        let Action::Send { attempt, request: ClassicRequest::Sync { .. } } = bench.action() else { panic!() };
        let answer = SyncAnswer { protocol_type, protocol: None, assignment: bytes.into() };
        bench.member.synced(bench.now, attempt, Ok(answer));
        assert_eq!(bench.parked().code(), code);
    }
}

#[test]
fn leaves_when_join_succeeds_after_unsubscribing() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.expect_join();
    bench.member.subscribe(bench.now, None);
    bench.idle();
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(Bench::answer(1, "late")));
    let Action::Leave(LeaveGroup { member_id, .. }) = bench.action() else { panic!() };
    assert_eq!(&*member_id, "late");
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::NoGroup));
}

#[test]
fn session_timeout_while_leading_causes_rejoin() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    bench.lead(false);
    let (heartbeat, _) = bench.heartbeat();
    bench.wait();
    assert_eq!(bench.expect_join().1, "m", "neither the count nor the heartbeat was answered");
    bench.member.heartbeat_answered(bench.now, heartbeat, Err(error(ErrorCode::UNKNOWN_MEMBER_ID)));
    bench.idle();
}
