//! The requests that the cluster received, in order, for tests to inspect.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{record::TopicPartition, wire::ApiKey};

/// Maximum number of requests kept; the counts include all.
const REMEMBERED: usize = 1 << 16;

/// A request that a broker of the testkit received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The request's kind.
    pub key: ApiKey,
    /// The version of the request.
    pub version: i16,
    /// The broker that received the request.
    pub broker: i32,
    /// The connection that it came on; every connection of a cluster has its own number, from 1.
    pub connection: u64,
    /// `client.id`, empty if there was none.
    pub client_id: Arc<str>,
    /// The principal of the connection, in Kafka's form: `User:alice`, or `User:ANONYMOUS` on a
    /// listener without SASL.
    pub principal: Arc<str>,
    /// The partitions that it concerns; partition −1 stands for a topic as a whole. For an
    /// incremental fetch these are the session's partitions.
    pub partitions: Vec<TopicPartition>,
    /// The consumer group that it concerns, or the transactional id if it is for the transaction
    /// coordinator.
    pub group: Option<String>,
    /// The transactional id that it names.
    pub transactional_id: Option<String>,
    /// Time of arrival, by tokio's clock.
    pub at: tokio::time::Instant,
}

/// The requests received so far.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: VecDeque<Request>,
    counts: HashMap<ApiKey, u64>,
}

impl Journal {
    pub(crate) fn count(&mut self, key: ApiKey) {
        *self.counts.entry(key).or_default() += 1;
    }

    pub(crate) fn remember(&mut self, request: Request) {
        if self.entries.len() == REMEMBERED {
            self.entries.pop_front();
        }
        self.entries.push_back(request);
    }

    pub(crate) fn seen(&self, key: ApiKey) -> u64 {
        self.counts.get(&key).copied().unwrap_or(0)
    }

    pub(crate) fn entries(&self) -> Vec<Request> {
        self.entries.iter().cloned().collect()
    }
}
