//! The beginner's tutorial: produces words to `myTopic`, waits for their acknowledgements, and
//! reads them in a group.
//!
//! ```sh
//! cargo run --example quickstart                                         # on a broker in the process
//! cargo run --example quickstart -- --bootstrap-server localhost:9092    # on a real one
//! ```

mod common;

use std::{collections::HashSet, process::ExitCode, time::Duration};

use common::{Args, Failure};
use ottla::{Admin, Consumer, ErrorCode, Producer, Record, admin::NewTopic, consumer::OffsetReset, testkit};

const TOPIC: &str = "myTopic";
const WORDS: [&str; 7] = ["Welcome", "to", "the", "Ottla", "Kafka", "Rust", "client"];

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Failure> {
    let mut bootstrap = None;
    let mut args = Args::from_env();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-b" | "--bootstrap-server" => bootstrap = Some(args.value(&arg)?),
            "-h" | "--help" => {
                println!(
                    "usage: quickstart [--bootstrap-server HOST:PORT]\nWithout an address it starts a broker in the process."
                );
                return Ok(());
            }
            other => return Err(format!("unknown argument {other}; see --help").into()),
        }
    }

    // Starts a cluster in the process, unless an address was given. It ends when it is dropped.
    let mut embedded = None;
    let bootstrap = match bootstrap {
        Some(address) => address,
        None => {
            let cluster = testkit::Cluster::start(testkit::Options::new().brokers(1)).await?;
            let address = cluster.bootstrap();
            println!("Started a broker in the process at {address}");
            embedded = Some(cluster);
            address
        }
    };

    create_topic(&bootstrap).await?;
    let produced = produce(&bootstrap).await?;
    // The timeout is for a broker that goes away meanwhile: a consumer waits for records without a
    // limit.
    match tokio::time::timeout(Duration::from_secs(60), consume(&bootstrap, produced)).await {
        Ok(done) => done?,
        Err(_) => return Err("the words were not read within a minute".into()),
    }
    drop(embedded);
    Ok(())
}

/// Creates the topic, unless it exists.
async fn create_topic(bootstrap: &str) -> Result<(), Failure> {
    let admin = Admin::builder(bootstrap).build().await?;
    for created in admin.create_topics([NewTopic::new(TOPIC, 1)]).await? {
        match created.result {
            Ok(_) => println!("Created {TOPIC}"),
            Err(error) if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sends the words without waiting for each, prints the reports as they arrive, and returns the
/// positions of the words in the log.
async fn produce(bootstrap: &str) -> Result<HashSet<(i32, i64)>, Failure> {
    let producer = Producer::builder(bootstrap).build().await?;

    let mut reports = producer.delivery_reports();
    let printer = tokio::spawn(async move {
        let mut places = HashSet::new();
        while let Some(report) = reports.next().await {
            match report.result {
                Ok(at) => {
                    let offset = at.offset.unwrap_or(-1);
                    println!("Delivered message to {}[{}]@{offset}", at.topic, at.partition);
                    places.insert((at.partition, offset));
                }
                Err(error) => println!("Delivery failed: {error} ({})", error.advice()),
            }
        }
        places
    });

    for word in WORDS {
        // The record is in the buffer when `send` returns; its report comes later. The delivery
        // itself may be dropped.
        let _delivery = producer.send(Record::to(TOPIC).with_value(word)).await?;
    }

    let outstanding = producer.flush(Duration::from_secs(15)).await;
    producer.close(Duration::from_secs(10)).await?;
    // The last reports were made by the close; the stream ends after them.
    let places = printer.await?;
    if outstanding > 0 || places.len() != WORDS.len() {
        return Err(format!("{} of {} words were acknowledged", places.len(), WORDS.len()).into());
    }
    Ok(places)
}

/// Prints messages until each of the words was read.
async fn consume(bootstrap: &str, mut expected: HashSet<(i32, i64)>) -> Result<(), Failure> {
    let consumer =
        Consumer::builder(bootstrap).group("myGroup").auto_offset_reset(OffsetReset::Earliest).build().await?;
    consumer.subscribe([TOPIC, "^aRegex.*[Tt]opic"])?;

    while !expected.is_empty() {
        match consumer.recv().await {
            Some(Ok(message)) => {
                let value = message.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                println!("Message on {}[{}]@{}: {value}", message.topic, message.partition, message.offset);
                if &*message.topic == TOPIC {
                    expected.remove(&(message.partition, message.offset));
                }
            }
            // The consumer recovers from an error by itself; after a fatal one `recv` returns
            // `None`.
            Some(Err(error)) => println!("Consumer error: {error} ({})", error.advice()),
            None => return Err("the consumer has ended".into()),
        }
    }

    consumer.close(Duration::from_secs(10)).await?;
    Ok(())
}
