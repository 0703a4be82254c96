//! What the sender gives out: requests, and what it asks of the world besides.
//!
//! Sans-IO.

use std::{fmt, sync::Arc, time::Instant};

use uuid::Uuid;

use crate::{
    error::Error,
    producer::{batch_body::Body, revocable_batch::RevocableBatch},
    wire::{batch::ProducerStamp, fetch::NodeEndpoint},
};

/// One Produce request: given out to be sent, and given back when it has ended.
#[derive(Debug)]
pub(crate) struct ProduceRequest {
    pub(crate) id: u64,
    pub(crate) node: i32,
    /// Those of one topic stand next to each other.
    pub(crate) parts: Vec<RequestPart>,
}

/// One partition's batch in a request.
#[derive(Debug)]
pub(crate) struct RequestPart {
    /// The partition's place in the sender's list.
    pub(crate) slot: usize,
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    /// Sealed on the way; an error for what could not be.
    pub(crate) body: Result<Body, Error>,
    pub(crate) stamp: ProducerStamp,
    pub(crate) revocable: RevocableBatch,
    /// Set when it was taken back before the request was written, because records of it or of
    /// another batch in the request had been given up.
    pub(crate) withdrawn: bool,
    pub(crate) records: u32,
    pub(crate) attempt: u32,
    /// When the batch was begun, if it leaves for the first time.
    pub(crate) begun: Option<Instant>,
}

/// What the sender asks of the world besides requests.
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
    /// A broker takes no data for longer than `partitioner.availability.timeout.ms`, or takes it
    /// again.
    Clogged {
        node: i32,
        clogged: bool,
    },
}

/// "orders[3]", for errors.
pub(super) struct PartitionName<'a>(pub(super) &'a RequestPart);

impl fmt::Display for PartitionName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.0.topic, self.0.partition)
    }
}
