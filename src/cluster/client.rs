use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{
    BrokerMetrics, ClientSettings, Metadata, ResponseQueue, call, connection::Connection, connection_life,
    coordinator_lookup, core::Core, feature_refresh, metadata_task, metadata_wait, pool::ConnectionLookup,
};
use crate::cluster::deadline::now;
use crate::cluster::request::{
    Attempt, ConnectionKind, CoordinatorKind, RawRequest, RawResponse, Route, VersionBounds,
};
use crate::{
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind, Result},
    log::Origin,
    net::{check_network, runtime},
    wire::{ApiKey, fetch::NodeEndpoint, protocol::Request},
};

/// The client inside a producer, a consumer or an admin. Clones share everything. When the last
/// clone is dropped, the client's connections and tasks end.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<ClientOwner>);

/// State that the clones share. Tasks hold the `Core` itself, so that this owner is dropped with
/// the last clone.
#[derive(Debug)]
struct ClientOwner(Arc<Core>);

impl Drop for ClientOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A connection to a broker, on which the caller sends requests without waiting for each response.
#[derive(Debug)]
pub(crate) struct Link(Arc<Connection>);

impl Link {
    /// Returns the highest version of a request that both sides support and that is within
    /// `bounds`.
    ///
    /// # Errors
    /// `UnsupportedVersion`; nothing was sent.
    pub(crate) fn version(&self, key: ApiKey, bounds: VersionBounds) -> Result<i16> {
        let unsent = |error: Error| error.with_status(DeliveryStatus::NotPersisted);
        self.0.versions().pick(key, bounds).map_err(unsent)
    }

    /// Queues a request behind those queued before; `write` appends the body to the header. The
    /// response, or the error, goes to the queue under the given id; the caller passes it through
    /// [`Client::refresh_metadata_on_error`].
    pub(crate) fn request_into_queue(
        &self,
        key: ApiKey,
        version: i16,
        deadline: Instant,
        to: (&ResponseQueue, u64),
        write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
    ) {
        self.0.request_into_queue(key, version, deadline.into_std(), to, write);
    }
}

impl Client {
    /// Checks the settings and starts the client's tasks on the current tokio runtime. Needs no
    /// network.
    ///
    /// # Errors
    /// Kind `Configuration`: `bootstrap.servers` is empty or malformed, or there is no runtime with
    /// timers and with what the network needs.
    pub(crate) fn new(settings: ClientSettings) -> Result<Self> {
        let runtime = runtime("a client")?;
        check_network(&*settings.network)?;
        let core = Arc::new(Core::new(settings, runtime)?);
        let (origin, asking) = (core.settings.origin.clone(), metadata_task::run(Arc::clone(&core)));
        core.runtime.spawn(async move { origin.scope(asking).await });
        Ok(Self(Arc::new(ClientOwner(core))))
    }

    /// Like [`new`](Self::new), but also reads the files that secure the client's connections, so
    /// that a faulty file is an error here.
    ///
    /// # Errors
    /// Those of [`new`](Self::new); those of the files.
    pub(crate) async fn open(settings: ClientSettings) -> Result<Self> {
        let client = Self::new(settings)?;
        client.origin().scope(client.core().guard.prepare()).await?;
        Ok(client)
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.0
    }

    pub(crate) fn settings(&self) -> &ClientSettings {
        &self.core().settings
    }

    /// Returns the fields that log lines name this client by.
    pub(crate) fn origin(&self) -> &Origin {
        &self.core().settings.origin
    }

    // ---- metadata

    /// Returns the newest metadata, without a lock.
    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        self.core().metadata.current()
    }

    /// Returns a channel that changes with each new metadata; the value is the metadata's version.
    pub(crate) fn metadata_changes(&self) -> watch::Receiver<u64> {
        self.core().metadata.changes()
    }

    /// Keeps topics in the metadata from now on, and asks for it at once if one of them is new.
    /// Topics are dropped once they are idle for `metadata.max.idle.ms`, unless this is called
    /// again.
    pub(crate) fn want_topics<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        self.core().metadata.want(topics);
    }

    /// Asks for topics of which only the ids are known, until the metadata has their names.
    /// Replaces the ids of the last call.
    pub(crate) fn want_topic_ids(&self, ids: &[Uuid]) {
        self.core().metadata.want_ids(ids);
    }

    /// Keeps all topics of the cluster in the metadata (for regular expressions), or stops doing
    /// so.
    pub(crate) fn want_all_topics(&self, all: bool) {
        self.core().metadata.want_all(all);
    }

    /// Marks the metadata as wrong, so that it is asked for again soon (paced by
    /// `retry.backoff.ms`, single-flight).
    pub(crate) fn refresh_metadata(&self) {
        self.core().metadata.refresh();
    }

    /// Waits for metadata newer than version `than`, and asks for it.
    ///
    /// # Errors
    /// `Timeout` at the deadline, with the last cause; at once for a cause that waiting does not
    /// cure (`Authentication`).
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn newer_metadata(&self, than: u64, deadline: Instant) -> Result<Arc<Metadata>> {
        let core = self.core();
        if core.metadata.current_ref().version <= than {
            core.metadata.refresh();
        }
        let newer = |metadata: &Arc<Metadata>| Ok((metadata.version > than).then(|| Arc::clone(metadata)));
        let late = |_: &Metadata| Error::new(ErrorKind::Timeout, "no newer metadata came before the deadline");
        metadata_wait::wait(core, deadline, newer, late).await
    }

    /// Waits until the metadata has a topic without an error, asking with backoff.
    ///
    /// # Errors
    /// At once for an error that waiting does not cure (not authorized, invalid topic name). At the
    /// deadline, the reason why the topic is missing: `UnknownTopicOrPartition`, or `Timeout` with
    /// the addresses and the cause when no broker could be reached.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn topic(&self, name: &str, deadline: Instant) -> Result<Arc<Metadata>> {
        let cache = &self.core().metadata;
        let began = {
            let metadata = cache.current_ref();
            let known = metadata.topic(name);
            if known.is_some_and(|topic| topic.is_settled() && !topic.error.is_ok()) {
                // The topic may have been authorized since the broker refused it.
                cache.refresh();
            }
            metadata.version
        };
        let found = |metadata: &Arc<Metadata>| {
            cache.want([name]);
            let Some(topic) = metadata.topic(name) else { return Ok(None) };
            let refused = metadata.history.refused.get(name).is_some_and(|version| *version > began);
            if refused && !topic.error.is_ok() && !topic.error.is_retriable() {
                return Err(Error::broker(topic.error, format_args!("topic \"{name}\"")));
            }
            Ok((topic.error.is_ok() && !topic.partitions.is_empty()).then(|| Arc::clone(metadata)))
        };
        let gave_up = |metadata: &Metadata| match metadata.topic(name).map(|topic| topic.error) {
            Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => Error::new(
                ErrorKind::UnknownTopicOrPartition,
                format!(
                    "topic \"{name}\" does not exist or may not be described, and did not appear before the deadline"
                ),
            ),
            Some(error) if !error.is_ok() => Error::broker(error, format_args!("topic \"{name}\"")),
            _ => Error::new(ErrorKind::Timeout, format!("no broker described topic \"{name}\" before the deadline")),
        };
        metadata_wait::wait(self.core(), deadline, found, gave_up).await
    }

    /// Stores the new leader that an error response named (KIP-951), if its epoch is newer. Also
    /// asks for a refresh.
    pub(crate) fn learn_leader(
        &self,
        topic: &str,
        partition: i32,
        leader: i32,
        epoch: i32,
        endpoints: &[NodeEndpoint],
    ) {
        self.core().metadata.learn_leader(topic, partition, leader, epoch, endpoints);
        self.core().metadata.refresh();
    }

    /// Returns the error of the last attempt at metadata, if it failed; for errors and status.
    pub(crate) fn metadata_failure(&self) -> Option<Error> {
        self.core().metadata.failure()
    }

    /// Returns the age of the newest Metadata response.
    pub(crate) fn metadata_age(&self) -> Option<Duration> {
        let answered = self.core().metadata.plan().last_success()?;
        Some(now().saturating_duration_since(answered))
    }

    /// Returns the counters of each broker.
    pub(crate) fn metrics(&self) -> BTreeMap<i32, BrokerMetrics> {
        self.core().pool.metrics()
    }

    // ---- requests

    /// Sends a request once, at the highest version that both sides support and that is within
    /// `attempt.versions`; `build` makes the request for that version. The error's
    /// `delivery_status` says if the broker may have seen the request. Throttling (KIP-219) mutes
    /// the connection for later requests.
    ///
    /// # Cancel safety
    /// Dropping the future discards the response; the request may have been sent, and the
    /// connection stays open.
    pub(crate) async fn send<R: Request>(
        &self,
        attempt: Attempt,
        build: impl FnOnce(i16) -> R + Send,
    ) -> Result<R::Response> {
        self.core().send(attempt, build).await
    }

    /// Sends once a request that the caller writes and reads itself (Produce, Fetch). `write` gets
    /// the agreed version and appends the body to the header. If the throttle time is not at the
    /// front of the response (Produce), the caller reports it with [`throttle`](Self::throttle).
    ///
    /// # Cancel safety
    /// Like [`send`](Self::send).
    pub(crate) async fn send_raw(
        &self,
        attempt: Attempt,
        key: ApiKey,
        write: impl FnOnce(i16, &mut BytesMut) -> Result<RawRequest> + Send,
    ) -> Result<RawResponse> {
        self.core().send_raw(attempt, key, write).await
    }

    /// Returns the open connection to a broker. If there is none, starts an attempt, for which
    /// [`link_by`](Self::link_by) waits.
    pub(crate) fn link(&self, node: i32, kind: ConnectionKind) -> Option<Link> {
        match connection_life::lookup(self.core(), node, kind) {
            ConnectionLookup::Open(connection) => Some(Link(connection)),
            ConnectionLookup::Connecting(_) => None,
        }
    }

    /// Waits for the connection to a broker.
    ///
    /// # Errors
    /// The reason why there is no connection, at the deadline at the latest; nothing was sent.
    ///
    /// # Cancel safety
    /// Safe: the attempt to connect continues.
    pub(crate) async fn link_by(&self, node: i32, kind: ConnectionKind, deadline: Instant) -> Result<Link> {
        self.core().connection(node, kind, deadline.into_std()).await.map(Link)
    }

    /// Refreshes the metadata if the result taken from a queue is a network error or a timeout.
    ///
    /// # Errors
    /// The result's own error; `Closed` when the client is closed.
    pub(crate) fn refresh_metadata_on_error(&self, answer: Result<Bytes>) -> Result<Bytes> {
        self.core().refresh_metadata_on_error(answer)
    }

    /// Mutes a connection for the `throttle_time_ms` of a response (KIP-219).
    pub(crate) fn throttle(&self, node: i32, kind: ConnectionKind, throttle_time_ms: i32) {
        if throttle_time_ms > 0 {
            self.core().pool.mute(node, kind, throttle_time_ms);
        }
    }

    /// Sends a request, and repeats it until the deadline, with backoff, after lost connections and
    /// after retriable errors that `check` finds in the response (each error code's
    /// [`Remedy`](crate::error::Remedy) says if metadata or coordinator are looked up again first).
    /// A response with an error that is not retriable is returned as it is. Only for requests that
    /// are harmless to repeat.
    ///
    /// # Cancel safety
    /// Like [`send`](Self::send).
    pub(crate) async fn call<R: Request>(
        &self,
        route: Route,
        kind: ConnectionKind,
        deadline: Instant,
        build: impl Fn(i16) -> R + Send + Sync,
        check: impl Fn(&R::Response) -> ErrorCode + Send + Sync,
    ) -> Result<R::Response> {
        self.call_up_to(None, route, kind, deadline, build, check).await
    }

    /// Like [`call`](Self::call), but in a version of at most `max_version`.
    ///
    /// # Cancel safety
    /// Like [`send`](Self::send).
    pub(crate) async fn call_up_to<R: Request>(
        &self,
        max_version: Option<i16>,
        route: Route,
        kind: ConnectionKind,
        deadline: Instant,
        build: impl Fn(i16) -> R + Send + Sync,
        check: impl Fn(&R::Response) -> ErrorCode + Send + Sync,
    ) -> Result<R::Response> {
        call::call(self.core(), &route, kind, deadline, VersionBounds::up_to(max_version), build, check).await
    }

    /// Returns the coordinator of a group or a transactional id: cached, or looked up single-flight
    /// (a caller that gives up does not cancel the look-up for others).
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn coordinator(&self, kind: CoordinatorKind, key: &str, deadline: Instant) -> Result<i32> {
        coordinator_lookup::get(self.core(), kind, key, deadline).await
    }

    /// Drops `node` from the cache as coordinator; does nothing if another one is known by now.
    pub(crate) fn forget_coordinator(&self, kind: CoordinatorKind, key: &str, node: i32) {
        coordinator_lookup::forget_coordinator(self.core(), kind, key, node);
    }

    /// Returns a finalized feature's level (e.g. of `transaction.version`) and the epoch of the
    /// features, which grows with each change of one (KIP-584). Each new connection tells them; the
    /// highest epoch of any broker counts.
    pub(crate) fn feature_with_epoch(&self, name: &str) -> Option<(i16, i64)> {
        self.core().features().level_with_epoch(name)
    }

    /// Asks a broker for the cluster's features, on the connection that is open; the answer counts
    /// for [`feature_with_epoch`](Self::feature_with_epoch). Does not wait. A failure is left to
    /// the next call, because a new connection tells them anyway.
    pub(crate) fn refresh_features(&self, node: i32, kind: ConnectionKind) {
        let core = Arc::clone(self.core());
        self.core().runtime.spawn(async move { feature_refresh::refresh(&core, node, kind).await });
    }

    /// Closes all connections and ends all tasks; pending calls end with `Closed`. Does not wait;
    /// further calls do nothing.
    pub(crate) fn close(&self) {
        self.core().close();
    }
}
