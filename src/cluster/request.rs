//! The parameters of requests: connection, node, attempt.

use crate::{cluster::RevocableParts, wire::frame::Inserts};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// The purpose of a connection to a broker. A broker processes one request of a connection at a
/// time, so requests that may wait there for long have connections of their own and cannot delay
/// the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ConnectionKind {
    /// Produce and all other short requests.
    Main,
    /// Fetch; one connection for each fetch session.
    Fetch(u8),
    /// JoinGroup and SyncGroup, which wait for other members; heartbeats and commits do not wait
    /// behind them.
    Join,
    /// Heartbeats, commits and other requests to a group's coordinator.
    Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CoordinatorKind {
    Group,
    Transaction,
}

/// The broker that a request is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "admin calls to one broker, such as DescribeLogDirs, take it"))]
    Broker(i32),
    /// Any broker that is connected, otherwise any that can be reached.
    Any,
    Controller,
    Coordinator(CoordinatorKind, Arc<str>),
}

/// One attempt to send a request to one broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) node: i32,
    pub(crate) kind: ConnectionKind,
    /// Time until the response, connecting included. When it passes, the connection is closed,
    /// unless nothing was sent yet.
    pub(crate) timeout: Duration,
    pub(crate) versions: VersionBounds,
}

/// Bounds on the version of a request whose meaning depends on it. A broker reads the protocol of a
/// transaction from the version (Produce 12, TxnOffsetCommit 5, EndTxn 5), and a topic with an
/// unknown id can only be fetched by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionBounds {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl VersionBounds {
    /// Allows every version.
    pub(crate) const ANY: Self = Self { min: 0, max: i16::MAX };

    pub(crate) const fn at_most(max: i16) -> Self {
        Self { max, ..Self::ANY }
    }

    pub(crate) const fn at_least(min: i16) -> Self {
        Self { min, ..Self::ANY }
    }

    pub(crate) const fn exactly(version: i16) -> Self {
        Self { min: version, max: version }
    }

    /// Returns the bounds with the given maximum, or [`ANY`](Self::ANY) without one.
    pub(crate) fn up_to(max: Option<i16>) -> Self {
        max.map_or(Self::ANY, Self::at_most)
    }
}

/// Properties of a request with a body that the caller wrote after its header.
#[derive(Debug)]
pub(crate) struct RawRequest {
    /// Zero-copy parts of the body, each with its offset in the bytes of header and body.
    pub(crate) inserts: Inserts,
    /// False for Produce with acks=0: the broker sends no response; `send_raw` then returns an
    /// empty body once the request is written.
    pub(crate) answered: bool,
    /// Largest response that is read into memory reserved for all of it at once, in bytes; 0 for
    /// the default.
    pub(crate) expects: usize,
    /// Consulted when the request is about to be written.
    pub(crate) departure: RevocableParts,
}

impl RawRequest {
    /// Returns the properties of a request with a complete body that gets a response.
    pub(crate) fn whole() -> Self {
        Self { inserts: Inserts::new(), answered: true, expects: 0, departure: RevocableParts::default() }
    }

    /// Sets the expected size of the response, in bytes. A larger response is accepted, but is
    /// copied while it is read.
    pub(crate) fn expecting(self, bytes: usize) -> Self {
        Self { expects: bytes, ..self }
    }
}

/// A response with its body still to be read by the caller.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) version: i16,
    pub(crate) body: Bytes,
}
