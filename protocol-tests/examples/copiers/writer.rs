//! The writer of the first topic, and its part of the history.

use std::time::{Duration, Instant};

use history::Event;
use ottla::{Producer, Record, producer::Acks};
use tokio::sync::watch;

use crate::Failure;

/// Writes numbers to all partitions in turn, until it is stopped. A record's key is its offset, as
/// far as each is written once and in order; its value has the partition too. Returns the events.
pub(crate) async fn write(
    bootstrap: String,
    topic: String,
    partitions: usize,
    rate: u64,
    stopped: watch::Receiver<bool>,
) -> Result<Vec<Event>, Failure> {
    let producer =
        Producer::builder(&bootstrap).acks(Acks::All).delivery_timeout(Duration::from_secs(600)).build().await?;
    let (client, mut events, mut sends) = ("writer".to_owned(), Vec::new(), Vec::new());
    let started = Instant::now();
    for n in 0_u64.. {
        if *stopped.borrow() {
            break;
        }
        let due = started + Duration::from_nanos(n.saturating_mul(1_000_000_000) / rate);
        if due.saturating_duration_since(Instant::now()) > Duration::from_millis(2) {
            tokio::time::sleep_until(due.into()).await;
        }
        let partition = n % partitions as u64;
        let (key, partition) = ((n / partitions as u64).to_string(), i32::try_from(partition)?);
        let value = format!("{partition}:{key}");
        let record = Record::to(topic.as_str()).with_partition(partition).with_key(&key).with_value(&value);
        sends.push((value.clone(), producer.send(record).await?));
        events.push(Event::Send {
            client: client.clone(),
            topic: topic.clone(),
            partition: Some(partition),
            value,
            key: None,
            transaction: None,
        });
    }
    producer.flush(Duration::from_secs(600)).await;
    for (value, delivery) in sends {
        let at = delivery.await?;
        let (client, topic, partition) = (client.clone(), topic.clone(), at.partition);
        let offset = at.offset.unwrap_or(-1);
        events.push(Event::Acknowledged { client, topic, partition, offset, value });
    }
    producer.close(Duration::from_secs(60)).await?;
    Ok(events)
}
