//! Copies a partition to another topic in transactions, each with the offsets of its records:
//! Kafka's `TransactionalMessageCopier`, for its system tests. Its state goes to standard output as
//! lines of JSON, everything else to standard error. It ends at the input's end of the time when it
//! was started; SIGTERM ends it earlier.
//!
//! ```sh
//! transactional_message_copier --broker-list localhost:9092 --input-topic in --input-partition 0 \
//!     --output-topic out --consumer-group copiers --transactional-id copier-0
//! ```

mod common;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{
    Args, Failure,
    history::{Ending, History},
    json, verifiable,
};
use ottla::{
    Consumer, Delivery, Error, Offset, Producer, Record, TopicPartition, Transaction, TransactionalProducer,
    consumer::{Assigned, ListenerResult, RebalanceListener, Records},
    producer::CommitError,
};

const HELP: &str = "usage: transactional_message_copier --broker-list HOST:PORT[,...] --input-topic TOPIC
    --input-partition N --output-topic TOPIC --transactional-id ID [--consumer-group GROUP]
  --max-messages N            number of records to copy; -1 (the default): up to the end of the input at the start
  --consumer-group GROUP      the group whose offsets are committed; default -1
  --transaction-size N        most records of a transaction; default 200
  --transaction-timeout MS    default 60000
  --enable-random-aborts      aborts a third of the transactions
  --group-mode                subscribes to the input topic instead of reading one partition
  --use-group-metadata        accepted: offsets are always sent with the consumer's group metadata
  --history FILE              appends the events to a history for history-checker";

const POLL: Duration = Duration::from_millis(200);

struct Options {
    brokers: String,
    input: TopicPartition,
    output_topic: String,
    transactional_id: String,
    group: String,
    max_messages: u64,
    transaction_size: u32,
    transaction_timeout: Duration,
    random_aborts: bool,
    group_mode: bool,
    history: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    verifiable::main(HELP, parse, run).await
}

fn parse(args: &mut Args) -> Result<Option<Options>, Failure> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut numbers: BTreeMap<String, i64> = BTreeMap::new();
    let (mut random_aborts, mut group_mode) = (false, false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--broker-list" | "--input-topic" | "--output-topic" | "--transactional-id" | "--consumer-group"
            | "--history" => drop(texts.insert(arg.clone(), args.value(&arg)?)),
            "--input-partition" | "--max-messages" | "--transaction-size" | "--transaction-timeout" => {
                numbers.insert(arg.clone(), args.number(&arg)?);
            }
            "--enable-random-aborts" => random_aborts = true,
            "--group-mode" => group_mode = true,
            "--use-group-metadata" => {}
            "-h" | "--help" => return Ok(None),
            other => return Err(format!("unknown argument {other}\n{HELP}").into()),
        }
    }
    let mut text = |name: &str| texts.remove(name).ok_or_else(|| Failure::from(format!("{name} is missing\n{HELP}")));
    let partition = numbers.get("--input-partition").ok_or("--input-partition is missing")?;
    let number = |name: &str, default: i64| numbers.get(name).copied().unwrap_or(default);
    Ok(Some(Options {
        brokers: text("--broker-list")?,
        input: TopicPartition::new(text("--input-topic")?, i32::try_from(*partition)?),
        output_topic: text("--output-topic")?,
        transactional_id: text("--transactional-id")?,
        group: text("--consumer-group").unwrap_or_else(|_| "-1".to_owned()),
        max_messages: u64::try_from(number("--max-messages", -1)).unwrap_or(u64::MAX),
        transaction_size: u32::try_from(number("--transaction-size", 200))?.max(1),
        transaction_timeout: Duration::from_millis(u64::try_from(number("--transaction-timeout", 60_000))?),
        random_aborts,
        group_mode,
        history: text("--history").ok(),
    }))
}

async fn run(options: Options) -> Result<(), Failure> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let client = format!("{}#{}", options.transactional_id, started.as_nanos());
    let mut copier = Copier {
        consumer: consumer(&options).await?,
        history: History::open(options.history.as_deref(), client)?,
        assigned: Arc::default(),
        ends: BTreeMap::new(),
        total: 0,
        since_rebalance: 0,
        dice: started.as_nanos() as u64,
        options,
    };
    // Small batches, as in Kafka's own program, so that a transaction has several requests in
    // flight.
    let mut producer = Producer::builder(&copier.options.brokers)
        .batch_size(512)
        .transactional_id(&copier.options.transactional_id)
        .transaction_timeout(copier.options.transaction_timeout)
        .build()
        .await?;
    let copied = tokio::select! {
        biased;
        () = verifiable::terminated() => Ok(()),
        copied = copier.copy_all(&mut producer) => copied,
    };
    // A transaction that the signal interrupted ends in the background, which this awaits.
    let closed = producer.close(Duration::from_secs(30)).await;
    let status = copier.status("ShutdownComplete");
    let left = copier.consumer.close(Duration::from_secs(30)).await;
    println!("{status}");
    copied?;
    closed?;
    Ok(left?)
}

async fn consumer(options: &Options) -> Result<Consumer, Failure> {
    let size = options.transaction_size.to_string();
    let properties = [
        ("bootstrap.servers", options.brokers.as_str()),
        ("group.id", &options.group),
        ("isolation.level", "read_committed"),
        ("max.poll.records", &size),
        ("enable.auto.commit", "false"),
        ("session.timeout.ms", "10000"),
        ("max.poll.interval.ms", "180000"),
        ("heartbeat.interval.ms", "3000"),
        ("auto.offset.reset", "earliest"),
    ];
    Ok(Consumer::from_properties(properties).await?)
}

struct Copier {
    options: Options,
    consumer: Consumer,
    history: History,
    /// True after an assignment of the group that `copy_all` has not handled.
    assigned: Arc<AtomicBool>,
    /// The offsets at which the input ends.
    ends: BTreeMap<TopicPartition, i64>,
    total: u64,
    since_rebalance: u64,
    dice: u64,
}

/// The end of an attempt to copy records.
enum Attempt {
    Copied,
    /// The records have to be read again.
    Again,
}

impl Copier {
    async fn copy_all(&mut self, producer: &mut TransactionalProducer) -> Result<(), Failure> {
        // Ends the transaction of an earlier process, so that its offsets are known.
        persist("the producer is initialized", async || producer.init().await).await?;
        if self.options.group_mode {
            let listener = AssignmentListener(self.assigned.clone());
            self.consumer.subscribe_with([&*self.options.input.topic], listener)?;
            while !self.handle_assignment().await? {
                self.poll(producer).await?;
            }
        } else {
            let input = self.options.input.clone();
            self.consumer.assign([(input.clone(), Offset::Beginning)])?;
            self.rewind(std::slice::from_ref(&input)).await?;
            self.ends = self.end_offsets(vec![input]).await?;
        }
        while self.remaining() > 0 {
            println!("{}", self.status("ProcessLoop"));
            self.poll(producer).await?;
            self.handle_assignment().await?;
        }
        Ok(())
    }

    /// Asks for the ends of the partitions after an assignment of the group. Returns true if there
    /// was one.
    async fn handle_assignment(&mut self) -> Result<bool, Failure> {
        if !self.assigned.swap(false, SeqCst) {
            return Ok(false);
        }
        let assignment = self.consumer.assignment();
        self.since_rebalance = 0;
        self.ends = self.end_offsets(assignment).await?;
        println!("{}", self.status("RebalanceComplete"));
        Ok(true)
    }

    async fn end_offsets(&self, partitions: Vec<TopicPartition>) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
        let ends =
            persist("the end of the input is known", async || self.consumer.end_offsets(partitions.clone()).await);
        Ok(ends.await?.into_iter().collect())
    }

    /// Returns the number of offsets up to the end, at most the number of records that may still be
    /// copied.
    fn remaining(&self) -> u64 {
        let remaining = self.ends.iter().map(|(partition, end)| {
            let position = self.consumer.position(partition).unwrap_or(0);
            u64::try_from(end - position).unwrap_or(0)
        });
        remaining.sum::<u64>().min(self.options.max_messages.saturating_sub(self.total))
    }

    async fn poll(&mut self, producer: &mut TransactionalProducer) -> Result<(), Failure> {
        let records = match self.consumer.poll(POLL).await {
            Ok(records) => records,
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => {
                eprintln!("the consumer reports an error and continues: {error}");
                return Ok(());
            }
        };
        if records.is_empty() {
            return Ok(());
        }
        match self.copy(producer, &records).await? {
            Attempt::Copied => {
                self.total += records.len() as u64;
                self.since_rebalance += records.len() as u64;
                Ok(())
            }
            Attempt::Again => {
                let partitions: Vec<_> = records.partitions().map(|of_one| of_one.partition().clone()).collect();
                drop(records);
                self.rewind(&partitions).await
            }
        }
    }

    /// Copies records and their offsets in one transaction.
    async fn copy(&mut self, producer: &mut TransactionalProducer, records: &Records) -> Result<Attempt, Failure> {
        let transaction = loop {
            match producer.begin().await {
                Ok(transaction) => break transaction,
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(error) => eprintln!("the transaction does not begin yet: {error}"),
            }
        };
        let number = transaction.number();
        let polled = records.partitions().map(|of_one| {
            let records = of_one.iter().map(|record| (record.offset(), record.value().unwrap_or_default()));
            (of_one.partition(), records.collect())
        });
        self.history.begin(number, polled)?;
        let mut sent: Vec<(&[u8], Result<Delivery, Error>)> = Vec::with_capacity(records.len());
        let filled = self.fill(&transaction, records, &mut sent).await?;
        let aborts = self.options.random_aborts && self.roll().is_multiple_of(3);
        let ended = match filled {
            Ok(()) if aborts => end(transaction.abort().await),
            Ok(()) => {
                self.history.commit(number)?;
                commit(transaction).await
            }
            Err(error) => {
                eprintln!("transaction {number} is aborted: {error}");
                let aborted = transaction.abort().await;
                if error.is_fatal() { (Ending::Aborted, Some(error)) } else { end(aborted) }
            }
        };
        for (value, sent) in sent {
            let result = match sent {
                Ok(delivery) => delivery.await,
                Err(error) => Err(error),
            };
            self.history.report(&self.options.output_topic, value, &result);
        }
        let (ending, fatal) = ended;
        self.history.outcome(number, ending)?;
        match (ending, fatal) {
            (_, Some(error)) => Err(error.into()),
            (Ending::Committed, None) => Ok(Attempt::Copied),
            (Ending::Aborted | Ending::Unknown, None) => Ok(Attempt::Again),
        }
    }

    /// Sends the copies and the offsets. The inner error is one of the transaction.
    async fn fill<'r>(
        &mut self,
        transaction: &Transaction<'_>,
        records: &'r Records,
        sent: &mut Vec<(&'r [u8], Result<Delivery, Error>)>,
    ) -> Result<Result<(), Error>, Failure> {
        let number = transaction.number();
        for record in records.iter() {
            let to = TopicPartition::new(self.options.output_topic.as_str(), record.partition());
            let mut copy = Record::to(&*to.topic).with_partition(to.partition);
            if let Some(key) = record.key() {
                copy = copy.with_key(key);
            }
            if let Some(value) = record.value() {
                copy = copy.with_value(value);
            }
            let value = record.value().unwrap_or_default();
            self.history.send(number, &to, value)?;
            let delivery = transaction.send(copy).await;
            let refused = delivery.as_ref().err().cloned();
            sent.push((value, delivery));
            if let Some(error) = refused {
                return Ok(Err(error));
            }
        }
        let mut offsets = Vec::new();
        for of_one in records.partitions() {
            let partition = of_one.partition();
            let last = of_one.iter().last().map_or(0, |record| record.offset() + 1);
            // After the markers that follow the last record.
            let next = self.consumer.position(partition).map_or(last, |position| position.max(last));
            self.history.offset(number, &self.options.group, partition, next)?;
            offsets.push((partition.clone(), next));
        }
        let group = match self.consumer.group_metadata() {
            Ok(group) => group,
            Err(error) => return Ok(Err(error)),
        };
        Ok(transaction.send_offsets(offsets, &group).await)
    }

    /// Reads partitions again from the offsets that are committed.
    async fn rewind(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        persist("the committed offsets are known", async || self.consumer.rewind_to_committed(partitions).await)
            .await?;
        for partition in partitions {
            self.history.seek(partition)?;
        }
        Ok(())
    }

    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 33
    }

    fn status(&self, stage: &str) -> String {
        format!(
            r#"{{"transactionalId":{},"stage":"{stage}","time":"{}","totalProcessed":{},"consumed":{},"remaining":{}}}"#,
            json::text(&self.options.transactional_id),
            time(SystemTime::now()),
            self.total,
            self.since_rebalance,
            self.remaining(),
        )
    }
}

/// Repeats a call until it succeeds or its error is fatal. Each call is bounded by the client.
async fn persist<T>(what: &str, mut call: impl AsyncFnMut() -> ottla::Result<T>) -> Result<T, Failure> {
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is_retriable() && !error.is_fatal() => {
                eprintln!("waiting until {what}: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Commits, however long it takes. Returns the end, and the error after which the producer cannot
/// continue.
async fn commit(transaction: Transaction<'_>) -> (Ending, Option<Error>) {
    let mut result = transaction.commit().await;
    loop {
        let (ending, error) = match result {
            Ok(()) => return (Ending::Committed, None),
            Err(CommitError::Aborted(error)) => (Ending::Aborted, error),
            Err(CommitError::Unknown(error)) => (Ending::Unknown, error),
            Err(CommitError::Pending(pending)) => {
                eprintln!("the commit goes on: {}", pending.cause());
                result = pending.wait().await;
                continue;
            }
        };
        eprintln!("the transaction is {ending:?}: {error}");
        return (ending, Some(error).filter(Error::is_fatal));
    }
}

/// Returns the end after an abort: a transaction whose abort gets no answer does not commit either.
fn end(aborted: ottla::Result<()>) -> (Ending, Option<Error>) {
    (Ending::Aborted, aborted.err().filter(Error::is_fatal))
}

/// Notes assignments of the group.
struct AssignmentListener(Arc<AtomicBool>);

impl RebalanceListener for AssignmentListener {
    async fn on_assigned(&self, _: &mut Assigned) -> ListenerResult {
        self.0.store(true, SeqCst);
        Ok(())
    }
}

/// Formats a time in UTC as Kafka's program does: `2026/01/31 23:59:59:999`.
fn time(at: SystemTime) -> String {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let (mut days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let mut year = 1970;
    let length = |year: u64| {
        if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) { 366 } else { 365 }
    };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let february = length(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, hours, minutes) = (days + 1, rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, millis) = (rest / 1_000 % 60, rest % 1_000);
    format!("{year:04}/{month:02}/{day:02} {hours:02}:{minutes:02}:{seconds:02}:{millis:03}")
}
