//! The way of a transaction to its end, and requests that come again or too late.

use crate::{
    producer::{Producer, Protocol, V1, V2},
    script::Script,
};

/// A commit and an abort in two partitions, as readers and the coordinator see them.
pub(crate) async fn commit_and_abort(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    let id = producer.transactional_id.clone();
    script.describe("an unknown id", &id).await;
    script.init(&mut producer).await;
    script.describe("A, initialized", &id).await;
    script.send(&mut producer, 0).await;
    script.produce(&mut producer, 0).await;
    producer.sequence = 0;
    script.send(&mut producer, 1).await;
    script.describe("A, open", &id).await;
    script.read(0).await;
    script.end_fully(&mut producer, true).await;
    script.describe("A, committed", &id).await;
    script.read(0).await;
    script.read(1).await;
    producer.sequence = if protocol.is_v2() { 0 } else { 4 };
    script.send(&mut producer, 0).await;
    script.end_fully(&mut producer, false).await;
    script.describe("A, aborted", &id).await;
    script.read(0).await;
}

/// EndTxn without a transaction, before the first and after each other one.
pub(crate) async fn end_of_nothing(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    for version in [4, 5] {
        let mut unknown = Producer { id: 1 << 40, epoch: 0, ..producer.clone() };
        script.end_in(&mut unknown, true, version).await;
        script.end_in(&mut Producer { transactional_id: String::new(), ..unknown }, true, version).await;
    }
    script.init(&mut producer).await;
    script.end(&mut producer, true).await;
    script.end_fully(&mut producer, false).await;
    script.describe("A after an abort of nothing", &producer.transactional_id).await;
    for committed in [true, false] {
        script.send(&mut producer, 0).await;
        script.end_fully(&mut producer, committed).await;
        let next = producer.clone();
        script.end(&mut producer, true).await;
        script.end_fully(&mut producer, false).await;
        if !protocol.is_v2() {
            producer = next;
        }
    }
    script.read(0).await;
}

/// EndTxn that is sent again, in the same and in the other direction and version.
pub(crate) async fn repeated_end(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    for committed in [true, false] {
        script.send(&mut producer, 0).await;
        let before = producer.clone();
        script.end_fully(&mut producer, committed).await;
        let older = if protocol.is_v2() { 4 } else { 3 };
        for version in [protocol.end, protocol.end, older] {
            for direction in [committed, !committed] {
                let mut copy = before.clone();
                script.end_in(&mut copy, direction, version).await;
                script.until_ended(&copy).await;
            }
        }
        let mut wrong = Producer { id: before.id + 7_000, ..before.clone() };
        script.end(&mut wrong, committed).await;
        script.end(&mut before.at_epoch(before.epoch + 5), committed).await;
    }
    script.read(0).await;
}

/// InitProducerId with and without the id and epoch that the producer has.
pub(crate) async fn repeated_init(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    let first = (producer.id, producer.epoch);
    for version in [3, 4, 5] {
        script.init_as(&mut producer, first, version).await;
    }
    let second = (producer.id, producer.epoch);
    script.init_as(&mut producer, second, 5).await;
    for version in [3, 4] {
        script.init_as(&mut producer, first, version).await;
    }
    for wrong in [(second.0, 9), (second.0 + 7_000, second.1), (second.0, -1), (-1, 3)] {
        script.init_as(&mut producer, wrong, 5).await;
    }
    for timeout_ms in [0, -1, 900_000, 900_001, i32::MAX, 60_000] {
        let mut other = Producer { timeout_ms, name: "A with another timeout", ..producer.clone() };
        script.init(&mut other).await;
        script.describe("A", &producer.transactional_id).await;
    }
    let mut nameless = Producer { transactional_id: String::new(), ..producer.clone() };
    script.init(&mut nameless).await;
    let mut fresh = Producer { transactional_id: script.name("fresh"), name: "B", ..producer };
    script.init_as(&mut fresh, (first.0, 7), 5).await;
}

/// Copies of requests that arrive after the transaction has ended, or in the next one.
pub(crate) async fn late_copies(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    let first = (producer.id, producer.epoch);
    script.init_as(&mut producer, first, 5).await;
    script.send(&mut producer, 0).await;
    let open = producer.clone();
    // The answer of the second InitProducerId was thought lost: its copy arrives now.
    let mut copy = Producer { name: "a late copy", ..open.clone() };
    script.init_as(&mut copy, first, 5).await;
    script.until_ended(&producer).await;
    script.describe("A after the late copy", &producer.transactional_id).await;
    script.produce(&mut producer, 0).await;
    script.end(&mut producer.clone(), true).await;
    script.end(&mut producer, false).await;
    script.until_ended(&producer).await;
    script.init_as(&mut producer, (open.id, open.epoch), 5).await;
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    let ended = Producer { name: "a late copy", ..producer.clone() };
    script.end_fully(&mut producer, true).await;
    script.init_as(&mut ended.clone(), (ended.id, ended.epoch - 1), 5).await;
    script.add_partitions(&ended, &[0], 3).await;
    script.add_offsets(&ended, "group", 4).await;
    script.describe("A after the late copies", &producer.transactional_id).await;
    script.produce(&mut ended.clone(), 1).await;
    script.commit_offset(&ended, "group", 3).await;
    script.end(&mut producer, false).await;
    script.until_ended(&producer).await;
    script.describe("A in the end", &producer.transactional_id).await;
    script.read(0).await;
}

/// A transaction that lasts longer than its timeout, and all that its producer may try then.
pub(crate) async fn timeout(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer { timeout_ms: 700, ..Producer::new(script, "A", protocol) };
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    script.send_offset(&producer, "group", 5).await;
    script.until_timed_out(&producer).await;
    script.describe("A, timed out", &producer.transactional_id).await;
    script.produce(&mut producer, 0).await;
    script.produce(&mut producer, 1).await;
    for group in ["group", "other group"] {
        script.commit_offset(&producer, group, 6).await;
    }
    script.add_partitions(&producer, &[0], 3).await;
    script.add_offsets(&producer, "group", 4).await;
    script.end(&mut producer.clone(), true).await;
    for _ in 0..2 {
        script.end(&mut producer.clone(), false).await;
    }
    script.end(&mut producer, false).await;
    script.until_ended(&producer).await;
    let own = (producer.id, producer.epoch);
    script.init_as(&mut producer.clone(), own, 5).await;
    script.init_as(&mut producer, own, 5).await;
    producer.timeout_ms = 60_000;
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    script.send_offset(&producer, "group", 7).await;
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
    script.read(0).await;
}

/// InitProducerId with the producer's own id and epoch after a timeout, instead of EndTxn.
pub(crate) async fn init_after_timeout(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer { timeout_ms: 700, ..Producer::new(script, "A", protocol) };
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    script.until_timed_out(&producer).await;
    for _ in 0..2 {
        let own = (producer.id, producer.epoch);
        script.init_as(&mut producer, own, 5).await;
    }
    script.end(&mut producer, false).await;
}

/// A transaction that begins under one protocol and ends, or goes on, under the other.
pub(crate) async fn changes_of_protocol(script: &mut Script, protocol: Protocol) {
    let other = if protocol.is_v2() { V1 } else { V2 };
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    producer.protocol = other;
    script.end_fully(&mut producer, true).await;
    script.describe("A, ended in the other protocol", &producer.transactional_id).await;
    script.send(&mut producer, 0).await;
    script.send(&mut producer, 1).await;
    script.send_offset(&producer, "group", 5).await;
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
    producer.protocol = protocol;
    script.send(&mut producer, 0).await;
    script.end_fully(&mut producer, false).await;
    script.read(0).await;
    script.read(1).await;
}
