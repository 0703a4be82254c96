use crate::consumer::group::assignor::CooperativeStickyAssignor;
use crate::consumer::group::classic::tests::*;

fn cooperative() -> Bench {
    let now = Instant::now();
    let backoff = (Duration::from_millis(100), Duration::from_secs(1));
    let settings = GroupSettings { assignors: vec![Arc::new(CooperativeStickyAssignor)], ..settings(None) };
    Bench { member: ClassicMembership::new(settings, backoff, 7, now), now }
}

fn answer(generation: i32) -> JoinAnswer {
    JoinAnswer { protocol: Some("cooperative-sticky".to_owned()), ..Bench::answer(generation, "m") }
}

/// Returns the attempt of the member's join, and the subscription in it.
fn joins(bench: &mut Bench) -> (AttemptId, MemberSubscription) {
    match bench.action() {
        Action::Send { attempt, request: ClassicRequest::Join { protocols, .. } } => {
            (attempt, MemberSubscription::read(&protocols[0].1).0)
        }
        other => panic!("expected a join, found {other:?}"),
    }
}

fn given(bench: &mut Bench, partitions: &[TopicPartition]) {
    let Action::Send { attempt, request: ClassicRequest::Sync { .. } } = bench.action() else { panic!("a sync") };
    let assignment = member_metadata::encode_assignment(partitions).unwrap();
    bench.member.synced(bench.now, attempt, Ok(SyncAnswer { protocol_type: None, protocol: None, assignment }));
}

/// Creates a member that owns the partitions 0 and 1 of `t` since generation 5.
fn stable() -> Bench {
    let mut bench = cooperative();
    bench.subscribe(&["t"]);
    let (attempt, said) = joins(&mut bench);
    assert_eq!((said.owned.len(), said.generation), (0, -1));
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(5)));
    given(&mut bench, &partitions("t", 0..2));
    assert_eq!(bench.assigned(), partitions("t", 0..2));
    bench
}

fn owned(bench: &Bench) -> Vec<TopicPartition> {
    bench.member.owned.iter().cloned().collect()
}

fn rebalances(bench: &mut Bench) -> (AttemptId, MemberSubscription) {
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    joins(bench)
}

#[test]
fn keeps_owned_partitions_and_assigns_new_ones() {
    let mut bench = stable();
    let (attempt, said) = rebalances(&mut bench);
    assert_eq!((said.owned, said.generation), (partitions("t", 0..2), 5));
    let MemberSnapshot::Rebalancing { owned: kept, .. } = bench.member.snapshot() else { panic!("it joins") };
    assert_eq!(kept.keys().cloned().collect::<Vec<_>>(), partitions("t", 0..2));
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    given(&mut bench, &partitions("t", 0..3));
    assert_eq!(bench.assigned(), partitions("t", 2..3));
    bench.idle();
    let MemberSnapshot::Member { identity, owned } = bench.member.snapshot() else { panic!("it is in") };
    assert_eq!((identity.generation, owned.len()), (6, 3));
    assert_eq!(owned[&TopicPartition::new("t", 0)], kept[&TopicPartition::new("t", 0)], "it was never away");
}

#[test]
fn revokes_moving_partitions_then_rejoins_without_them() {
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    given(&mut bench, &[partitions("t", 0..1), partitions("t", 3..4)].concat());
    let Action::Revoke { attempt, partitions: asked } = bench.action() else { panic!("a revocation") };
    assert_eq!(asked, partitions("t", 1..2));
    assert_eq!(bench.assigned(), partitions("t", 3..4));
    bench.idle();
    assert_eq!(bench.generation(), Some(6), "it can commit meanwhile");
    bench.member.revoked(bench.now, attempt);
    let (_, said) = joins(&mut bench);
    assert_eq!(said.owned, [partitions("t", 0..1), partitions("t", 3..4)].concat());
    assert_eq!(said.generation, 6);
}

#[test]
fn unsubscribing_revokes_everything_despite_new_subscription() {
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    given(&mut bench, &partitions("t", 0..1));
    let Action::Revoke { attempt, .. } = bench.action() else { panic!("a revocation") };
    assert!(bench.assigned().is_empty());
    bench.member.subscribe(bench.now, None);
    bench.subscribe(&["t"]);
    bench.member.revoked(bench.now, attempt);
    let Action::Revoke { attempt, partitions: asked } = bench.action() else { panic!("another revocation") };
    assert_eq!(asked, partitions("t", 0..1), "the consumer may have put something else in its place");
    bench.member.revoked(bench.now, attempt);
    assert!(joins(&mut bench).1.owned.is_empty());
}

#[test]
fn slow_revocation_loses_only_revoked_partitions() {
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    given(&mut bench, &partitions("t", 0..1));
    let Action::Revoke { attempt, .. } = bench.action() else { panic!("a revocation") };
    assert!(bench.assigned().is_empty());
    let end = bench.now + POLL;
    while bench.now < end {
        bench.member.polled(bench.now);
        bench.wait();
        match bench.action() {
            Action::Send { attempt, request: ClassicRequest::Heartbeat { .. } } => {
                bench.member.heartbeat_answered(bench.now, attempt, Ok(()))
            }
            Action::Lost { partitions: lost } => {
                assert_eq!(lost, partitions("t", 1..2));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let (_, said) = joins(&mut bench);
    assert_eq!(said.owned, partitions("t", 0..1));
    bench.member.revoked(bench.now, attempt);
    bench.idle();
}

#[test]
fn heartbeats_while_joining_reveal_unknown_member() {
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    for code in [ErrorCode::REBALANCE_IN_PROGRESS, ErrorCode::ILLEGAL_GENERATION] {
        bench.heartbeat_gives(Err(error(code)));
        bench.idle();
        assert_eq!(owned(&bench).len(), 2, "{code}");
    }
    bench.heartbeat_gives(Err(error(ErrorCode::UNKNOWN_MEMBER_ID)));
    bench.lost();
    let (_, said) = joins(&mut bench);
    assert!(said.owned.is_empty());
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    assert!(matches!(bench.action(), Action::Leave(_)), "the answer to the first join came too late");
}

#[test]
fn unanswered_join_loses_partitions_after_session_timeout() {
    let mut bench = stable();
    let (_, _) = rebalances(&mut bench);
    let silent_since = bench.now;
    loop {
        bench.wait();
        match bench.action() {
            Action::Send { attempt, request: ClassicRequest::Heartbeat { .. } } => {
                let nobody = Error::new(ErrorKind::Network, "nobody there");
                bench.member.heartbeat_answered(bench.now, attempt, Err(nobody));
            }
            Action::Lost { partitions: lost } => {
                assert_eq!(lost, partitions("t", 0..2));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.now <= silent_since + SESSION);
    assert!(joins(&mut bench).1.owned.is_empty());
}

#[test]
fn failed_sync_keeps_partitions_with_old_generation() {
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    bench.sync_fails(ErrorCode::REBALANCE_IN_PROGRESS);
    let (attempt, said) = joins(&mut bench);
    assert_eq!((said.owned, said.generation), (partitions("t", 0..2), 5), "of 6 nothing was ever assigned");
    bench.member.joined(bench.now, attempt, JoinOutcome::Failed(error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)));
    assert_eq!(owned(&bench).len(), 2);
    bench.member.subscribe(bench.now, None);
    let attempt = bench.revoking();
    bench.member.revoked(bench.now, attempt);
    assert!(matches!(bench.action(), Action::Leave(_)));
    bench.idle();
}

#[test]
fn revokes_unsubscribed_topics_before_joining() {
    let mut bench = stable();
    bench.subscribe(&["t", "u"]);
    let (_, said) = joins(&mut bench);
    assert_eq!(said.owned, partitions("t", 0..2));
    let mut bench = stable();
    bench.subscribe(&["u"]);
    let attempt = bench.revoking();
    bench.idle();
    bench.member.revoked(bench.now, attempt);
    let (_, said) = joins(&mut bench);
    assert!(said.owned.is_empty());
    assert_eq!(said.topics, ["u".into()]);
}

#[test]
fn unsubscribing_during_revocation_revokes_remaining_partitions() {
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    given(&mut bench, &partitions("t", 0..1));
    let Action::Revoke { attempt, .. } = bench.action() else { panic!("a revocation") };
    assert!(bench.assigned().is_empty());
    bench.member.subscribe(bench.now, None);
    bench.member.revoked(bench.now, attempt);
    let Action::Revoke { attempt, partitions: asked } = bench.action() else { panic!("a revocation") };
    assert_eq!(asked, partitions("t", 0..1));
    bench.member.revoked(bench.now, attempt);
    assert!(matches!(bench.action(), Action::Leave(_)));
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::NoGroup));
}

#[test]
fn mixed_assignors_use_eager_protocol() {
    let mut bench = Bench::new(None);
    bench.member = ClassicMembership::new(
        GroupSettings { assignors: crate::consumer::group::assignor::defaults(), ..settings(None) },
        (Duration::from_millis(100), Duration::from_secs(1)),
        7,
        bench.now,
    );
    bench.subscribe(&["t"]);
    let Action::Send { attempt, request: ClassicRequest::Join { protocols, .. } } = bench.action() else {
        panic!("a join")
    };
    let names: Vec<&str> = protocols.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["range", "cooperative-sticky"]);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(5)));
    given(&mut bench, &partitions("t", 0..2));
    bench.assigned();
    bench.heartbeat_gives(Err(error(ErrorCode::REBALANCE_IN_PROGRESS)));
    bench.revoking();
    bench.idle();
}

#[test]
fn unknown_member_on_join_loses_partitions() {
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    bench.member.joined(bench.now, attempt, JoinOutcome::Failed(error(ErrorCode::UNKNOWN_MEMBER_ID)));
    bench.lost();
    assert!(joins(&mut bench).1.owned.is_empty());
    let mut bench = stable();
    let (attempt, _) = rebalances(&mut bench);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    bench.sync_fails(ErrorCode::UNKNOWN_MEMBER_ID);
    bench.lost();
}

#[test]
fn repeats_join_after_illegal_generation_heartbeats() {
    let mut bench = stable();
    let (_, _) = rebalances(&mut bench);
    for _ in 0..2 {
        bench.heartbeat_gives(Err(error(ErrorCode::ILLEGAL_GENERATION)));
    }
    let (attempt, said) = joins(&mut bench);
    assert_eq!(said.owned.len(), 2);
    bench.member.joined(bench.now, attempt, JoinOutcome::Member(answer(6)));
    given(&mut bench, &partitions("t", 0..2));
    assert!(bench.assigned().is_empty());
}
