//! Produces increasing numbers and prints the result of each as a line of JSON: Kafka's
//! `VerifiableProducer`, for its system tests. Events go to standard output, everything else to
//! standard error; SIGTERM drains the producer and ends the program.
//!
//! ```sh
//! verifiable_producer --bootstrap-server localhost:9092 --topic numbers --max-messages 1000 --throughput 100
//! ```
//! With `--transactional-id`, which Kafka's program does not have, the numbers are sent in
//! transactions, and a line `transaction_ended` tells the outcome of each. `producer_send_success`
//! then says that a record is in the log, not that its transaction is committed.

mod common;

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use common::{
    Args, Failure,
    verifiable::{self, Event},
};
use ottla::{
    Error, Producer, Record, Transaction, TransactionalProducer,
    producer::{Acks, CommitError, DeliveryReport, ProducerBuilder},
};

const HELP: &str = "usage: verifiable_producer --bootstrap-server HOST:PORT[,...] --topic TOPIC
  --max-messages N         number of records; -1 (the default): no limit
  --throughput N           records a second; -1 (the default): as fast as possible
  --acks 0|1|-1            default -1
  --message-create-time MS the first record's timestamp; default: the time of sending
  --value-prefix N         values are N.0, N.1, … instead of 0, 1, …
  --repeating-keys N       keys are 0 to N-1, repeatedly; default: no keys
  --transactional-id ID    sends transactions under this id
  --transaction-size N     records of a transaction; default 100
  --command-config FILE    file of properties; they override this program's retries=0";

struct Options {
    bootstrap: String,
    topic: String,
    max_messages: Option<u64>,
    throughput: Option<u64>,
    acks: Acks,
    create_time: Option<i64>,
    value_prefix: Option<i64>,
    repeating_keys: Option<u64>,
    transactional_id: Option<String>,
    transaction_size: u64,
    properties: Vec<(String, String)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    verifiable::main(HELP, parse, run).await
}

fn parse(args: &mut Args) -> Result<Option<Options>, Failure> {
    let (mut bootstrap, mut topic) = (None, None);
    let mut options = Options {
        bootstrap: String::new(),
        topic: String::new(),
        max_messages: None,
        throughput: None,
        acks: Acks::All,
        create_time: None,
        value_prefix: None,
        repeating_keys: None,
        transactional_id: None,
        transaction_size: 100,
        properties: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bootstrap-server" | "--broker-list" => bootstrap = Some(args.value(&arg)?),
            "--topic" => topic = Some(args.value(&arg)?),
            "--max-messages" => options.max_messages = u64::try_from(args.number::<i64>(&arg)?).ok(),
            "--throughput" => options.throughput = u64::try_from(args.number::<i64>(&arg)?).ok(),
            "--acks" => {
                options.acks = match args.number::<i16>(&arg)? {
                    0 => Acks::None,
                    1 => Acks::Leader,
                    -1 => Acks::All,
                    other => return Err(format!("--acks is 0, 1 or -1, not {other}").into()),
                }
            }
            "--message-create-time" => options.create_time = Some(args.number(&arg)?).filter(|at| *at != -1),
            "--value-prefix" => options.value_prefix = Some(args.number(&arg)?),
            "--repeating-keys" => options.repeating_keys = Some(args.number(&arg)?).filter(|keys| *keys > 0),
            "--transactional-id" => options.transactional_id = Some(args.value(&arg)?),
            "--transaction-size" => options.transaction_size = args.number::<u64>(&arg)?.max(1),
            "--command-config" | "--producer.config" => {
                options.properties = verifiable::properties(&args.value(&arg)?)?;
            }
            "-h" | "--help" => return Ok(None),
            other => return Err(format!("unknown argument {other}\n{HELP}").into()),
        }
    }
    options.bootstrap = bootstrap.ok_or("--bootstrap-server is missing")?;
    options.topic = topic.ok_or("--topic is missing")?;
    Ok(Some(options))
}

/// The counters for the summary, and the first event that could not be written.
#[derive(Default)]
struct Told {
    acked: AtomicU64,
    broken: Mutex<Option<io::Error>>,
}

impl Told {
    fn print(&self, event: Event) {
        if let Err(error) = event.print() {
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn broken(&self) -> Option<io::Error> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn error(&self, topic: &str, key: Option<&str>, value: &str, error: &Error) {
        // Java's program prints the class of the exception; here it is the broker's code, or the
        // kind if there is no code.
        let exception = error.code().map_or_else(|| format!("{:?}", error.kind()), |code| code.to_string());
        let event = Event::new("producer_send_error").text("key", key).text("value", Some(value));
        let event = event.text("topic", Some(topic)).text("exception", Some(&exception));
        self.print(event.text("message", Some(&error.to_string())));
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    let told = Arc::new(Told::default());
    let names = Names { prefix: options.value_prefix, keys: options.repeating_keys };
    let builder = builder(&options, names, &told);
    let mut numbers = Numbers { options, names, told: told.clone(), started: Instant::now(), sent: 0 };
    let closed = match numbers.options.transactional_id.clone() {
        None => {
            let producer = builder.build().await?;
            Event::new("startup_complete").print()?;
            tokio::select! {
                biased;
                () = verifiable::terminated() => {}
                sent = numbers.send_all(&producer) => sent?,
            }
            producer.close(Duration::from_secs(120)).await
        }
        Some(id) => {
            let mut producer = builder.transactional_id(id).build().await?;
            Event::new("startup_complete").print()?;
            tokio::select! {
                biased;
                () = verifiable::terminated() => {}
                sent = numbers.send_transactions(&mut producer) => sent?,
            }
            producer.close(Duration::from_secs(120)).await
        }
    };
    Event::new("shutdown_complete").print()?;
    numbers.print_summary()?;
    Ok(closed?)
}

fn builder(options: &Options, names: Names, told: &Arc<Told>) -> ProducerBuilder {
    let (report, topic) = (told.clone(), options.topic.clone());
    let on_delivery = move |delivered: &DeliveryReport| {
        let number = delivered.tag.unwrap_or_default();
        let (key, value) = (names.key(number), names.value(number));
        match &delivered.result {
            Ok(at) => {
                report.acked.fetch_add(1, Relaxed);
                let event = Event::new("producer_send_success").text("key", key.as_deref()).text("value", Some(&value));
                let event = event.raw("offset", at.offset.unwrap_or(-1)).text("topic", Some(&at.topic));
                report.print(event.raw("partition", at.partition));
            }
            Err(error) => report.error(&topic, key.as_deref(), &value, error),
        }
    };
    let mut builder = Producer::builder(&options.bootstrap).acks(options.acks).on_delivery(on_delivery);
    // As in Kafka's own program, nothing is retried unless the user asks for it. Transactions need
    // retries.
    let is_given = |name: &str| name == "retries" || name == "enable.idempotence";
    if options.transactional_id.is_none() && !options.properties.iter().any(|(name, _)| is_given(name)) {
        builder = builder.retries(0);
    }
    builder.properties(options.properties.iter().cloned())
}

/// The numbers that are sent.
struct Numbers {
    options: Options,
    names: Names,
    told: Arc<Told>,
    started: Instant,
    sent: u64,
}

impl Numbers {
    fn are_left(&self) -> bool {
        self.options.max_messages.is_none_or(|max| self.sent < max)
    }

    async fn send_all(&mut self, producer: &Producer) -> Result<(), Failure> {
        while self.are_left() {
            self.send_next(async |record| producer.send(record).await.map(drop)).await?;
        }
        Ok(())
    }

    async fn send_transactions(&mut self, producer: &mut TransactionalProducer) -> Result<(), Failure> {
        while self.are_left() {
            let transaction = match producer.begin().await {
                Ok(transaction) => transaction,
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(error) => {
                    eprintln!("the transaction does not begin yet: {error}");
                    continue;
                }
            };
            let (number, first) = (transaction.number(), self.sent);
            while self.are_left() && self.sent - first < self.options.transaction_size {
                self.send_next(async |record| transaction.send(record).await.map(drop)).await?;
            }
            let event = Event::new("transaction_ended").raw("transaction", number).raw("records", self.sent - first);
            match commit(transaction).await {
                Ok(()) => event.text("outcome", Some("committed")).print()?,
                Err((outcome, error)) => {
                    let event = event.text("outcome", Some(outcome)).text("message", Some(&error.to_string()));
                    event.print()?;
                    if error.is_fatal() {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends the next number, and waits until the one after it is due.
    async fn send_next(&mut self, send: impl AsyncFnOnce(Record<'_>) -> ottla::Result<()>) -> Result<(), Failure> {
        if let Some(error) = self.told.broken() {
            return Err(error.into());
        }
        let (key, value) = (self.names.key(self.sent), self.names.value(self.sent));
        let mut record = Record::to(&self.options.topic).with_value(&value).with_tag(self.sent);
        if let Some(key) = &key {
            record = record.with_key(key);
        }
        if let Some(at) = self.options.create_time {
            let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
            record = record.with_timestamp_millis(at.saturating_add(elapsed));
        }
        let sent = send(record).await;
        self.sent += 1;
        if let Err(error) = sent {
            if error.is_fatal() {
                return Err(error.into());
            }
            self.told.error(&self.options.topic, key.as_deref(), &value, &error);
        }
        let rate = self.options.throughput.map(|rate| rate.max(1) as f64);
        let due = rate.map(|rate| self.started + Duration::from_secs_f64(self.sent as f64 / rate));
        if let Some(due) = due.filter(|due| *due > Instant::now()) {
            tokio::time::sleep_until(due.into()).await;
        }
        Ok(())
    }

    fn print_summary(&self) -> io::Result<()> {
        let acked = self.told.acked.load(Relaxed);
        let average = acked as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let target = self.options.throughput.map_or(-1, |rate| i64::try_from(rate).unwrap_or(i64::MAX));
        let summary = Event::new("tool_data").raw("sent", self.sent).raw("acked", acked);
        summary.raw("target_throughput", target).raw("avg_throughput", average).print()
    }
}

/// Commits, however long it takes. An error comes with the outcome.
async fn commit(transaction: Transaction<'_>) -> Result<(), (&'static str, Error)> {
    let mut result = transaction.commit().await;
    loop {
        result = match result {
            Ok(()) => return Ok(()),
            Err(CommitError::Aborted(error)) => return Err(("aborted", error)),
            Err(CommitError::Unknown(error)) => return Err(("unknown", error)),
            Err(CommitError::Pending(pending)) => {
                eprintln!("the commit goes on: {}", pending.cause());
                pending.wait().await
            }
        };
    }
}

/// Makes the key and the value of a record from its number.
#[derive(Clone, Copy)]
struct Names {
    prefix: Option<i64>,
    keys: Option<u64>,
}

impl Names {
    fn key(&self, number: u64) -> Option<String> {
        self.keys.map(|keys| (number % keys).to_string())
    }

    fn value(&self, number: u64) -> String {
        self.prefix.map_or_else(|| number.to_string(), |prefix| format!("{prefix}.{number}"))
    }
}
