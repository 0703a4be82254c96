//! Topics and their partitions: the leader, leader epoch and log of each.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    log::Log,
    producers::{Marker, Producers},
};
use crate::{
    error::{Error, ErrorCode, Result},
    wire::batch::{BatchHeader, ControlRecord, ProducerStamp, marker_batch},
};

/// Topics that Kafka's metadata marks as internal.
const INTERNAL: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// The leader id of a partition that has no leader.
pub(crate) const NO_LEADER: i32 = -1;

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Partition>,
    /// The configurations given when the topic was created, by Kafka's names.
    pub(crate) configs: BTreeMap<String, String>,
}

impl Topic {
    /// Returns true if the broker sets the timestamps (`message.timestamp.type`).
    pub(crate) fn log_append_time(&self) -> bool {
        self.configs.get("message.timestamp.type").is_some_and(|value| value == "LogAppendTime")
    }

    /// Returns true for an internal topic of the brokers.
    pub(crate) fn is_internal(&self) -> bool {
        INTERNAL.contains(&&*self.name)
    }

    /// Returns the topic's own `max.message.bytes`.
    pub(crate) fn max_message_bytes(&self) -> Option<usize> {
        self.configs.get("max.message.bytes").and_then(|value| value.parse().ok())
    }

    pub(crate) fn partition(&self, partition: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    pub(crate) fn partition_mut(&mut self, partition: i32) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::try_from(partition).ok()?)
    }
}

#[derive(Debug)]
pub(crate) struct Partition {
    /// The broker that leads, or [`NO_LEADER`].
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    /// Followers that lag, with the offset at which their copies end.
    pub(crate) lagging: BTreeMap<i32, i64>,
    /// The broker to which the leader sends every reader that names a rack.
    pub(crate) preferred: Option<i32>,
    pub(crate) log: Log,
    pub(crate) producers: Producers,
}

impl Partition {
    pub(crate) fn new(replicas: Vec<i32>, leader: i32) -> Self {
        let mut log = Log::default();
        log.begin_epoch(0);
        Self {
            leader,
            leader_epoch: 0,
            replicas,
            lagging: BTreeMap::new(),
            preferred: None,
            log,
            producers: Producers::default(),
        }
    }

    /// Returns the end of that replica's copy.
    pub(crate) fn end_at(&self, broker: i32) -> i64 {
        let lagging = self.lagging.get(&broker).filter(|_| broker != self.leader);
        lagging.map_or(self.log.end(), |&end| end.min(self.log.end()))
    }

    /// Makes another broker the leader, under the next epoch.
    pub(crate) fn lead(&mut self, broker: i32) {
        self.leader = broker;
        self.leader_epoch += 1;
        if broker != NO_LEADER {
            self.log.begin_epoch(self.leader_epoch);
        }
    }

    /// Appends the marker that ends a producer's transaction, and returns its offset. If no
    /// transaction is open the marker is written all the same, as by a coordinator that writes it
    /// twice.
    ///
    /// # Errors
    /// `Fenced` or `Broker` for a marker of an older epoch or coordinator.
    pub(crate) fn write_marker(&mut self, marker: &Marker, millis: i64) -> Result<i64> {
        let is_open = self.log.transactions().is_open(marker.producer_id);
        let admitted = self.producers.admit_marker(marker, is_open);
        admitted.map_err(|code| Error::broker(code, format_args!("end a transaction of {}", marker.producer_id)))?;
        let coordinator_epoch = marker.coordinator_epoch;
        let record = match marker.committed {
            true => ControlRecord::Commit { coordinator_epoch },
            false => ControlRecord::Abort { coordinator_epoch },
        };
        let (producer_id, producer_epoch) = (marker.producer_id, marker.epoch);
        let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence: -1, transactional: true };
        let bytes = marker_batch(record, 0, self.leader_epoch, stamp, millis)?;
        let header = BatchHeader::parse(&bytes)?;
        let offset = self.log.append(&bytes, &header, self.leader_epoch, None)?;
        self.producers.marked(marker);
        Ok(offset)
    }

    /// Makes the checks of a request that only the leader serves: first the leader epoch that the
    /// client knows (−1: none), then whether this broker leads.
    pub(crate) fn check_leader(&self, broker: i32, epoch: i32) -> Result<(), ErrorCode> {
        self.check_epoch(epoch)?;
        if self.leader == broker { Ok(()) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
    }

    /// Makes the checks of a request that followers serve as well (KIP-392).
    pub(crate) fn check_replica(&self, broker: i32, epoch: i32) -> Result<(), ErrorCode> {
        self.check_epoch(epoch)?;
        let serves = self.leader == broker || self.replicas.contains(&broker);
        if serves { Ok(()) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
    }

    fn check_epoch(&self, epoch: i32) -> Result<(), ErrorCode> {
        if epoch >= 0 && epoch < self.leader_epoch {
            Err(ErrorCode::FENCED_LEADER_EPOCH)
        } else if epoch > self.leader_epoch {
            Err(ErrorCode::UNKNOWN_LEADER_EPOCH)
        } else {
            Ok(())
        }
    }
}

/// All topics, indexed by name and by id, and listed in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<Arc<str>, Topic>,
    names: HashMap<Uuid, Arc<str>>,
}

impl Topics {
    pub(crate) fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.by_name.get_mut(name)
    }

    pub(crate) fn name_of(&self, id: Uuid) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.get(topic)?.partition(partition)
    }

    pub(crate) fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.get_mut(topic)?.partition_mut(partition)
    }

    pub(crate) fn insert(&mut self, topic: Topic) {
        self.names.insert(topic.id, topic.name.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Topic> {
        let topic = self.by_name.remove(name)?;
        self.names.remove(&topic.id);
        Some(topic)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values()
    }

    pub(crate) fn partitions_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.by_name.values_mut().flat_map(|topic| topic.partitions.iter_mut())
    }
}
