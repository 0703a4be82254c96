//! One connection of one broker: requests are answered one after the other, in their order, as
//! Kafka does.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::debug;

use super::{
    api::{self, Call, Context, Head, Step},
    fault::{Ending, Verdict},
    journal::Request,
    sasl::Gate,
    shared::{Shared, now},
    state::markers,
};
use crate::{
    error::{Error, ErrorKind, Result},
    net::Stream,
    wire::{ApiKey, frame::frame_length},
};

/// Minimum read size, in bytes.
const READ_SIZE: usize = 64 * 1024;

/// Minimum read size in sink mode, in bytes: large enough for many requests, but no larger than a
/// core's own cache.
const SINK_READ_SIZE: usize = 256 * 1024;

pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    broker: i32,
    id: u64,
    stream: S,
    buffer: BytesMut,
    max_request: usize,
    sink: bool,
    gate: Gate,
    /// Encoded sink responses that are not written yet.
    answers: Vec<u8>,
}

/// The connection's state after a request.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Close,
}

impl<S: Stream> Connection<S> {
    pub(crate) fn new(shared: Arc<Shared>, broker: i32, id: u64, stream: S) -> Self {
        let state = shared.lock();
        let (max_request, sink) = (state.options.max_request_bytes, state.sink.is_some());
        let gate = Gate::new(state.options.sasl.clone());
        drop(state);
        Self { shared, broker, id, stream, buffer: BytesMut::new(), max_request, sink, gate, answers: Vec::new() }
    }

    /// Serves requests until the client closes, sends something that cannot be decoded, or a fault
    /// ends the connection.
    pub(crate) async fn run(mut self) {
        let (broker, connection) = (self.broker, self.id);
        loop {
            if let Err(error) = self.drain_into_sink().await {
                debug!(broker, connection, %error, "closing a connection because of an error");
                return;
            }
            let next = match self.read_frame().await {
                Ok(Some(frame)) => self.serve(frame).await,
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match next {
                Ok(Next::GoOn) => {}
                Ok(Next::Close) => return,
                Err(error) => {
                    debug!(broker, connection, %error, "closing a connection because of an error");
                    return;
                }
            }
        }
    }

    /// Reads the next request, without its length; `None` when the client has closed.
    async fn read_frame(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(&prefix) = self.buffer.first_chunk::<4>() {
                let length = frame_length(prefix, self.max_request)?;
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
                self.buffer.reserve((4 + length - self.buffer.len()).max(READ_SIZE));
            } else {
                self.buffer.reserve(READ_SIZE);
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(broken)? == 0 {
                return Ok(None);
            }
        }
    }

    /// Answers Produce requests in sink mode until another request comes or the client has closed;
    /// all requests that one read returned are answered by one write.
    async fn drain_into_sink(&mut self) -> Result<()> {
        if self.sink && self.gate.is_open() {
            loop {
                let (acknowledged, other) = self.acknowledge_all()?;
                if acknowledged {
                    self.stream.write_all(&self.answers).await.map_err(broken)?;
                    self.answers.clear();
                }
                if other {
                    break;
                }
                self.buffer.reserve(SINK_READ_SIZE);
                if self.stream.read_buf(&mut self.buffer).await.map_err(broken)? == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes from the front of the buffer the Produce requests that a sink acknowledges. Returns
    /// whether there were any, and whether a whole request of another kind is next in the buffer.
    fn acknowledge_all(&mut self) -> Result<(bool, bool)> {
        let mut state = self.shared.lock();
        let faultless = state.faults.is_empty();
        while let Some(&prefix) = self.buffer.first_chunk::<4>() {
            let length = frame_length(prefix, self.max_request)?;
            let Some(frame) = self.buffer.get(4..4 + length) else { break };
            if !faultless || api::acknowledge(frame, &mut state, self.broker, &mut self.answers).is_none() {
                return Ok((!self.answers.is_empty(), true));
            }
            self.buffer.advance(4 + length);
        }
        Ok((!self.answers.is_empty(), false))
    }

    async fn serve(&mut self, mut frame: Bytes) -> Result<Next> {
        let head = api::decode_head(&mut frame)?;
        if !self.gate.admits(head.key, now()) {
            let what = format!("{} on a connection that is not authenticated", head.key);
            return Err(Error::new(ErrorKind::Authentication, what));
        }
        if let Some(refusal) = self.check_version(&head)? {
            return self.write(refusal).await;
        }
        let call = api::decode_call(&head, frame)?;
        let verdict = self.judge(&head, call.as_ref());
        pause(verdict.before).await;
        match &verdict.ending {
            Some(Ending::Drop) => return Ok(Next::Close),
            Some(Ending::Hang) => return self.hang().await,
            Some(Ending::Garbage(bytes)) => return self.write(vec![bytes.clone()]).await,
            Some(Ending::ActThenDrop | Ending::Truncate) | None => {}
        }
        let step = self.carry_out(&head, call, &verdict).await?;
        pause(verdict.after).await;
        match (step, &verdict.ending) {
            (_, Some(Ending::ActThenDrop)) | (Step::Close, _) => Ok(Next::Close),
            (Step::Reply(pieces), Some(Ending::Truncate)) => {
                self.write(first_half(pieces)).await?;
                Ok(Next::Close)
            }
            (Step::Reply(pieces), _) => self.write(pieces).await,
            (Step::Silent | Step::Wait(_) | Step::Postpone(_), _) => Ok(Next::GoOn),
        }
    }

    /// Returns `None` if the version is served, and otherwise the response that says so, which only
    /// ApiVersions has.
    fn check_version(&mut self, head: &Head) -> Result<Option<Vec<Bytes>>> {
        let mut state = self.shared.lock();
        state.journal.count(head.key);
        let served = api::versions(head.key, &state.options);
        if served.is_some_and(|(min, max)| (min..=max).contains(&head.version)) {
            return Ok(None);
        }
        let verdict = Verdict::default();
        let context = Context {
            state: &mut state,
            broker: self.broker,
            head,
            now: now(),
            verdict: &verdict,
            gate: &mut self.gate,
        };
        if head.key == ApiKey::ApiVersions
            && let Step::Reply(pieces) = api::refuse_api_versions(&context)?
        {
            return Ok(Some(pieces));
        }
        let what = format!("{} v{} is not served", head.key, head.version);
        Err(Error::new(ErrorKind::UnsupportedVersion, what))
    }

    /// Notes the request in the journal and asks the faults which of them strike it.
    fn judge(&self, head: &Head, call: &dyn Call) -> Verdict {
        let mut state = self.shared.lock();
        if state.sink.is_some() && state.faults.is_empty() {
            return Verdict::default();
        }
        let subject = call.subject(&state, self.broker);
        let request = Request {
            key: head.key,
            version: head.version,
            broker: self.broker,
            connection: self.id,
            client_id: head.client_id.clone(),
            principal: self.gate.principal(),
            partitions: subject.partitions,
            group: subject.group,
            transactional_id: call.transactional_id().map(str::to_owned),
            at: tokio::time::Instant::now(),
        };
        let verdict = state.faults.judge(&request);
        state.journal.remember(request);
        verdict
    }

    /// Acts on the state until there is a response. Only the first act can change something that
    /// other connections wait for, so only it wakes them: later acts only check whether the awaited
    /// change has happened, and every waiter has its own timer for changes that time alone brings.
    async fn carry_out(&mut self, head: &Head, mut call: Box<dyn Call>, verdict: &Verdict) -> Result<Step> {
        let mut bell = self.shared.listen();
        let mut first = true;
        loop {
            bell.mark_unchanged();
            let (changed, step) = {
                let mut state = self.shared.lock();
                let (now, gate) = (now(), &mut self.gate);
                let changed = markers::advance(&mut state, now);
                (changed, call.act(&mut Context { state: &mut state, broker: self.broker, head, now, verdict, gate })?)
            };
            let acted = !matches!(step, Step::Postpone(_)) && std::mem::take(&mut first);
            if changed || (acted && call.wakes()) {
                self.shared.ring();
            }
            let until = match step {
                Step::Wait(until) => until,
                Step::Postpone(until) => Some(until),
                done => return Ok(done),
            };
            let time_is_up = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The sender lives as long as the connection, so this is never an error.
                _ = bell.changed() => {}
                () = time_is_up => {}
            }
        }
    }

    /// Reads on without answering, to notice when the client closes.
    async fn hang(&mut self) -> Result<Next> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(READ_SIZE);
            if self.stream.read_buf(&mut self.buffer).await.map_err(broken)? == 0 {
                return Ok(Next::Close);
            }
        }
    }

    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<Next> {
        self.stream.write_all_buf(&mut Pieces::new(pieces)).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)?;
        Ok(Next::GoOn)
    }
}

fn broken(error: io::Error) -> Error {
    Error::new(ErrorKind::Network, "connection broken").with_source(error)
}

async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

fn first_half(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let mut left = pieces.iter().map(Bytes::len).sum::<usize>() / 2;
    let cut = pieces.into_iter().map(|piece| {
        let kept = piece.slice(..piece.len().min(left));
        left -= kept.len();
        kept
    });
    cut.filter(|piece| !piece.is_empty()).collect()
}

/// Buffers to be written one after the other, in as few calls as the stream allows.
struct Pieces {
    left: VecDeque<Bytes>,
    size: usize,
}

impl Pieces {
    fn new(pieces: Vec<Bytes>) -> Self {
        Self { size: pieces.iter().map(Bytes::len).sum(), left: pieces.into() }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.size
    }

    fn chunk(&self) -> &[u8] {
        self.left.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [io::IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.left) {
            *slice = io::IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.size = self.size.saturating_sub(count);
        while let Some(front) = self.left.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.left.pop_front();
        }
    }
}
