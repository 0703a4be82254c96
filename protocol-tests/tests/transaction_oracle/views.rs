//! Lists of transactions, and the requests that brokers send each other about them.

use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, ListTransactionsRequest,
    add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
};

use crate::{
    producer::{Producer, Protocol, V1, V2},
    script::{Script, error, text},
};

/// DescribeTransactions and ListTransactions with each filter.
pub(crate) async fn lists(script: &mut Script, protocol: Protocol) {
    let mut open = Producer { transactional_id: script.name("open"), ..Producer::new(script, "A", protocol) };
    let mut ended = Producer { transactional_id: script.name("ended"), ..Producer::new(script, "B", protocol) };
    let mut idle = Producer { transactional_id: script.name("idle"), ..Producer::new(script, "C", protocol) };
    for producer in [&mut open, &mut ended, &mut idle] {
        script.init(producer).await;
    }
    script.send(&mut open, 0).await;
    script.send(&mut ended, 1).await;
    script.end_fully(&mut ended, true).await;
    for (what, id) in [("nothing", String::new()), ("an unknown id", script.name("unknown"))] {
        script.describe(what, &id).await;
    }
    let all = ListTransactionsRequest::default;
    let states = |states: &[&str]| all().with_state_filters(states.iter().map(|state| text(state)).collect());
    for (what, request) in [
        ("all", all()),
        ("Ongoing", states(&["Ongoing"])),
        ("two states", states(&["Empty", "CompleteCommit"])),
        ("an unknown state", states(&["Ongoing", "ongoing", "Dead", "PrepareEpochFence", "Never"])),
        ("one producer", all().with_producer_id_filters(vec![ended.id.into()])),
        ("a producer and a state", states(&["Ongoing"]).with_producer_id_filters(vec![ended.id.into()])),
    ] {
        script.list(what, &request, 0).await;
    }
    for (what, millis) in [("of any age", -1), ("of some age", 0), ("of an hour", 3_600_000)] {
        script.list(what, &states(&["Ongoing", "CompleteCommit"]).with_duration_filter(millis), 1).await;
        script.list(what, &states(&["Empty"]).with_duration_filter(millis), 1).await;
    }
    script.end(&mut open, false).await;
}

/// ListTransactions with a pattern (KIP-1152).
pub(crate) async fn patterns(script: &mut Script) {
    let mut producer = Producer::new(script, "A", V1);
    script.init(&mut producer).await;
    let prefix = script.name("");
    for (what, pattern) in [
        ("no pattern", String::new()),
        ("a prefix", format!("{prefix}.*")),
        ("a part", "tx".to_owned()),
        ("two words", format!("{prefix}(tx|other)")),
        ("a broken pattern", "(".to_owned()),
    ] {
        let request = ListTransactionsRequest::default().with_transactional_id_pattern(Some(text(&pattern)));
        script.list(what, &request.with_duration_filter(-1), 2).await;
    }
}

/// AddPartitionsToTxn 4 and 5, by which leaders add partitions or ask for them (KIP-890).
pub(crate) async fn brokers(script: &mut Script) {
    let mut producer = Producer::new(script, "A", V2);
    script.init(&mut producer).await;
    let unknown = Producer { id: producer.id + 7_000, ..producer.clone() };
    for version in [4, 5] {
        let mut codes = Vec::new();
        for (of, verify_only, partition) in [
            (&producer, true, 0),
            (&producer, false, 0),
            (&producer, true, 0),
            (&producer, true, 1),
            (&producer.at_epoch(3), true, 0),
            (&producer.at_epoch(3), false, 0),
            (&unknown, true, 0),
            (&unknown, false, 0),
        ] {
            let topic = AddPartitionsToTxnTopic::default();
            let topic = topic.with_name(text(&script.topic()).into()).with_partitions(vec![partition]);
            let transaction = AddPartitionsToTxnTransaction::default()
                .with_transactional_id(text(&of.transactional_id).into())
                .with_producer_id(of.id.into())
                .with_producer_epoch(of.epoch)
                .with_verify_only(verify_only)
                .with_topics(vec![topic]);
            let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
            let response = script.connection.call(&request, version).await;
            let topics = response.results_by_transaction.iter().flat_map(|transaction| &transaction.topic_results);
            let partitions = topics.flat_map(|topic| &topic.results_by_partition);
            codes.extend(partitions.map(|result| error(result.partition_error_code)));
            if response.error_code != 0 {
                codes.push(format!("{} for all", error(response.error_code)));
            }
        }
        script.note(format!("AddPartitionsToTxn {version}"), codes.join(", "));
        script.end_fully(&mut producer, false).await;
    }
}
