//! Tests of batches that may be in the log already, or may still be written.

use super::*;

#[test]
fn new_leader_waits_for_old_leader_responses() {
    let (mut line, requests, deliveries) = in_flight(2);
    let _later = line.send();
    let at = |line: &Line, leader| line.queue.readiness(line.now, &line.rules, &line.identity, false, Some(leader));
    for request in requests {
        // Otherwise a later batch could be in the log of the new leader before this one.
        assert_eq!(at(&line, NODE + 1), Readiness::Blocked);
        assert_eq!(at(&line, NODE), Readiness::Ready);
        line.written(request, 1);
    }
    assert_eq!(at(&line, NODE + 1), Readiness::Ready);
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn sequence_gap_keeps_number_of_uncertain_batch() {
    let (mut line, requests, mut deliveries) = in_flight(2);
    line.lose(requests[0]);
    line.refuse(requests[1], ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    // A broker that has the batch recognizes it by its own sequence.
    let again = line.drain_as(0, 1);
    line.refuse(again, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(status(deliveries.pop().unwrap()), Some(DeliveryStatus::NotPersisted));
    result(deliveries.pop().unwrap()).unwrap();
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn out_of_order_error_stays_possibly_persisted() {
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
    // The first batch may still be on some connection, and so may the second's first attempt: both
    // may arrive one after the other.
    line.refuse(again, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    for delivery in deliveries {
        assert_eq!(status(delivery), Some(DeliveryStatus::PossiblyPersisted));
    }
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn storage_error_does_not_renumber_uncertain_batch() {
    let (mut line, requests, mut deliveries) = in_flight(2);
    line.refuse(requests[0], ErrorCode::REQUEST_TIMED_OUT);
    line.refuse(requests[1], ErrorCode::KAFKA_STORAGE_ERROR);
    let again = line.drain_as(0, 1);
    let now = line.now;
    assert_eq!(line.queue.purge(PurgeScope::Queued, now).0, 1, "the second");
    line.refuse(again, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    // A broker that has the batch recognizes it by its own sequence.
    let again = line.drain_as(0, 1);
    line.refuse(again, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(status(deliveries.pop().unwrap()), Some(DeliveryStatus::NotPersisted));
    result(deliveries.pop().unwrap()).unwrap();
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn forced_epoch_bump_does_not_duplicate_batch() {
    for code in [
        ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::UNKNOWN_PRODUCER_ID,
        // It is not known which batch has these sequences, nor which other sequences it has.
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER,
    ] {
        let (mut line, requests, mut deliveries) = in_flight(2);
        line.refuse(requests[0], ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND);
        line.refuse(requests[1], code);
        assert_eq!(status(deliveries.remove(0)), Some(DeliveryStatus::PossiblyPersisted), "{code}");
        let again = line.drain_as(1, 0);
        line.written(again, 2);
        result(deliveries.remove(0)).unwrap();
    }
}

#[test]
fn batches_behind_unwritten_batch_are_resent() {
    for code in
        [ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::UNKNOWN_PRODUCER_ID, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER]
    {
        for lost_first in [true, false] {
            let (mut line, requests, deliveries) = in_flight(2);
            if lost_first {
                line.lose(requests[1]);
                line.refuse(requests[0], code);
            } else {
                line.refuse(requests[0], code);
                line.lose(requests[1]);
            }
            for sequence in 0..2 {
                let again = line.drain_as(1, sequence);
                line.written(again, 1 + i64::from(sequence));
            }
            deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
        }
    }
}

#[test]
fn recreated_topic_receives_uncertain_batches_again() {
    let (mut line, requests, deliveries) = in_flight(2);
    line.queue.topic_id(uuid::Uuid::from_u128(1));
    line.lose(requests[0]);
    line.queue.topic_id(uuid::Uuid::from_u128(2));
    line.lose(requests[1]);
    let again = line.drain_as(1, 0);
    line.written(again, 0);
    let again = line.drain_as(1, 1);
    line.written(again, 1);
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn parts_after_storage_error_are_possibly_persisted() {
    let (mut line, _, _) = in_flight(0);
    let deliveries = line.send_together(4);
    let whole = line.drain_as(0, 1);
    line.refuse(whole, ErrorCode::KAFKA_STORAGE_ERROR);
    let again = line.drain_as(0, 1);
    line.refuse(again, ErrorCode::MESSAGE_TOO_LARGE);
    // The followers may have the whole batch, and then the sequences of its parts are not the next
    // ones.
    for sequence in [1, 2] {
        let part = line.drain_as(0, sequence);
        line.refuse(part, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    }
    for delivery in deliveries {
        assert_eq!(status(delivery), Some(DeliveryStatus::PossiblyPersisted));
    }
    let _later = line.send();
    line.drain_as(1, 0);
}
