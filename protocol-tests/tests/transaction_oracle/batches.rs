//! Batches and partitions that do not fit the transaction.

use crate::{
    producer::{Producer, Protocol, V1},
    script::Script,
};

/// Sequence numbers in and between transactions.
pub(crate) async fn sequences(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    producer.sequence = 4;
    script.send(&mut producer, 0).await;
    producer.sequence = 0;
    script.send(&mut producer, 1).await;
    producer.sequence = 6;
    script.send(&mut producer, 1).await;
    producer.sequence = 0;
    script.send(&mut producer, 1).await;
    producer.sequence = 2;
    script.send(&mut producer, 1).await;
    script.end_fully(&mut producer, true).await;
    for sequence in [9, 4, 0] {
        producer.sequence = sequence;
        script.send(&mut producer, 1).await;
    }
    script.end_fully(&mut producer, true).await;
    script.read(0).await;
    script.read(1).await;
}

/// Batches without a transactional id, of another producer, and outside of the transaction.
pub(crate) async fn strange_batches(script: &mut Script, protocol: Protocol) {
    let topic = script.topic();
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    if protocol.adds {
        script.add_partitions(&producer, &[0, 1], 3).await;
    }
    let version = protocol.produce;
    let nameless = producer.produce_request(&topic, vec![(0, producer.batch(1, true))]).with_transactional_id(None);
    script.produce_batches(&producer, "without the id", &nameless, version).await;
    let other = Producer { id: producer.id + 7_000, ..producer.clone() };
    let mixed = producer.produce_request(&topic, vec![(0, producer.batch(1, true)), (1, other.batch(1, true))]);
    script.produce_batches(&producer, "of two producers", &mixed, version).await;
    let epochs = vec![(0, producer.batch(1, true)), (1, producer.at_epoch(1).batch(1, true))];
    let epochs = producer.produce_request(&topic, epochs);
    script.produce_batches(&producer, "of two epochs", &epochs, version).await;
    let foreign = other.produce_request(&topic, vec![(0, other.batch(1, true))]);
    script.produce_batches(&producer, "of another producer", &foreign, version).await;
    let unknown = Producer { transactional_id: script.name("unknown"), ..producer.clone() };
    let unknown = unknown.produce_request(&topic, vec![(0, producer.batch(1, true))]);
    script.produce_batches(&producer, "of an unknown id", &unknown, version).await;
    let ahead = producer.at_epoch(3);
    let ahead = ahead.produce_request(&topic, vec![(0, ahead.batch(1, true))]);
    script.produce_batches(&producer, "of a later epoch", &ahead, version).await;
    let plain = producer.produce_request(&topic, vec![(1, producer.batch(1, false))]);
    script.produce_batches(&producer, "outside of the transaction", &plain, version).await;
    producer.sequence = 0;
    script.produce(&mut producer, 0).await;
    let plain = producer.produce_request(&topic, vec![(0, producer.batch(1, false))]);
    script.produce_batches(&producer, "outside of the open transaction", &plain, version).await;
    let missing = producer.produce_request(&topic, vec![(7, producer.batch(1, true)), (1, producer.batch(1, true))]);
    script.produce_batches(&producer, "of an unknown partition", &missing, version).await;
    script.describe("A, open", &producer.transactional_id).await;
    script.end_fully(&mut producer, true).await;
    script.read(0).await;
    script.read(1).await;
}

/// Partitions and groups that were not added, by all versions that tell it in other words.
pub(crate) async fn not_added(script: &mut Script, _protocol: Protocol) {
    let mut producer = Producer::new(script, "A", V1);
    script.init(&mut producer).await;
    for produce in [9, 10, 11] {
        producer.protocol = Protocol { produce, ..V1 };
        script.produce(&mut producer, 0).await;
    }
    for offsets in [3, 4] {
        producer.protocol = Protocol { offsets, ..V1 };
        script.commit_offset(&producer, "group", 5).await;
    }
    script.send(&mut producer, 0).await;
    for produce in [10, 11] {
        let mut other = Producer { sequence: 0, protocol: Protocol { produce, ..V1 }, ..producer.clone() };
        script.produce(&mut other, 1).await;
    }
    script.end_fully(&mut producer, true).await;
    script.produce(&mut producer, 0).await;
    script.read(0).await;
    script.read(1).await;
}

/// AddPartitionsToTxn and AddOffsetsToTxn that are refused.
pub(crate) async fn additions(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    let unknown = Producer { id: 1 << 40, epoch: 0, ..producer.clone() };
    script.add_partitions(&unknown, &[0], 3).await;
    script.add_offsets(&unknown, "group", 4).await;
    script.init(&mut producer).await;
    for version in [0, 3] {
        script.add_partitions(&producer, &[0, 7], version).await;
        script.add_partitions(&producer.at_epoch(1), &[0], version).await;
        script.add_partitions(&Producer { id: producer.id + 7_000, ..producer.clone() }, &[0], version).await;
        script.add_partitions(&Producer { transactional_id: String::new(), ..producer.clone() }, &[0], version).await;
    }
    script.describe("A, with nothing added", &producer.transactional_id).await;
    for version in [0, 4] {
        script.add_offsets(&producer.at_epoch(1), "group", version).await;
        script.add_offsets(&Producer { id: producer.id + 7_000, ..producer.clone() }, "group", version).await;
        script.add_offsets(&Producer { transactional_id: String::new(), ..producer.clone() }, "group", version).await;
    }
    script.add_offsets(&producer, "group", 4).await;
    script.add_offsets(&producer, "group", 4).await;
    script.add_partitions(&producer, &[0, 1], 3).await;
    script.describe("A, with a group and two partitions", &producer.transactional_id).await;
    script.end_fully(&mut producer, true).await;
    script.read(0).await;
}
