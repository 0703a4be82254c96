use super::*;

/// Time that is reserved for reporting to the coordinator.
const MARGIN: Duration = Duration::from_secs(5);

#[test]
fn revokes_then_assigns_then_acknowledges_both() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..3)]));
    let (attempt, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 0..1));
    assert_eq!(bench.owned(), partitions("t", 0..2), "what the reader finishes is committed");
    assert!(!bench.is_settled());
    for _ in 0..3 {
        let (beaten, beat) = bench.next_beat();
        assert!(!beat.full && beat.owned.is_none(), "nothing is said of it while the reader is at it");
        bench.answer(beaten, 5, None);
        bench.idle();
    }
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.assigned(), partitions("t", 2..3));
    let (attempt, beat) = bench.beat();
    assert_eq!((beat.owned, beat.full), (Some(held(&[(T, 1..3)])), false));
    bench.answer(attempt, 6, None);
    bench.idle();
    assert!(bench.is_settled());
    assert_eq!((bench.epoch(), bench.owned()), (Some(6), partitions("t", 1..3)));
}

#[test]
fn claims_revoking_partitions_after_heartbeat_error() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (attempt, _) = bench.revoking();
    let (beaten, _) = bench.next_beat();
    bench.refuse(beaten, ErrorCode::NOT_COORDINATOR);
    let (beaten, beat) = bench.next_beat();
    assert_eq!((beat.owned, beat.full), (Some(held(&[(T, 0..2)])), true));
    bench.answer(beaten, 5, Some(held(&[(T, 1..2)])));
    bench.idle();
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.beat().1.owned, Some(held(&[(T, 1..2)])));
}

#[test]
fn newer_assignment_applies_after_revocation_ends() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (attempt, _) = bench.revoking();
    bench.told(6, held(&[(T, 0..1), (U, 0..1)]));
    bench.names();
    bench.idle();
    bench.member.revoked(bench.now, attempt);
    let (attempt, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 1..2));
    let (beaten, beat) = bench.beat();
    assert_eq!(beat.owned, Some(held(&[(T, 1..2)])), "others may wait for what was given up");
    bench.answer(beaten, 6, None);
    bench.member.revoked(bench.now, attempt);
    let mut expected = partitions("t", 0..1);
    expected.extend(partitions("u", 0..1));
    assert_eq!(bench.assigned(), expected);
}

#[test]
fn reassigned_partition_gets_new_ownership_epoch() {
    let mut bench = Bench::settled();
    let since = |bench: &Bench| match bench.member.snapshot() {
        MemberSnapshot::Member { owned, .. } | MemberSnapshot::Rebalancing { owned, .. } => {
            owned[&TopicPartition::new("t", 0)]
        }
        other => panic!("{other:?}"),
    };
    let before = since(&bench);
    bench.told(5, PartitionsByTopicId::new());
    let (attempt, _) = bench.revoking();
    bench.told(6, held(&[(T, 0..2)]));
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.assigned(), partitions("t", 0..2));
    assert!(since(&bench) > before);
}

#[test]
fn revocation_beyond_rebalance_timeout_loses_partitions() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (attempt, _) = bench.revoking();
    let began = bench.now;
    loop {
        bench.member.polled(bench.now);
        bench.wait();
        match bench.action() {
            Action::Send { attempt, .. } => bench.answer(attempt, 5, None),
            Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..1)),
            other => panic!("{other:?}"),
        }
        // Each response updates the coordinator's state, but not the time at which it began to
        // wait.
        assert!(bench.now <= began + POLL);
    }
    assert_eq!(bench.now, began + POLL - MARGIN);
    assert_eq!(bench.beat().1.owned, Some(held(&[(T, 1..2)])));
    bench.member.revoked(bench.now, attempt);
    bench.idle();
}

#[test]
fn revocation_deadline_counts_from_unanswered_heartbeat() {
    let mut bench = Bench::settled();
    let (attempt, _) = bench.next_beat();
    let asked = bench.now;
    bench.pass(Duration::from_secs(20));
    bench.refuse(attempt, ErrorCode::REQUEST_TIMED_OUT);
    bench.told(5, held(&[(T, 1..2)]));
    let (attempt, _) = bench.revoking();
    assert_eq!(bench.member.reconciliation.revoking.as_ref().unwrap().deadline, asked + POLL - MARGIN);
    // The same deadline applies to the next revocation, because the coordinator has not seen the
    // member without one in between.
    let (beaten, _) = bench.next_beat();
    bench.answer(beaten, 5, Some(PartitionsByTopicId::new()));
    bench.pass(Duration::from_secs(4));
    bench.member.revoked(bench.now, attempt);
    bench.revoking();
    assert_eq!(bench.member.reconciliation.revoking.as_ref().unwrap().deadline, asked + POLL - MARGIN);
}

#[test]
fn keeps_unnamed_topic_until_metadata_knows_it() {
    let mut bench = Bench::settled();
    bench.told(6, held(&[(T, 0..2), (U, 0..3)]));
    assert_eq!(bench.member.unresolved().collect::<Vec<_>>(), [U]);
    assert!(!bench.is_settled());
    bench.idle();
    // The coordinator does not send the assignment again.
    for _ in 0..3 {
        let (attempt, _) = bench.next_beat();
        bench.answer(attempt, 6, None);
        bench.member.names_known(bench.now, |_| None);
        bench.idle();
        assert_eq!(bench.owned(), partitions("t", 0..2), "what is known is kept meanwhile");
    }
    bench.names();
    assert_eq!(bench.assigned(), partitions("u", 0..3));
    assert_eq!(bench.beat().1.owned, Some(held(&[(T, 0..2), (U, 0..3)])));
    assert!(bench.is_settled());
}

#[test]
fn unnamed_topic_is_removed_without_waiting() {
    let mut bench = Bench::settled();
    bench.told(6, held(&[(T, 0..1), (U, 0..3)]));
    let (attempt, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 1..2), "it is not waited for");
    bench.member.revoked(bench.now, attempt);
    let (attempt, beat) = bench.beat();
    assert_eq!(beat.owned, Some(held(&[(T, 0..1)])));
    bench.answer(attempt, 7, Some(held(&[(T, 0..1)])));
    bench.idle();
    assert!(bench.is_settled());
    assert_eq!(bench.member.unresolved().count(), 0);
}

#[test]
fn revokes_recreated_topic_before_assigning_it() {
    let mut bench = Bench::settled();
    let anew = Uuid::from_u128(9);
    bench.told(6, held(&[(anew, 0..2)]));
    bench.member.names_known(bench.now, |id| (id == anew).then(|| "t".into()));
    let (attempt, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 0..2));
    bench.idle();
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.assigned(), partitions("t", 0..2));
    assert_eq!(bench.beat().1.owned, Some(held(&[(anew, 0..2)])));
}

#[test]
fn old_and_recreated_topic_never_overlap() {
    let mut bench = Bench::settled();
    let anew = Uuid::from_u128(9);
    bench.told(6, held(&[(T, 0..2), (anew, 0..2)]));
    bench.member.names_known(bench.now, |id| (id == anew).then(|| "t".into()));
    bench.idle();
    bench.told(7, held(&[(anew, 0..2)]));
    let (attempt, _) = bench.revoking();
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.assigned(), partitions("t", 0..2));
}

#[test]
fn ignores_invalid_partitions_and_topic_ids() {
    let mut bench = Bench::settled();
    let mut odd = held(&[(T, -3..2), (Uuid::nil(), 0..4)]);
    odd.insert(U, BTreeSet::new());
    bench.told(6, odd);
    bench.idle();
    assert_eq!(bench.owned(), partitions("t", 0..2));
    assert_eq!(bench.member.unresolved().count(), 0);
}

#[test]
fn unsubscribing_revokes_then_leaves() {
    let mut bench = Bench::settled();
    bench.member.subscribe(bench.now, None);
    let (attempt, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 0..2));
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.left(), -1);
    bench.idle();
    assert!(matches!(bench.member.snapshot(), MemberSnapshot::NoGroup));
    bench.subscribe(&["t"]);
    assert_eq!(bench.beat().1.epoch, 0);
}

#[test]
fn resubscribing_during_revocation_stays_in_group() {
    let mut bench = Bench::settled();
    bench.member.subscribe(bench.now, None);
    let (attempt, _) = bench.revoking();
    bench.subscribe(&["t", "u"]);
    let (beaten, beat) = bench.beat();
    assert_eq!((beat.epoch, beat.owned), (5, None));
    bench.answer(beaten, 5, None);
    bench.member.revoked(bench.now, attempt);
    assert_eq!(bench.assigned(), partitions("t", 0..2), "they are still owned, and are assigned again");
    assert_eq!(bench.epoch(), Some(5));
}

#[test]
fn unsubscribing_revokes_everything_despite_new_subscription() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (attempt, _) = bench.revoking();
    bench.member.subscribe(bench.now, None);
    bench.subscribe(&["t", "u"]);
    let (beaten, _) = bench.beat();
    bench.answer(beaten, 5, None);
    bench.member.revoked(bench.now, attempt);
    let (attempt, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 1..2), "the consumer may have put something else in its place");
    let (beaten, _) = bench.beat();
    bench.answer(beaten, 5, None);
    bench.member.revoked(bench.now, attempt);
    assert_eq!((bench.assigned(), bench.epoch()), (partitions("t", 1..2), Some(5)));
}

#[test]
fn joins_only_after_leave_has_ended() {
    for instance_id in [None, Some("i")] {
        let mut bench = Bench::settled_as(instance_id);
        bench.member.subscribe(bench.now, None);
        let (attempt, _) = bench.revoking();
        bench.member.revoked(bench.now, attempt);
        bench.leaves();
        bench.subscribe(&["t"]);
        bench.pass(POLL);
        bench.idle();
        assert!(bench.member.next_wake().is_none());
        bench.member.leave_ended(bench.now);
        assert_eq!(bench.beat().1.epoch, 0);
    }
}

#[test]
fn leaves_at_once_without_owned_partitions() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (attempt, _) = bench.beat();
    bench.answer(attempt, 1, Some(PartitionsByTopicId::new()));
    assert!(bench.assigned().is_empty());
    bench.member.subscribe(bench.now, None);
    assert_eq!(bench.left(), -1);
}
