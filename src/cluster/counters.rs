//! Counters of each broker: its connections count each frame and each write.
//!
//! Sans-IO.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counters of one broker, over all connections of a client to it since the client's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerMetrics {
    /// Connections that were made (Java: `connection-creation-total`).
    pub connections_made: u64,
    /// Connections that ended, for any reason (Java: `connection-close-total`).
    pub connections_closed: u64,
    /// Attempts to connect that failed.
    pub connections_failed: u64,
    /// Requests of any kind that were written, at least in part (Java: `request-total`). The first
    /// request of a connection, ApiVersions, is counted neither here nor among the bytes.
    pub requests: u64,
    /// Responses received (Java: `response-total`).
    pub responses: u64,
    /// Bytes that the network accepted (Java: `outgoing-byte-total`).
    pub bytes_written: u64,
    /// Bytes of whole responses received (Java: `incoming-byte-total`).
    pub bytes_read: u64,
    /// Number of times that the broker throttled this client (KIP-219).
    pub throttled: u64,
    /// Sum of the throttle times (Java: `produce-throttle-time-avg` times its count).
    pub throttle_time: Duration,
    /// Longest throttle time (Java: `produce-throttle-time-max`).
    pub throttle_time_max: Duration,
}

/// The counters behind [`BrokerMetrics`]. Each is an independent sum, so relaxed ordering suffices.
#[derive(Debug, Default)]
pub(super) struct NodeCounters {
    made: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    requests: AtomicU64,
    responses: AtomicU64,
    written: AtomicU64,
    read: AtomicU64,
    throttled: AtomicU64,
    throttle_millis: AtomicU64,
    throttle_millis_max: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl NodeCounters {
    pub(super) fn connected(&self) {
        add(&self.made, 1);
    }

    pub(super) fn disconnected(&self) {
        add(&self.closed, 1);
    }

    pub(super) fn not_connected(&self) {
        add(&self.failed, 1);
    }

    /// Counts a request that is about to be written.
    pub(super) fn request(&self) {
        add(&self.requests, 1);
    }

    /// Counts a response of `bytes` bytes after its length field.
    pub(super) fn response(&self, bytes: usize) {
        add(&self.responses, 1);
        add(&self.read, 4 + bytes as u64);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        add(&self.written, bytes as u64);
    }

    pub(super) fn throttled(&self, millis: u64) {
        add(&self.throttled, 1);
        add(&self.throttle_millis, millis);
        self.throttle_millis_max.fetch_max(millis, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> BrokerMetrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BrokerMetrics {
            connections_made: get(&self.made),
            connections_closed: get(&self.closed),
            connections_failed: get(&self.failed),
            requests: get(&self.requests),
            responses: get(&self.responses),
            bytes_written: get(&self.written),
            bytes_read: get(&self.read),
            throttled: get(&self.throttled),
            throttle_time: Duration::from_millis(get(&self.throttle_millis)),
            throttle_time_max: Duration::from_millis(get(&self.throttle_millis_max)),
        }
    }
}
