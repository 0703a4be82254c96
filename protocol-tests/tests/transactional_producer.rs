//! Ottla's transactional producer against a real broker, in the protocol of the broker's version.
#![cfg(unix)]

use std::time::Duration;

use ottla::{
    Consumer, ErrorKind, Offset, Record, TopicPartition, TransactionalProducer,
    consumer::{GroupProtocol, IsolationLevel, OffsetReset},
    producer::CommitError,
};
use protocol_tests::{Kafka, at_least, needs, shared, unique};

type Outcome = Result<(), Box<dyn std::error::Error>>;

async fn stage(partitions: i32) -> Result<Option<(&'static Kafka, String)>, Box<dyn std::error::Error>> {
    if !needs("3.0", "producer ids, which transactions need") {
        return Ok(None);
    }
    let Some(kafka) = shared().await else { return Ok(None) };
    let topic = unique("transactional");
    kafka.create_topic(&topic, partitions, 1, &[]).await?;
    Ok(Some((kafka, topic)))
}

async fn producer(kafka: &Kafka, id: &str) -> ottla::Result<TransactionalProducer> {
    TransactionalProducer::builder(kafka.bootstrap(), id).build().await
}

/// Returns the committed values of a partition, up to its last stable offset.
async fn committed(kafka: &Kafka, topic: &str, partition: i32) -> ottla::Result<Vec<String>> {
    let builder = Consumer::builder(kafka.bootstrap()).isolation_level(IsolationLevel::ReadCommitted);
    let consumer = builder.build().await?;
    let place = TopicPartition::new(topic, partition);
    consumer.assign([(place.clone(), Offset::Beginning)])?;
    let end = consumer.end_offsets([place.clone()]).await?[&place];
    let mut values = Vec::new();
    for _ in 0..600 {
        if consumer.position(&place).is_some_and(|position| position >= end) || end == 0 {
            break;
        }
        for record in &consumer.poll(Duration::from_millis(100)).await? {
            values.push(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
        }
    }
    consumer.close(Duration::from_secs(10)).await?;
    Ok(values)
}

fn text<E: std::fmt::Debug>(error: E) -> String {
    format!("{error:?}")
}

#[tokio::test]
async fn only_committed_transactions_become_visible() -> Outcome {
    let Some((kafka, topic)) = stage(2).await? else { return Ok(()) };
    let mut producer = producer(kafka, &topic).await?;
    let mut expected = Vec::new();
    for round in 0..30 {
        let transaction = producer.begin().await?;
        for record in 0..5 {
            let value = format!("{round}-{record}");
            for partition in [0, 1] {
                let record = Record::to(topic.as_str()).with_partition(partition).with_value(value.clone());
                drop(transaction.send(record).await?);
            }
            if round % 3 != 0 {
                expected.push(value);
            }
        }
        match round % 6 {
            0 => transaction.abort().await?,
            3 => drop(transaction),
            _ => transaction.commit().await.map_err(text)?,
        }
    }
    // An empty transaction and an initialized producer cost nothing.
    producer.begin().await?.commit().await.map_err(text)?;
    producer.init().await?;
    producer.close(Duration::from_secs(10)).await?;
    for partition in [0, 1] {
        assert_eq!(committed(kafka, &topic, partition).await?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn output_and_offsets_commit_together() -> Outcome {
    let Some((kafka, topic)) = stage(1).await? else { return Ok(()) };
    let output = unique("output");
    kafka.create_topic(&output, 1, 1, &[]).await?;
    let mut first = producer(kafka, &topic).await?;
    let transaction = first.begin().await?;
    for number in 0..100 {
        drop(transaction.send(Record::to(topic.as_str()).with_value(number.to_string())).await?);
    }
    transaction.commit().await.map_err(text)?;
    let protocols = [Some(GroupProtocol::Classic), at_least("4.0").then_some(GroupProtocol::Consumer)];
    for (round, protocol) in protocols.into_iter().flatten().enumerate() {
        let group = unique("copy");
        let place = TopicPartition::new(topic.as_str(), 0);
        let consumer = Consumer::builder(kafka.bootstrap())
            .group(group.as_str())
            .group_protocol(protocol)
            .auto_commit(false)
            .auto_offset_reset(OffsetReset::Earliest)
            .isolation_level(IsolationLevel::ReadCommitted)
            .build()
            .await?;
        consumer.subscribe([topic.as_str()])?;
        let mut copied = 0;
        let mut rounds = 0;
        while copied < 100 {
            let records = consumer.poll(Duration::from_secs(30)).await?;
            let Some(last) = records.iter().last().map(|record| record.offset()) else { panic!("no records") };
            let transaction = first.begin().await?;
            for record in &records {
                let copy = Record::to(output.as_str()).with_value(record.value().unwrap_or_default().to_vec());
                drop(transaction.send(copy).await?);
            }
            transaction.send_offsets([(place.clone(), last + 1)], &consumer.group_metadata()?).await?;
            rounds += 1;
            let count = records.len();
            drop(records);
            if rounds == 1 {
                // Nothing of it counts: the records come again.
                transaction.abort().await?;
                consumer.rewind_to_committed([&place]).await?;
            } else {
                transaction.commit().await.map_err(text)?;
                copied += count;
            }
        }
        let at = consumer.committed([place.clone()]).await?;
        assert!(at[&place].as_ref().is_some_and(|at| at.offset >= 100), "{protocol:?}: {at:?}");
        consumer.close(Duration::from_secs(10)).await?;
        let values = committed(kafka, &output, 0).await?;
        let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(values[round * 100..], expected, "{protocol:?}");
    }
    Ok(())
}

#[tokio::test]
async fn second_producer_fences_first() -> Outcome {
    let Some((kafka, topic)) = stage(1).await? else { return Ok(()) };
    let mut first = producer(kafka, &topic).await?;
    let transaction = first.begin().await?;
    drop(transaction.send(Record::to(topic.as_str()).with_value("first")).await?);
    transaction.flush(Duration::from_secs(30)).await;
    let mut second = producer(kafka, &topic).await?;
    let next = second.begin().await?;
    drop(next.send(Record::to(topic.as_str()).with_value("second")).await?);
    next.commit().await.map_err(text)?;
    match transaction.commit().await {
        Err(CommitError::Aborted(error)) => assert!(error.is_fatal(), "{error:?}"),
        other => panic!("{other:?}"),
    }
    let error = first.begin().await.map(drop).expect_err("the producer is fenced");
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
    assert_eq!(committed(kafka, &topic, 0).await?, ["second"]);
    Ok(())
}

#[tokio::test]
async fn overdue_transaction_is_aborted() -> Outcome {
    let Some((kafka, topic)) = stage(1).await? else { return Ok(()) };
    let builder = TransactionalProducer::builder(kafka.bootstrap(), topic.as_str());
    let mut producer = builder.transaction_timeout(Duration::from_secs(1)).build().await?;
    let transaction = producer.begin().await?;
    drop(transaction.send(Record::to(topic.as_str()).with_value("late")).await?);
    transaction.flush(Duration::from_secs(30)).await;
    // The coordinator looks for old transactions every ten seconds.
    tokio::time::sleep(Duration::from_secs(13)).await;
    match transaction.commit().await {
        Err(CommitError::Aborted(error)) => assert!(error.is_fatal() || error.is_abortable(), "{error:?}"),
        other => panic!("{other:?}"),
    }
    match producer.begin().await {
        Ok(transaction) => {
            drop(transaction.send(Record::to(topic.as_str()).with_value("next")).await?);
            transaction.commit().await.map_err(text)?;
            assert_eq!(committed(kafka, &topic, 0).await?, ["next"]);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}"),
    }
    Ok(())
}
