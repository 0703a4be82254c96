use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::protocol::Request;
use tokio::{sync::watch, time::Instant};

use super::{ClientSettings, Metadata};
use crate::{
    error::{ErrorCode, Result},
    wire::{ApiKey, fetch::NodeEndpoint},
};

/// The one client under a producer, a consumer or an admin. Clones share everything. When the last clone is dropped, its
/// connections and tasks end.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ClientSettings,
}

/// Which of a broker's connections a request takes: a broker works on one request of a connection at a time, so what may
/// wait there for long never stands before what must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
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
    pub(crate) lane: Lane,
    /// From now to the answer (connecting included). Passing it closes the connection, unless nothing was sent yet.
    pub(crate) timeout: Duration,
    /// The newest version that may be agreed on, where the request's meaning asks for an older one (Produce without
    /// transactions v2, Fetch of a topic whose id is not known).
    pub(crate) max_version: Option<i16>,
}

/// A request whose body was written by the caller: chunks to be written one after the other.
#[derive(Debug)]
pub(crate) struct RawRequest {
    pub(crate) chunks: Vec<Bytes>,
    /// False for Produce with acks=0: the broker sends nothing back; `send_raw` then returns an empty body once written.
    pub(crate) answered: bool,
}

/// An answer whose body the caller reads.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) version: i16,
    pub(crate) body: Bytes,
}

impl Client {
    /// Checks the settings and starts the client's tasks on the current tokio runtime. Needs no network.
    pub(crate) fn new(settings: ClientSettings) -> Result<Self> {
        Ok(Self(Arc::new(Inner { settings })))
    }

    pub(crate) fn settings(&self) -> &ClientSettings {
        &self.0.settings
    }

    // ---- metadata

    /// The newest picture; costs no lock.
    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        unimplemented!()
    }

    /// Changes whenever a new picture is there; the value is its version.
    pub(crate) fn metadata_changes(&self) -> watch::Receiver<u64> {
        unimplemented!()
    }

    /// Topics to keep in the picture from now on (asks at once if one of them is not there yet). Idle ones are dropped
    /// after `metadata.max.idle.ms` unless this is called again.
    pub(crate) fn want_topics<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        let _ = topics.into_iter().count();
        unimplemented!()
    }

    /// Keeps all topics of the cluster in the picture (for regular expressions), or no longer.
    pub(crate) fn want_all_topics(&self, all: bool) {
        let _ = all;
        unimplemented!()
    }

    /// The picture is known to be wrong: asks for a new one soon (paced by `retry.backoff`, single-flight).
    pub(crate) fn refresh_metadata(&self) {
        unimplemented!()
    }

    /// Waits for a picture newer than that version, asking for it; the error names the last cause.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn newer_metadata(&self, than: u64, deadline: Instant) -> Result<Arc<Metadata>> {
        let _ = (than, deadline);
        unimplemented!()
    }

    /// Waits until a topic is there without an error, asking with backoff. The error at the deadline says why it is not:
    /// unknown, not allowed (at once), no broker reachable with addresses and cause.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn topic(&self, name: &str, deadline: Instant) -> Result<Arc<Metadata>> {
        let _ = (name, deadline);
        unimplemented!()
    }

    /// An error response named the new leader (KIP-951): takes it at once if its epoch is newer. Also asks for a refresh.
    pub(crate) fn learn_leader(
        &self,
        topic: &str,
        partition: i32,
        leader: i32,
        epoch: i32,
        endpoints: &[NodeEndpoint],
    ) {
        let _ = (topic, partition, leader, epoch, endpoints);
        unimplemented!()
    }

    /// Why the last attempt at metadata failed, if it did; for errors and status.
    pub(crate) fn metadata_failure(&self) -> Option<crate::error::Error> {
        unimplemented!()
    }

    // ---- requests

    /// One attempt at a request, at the highest version that both sides have and that is at most
    /// `attempt.max_version`; `build` makes the request for that version. The error's `delivery_status` says whether the broker may
    /// have seen the request. Throttling (KIP-219) mutes the connection for later requests.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up; the request may have been sent, and the connection goes on.
    pub(crate) async fn send<R: Request>(
        &self,
        attempt: Attempt,
        build: impl FnOnce(i16) -> R + Send,
    ) -> Result<R::Response> {
        let _ = (attempt, build);
        unimplemented!()
    }

    /// One attempt at a request that the caller writes and reads itself (Produce, Fetch). `write` gets the agreed version
    /// and gives the body's chunks; header and frame are added here. The caller reports throttling with `throttle`.
    pub(crate) async fn send_raw(
        &self,
        attempt: Attempt,
        key: ApiKey,
        write: impl FnOnce(i16) -> Result<RawRequest> + Send,
    ) -> Result<RawResponse> {
        let _ = (attempt, key, write);
        unimplemented!()
    }

    /// Mutes a connection, as `throttle_time_ms` of a response asks (KIP-219).
    pub(crate) fn throttle(&self, node: i32, lane: Lane, throttle_time_ms: i32) {
        let _ = (node, lane, throttle_time_ms);
        unimplemented!()
    }

    /// A request that may be sent again word for word: routed, repeated with backoff on lost connections and on errors
    /// that `check` finds in the answer and that the table calls retriable (metadata or coordinator looked up anew where
    /// it says so), until the deadline. Only for what is harmless to repeat.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub(crate) async fn call<R: Request>(
        &self,
        route: Route,
        lane: Lane,
        deadline: Instant,
        build: impl Fn(i16) -> R + Send + Sync,
        check: impl Fn(&R::Response) -> ErrorCode + Send + Sync,
    ) -> Result<R::Response> {
        let _ = (route, lane, deadline, build, check);
        unimplemented!()
    }

    /// The coordinator of a group or a transactional id: cached, looked up single-flight (a caller that gives up does not
    /// cancel the look-up for others).
    pub(crate) async fn coordinator(&self, kind: CoordinatorKind, key: &str, deadline: Instant) -> Result<i32> {
        let _ = (kind, key, deadline);
        unimplemented!()
    }

    /// That node is no longer the coordinator; ignored when another one is known by now.
    pub(crate) fn forget_coordinator(&self, kind: CoordinatorKind, key: &str, node: i32) {
        let _ = (kind, key, node);
        unimplemented!()
    }

    /// A finalized feature's level as the last ApiVersions said it (e.g. `transaction.version`).
    pub(crate) fn feature(&self, name: &str) -> Option<i16> {
        let _ = name;
        unimplemented!()
    }

    /// Closes all connections and ends all tasks; calls under way end with `Closed`. Does not wait.
    pub(crate) fn close(&self) {
        unimplemented!()
    }
}
