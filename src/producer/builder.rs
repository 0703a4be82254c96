//! How a producer is made.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use rand::RngExt;
use tokio::{sync::watch, time::Instant};

use super::{
    DeliveryReport, Producer, ProducerHandle, ProducerInterceptor, ProducerShared,
    callback::DeliveryCallback,
    interceptor::Interceptors,
    partitioner::Partitioner,
    properties::PROPERTIES,
    requests::Requests,
    sender::Sender,
    sender_task::SenderTask,
    settings::{Acks, ProducerSettings},
    sizes::Sizes,
    topics::{Placement, TopicTimeout, Topics},
};
use crate::producer::batch_shared::BatchShared;
use crate::producer::{compression_ratio::BatchGrowth, partition_queue::SenderRules, sender_mailbox::SenderMailbox};
use crate::{
    cluster::{Backoff, Client, RetryGrid, client_properties},
    config::{Configure, Pairs, apply},
    error::Result,
    log::Origin,
    net::{Network, runtime},
    security::Security,
    wire::Compression,
};

/// Settings for a [`Producer`]. Defaults are those of Kafka's Java client 4.3.
///
/// Every property of [`property`](Self::property) is checked by [`build`](Self::build), after the
/// methods' settings and over them.
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

    fn set(mut self, change: impl FnOnce(&mut ProducerSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// `client.id`: how the producer is called in the brokers' logs and quotas. Default: `ottla`.
    pub fn client_id(self, id: impl Into<String>) -> Self {
        self.set(|s| s.client.client_id = id.into())
    }

    /// `acks`. Default: [`Acks::All`]; anything less rules idempotence out.
    pub fn acks(self, acks: Acks) -> Self {
        self.set(|s| s.acks = acks)
    }

    /// `batch.size`: the bytes at which a batch is full. Default: 262144, because most of what a
    /// request costs does not depend on its size (Java's is 16384). It is not what a batch takes:
    /// that is what its records take, and a batch leaves after `linger.ms` however little is in it.
    ///
    /// With compression, these are the bytes that are expected after it, by how well earlier
    /// batches of the topic were compressed (KIP-126). Before it a batch holds up to 16 times as
    /// much, within `max.request.size` and, with one batch for every partition that the producer
    /// knows, within a quarter of `buffer.memory`; `batch.size` at least.
    pub fn batch_size(self, bytes: usize) -> Self {
        self.set(|s| s.batch_size = bytes)
    }

    /// `linger.ms`: how long a batch waits for more records. Default: 5 ms.
    pub fn linger(self, linger: Duration) -> Self {
        self.set(|s| {
            s.linger = linger;
            s.note("linger.ms");
        })
    }

    /// `buffer.memory`: the bytes that records may take from `send` to their result. Default:
    /// 33554432.
    pub fn buffer_memory(self, bytes: usize) -> Self {
        self.set(|s| s.buffer_memory = bytes)
    }

    /// `max.block.ms`: how long `send` waits for room, and a record for its topic, if
    /// `delivery.timeout.ms` is not shorter. Default: 60 s.
    pub fn max_block(self, time: Duration) -> Self {
        self.set(|s| s.max_block = time)
    }

    /// `delivery.timeout.ms`: how long after its batch was begun a record has its result at the
    /// latest; a batch that begins with a record that waited for its topic is as old as that
    /// record. It must be at least `linger.ms` + `request.timeout.ms`; of these, what was not set
    /// is lowered (`request.timeout.ms` for produces only). Default: 120 s, or that sum if it is
    /// more.
    pub fn delivery_timeout(self, time: Duration) -> Self {
        self.set(|s| s.delivery_timeout = Some(time))
    }

    /// `request.timeout.ms`: how long a broker may take to answer. Default: 30 s.
    pub fn request_timeout(self, time: Duration) -> Self {
        self.set(|s| {
            s.client.request_timeout = time;
            s.note("request.timeout.ms");
        })
    }

    /// `max.request.size`: the largest record, before compression, and about the largest request.
    /// Default: 1048576.
    pub fn max_request_size(self, bytes: usize) -> Self {
        self.set(|s| s.max_request_size = bytes)
    }

    /// `max.in.flight.requests.per.connection`: at most 5 with idempotence. Without idempotence a
    /// retry can reorder records if this is more than 1. Default: 5.
    pub fn max_in_flight(self, requests: usize) -> Self {
        self.set(|s| s.max_in_flight = requests)
    }

    /// `enable.idempotence`: whether retries can neither double nor reorder records (KIP-98).
    /// Default: on, unless `acks`, `retries` or `max.in.flight.requests.per.connection` rule it
    /// out.
    pub fn idempotence(self, on: bool) -> Self {
        self.set(|s| s.idempotence = Some(on))
    }

    /// `retries`: how often a batch is sent again. Default: 2147483647, so that
    /// `delivery.timeout.ms` decides. Without idempotence a retry can double records.
    pub fn retries(self, retries: u32) -> Self {
        self.set(|s| s.retries = retries)
    }

    /// `compression.type`, with a level: gzip has 1 to 9, zstd −7 to 4, snappy and lz4 one each
    /// (see [`Compression`]). [`build`](Self::build) refuses a level that is not to be had.
    /// Default: [`Compression::None`].
    pub fn compression(self, compression: Compression) -> Self {
        self.set(|s| s.compression = compression.into())
    }

    /// `partitioner`, `partitioner.class`: how a record that names no partition gets one. Default:
    /// [`Partitioner::Murmur2Random`], which is Java's.
    pub fn partitioner(self, partitioner: Partitioner) -> Self {
        self.set(|s| s.partitioning.partitioner = partitioner)
    }

    /// `partitioner.ignore.keys`: whether a record with a key is treated as one without. Default:
    /// false. With a partitioner that has no other way to choose than the key, or of the user's
    /// own, it is an error.
    pub fn ignore_keys(self, ignore: bool) -> Self {
        self.set(|s| s.partitioning.ignore_keys = ignore)
    }

    /// `partitioner.adaptive.partitioning.enable`: whether records that may go to any partition go
    /// more often to those for which fewer batches wait, because their brokers are faster
    /// (KIP-794). Default: true.
    pub fn adaptive_partitioning(self, on: bool) -> Self {
        self.set(|s| s.partitioning.adaptive = on)
    }

    /// `partitioner.availability.timeout.ms`: how long data may wait for a broker before records
    /// that may go to any partition avoid those that it leads, as long as batches wait for them
    /// (KIP-794). Needs adaptive partitioning. Default: 0, which is off.
    pub fn availability_timeout(self, time: Duration) -> Self {
        self.set(|s| s.partitioning.availability_timeout = time)
    }

    /// `partitioner.rack.aware`: whether records that may go to any partition go to those whose
    /// leaders are in the producer's own rack, as long as there are any (KIP-1123). Saves traffic
    /// between racks; the partitions get as many records as the producers of their racks send.
    /// Needs [`client_rack`](Self::client_rack). Default: false.
    pub fn rack_aware(self, on: bool) -> Self {
        self.set(|s| s.partitioning.rack_aware = on)
    }

    /// `client.rack`: where the producer runs, by the brokers' own names (`broker.rack`). Default:
    /// not said.
    pub fn client_rack(self, rack: impl Into<String>) -> Self {
        self.set(|s| s.client.client_rack = Some(rack.into()))
    }

    /// A function to be told of every record's result, once: the callback form of
    /// [`delivery_reports`](Producer::delivery_reports), and the cheapest of all forms. Default:
    /// none.
    ///
    /// It is called for the records of a partition in the order of their results, which is the
    /// order of sending (see [`Delivery`](super::Delivery)); when it has returned, the record's
    /// bytes of `buffer.memory` are free, and [`Delivery`](super::Delivery) and
    /// [`flush`](Producer::flush) are done. The report is lent, and changed from one record to the
    /// next; clone it to keep it. Records that `send` refused with an error are not told of. Where
    /// there is a stream of reports as well, both get every report.
    ///
    /// It runs in the producer's own task, so nothing is sent while it works: it must not block,
    /// nor wait for this producer. It may call [`try_send`](Producer::try_send). A panic in it is
    /// caught and logged, and the producer goes on; the record counts as told of.
    ///
    /// ```no_run
    /// # async fn example() -> ottla::Result<()> {
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// use ottla::{Producer, Record};
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

    /// `retry.backoff.ms` and `retry.backoff.max.ms` (KIP-580). Defaults: 100 ms and 1 s.
    pub fn retry_backoff(self, first: Duration, max: Duration) -> Self {
        self.set(|s| {
            s.client.retry_backoff = first;
            s.client.retry_backoff_max = max;
            s.note("retry.backoff.ms");
            s.note("retry.backoff.max.ms");
        })
    }

    /// Shows every record to this interceptor before it is sent, and tells it of every result,
    /// behind those that were added before (Java: `interceptor.classes`). Default: none.
    pub fn interceptor(self, interceptor: impl ProducerInterceptor + 'static) -> Self {
        self.set(|s| s.interceptors.push(Arc::new(interceptor)))
    }

    /// How connections are secured: TLS, SASL (`security.protocol` and what belongs to it). Rules
    /// the properties out that say the same. Default: [`Security::plaintext`].
    pub fn security(self, security: Security) -> Self {
        self.set(|s| s.client.security.give(security))
    }

    /// The network to connect over. Default: TCP.
    pub fn network(self, network: Arc<dyn Network>) -> Self {
        self.set(|s| s.client.network = network)
    }

    /// Any property by its Java or librdkafka name. One that means nothing to a producer is taken:
    /// one warning at [`build`](Self::build) names all of them with the reasons. One whose loss
    /// would weaken security or delivery is an error.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push(name, value);
        self
    }

    /// Several properties by name.
    pub fn properties<K: AsRef<str>, V: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        for (name, value) in pairs {
            self.properties.push(name.as_ref(), value.as_ref());
        }
        self
    }

    /// Seeds what is random (jitter, the choice of partitions), so that a test can be repeated.
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
    pub async fn build(mut self) -> Result<Producer> {
        apply(&mut self.settings, &[PROPERTIES, client_properties()], self.properties.iter())?;
        let mut settings = self.settings;
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
        let batch_shared = Arc::new(batch_shared.with_callbacks(callbacks));
        let requests = Requests::new(
            client.clone(),
            settings.acks.wire(),
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
            ended: watch::Sender::new(false),
        });
        let task = SenderTask::new(shared.clone(), Sender::new(rules, derived.idempotent, seed, counters), requests);
        runtime.spawn(task.run());
        Ok(Producer(Arc::new(ProducerHandle { shared })))
    }
}
