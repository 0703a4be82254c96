//! The last epochs of a producer id: 32,766 is the last that a producer gets.

use crate::{
    producer::{Producer, Protocol},
    script::Script,
};

const LAST: i16 = i16::MAX - 1;

/// Creates a producer at the last epoch. Only the step to it is noted.
async fn at_last_epoch(script: &mut Script, protocol: Protocol, timeout_ms: i32) -> Producer {
    let mut producer = Producer { timeout_ms, ..Producer::new(script, "A", protocol) };
    let before = script.notes.len();
    while producer.epoch < LAST - 1 {
        script.init(&mut producer).await;
    }
    script.notes.truncate(before);
    let own = (producer.id, producer.epoch);
    script.init_as(&mut producer, own, 5).await;
    producer
}

/// InitProducerId at the last epoch answers another producer id.
pub(crate) async fn exhausted_by_init(script: &mut Script, protocol: Protocol) {
    let mut producer = at_last_epoch(script, protocol, 60_000).await;
    let last = (producer.id, producer.epoch);
    script.init_as(&mut producer.clone(), (last.0, LAST - 1), 5).await;
    script.send(&mut producer, 0).await;
    script.end_fully(&mut producer, true).await;
    for _ in 0..2 {
        script.init_as(&mut producer, last, 5).await;
    }
    script.init_as(&mut producer.clone(), (last.0, LAST - 1), 5).await;
    script.describe("A with its new id", &producer.transactional_id).await;
    script.send(&mut producer, 0).await;
    script.init_as(&mut producer.clone(), last, 5).await;
    script.end_fully(&mut producer, true).await;
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    script.end_fully(&mut producer, true).await;
    script.read(0).await;
}

/// EndTxn at the last epoch answers another producer id.
pub(crate) async fn exhausted_by_end(script: &mut Script, protocol: Protocol) {
    let mut producer = at_last_epoch(script, protocol, 60_000).await;
    script.send(&mut producer, 0).await;
    let last = producer.clone();
    script.end_fully(&mut producer, true).await;
    script.describe("A with its new id", &producer.transactional_id).await;
    for committed in [true, false] {
        script.end(&mut last.clone(), committed).await;
    }
    script.produce(&mut last.clone(), 0).await;
    script.init_as(&mut producer.clone(), (last.id, last.epoch), 5).await;
    script.send(&mut producer, 0).await;
    script.end(&mut last.clone(), true).await;
    script.end_fully(&mut producer, false).await;
    script.end(&mut last.clone(), true).await;
    script.init_as(&mut last.clone(), (last.id, last.epoch), 5).await;
    script.describe("A in the end", &producer.transactional_id).await;
    script.read(0).await;
}

/// A timeout at the last epoch.
pub(crate) async fn exhausted_by_timeout(script: &mut Script, protocol: Protocol) {
    let mut producer = at_last_epoch(script, protocol, 700).await;
    script.send(&mut producer, 0).await;
    script.until_timed_out(&producer).await;
    script.describe("A, timed out", &producer.transactional_id).await;
    let last = producer.clone();
    script.produce(&mut producer, 0).await;
    script.commit_offset(&producer, "group", 5).await;
    script.end(&mut producer.clone(), true).await;
    for _ in 0..2 {
        script.end(&mut producer.clone(), false).await;
    }
    script.init_as(&mut last.clone(), (last.id, last.epoch), 5).await;
    script.end(&mut producer, false).await;
    script.until_ended(&producer).await;
    script.describe("A in the end", &producer.transactional_id).await;
    script.read(0).await;
}

/// Another instance takes over at the last epoch.
pub(crate) async fn exhausted_by_fencing(script: &mut Script, protocol: Protocol) {
    let mut older = at_last_epoch(script, protocol, 60_000).await;
    script.send(&mut older, 0).await;
    let mut newer = Producer { name: "B", ..older.clone() };
    script.init(&mut newer).await;
    script.until_ended(&older).await;
    script.describe("both, between the two answers", &older.transactional_id).await;
    script.end(&mut older.clone(), true).await;
    script.end(&mut older.clone(), false).await;
    script.init_as(&mut older.clone(), (older.id, older.epoch), 5).await;
    script.init(&mut newer).await;
    script.produce(&mut older.clone(), 0).await;
    script.add_partitions(&older, &[0], 3).await;
    script.end(&mut older.clone(), true).await;
    script.init_as(&mut older.clone(), (older.id, older.epoch), 5).await;
    script.send(&mut newer, 0).await;
    script.end_fully(&mut newer, true).await;
    script.read(0).await;
}
