//! Tests of the order in which the obstacles to sending a batch are checked.

use super::*;

#[test]
fn batch_before_its_linger_sets_timer() {
    let (mut line, requests, _deliveries) = in_flight(1);
    line.rules.linger = Duration::from_millis(5);
    line.rules.max_in_flight = 1;
    let _later = line.send_into(Sizes::new(10_000));
    assert_eq!(line.readiness(), Readiness::At(line.now + line.rules.linger), "although the request is in flight");
    line.now += line.rules.linger;
    assert_eq!(line.readiness(), Readiness::Blocked);
    line.written(requests[0], 1);
    assert_eq!(line.readiness(), Readiness::Ready);
}

#[test]
fn blocked_partition_does_not_ask_for_id() {
    let (mut line, requests, _deliveries) = in_flight(1);
    line.lose(requests[0]);
    let again = line.drain_as(0, 1);
    line.identity = Identity::Unknown;
    let _later = line.send();
    // The batch in flight may be a repetition.
    assert_eq!(line.readiness(), Readiness::Blocked);
    line.written(again, 1);
    assert_eq!(line.readiness(), Readiness::NoProducerId);
}
