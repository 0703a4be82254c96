//! The requests of one connection that are not answered yet. The driver owns the socket and the
//! clock.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{counters::NodeCounters, throttle::throttle_time_ms};
use crate::cluster::{deadline::saturating_deadline, response_queue::ResponseTarget, revocable_parts::RevocableParts};
use crate::{
    error::{DeliveryStatus, Error, ErrorKind, Result},
    log::{Origin, event},
    wire::{ApiKey, frame::Chunks, message::decode_response_header},
};

const STALLED: Duration = Duration::from_secs(2);

/// Longest throttle time that is honored (KIP-219). The broker's own bound is the window of its
/// quotas, about ten seconds by default; a broken broker must not mute a client for days.
const LONGEST_THROTTLE: Duration = Duration::from_secs(60);

/// A whole request: its bytes, and the target of its response.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) key: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    /// The frame's length, the header, and the part of the body that is not in the chunks.
    pub(super) head: Bytes,
    pub(super) chunks: Chunks,
    /// Time by which the response is due.
    pub(super) deadline: Instant,
    /// False if the broker sends no response (Produce with acks=0): `reply` gets an empty body once
    /// all bytes are written.
    pub(super) answered: bool,
    /// Size up to which a response is expected, in bytes.
    pub(super) expects: usize,
    /// Consulted before the first byte is handed to the socket.
    pub(super) departure: RevocableParts,
    pub(super) reply: ResponseTarget,
}

impl Outgoing {
    fn len(&self) -> u64 {
        (self.head.len() + self.chunks.iter().map(Bytes::len).sum::<usize>()) as u64
    }
}

/// The bytes of one request, written chunk by chunk.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) head: Bytes,
    pub(super) chunks: Chunks,
}

/// The limits of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_in_flight: usize,
    pub(super) max_idle: Duration,
}

/// The requests of one connection: waiting → sent → answered.
///
/// ```text
///  push        take            answer
/// ──────▶ waiting ──────▶ sent ──────▶ reply Ok
///            │ deadline,   │ deadline: the connection closes
///            │ withdrawn   │
///            ▼             ▼
///        NotPersisted   PossiblyPersisted, or NotPersisted if the last byte never left
/// ```
#[derive(Debug)]
pub(super) struct Pipeline {
    limits: Limits,
    /// Host and port, for messages.
    peer: String,
    waiting: VecDeque<Outgoing>,
    sent: VecDeque<Sent>,
    unanswered: VecDeque<Sent>,
    /// Bytes of all requests that were taken, and the number of them that the stream has accepted.
    taken: u64,
    written: u64,
    /// Lower bound of all deadlines. Not updated when requests leave, because scanning all
    /// deadlines is only worth it when this time comes.
    earliest: Option<Instant>,
    muted_until: Option<Instant>,
    /// Time from which nothing is sent before the connection is re-authenticated (KIP-368).
    reauthenticate_at: Option<Instant>,
    last_active: Instant,
    /// Time of the last response, or, if later, at which a request was sent on the idle connection.
    heard: Instant,
    retired: bool,
    closed: Option<Error>,
    /// True once a request was answered on this connection.
    answered: bool,
    /// The counters of the broker at the other end.
    counters: Arc<NodeCounters>,
}

#[derive(Debug)]
struct Sent {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    deadline: Instant,
    /// Position of the request's end among all bytes of this connection.
    end: u64,
    expects: usize,
    reply: ResponseTarget,
}

impl Pipeline {
    pub(super) fn new(peer: String, limits: Limits, now: Instant) -> Self {
        Self {
            limits: Limits { max_in_flight: limits.max_in_flight.max(1), ..limits },
            peer,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            unanswered: VecDeque::new(),
            taken: 0,
            written: 0,
            earliest: None,
            muted_until: None,
            reauthenticate_at: None,
            last_active: now,
            heard: now,
            retired: false,
            closed: None,
            answered: false,
            counters: Arc::default(),
        }
    }

    /// Sets the counters to count into from now on.
    pub(super) fn count_into(&mut self, counters: Arc<NodeCounters>) {
        self.counters = counters;
    }

    /// Queues a request. If the connection was closed, delivers the reason as its result.
    pub(super) fn push(&mut self, request: Outgoing, now: Instant) {
        if let Some(error) = &self.closed {
            request.reply.deliver(Err(error.clone().with_status(DeliveryStatus::NotPersisted)));
            return;
        }
        self.last_active = now;
        self.earliest = Some(self.earliest.map_or(request.deadline, |earliest| earliest.min(request.deadline)));
        self.waiting.push_back(request);
    }

    /// Returns the next request to write, unless the connection is muted, at its in-flight limit,
    /// or due for re-authentication.
    pub(super) fn take(&mut self, now: Instant) -> Option<Frame> {
        let muted = self.muted_until.is_some_and(|until| now < until);
        if muted || self.sent.len() >= self.limits.max_in_flight || self.must_reauthenticate(now) {
            return None;
        }
        self.muted_until = None;
        loop {
            let request = self.waiting.pop_front()?;
            if request.reply.is_closed() {
                // The caller is gone, and the broker has seen nothing of the request.
                continue;
            }
            if !request.departure.confirm_write() {
                let message = format!("{}: {} was withdrawn before it was sent", self.peer, request.key);
                let error = Error::new(ErrorKind::Timeout, message).with_status(DeliveryStatus::NotPersisted);
                request.reply.deliver(Err(error));
                continue;
            }
            self.counters.request();
            self.taken += request.len();
            if self.sent.is_empty() {
                self.heard = now;
            }
            let sent = Sent {
                key: request.key,
                version: request.version,
                correlation_id: request.correlation_id,
                deadline: request.deadline,
                end: self.taken,
                expects: request.expects,
                reply: request.reply,
            };
            if request.answered {
                self.sent.push_back(sent)
            } else {
                self.unanswered.push_back(sent)
            }
            return Some(Frame { head: request.head, chunks: request.chunks });
        }
    }

    /// Sets the time of the next re-authentication, if there is to be one.
    pub(super) fn authenticated(&mut self, again_after: Option<Duration>, now: Instant) {
        self.reauthenticate_at = again_after.map(|after| saturating_deadline(now, after));
    }

    fn must_reauthenticate(&self, now: Instant) -> bool {
        self.reauthenticate_at.is_some_and(|at| at <= now)
    }

    /// Returns true if it is time to re-authenticate: a request waits for it, and everything that
    /// was sent is answered. Otherwise a broker would mix up the requests of the two kinds.
    pub(super) fn is_ready_to_reauthenticate(&self, now: Instant) -> bool {
        let muted = self.muted_until.is_some_and(|until| now < until);
        let drained = self.sent.is_empty() && self.unanswered.is_empty();
        self.must_reauthenticate(now) && drained && !self.waiting.is_empty() && !muted
    }

    /// Counts bytes that the stream accepted, and completes requests without a response that are
    /// written whole.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.counters.wrote(bytes);
        self.written += bytes as u64;
        while self.unanswered.front().is_some_and(|sent| sent.end <= self.written) {
            let Some(done) = self.unanswered.pop_front() else { break };
            done.reply.deliver(Ok(Bytes::new()));
        }
    }

    /// Returns the size up to which the next response is expected, in bytes.
    pub(super) fn expects(&self) -> usize {
        self.sent.front().map_or(0, |oldest| oldest.expects)
    }

    /// Handles a response: it belongs to the oldest request in flight, because Kafka answers in
    /// order.
    ///
    /// # Errors
    /// The peer does not answer in order, or not in Kafka's protocol; the connection has to be
    /// closed.
    pub(super) fn answer(&mut self, mut frame: Bytes, now: Instant) -> Result<()> {
        self.counters.response(frame.len());
        self.last_active = now;
        self.heard = now;
        self.answered = true;
        let Some(oldest) = self.sent.front() else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("{}: received a response without a request", self.peer),
            ));
        };
        let correlation_id = decode_response_header(&mut frame, oldest.key, oldest.version)
            .map_err(|error| error.context(format_args!("{}: {}", self.peer, oldest.key)))?;
        if correlation_id != oldest.correlation_id || oldest.end > self.written {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "{}: received a response with correlation id {correlation_id}, expected {}",
                    self.peer, oldest.correlation_id
                ),
            ));
        }
        let Some(oldest) = self.sent.pop_front() else { return Ok(()) };
        self.mute_for(throttle_time_ms(oldest.key, oldest.version, &frame), now);
        oldest.reply.deliver(Ok(frame));
        Ok(())
    }

    /// Mutes the connection for `throttle_time_ms` (KIP-219), at most a minute; requests in flight
    /// are still answered.
    pub(super) fn mute_for(&mut self, throttle_time_ms: i32, now: Instant) {
        if let Ok(ms @ 1..) = u64::try_from(throttle_time_ms) {
            self.counters.throttled(ms);
            let throttle = Duration::from_millis(ms);
            let origin = Origin::current();
            if throttle > LONGEST_THROTTLE {
                event!(
                    WARN,
                    origin,
                    peer = self.peer,
                    throttle_ms = ms,
                    "the broker throttles this client for longer than any quota; requests continue after a minute"
                );
            } else {
                event!(DEBUG, origin, peer = self.peer, throttle_ms = ms, "the broker throttles this client");
            }
            let until = saturating_deadline(now, throttle.min(LONGEST_THROTTLE));
            self.muted_until = Some(self.muted_until.map_or(until, |earlier| earlier.max(until)));
        }
    }

    /// Handles the passing of time: expires requests, and ends throttling.
    ///
    /// # Errors
    /// The connection has to be closed: a request was not answered in time, or the connection was
    /// idle for too long or is retired.
    pub(super) fn tick(&mut self, now: Instant) -> Result<()> {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            self.expire(now)?;
        }
        self.muted_until = self.muted_until.filter(|until| now < *until);
        if self.is_empty() {
            if self.retired {
                return Err(self.network("no longer needed"));
            }
            if now >= saturating_deadline(self.last_active, self.limits.max_idle) {
                return Err(self.network("idle for longer than connections.max.idle.ms"));
            }
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant) -> Result<()> {
        let late = |sent: &Sent| sent.deadline <= now;
        for queue in [&mut self.sent, &mut self.unanswered] {
            let Some(late) = queue.iter().position(late).and_then(|i| queue.remove(i)) else { continue };
            let what = format!("{}: {} was not answered within its request timeout", self.peer, late.key);
            let status = status(late.end <= self.written);
            late.reply.deliver(Err(Error::new(ErrorKind::Timeout, what.as_str()).with_status(status)));
            return Err(Error::new(ErrorKind::Network, format!("{what}, so the connection was closed")));
        }
        let muted = self.muted_until.is_some_and(|until| now < until);
        let mut i = 0;
        while let Some(request) = self.waiting.get(i) {
            if request.deadline > now {
                i += 1;
                continue;
            }
            let Some(late) = self.waiting.remove(i) else { break };
            let why = if muted { "the broker throttles this client" } else { "earlier requests were not answered" };
            late.reply.deliver(Err(Error::new(
                ErrorKind::Timeout,
                format!("{}: {} could not be sent within its request timeout: {why}", self.peer, late.key),
            )
            .with_status(DeliveryStatus::NotPersisted)));
        }
        let deadlines = self.sent.iter().chain(&self.unanswered).map(|sent| sent.deadline);
        self.earliest = deadlines.chain(self.waiting.iter().map(|request| request.deadline)).min();
        Ok(())
    }

    /// Returns the time by which [`tick`](Self::tick) or [`take`](Self::take) has to be called at
    /// the latest.
    pub(super) fn next_event(&self) -> Instant {
        let idle = saturating_deadline(self.last_active, self.limits.max_idle);
        let muted = if self.waiting.is_empty() { None } else { self.muted_until };
        let idle = if self.is_empty() { Some(idle) } else { None };
        [self.earliest, muted, idle]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| saturating_deadline(self.last_active, Duration::MAX))
    }

    /// Closes the connection once all requests are answered.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    /// Closes the connection: every request ends with the error, and with the delivery status that
    /// it had reached.
    pub(super) fn close(&mut self, error: &Error) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(error.clone());
        for sent in self.sent.drain(..).chain(self.unanswered.drain(..)) {
            sent.reply.deliver(Err(error.clone().with_status(status(sent.end <= self.written))));
        }
        for request in self.waiting.drain(..) {
            request.reply.deliver(Err(error.clone().with_status(DeliveryStatus::NotPersisted)));
        }
    }

    pub(super) fn closed(&self) -> Option<&Error> {
        self.closed.as_ref()
    }

    /// Returns true if new requests may be queued.
    pub(super) fn is_usable(&self) -> bool {
        self.closed.is_none() && !self.retired
    }

    /// Returns true if the peer has owed a response for longer than an idle broker takes. The peer
    /// need not be dead, because its requests may wait for others; but a request that any broker
    /// can answer is better sent to another one.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        !self.sent.is_empty() && now >= saturating_deadline(self.heard, STALLED)
    }

    /// Returns the number of requests that are not answered yet.
    pub(super) fn load(&self) -> usize {
        self.waiting.len() + self.sent.len() + self.unanswered.len()
    }

    /// Returns the correlation id of the oldest request that was sent whole and is not answered.
    #[cfg(test)]
    pub(super) fn owed(&self) -> Option<i32> {
        self.sent.front().filter(|sent| sent.end <= self.written).map(|sent| sent.correlation_id)
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Returns the error for a connection that the peer closed. A listener that requires SASL and
    /// gets none closes at the first request.
    pub(super) fn hung_up(&self) -> Error {
        self.network(match self.answered || self.sent.is_empty() {
            true => "the peer closed the connection",
            false => "the peer closed the connection at the first request (does the listener require SASL?)",
        })
    }

    pub(super) fn network(&self, what: &str) -> Error {
        Error::new(ErrorKind::Network, format!("{}: {what}", self.peer))
    }

    fn is_empty(&self) -> bool {
        self.load() == 0
    }
}

/// Returns the delivery status: a broker can only act on a request after its last byte was handed
/// over.
fn status(whole: bool) -> DeliveryStatus {
    if whole { DeliveryStatus::PossiblyPersisted } else { DeliveryStatus::NotPersisted }
}
