//! The callers' side of one connection to one broker.

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
    connection_task::ConnectionDriver,
    counters::NodeCounters,
    encode::{Encoded, encode_frame},
    frames::FrameReader,
    pipeline::{Limits, Outgoing, Pipeline},
    versions::Versions,
};
use crate::cluster::deadline::now;
use crate::cluster::request::RawRequest;
use crate::cluster::response_queue::{ResponseQueue, ResponseTarget, unanswered};
use crate::{
    error::{DeliveryStatus, Error, Result},
    net::Stream,
    wire::ApiKey,
};

/// A connection on which the versions are agreed. Requests are pipelined; each caller waits only
/// for its own response.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<ConnectionShared>,
    client_id: String,
    versions: Versions,
    next_correlation_id: AtomicI32,
    /// Memory that requests are encoded into; the part that a request does not need any more serves
    /// later ones.
    memory: Mutex<BytesMut>,
}

/// State that callers and the connection's driver share.
#[derive(Debug)]
pub(super) struct ConnectionShared {
    state: Mutex<ConnectionState>,
}

#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) pipeline: Pipeline,
    /// The driver's waker, while the driver has nothing to do.
    waker: Option<Waker>,
}

impl ConnectionShared {
    pub(super) fn lock(&self) -> MutexGuard<'_, ConnectionState> {
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

impl ConnectionState {
    pub(super) fn register(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Connection {
    /// Returns a connection over a stream, and the driver that has to be polled for it to work.
    pub(super) fn new(
        peer: String,
        stream: Box<dyn Stream>,
        reader: FrameReader,
        versions: Versions,
        client_id: String,
        limits: Limits,
    ) -> (Self, ConnectionDriver) {
        let pipeline = Pipeline::new(peer, limits, now());
        let shared = Arc::new(ConnectionShared { state: Mutex::new(ConnectionState { pipeline, waker: None }) });
        let driver = ConnectionDriver::new(Arc::clone(&shared), stream, reader);
        (Self { shared, client_id, versions, next_correlation_id: AtomicI32::new(1), memory: Mutex::default() }, driver)
    }

    /// Host and port.
    pub(super) fn peer(&self) -> String {
        self.shared.lock().pipeline.peer().to_owned()
    }

    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Sends a request and waits for the body of its response. `write` appends the body to the
    /// head.
    ///
    /// # Cancel safety
    /// If the future is dropped, a request that still waits is not sent; the response of one that
    /// was sent is discarded.
    pub(super) async fn request(
        &self,
        key: ApiKey,
        version: i16,
        deadline: Instant,
        write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
    ) -> Result<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.push(key, version, deadline, ResponseTarget::One(reply), write);
        answer.await.unwrap_or_else(|_| Err(unanswered()))
    }

    /// Sends a request. Its result, response or error, goes to a queue under that id.
    pub(super) fn request_into_queue(
        &self,
        key: ApiKey,
        version: i16,
        deadline: Instant,
        (answers, id): (&ResponseQueue, u64),
        write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
    ) {
        self.push(key, version, deadline, answers.reply(id), write);
    }

    fn push(
        &self,
        key: ApiKey,
        version: i16,
        deadline: Instant,
        reply: ResponseTarget,
        write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
    ) {
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let mut memory = std::mem::take(&mut *self.memory());
        let encoded = encode_frame(&mut memory, key, version, correlation_id, &self.client_id, write);
        *self.memory() = memory;
        match encoded {
            Ok(Encoded { head, chunks, answered, expects, departure }) => {
                let request = Outgoing {
                    key,
                    version,
                    correlation_id,
                    head,
                    chunks,
                    deadline,
                    answered,
                    expects,
                    departure,
                    reply,
                };
                self.shared.change(|pipeline| pipeline.push(request, now()));
            }
            Err(error) if error.delivery_status().is_some() => reply.deliver(Err(error)),
            Err(error) => reply.deliver(Err(error.with_status(DeliveryStatus::NotPersisted))),
        }
    }

    fn memory(&self) -> MutexGuard<'_, BytesMut> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the counters that the connection counts into from now on.
    pub(super) fn count_into(&self, counters: Arc<NodeCounters>) {
        self.shared.lock().pipeline.count_into(counters);
    }

    /// Mutes the connection for `throttle_time_ms` (KIP-219).
    pub(super) fn mute_for(&self, throttle_time_ms: i32) {
        self.shared.change(|pipeline| pipeline.mute_for(throttle_time_ms, now()));
    }

    /// Closes the connection once all requests are answered.
    pub(super) fn retire(&self) {
        self.shared.change(Pipeline::retire);
    }

    /// Closes the connection now.
    pub(super) fn close(&self, error: &Error) {
        self.shared.change(|pipeline| pipeline.close(error));
    }

    /// Returns true if new requests may be sent here.
    pub(super) fn is_usable(&self) -> bool {
        self.shared.lock().pipeline.is_usable()
    }

    /// Returns true if the broker has been asked and has been silent for a while.
    pub(super) fn is_stalled(&self) -> bool {
        self.shared.lock().pipeline.is_stalled(now())
    }

    /// Returns the number of requests that are not answered yet.
    pub(super) fn load(&self) -> usize {
        self.shared.lock().pipeline.load()
    }
}
