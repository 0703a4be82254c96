//! Options of a test cluster.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    sasl::Sasl,
    state::{consumer_group::ConsumerGroupSettings, group::GroupSettings},
};
use crate::{net::MemoryNetwork, wire::ApiKey};

/// Options of a [`Cluster`](super::Cluster). The defaults are those of a Kafka cluster, except that
/// a group's first rebalance is not delayed.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) brokers: usize,
    pub(crate) network: Option<MemoryNetwork>,
    pub(crate) auto_create: bool,
    pub(crate) default_partitions: i32,
    pub(crate) replication_factor: Option<usize>,
    pub(crate) racks: Vec<String>,
    pub(crate) rack_aware: bool,
    pub(crate) max_versions: BTreeMap<ApiKey, i16>,
    /// Requests without an entry in `max_versions` are not served.
    pub(crate) serves_listed_only: bool,
    pub(crate) features: BTreeMap<String, i16>,
    pub(crate) max_message_bytes: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) groups: GroupSettings,
    pub(crate) consumer_groups: ConsumerGroupSettings,
    pub(crate) strict_producer_ids: bool,
    pub(crate) marker_delay: Duration,
    pub(crate) max_transaction_timeout: Duration,
    pub(crate) verifies_transactions: bool,
    pub(crate) leader_hints: bool,
    pub(crate) shuffle_aborted: bool,
    pub(crate) fetch_sessions: usize,
    pub(crate) sink: bool,
    pub(crate) prepared: Vec<(String, Vec<Bytes>)>,
    pub(crate) cluster_id: String,
    pub(crate) seed: u64,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<super::Tls>,
    pub(crate) sasl: Option<Arc<Sasl>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: 1,
            network: None,
            auto_create: true,
            default_partitions: 1,
            replication_factor: None,
            racks: Vec::new(),
            rack_aware: false,
            max_versions: BTreeMap::new(),
            serves_listed_only: false,
            features: BTreeMap::new(),
            max_message_bytes: 1_048_588,
            max_request_bytes: 100 * 1024 * 1024,
            groups: GroupSettings {
                initial_rebalance_delay: Duration::ZERO,
                min_session_timeout: Duration::from_secs(6),
                max_session_timeout: Duration::from_secs(1800),
                max_size: usize::MAX,
            },
            consumer_groups: ConsumerGroupSettings {
                heartbeat_interval: Duration::from_secs(5),
                session_timeout: Duration::from_secs(45),
                max_size: usize::MAX,
                migrates: true,
            },
            strict_producer_ids: false,
            marker_delay: Duration::ZERO,
            max_transaction_timeout: Duration::from_secs(15 * 60),
            verifies_transactions: true,
            leader_hints: true,
            shuffle_aborted: false,
            fetch_sessions: 1000,
            sink: false,
            prepared: Vec::new(),
            cluster_id: "ottla-testkit".to_owned(),
            seed: 0,
            #[cfg(feature = "tls")]
            tls: None,
            sasl: None,
        }
    }
}

impl Options {
    /// Creates options for one broker on a loopback port, with Kafka's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of brokers, at least one; their ids are 1, 2, … (default: 1).
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers.max(1);
        self
    }

    /// Puts the brokers on an in-memory network instead of loopback ports. Tests under paused time
    /// need this: over real sockets, paused time runs ahead of the bytes.
    pub fn network(mut self, network: MemoryNetwork) -> Self {
        self.network = Some(network);
        self
    }

    /// Puts the brokers on an in-memory network that belongs to the cluster; clients get it from
    /// [`Cluster::network`](super::Cluster::network).
    pub fn in_memory(self) -> Self {
        self.network(MemoryNetwork::new())
    }

    /// Lets requests for a topic create it (`auto.create.topics.enable`, default: true). As with
    /// Kafka, the response to the first request is still UNKNOWN_TOPIC_OR_PARTITION.
    pub fn auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// Sets the number of partitions of a topic that is created without one (`num.partitions`,
    /// default: 1).
    pub fn default_partitions(mut self, partitions: i32) -> Self {
        self.default_partitions = partitions.max(1);
        self
    }

    /// Sets the number of replicas of a topic that is created without one
    /// (`default.replication.factor`; default: three, or the number of brokers if that is smaller).
    /// Replicas always hold everything; they only determine which brokers may lead next.
    pub fn replication_factor(mut self, factor: usize) -> Self {
        self.replication_factor = Some(factor);
        self
    }

    /// Sets the racks of the brokers, in the order of their ids; a shorter list is repeated from
    /// its beginning (`broker.rack`, default: none).
    pub fn racks<R: Into<String>>(mut self, racks: impl IntoIterator<Item = R>) -> Self {
        self.racks = racks.into_iter().map(Into::into).collect();
        self
    }

    /// Lets leaders send readers to a follower in the reader's own rack (KIP-392;
    /// `replica.selector.class` set to Kafka's RackAwareReplicaSelector; default: false). Followers
    /// serve any reader that asks them, as with Kafka.
    pub fn rack_aware(mut self, rack_aware: bool) -> Self {
        self.rack_aware = rack_aware;
        self
    }

    /// Caps the version of a request, as an older broker does; with a negative version the request
    /// is not served at all.
    pub fn max_version(mut self, key: ApiKey, version: i16) -> Self {
        self.max_versions.insert(key, version);
        self
    }

    /// Makes the cluster an older Kafka: it serves these requests alone, each up to its version, as
    /// an older broker's ApiVersions response lists them. Requests that the testkit does not know
    /// are left out. ApiVersions itself is always served.
    ///
    /// ```
    /// use ottla::{ApiKey, testkit::Options};
    ///
    /// // Enough of Kafka 1.1 for a producer.
    /// let old = [(ApiKey::Produce, 5), (ApiKey::Metadata, 5), (ApiKey::InitProducerId, 0)];
    /// let options = Options::new().max_versions(old);
    /// ```
    pub fn max_versions(mut self, versions: impl IntoIterator<Item = (ApiKey, i16)>) -> Self {
        self.max_versions = versions.into_iter().collect();
        self.serves_listed_only = true;
        self
    }

    /// Sets a finalized feature that ApiVersions reports, e.g. `transaction.version` at level 2
    /// (default: none). [`Cluster::set_feature`](super::Cluster::set_feature) changes it later.
    pub fn feature(mut self, name: impl Into<String>, level: i16) -> Self {
        self.features.insert(name.into(), level);
        self
    }

    /// Sets the size of the largest batch that is accepted, in bytes (`message.max.bytes`, default:
    /// 1,048,588). A topic's own `max.message.bytes` takes precedence.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Sets the size of the largest request that is accepted, in bytes (`socket.request.max.bytes`,
    /// default: 104,857,600); a larger request closes its connection.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Sets the time for which a group waits for more members when its first one joins
    /// (`group.initial.rebalance.delay.ms`; default: none, unlike Kafka's 3 s).
    pub fn initial_rebalance_delay(mut self, delay: Duration) -> Self {
        self.groups.initial_rebalance_delay = delay;
        self
    }

    /// Sets the range of session timeouts that members may ask for (`group.min.session.timeout.ms`,
    /// `group.max.session.timeout.ms`; default: 6 s to 30 min).
    pub fn session_timeouts(mut self, min: Duration, max: Duration) -> Self {
        self.groups.min_session_timeout = min;
        self.groups.max_session_timeout = max;
        self
    }

    /// Sets the maximum number of members of a group (`group.max.size` and
    /// `group.consumer.max.size`, default: no limit).
    pub fn max_group_size(mut self, members: usize) -> Self {
        self.groups.max_size = members;
        self.consumer_groups.max_size = members;
        self
    }

    /// Sets the heartbeat interval of members of the consumer protocol, and the time without a
    /// heartbeat after which they are removed (`group.consumer.heartbeat.interval.ms` and
    /// `group.consumer.session.timeout.ms`; default: 5 s and 45 s).
    pub fn consumer_group_timeouts(mut self, heartbeat_interval: Duration, session: Duration) -> Self {
        self.consumer_groups.heartbeat_interval = heartbeat_interval;
        self.consumer_groups.session_timeout = session;
        self
    }

    /// Lets groups move between the classic and the consumer protocol while they have members
    /// (`group.consumer.migration.policy` bidirectional, or disabled; default: true).
    pub fn consumer_group_migration(mut self, moves: bool) -> Self {
        self.consumer_groups.migrates = moves;
        self
    }

    /// Refuses a producer that a partition does not know with UNKNOWN_PRODUCER_ID unless it begins
    /// at sequence 0, as brokers before 2.5 do (KIP-360; default: false).
    pub fn strict_producer_ids(mut self, strict: bool) -> Self {
        self.strict_producer_ids = strict;
        self
    }

    /// Sets the time between the end of a transaction at its coordinator and the writing of its
    /// markers (default: none). EndTxn is answered at once, as with Kafka; the next transaction of
    /// the same id gets CONCURRENT_TRANSACTIONS until the markers are written.
    /// [`Cluster::set_marker_delay`](super::Cluster::set_marker_delay) changes it later.
    pub fn marker_delay(mut self, delay: Duration) -> Self {
        self.marker_delay = delay;
        self
    }

    /// Sets the longest `transaction.timeout.ms` that a producer may ask for
    /// (`transaction.max.timeout.ms`, default: 15 min).
    pub fn max_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.max_transaction_timeout = timeout;
        self
    }

    /// Lets brokers ask the coordinator whether a partition or group belongs to the transaction
    /// before they accept its first batch or offsets, in versions in which the producer has to add
    /// it (`transaction.partition.verification.enable`, KIP-890, default: true). Brokers before 3.6
    /// do not ask.
    pub fn transaction_verification(mut self, verify: bool) -> Self {
        self.verifies_transactions = verify;
        self
    }

    /// Lets errors of Produce and Fetch name the new leader (KIP-951, default: true).
    pub fn leader_hints(mut self, hints: bool) -> Self {
        self.leader_hints = hints;
        self
    }

    /// Lets Fetch list aborted transactions in any order, as some brokers do, instead of the order
    /// of their markers (default: false).
    pub fn shuffle_aborted(mut self, shuffle: bool) -> Self {
        self.shuffle_aborted = shuffle;
        self
    }

    /// Sets the number of fetch sessions that each broker keeps
    /// (`max.incremental.fetch.session.cache.slots`, default: 1000; KIP-227). A new session
    /// replaces one that was not used for two minutes, or a smaller one that is at least two
    /// minutes old; if there is neither, its reader gets no session.
    pub fn fetch_sessions(mut self, slots: usize) -> Self {
        self.fetch_sessions = slots;
        self
    }

    /// Makes the cluster a sink for benchmarks: Produce is answered at once and nothing is kept or
    /// checked, Fetch serves [`prepared`](Self::prepared) batches for ever (default: false).
    pub fn sink(mut self, sink: bool) -> Self {
        self.sink = sink;
        self
    }

    /// Sets the batches that every partition of a topic serves for ever in sink mode, in wire
    /// format (v2), one batch per element; their base offsets are rewritten as they are sent. The
    /// topic is created with [`default_partitions`](Self::default_partitions).
    pub fn prepared(mut self, topic: impl Into<String>, batches: Vec<Bytes>) -> Self {
        self.prepared.push((topic.into(), batches));
        self
    }

    /// Secures the listeners with TLS (default: none): `SSL`, and with [`sasl`](Self::sasl)
    /// `SASL_SSL`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: super::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Requires SASL of clients (default: none): `SASL_PLAINTEXT`, and with `tls` `SASL_SSL`.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(Arc::new(sasl));
        self
    }

    /// Sets the cluster's id (default: `ottla-testkit`). Each of two clusters with different ids
    /// refuses a client that is looking for the other, as Kafka does from 4.4 on (KIP-1242).
    pub fn cluster_id(mut self, cluster_id: impl Into<String>) -> Self {
        self.cluster_id = cluster_id.into();
        self
    }

    /// Sets the seed of the cluster's random choices, such as topic and member ids (default: 0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}
