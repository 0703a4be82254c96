//! Produce requests on their way: sealed, sent and awaited, without a task for each.
//!
//! The requests to one broker are *written* in the order in which they were drained, as the sequence numbers in them
//! ask: the next is handed to the connection only when the one before has been. Sealing goes ahead of that, and answers
//! come in whatever order.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{sync::Semaphore, time::Instant};
use tracing::Instrument;

use super::{
    batch::Body,
    counters::Counters,
    sender::{Answered, Part, ProduceRequest},
    ticket::Ticket,
};
use crate::{
    cluster::{Attempt, Client, Lane, RawRequest},
    error::{DeliveryStatus, Error, ErrorKind, Result},
    net::BoxFuture,
    wire::{
        ApiKey, Compression,
        batch::{Compressor, ProducerStamp, SealedBatch},
        produce::{ProducePartition, ProduceTopic, decode_produce, encode_produce},
    },
};

/// More than so many bytes are not compressed on the task's own thread.
const INLINE_COMPRESSION: usize = 32 * 1024;

/// The requests of one producer.
pub(super) struct Requests {
    shared: Arc<Shared>,
    nodes: HashMap<i32, VecDeque<Running>>,
}

struct Shared {
    client: Client,
    acks: i16,
    request_timeout: Duration,
    compressors: Compressors,
    counters: Arc<Counters>,
}

struct Running {
    stage: Stage,
    /// Set when its bytes are handed to the connection.
    written: Arc<AtomicBool>,
}

enum Stage {
    Sealing(BoxFuture<'static, Sealed>),
    /// Waits for the request before it to be written; `None` only while it changes to the next stage.
    Sealed(Option<Sealed>),
    Sending(BoxFuture<'static, Answered>),
}

struct Sealed {
    id: u64,
    node: i32,
    parts: Vec<(Head, Result<SealedBatch>)>,
}

impl Sealed {
    /// What the request is called while it is under way; costs nothing while nobody listens.
    fn span(&self) -> tracing::Span {
        let bodies = || self.parts.iter().filter_map(|(_, body)| body.as_ref().ok());
        tracing::debug_span!(
            "produce",
            node = self.node,
            request = self.id,
            partitions = self.parts.len(),
            records = self.parts.iter().map(|(head, _)| u64::from(head.records)).sum::<u64>(),
            bytes = bodies().map(SealedBatch::size).sum::<usize>(),
            attempt = self.parts.iter().map(|(head, _)| head.attempt).max(),
        )
    }
}

/// A part without its body.
struct Head {
    topic: Arc<str>,
    topic_id: uuid::Uuid,
    partition: i32,
    stamp: ProducerStamp,
    ticket: Ticket,
    records: u32,
    attempt: u32,
}

impl Requests {
    pub(super) fn new(
        client: Client,
        acks: i16,
        request_timeout: Duration,
        compression: Compression,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let compressors = Compressors::new(compression, counters.clone())?;
        let shared = Shared { client, acks, request_timeout, compressors, counters };
        Ok(Self { shared: Arc::new(shared), nodes: HashMap::new() })
    }

    /// Takes a request over; it goes out when [`next`](Self::next) is polled.
    pub(super) fn start(&mut self, request: ProduceRequest) {
        let node = request.node;
        let unsealed = |part: &Part| if let Body::Open(builder) = &part.body { builder.size() } else { 0 };
        let size: usize = request.parts.iter().map(unsealed).sum();
        let stage = if self.shared.compressors.compression == Compression::None || size <= INLINE_COMPRESSION {
            Stage::Sealed(Some(self.shared.compressors.seal(request)))
        } else {
            Stage::Sealing(Box::pin(seal_elsewhere(self.shared.clone(), request)))
        };
        self.nodes.entry(node).or_default().push_back(Running { stage, written: Arc::default() });
    }

    /// The next request that ended; waits for ever when none is under way.
    ///
    /// Safe to drop: nothing is lost.
    pub(super) async fn next(&mut self) -> Answered {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        for queue in self.nodes.values_mut() {
            let mut turn = true;
            for at in 0..queue.len() {
                let Some(running) = queue.get_mut(at) else { break };
                if let Poll::Ready(answered) = running.poll(&self.shared, turn, cx) {
                    queue.remove(at);
                    return Poll::Ready(answered);
                }
                turn = turn && running.written.load(Ordering::Acquire);
            }
        }
        Poll::Pending
    }
}

impl Running {
    /// `turn`: all requests before it were written.
    fn poll(&mut self, shared: &Arc<Shared>, turn: bool, cx: &mut Context<'_>) -> Poll<Answered> {
        loop {
            match &mut self.stage {
                Stage::Sealing(sealing) => match sealing.as_mut().poll(cx) {
                    Poll::Ready(sealed) => self.stage = Stage::Sealed(Some(sealed)),
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Sealed(sealed) => match sealed.take_if(|_| turn) {
                    Some(sealed) => {
                        let span = sealed.span();
                        let sending = send(shared.clone(), sealed, self.written.clone());
                        self.stage = Stage::Sending(Box::pin(sending.instrument(span)));
                    }
                    None => return Poll::Pending,
                },
                Stage::Sending(sending) => return sending.as_mut().poll(cx),
            }
        }
    }
}

/// One attempt at a request, to its answer.
async fn send(shared: Arc<Shared>, sealed: Sealed, written_to: Arc<AtomicBool>) -> Answered {
    let Sealed { id, node, parts } = sealed;
    let (heads, bodies): (Vec<Head>, Vec<Result<SealedBatch>>) = parts.into_iter().unzip();
    let mut withdrawn = vec![false; heads.len()];
    let mut written_at = None;
    let attempt = Attempt {
        node,
        lane: Lane::Main,
        timeout: shared.request_timeout,
        max_version: heads.iter().any(|head| head.topic_id.is_nil()).then_some(LAST_VERSION_BY_NAME),
    };
    let answer = shared
        .client
        .send_raw(attempt, ApiKey::Produce, |agreed| {
            let parts = heads.iter().zip(&bodies).zip(&mut withdrawn);
            let leaving: Vec<(&Head, &SealedBatch)> = parts
                .filter_map(|((head, body), withdrawn)| {
                    let body = body.as_ref().ok()?;
                    *withdrawn = !head.ticket.write();
                    (!*withdrawn).then_some((head, body))
                })
                .collect();
            if leaving.is_empty() {
                return Err(nothing_left());
            }
            let timeout_ms = i32::try_from(shared.request_timeout.as_millis()).unwrap_or(i32::MAX);
            let topics = by_topic(&leaving);
            let chunks = encode_produce(BytesMut::new(), agreed, None, shared.acks, timeout_ms, &topics)?;
            let records = leaving.iter().map(|(head, _)| u64::from(head.records)).sum();
            shared.counters.written(leaving.len(), records, chunks.iter().map(Bytes::len).sum());
            written_at = Some(Instant::now());
            written_to.store(true, Ordering::Release);
            Ok(RawRequest { chunks, answered: shared.acks != 0 })
        })
        .await;
    match (&answer, written_at) {
        (Ok(_), Some(at)) => shared.counters.latency(node, at.elapsed()),
        (Err(error), _) => tracing::debug!(node, request = id, %error, "a request got no answer"),
        (Ok(_), None) => {}
    }
    let response = match answer {
        Ok(_) if shared.acks == 0 => Ok(None),
        // What cannot be read does not say what became of the batches.
        Ok(raw) => decode_produce(raw.body, raw.version)
            .map(Some)
            .map_err(|error| error.with_status(DeliveryStatus::PossiblyPersisted)),
        Err(error) => Err(error),
    };
    Answered { id, bodies, withdrawn, response }
}

/// Produce v13 and newer name topics by id.
const LAST_VERSION_BY_NAME: i16 = 12;

/// The parts grouped by topic, in their order.
fn by_topic<'a>(parts: &[(&'a Head, &'a SealedBatch)]) -> Vec<ProduceTopic<'a>> {
    let mut topics: Vec<ProduceTopic<'a>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (head, batch) in parts {
        let at = *places.entry(&head.topic).or_insert_with(|| {
            topics.push(ProduceTopic { name: &head.topic, id: head.topic_id, partitions: Vec::new() });
            topics.len() - 1
        });
        if let Some(topic) = topics.get_mut(at) {
            topic.partitions.push(ProducePartition { partition: head.partition, batch, stamp: head.stamp });
        }
    }
    topics
}

fn nothing_left() -> Error {
    Error::new(ErrorKind::Timeout, "all records of the request had expired before it was written")
        .with_status(DeliveryStatus::NotPersisted)
}

/// Seals on a thread for work that takes long, as many at once as there are cores.
async fn seal_elsewhere(shared: Arc<Shared>, request: ProduceRequest) -> Sealed {
    let (id, node) = (request.id, request.node);
    let heads: Vec<Head> = request.parts.iter().map(Head::of).collect();
    let permit = shared.compressors.permits.clone().acquire_owned().await;
    let worker = shared.clone();
    let sealed = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        worker.compressors.seal(request)
    });
    match sealed.await {
        Ok(sealed) => sealed,
        // The runtime goes down, or a codec panicked: the bytes are gone.
        Err(failure) => {
            let error = Error::new(ErrorKind::Internal, "a batch could not be compressed").with_source(failure);
            Sealed { id, node, parts: heads.into_iter().map(|head| (head, Err(error.clone()))).collect() }
        }
    }
}

impl Head {
    fn of(part: &Part) -> Self {
        Self {
            topic: part.topic.clone(),
            topic_id: part.topic_id,
            partition: part.partition,
            stamp: part.stamp,
            ticket: part.ticket.clone(),
            records: part.records,
            attempt: part.attempt,
        }
    }
}

/// A codec's state in a box, because some are large and each is taken out and put back for every request.
type BoxedCompressor = Box<Compressor>;

/// The codecs' states that are not in use.
struct Compressors {
    compression: Compression,
    counters: Arc<Counters>,
    idle: Mutex<Vec<BoxedCompressor>>,
    permits: Arc<Semaphore>,
}

impl Compressors {
    fn new(compression: Compression, counters: Arc<Counters>) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let idle = Mutex::new(vec![Box::new(Compressor::new(compression)?)]);
        Ok(Self { compression, counters, idle, permits: Arc::new(Semaphore::new(cores)) })
    }

    fn seal(&self, request: ProduceRequest) -> Sealed {
        let idle = self.lock().pop();
        let mut compressor = idle.map_or_else(|| Compressor::new(self.compression).map(Box::new), Ok);
        let parts = request.parts.into_iter().map(|part| {
            let head = Head::of(&part);
            let body = match (part.body, &mut compressor) {
                (Body::Sealed(sealed), _) => Ok(sealed),
                (Body::Open(builder), Ok(compressor)) => {
                    builder.seal(compressor).inspect(|sealed| self.counters.sealed(sealed))
                }
                (Body::Open(_), Err(error)) => Err(error.clone()),
                (Body::Lent(_), _) => Err(Error::new(ErrorKind::Internal, "a batch was lent to two requests")),
            };
            (head, body)
        });
        let sealed = Sealed { id: request.id, node: request.node, parts: parts.collect() };
        self.lock().extend(compressor);
        sealed
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BoxedCompressor>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
