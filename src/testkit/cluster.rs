//! The cluster's handle for tests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use super::{
    batch,
    broker_task::{BrokerTask, Listener},
    fault::Fault,
    journal::Request,
    options::Options,
    shared::{Shared, now},
    state::{
        Broker, State,
        consumer_group::ConsumerGroupView,
        group::GroupView,
        markers,
        sessions::Sessions,
        sink::Received,
        topics::{NO_LEADER, Partition},
    },
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    net::{IN_MEMORY_DOMAIN, MemoryNetwork, Network, Tcp, check_network, runtime},
    record::{ConsumerRecord, Record, to_millis},
    wire::{
        ApiKey, Compression,
        batch::{BatchHeader, ProducerStamp},
    },
};

/// A Kafka cluster inside the process. Dropping it ends all its brokers.
///
/// Its methods change the cluster's state directly, without a request, and take effect at once;
/// requests that wait for partitions or groups are woken. The methods must not be called from a
/// fault's [`when`](Fault::when).
#[derive(Debug)]
pub struct Cluster {
    pub(super) shared: Arc<Shared>,
    network: Option<MemoryNetwork>,
    tasks: Mutex<BTreeMap<i32, BrokerTask>>,
}

/// A fault that was given to a cluster. Dropping the handle leaves the fault in force.
#[derive(Debug)]
pub struct FaultHandle {
    shared: Arc<Shared>,
    id: u64,
    hits: Arc<watch::Sender<u64>>,
}

impl FaultHandle {
    /// Returns the number of requests that the fault has struck.
    pub fn hits(&self) -> u64 {
        *self.hits.borrow()
    }

    /// Waits until the fault has struck `hits` requests. It has no timeout of its own, so the test
    /// has to set one.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn reached(&self, hits: u64) {
        // The sender lives in this handle, so that the wait cannot end early.
        let _ = self.hits.subscribe().wait_for(|&seen| seen >= hits).await;
    }

    /// Takes the fault out of force. Requests that it has already struck stay struck.
    pub fn clear(&self) {
        self.shared.lock().faults.clear(self.id);
    }
}

impl Cluster {
    /// Starts the brokers; when this returns they accept connections.
    ///
    /// ```
    /// use ottla::{Record, testkit::{Cluster, Options}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let cluster = Cluster::start(Options::new().brokers(3).in_memory()).await?;
    /// cluster.create_topic("orders", 6)?;
    /// let producer = cluster.producer().build().await?;
    /// producer.send(Record::to("orders").with_partition(0).with_value("shipped")).await?.await?;
    /// assert_eq!(cluster.log_end("orders", 0)?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Network` when a port is not available, `Configuration` for certificates that cannot be
    /// used, and outside of a tokio runtime that has timers and, unless the cluster is in memory,
    /// IO.
    ///
    /// # Cancel safety
    /// Safe: brokers that were started are stopped when the future is dropped.
    pub async fn start(options: Options) -> Result<Self> {
        runtime("a cluster of the testkit")?;
        let network = options.network.clone();
        if network.is_none() {
            check_network(&Tcp)?;
        }
        #[cfg(feature = "tls")]
        let tls = options.tls.as_ref().map(super::Tls::config).transpose()?;
        let (mut brokers, mut listeners) = (Vec::new(), Vec::new());
        for id in (1..).take(options.brokers) {
            let listener = Listener::bind(network.as_ref(), 0).await.map_err(|error| no_port(id, error))?;
            let port = listener.port().map_err(|error| no_port(id, error))?;
            let index = listeners.len();
            let rack = options.racks.get(index.checked_rem(options.racks.len()).unwrap_or(0)).cloned();
            let host = match network {
                None => "127.0.0.1".to_owned(),
                // A client that is not on this network must not reach a broker on this machine
                // instead.
                Some(_) => format!("broker-{id}{IN_MEMORY_DOMAIN}"),
            };
            brokers.push(Broker { id, host, port, rack, up: true, sessions: Sessions::default() });
            listeners.push((id, listener));
        }
        let shared = Arc::new(Shared::new(State::new(options, brokers, to_millis(SystemTime::now()), now())));
        #[cfg(feature = "tls")]
        {
            *shared.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
        }
        let tasks = listeners.into_iter().map(|(id, listener)| (id, BrokerTask::spawn(shared.clone(), id, listener)));
        let tasks = Mutex::new(tasks.collect());
        Ok(Self { shared, network, tasks })
    }

    /// Replaces the brokers' TLS settings (their certificates and what they require of clients) for
    /// connections that are made from now on.
    ///
    /// # Errors
    /// `Configuration` for certificates that cannot be used.
    #[cfg(feature = "tls")]
    pub fn replace_tls(&self, tls: &super::Tls) -> Result<()> {
        *self.shared.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls.config()?);
        Ok(())
    }

    /// Returns `bootstrap.servers`: the addresses of all brokers, including those that are down.
    ///
    /// Brokers on loopback ports are `127.0.0.1:<port>`. Those on an in-memory network have names
    /// that cannot be resolved (`broker-1.testkit.invalid:9092`), and a client on TCP that meets
    /// one fails at once with [`Configuration`](ErrorKind::Configuration).
    /// [`producer`](Self::producer), [`consumer`](Self::consumer) and [`admin`](Self::admin) set
    /// addresses and network together.
    pub fn bootstrap(&self) -> String {
        let state = self.shared.lock();
        let addresses: Vec<String> =
            state.brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
        addresses.join(",")
    }

    /// Returns the network that the brokers are on, for clients.
    pub fn network(&self) -> Arc<dyn Network> {
        match &self.network {
            Some(network) => Arc::new(network.clone()),
            None => Arc::new(Tcp),
        }
    }

    /// Returns the ids of all brokers.
    pub fn brokers(&self) -> Vec<i32> {
        self.shared.lock().brokers.iter().map(|broker| broker.id).collect()
    }

    /// Creates a topic; partition `p` is led by broker `1 + p mod brokers`, or the next broker that
    /// is up. Kafka's internal topics (`__consumer_offsets`, `__transaction_state`,
    /// `__share_group_state`) are internal here too.
    ///
    /// # Errors
    /// `Broker` with the error code of CreateTopics.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, [("", ""); 0])
    }

    /// Creates a topic with configurations; those that have an effect here are
    /// `message.timestamp.type` and `max.message.bytes`.
    ///
    /// # Errors
    /// Those of [`create_topic`](Self::create_topic).
    pub fn create_topic_with<K: Into<String>, V: Into<String>>(
        &self,
        name: &str,
        partitions: i32,
        configs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let configs = configs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self.change(
            |state| state.create_topic(name, partitions, None, configs).map(|_| ()),
            || format!("create {name}"),
        )
    }

    /// Deletes a topic, and the offsets that groups committed for it.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.change(|state| state.delete_topic(name).map(|_| ()), || format!("delete {name}"))
    }

    /// Grows a topic to `total` partitions.
    ///
    /// # Errors
    /// `Broker` with INVALID_PARTITIONS when `total` is not larger than the present number, or
    /// `UnknownTopicOrPartition`.
    pub fn add_partitions(&self, name: &str, total: i32) -> Result<()> {
        self.change(|state| state.grow_topic(name, total), || format!("grow {name} to {total}"))
    }

    /// Returns the broker that leads a partition, if there is a leader.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<Option<i32>> {
        self.look(topic, partition, |found| Some(found.leader).filter(|&leader| leader != NO_LEADER))
    }

    /// Returns the partition's leader epoch, which begins at 0 and rises with every change of the
    /// leader.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn leader_epoch(&self, topic: &str, partition: i32) -> Result<i32> {
        self.look(topic, partition, |found| found.leader_epoch)
    }

    /// Makes another broker the leader of a partition, under a new leader epoch.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `Broker` when the broker is down or does not exist.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) -> Result<()> {
        let what = || format!("move {topic}[{partition}] to broker {broker}");
        self.change(|state| state.move_leader(topic, partition, broker), what)
    }

    /// Lets a follower's copy of a partition end at `end` (the follower lags and never catches up);
    /// `None` lets it keep up again. Fetches beyond the copy's end get OFFSET_OUT_OF_RANGE, as from
    /// a follower that was down for long. This applies while the broker does not lead.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn lag_follower(&self, topic: &str, partition: i32, broker: i32, end: Option<i64>) -> Result<()> {
        let lag = |state: &mut State| {
            let found = state.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            match end {
                Some(end) => _ = found.lagging.insert(broker, end.max(0)),
                None => _ = found.lagging.remove(&broker),
            }
            Ok(())
        };
        self.change(lag, || format!("lag {topic}[{partition}] at broker {broker}"))
    }

    /// Lets a partition's leader send every reader that names a rack to `broker` (KIP-392, from
    /// Fetch v11 on), whether or not the broker is up, a follower, or known; `None` ends that.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn prefer_replica(&self, topic: &str, partition: i32, broker: Option<i32>) -> Result<()> {
        let prefer = |state: &mut State| {
            let found = state.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            found.preferred = broker;
            Ok(())
        };
        self.change(prefer, || format!("send readers of {topic}[{partition}] elsewhere"))
    }

    /// Returns the broker that coordinates a consumer group or transactional id.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        self.shared.lock().coordinator(group)
    }

    /// Makes another broker the coordinator of a group or transactional id. Requests of members
    /// that are waiting end with NOT_COORDINATOR.
    ///
    /// # Errors
    /// `Broker` when the broker is down or does not exist.
    pub fn move_coordinator(&self, group: &str, broker: i32) -> Result<()> {
        self.change(|state| state.move_coordinator(group, broker), || format!("move {group} to broker {broker}"))
    }

    /// Lets the coordinator forget a group's members and generation, as if the coordinator's log
    /// had lost its end. Requests of members that are waiting end with UNKNOWN_MEMBER_ID, and so do
    /// their next requests; in a group of the consumer protocol these end with GROUP_ID_NOT_FOUND.
    /// Committed offsets stay.
    ///
    /// # Errors
    /// `Broker` with GROUP_ID_NOT_FOUND.
    pub fn forget_group(&self, group: &str) -> Result<()> {
        let forget = |state: &mut State| {
            let found = state.groups.get_mut(group).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
            found.forget_members();
            Ok(())
        };
        self.change(forget, || format!("forget the members of {group}"))
    }

    /// Returns a consumer group as it is now; `None` if no request has named it yet.
    pub fn group(&self, group: &str) -> Option<GroupView> {
        let mut state = self.shared.lock();
        state.groups.contains_key(group).then(|| state.group_mut(group, now()).view())
    }

    /// Returns a group of the consumer protocol (KIP-848) as it is now; `None` if there is none of
    /// that name, or a classic one.
    pub fn consumer_group(&self, group: &str) -> Option<ConsumerGroupView> {
        let mut state = self.shared.lock();
        state.consumer_group(group, now()).map(|(found, metadata, _)| found.view(&metadata))
    }

    /// Returns the offset that a group committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let state = self.state();
        Some(state.groups.get(group)?.offsets.get(topic, partition)?.offset)
    }

    /// Returns all records of a partition, decoded, from its log's start to its end.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `Corrupt` when a batch cannot be read.
    pub fn records(&self, topic: &str, partition: i32) -> Result<Vec<ConsumerRecord>> {
        let name: Arc<str> = topic.into();
        self.look(topic, partition, |found| found.log.records(&name, partition))?
    }

    /// Returns the offset that the next record of the partition gets.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn log_end(&self, topic: &str, partition: i32) -> Result<i64> {
        self.look(topic, partition, |found| found.log.end())
    }

    /// Returns the first offset that the partition still holds.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn log_start(&self, topic: &str, partition: i32) -> Result<i64> {
        self.look(topic, partition, |found| found.log.start())
    }

    /// Appends records to a partition as one uncompressed batch, as a producer without idempotence
    /// would, and returns the offset of the first. The records' own topics and partitions do not
    /// matter; a record without a timestamp gets the cluster's time.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `InvalidArgument` when there are no records.
    pub fn append(&self, topic: &str, partition: i32, records: &[Record<'_>]) -> Result<i64> {
        let mut state = self.shared.lock();
        let millis = state.millis(now());
        let bytes = batch::build(records, Compression::None, millis, ProducerStamp::NONE)?;
        let header = BatchHeader::parse(&bytes)?;
        let unknown = || unknown_partition(topic, partition);
        let found = state.topics.get_mut(topic).ok_or_else(unknown)?;
        let append_time = found.log_append_time().then_some(millis);
        let found = found.partition_mut(partition).ok_or_else(unknown)?;
        let offset = found.log.append(&bytes, &header, found.leader_epoch, append_time)?;
        drop(state);
        self.shared.ring();
        Ok(offset)
    }

    /// Puts bytes into a partition in the place of a batch of `records` records, as a broken disk
    /// would, and returns the offset of the first. The bytes are not checked and not changed,
    /// except for the first eight, which hold a batch's base offset; [`records`](Self::records) may
    /// not be able to read the partition afterwards.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn append_raw(&self, topic: &str, partition: i32, bytes: impl Into<Vec<u8>>, records: u32) -> Result<i64> {
        let mut state = self.shared.lock();
        let found = state.topics.partition_mut(topic, partition).ok_or_else(|| unknown_partition(topic, partition))?;
        let offset = found.log.append_raw(bytes.into(), records);
        drop(state);
        self.shared.ring();
        Ok(offset)
    }

    /// Makes the batch that holds `offset` unreadable for the brokers, as on a broken disk; returns
    /// true if there is such a batch. Fetches of it get CORRUPT_MESSAGE.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn spoil_batch(&self, topic: &str, partition: i32, offset: i64) -> Result<bool> {
        let spoil = |state: &mut State| {
            let found = state.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            Ok(found.log.spoil_batch(offset))
        };
        self.change(spoil, || format!("spoil a batch of {topic}[{partition}]"))
    }

    /// Removes the batch that holds `offset`, as compaction does; returns true if there was one.
    /// The other batches keep their offsets.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn lose_batch(&self, topic: &str, partition: i32, offset: i64) -> Result<bool> {
        let lose = |state: &mut State| {
            let found = state.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            Ok(found.log.lose_batch(offset))
        };
        self.change(lose, || format!("lose a batch of {topic}[{partition}]"))
    }

    /// Removes the end of a partition from `offset` on, as an unclean election does, under a new
    /// leader epoch; a batch that `offset` cuts through is removed whole. Returns the new end.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) -> Result<i64> {
        self.change(|state| state.truncate(topic, partition, offset), || format!("truncate {topic}[{partition}]"))
    }

    /// Deletes the records before `offset`, as retention does. Returns the new start.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `Broker` with OFFSET_OUT_OF_RANGE.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<i64> {
        let what = || format!("delete records of {topic}[{partition}]");
        self.change(|state| state.delete_records(topic, partition, offset), what)
    }

    /// Forgets the idempotent producers of a partition, as a broker does when they were idle for
    /// long (`producer.id.expiration.ms`).
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn forget_producers(&self, topic: &str, partition: i32) -> Result<()> {
        let what = || format!("forget producers of {topic}[{partition}]");
        let forget = |state: &mut State| {
            let found = state.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            found.producers.forget();
            Ok(())
        };
        self.change(forget, what)
    }

    /// Kills a broker: its port closes, its connections break, its partitions and groups move to
    /// other brokers that are up. Its data is not lost. All of this has happened when the method
    /// returns.
    ///
    /// # Errors
    /// `InvalidArgument` when the broker is down already or does not exist.
    ///
    /// # Cancel safety
    /// Safe: once polled, the broker dies even if the future is dropped.
    pub async fn kill(&self, broker: i32) -> Result<()> {
        let task = self.tasks().remove(&broker);
        let task = task.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, format!("broker {broker} is not up")))?;
        self.shared.lock().broker_down(broker);
        let stopped = task.stop();
        self.shared.ring();
        stopped.await;
        Ok(())
    }

    /// Starts a broker again that was killed, at its old address. It leads those of its partitions
    /// that have no leader.
    ///
    /// # Errors
    /// `InvalidArgument` when the broker is up or does not exist; `Network` when its port is taken.
    ///
    /// # Cancel safety
    /// Safe: the broker is either started or not.
    pub async fn restart(&self, broker: i32) -> Result<()> {
        let port = self.shared.lock().broker(broker).filter(|found| !found.up).map(|found| found.port);
        let port =
            port.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, format!("broker {broker} is not down")))?;
        let listener = Listener::bind(self.network.as_ref(), port).await.map_err(|error| no_port(broker, error))?;
        self.shared.lock().broker_up(broker);
        let task = BrokerTask::spawn(self.shared.clone(), broker, listener);
        self.tasks().insert(broker, task);
        self.shared.ring();
        Ok(())
    }

    /// Breaks all connections of a broker; the broker stays up and accepts new ones.
    pub fn disconnect(&self, broker: i32) {
        if let Some(task) = self.tasks().get(&broker) {
            task.disconnect();
        }
    }

    /// Puts a fault in force.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        let (id, hits) = self.shared.lock().faults.plant(fault);
        FaultHandle { shared: self.shared.clone(), id, hits }
    }

    /// Takes all faults out of force.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear_all();
    }

    /// Returns the number of fetch sessions that a broker keeps at present (KIP-227); 0 if there is
    /// no such broker.
    pub fn fetch_sessions(&self, broker: i32) -> usize {
        self.shared.lock().broker(broker).map_or(0, |broker| broker.sessions.len())
    }

    /// Returns the number of requests of that kind that the brokers have received.
    pub fn requests(&self, key: ApiKey) -> u64 {
        self.shared.lock().journal.seen(key)
    }

    /// Returns totals of the requests that were acknowledged in sink mode ([`Options::sink`]);
    /// requests that a fault struck and those with acks=0 are not counted.
    pub fn received(&self) -> Received {
        self.shared.lock().sink.as_ref().map(|sink| sink.received).unwrap_or_default()
    }

    /// Returns the requests that the brokers have received, oldest first: the last 65,536 of them,
    /// and in sink mode none unless a fault is in force. Requests of a version that is not served
    /// are not included.
    pub fn journal(&self) -> Vec<Request> {
        self.shared.lock().journal.entries()
    }

    /// Locks the state, after the changes of transactions that were due by now.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.shared.lock();
        markers::advance(&mut state, now());
        state
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<i32, BrokerTask>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ErrorCode>,
        what: impl FnOnce() -> String,
    ) -> Result<T> {
        let changed = change(&mut self.state());
        self.shared.ring();
        changed.map_err(|code| match code {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                Error::new(ErrorKind::UnknownTopicOrPartition, format!("{}: there is no such partition", what()))
            }
            code => Error::broker(code, what()),
        })
    }

    pub(super) fn look<T>(&self, topic: &str, partition: i32, look: impl FnOnce(&Partition) -> T) -> Result<T> {
        let state = self.state();
        state.topics.partition(topic, partition).map(look).ok_or_else(|| unknown_partition(topic, partition))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in self.tasks().values() {
            task.abort();
        }
    }
}

pub(super) fn unknown_partition(topic: &str, partition: i32) -> Error {
    Error::new(ErrorKind::UnknownTopicOrPartition, format!("there is no partition {topic}[{partition}]"))
}

fn no_port(broker: i32, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Network, format!("broker {broker} cannot listen")).with_source(error)
}
