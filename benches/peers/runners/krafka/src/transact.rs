//! Sends in transactions through krafka: `enqueue`; every handle is awaited after the commit.

use std::time::{Duration, Instant};

use krafka::producer::{ProducerBuilder, TransactionalProducer};
use peers_common::{Clock, Failure, Outcome, Transactions, Work};

use crate::{VERSION, look_at, record};

pub async fn run(work: &Work, builder: ProducerBuilder) -> Result<Outcome, Failure> {
    let producer = builder.build_transactional("peers-krafka").await?;
    pass(work, work.warmup, &producer).await?;
    let clock = Clock::start()?;
    let (sent, latencies) = pass(work, work.timed, &producer).await?.finish();
    let outcome = clock.stop("krafka", VERSION, sent)?.with_latencies(latencies);
    producer.close().await?;
    Ok(outcome)
}

async fn pass(work: &Work, time: Duration, producer: &TransactionalProducer) -> Result<Transactions, Failure> {
    let mut transactions = Transactions::start(work, time);
    let mut handles = Vec::new();
    while let Some(records) = transactions.next_records() {
        producer.begin()?;
        for n in records {
            handles.push(producer.enqueue(record(work, n)).await?);
        }
        let since = Instant::now();
        producer.commit().await?;
        transactions.committed(since);
        for handle in handles.drain(..) {
            look_at(handle).await?;
        }
    }
    Ok(transactions)
}
