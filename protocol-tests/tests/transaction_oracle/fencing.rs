//! Two producers with one transactional id.

use crate::{
    producer::{Producer, Protocol},
    script::Script,
};

/// Another instance takes the id over while a transaction is open, and the older one goes on.
pub(crate) async fn fenced_in_transaction(script: &mut Script, protocol: Protocol) {
    let mut older = Producer::new(script, "A", protocol);
    script.init(&mut older).await;
    script.send(&mut older, 0).await;
    script.send_offset(&older, "group", 5).await;
    let mut newer = Producer::new(script, "B", protocol);
    script.init(&mut newer).await;
    script.until_ended(&older).await;
    script.describe("both, between the two answers", &older.transactional_id).await;
    script.end(&mut older.clone(), true).await;
    script.init(&mut newer).await;
    calls_of_fenced(script, &older).await;
    script.send(&mut newer, 0).await;
    script.send_offset(&newer, "group", 9).await;
    calls_of_fenced(script, &older).await;
    script.end_fully(&mut newer, true).await;
    script.committed("group").await;
    script.read(0).await;
}

/// Another instance takes the id over while no transaction is open.
pub(crate) async fn fenced_between_transactions(script: &mut Script, protocol: Protocol) {
    let mut older = Producer::new(script, "A", protocol);
    script.init(&mut older).await;
    script.send(&mut older, 0).await;
    script.end_fully(&mut older, true).await;
    let mut newer = Producer::new(script, "B", protocol);
    script.init(&mut newer).await;
    calls_of_fenced(script, &older).await;
    script.send(&mut newer, 0).await;
    script.end_fully(&mut newer, false).await;
    script.read(0).await;
}

/// InitProducerId with the producer's own id and epoch aborts the transaction that is open, and has
/// to be repeated.
pub(crate) async fn own_init_in_transaction(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    let own = (producer.id, producer.epoch);
    script.init_as(&mut producer, own, 5).await;
    script.until_ended(&producer).await;
    script.init_as(&mut producer, own, 5).await;
    script.init_as(&mut producer, own, 5).await;
    script.init(&mut producer).await;
    script.send(&mut producer, 0).await;
    script.end_fully(&mut producer, true).await;
    script.read(0).await;
}

/// All requests of a producer that another one has fenced.
async fn calls_of_fenced(script: &mut Script, fenced: &Producer) {
    script.produce(&mut fenced.clone(), 0).await;
    script.produce(&mut fenced.clone(), 1).await;
    for group in ["group", "other group"] {
        script.commit_offset(fenced, group, 6).await;
    }
    for version in [1, 3] {
        script.add_partitions(fenced, &[0, 1], version).await;
    }
    for version in [1, 4] {
        script.add_offsets(fenced, "group", version).await;
    }
    for version in [1, 4, 5] {
        script.end_in(&mut fenced.clone(), true, version).await;
        script.end_in(&mut fenced.clone(), false, version).await;
    }
    for version in [3, 5] {
        script.init_as(&mut fenced.clone(), (fenced.id, fenced.epoch), version).await;
        // The first aborts a transaction of the newer producer.
        script.until_ended(fenced).await;
    }
}
