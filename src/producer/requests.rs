//! Produce requests in flight: sealed, handed to a connection and answered, without a task or a
//! future for each.
//!
//! ```text
//! start ─▶ line of the node: sealing ─ sealed ─▶ connection ─▶ answers ─▶ next
//! ```
//! The requests to one broker are *written* in the order in which they were drained, because their
//! sequence numbers require it: a request is handed to the connection only after the one before it.
//! Sealing runs ahead of that, and answers come in any order.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use tracing::Span;

use super::{
    counters::Counters,
    sealing::Sealing,
    sender::{ProduceRequest, RequestPart},
};
use crate::producer::batch_body::Body;
use crate::{
    cluster::{Client, ConnectionKind, Link, RawRequest, ResponseQueue, RevocableParts, VersionBounds},
    error::{DeliveryStatus, Error, ErrorKind, Result},
    log::event,
    net::BoxFuture,
    wire::{
        ApiKey, Compression,
        batch::SealedBatch,
        produce::{ProducePart, ProduceResponse, decode_produce, encode_produce},
    },
};

/// The requests of one producer.
pub(super) struct Requests {
    settings: RequestSettings,
    sealing: Arc<Sealing>,
    responses: ResponseQueue,
    /// Requests that were not handed to a connection yet, by node.
    queues: HashMap<i32, NodeQueue>,
    /// Number of requests in all queues.
    unsent: usize,
    /// Requests that connections have.
    sent: HashMap<u64, SentRequest>,
    /// Requests that ended before a connection had them.
    ended: VecDeque<EndedRequest>,
}

struct RequestSettings {
    client: Client,
    acks: i16,
    transactional_id: Option<Arc<str>>,
    /// The versions that the protocol of the transaction allows.
    versions: VersionBounds,
    request_timeout: Duration,
    /// Time for which the broker waits for acknowledgements.
    ack_timeout: Duration,
    counters: Arc<Counters>,
}

/// A request that a connection has.
struct SentRequest {
    request: ProduceRequest,
    version: i16,
    at: Instant,
    span: Span,
}

/// The requests to one broker that wait for their turn.
#[derive(Default)]
struct NodeQueue {
    unsent: VecDeque<Unsent>,
    /// The connection attempt for the first request, and the deadline of the request's answer.
    connecting: Option<(BoxFuture<'static, Result<Link>>, Instant)>,
}

enum Unsent {
    Sealing(BoxFuture<'static, ProduceRequest>),
    Sealed(ProduceRequest),
    /// If connecting fails, all requests queued for that broker fail instead of waiting for the
    /// next, longer attempt, because their partitions may have a new leader by then. This one fails
    /// once it is sealed.
    Lost(BoxFuture<'static, ProduceRequest>, Error),
}

/// A request that has ended, and its answer: `None` with acks=0.
#[derive(Debug)]
pub(super) struct EndedRequest {
    pub(super) request: ProduceRequest,
    version: i16,
    answer: Result<Option<Bytes>>,
}

impl EndedRequest {
    fn unsent(request: ProduceRequest, error: Error) -> Self {
        Self { request, version: 0, answer: Err(error) }
    }

    /// Passes the request and its answer, decoded from the bytes, to `tell`.
    #[inline(never)]
    pub(super) fn read<T>(self, tell: impl FnOnce(ProduceRequest, Result<Option<ProduceResponse<'_>>>) -> T) -> T {
        let response = match &self.answer {
            Ok(None) => Ok(None),
            // An unreadable answer does not tell the fate of the batches.
            Ok(Some(body)) => decode_produce(body, self.version)
                .map(Some)
                .map_err(|error| error.with_status(DeliveryStatus::PossiblyPersisted)),
            Err(error) => Err(error.clone()),
        };
        tell(self.request, response)
    }
}

impl Requests {
    pub(super) fn new(
        client: Client,
        (acks, transactional_id): (i16, Option<Arc<str>>),
        (request_timeout, ack_timeout): (Duration, Duration),
        compression: Compression,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        Ok(Self {
            sealing: Arc::new(Sealing::new(compression, counters.clone())?),
            settings: RequestSettings {
                client,
                acks,
                transactional_id,
                versions: VersionBounds::ANY,
                request_timeout,
                ack_timeout,
                counters,
            },
            responses: ResponseQueue::new(),
            queues: HashMap::new(),
            unsent: 0,
            sent: HashMap::new(),
            ended: VecDeque::new(),
        })
    }

    /// Sets the versions in which the requests of the next transaction are sent. No request of an
    /// earlier one may be outstanding.
    pub(super) fn set_versions(&mut self, versions: VersionBounds) {
        self.settings.versions = versions;
    }

    /// Takes over a request. It is sent at once if possible, otherwise when [`next`](Self::next) is
    /// polled.
    ///
    /// Not inlined, like [`EndedRequest::read`], because `scripts/instructions` counts its
    /// instructions.
    #[inline(never)]
    pub(super) fn start(&mut self, mut request: ProduceRequest) {
        let node = request.node;
        let unsent = if self.sealing.is_small(&request.parts) {
            self.sealing.seal(&mut request.parts);
            Unsent::Sealed(request)
        } else {
            Unsent::Sealing(Box::pin(self.sealing.clone().seal_elsewhere(request)))
        };
        self.queues.entry(node).or_default().unsent.push_back(unsent);
        self.unsent += 1;
        // Nothing is woken by this poll; a request that cannot be sent now is polled again by
        // `next`.
        self.advance(node, &mut Context::from_waker(Waker::noop()));
    }

    /// Waits for the next request that has ended; never returns if there is none.
    ///
    /// Safe to drop: nothing is lost.
    pub(super) async fn next(&mut self) -> EndedRequest {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns another request that has already ended, after the one that [`next`](Self::next)
    /// returned.
    pub(super) fn next_ended(&mut self) -> Option<EndedRequest> {
        match self.poll_answer(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending => None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<EndedRequest> {
        if self.unsent > 0 {
            let nodes: Vec<i32> =
                self.queues.iter().filter(|(_, line)| !line.unsent.is_empty()).map(|(n, _)| *n).collect();
            for node in nodes {
                self.advance(node, cx);
            }
        }
        self.poll_answer(cx)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<EndedRequest> {
        if let Some(ended) = self.ended.pop_front() {
            return Poll::Ready(ended);
        }
        while let Poll::Ready((id, answer)) = self.responses.poll_next(cx) {
            let answer = self.settings.client.refresh_metadata_on_error(answer);
            let Some(SentRequest { mut request, version, at, span }) = self.sent.remove(&id) else { continue };
            let _entered = span.enter();
            match &answer {
                Ok(_) => self.settings.counters.latency(request.node, at.elapsed()),
                Err(error) => {
                    let (origin, node) = (self.settings.client.origin(), request.node);
                    event!(DEBUG, origin, node, request = id, %error, "a request got no answer");
                    for part in &mut request.parts {
                        part.withdrawn |= part.revocable.is_withdrawn();
                    }
                }
            }
            let answer = answer.map(|body| (self.settings.acks != 0).then_some(body));
            return Poll::Ready(EndedRequest { request, version, answer });
        }
        Poll::Pending
    }

    /// Sends the sealed requests at the front of a node's queue.
    fn advance(&mut self, node: i32, cx: &mut Context<'_>) {
        let Some(line) = self.queues.get_mut(&node) else { return };
        line.unsent.retain_mut(|unsent| {
            match unsent {
                Unsent::Sealing(sealing) => {
                    if let Poll::Ready(sealed) = sealing.as_mut().poll(cx) {
                        *unsent = Unsent::Sealed(sealed);
                    }
                }
                Unsent::Lost(sealing, error) => {
                    if let Poll::Ready(sealed) = sealing.as_mut().poll(cx) {
                        self.ended.push_back(EndedRequest::unsent(sealed, error.clone()));
                        self.unsent -= 1;
                        return false;
                    }
                }
                Unsent::Sealed(_) => {}
            }
            true
        });
        while let Some(Unsent::Sealed(_)) = line.unsent.front() {
            let Poll::Ready((link, deadline)) = line.poll_link(&self.settings, node, cx) else { return };
            let Some(Unsent::Sealed(mut request)) = line.unsent.pop_front() else { return };
            self.unsent -= 1;
            if let Err(error) = &link {
                self.unsent -= line.fail_unsent(error, &mut self.ended);
            }
            let link = link.and_then(|link| {
                let by_name = request.parts.iter().any(|part| part.topic_id.is_nil());
                let VersionBounds { min, max } = self.settings.versions;
                let max = if by_name { max.min(LAST_VERSION_BY_NAME) } else { max };
                let version = link.version(ApiKey::Produce, VersionBounds { min, max })?;
                Ok((link, version))
            });
            match link {
                Ok((link, version)) => {
                    let (id, settings, span) = (request.id, &self.settings, span(&request));
                    let write = |head: &mut BytesMut| settings.write(&mut request, version, head);
                    span.in_scope(|| {
                        link.request_into_queue(ApiKey::Produce, version, deadline, (&self.responses, id), write)
                    });
                    self.sent.insert(id, SentRequest { request, version, at: Instant::now(), span });
                }
                Err(error) => self.ended.push_back(EndedRequest::unsent(request, error)),
            }
        }
    }
}

impl NodeQueue {
    /// Fails all requests that wait for a connection, because connecting failed. Returns the number
    /// of requests that ended.
    fn fail_unsent(&mut self, error: &Error, ended: &mut VecDeque<EndedRequest>) -> usize {
        let waiting = self.unsent.len();
        for unsent in std::mem::take(&mut self.unsent) {
            match unsent {
                Unsent::Sealed(request) => ended.push_back(EndedRequest::unsent(request, error.clone())),
                Unsent::Sealing(sealing) => self.unsent.push_back(Unsent::Lost(sealing, error.clone())),
                lost @ Unsent::Lost(..) => self.unsent.push_back(lost),
            }
        }
        waiting - self.unsent.len()
    }

    /// Polls the connection for the first request, with the deadline of its answer.
    fn poll_link(
        &mut self,
        settings: &RequestSettings,
        node: i32,
        cx: &mut Context<'_>,
    ) -> Poll<(Result<Link>, Instant)> {
        let (connecting, deadline) = match &mut self.connecting {
            Some(connecting) => connecting,
            none => {
                let deadline = Instant::now() + settings.request_timeout;
                if let Some(link) = settings.client.link(node, ConnectionKind::Main) {
                    return Poll::Ready((Ok(link), deadline));
                }
                let client = settings.client.clone();
                let connecting = async move { client.link_by(node, ConnectionKind::Main, deadline).await };
                none.insert((Box::pin(connecting), deadline))
            }
        };
        let deadline = *deadline;
        connecting.as_mut().poll(cx).map(|link| {
            self.connecting = None;
            (link, deadline)
        })
    }
}

impl RequestSettings {
    /// Writes a request without the batches that are withdrawn by now. If another batch is
    /// withdrawn before the connection hands the request to the socket, the request is not sent.
    fn write(&self, request: &mut ProduceRequest, version: i16, head: &mut BytesMut) -> Result<RawRequest> {
        let (mut batches, mut records) = (0, 0);
        for part in &mut request.parts {
            if matches!(part.body, Ok(Body::Sealed(_))) {
                part.withdrawn = part.revocable.is_withdrawn();
                if !part.withdrawn {
                    batches += 1;
                    records += u64::from(part.records);
                }
            }
        }
        if batches == 0 {
            return Err(Error::new(ErrorKind::Timeout, "all records of the request had expired before it was written")
                .with_status(DeliveryStatus::NotPersisted));
        }
        let front = head.len();
        let timeout_ms = i32::try_from(self.ack_timeout.as_millis()).unwrap_or(i32::MAX);
        let parts = request.parts.iter().filter_map(leaving);
        let inserts = encode_produce(head, version, self.transactional_id.as_deref(), self.acks, timeout_ms, parts)?;
        self.counters.written(
            batches,
            records,
            head.len() - front + inserts.iter().map(|(_, body)| body.len()).sum::<usize>(),
        );
        let leaves = request.parts.iter().filter(|part| leaving(part).is_some());
        let departure: RevocableParts = leaves.map(|part| part.revocable.part()).collect();
        Ok(RawRequest { inserts, answered: self.acks != 0, expects: 0, departure })
    }
}

/// Returns the span of a request in flight; it costs nothing while no subscriber listens.
fn span(request: &ProduceRequest) -> Span {
    let batches = || request.parts.iter().filter_map(|part| leaving(part).map(|leaving| leaving.batch));
    tracing::debug_span!(
        "produce",
        node = request.node,
        request = request.id,
        partitions = request.parts.len(),
        records = request.parts.iter().map(|part| u64::from(part.records)).sum::<u64>(),
        bytes = batches().map(SealedBatch::size).sum::<usize>(),
        attempt = request.parts.iter().map(|part| part.attempt).max(),
    )
}

/// Produce v13 and newer name topics by id.
const LAST_VERSION_BY_NAME: i16 = 12;

fn leaving(part: &RequestPart) -> Option<ProducePart<'_>> {
    match &part.body {
        Ok(Body::Sealed(batch)) if !part.withdrawn => Some(ProducePart {
            topic: &part.topic,
            topic_id: part.topic_id,
            partition: part.partition,
            batch,
            stamp: part.stamp,
        }),
        _ => None,
    }
}
