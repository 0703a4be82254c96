//! Runs the work through librdkafka, by the `rdkafka` crate. `--api`: `threaded` (the default: a
//! `ThreadedProducer`, which serves the delivery callbacks on a thread of its own) or `base` (a
//! `BaseProducer`, polled by the thread that sends).

mod consume;
mod transact;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use peers_common::{Clock, Counter, Failure, Mode, Outcome, Work, finish};
use rdkafka::{
    ClientConfig, ClientContext,
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
    util::get_rdkafka_version,
};

/// Duration of one wait for callbacks, when the queue is full and at the end.
const WAIT: Duration = Duration::from_millis(1);
/// Number of records between two polls of a `BaseProducer`.
const POLL_EVERY: u64 = 1_000;

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<Outcome, Failure> {
    let work = Work::from_args()?;
    match work.mode {
        Mode::Consume => return consume::run(&work),
        Mode::Transact => return transact::run(&work),
        Mode::Produce | Mode::Latency => {}
    }
    match work.api.as_deref() {
        None | Some("threaded") => measure::<ThreadedProducer<Results>>(&work),
        Some("base") => measure::<BaseProducer<Results>>(&work),
        Some(other) => Err(format!("unknown --api {other}").into()),
    }
}

/// The methods of the two producers that are used here.
trait Sends: Producer<Results> + FromClientConfigAndContext<Results> {
    /// Sends a record, or returns it if it is refused.
    fn produce<'a>(&self, record: Sending<'a>) -> Option<(KafkaError, Sending<'a>)>;
    /// Serves callbacks, if no other thread does.
    fn serve(&self, wait: Duration);
    /// Waits a little for room in the queue or for results.
    fn wait(&self);
    /// True if only `serve` serves callbacks.
    const SERVED_HERE: bool;
}

type Sending<'a> = BaseRecord<'a, [u8; 8], [u8], usize>;

impl Sends for ThreadedProducer<Results> {
    const SERVED_HERE: bool = false;

    fn produce<'a>(&self, record: Sending<'a>) -> Option<(KafkaError, Sending<'a>)> {
        self.send(record).err()
    }

    fn serve(&self, _wait: Duration) {}

    fn wait(&self) {
        std::thread::sleep(WAIT);
    }
}

impl Sends for BaseProducer<Results> {
    const SERVED_HERE: bool = true;

    fn produce<'a>(&self, record: Sending<'a>) -> Option<(KafkaError, Sending<'a>)> {
        self.send(record).err()
    }

    fn serve(&self, wait: Duration) {
        self.poll(wait);
    }

    fn wait(&self) {
        self.poll(WAIT);
    }
}

/// Receives every record's result.
#[derive(Clone, Default)]
struct Results(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counter: Counter,
    first_error: Mutex<Option<KafkaError>>,
    /// The sender of the times of results, for `latency`.
    ends: Option<mpsc::Sender<(usize, Instant, bool)>>,
}

impl ClientContext for Results {}

impl ProducerContext for Results {
    /// The number of the record.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, n: usize) {
        // The callbacks run in one thread at a time.
        self.0.counter.count(result.is_ok());
        if let Some(ends) = &self.0.ends {
            // The receiver lives until the end.
            let _ = ends.send((n, Instant::now(), result.is_ok()));
        }
        if let (Err((error, _)), Ok(mut first)) = (result, self.0.first_error.lock()) {
            first.get_or_insert_with(|| error.clone());
        }
    }
}

impl Results {
    fn delivered(&self) -> u64 {
        self.0.counter.delivered()
    }

    fn failed(&self) -> u64 {
        self.0.counter.failed()
    }

    fn first_error(&self) -> String {
        self.0.first_error.lock().ok().and_then(|first| first.clone()).map_or_else(String::new, |e| format!(": {e}"))
    }
}

fn config(work: &Work) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &work.bootstrap)
        .set("client.id", "peers")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("max.in.flight.requests.per.connection", "5")
        .set("linger.ms", work.linger_ms.to_string())
        .set("compression.type", &work.compression)
        // The partitioner of Java's client and of Ottla.
        .set("partitioner", "murmur2_random");
    if let Some(bytes) = work.batch_size {
        config.set("batch.size", bytes.to_string());
    }
    if let Some(level) = work.level {
        config.set("compression.level", level.to_string());
    }
    tls(work, &mut config);
    config
}

/// Sets TLS, if the work uses it. The version is the broker's, 1.3. librdkafka checks the host name
/// by default.
fn tls(work: &Work, config: &mut ClientConfig) {
    if let Some(ca) = &work.ca {
        config.set("security.protocol", "ssl").set("ssl.ca.location", ca);
    }
}

fn measure<P: Sends>(work: &Work) -> Result<Outcome, Failure> {
    let (done, ends) = mpsc::channel();
    let ends_wanted = (work.mode == Mode::Latency).then_some(done);
    let results = Results(Arc::new(Inner { ends: ends_wanted, ..Inner::default() }));
    let producer = P::from_config_and_context(&config(work), results.clone())?;
    check_topic(work, &producer)?;
    let pass = |time: Duration| match work.mode {
        Mode::Produce => produce(work, time, &producer, &results).map(|sent| (sent, Vec::new())),
        Mode::Latency => latency(work, time, &producer, &ends).map(|latencies| (latencies.len() as u64, latencies)),
        Mode::Consume | Mode::Transact => Err("another producer does this work".into()),
    };
    pass(work.warmup)?;
    let clock = Clock::start()?;
    let (sent, latencies) = pass(work.timed)?;
    Ok(clock.stop("rdkafka", &get_rdkafka_version().1, sent)?.with_latencies(latencies))
}

fn check_topic<P: Sends>(work: &Work, producer: &P) -> Result<(), Failure> {
    let metadata = producer.client().fetch_metadata(Some(&work.topic), Duration::from_secs(10))?;
    if metadata.topics().iter().all(|topic| topic.partitions().len() != work.partitions) {
        return Err(format!("{} does not have {} partitions", work.topic, work.partitions).into());
    }
    Ok(())
}

fn record(work: &Work, n: u64) -> Sending<'_> {
    let record = BaseRecord::with_opaque_to(&work.topic, n as usize).payload(work.value(n));
    if work.keyed { record.key(work.key(n)) } else { record }
}

/// Sends a record, once there is room in the queue.
fn send<P: Sends>(producer: &P, mut next: Sending<'_>) -> Result<(), Failure> {
    loop {
        match producer.produce(next) {
            None => return Ok(()),
            Some((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                producer.wait();
                next = refused;
            }
            Some((error, _)) => return Err(error.into()),
        }
    }
}

/// Sends for that long, and waits until every record has its result.
fn produce<P: Sends>(work: &Work, time: Duration, producer: &P, results: &Results) -> Result<u64, Failure> {
    let before = results.delivered();
    let sent = work.until_done(time, |n| {
        if n % POLL_EVERY == 0 {
            producer.serve(Duration::ZERO);
        }
        send(producer, record(work, n))
    })?;
    // `flush` is not used, because it checks the queue only every 100 ms, which would count as the
    // client's time.
    let end = Instant::now() + Duration::from_secs(60);
    while results.delivered() - before < sent && results.failed() == 0 && Instant::now() < end {
        producer.wait();
    }
    match (results.delivered() - before, results.failed()) {
        (delivered, 0) if delivered == sent => Ok(sent),
        (delivered, failed) => {
            Err(format!("{sent} sent, {delivered} delivered, {failed} failed{}", results.first_error()).into())
        }
    }
}

/// Sends from this thread; the callback takes the time of each result.
fn latency<P: Sends>(
    work: &Work,
    time: Duration,
    producer: &P,
    ends: &mpsc::Receiver<(usize, Instant, bool)>,
) -> Result<Vec<Duration>, Failure> {
    if P::SERVED_HERE {
        return Err("latency is measured with --api threaded only: no thread would serve callbacks in between".into());
    }
    let count = work.scheduled(time);
    let mut from = Vec::with_capacity(count as usize);
    let start = Instant::now();
    for n in 0..count {
        from.push(work.wait_until_due(start, n));
        if let Some((error, _)) = producer.produce(record(work, n)) {
            return Err(error.into());
        }
    }
    let mut latencies = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (n, at, delivered) = ends.recv_timeout(Duration::from_secs(60))?;
        let from = from.get(n).filter(|_| delivered).ok_or("a record was not delivered")?;
        latencies.push(at.saturating_duration_since(*from));
    }
    Ok(latencies)
}
