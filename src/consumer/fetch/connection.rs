//! The state of fetching over one connection to a broker.

use crate::{
    cluster::Backoff,
    consumer::fetch::{
        empty_responses::EmptyResponses,
        fetch_size::FetchSize,
        memory_budget::{BrokerQuota, Reservation},
        plan::SessionClose,
        session::{FetchSession, SessionRequest},
    },
    record::TopicPartition,
    wire::fetch::FetchRequest,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Instant,
};

/// A broker that partitions are fetched from, over one connection.
#[derive(Debug)]
pub(crate) struct FetchConnection {
    pub(crate) session: FetchSession,
    /// Partitions with a `PartitionSpec` that may have changed since the last request.
    pub(crate) changed: BTreeSet<TopicPartition>,
    /// Partitions with the time before which they are not fetched again.
    pub(crate) waiting: Vec<(Instant, TopicPartition)>,
    pub(crate) quota: Arc<BrokerQuota>,
    pub(crate) partitions: usize,
    pub(crate) fetch_size: FetchSize,
    pub(crate) empty_responses: EmptyResponses,
    /// Bytes reserved for the response that is outstanding.
    pub(crate) in_flight: usize,
    /// Reservation of the last response, alive as long as some of it waits for its reader.
    pub(crate) last_response: Weak<Reservation>,
    /// Approximate size of the largest recent batch, in bytes.
    pub(crate) largest_batch: usize,
    pub(crate) not_before: Option<Instant>,
    /// Earliest time at which a partition that is read here from a preferred read replica returns
    /// to its leader.
    pub(crate) replica_expiry: Option<Instant>,
    /// Our rack is not sent before this time, otherwise the broker would redirect to a replica that
    /// failed.
    pub(crate) rackless_until: Option<Instant>,
    pub(crate) retries: Backoff,
    /// True if the present error was reported to the reader.
    pub(crate) reported: bool,
}

impl FetchConnection {
    /// Records that a partition which is read here from a preferred read replica returns to its
    /// leader at `until`.
    pub(crate) fn expire_at(&mut self, until: Instant) {
        self.replica_expiry = Some(self.replica_expiry.map_or(until, |expiry| expiry.min(until)));
    }

    /// Ends the session, and returns the request that closes it at the broker; `None` if the broker
    /// has none.
    pub(crate) fn close_session(&mut self, broker: i32) -> Option<SessionClose> {
        let SessionRequest { session_id, session_epoch, .. } = self.session.closing()?;
        self.session.closed();
        let request = FetchRequest {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 1,
            isolation_level: 0,
            session_id,
            session_epoch,
            topics: Vec::new(),
            forgotten: Vec::new(),
            rack_id: String::new(),
        };
        Some(SessionClose { broker, request })
    }
}
