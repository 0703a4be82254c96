//! Sends in transactions: `try_send`, results by `on_delivery`.

use std::time::{Duration, Instant};

use ottla::{
    Delivery, ErrorKind, Producer,
    producer::{Transaction, TransactionalProducer, TrySendError},
};
use peers_common::{Clock, Counter, Failure, Outcome, Transactions, Work};

use crate::{properties, record};

pub async fn run(work: &Work) -> Result<Outcome, Failure> {
    if let Some(other) = work.api.as_deref().filter(|api| *api != "callback") {
        return Err(format!("transactions are sent with --api callback only, not {other}").into());
    }
    let results = Counter::default();
    let counted = results.clone();
    let mut producer = Producer::builder(work.bootstrap.as_str())
        .properties(properties(work))
        .on_delivery(move |report| counted.count(report.result.is_ok()))
        .transactional_id("peers-ottla")
        .build()
        .await?;
    producer.partitions_for(&work.topic).await?;
    producer.init().await?;
    pass(work, work.warmup, &mut producer, &results).await?;
    let clock = Clock::start()?;
    let (sent, latencies) = pass(work, work.timed, &mut producer, &results).await?.finish();
    let outcome = clock.stop("ottla", env!("CARGO_PKG_VERSION"), sent)?.with_latencies(latencies);
    producer.close(Duration::from_secs(10)).await?;
    Ok(outcome)
}

async fn pass(
    work: &Work,
    time: Duration,
    producer: &mut TransactionalProducer,
    results: &Counter,
) -> Result<Transactions, Failure> {
    let mut transactions = Transactions::start(work, time);
    while let Some(records) = transactions.next_records() {
        let (before, count) = (results.delivered(), records.end - records.start);
        let transaction = producer.begin().await?;
        for n in records {
            if let Err(refused) = transaction.try_send(record(work, n)) {
                drop(wait(&transaction, refused).await?);
            }
        }
        let since = Instant::now();
        transaction.commit().await.map_err(|failed| failed.error().clone())?;
        transactions.committed(since);
        if results.delivered() - before != count {
            return Err(format!("committed, but not all of {count} records delivered").into());
        }
    }
    Ok(transactions)
}

/// Sends a record that `try_send` refused. It waits only if the buffer is full.
#[cold]
async fn wait(transaction: &Transaction<'_>, refused: TrySendError<'_>) -> Result<Delivery, Failure> {
    match refused.error().kind() {
        ErrorKind::BufferFull => Ok(transaction.send(refused.into_record()).await?),
        _ => Err(refused.error().clone().into()),
    }
}
