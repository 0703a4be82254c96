//! The state of fetching over one connection to a broker.

use crate::{
    cluster::Backoff,
    consumer::fetch::{
        empty_responses::EmptyResponses,
        fetch_size::FetchSize,
        memory_budget::{BrokerQuota, Reservation},
        session::FetchSession,
    },
    record::TopicPartition,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Instant,
};

/// A broker that something is fetched from, over one connection.
#[derive(Debug)]
pub(crate) struct FetchConnection {
    pub(crate) session: FetchSession,
    /// Partitions whose wish may have changed since the last request.
    pub(crate) changed: BTreeSet<TopicPartition>,
    /// Partitions that wait before they are fetched again.
    pub(crate) waiting: Vec<(Instant, TopicPartition)>,
    pub(crate) quota: Arc<BrokerQuota>,
    pub(crate) partitions: usize,
    pub(crate) fetch_size: FetchSize,
    pub(crate) empty_responses: EmptyResponses,
    /// Reserved for the answer that is under way.
    pub(crate) in_flight: usize,
    /// What came last, as long as some of it waits for its reader.
    pub(crate) last_response: Weak<Reservation>,
    /// About the largest batch of late, in bytes.
    pub(crate) largest_batch: usize,
    pub(crate) not_before: Option<Instant>,
    /// When the first of the partitions that are read here as from a replica nearby is to be asked
    /// of its leader again.
    pub(crate) replica_expiry: Option<Instant>,
    /// Not told our rack until then: it would send us to a replica that failed.
    pub(crate) rackless_until: Option<Instant>,
    pub(crate) retries: Backoff,
    /// Its present trouble was told to the reader.
    pub(crate) reported: bool,
}

impl FetchConnection {
    /// A partition that is read here as from a replica nearby is to be asked of its leader again
    /// then.
    pub(crate) fn expire_at(&mut self, until: Instant) {
        self.replica_expiry = Some(self.replica_expiry.map_or(until, |expiry| expiry.min(until)));
    }
}
