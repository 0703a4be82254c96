//! Calls a handler for each record: orders are billed, and records that cannot be billed go to the
//! dead letters.
//!
//! ```sh
//! cargo run --example worker                                         # on a broker in the process
//! cargo run --example worker -- --bootstrap-server localhost:9092    # on a real one; Ctrl-C ends it
//! ```

mod common;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Args, Failure};
use ottla::{
    Admin, BoxError, Consumer, ConsumerRecord, ErrorCode, Producer, Record,
    admin::NewTopic,
    consumer::OffsetReset,
    testkit,
    worker::{NonRetriable, OrderBy},
};

const ORDERS: &str = "orders";
const DEAD: &str = "orders.dead";
const HELP: &str = "usage: worker [--bootstrap-server HOST:PORT] [--group GROUP] [--concurrency N] [--orders N]
Without an address it starts a broker in the process. It ends when the orders that it produced are handled, or on Ctrl-C.";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Failure> {
    let (mut bootstrap, mut group, mut concurrency, mut orders) = (None, "billing".to_owned(), 64, 1_000_u64);
    let mut args = Args::from_env();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-b" | "--bootstrap-server" => bootstrap = Some(args.value(&arg)?),
            "--group" => group = args.value(&arg)?,
            "--concurrency" => concurrency = args.number(&arg)?,
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
    let producer = Producer::builder(&bootstrap).build().await?;

    let consumer = Consumer::builder(&bootstrap).group(group).auto_offset_reset(OffsetReset::Earliest).build().await?;
    consumer.subscribe([ORDERS])?;
    let billed = Arc::new(AtomicU64::new(0));
    let handler = billed.clone();
    let worker = consumer
        .worker()
        .concurrency(concurrency)
        .order_by(OrderBy::Key) // orders of one customer one after the other, those of different customers in parallel
        .retries(3)
        .handler_timeout(Duration::from_secs(5))
        .dead_letter(&producer, DEAD)
        .shutdown(async {
            if let Err(error) = tokio::signal::ctrl_c().await {
                eprintln!("Ctrl-C cannot be received: {error}");
                std::future::pending().await
            }
        })
        .start(move |record| {
            let billed = handler.clone();
            async move { bill(&record, &billed).await }
        })?;

    for n in 0..orders {
        let customer = format!("customer-{}", n % 97);
        let cents = if n % 100 == 99 { "free".to_owned() } else { (n * 7).to_string() };
        // The delivery may be dropped: the close waits for it, and reports failures.
        let _delivery = producer.send(Record::to(ORDERS).with_key(&customer).with_value(&cents)).await?;
    }

    // All orders are handled when each was billed or sent to the dead letters. Until then this
    // prints the progress.
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let ended = loop {
        tokio::select! {
            ended = worker.wait() => break ended,
            _ = tick.tick() => {}
        }
        let metrics = worker.metrics();
        if metrics.records_processed + metrics.records_dead_lettered >= orders {
            break worker.close(Duration::from_secs(10)).await;
        }
        if let Some(oldest) = worker.status().running.first() {
            let (at, since) = (oldest.offset, oldest.for_how_long.as_millis());
            println!(
                "{} billed; the oldest handler is at {}@{at} for {since} ms",
                metrics.records_processed, oldest.partition
            );
        }
    };
    ended?;
    producer.close(Duration::from_secs(10)).await?;
    let metrics = worker.metrics();
    println!(
        "{} orders billed ({} cents), {} dead letters, {} attempts failed; p99 of the handler {} µs",
        metrics.records_processed,
        billed.load(Ordering::Relaxed),
        metrics.records_dead_lettered,
        metrics.attempts_failed,
        metrics.handler_micros.quantile(0.99),
    );
    drop(embedded);
    Ok(())
}

/// Stands for the work of a real program: write to a database, call a service …
async fn bill(record: &ConsumerRecord, billed: &AtomicU64) -> Result<(), BoxError> {
    let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
    // A retry cannot succeed if the text is not a number.
    let cents: u64 = text.parse().map_err(NonRetriable::new)?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    billed.fetch_add(cents, Ordering::Relaxed);
    Ok(())
}

/// Creates the topics, unless they exist.
async fn create_topics(bootstrap: &str) -> Result<(), Failure> {
    let admin = Admin::builder(bootstrap).build().await?;
    for created in admin.create_topics([NewTopic::new(ORDERS, 6), NewTopic::new(DEAD, 1)]).await? {
        match created.result {
            Err(error) if error.code() != Some(ErrorCode::TOPIC_ALREADY_EXISTS) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
