//! The output of the sender: requests and effects.
//!
//! Sans-IO.

use std::{fmt, sync::Arc, time::Instant};

use uuid::Uuid;

use crate::{
    error::Error,
    producer::{batch_body::Body, revocable_batch::RevocableBatch},
    wire::{batch::ProducerStamp, fetch::NodeEndpoint},
};

/// One Produce request: returned by the sender to be sent, and passed back to it when it has ended.
#[derive(Debug)]
pub(crate) struct ProduceRequest {
    pub(crate) id: u64,
    pub(crate) node: i32,
    /// The parts; those of one topic are consecutive.
    pub(crate) parts: Vec<RequestPart>,
}

/// One partition's batch in a request.
#[derive(Debug)]
pub(crate) struct RequestPart {
    /// The partition's index in the sender's list.
    pub(crate) slot: usize,
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    /// The batch's bytes, sealed before sending; an error if they could not be sealed.
    pub(crate) body: Result<Body, Error>,
    pub(crate) stamp: ProducerStamp,
    pub(crate) revocable: RevocableBatch,
    /// True if it was withdrawn before the request was written, because records of it or of another
    /// batch in the request had been given up.
    pub(crate) withdrawn: bool,
    pub(crate) records: u32,
    pub(crate) attempt: u32,
    /// Time at which the batch was begun, if this is its first attempt.
    pub(crate) begun: Option<Instant>,
}

/// An action of the sender in addition to requests.
#[derive(Debug)]
pub(crate) enum Effect {
    RefreshMetadata,
    WantTopic(Arc<str>),
    LearnLeader {
        topic: Arc<str>,
        partition: i32,
        leader: i32,
        epoch: i32,
        endpoints: Arc<[NodeEndpoint]>,
    },
    Throttle {
        node: i32,
        millis: i32,
    },
    RequestProducerId,
    /// A partition has to be added to the transaction before its first batch is sent; the answer is
    /// [`Sender::partitions_added`](super::Sender::partitions_added).
    AddPartition {
        number: u64,
        topic: Arc<str>,
        partition: i32,
        slot: usize,
    },
    /// The first batch of a transaction is about to be sent.
    TransactionStarted {
        number: u64,
    },
    /// A partition cannot continue under its sequence numbers: the transaction fails, and its epoch
    /// has to be raised.
    EpochUsedUp {
        number: u64,
        topic: Arc<str>,
        partition: i32,
    },
    /// A broker takes no data for longer than `partitioner.availability.timeout.ms`, or takes it
    /// again.
    Clogged {
        node: i32,
        clogged: bool,
    },
}

/// Displays `"orders[3]"`, for errors.
pub(super) struct PartitionName<'a>(pub(super) &'a RequestPart);

impl fmt::Display for PartitionName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.0.topic, self.0.partition)
    }
}
