//! The words of the request path: which connection, which node, which attempt.

use crate::{cluster::RevocableParts, wire::frame::Inserts};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// Which of a broker's connections a request takes: a broker works on one request of a connection
/// at a time, so what may wait there for long never stands before what must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ConnectionKind {
    /// Produce and everything short.
    Main,
    /// Fetches: one connection for each fetch session.
    Fetch(u8),
    /// JoinGroup and SyncGroup wait for other members; heartbeats and commits go beside them.
    Join,
    /// Heartbeats, commits and the rest of what a group's coordinator is asked.
    Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CoordinatorKind {
    Group,
    Transaction,
}

/// Who is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "admin calls to one broker, such as DescribeLogDirs, take it"))]
    Broker(i32),
    /// Any broker that is connected, or else any that can be reached.
    Any,
    Controller,
    Coordinator(CoordinatorKind, Arc<str>),
}

/// One attempt to send a request to one broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) node: i32,
    pub(crate) kind: ConnectionKind,
    /// From now to the answer (connecting included). Passing it closes the connection, unless
    /// nothing was sent yet.
    pub(crate) timeout: Duration,
    /// The newest version that may be agreed on, where the request's meaning asks for an older one
    /// (Produce without transactions v2, Fetch of a topic whose id is not known).
    pub(crate) max_version: Option<i16>,
}

/// What is left to say of a request whose body the caller wrote behind its header.
#[derive(Debug)]
pub(crate) struct RawRequest {
    /// What stands in the body without being copied there, behind so many bytes of header and body.
    pub(crate) inserts: Inserts,
    /// False for Produce with acks=0: the broker sends nothing back; `send_raw` then returns an
    /// empty body once written.
    pub(crate) answered: bool,
    /// As large an answer as this is read into memory that is reserved for all of it at once; 0:
    /// one of no special size.
    pub(crate) expects: usize,
    /// Asked when the request is about to be written.
    pub(crate) departure: RevocableParts,
}

impl RawRequest {
    /// One whose body is all there, and that is answered.
    pub(crate) fn whole() -> Self {
        Self { inserts: Inserts::new(), answered: true, expects: 0, departure: RevocableParts::default() }
    }

    /// The same, with an answer of up to so many bytes. One that is larger still comes, but is
    /// copied on its way.
    pub(crate) fn expecting(self, bytes: usize) -> Self {
        Self { expects: bytes, ..self }
    }
}

/// An answer whose body the caller reads.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) version: i16,
    pub(crate) body: Bytes,
}
