use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{
    BrokerMetrics, ClientSettings, Metadata, ResponseQueue, call, connection::Connection, connection_life,
    coordinator_lookup, core::Core, metadata_task, metadata_wait, pool::ConnectionLookup,
};
use crate::cluster::deadline::now;
use crate::cluster::request::{Attempt, ConnectionKind, CoordinatorKind, RawRequest, RawResponse, Route};
use crate::{
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind, Result},
    log::Origin,
    net::{check_network, runtime},
    wire::{ApiKey, fetch::NodeEndpoint, protocol::Request},
};

/// The one client under a producer, a consumer or an admin. Clones share everything. When the last
/// clone is dropped, its connections and tasks end.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<ClientOwner>);

/// What the clones share. Tasks hold the core itself, so that this one's end is that of the last
/// clone.
#[derive(Debug)]
struct ClientOwner(Arc<Core>);

impl Drop for ClientOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A connection to a broker, to hand requests over without waiting for their answers.
#[derive(Debug)]
pub(crate) struct Link(Arc<Connection>);

impl Link {
    /// The highest version of a request that both sides have and that is at most `max_version`.
    ///
    /// # Errors
    /// `UnsupportedVersion`, and nothing was sent.
    pub(crate) fn version(&self, key: ApiKey, max_version: Option<i16>) -> Result<i16> {
        let unsent = |error: Error| error.with_status(DeliveryStatus::NotPersisted);
        self.0.versions().pick(key, max_version).map_err(unsent)
    }

    /// Hands over a request whose body `write` writes behind the header. It is written behind what
    /// was handed over before. Its answer comes into the queue under that id, also when it fails;
    /// it has to pass through [`Client::heard`].
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

    /// [`new`](Self::new), with the files read that secure its connections: an error says what is
    /// wrong with them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
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

    /// What log lines say of this client.
    pub(crate) fn origin(&self) -> &Origin {
        &self.core().settings.origin
    }

    // ---- metadata

    /// The newest picture; costs no lock.
    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        self.core().metadata.current()
    }

    /// Changes whenever a new picture is there; the value is its version.
    pub(crate) fn metadata_changes(&self) -> watch::Receiver<u64> {
        self.core().metadata.changes()
    }

    /// Topics to keep in the picture from now on (asks at once if one of them is not there yet).
    /// Idle ones are dropped after `metadata.max.idle.ms` unless this is called again.
    pub(crate) fn want_topics<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        self.core().metadata.want(topics);
    }

    /// Topics whose ids alone are known: asks for them until the picture has their names. Replaces
    /// what was said before.
    pub(crate) fn want_topic_ids(&self, ids: &[Uuid]) {
        self.core().metadata.want_ids(ids);
    }

    /// Keeps all topics of the cluster in the picture (for regular expressions), or no longer.
    pub(crate) fn want_all_topics(&self, all: bool) {
        self.core().metadata.want_all(all);
    }

    /// The picture is known to be wrong: asks for a new one soon (paced by `retry.backoff`,
    /// single-flight).
    pub(crate) fn refresh_metadata(&self) {
        self.core().metadata.refresh();
    }

    /// Waits for a picture newer than that version, asking for it.
    ///
    /// # Errors
    /// `Timeout` at the deadline, with the last cause; at once what waiting does not cure
    /// (`Authentication`).
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

    /// Waits until a topic is there without an error, asking with backoff.
    ///
    /// # Errors
    /// At once what waiting does not cure (not allowed, not a topic's name); at the deadline why
    /// the topic is not there: `UnknownTopicOrPartition`, or `Timeout` with the addresses and the
    /// cause when no broker could be reached.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn topic(&self, name: &str, deadline: Instant) -> Result<Arc<Metadata>> {
        let cache = &self.core().metadata;
        let began = {
            let metadata = cache.current_ref();
            let known = metadata.topic(name);
            if known.is_some_and(|topic| topic.is_settled() && !topic.error.is_ok()) {
                // What was refused a while ago may be allowed by now.
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
                format!("topic \"{name}\" does not exist, or may not be seen, and did not appear before the deadline"),
            ),
            Some(error) if !error.is_ok() => Error::broker(error, format_args!("topic \"{name}\"")),
            _ => Error::new(ErrorKind::Timeout, format!("nothing was heard of topic \"{name}\" before the deadline")),
        };
        metadata_wait::wait(self.core(), deadline, found, gave_up).await
    }

    /// An error response named the new leader (KIP-951): takes it at once if its epoch is newer.
    /// Also asks for a refresh.
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

    /// Why the last attempt at metadata failed, if it did; for errors and status.
    pub(crate) fn metadata_failure(&self) -> Option<Error> {
        self.core().metadata.failure()
    }

    /// How old the newest answer to Metadata is.
    pub(crate) fn metadata_age(&self) -> Option<Duration> {
        let answered = self.core().metadata.plan().last_success()?;
        Some(now().saturating_duration_since(answered))
    }

    /// What was counted of each broker.
    pub(crate) fn metrics(&self) -> BTreeMap<i32, BrokerMetrics> {
        self.core().pool.metrics()
    }

    // ---- requests

    /// One attempt at a request, at the highest version that both sides have and that is at most
    /// `attempt.max_version`; `build` makes the request for that version. The error's
    /// `delivery_status` says whether the broker may have seen the request. Throttling (KIP-219)
    /// mutes the connection for later requests.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up; the request may have been sent, and the connection
    /// goes on.
    pub(crate) async fn send<R: Request>(
        &self,
        attempt: Attempt,
        build: impl FnOnce(i16) -> R + Send,
    ) -> Result<R::Response> {
        self.core().send(attempt, build).await
    }

    /// One attempt at a request that the caller writes and reads itself (Produce, Fetch). `write`
    /// gets the agreed version and writes the body behind the header. Where the throttle time does
    /// not stand at the front of the response (Produce), the caller reports it with
    /// [`throttle`](Self::throttle).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub(crate) async fn send_raw(
        &self,
        attempt: Attempt,
        key: ApiKey,
        write: impl FnOnce(i16, &mut BytesMut) -> Result<RawRequest> + Send,
    ) -> Result<RawResponse> {
        self.core().send_raw(attempt, key, write).await
    }

    /// The open connection to a broker. If there is none, one is begun, for which
    /// [`link_by`](Self::link_by) waits.
    pub(crate) fn link(&self, node: i32, kind: ConnectionKind) -> Option<Link> {
        match connection_life::lookup(self.core(), node, kind) {
            ConnectionLookup::Open(connection) => Some(Link(connection)),
            ConnectionLookup::Connecting(_) => None,
        }
    }

    /// The connection to a broker, as soon as there is one.
    ///
    /// # Errors
    /// Why there is none, at the latest at the deadline; nothing was sent.
    ///
    /// # Cancel safety
    /// Safe: the attempt to connect goes on.
    pub(crate) async fn link_by(&self, node: i32, kind: ConnectionKind, deadline: Instant) -> Result<Link> {
        self.core().connection(node, kind, deadline.into_std()).await.map(Link)
    }

    /// Takes notice of what an answer that came into a queue says of the cluster.
    ///
    /// # Errors
    /// The answer's own; `Closed` when the client is closed.
    pub(crate) fn refresh_metadata_on_error(&self, answer: Result<Bytes>) -> Result<Bytes> {
        self.core().refresh_metadata_on_error(answer)
    }

    /// Mutes a connection, as `throttle_time_ms` of a response asks (KIP-219).
    pub(crate) fn throttle(&self, node: i32, kind: ConnectionKind, throttle_time_ms: i32) {
        if throttle_time_ms > 0 {
            self.core().pool.mute(node, kind, throttle_time_ms);
        }
    }

    /// A request that may be sent again word for word: routed, repeated with backoff on lost
    /// connections and on errors that `check` finds in the answer and that the table calls
    /// retriable (metadata or coordinator looked up anew where it says so), until the deadline. An
    /// answer with an error that repeating does not cure is returned as it is. Only for what is
    /// harmless to repeat.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
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

    /// As [`call`](Self::call), in a version of at most `max_version`.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub(crate) async fn call_up_to<R: Request>(
        &self,
        max_version: Option<i16>,
        route: Route,
        kind: ConnectionKind,
        deadline: Instant,
        build: impl Fn(i16) -> R + Send + Sync,
        check: impl Fn(&R::Response) -> ErrorCode + Send + Sync,
    ) -> Result<R::Response> {
        call::call(self.core(), &route, kind, deadline, max_version, build, check).await
    }

    /// The coordinator of a group or a transactional id: cached, looked up single-flight (a caller
    /// that gives up does not cancel the look-up for others).
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn coordinator(&self, kind: CoordinatorKind, key: &str, deadline: Instant) -> Result<i32> {
        coordinator_lookup::get(self.core(), kind, key, deadline).await
    }

    /// That node is no longer the coordinator; ignored when another one is known by now.
    pub(crate) fn forget_coordinator(&self, kind: CoordinatorKind, key: &str, node: i32) {
        coordinator_lookup::forget_coordinator(self.core(), kind, key, node);
    }

    /// A finalized feature's level as the last ApiVersions said it (e.g. `transaction.version`).
    #[cfg_attr(not(test), expect(dead_code, reason = "transactions choose their version by it"))]
    pub(crate) fn feature(&self, name: &str) -> Option<i16> {
        self.core().features().level(name)
    }

    /// Closes all connections and ends all tasks; calls under way end with `Closed`. Does not wait;
    /// once is enough.
    pub(crate) fn close(&self) {
        self.core().close();
    }
}
