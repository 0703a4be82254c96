//! The cluster as a test holds it.

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
/// Its methods act on the cluster from behind the brokers' backs, at once; partitions and groups
/// that are waiting to hear of it do. They must not be called from a fault's [`when`](Fault::when).
#[derive(Debug)]
pub struct Cluster {
    pub(super) shared: Arc<Shared>,
    network: Option<MemoryNetwork>,
    tasks: Mutex<BTreeMap<i32, BrokerTask>>,
}

/// A fault that was given to a cluster. Dropping it leaves the fault in force.
#[derive(Debug)]
pub struct FaultHandle {
    shared: Arc<Shared>,
    id: u64,
    hits: Arc<watch::Sender<u64>>,
}

impl FaultHandle {
    /// How many requests it has struck.
    pub fn hits(&self) -> u64 {
        *self.hits.borrow()
    }

    /// Waits until it has struck so many requests. Without a limit of time of its own: a test
    /// brings one.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn reached(&self, hits: u64) {
        // The sender lives in this handle, so that the wait cannot end early.
        let _ = self.hits.subscribe().wait_for(|&seen| seen >= hits).await;
    }

    /// Takes it out of force. Requests that it has already struck stay struck.
    pub fn clear(&self) {
        self.shared.lock().faults.clear(self.id);
    }
}

impl Cluster {
    /// Starts the brokers; when this returns they can be connected to.
    ///
    /// # Errors
    /// `Network` when a port cannot be had, `Configuration` for certificates that cannot be used,
    /// and without a tokio runtime that has timers and, unless the cluster is in memory, IO.
    ///
    /// # Cancel safety
    /// Safe: what was started ends when the future is dropped.
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
                // A client that is not on this network must not reach a broker of the machine in
                // its place.
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

    /// Replaces the brokers' certificates, or what they ask of clients: for connections that are
    /// made from now on.
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

    /// The network that the brokers are on, for the client.
    pub fn network(&self) -> Arc<dyn Network> {
        match &self.network {
            Some(network) => Arc::new(network.clone()),
            None => Arc::new(Tcp),
        }
    }

    /// The ids of all brokers.
    pub fn brokers(&self) -> Vec<i32> {
        self.shared.lock().brokers.iter().map(|broker| broker.id).collect()
    }

    /// Makes a topic; partition `p` is led by broker `1 + p mod brokers`, or the next that is up.
    /// What Kafka keeps for itself by that name (`__consumer_offsets`, `__transaction_state`,
    /// `__share_group_state`) is internal here too.
    ///
    /// # Errors
    /// `Broker` with the code that CreateTopics would answer.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, [("", ""); 0])
    }

    /// Makes a topic with configurations; those that matter here are `message.timestamp.type` and
    /// `max.message.bytes`.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic).
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

    /// Deletes a topic, and what groups committed for it.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.change(|state| state.delete_topic(name).map(|_| ()), || format!("delete {name}"))
    }

    /// Grows a topic to so many partitions in all.
    ///
    /// # Errors
    /// `Broker` with INVALID_PARTITIONS when it would not grow, or `UnknownTopicOrPartition`.
    pub fn add_partitions(&self, name: &str, total: i32) -> Result<()> {
        self.change(|state| state.grow_topic(name, total), || format!("grow {name} to {total}"))
    }

    /// The broker that leads a partition, if any does.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<Option<i32>> {
        self.look(topic, partition, |found| Some(found.leader).filter(|&leader| leader != NO_LEADER))
    }

    /// The partition's leader epoch, from 0; it rises with every change of the leader.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn leader_epoch(&self, topic: &str, partition: i32) -> Result<i32> {
        self.look(topic, partition, |found| found.leader_epoch)
    }

    /// Gives a partition to another broker, under a new leader epoch.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `Broker` when the broker is down or there is none of that id.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) -> Result<()> {
        let what = || format!("move {topic}[{partition}] to broker {broker}");
        self.change(|state| state.move_leader(topic, partition, broker), what)
    }

    /// Lets a follower's copy of a partition end at `end` (it lags, and never catches up), or keep
    /// up again. Readers that ask it for what lies beyond get OFFSET_OUT_OF_RANGE, as from a
    /// follower that was down for long. It holds while the broker does not lead.
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

    /// Lets a partition's leader send every reader that names a rack to that broker (KIP-392, from
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

    /// The broker that coordinates a consumer group or transactional id.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        self.shared.lock().coordinator(group)
    }

    /// Gives a group or transactional id to another broker. What members wait for ends with
    /// NOT_COORDINATOR.
    ///
    /// # Errors
    /// `Broker` when the broker is down or there is none of that id.
    pub fn move_coordinator(&self, group: &str, broker: i32) -> Result<()> {
        self.change(|state| state.move_coordinator(group, broker), || format!("move {group} to broker {broker}"))
    }

    /// Lets the coordinator forget a group's members and generation, as one does whose log lost its
    /// end. What members wait for ends with UNKNOWN_MEMBER_ID, and so does what they ask next; of a
    /// group of the consumer protocol, GROUP_ID_NOT_FOUND. Committed offsets stay.
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

    /// A consumer group as it is now; `None` where nobody has asked for it yet.
    pub fn group(&self, group: &str) -> Option<GroupView> {
        let mut state = self.shared.lock();
        state.groups.contains_key(group).then(|| state.group_mut(group, now()).view())
    }

    /// A group of the consumer protocol (KIP-848) as it is now; `None` where there is none of that
    /// name, or a classic one.
    pub fn consumer_group(&self, group: &str) -> Option<ConsumerGroupView> {
        let mut state = self.shared.lock();
        state.consumer_group(group, now()).map(|(found, metadata, _)| found.view(&metadata))
    }

    /// What a group committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let state = self.shared.lock();
        Some(state.groups.get(group)?.committed(topic, partition)?.offset)
    }

    /// All records of a partition, decoded, from its log's start to its end.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `Corrupt` when a batch cannot be read.
    pub fn records(&self, topic: &str, partition: i32) -> Result<Vec<ConsumerRecord>> {
        let name: Arc<str> = topic.into();
        self.look(topic, partition, |found| found.log.records(&name, partition))?
    }

    /// The offset that the next record of the partition gets.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn log_end(&self, topic: &str, partition: i32) -> Result<i64> {
        self.look(topic, partition, |found| found.log.end())
    }

    /// The first offset of the partition that is still there.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn log_start(&self, topic: &str, partition: i32) -> Result<i64> {
        self.look(topic, partition, |found| found.log.start())
    }

    /// Appends records to a partition as one uncompressed batch, as a producer without idempotence
    /// would, and gives the offset of the first. The records' own topics and partitions do not
    /// matter; one without a timestamp gets the cluster's time.
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

    /// Puts bytes into a partition in the place of a batch of so many records, as a broken disk
    /// would, and gives the offset of the first. Nothing is checked and nothing is changed but the
    /// first eight bytes, where a batch's offset stands; [`records`](Self::records) may not be able
    /// to read the partition afterwards.
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

    /// Lets the brokers be unable to read the batch that holds `offset`, as from a broken disk;
    /// whether there is one. Who fetches it gets CORRUPT_MESSAGE.
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

    /// Loses the batch that holds `offset`, as compaction does; whether there was one. The offsets
    /// of the others stay.
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

    /// Loses the end of a partition from `offset` on, as an unclean election does, under a new
    /// leader epoch; a batch that `offset` cuts through is lost whole. Gives the new end.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) -> Result<i64> {
        self.change(|state| state.truncate(topic, partition, offset), || format!("truncate {topic}[{partition}]"))
    }

    /// Deletes the records before `offset`, as retention does. Gives the new start.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `Broker` with OFFSET_OUT_OF_RANGE.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<i64> {
        let what = || format!("delete records of {topic}[{partition}]");
        self.change(|state| state.delete_records(topic, partition, offset), what)
    }

    /// Forgets the idempotent producers of a partition, as happens when they were idle for long
    /// (`producer.id.expiration.ms`).
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

    /// Kills a broker: its port closes, its connections break, its partitions and groups go to
    /// others that are up. What it holds is not lost. When this returns, all of it has happened.
    ///
    /// # Errors
    /// `InvalidArgument` when it is down already, or there is none of that id.
    ///
    /// # Cancel safety
    /// Safe: once polled, the broker dies whether or not the end is waited for.
    pub async fn kill(&self, broker: i32) -> Result<()> {
        let task = self.tasks().remove(&broker);
        let task = task.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, format!("broker {broker} is not up")))?;
        self.shared.lock().broker_down(broker);
        let stopped = task.stop();
        self.shared.ring();
        stopped.await;
        Ok(())
    }

    /// Starts a broker again that was killed, at its old address. It leads what nobody else could.
    ///
    /// # Errors
    /// `InvalidArgument` when it is up, or there is none of that id; `Network` when its port is
    /// taken.
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

    /// Breaks all connections of a broker; it goes on and takes new ones.
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

    /// How many fetch sessions a broker keeps at present (KIP-227); 0 for a broker that there is
    /// not.
    pub fn fetch_sessions(&self, broker: i32) -> usize {
        self.shared.lock().broker(broker).map_or(0, |broker| broker.sessions.len())
    }

    /// How many requests of that kind the brokers have received.
    pub fn requests(&self, key: ApiKey) -> u64 {
        self.shared.lock().journal.seen(key)
    }

    /// What came in sink mode and was acknowledged ([`Options::sink`]); not counted are requests
    /// that a fault struck and those with acks=0.
    pub fn received(&self) -> Received {
        self.shared.lock().sink.as_ref().map(|sink| sink.received).unwrap_or_default()
    }

    /// The requests that the brokers have received, oldest first: the last 65,536 of them, and in
    /// sink mode none unless a fault is in force. Requests of a version that is not served are not
    /// among them.
    pub fn journal(&self) -> Vec<Request> {
        self.shared.lock().journal.entries()
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<i32, BrokerTask>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ErrorCode>,
        what: impl FnOnce() -> String,
    ) -> Result<T> {
        let changed = change(&mut self.shared.lock());
        self.shared.ring();
        changed.map_err(|code| match code {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                Error::new(ErrorKind::UnknownTopicOrPartition, format!("{}: there is no such partition", what()))
            }
            code => Error::broker(code, what()),
        })
    }

    pub(super) fn look<T>(&self, topic: &str, partition: i32, look: impl FnOnce(&Partition) -> T) -> Result<T> {
        let state = self.shared.lock();
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
