//! One connection to one broker, as callers see it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    task::Waker,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::{
    answers::{Answers, Reply, unanswered},
    client::RawRequest,
    connection_task::Driver,
    counters::NodeCounters,
    frames::FrameReader,
    pipeline::{Limits, Outgoing, Pipeline},
    versions::Versions,
};
use crate::{
    error::{DeliveryStatus, Error, ErrorKind, Result},
    net::Stream,
    wire::{ApiKey, message::encode_request_header},
};

/// A connection on which the versions are agreed. Requests are pipelined; each caller waits for its own answer only.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    client_id: String,
    versions: Versions,
    next_correlation_id: AtomicI32,
}

/// What callers and the connection's driver have in common.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) pipeline: Pipeline,
    /// The driver's, while it has nothing to do.
    waker: Option<Waker>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Pipeline) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.pipeline);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }
}

impl State {
    pub(super) fn register(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Connection {
    /// A connection over a stream, and the driver that has to be polled for it to live.
    pub(super) fn new(
        peer: String,
        stream: Box<dyn Stream>,
        reader: FrameReader,
        versions: Versions,
        client_id: String,
        limits: Limits,
    ) -> (Self, Driver) {
        let pipeline = Pipeline::new(peer, limits, now());
        let shared = Arc::new(Shared { state: Mutex::new(State { pipeline, waker: None }) });
        let driver = Driver::new(Arc::clone(&shared), stream, reader);
        (Self { shared, client_id, versions, next_correlation_id: AtomicI32::new(1) }, driver)
    }

    /// Host and port.
    pub(super) fn peer(&self) -> String {
        self.shared.lock().pipeline.peer().to_owned()
    }

    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Sends a request and waits for the body of its answer. `write` appends as much of the body as it likes to the head
    /// and gives the rest as chunks.
    ///
    /// # Cancel safety
    /// A dropped call's request is not sent if it still waited, and its answer is thrown away if not.
    pub(super) async fn request(
        &self,
        key: ApiKey,
        version: i16,
        deadline: Instant,
        write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
    ) -> Result<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.push(key, version, deadline, Reply::One(reply), write);
        answer.await.unwrap_or_else(|_| Err(unanswered()))
    }

    /// Sends a request whose answer comes into a queue under that id, whatever becomes of it.
    pub(super) fn ask(
        &self,
        key: ApiKey,
        version: i16,
        deadline: Instant,
        (answers, id): (&Answers, u64),
        write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
    ) {
        self.push(key, version, deadline, answers.reply(id), write);
    }

    fn push(
        &self,
        key: ApiKey,
        version: i16,
        deadline: Instant,
        reply: Reply,
        write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
    ) {
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        match encode_frame(key, version, correlation_id, &self.client_id, write) {
            Ok((head, RawRequest { chunks, answered })) => {
                let request = Outgoing { key, version, correlation_id, head, chunks, deadline, answered, reply };
                self.shared.change(|pipeline| pipeline.push(request, now()));
            }
            Err(error) if error.delivery_status().is_some() => reply.send(Err(error)),
            Err(error) => reply.send(Err(error.with_status(DeliveryStatus::NotPersisted))),
        }
    }

    /// Counts what it does into these from now on.
    pub(super) fn count_into(&self, counters: Arc<NodeCounters>) {
        self.shared.lock().pipeline.count_into(counters);
    }

    /// Sends nothing more for so long (KIP-219).
    pub(super) fn mute_for(&self, throttle_time_ms: i32) {
        self.shared.change(|pipeline| pipeline.mute_for(throttle_time_ms, now()));
    }

    /// Closes the connection as soon as all that was asked is answered.
    pub(super) fn retire(&self) {
        self.shared.change(Pipeline::retire);
    }

    /// Closes the connection now.
    pub(super) fn close(&self, error: &Error) {
        self.shared.change(|pipeline| pipeline.close(error));
    }

    /// Whether new requests may be sent here.
    pub(super) fn is_usable(&self) -> bool {
        self.shared.lock().pipeline.is_usable()
    }

    /// Whether the broker has owed an answer for a while without giving any.
    pub(super) fn is_stalled(&self) -> bool {
        self.shared.lock().pipeline.is_stalled(now())
    }

    /// Requests that are not answered yet.
    pub(super) fn load(&self) -> usize {
        self.shared.lock().pipeline.load()
    }
}

/// The front of a frame: its length (chunks included), the header, and what `write` appended.
pub(super) fn encode_frame(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
    write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
) -> Result<(Bytes, RawRequest)> {
    // Enough for a Produce request of some partitions.
    let mut head = BytesMut::with_capacity(512);
    head.extend_from_slice(&[0; 4]);
    encode_request_header(&mut head, key, version, correlation_id, client_id)?;
    let rest = write(&mut head)?;
    let length = head.len() - 4 + rest.chunks.iter().map(Bytes::len).sum::<usize>();
    let Ok(length) = i32::try_from(length) else {
        let message = format!("{key}: a request of {length} bytes is larger than Kafka's protocol allows");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    };
    if let Some(front) = head.first_chunk_mut() {
        *front = length.to_be_bytes();
    }
    Ok((head.freeze(), rest))
}

/// Now, on tokio's clock, so that paused time is seen.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
