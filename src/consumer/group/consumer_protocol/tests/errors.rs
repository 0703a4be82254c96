use super::*;

#[test]
fn fenced_member_loses_partitions_and_rejoins() {
    let codes = [
        ErrorCode::FENCED_MEMBER_EPOCH,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::STALE_MEMBER_EPOCH,
        ErrorCode::GROUP_ID_NOT_FOUND,
    ];
    for code in codes {
        let mut bench = Bench::settled();
        let (attempt, _) = bench.next_beat();
        bench.refuse(attempt, code);
        assert_eq!(bench.lost(), partitions("t", 0..2));
        let (attempt, beat) = bench.beat();
        assert_eq!((&*beat.member_id, beat.epoch, beat.owned), ("m", 0, Some(PartitionsByTopicId::new())));
        bench.answer(attempt, 6, Some(held(&[(T, 0..2)])));
        bench.names();
        assert_eq!(bench.assigned(), partitions("t", 0..2));

        // The error now arrives during a revocation.
        let mut bench = Bench::settled();
        bench.told(5, held(&[(T, 1..2)]));
        let (given_up, _) = bench.revoking();
        let (attempt, _) = bench.next_beat();
        bench.refuse(attempt, code);
        assert_eq!(bench.lost(), partitions("t", 0..2));
        bench.beat();
        bench.member.revoked(bench.now, given_up);
        bench.idle();
    }
}

#[test]
fn repeatedly_fenced_member_backs_off() {
    let mut bench = Bench::settled();
    let began = bench.now;
    for _ in 0..20 {
        let (attempt, _) = match bench.member.next_action() {
            Some(Action::Send { attempt, request: beat }) => (attempt, beat),
            Some(Action::Lost { .. }) => continue,
            None => {
                bench.wait();
                continue;
            }
            other => panic!("{other:?}"),
        };
        bench.refuse(attempt, ErrorCode::UNKNOWN_MEMBER_ID);
    }
    assert!(bench.now > began + Duration::from_secs(1));
}

#[test]
fn retries_join_and_reports_error_once() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let began = bench.now;
    let mut told = 0;
    while bench.now < began + Duration::from_secs(60) {
        match bench.member.next_action() {
            Some(Action::Send { attempt, request: beat }) => {
                assert_eq!((beat.epoch, beat.full), (0, true));
                bench.refuse(attempt, ErrorCode::COORDINATOR_NOT_AVAILABLE);
            }
            Some(Action::Error { fatal: false, .. }) => told += 1,
            None => bench.wait(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, 1);
}

#[test]
fn permanent_error_is_retried_on_next_poll() {
    let codes = [
        ErrorCode::UNSUPPORTED_ASSIGNOR,
        ErrorCode::INVALID_REGULAR_EXPRESSION,
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ErrorCode::GROUP_ID_NOT_FOUND,
        ErrorCode::UNSUPPORTED_VERSION,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::new(9_999),
    ];
    for code in codes {
        let mut bench = Bench::new(None);
        bench.subscribe(&["t"]);
        let (attempt, _) = bench.beat();
        bench.refuse(attempt, code);
        assert_eq!(bench.parked().code(), Some(code));
        bench.member.polled(bench.now);
        bench.idle();
        assert_eq!(bench.next_beat().1.epoch, 0);
    }
}

#[test]
fn unsupported_version_error_suggests_classic_protocol() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.beat();
    bench.refuse(attempt, ErrorCode::UNSUPPORTED_VERSION);
    assert!(bench.parked().to_string().contains("group.protocol=classic"));
}

#[test]
fn reports_heartbeat_error_once_and_stays() {
    let mut bench = Bench::settled();
    for code in [ErrorCode::TOPIC_AUTHORIZATION_FAILED, ErrorCode::INVALID_REGULAR_EXPRESSION] {
        let (attempt, _) = bench.next_beat();
        bench.refuse(attempt, code);
        assert_eq!(bench.raised().code(), Some(code));
        let (attempt, _) = bench.next_beat();
        bench.refuse(attempt, code);
        bench.idle();
        let (attempt, _) = bench.next_beat();
        bench.answer(attempt, 5, Some(held(&[(T, 0..2)])));
        bench.idle();
    }
    assert_eq!(bench.epoch(), Some(5));
}

#[test]
fn unreleased_instance_id_leaves_and_retries() {
    let mut bench = Bench::new(Some("i"));
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.beat();
    bench.refuse(attempt, ErrorCode::UNRELEASED_INSTANCE_ID);
    assert_eq!(bench.left(), -2);
    bench.idle();
    let mut told = 0;
    for _ in 0..100 {
        match bench.member.next_action() {
            Some(Action::Send { attempt, .. }) => bench.refuse(attempt, ErrorCode::UNRELEASED_INSTANCE_ID),
            Some(Action::Leave(LeavingHeartbeat { epoch, .. })) => {
                assert_eq!(epoch, -2);
                bench.member.leave_ended(bench.now);
            }
            Some(Action::Error { error, fatal: false }) => {
                assert_eq!(error.code(), Some(ErrorCode::UNRELEASED_INSTANCE_ID));
                told += 1;
            }
            None => bench.wait(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, 1);
}

#[test]
fn fenced_instance_id_is_always_fatal() {
    let fenced = ErrorCode::FENCED_INSTANCE_ID;
    let ended = |bench: &mut Bench| {
        assert!(matches!(bench.action(), Action::Error { fatal: true, .. }));
        bench.subscribe(&["other"]);
        bench.member.polled(bench.now);
        bench.idle();
        assert!(matches!(bench.member.snapshot(), MemberSnapshot::Ended(_)));
    };
    let mut bench = Bench::new(Some("i"));
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.beat();
    bench.refuse(attempt, fenced);
    ended(&mut bench);

    let mut bench = Bench::settled_as(Some("i"));
    let (attempt, _) = bench.next_beat();
    bench.refuse(attempt, fenced);
    bench.lost();
    ended(&mut bench);

    let mut bench = Bench::settled_as(Some("i"));
    let identity = Identity { generation: 5, member_id: "m".into() };
    bench.member.commit_refused(bench.now, &identity, &error(fenced));
    bench.lost();
    ended(&mut bench);
}

#[test]
fn commit_error_loses_partitions_or_refreshes_epoch() {
    let mut bench = Bench::settled();
    let old = Identity { generation: 4, member_id: "m".into() };
    bench.member.commit_refused(bench.now, &old, &error(ErrorCode::UNKNOWN_MEMBER_ID));
    bench.idle();
    let now = Identity { generation: 5, ..old };
    bench.member.commit_refused(bench.now, &now, &error(ErrorCode::STALE_MEMBER_EPOCH));
    let (attempt, beat) = bench.beat();
    assert!(beat.full);
    bench.answer(attempt, 5, Some(held(&[(T, 0..2)])));
    bench.idle();
    bench.member.commit_refused(bench.now, &now, &error(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(bench.lost(), partitions("t", 0..2));
    assert_eq!(bench.beat().1.epoch, 0);
}

#[test]
fn unsubscribed_unknown_member_does_not_rejoin() {
    let mut bench = Bench::settled();
    bench.member.subscribe(bench.now, None);
    bench.revoking();
    let (attempt, _) = bench.next_beat();
    bench.refuse(attempt, ErrorCode::UNKNOWN_MEMBER_ID);
    bench.lost();
    bench.left();
    bench.idle();
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::NoGroup));
}
