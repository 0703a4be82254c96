//! Consumes, transforms and produces exactly once: each order has one invoice, although handlers fail
//! and a worker crashes between sending and committing.
//!
//! ```sh
//! cargo run --example exactly_once                                         # on a broker in the process
//! cargo run --example exactly_once -- --bootstrap-server localhost:9092    # on a real cluster
//! ```

mod common;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Args, Failure};
use ottla::{
    Admin, BoxError, Consumer, ConsumerRecord, ErrorCode, Offset, Producer, Record, TopicPartition,
    TransactionalProducer, Worker,
    admin::NewTopic,
    consumer::{IsolationLevel, OffsetReset},
    testkit,
    worker::{NonRetriable, OrderBy, Outputs},
};

const ORDERS: &str = "orders";
const INVOICES: &str = "invoices";
const DEAD: &str = "orders.dead";
const PARTITIONS: i32 = 6;
const HELP: &str =
    "usage: exactly_once [--bootstrap-server HOST:PORT] [--group GROUP] [--id TRANSACTIONAL_ID] [--orders N]
Without an address it starts a broker in the process. It produces orders, and ends when each has an invoice or a dead
letter.";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Failure> {
    let (mut bootstrap, mut group, mut id, mut orders) =
        (None, "invoicing".to_owned(), "invoicing-1".to_owned(), 10_000_u64);
    let mut args = Args::from_env();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-b" | "--bootstrap-server" => bootstrap = Some(args.value(&arg)?),
            "--group" => group = args.value(&arg)?,
            "--id" => id = args.value(&arg)?,
            "--orders" => orders = args.number(&arg)?,
            "-h" | "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(format!("unknown argument {other}\n{HELP}").into()),
        }
    }
    // The cluster ends when it is dropped.
    let mut embedded = None;
    let bootstrap = match bootstrap {
        Some(address) => address,
        None => {
            let cluster = testkit::Cluster::start(testkit::Options::new().brokers(1)).await?;
            let address = cluster.bootstrap();
            embedded = Some(cluster);
            address
        }
    };
    create_topics(&bootstrap).await?;
    // The topics may hold invoices of an earlier run: only those of this one are counted.
    let before = ends(&bootstrap).await?;
    produce(&bootstrap, orders).await?;

    let first = start(&bootstrap, &group, &id, Arc::new(AtomicU64::new(orders / 2))).await?;
    let crashed = wait_for(&first, orders / 4).await;
    // As in a crash, nothing is committed or closed: the transaction that is open has no effect.
    drop(first);
    crashed?;
    println!("the worker crashed after some of its transactions; another one goes on");

    let worker = start(&bootstrap, &group, &id, Arc::new(AtomicU64::new(u64::MAX))).await?;
    let invoices = count(&bootstrap, before, orders).await;
    worker.close(Duration::from_secs(10)).await?;
    let (invoices, letters) = invoices?;
    let metrics = worker.metrics();
    println!(
        "{orders} orders: {invoices} invoices and {letters} dead letters, each once; {} transactions of {:.0} records, \
         {} aborted; commit p99 {} µs",
        metrics.transactions_committed,
        metrics.transaction_records.mean(),
        metrics.transactions_aborted,
        metrics.commit_micros.quantile(0.99),
    );
    drop(embedded);
    Ok(())
}

/// Starts a worker whose handler fails once, after so many orders.
async fn start(bootstrap: &str, group: &str, id: &str, fails_after: Arc<AtomicU64>) -> Result<Worker, Failure> {
    let consumer = Consumer::builder(bootstrap).group(group).auto_offset_reset(OffsetReset::Earliest).build().await?;
    consumer.subscribe([ORDERS])?;
    let producer = TransactionalProducer::builder(bootstrap, id);
    let worker = consumer
        .worker()
        .concurrency(64)
        .order_by(OrderBy::Key)
        .retries(3)
        .exactly_once(producer)
        .transaction_interval(Duration::from_millis(50))
        .dead_letter(DEAD)
        .start(move |order, outputs| {
            let fails_after = fails_after.clone();
            async move { invoice(&order, &outputs, &fails_after).await }
        })?;
    Ok(worker)
}

/// Sends the invoice of an order. There is no wait for its delivery: the transaction commits only when
/// all of its records are acknowledged.
async fn invoice(order: &ConsumerRecord, outputs: &Outputs, fails_after: &AtomicU64) -> Result<(), BoxError> {
    let text = String::from_utf8_lossy(order.value.as_deref().unwrap_or_default());
    // A retry cannot succeed if the text is not a number.
    let cents: u64 = text.parse().map_err(NonRetriable::new)?;
    let key = order.key.as_deref().unwrap_or_default();
    outputs.send(Record::to(INVOICES).with_key(key).with_value(format!("{cents} cents"))).await?;
    if fails_after.fetch_sub(1, Ordering::Relaxed) == 1 {
        return Err("the handler fails after it has sent: its invoice is not visible, and is made again".into());
    }
    Ok(())
}

async fn produce(bootstrap: &str, orders: u64) -> Result<(), Failure> {
    let producer = Producer::builder(bootstrap).build().await?;
    for n in 0..orders {
        let cents = if n % 1000 == 999 { "free".to_owned() } else { (n * 7).to_string() };
        // The delivery may be dropped: the close waits for it, and reports failures.
        let _delivery = producer.send(Record::to(ORDERS).with_key(format!("order-{n}")).with_value(&cents)).await?;
    }
    producer.close(Duration::from_secs(10)).await?;
    Ok(())
}

/// Waits until the worker has committed so many records.
async fn wait_for(worker: &Worker, records: u64) -> Result<(), Failure> {
    loop {
        tokio::select! {
            ended = worker.wait() => return Ok(ended?),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        if worker.metrics().records_processed >= records {
            return Ok(());
        }
    }
}

fn outputs() -> impl Iterator<Item = TopicPartition> {
    let invoices = (0..PARTITIONS).map(|partition| TopicPartition::new(INVOICES, partition));
    invoices.chain([TopicPartition::new(DEAD, 0)])
}

async fn ends(bootstrap: &str) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let reader = Consumer::builder(bootstrap).build().await?;
    Ok(reader.end_offsets(outputs()).await?.into_iter().collect())
}

/// Reads committed invoices and dead letters until each order has one. Returns their numbers.
async fn count(bootstrap: &str, from: BTreeMap<TopicPartition, i64>, orders: u64) -> Result<(u64, u64), Failure> {
    let reader = Consumer::builder(bootstrap).isolation_level(IsolationLevel::ReadCommitted).build().await?;
    reader.assign(from.into_iter().map(|(partition, end)| (partition, Offset::At(end))))?;
    let mut results: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let (mut invoices, mut letters) = (0, 0);
    while (results.len() as u64) < orders {
        for record in reader.poll(Duration::from_secs(1)).await?.iter() {
            *results.entry(record.key().unwrap_or_default().to_vec()).or_default() += 1;
            *(if &**record.topic() == DEAD { &mut letters } else { &mut invoices }) += 1;
        }
    }
    match results.iter().find(|(_, results)| **results != 1) {
        Some((order, results)) => Err(format!("{} has {results} results", String::from_utf8_lossy(order)).into()),
        None => Ok((invoices, letters)),
    }
}

/// Creates the topics, unless they exist.
async fn create_topics(bootstrap: &str) -> Result<(), Failure> {
    let admin = Admin::builder(bootstrap).build().await?;
    let topics = [NewTopic::new(ORDERS, PARTITIONS), NewTopic::new(INVOICES, PARTITIONS), NewTopic::new(DEAD, 1)];
    for created in admin.create_topics(topics).await? {
        match created.result {
            Err(error) if error.code() != Some(ErrorCode::TOPIC_ALREADY_EXISTS) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
