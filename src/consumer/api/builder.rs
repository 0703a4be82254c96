//! The builder of a [`Consumer`].

use std::{num::NonZero, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;

use crate::consumer::{
    Consumer,
    background::{consumer_task::ConsumerTask, leave_on_drop::LeaveOnDrop, shared::Shared},
    buffer::{
        fetch_buffer::{FetchBuffer, FetchWakers},
        fetched_batch::DecodeConfig,
    },
    config::{
        isolation::Isolation,
        properties::PROPERTIES,
        settings::{ConsumerSettings, GroupProtocol, IsolationLevel, OffsetReset},
    },
    group::{GroupHandle, assignor::Assignor},
    state::ConsumerState,
    subscription::rules::ConsumerRules,
};
use crate::{
    cluster::{Backoff, Client, client_properties},
    config::{Configure, Pairs, apply},
    error::Result,
    log::Origin,
    net::{Network, runtime},
    security::Security,
};

/// Time without a leader after which the reader gets an error, unless `default.api.timeout.ms` is
/// shorter.
const GRACE_PERIOD: Duration = Duration::from_secs(10);

/// `max.partition.fetch.bytes` if the user sets none: the least that is requested of a partition.
const PARTITION_BYTES: i32 = 1 << 20;

/// Settings for a [`Consumer`]. Defaults are those of Kafka's Java client 4.3, and librdkafka's for
/// settings that Java does not have.
///
/// [`build`](Self::build) checks every property of [`property`](Self::property). It applies them
/// after the settings of the methods, so a property overrides a method.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConsumerBuilder {
    settings: ConsumerSettings,
    properties: Pairs,
}

impl ConsumerBuilder {
    pub(crate) fn empty() -> Self {
        Self { settings: ConsumerSettings::default(), properties: Pairs::default() }
    }

    pub(crate) fn new(bootstrap: &str) -> Self {
        let mut builder = Self::empty();
        let servers = bootstrap.split(',').map(str::trim).filter(|server| !server.is_empty());
        builder.settings.client.bootstrap_servers = servers.map(str::to_owned).collect();
        builder
    }

    fn set(mut self, change: impl FnOnce(&mut ConsumerSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Sets `client.id`: the consumer's name in the brokers' logs and quotas. Default: `ottla`.
    pub fn client_id(self, id: impl Into<String>) -> Self {
        self.set(|s| s.client.client_id = id.into())
    }

    /// Sets `client.rack`: the rack or zone in which the consumer runs, so that it may read from
    /// replicas nearby (KIP-392). Default: not set.
    pub fn client_rack(self, rack: impl Into<String>) -> Self {
        self.set(|s| s.client.client_rack = Some(rack.into()))
    }

    /// Sets `group.id`: the group that the consumer joins when it subscribes, and for which it
    /// commits offsets. Default: none.
    pub fn group(self, id: impl Into<String>) -> Self {
        self.set(|s| s.group_id = Some(id.into().into()))
    }

    /// Sets `group.instance.id`: makes the consumer a static member. Its partitions stay assigned
    /// to it while it restarts (KIP-345). Default: none.
    pub fn group_instance_id(self, id: impl Into<String>) -> Self {
        self.set(|s| s.group_instance_id = Some(id.into().into()))
    }

    /// Sets `group.protocol`: the protocol by which the group assigns partitions. Default:
    /// [`GroupProtocol::Classic`].
    ///
    /// With [`GroupProtocol::Consumer`] the coordinator decides on the heartbeat interval, the
    /// session timeout and the assignor, so `session.timeout.ms`, `heartbeat.interval.ms` and
    /// `partition.assignment.strategy` are refused, as in Java.
    pub fn group_protocol(self, protocol: GroupProtocol) -> Self {
        self.set(|s| s.group_protocol = protocol)
    }

    /// Sets `group.remote.assignor`: the brokers' assignor that assigns the partitions, with
    /// [`GroupProtocol::Consumer`]. Kafka's are `uniform` and `range`. Default: the coordinator's
    /// choice (`uniform`).
    pub fn group_remote_assignor(self, name: impl Into<String>) -> Self {
        self.set(|s| s.group_remote_assignor = Some(name.into().into()))
    }

    /// Sets `auto.offset.reset`. Default: [`OffsetReset::Latest`].
    pub fn auto_offset_reset(self, reset: OffsetReset) -> Self {
        self.set(|s| s.auto_offset_reset = reset)
    }

    /// Sets `enable.auto.commit`: if true, what is done is committed every
    /// [`auto_commit_interval`](Self::auto_commit_interval), when partitions are revoked, and on
    /// close. Default: true, if there is a group.
    pub fn auto_commit(self, on: bool) -> Self {
        self.set(|s| {
            s.note("enable.auto.commit");
            s.enable_auto_commit = on;
        })
    }

    /// Sets `auto.commit.interval.ms`. Default: 5 s.
    pub fn auto_commit_interval(self, interval: Duration) -> Self {
        self.set(|s| s.auto_commit_interval = interval)
    }

    /// Sets `partition.assignment.strategy`, with [`GroupProtocol::Classic`], in the order of
    /// preference: of the assignors that all members have, the group uses the one that most members
    /// prefer. Default: [`RangeAssignor`](crate::consumer::assignor::RangeAssignor), then
    /// [`CooperativeStickyAssignor`](crate::consumer::assignor::CooperativeStickyAssignor), so that
    /// the group can be moved to the latter alone.
    ///
    /// ```no_run
    /// # async fn example() -> ottla::Result<()> {
    /// use std::sync::Arc;
    /// use ottla::{consumer::assignor::CooperativeStickyAssignor, Consumer};
    ///
    /// let builder = Consumer::builder("localhost:9092").group("billing");
    /// let consumer = builder.assignors(vec![Arc::new(CooperativeStickyAssignor)]).build().await?;
    /// # Ok(()) }
    /// ```
    pub fn assignors(self, assignors: Vec<Arc<dyn Assignor>>) -> Self {
        self.set(|s| {
            s.assignors = assignors;
            s.note("partition.assignment.strategy");
        })
    }

    /// Sets `isolation.level`. Default: [`IsolationLevel::ReadUncommitted`].
    pub fn isolation_level(self, level: IsolationLevel) -> Self {
        self.set(|s| {
            s.note("isolation.level");
            s.isolation_level = level;
        })
    }

    /// Sets `fetch.min.bytes`: the bytes that a broker gathers before it answers, unless
    /// `fetch.max.wait.ms` passes first. Default: 1.
    pub fn fetch_min_bytes(self, bytes: i32) -> Self {
        self.set(|s| {
            s.fetch_min_bytes = bytes;
            s.note("fetch.min.bytes");
        })
    }

    /// Sets `fetch.max.bytes`: the approximate size limit of a broker's response, in bytes. The
    /// consumer requests less if that is enough to keep the reader busy, and never more than an
    /// eighth of [`queued_max_bytes`](Self::queued_max_bytes). Default: 52428800.
    pub fn fetch_max_bytes(self, bytes: i32) -> Self {
        self.set(|s| {
            s.fetch_max_bytes = bytes;
            s.note("fetch.max.bytes");
        })
    }

    /// Sets `fetch.max.wait.ms`: the longest time for which a broker waits for records before it
    /// answers. Default: 500 ms.
    pub fn fetch_max_wait(self, wait: Duration) -> Self {
        self.set(|s| s.fetch_max_wait = wait)
    }

    /// Sets `max.partition.fetch.bytes`: the approximate limit of one partition's bytes in one
    /// response; a larger batch is still returned. Default: 1048576, and more if so few partitions
    /// have records that responses of that size would leave a connection with a long round trip
    /// half empty: then as much as one response may have (see
    /// [`fetch_max_bytes`](Self::fetch_max_bytes)). A value that is set here is never exceeded in
    /// this way, even if it equals the default.
    pub fn max_partition_fetch_bytes(self, bytes: i32) -> Self {
        self.set(|s| s.max_partition_fetch_bytes = Some(bytes))
    }

    /// Sets `fetch.max.connections`: the most connections to one broker over which partitions are
    /// fetched, each with a fetch session of its own (KIP-227) over other partitions. As a rule
    /// there is one. Another is opened only while the responses on the existing ones are as large
    /// as allowed and the reader still waits for them; it is closed again as soon as the reader has
    /// enough to do. They share their broker's part of
    /// [`queued_max_bytes`](Self::queued_max_bytes). Default: 4.
    pub fn fetch_max_connections(self, connections: u8) -> Self {
        self.set(|s| s.fetch_max_connections = connections)
    }

    /// Sets `queued.max.messages.kbytes`, in bytes: the most that is fetched ahead of the reader,
    /// of all partitions together, compressed and decompressed, including what is requested.
    /// Brokers have equal shares of it. A batch that is larger than a share, or becomes so when it
    /// is decompressed, is still fetched, alone. Delivered records do not count. Default: 67108864.
    pub fn queued_max_bytes(self, bytes: usize) -> Self {
        self.set(|s| s.queued_max_bytes = bytes)
    }

    /// Sets `max.decompressed.batch.bytes`: the size in bytes of the largest batch, decompressed,
    /// that is accepted; a larger one is an error. Default: 134217728.
    pub fn max_decompressed_batch_bytes(self, bytes: usize) -> Self {
        self.set(|s| s.max_decompressed_batch_bytes = bytes)
    }

    /// Sets `max.poll.records`: the most records that one [`poll`](Consumer::poll) returns.
    /// Default: 500.
    pub fn max_poll_records(self, records: usize) -> Self {
        self.set(|s| s.max_poll_records = records)
    }

    /// Sets `max.poll.interval.ms`: the longest time for which a group member may process the
    /// records that it received before its partitions go to other members; also the time for which
    /// a rebalance waits for it. Default: 300 s.
    pub fn max_poll_interval(self, interval: Duration) -> Self {
        self.set(|s| s.max_poll_interval = interval)
    }

    /// Sets `session.timeout.ms`, with [`GroupProtocol::Classic`]: the time without a heartbeat
    /// after which the group removes a member. Default: 45 s.
    pub fn session_timeout(self, timeout: Duration) -> Self {
        self.set(|s| {
            s.session_timeout = timeout;
            s.note("session.timeout.ms");
        })
    }

    /// Sets `heartbeat.interval.ms`, with [`GroupProtocol::Classic`]. Default: 3 s.
    pub fn heartbeat_interval(self, interval: Duration) -> Self {
        self.set(|s| {
            s.heartbeat_interval = interval;
            s.note("heartbeat.interval.ms");
        })
    }

    /// Sets `enable.partition.eof`: if true, the reader gets an error of kind
    /// [`EndOfPartition`](crate::ErrorKind::EndOfPartition) when it reaches the end of a partition:
    /// after the last record, and again after more records were appended and read. Default: false.
    pub fn enable_partition_eof(self, on: bool) -> Self {
        self.set(|s| s.enable_partition_eof = on)
    }

    /// Sets `check.crcs`: if true, the checksum of each batch is verified. Default: true.
    pub fn check_crcs(self, on: bool) -> Self {
        self.set(|s| s.check_crcs = on)
    }

    /// Sets `topic.metadata.propagation.max.ms` (librdkafka's name): the time for which a topic may
    /// be missing, or forbidden, before the reader gets an error. The delay exists because not
    /// every broker knows a topic that was just created, or a right that was just granted. The time
    /// starts again whenever the topic's state changes; [`Consumer::status`] shows the topic's
    /// state at once. Default: 30 s.
    pub fn topic_metadata_propagation_max(self, time: Duration) -> Self {
        self.set(|s| s.topic_propagation_max = time)
    }

    /// Sets `request.timeout.ms`: the longest time that a broker may take to answer, beyond the
    /// wait that the request asks for. Default: 30 s.
    pub fn request_timeout(self, time: Duration) -> Self {
        self.set(|s| s.client.request_timeout = time)
    }

    /// Sets `default.api.timeout.ms`: the longest time that a call such as [`Consumer::commit`] may
    /// take with all its retries. Default: 60 s.
    pub fn default_api_timeout(self, time: Duration) -> Self {
        self.set(|s| s.client.default_api_timeout = time)
    }

    /// Sets the security of connections: TLS and SASL (`security.protocol` and the properties that
    /// belong to it). Excludes the properties that set the same. Default: [`Security::plaintext`].
    pub fn security(self, security: Security) -> Self {
        self.set(|s| s.client.security.give(security))
    }

    /// Sets the network to connect over. Default: TCP.
    pub fn network(self, network: Arc<dyn Network>) -> Self {
        self.set(|s| s.client.network = network)
    }

    /// Sets any property by its Java or librdkafka name. A property that means nothing to a
    /// consumer is accepted: one warning at [`build`](Self::build) names all of them with the
    /// reasons. One without which security or delivery would be weaker is an error.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push(name, value);
        self
    }

    /// Sets several properties by name.
    pub fn properties<K: AsRef<str>, V: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        for (name, value) in pairs {
            self.properties.push(name.as_ref(), value.as_ref());
        }
        self
    }

    /// Seeds the random numbers (jitter), so that a test can be repeated.
    #[cfg(test)]
    pub(crate) fn seed(self, seed: u64) -> Self {
        self.set(|s| s.client.seed = Some(seed))
    }

    /// Checks the settings and starts the consumer on the current tokio runtime. Needs no network.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration) for a setting that cannot be used, and
    /// without a tokio runtime that has timers and the drivers that the network needs
    /// (`enable_all()`).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn build(mut self) -> Result<Consumer> {
        apply(&mut self.settings, &[PROPERTIES, client_properties()], self.properties.iter())?;
        let mut settings = self.settings;
        settings.client.origin = Origin::new(&settings.client.client_id, "consumer", settings.group_id.clone());
        settings.check()?;
        settings.client.check()?;
        let runtime = runtime("a consumer")?;
        let seed = settings.client.seed.unwrap_or_else(|| rand::rng().random());
        let client = Client::open(settings.client.clone()).await?;
        let (events, received) = mpsc::unbounded_channel();
        let group = settings.group().map(|group| match settings.group_protocol {
            GroupProtocol::Classic => GroupHandle::start(client.clone(), group, events),
            GroupProtocol::Consumer => {
                let remote_assignor = settings.group_remote_assignor.clone();
                GroupHandle::start_consumer_protocol(client.clone(), group, remote_assignor, events)
            }
        });

        let decode_config = DecodeConfig {
            check_crcs: settings.check_crcs,
            limit: settings.max_decompressed_batch_bytes,
            origin: settings.client.origin.clone(),
        };
        let wakers = Arc::new(FetchWakers::default());
        let isolation = Isolation::new(settings.isolation_level);
        let state =
            ConsumerState::new(rules(&settings, isolation.clone()), StdRng::seed_from_u64(seed), wakers.factory());
        let buffer = FetchBuffer::new(state, wakers, decode_config, runtime.clone());
        let (calls, called) = mpsc::unbounded_channel();
        let shared = Shared::new(client, settings, group, buffer, isolation, calls);
        let task = runtime.spawn(ConsumerTask::new(shared.clone(), received, called).run());
        let leave = LeaveOnDrop::new(shared.clone(), task.abort_handle(), runtime);
        Ok(Consumer::new(shared, Arc::new(leave)))
    }
}

fn rules(settings: &ConsumerSettings, isolation: Isolation) -> ConsumerRules {
    let client = &settings.client;
    ConsumerRules {
        reset: settings.auto_offset_reset,
        isolation,
        partition_eof: settings.enable_partition_eof,
        min_bytes: settings.fetch_min_bytes,
        max_bytes: settings.fetch_max_bytes,
        max_wait: settings.fetch_max_wait,
        partition_bytes: settings.max_partition_fetch_bytes.unwrap_or(PARTITION_BYTES),
        partition_grows: settings.max_partition_fetch_bytes.is_none(),
        queued_bytes: settings.queued_max_bytes,
        connections: settings.fetch_max_connections,
        rack: client.client_rack.clone(),
        backoff: Backoff::new(client.retry_backoff, client.retry_backoff_max),
        replica_age: client.metadata_max_age,
        grace_period: GRACE_PERIOD.min(client.default_api_timeout),
        max_decompressions: std::thread::available_parallelism().map_or(1, NonZero::get),
        topic_propagation: settings.topic_propagation_max,
        origin: client.origin.clone(),
    }
}
