//! The builder of a producer.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use rand::RngExt;
use tokio::{sync::watch, time::Instant};

use super::{
    DeliveryReport, Producer, ProducerHandle, ProducerInterceptor, ProducerShared,
    callback::DeliveryCallback,
    idempotence::Identity,
    interceptor::Interceptors,
    partitioner::Partitioner,
    properties::PROPERTIES,
    requests::Requests,
    sender::Sender,
    sender_task::SenderTask,
    settings::{Acks, ProducerSettings},
    sizes::Sizes,
    topics::{Placement, TopicTimeout, Topics},
    transaction::{manager::TransactionRules, shared::TransactionShared},
};
use crate::producer::batch_shared::BatchShared;
use crate::producer::{compression_ratio::BatchGrowth, partition_queue::SenderRules, sender_mailbox::SenderMailbox};
use crate::{
    cluster::{Backoff, Client, RetryGrid, client_properties},
    config::{Configure, Pairs, Property, apply},
    error::Result,
    log::Origin,
    net::{Network, runtime},
    security::Security,
    wire::Compression,
};

/// Configures a [`Producer`]. Defaults are those of Kafka's Java client 4.3, except where a method
/// says otherwise.
///
/// [`build`](Self::build) checks every property that was set with [`property`](Self::property).
/// Properties are applied after the methods' settings and override them.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProducerBuilder {
    settings: ProducerSettings,
    properties: Pairs,
}

impl ProducerBuilder {
    pub(super) fn empty() -> Self {
        Self { settings: ProducerSettings::default(), properties: Pairs::default() }
    }

    pub(super) fn new(bootstrap: String) -> Self {
        let mut builder = Self::empty();
        let servers = bootstrap.split(',').map(str::trim).filter(|server| !server.is_empty());
        builder.settings.client.bootstrap_servers = servers.map(str::to_owned).collect();
        builder
    }

    pub(super) fn set(mut self, change: impl FnOnce(&mut ProducerSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Sets `client.id`: the name of the producer in the brokers' logs and quotas. Default:
    /// `ottla`.
    pub fn client_id(self, id: impl Into<String>) -> Self {
        self.set(|s| s.client.client_id = id.into())
    }

    /// Sets `acks`. Default: [`Acks::All`]; any other value rules idempotence out.
    pub fn acks(self, acks: Acks) -> Self {
        self.set(|s| s.acks = acks)
    }

    /// Sets `batch.size`: the number of bytes at which a batch is full. Default: 262144 (Java's is
    /// 16384), because most of a request's cost does not depend on its size. A batch takes only as
    /// much memory as its records, and it leaves after `linger.ms` even if it is not full.
    ///
    /// With compression, this is the expected size after compression, estimated from earlier
    /// batches of the topic (KIP-126). Before compression a batch holds up to 16 times that many
    /// bytes, but at most `max.request.size`, and at most its share of a quarter of
    /// `buffer.memory`, divided by the number of partitions that the producer knows; it always
    /// holds at least `batch.size`.
    pub fn batch_size(self, bytes: usize) -> Self {
        self.set(|s| s.batch_size = bytes)
    }

    /// Sets `linger.ms` (librdkafka: also `queue.buffering.max.ms`): the time for which a batch
    /// waits for more records. Default: 5 ms.
    pub fn linger(self, linger: Duration) -> Self {
        self.set(|s| {
            s.linger = linger;
            s.note("linger.ms");
        })
    }

    /// Sets `buffer.memory` (librdkafka: `queue.buffering.max.kbytes`): the number of bytes that
    /// records may take from `send` to their result. Default: 33554432.
    pub fn buffer_memory(self, bytes: usize) -> Self {
        self.set(|s| s.buffer_memory = bytes)
    }

    /// Sets `max.block.ms`: the time for which `send` waits for room, and a record for its topic; a
    /// record waits for its topic at most for `delivery.timeout.ms`, if that is shorter. Default:
    /// 60 s.
    pub fn max_block(self, time: Duration) -> Self {
        self.set(|s| s.max_block = time)
    }

    /// Sets `delivery.timeout.ms` (librdkafka: `message.timeout.ms`): the time after the start of
    /// its batch within which a record has its result. A batch that begins with a record that
    /// waited for its topic is as old as that record. The value must be at least `linger.ms` +
    /// `request.timeout.ms`; of these two, the one that was not set is lowered
    /// (`request.timeout.ms` for produce requests only). Default: 120 s, or that sum if it is
    /// larger.
    pub fn delivery_timeout(self, time: Duration) -> Self {
        self.set(|s| s.delivery_timeout = Some(time))
    }

    /// Sets `request.timeout.ms`: the time that a broker has to answer a request. Default: 30 s.
    pub fn request_timeout(self, time: Duration) -> Self {
        self.set(|s| {
            s.client.request_timeout = time;
            s.note("request.timeout.ms");
        })
    }

    /// Sets `max.request.size` (librdkafka: `message.max.bytes`): the largest size of a record
    /// before compression, and about the largest size of a request, in bytes. Default: 1048576.
    pub fn max_request_size(self, bytes: usize) -> Self {
        self.set(|s| s.max_request_size = bytes)
    }

    /// Sets `max.in.flight.requests.per.connection` (librdkafka: also `max.in.flight`). With
    /// idempotence at most 5. Without idempotence a retry can reorder records if this is more
    /// than 1. Default: 5.
    pub fn max_in_flight(self, requests: usize) -> Self {
        self.set(|s| s.max_in_flight = requests)
    }

    /// Sets `enable.idempotence`: if true, retries can neither duplicate nor reorder records
    /// (KIP-98). Default: true, unless `acks`, `retries` or `max.in.flight.requests.per.connection`
    /// rule it out.
    pub fn idempotence(self, on: bool) -> Self {
        self.set(|s| s.idempotence = Some(on))
    }

    /// Sets `retries` (librdkafka: `message.send.max.retries`): the number of times that a batch is
    /// sent again. Default: 2147483647, so that `delivery.timeout.ms` decides. Without idempotence
    /// a retry can duplicate records.
    pub fn retries(self, retries: u32) -> Self {
        self.set(|s| s.retries = retries)
    }

    /// Sets `compression.type`, with a level: 1 to 9 for gzip, −7 to 4 for zstd, a single level for
    /// snappy and lz4 (see [`Compression`]). [`build`](Self::build) refuses a level that is not
    /// available. Default: [`Compression::None`].
    ///
    /// ```
    /// # #[cfg(feature = "lz4")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// use ottla::{Compression, Producer};
    ///
    /// let builder = Producer::builder("localhost:9092").compression(Compression::Lz4);
    /// let producer = builder.build().await?;
    /// # Ok(()) }
    /// # #[cfg(not(feature = "lz4"))]
    /// # fn main() {}
    /// ```
    pub fn compression(self, compression: Compression) -> Self {
        self.set(|s| s.compression = compression.into())
    }

    /// Sets `partitioner` (Java: `partitioner.class`): the rule by which a record that names no
    /// partition gets one. Default: [`Partitioner::Murmur2Random`], which is Java's.
    ///
    /// ```
    /// use ottla::{Producer, producer::Partitioner};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// // A key goes to the partition to which librdkafka sends it by default.
    /// let producer = Producer::builder("localhost:9092")
    ///     .partitioner(Partitioner::ConsistentRandom)
    ///     .build()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn partitioner(self, partitioner: Partitioner) -> Self {
        self.set(|s| s.partitioning.partitioner = partitioner)
    }

    /// Sets `partitioner.ignore.keys`: if true, a record with a key is treated like one without.
    /// Default: false. [`build`](Self::build) refuses it together with a partitioner that chooses
    /// by the key alone, and with a custom partitioner.
    pub fn ignore_keys(self, ignore: bool) -> Self {
        self.set(|s| s.partitioning.ignore_keys = ignore)
    }

    /// Sets `partitioner.adaptive.partitioning.enable`: if true, records that may go to any
    /// partition go more often to partitions with fewer waiting batches, because the brokers of
    /// these are faster (KIP-794). Default: true.
    pub fn adaptive_partitioning(self, on: bool) -> Self {
        self.set(|s| s.partitioning.adaptive = on)
    }

    /// Sets `partitioner.availability.timeout.ms`: the time for which data may wait for a broker
    /// before records that may go to any partition avoid that broker's partitions, as long as
    /// batches wait for these (KIP-794). Needs adaptive partitioning. Default: 0, which is off.
    pub fn availability_timeout(self, time: Duration) -> Self {
        self.set(|s| s.partitioning.availability_timeout = time)
    }

    /// Sets `partitioner.rack.aware`: if true, records that may go to any partition go to
    /// partitions with a leader in the producer's own rack, as long as there are any (KIP-1123).
    /// This saves traffic between racks, but each partition then gets as many records as the
    /// producers of its rack send. Needs [`client_rack`](Self::client_rack). Default: false.
    pub fn rack_aware(self, on: bool) -> Self {
        self.set(|s| s.partitioning.rack_aware = on)
    }

    /// Sets `client.rack`: the rack in which the producer runs, named like the brokers'
    /// `broker.rack`. Default: none.
    pub fn client_rack(self, rack: impl Into<String>) -> Self {
        self.set(|s| s.client.client_rack = Some(rack.into()))
    }

    /// Sets a function that is called once with every record's result. This is the callback form of
    /// [`delivery_reports`](Producer::delivery_reports), and the cheapest form (librdkafka:
    /// `dr_msg_cb`). Default: none.
    ///
    /// It is called for the records of a partition in the order of their results, which is the
    /// order of sending (see [`Delivery`](super::Delivery)). When it has returned, the record's
    /// bytes of `buffer.memory` are free, and [`Delivery`](super::Delivery) and
    /// [`flush`](Producer::flush) resolve. The report is borrowed and is changed from one record to
    /// the next; clone it to keep it. Records that `send` refused with an error are not reported.
    /// If there is a stream of reports as well, both get every report.
    ///
    /// It runs in the producer's own task, so nothing is sent while it works: it must not block,
    /// nor wait for this producer. It may call [`try_send`](Producer::try_send). A panic in it is
    /// caught and logged, and the producer goes on; the record counts as reported.
    ///
    /// ```no_run
    /// # async fn example() -> ottla::Result<()> {
    /// use ottla::{Producer, Record};
    /// use std::sync::{
    ///     Arc,
    ///     atomic::{AtomicU64, Ordering},
    /// };
    ///
    /// let failed = Arc::new(AtomicU64::new(0));
    /// let count = failed.clone();
    /// let producer = Producer::builder("localhost:9092")
    ///     .on_delivery(move |report| {
    ///         if let Err(error) = &report.result {
    ///             eprintln!("order {:?}: {error}; {}", report.tag, error.advice());
    ///             count.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build()
    ///     .await?;
    /// drop(producer.send(Record::to("orders").with_value("shipped").with_tag(42)).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_delivery(self, callback: impl Fn(&DeliveryReport) + Send + Sync + 'static) -> Self {
        self.set(|s| s.on_delivery = Some(DeliveryCallback::new("on_delivery", callback)))
    }

    /// Sets `retry.backoff.ms` and `retry.backoff.max.ms` (KIP-580). Defaults: 100 ms and 1 s.
    pub fn retry_backoff(self, first: Duration, max: Duration) -> Self {
        self.set(|s| {
            s.client.retry_backoff = first;
            s.client.retry_backoff_max = max;
            s.note("retry.backoff.ms");
            s.note("retry.backoff.max.ms");
        })
    }

    /// Adds an interceptor that sees every record before it is sent and every result, after the
    /// interceptors that were added before (Java: `interceptor.classes`, KIP-42). Default: none.
    pub fn interceptor(self, interceptor: impl ProducerInterceptor + 'static) -> Self {
        self.set(|s| s.interceptors.push(Arc::new(interceptor)))
    }

    /// Sets TLS and SASL for the connections (`security.protocol` and the properties that belong to
    /// it). It cannot be combined with properties for the same settings. Default:
    /// [`Security::plaintext`].
    pub fn security(self, security: Security) -> Self {
        self.set(|s| s.client.security.give(security))
    }

    /// Sets the network over which the producer connects. Default: TCP.
    pub fn network(self, network: Arc<dyn Network>) -> Self {
        self.set(|s| s.client.network = network)
    }

    /// Sets any property by its Java or librdkafka name. A property that has no meaning for a
    /// producer is accepted: one warning at [`build`](Self::build) names all of these with the
    /// reasons. If ignoring a property would weaken security or delivery, it is an error.
    ///
    /// ```
    /// use ottla::Producer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let producer = Producer::builder("localhost:9092")
    ///     .property("linger.ms", "20")
    ///     .property("queue.buffering.max.kbytes", "65536") // librdkafka's name of `buffer.memory`
    ///     .build()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push(name, value);
        self
    }

    /// Sets several properties by their names.
    ///
    /// ```
    /// use ottla::Producer;
    /// use std::collections::HashMap;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let properties = HashMap::from([("acks", "all"), ("linger.ms", "20")]);
    /// let producer =
    ///     Producer::builder("localhost:9092").properties(properties).build().await?;
    /// # Ok(()) }
    /// ```
    pub fn properties<K: AsRef<str>, V: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        for (name, value) in pairs {
            self.properties.push(name.as_ref(), value.as_ref());
        }
        self
    }

    /// Seeds random choices (jitter, partitions), so that a test can be repeated.
    #[cfg(test)]
    pub(crate) fn seed(self, seed: u64) -> Self {
        self.set(|s| s.client.seed = Some(seed))
    }

    /// Checks the settings and starts the producer on the current tokio runtime. Needs no network.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration) for a setting that cannot be used, and
    /// without a tokio runtime that has timers and what the network needs (`enable_all()`).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn build(self) -> Result<Producer> {
        let settings = self.settings(&[PROPERTIES, client_properties()])?;
        Self::start(settings).await
    }

    /// Applies the properties, which may be those of these tables.
    pub(super) fn settings(mut self, tables: &[&[Property<ProducerSettings>]]) -> Result<ProducerSettings> {
        apply(&mut self.settings, tables, self.properties.iter())?;
        Ok(self.settings)
    }

    /// Checks the settings and starts a producer, with transactions if they have a
    /// `transactional.id`.
    pub(super) async fn start(mut settings: ProducerSettings) -> Result<Producer> {
        settings.client.origin = Origin::new(&settings.client.client_id, "producer", None);
        let derived = settings.check()?;
        settings.client.check()?;
        let runtime = runtime("a producer")?;
        let seed = settings.client.seed.unwrap_or_else(|| rand::rng().random());
        let client = Client::open(settings.client.clone()).await?;
        let batch_shared = BatchShared::new(settings.buffer_memory).with_origin(settings.client.origin.clone());
        let counters = batch_shared.counters.clone();
        let interceptors = Interceptors::new(settings.interceptors, counters.clone());
        // As in Java, interceptors see a result before the callback does.
        let callbacks = interceptors.callbacks().chain(settings.on_delivery);
        let callbacks = callbacks.map(|callback| callback.with_lines(counters.clone())).collect();
        let batch_shared = batch_shared.with_callbacks(callbacks);
        let rules_of_transactions = settings.transactional_id.map(|transactional_id| TransactionRules {
            transactional_id,
            timeout: settings.transaction_timeout,
            delivery_timeout: derived.delivery_timeout,
            retry_backoff: settings.client.retry_backoff,
            retry_backoff_max: settings.client.retry_backoff_max,
            seed,
        });
        let batch_shared = if rules_of_transactions.is_some() { batch_shared.keeping_failures() } else { batch_shared };
        let batch_shared = Arc::new(batch_shared);
        let requests = Requests::new(
            client.clone(),
            (settings.acks.wire(), rules_of_transactions.as_ref().map(|rules| rules.transactional_id.clone())),
            (derived.request_timeout, derived.ack_timeout),
            derived.compression,
            counters.clone(),
        )?;
        let rules = SenderRules {
            acks: settings.acks.wire(),
            retries: settings.retries,
            max_in_flight: settings.max_in_flight,
            max_request_size: settings.max_request_size,
            linger: settings.linger,
            delivery_timeout: derived.delivery_timeout,
            availability_timeout: settings.partitioning.availability(),
            backoff: Backoff::new(settings.client.retry_backoff, settings.client.retry_backoff_max),
            grid: RetryGrid::starting(tokio::time::Instant::now().into_std()),
        };
        let placement = Placement {
            sizes: Sizes::new(settings.batch_size.min(settings.max_request_size)),
            growth: Arc::new(BatchGrowth::new(derived.compression, settings.max_request_size, settings.buffer_memory)),
            partitioning: settings.partitioning,
            rack: settings.client.client_rack,
            seed,
            topic_timeout: TopicTimeout::new(settings.max_block, derived.delivery_timeout),
        };
        let shared = Arc::new(ProducerShared {
            topics: Topics::new(placement),
            batch_shared,
            interceptors,
            mailbox: SenderMailbox::new(Instant::now().into_std(), settings.linger),
            client,
            max_record: settings.max_request_size.min(settings.buffer_memory),
            max_block: settings.max_block,
            gate: OnceLock::new(),
            look_for_topics: AtomicBool::new(false),
            transactions: rules_of_transactions.map(|rules| Arc::new(TransactionShared::new(rules))),
            ended: watch::Sender::new(false),
        });
        let identity = match (&shared.transactions, derived.idempotent) {
            (Some(_), _) => Identity::NoTransaction,
            (None, true) => Identity::Unknown,
            (None, false) => Identity::Anonymous,
        };
        let task = SenderTask::new(shared.clone(), Sender::new(rules, identity, seed, counters), requests);
        runtime.spawn(task.run());
        Ok(Producer(Arc::new(ProducerHandle { shared })))
    }
}
