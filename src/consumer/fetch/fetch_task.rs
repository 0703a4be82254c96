//! Fetches from one broker over one connection, one request at a time.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::consumer::{
    buffer::fetch_buffer::FetchBuffer,
    config::settings::IsolationLevel,
    fetch::{
        batch_scan::scan_batches,
        connection_id::FetchConnectionId,
        memory_budget::Reservation,
        plan::{FetchPlan, SessionClose},
        scanned::{MetadataHints, ScannedPartition},
    },
};
use crate::{
    cluster::{Attempt, Client, ConnectionKind, RawRequest, VersionBounds},
    error::{Error, Result},
    log::event,
    wire::{
        ApiKey,
        fetch::{FetchRequest, FetchResponse, NodeEndpoint, decode_fetch, encode_fetch},
    },
};

/// Newest version that names topics instead of sending their ids.
const BY_NAME: i16 = 12;

/// State shared by the fetch tasks.
#[derive(Clone, Debug)]
pub(crate) struct FetchTask {
    pub(crate) client: Client,
    pub(crate) buffer: Arc<FetchBuffer>,
    /// `request.timeout.ms` plus `fetch.max.wait.ms`.
    pub(crate) timeout: Duration,
}

impl FetchTask {
    /// Runs until it is aborted or the broker is gone. The next fetch is sent as soon as the batch
    /// headers of the last response were scanned; no batch is decompressed here.
    pub(crate) async fn run(self, node: FetchConnectionId) {
        let wake = self.buffer.wakers.get(node);
        loop {
            let now = Instant::now();
            match self.buffer.with_state(|state| state.plan_fetch(node, now.into_std())) {
                FetchPlan::Fetch { request, reserved, by_name } => self.fetch(node, *request, reserved, by_name).await,
                FetchPlan::End => return,
                FetchPlan::Wait(until) => {
                    let pause = async {
                        match until {
                            Some(until) => sleep_until(until.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        () = wake.notified() => {}
                        () = pause => {}
                    }
                }
            }
        }
    }

    async fn fetch(&self, node: FetchConnectionId, request: FetchRequest, reserved: Reservation, by_name: bool) {
        self.buffer.with_state(|state| state.stats.fetch_sent(node, self.timeout, Instant::now().into_std()));
        match self.send(node, &request, by_name, reserved.bytes()).await {
            Ok((response, size)) => {
                // The level by which it was asked for: the consumer's may have been raised since.
                let isolation = match request.isolation_level {
                    0 => IsolationLevel::ReadUncommitted,
                    _ => IsolationLevel::ReadCommitted,
                };
                self.handle_response(node, response, isolation, reserved, size);
            }
            Err(error) => {
                self.buffer.with_state(|state| {
                    state.stats.fetch_failed(node, &error);
                    state.handle_fetch_failure(node, &error, Instant::now().into_std());
                });
                // The broker's partitions may have other leaders by now.
                self.client.refresh_metadata();
            }
        }
    }

    /// Tells a broker that a session is over. If the request fails, the broker drops the session
    /// after its own timeout.
    pub(crate) async fn close_session(&self, close: SessionClose, timeout: Duration) {
        let SessionClose { broker: node, request } = close;
        // Uses the main connection, because the request would wait behind an outstanding fetch
        // otherwise.
        let attempt = Attempt { node, kind: ConnectionKind::Main, timeout, versions: VersionBounds::ANY };
        if let Err(error) = self.client.send_raw(attempt, ApiKey::Fetch, request_writer(&request, 0)).await {
            event!(DEBUG, self.client.origin(), node, %error, "a fetch session could not be closed; the broker drops it by itself");
        }
    }

    /// Sends the request and returns the response with its size in bytes. The size is at most
    /// `expects` bytes unless a single batch is larger.
    async fn send(
        &self,
        node: FetchConnectionId,
        request: &FetchRequest,
        by_name: bool,
        expects: usize,
    ) -> Result<(FetchResponse, usize)> {
        let versions = VersionBounds::up_to(by_name.then_some(BY_NAME));
        let FetchConnectionId { broker: node, connection: kind } = node;
        let attempt = Attempt { node, kind: ConnectionKind::Fetch(kind), timeout: self.timeout, versions };
        let answer = self.client.send_raw(attempt, ApiKey::Fetch, request_writer(request, expects)).await?;
        let size = answer.body.len();
        let response = decode_fetch(answer.body, answer.version)
            .map_err(|error: Error| error.context(format_args!("fetch response of broker {node}")))?;
        Ok((response, size))
    }

    fn handle_response(
        &self,
        node: FetchConnectionId,
        response: FetchResponse,
        isolation: IsolationLevel,
        mut reservation: Reservation,
        size: usize,
    ) {
        let FetchResponse { throttle_time_ms, error, session_id, partitions, node_endpoints } = response;
        let throttle = Duration::from_millis(u64::try_from(throttle_time_ms).unwrap_or(0));
        let arrived: Vec<ScannedPartition> = partitions
            .into_iter()
            .map(|mut head| {
                let records = std::mem::take(&mut head.records);
                let walk = scan_batches(records, isolation, &head.aborted_transactions);
                ScannedPartition { head, scan: walk }
            })
            .collect();
        // A response without records occupies no memory.
        let empty = arrived.iter().all(|arrived| arrived.scan.entries.is_empty());
        reservation.resize(if empty { 0 } else { size });
        let now = Instant::now().into_std();
        let hints = self.buffer.with_state(|state| {
            state.stats.fetch_answered(node, error, size, throttle, now);
            state.handle_fetch_response(node, session_id, error, arrived, reservation, now)
        });
        self.apply_metadata_hints(hints, &node_endpoints);
    }

    fn apply_metadata_hints(&self, hints: MetadataHints, endpoints: &[NodeEndpoint]) {
        for (partition, leader, epoch) in hints.leaders {
            self.client.learn_leader(&partition.topic, partition.partition, leader, epoch, endpoints);
        }
        if hints.refresh {
            self.client.refresh_metadata();
        }
    }
}

/// Returns the encoder of a fetch, for any version, with a response of up to `expects` bytes.
fn request_writer(request: &FetchRequest, expects: usize) -> impl Fn(i16, &mut BytesMut) -> Result<RawRequest> {
    move |version, head| {
        encode_fetch(head, version, request)?;
        Ok(RawRequest::whole().expecting(expects))
    }
}

/// Closes the sessions at all brokers in parallel, within the deadline.
pub(crate) async fn close_sessions(task: FetchTask, closes: Vec<SessionClose>, deadline: Instant) {
    let mut asked = JoinSet::new();
    for close in closes {
        let task = task.clone();
        let left = deadline.saturating_duration_since(Instant::now());
        asked.spawn(async move { task.close_session(close, left).await });
    }
    // A broker that does not answer in time is not waited for.
    let _ = timeout_at(deadline, async { while asked.join_next().await.is_some() {} }).await;
}
