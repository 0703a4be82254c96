//! How a consumer is made.

use std::{num::NonZero, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;

use crate::consumer::{
    Consumer,
    background::{consumer_task::ConsumerTask, leave_on_drop::LeaveOnDrop, shared::Shared},
    buffer::{
        decoded_batch::DecodeConfig,
        fetch_buffer::{FetchBuffer, FetchWakers},
    },
    config::{
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

/// After how long without a leader the reader is told, unless `default.api.timeout.ms` is shorter.
const PATIENCE: Duration = Duration::from_secs(10);

/// `max.partition.fetch.bytes` where the user says nothing: at least that much is asked for.
const PARTITION_BYTES: i32 = 1 << 20;

/// Settings for a [`Consumer`]. Defaults are those of Kafka's Java client 4.3, and librdkafka's
/// where Java has no such setting.
///
/// Every property of [`property`](Self::property) is checked by [`build`](Self::build), after the
/// methods' settings and over them.
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

    /// `client.id`: how the consumer is called in the brokers' logs and quotas. Default: `ottla`.
    pub fn client_id(self, id: impl Into<String>) -> Self {
        self.set(|s| s.client.client_id = id.into())
    }

    /// `client.rack`: where the consumer runs, so that it may read from replicas nearby (KIP-392).
    /// Default: not said.
    pub fn client_rack(self, rack: impl Into<String>) -> Self {
        self.set(|s| s.client.client_rack = Some(rack.into()))
    }

    /// `group.id`: the group that it joins when it subscribes, and commits offsets for. Default:
    /// none.
    pub fn group(self, id: impl Into<String>) -> Self {
        self.set(|s| s.group_id = Some(id.into().into()))
    }

    /// `group.instance.id`: makes it a static member, whose partitions wait for it while it
    /// restarts (KIP-345). Default: none.
    pub fn group_instance_id(self, id: impl Into<String>) -> Self {
        self.set(|s| s.group_instance_id = Some(id.into().into()))
    }

    /// `group.protocol`: how the group's partitions are dealt out. Default:
    /// [`GroupProtocol::Classic`].
    ///
    /// With [`GroupProtocol::Consumer`] the coordinator decides how often to heartbeat, how long a
    /// session is and how to deal out, so `session.timeout.ms`, `heartbeat.interval.ms` and
    /// `partition.assignment.strategy` are refused, as in Java.
    pub fn group_protocol(self, protocol: GroupProtocol) -> Self {
        self.set(|s| s.group_protocol = protocol)
    }

    /// `group.remote.assignor`: which of the brokers' assignors deals out, with
    /// [`GroupProtocol::Consumer`]; Kafka's are `uniform` and `range`. Default: the coordinator's
    /// choice (`uniform`).
    pub fn group_remote_assignor(self, name: impl Into<String>) -> Self {
        self.set(|s| s.group_remote_assignor = Some(name.into().into()))
    }

    /// `auto.offset.reset`. Default: [`OffsetReset::Latest`].
    pub fn auto_offset_reset(self, reset: OffsetReset) -> Self {
        self.set(|s| s.auto_offset_reset = reset)
    }

    /// `enable.auto.commit`: whether what is done is committed every
    /// [`auto_commit_interval`](Self::auto_commit_interval), when partitions are revoked, and on
    /// close. Default: true, where there is a group.
    pub fn auto_commit(self, on: bool) -> Self {
        self.set(|s| s.enable_auto_commit = on)
    }

    /// `auto.commit.interval.ms`. Default: 5 s.
    pub fn auto_commit_interval(self, interval: Duration) -> Self {
        self.set(|s| s.auto_commit_interval = interval)
    }

    /// `partition.assignment.strategy`, with [`GroupProtocol::Classic`], in the order of
    /// preference: the group takes the one that most of its members prefer among those that all of
    /// them have. Default: [`RangeAssignor`](crate::consumer::assignor::RangeAssignor), then
    /// [`CooperativeStickyAssignor`](crate::consumer::assignor::CooperativeStickyAssignor), so that the group can be
    /// moved to the latter alone.
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

    /// `isolation.level`. Default: [`IsolationLevel::ReadUncommitted`].
    pub fn isolation_level(self, level: IsolationLevel) -> Self {
        self.set(|s| s.isolation_level = level)
    }

    /// `fetch.min.bytes`: how much a broker gathers before it answers, unless `fetch.max.wait.ms`
    /// passes first. Default: 1.
    pub fn fetch_min_bytes(self, bytes: i32) -> Self {
        self.set(|s| {
            s.fetch_min_bytes = bytes;
            s.note("fetch.min.bytes");
        })
    }

    /// `fetch.max.bytes`: about the largest answer of a broker; less is asked for where that keeps
    /// the reader busy, and an eighth of [`queued_max_bytes`](Self::queued_max_bytes) at most.
    /// Default: 52428800.
    pub fn fetch_max_bytes(self, bytes: i32) -> Self {
        self.set(|s| {
            s.fetch_max_bytes = bytes;
            s.note("fetch.max.bytes");
        })
    }

    /// `fetch.max.wait.ms`: how long a broker waits for something to answer. Default: 500 ms.
    pub fn fetch_max_wait(self, wait: Duration) -> Self {
        self.set(|s| s.fetch_max_wait = wait)
    }

    /// `max.partition.fetch.bytes`: about the most of one partition in one answer; a larger batch
    /// still comes. Default: 1048576, and more where so few partitions have records that answers of
    /// that size would leave a long line half empty: as much then as one answer may have (see
    /// [`fetch_max_bytes`](Self::fetch_max_bytes)). What is set here holds, be it the default's
    /// number.
    pub fn max_partition_fetch_bytes(self, bytes: i32) -> Self {
        self.set(|s| s.max_partition_fetch_bytes = Some(bytes))
    }

    /// `fetch.max.connections`: the connections to one broker over which partitions are fetched at
    /// most, each with a fetch session of its own (KIP-227) over other partitions. There is one as
    /// a rule; another is opened only while the answers of those that there are come as large as
    /// they may be and the reader waits for them all the same, and it is closed again as soon as
    /// the reader has enough to do. They share their broker's part of
    /// [`queued_max_bytes`](Self::queued_max_bytes). Default: 4.
    pub fn fetch_max_connections(self, connections: u8) -> Self {
        self.set(|s| s.fetch_max_connections = connections)
    }

    /// `queued.max.messages.kbytes`, in bytes: what is fetched ahead of the reader at most, of all
    /// partitions together, as it came and decompressed, and what is asked for. Brokers have equal
    /// shares of it. A batch that is larger than a share, or becomes so when it is decompressed,
    /// still comes, alone. What was handed out does not count. Default: 67108864.
    pub fn queued_max_bytes(self, bytes: usize) -> Self {
        self.set(|s| s.queued_max_bytes = bytes)
    }

    /// `max.decompressed.batch.bytes`: the largest batch, decompressed, that is accepted; a larger
    /// one is an error. Default: 134217728.
    pub fn max_decompressed_batch_bytes(self, bytes: usize) -> Self {
        self.set(|s| s.max_decompressed_batch_bytes = bytes)
    }

    /// `max.poll.records`: the most that one [`poll`](Consumer::poll) gives. Default: 500.
    pub fn max_poll_records(self, records: usize) -> Self {
        self.set(|s| s.max_poll_records = records)
    }

    /// `max.poll.interval.ms`: how long a member of a group may work on what it read before its
    /// partitions go to others; also how long a rebalance waits for it. Default: 300 s.
    pub fn max_poll_interval(self, interval: Duration) -> Self {
        self.set(|s| s.max_poll_interval = interval)
    }

    /// `session.timeout.ms`, with [`GroupProtocol::Classic`]: after how long without a heartbeat
    /// the group gives a member up. Default: 45 s.
    pub fn session_timeout(self, timeout: Duration) -> Self {
        self.set(|s| {
            s.session_timeout = timeout;
            s.note("session.timeout.ms");
        })
    }

    /// `heartbeat.interval.ms`, with [`GroupProtocol::Classic`]. Default: 3 s.
    pub fn heartbeat_interval(self, interval: Duration) -> Self {
        self.set(|s| {
            s.heartbeat_interval = interval;
            s.note("heartbeat.interval.ms");
        })
    }

    /// `enable.partition.eof`: whether the reader is told, by an error of kind
    /// [`EndOfPartition`](crate::ErrorKind::EndOfPartition), when it has come to the end of a
    /// partition: behind the last record, and again after more records came and were read. Default:
    /// false.
    pub fn enable_partition_eof(self, on: bool) -> Self {
        self.set(|s| s.enable_partition_eof = on)
    }

    /// `check.crcs`: whether the checksum of each batch is compared. Default: true.
    pub fn check_crcs(self, on: bool) -> Self {
        self.set(|s| s.check_crcs = on)
    }

    /// `topic.metadata.propagation.max.ms` (librdkafka's name): how long a topic may be missing, or
    /// forbidden, before the reader gets an error. A topic that was just created is not known to
    /// every broker yet, and a right that was just granted neither. Counts anew whenever the
    /// topic's state changes; [`Consumer::status`] says at once how it stands. Default: 30 s.
    pub fn topic_metadata_propagation_max(self, time: Duration) -> Self {
        self.set(|s| s.topic_propagation_max = time)
    }

    /// `request.timeout.ms`: how long a broker may take to answer, beyond what it was asked to
    /// wait. Default: 30 s.
    pub fn request_timeout(self, time: Duration) -> Self {
        self.set(|s| s.client.request_timeout = time)
    }

    /// `default.api.timeout.ms`: how long a call such as [`Consumer::commit`] may take with all its
    /// retries. Default: 60 s.
    pub fn default_api_timeout(self, time: Duration) -> Self {
        self.set(|s| s.client.default_api_timeout = time)
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

    /// Any property by its Java or librdkafka name. One that means nothing to a consumer is taken:
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

    /// Seeds what is random (jitter), so that a test can be repeated.
    #[cfg(test)]
    pub(crate) fn seed(self, seed: u64) -> Self {
        self.set(|s| s.client.seed = Some(seed))
    }

    /// Checks the settings and starts the consumer on the current tokio runtime. Needs no network.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration) for a setting that cannot be used, and
    /// without a tokio runtime that has timers and what the network needs (`enable_all()`).
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

        let opening = DecodeConfig {
            check_crcs: settings.check_crcs,
            limit: settings.max_decompressed_batch_bytes,
            origin: settings.client.origin.clone(),
        };
        let wakers = Arc::new(FetchWakers::default());
        let assignment = ConsumerState::new(rules(&settings), StdRng::seed_from_u64(seed), wakers.factory());
        let buffer = FetchBuffer::new(assignment, wakers, opening, runtime.clone());
        let (calls, called) = mpsc::unbounded_channel();
        let shared = Shared::new(client, settings, group, buffer, calls);
        let task = runtime.spawn(ConsumerTask::new(shared.clone(), received, called).run());
        let leave = LeaveOnDrop::new(shared.clone(), task.abort_handle(), runtime);
        Ok(Consumer::new(shared, Arc::new(leave)))
    }
}

fn rules(settings: &ConsumerSettings) -> ConsumerRules {
    let client = &settings.client;
    ConsumerRules {
        reset: settings.auto_offset_reset,
        isolation: settings.isolation_level,
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
        grace_period: PATIENCE.min(client.default_api_timeout),
        max_decompressions: std::thread::available_parallelism().map_or(1, NonZero::get),
        topic_propagation: settings.topic_propagation_max,
        origin: client.origin.clone(),
    }
}
