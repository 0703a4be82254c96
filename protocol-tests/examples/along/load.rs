//! The writers that run meanwhile.

use std::time::{Duration, Instant};

use ottla::{Producer, Record};
use protocol_tests::Kafka;
use protocol_tests::transact::{self, RunningLoad, Transaction};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Failure;

/// The writers, of one kind or the other.
pub(crate) enum Load {
    /// An idempotent producer of Ottla's, at a steady rate.
    Plain { stop: watch::Sender<bool>, task: JoinHandle<Result<u64, Failure>> },
    /// Transactions of Kafka's own client.
    Transactions(RunningLoad, Vec<Transaction>),
}

impl Load {
    pub(crate) async fn plain(kafka: &Kafka, topic: &str, partitions: usize, rate: u64) -> Result<Self, Failure> {
        let producer = Producer::builder(kafka.bootstrap()).build().await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(send(producer, topic.to_owned(), partitions as u64, rate, stopped));
        Ok(Self::Plain { stop, task })
    }

    pub(crate) fn transactions(kafka: &Kafka, topic: &str, partitions: usize, seed: u64) -> Result<Self, Failure> {
        let load = transact::Load { topic, partitions, producers: 3, seed, pause_ms: 20 };
        Ok(Self::Transactions(kafka.tools().transactional_load(&load)?, Vec::new()))
    }

    /// Describes the progress so far.
    pub(crate) fn so_far(&mut self) -> Result<String, Failure> {
        match self {
            Self::Plain { .. } => Ok(String::new()),
            Self::Transactions(running, ended) => {
                ended.extend(running.ended()?);
                let of = |ending| ended.iter().filter(|transaction| transaction.ending == ending).count();
                use transact::Ending::{Aborted, Committed, Unknown};
                Ok(format!("; {} committed, {} aborted, {} unknown", of(Committed), of(Aborted), of(Unknown)))
            }
        }
    }

    /// Ends the load, and returns all transactions, if there are any.
    pub(crate) async fn finish(self) -> Result<Vec<Transaction>, Failure> {
        match self {
            Self::Plain { stop, task } => {
                stop.send_replace(true);
                let acknowledged = task.await??;
                println!("{acknowledged} records were acknowledged");
                Ok(Vec::new())
            }
            Self::Transactions(running, mut ended) => {
                ended.extend(tokio::task::spawn_blocking(move || running.finish()).await??);
                Ok(ended)
            }
        }
    }
}

async fn send(
    producer: Producer,
    topic: String,
    partitions: u64,
    rate: u64,
    stopped: watch::Receiver<bool>,
) -> Result<u64, Failure> {
    let mut due = Instant::now();
    for n in 0_u64.. {
        if *stopped.borrow() {
            break;
        }
        due = (due + Duration::from_nanos(1_000_000_000 / rate.max(1))).max(Instant::now() - Duration::from_secs(1));
        if due.saturating_duration_since(Instant::now()) > Duration::from_millis(2) {
            tokio::time::sleep_until(due.into()).await;
        }
        let value = format!("{n}-{}", "x".repeat(80));
        let record = Record::to(topic.as_str()).with_partition((n % partitions) as i32).with_value(&value);
        // A record that is not sent is not in the log either, so the readers do not miss it.
        match producer.send(record).await {
            Ok(delivery) => drop(delivery),
            Err(error) => eprintln!("not sent: {error}"),
        }
    }
    producer.flush(Duration::from_secs(150)).await;
    let acknowledged = producer.metrics().records_acknowledged;
    producer.close(Duration::from_secs(10)).await?;
    Ok(acknowledged)
}
