use super::*;

/// The coordinator has to hear of it in time.
const MARGIN: Duration = Duration::from_secs(5);

#[test]
fn what_goes_is_given_up_before_what_comes_is_taken_and_both_are_told_together() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..3)]));
    let (ticket, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 0..1));
    assert_eq!(bench.owned(), partitions("t", 0..2), "what the reader finishes is committed");
    assert!(!bench.is_settled());
    for _ in 0..3 {
        let (beaten, beat) = bench.next_beat();
        assert!(!beat.full && beat.owned.is_none(), "nothing is said of it while the reader is at it");
        bench.answer(beaten, 5, None);
        bench.idle();
    }
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.assigned(), partitions("t", 2..3));
    let (ticket, beat) = bench.beat();
    assert_eq!((beat.owned, beat.full), (Some(held(&[(T, 1..3)])), false));
    bench.answer(ticket, 6, None);
    bench.idle();
    assert!(bench.is_settled());
    assert_eq!((bench.epoch(), bench.owned()), (Some(6), partitions("t", 1..3)));
}

#[test]
fn an_error_while_something_is_given_up_says_that_it_is_owned_still() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (ticket, _) = bench.revoking();
    let (beaten, _) = bench.next_beat();
    bench.refuse(beaten, ErrorCode::NOT_COORDINATOR);
    let (beaten, beat) = bench.next_beat();
    assert_eq!((beat.owned, beat.full), (Some(held(&[(T, 0..2)])), true));
    bench.answer(beaten, 5, Some(held(&[(T, 1..2)])));
    bench.idle();
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.beat().1.owned, Some(held(&[(T, 1..2)])));
}

#[test]
fn what_changes_meanwhile_is_carried_out_when_the_reader_is_done() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (ticket, _) = bench.revoking();
    bench.told(6, held(&[(T, 0..1), (U, 0..1)]));
    bench.names();
    bench.idle();
    bench.member.revoked(bench.now, ticket);
    let (ticket, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 1..2));
    let (beaten, beat) = bench.beat();
    assert_eq!(beat.owned, Some(held(&[(T, 1..2)])), "others may wait for what was given up");
    bench.answer(beaten, 6, None);
    bench.member.revoked(bench.now, ticket);
    let mut expected = partitions("t", 0..1);
    expected.extend(partitions("u", 0..1));
    assert_eq!(bench.assigned(), expected);
}

#[test]
fn a_partition_that_comes_back_is_another_ownership() {
    let mut bench = Bench::settled();
    let since = |bench: &Bench| match bench.member.standing() {
        Standing::Member { owned, .. } | Standing::Rebalancing { owned, .. } => owned[&TopicPartition::new("t", 0)],
        other => panic!("{other:?}"),
    };
    let before = since(&bench);
    bench.told(5, Held::new());
    let (ticket, _) = bench.revoking();
    bench.told(6, held(&[(T, 0..2)]));
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.assigned(), partitions("t", 0..2));
    assert!(since(&bench) > before);
}

#[test]
fn a_revocation_that_takes_longer_than_the_rebalance_is_a_loss() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (ticket, _) = bench.revoking();
    let began = bench.now;
    loop {
        bench.member.polled(bench.now);
        bench.wait();
        match bench.action() {
            Action::Heartbeat { ticket, .. } => bench.answer(ticket, 5, None),
            Action::Lost { partitions: lost } => break assert_eq!(lost, partitions("t", 0..1)),
            other => panic!("{other:?}"),
        }
        // Each answer moves what the coordinator knows, not when it began to wait.
        assert!(bench.now <= began + POLL);
    }
    assert_eq!(bench.now, began + POLL - MARGIN);
    assert_eq!(bench.beat().1.owned, Some(held(&[(T, 1..2)])));
    bench.member.revoked(bench.now, ticket);
    bench.idle();
}

#[test]
fn a_coordinator_whose_answer_was_lost_waits_since_then() {
    let mut bench = Bench::settled();
    let (ticket, _) = bench.next_beat();
    let asked = bench.now;
    bench.pass(Duration::from_secs(20));
    bench.refuse(ticket, ErrorCode::REQUEST_TIMED_OUT);
    bench.told(5, held(&[(T, 1..2)]));
    let (ticket, _) = bench.revoking();
    assert_eq!(bench.member.giving_up.as_ref().unwrap().deadline, asked + POLL - MARGIN);
    // And for what is to be given up next, while it has heard of no moment without.
    let (beaten, _) = bench.next_beat();
    bench.answer(beaten, 5, Some(Held::new()));
    bench.pass(Duration::from_secs(4));
    bench.member.revoked(bench.now, ticket);
    bench.revoking();
    assert_eq!(bench.member.giving_up.as_ref().unwrap().deadline, asked + POLL - MARGIN);
}

#[test]
fn a_topic_whose_name_is_not_known_is_kept_until_it_is() {
    let mut bench = Bench::settled();
    bench.told(6, held(&[(T, 0..2), (U, 0..3)]));
    assert_eq!(bench.member.unresolved().collect::<Vec<_>>(), [U]);
    assert!(!bench.is_settled());
    bench.idle();
    // The coordinator says nothing more of it.
    for _ in 0..3 {
        let (ticket, _) = bench.next_beat();
        bench.answer(ticket, 6, None);
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
fn a_topic_that_never_got_a_name_goes_without_one() {
    let mut bench = Bench::settled();
    bench.told(6, held(&[(T, 0..1), (U, 0..3)]));
    let (ticket, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 1..2), "it is not waited for");
    bench.member.revoked(bench.now, ticket);
    let (ticket, beat) = bench.beat();
    assert_eq!(beat.owned, Some(held(&[(T, 0..1)])));
    bench.answer(ticket, 7, Some(held(&[(T, 0..1)])));
    bench.idle();
    assert!(bench.is_settled());
    assert_eq!(bench.member.unresolved().count(), 0);
}

#[test]
fn a_topic_that_is_made_anew_is_given_up_before_it_is_taken() {
    let mut bench = Bench::settled();
    let anew = Uuid::from_u128(9);
    bench.told(6, held(&[(anew, 0..2)]));
    bench.member.names_known(bench.now, |id| (id == anew).then(|| "t".into()));
    let (ticket, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 0..2));
    bench.idle();
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.assigned(), partitions("t", 0..2));
    assert_eq!(bench.beat().1.owned, Some(held(&[(anew, 0..2)])));
}

#[test]
fn both_selves_of_a_topic_are_never_owned_at_once() {
    let mut bench = Bench::settled();
    let anew = Uuid::from_u128(9);
    bench.told(6, held(&[(T, 0..2), (anew, 0..2)]));
    bench.member.names_known(bench.now, |id| (id == anew).then(|| "t".into()));
    bench.idle();
    bench.told(7, held(&[(anew, 0..2)]));
    let (ticket, _) = bench.revoking();
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.assigned(), partitions("t", 0..2));
}

#[test]
fn what_no_broker_can_mean_is_left_out() {
    let mut bench = Bench::settled();
    let mut odd = held(&[(T, -3..2), (Uuid::nil(), 0..4)]);
    odd.insert(U, BTreeSet::new());
    bench.told(6, odd);
    bench.idle();
    assert_eq!(bench.owned(), partitions("t", 0..2));
    assert_eq!(bench.member.unresolved().count(), 0);
}

#[test]
fn unsubscribing_gives_up_then_leaves() {
    let mut bench = Bench::settled();
    bench.member.subscribe(bench.now, None);
    let (ticket, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 0..2));
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.left(), -1);
    bench.idle();
    assert!(matches!(bench.member.standing(), Standing::Alone));
    bench.subscribe(&["t"]);
    assert_eq!(bench.beat().1.epoch, 0);
}

#[test]
fn subscribing_again_before_everything_is_given_up_stays() {
    let mut bench = Bench::settled();
    bench.member.subscribe(bench.now, None);
    let (ticket, _) = bench.revoking();
    bench.subscribe(&["t", "u"]);
    let (beaten, beat) = bench.beat();
    assert_eq!((beat.epoch, beat.owned), (5, None));
    bench.answer(beaten, 5, None);
    bench.member.revoked(bench.now, ticket);
    assert_eq!(bench.assigned(), partitions("t", 0..2), "they are ours still, and come anew");
    assert_eq!(bench.epoch(), Some(5));
}

#[test]
fn who_unsubscribed_gives_everything_up_whatever_it_wants_by_then() {
    let mut bench = Bench::settled();
    bench.told(5, held(&[(T, 1..2)]));
    let (ticket, _) = bench.revoking();
    bench.member.subscribe(bench.now, None);
    bench.subscribe(&["t", "u"]);
    let (beaten, _) = bench.beat();
    bench.answer(beaten, 5, None);
    bench.member.revoked(bench.now, ticket);
    let (ticket, gone) = bench.revoking();
    assert_eq!(gone, partitions("t", 1..2), "the consumer may have put something else in its place");
    let (beaten, _) = bench.beat();
    bench.answer(beaten, 5, None);
    bench.member.revoked(bench.now, ticket);
    assert_eq!((bench.assigned(), bench.epoch()), (partitions("t", 1..2), Some(5)));
}

#[test]
fn nothing_is_joined_before_the_last_goodbye_has_ended() {
    for instance_id in [None, Some("i")] {
        let mut bench = Bench::settled_as(instance_id);
        bench.member.subscribe(bench.now, None);
        let (ticket, _) = bench.revoking();
        bench.member.revoked(bench.now, ticket);
        bench.leaves();
        bench.subscribe(&["t"]);
        bench.pass(POLL);
        bench.idle();
        assert!(bench.member.next_wake().is_none());
        bench.member.said_goodbye(bench.now);
        assert_eq!(bench.beat().1.epoch, 0);
    }
}

#[test]
fn a_member_that_has_to_give_nothing_up_leaves_at_once() {
    let mut bench = Bench::new(None);
    bench.subscribe(&["t"]);
    let (ticket, _) = bench.beat();
    bench.answer(ticket, 1, Some(Held::new()));
    assert!(bench.assigned().is_empty());
    bench.member.subscribe(bench.now, None);
    assert_eq!(bench.left(), -1);
}
