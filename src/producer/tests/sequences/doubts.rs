//! What may be in the log already, or may yet come there.

use super::*;

#[test]
fn what_is_new_waits_until_the_old_leader_has_answered() {
    let (mut line, requests, deliveries) = in_flight(2);
    let _later = line.send();
    let at = |line: &Line, leader| line.queue.readiness(line.now, &line.rules, &line.identity, false, Some(leader));
    for request in requests {
        // What is behind could otherwise be in the log of the new leader before it.
        assert_eq!(at(&line, NODE + 1), Readiness::Blocked);
        assert_eq!(at(&line, NODE), Readiness::Ready);
        line.written(request, 1);
    }
    assert_eq!(at(&line, NODE + 1), Readiness::Ready);
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn a_hole_behind_what_may_be_written_does_not_give_it_another_number() {
    let (mut line, requests, mut deliveries) = in_flight(2);
    line.lose(requests[0]);
    line.refuse(requests[1], ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    // Under its own number a broker that has it recognizes it.
    let again = line.drain_as(0, 1);
    line.refuse(again, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(status(deliveries.pop().unwrap()), Some(DeliveryStatus::NotPersisted));
    result(deliveries.pop().unwrap()).unwrap();
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn out_of_order_behind_what_is_in_doubt_does_not_mean_that_it_is_not_written() {
    let (mut line, requests, mut deliveries) = in_flight(1);
    line.now += Duration::from_secs(60);
    deliveries.push(line.send());
    let second = line.drain_as(0, 2);
    line.now += Duration::from_secs(61);
    let (now, rules) = (line.now, line.rules.clone());
    line.queue.expire(now, &rules, None);
    line.lose(requests[0]);
    line.lose(second);
    let again = line.drain_as(0, 2);
    // The first is still on some connection, and so is the second's first attempt: both may arrive one after the other.
    line.refuse(again, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    for delivery in deliveries {
        assert_eq!(status(delivery), Some(DeliveryStatus::PossiblyPersisted));
    }
    let _later = line.send();
    line.drain_as(1, 0);
}
