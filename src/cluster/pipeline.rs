//! What one connection has been asked and has still to answer. Decides only: sockets and clocks are
//! its driver's.

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

/// The longest silence that a broker is granted (KIP-219). Its own bound is the window of its
/// quotas, some ten seconds by default; a broken one must not silence a client for days.
const LONGEST_THROTTLE: Duration = Duration::from_secs(60);

/// A whole request: its bytes, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) key: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    /// The frame's length, the header, and then as much of the body as the chunks do not hold.
    pub(super) head: Bytes,
    pub(super) chunks: Chunks,
    /// When the answer has to be here.
    pub(super) deadline: Instant,
    /// False where the broker sends no answer (Produce with acks=0): `reply` gets an empty body
    /// once all is written.
    pub(super) answered: bool,
    /// How large an answer is thought of as usual.
    pub(super) expects: usize,
    /// Asked before the first byte is handed to the socket.
    pub(super) departure: RevocableParts,
    pub(super) reply: ResponseTarget,
}

impl Outgoing {
    fn len(&self) -> u64 {
        (self.head.len() + self.chunks.iter().map(Bytes::len).sum::<usize>()) as u64
    }
}

/// The bytes of one request, to be written one chunk after the other.
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
///            │ taken back  │
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
    /// Bytes of all requests that were taken, and how many of them the stream has accepted.
    taken: u64,
    written: u64,
    /// No deadline is before this one. Kept low on purpose when requests leave: looking at all of
    /// them again is only worth it when this moment comes.
    earliest: Option<Instant>,
    muted_until: Option<Instant>,
    /// From then on nothing is sent before the connection is authenticated again (KIP-368).
    reauthenticate_at: Option<Instant>,
    last_active: Instant,
    /// Since when the peer owes an answer, or when it last gave one.
    heard: Instant,
    retired: bool,
    closed: Option<Error>,
    /// Whether a request was ever answered here.
    answered: bool,
    /// Of the broker at the other end.
    counters: Arc<NodeCounters>,
}

#[derive(Debug)]
struct Sent {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    deadline: Instant,
    /// Where its last byte stands among all bytes of this connection.
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

    /// Counts into these from now on.
    pub(super) fn count_into(&mut self, counters: Arc<NodeCounters>) {
        self.counters = counters;
    }

    /// Queues a request. If the connection was closed, the answer is why.
    pub(super) fn push(&mut self, request: Outgoing, now: Instant) {
        if let Some(error) = &self.closed {
            request.reply.deliver(Err(error.clone().with_status(DeliveryStatus::NotPersisted)));
            return;
        }
        self.last_active = now;
        self.earliest = Some(self.earliest.map_or(request.deadline, |earliest| earliest.min(request.deadline)));
        self.waiting.push_back(request);
    }

    /// The next request to write, unless the connection is muted or has as many in flight as it
    /// may.
    pub(super) fn take(&mut self, now: Instant) -> Option<Frame> {
        let muted = self.muted_until.is_some_and(|until| now < until);
        if muted || self.sent.len() >= self.limits.max_in_flight || self.must_reauthenticate(now) {
            return None;
        }
        self.muted_until = None;
        loop {
            let request = self.waiting.pop_front()?;
            if request.reply.is_closed() {
                // No caller waits any more, and the broker has seen nothing of it.
                continue;
            }
            if !request.departure.confirm_write() {
                let message = format!("{}: {} was taken back before it was sent", self.peer, request.key);
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

    /// The connection is authenticated, and has to be again after that time, if at all.
    pub(super) fn authenticated(&mut self, again_after: Option<Duration>, now: Instant) {
        self.reauthenticate_at = again_after.map(|after| saturating_deadline(now, after));
    }

    fn must_reauthenticate(&self, now: Instant) -> bool {
        self.reauthenticate_at.is_some_and(|at| at <= now)
    }

    /// Whether it is time to authenticate again: a request waits for it, and everything that was
    /// sent is answered. A broker takes requests of the two kinds for one another otherwise.
    pub(super) fn is_ready_to_reauthenticate(&self, now: Instant) -> bool {
        let muted = self.muted_until.is_some_and(|until| now < until);
        let drained = self.sent.is_empty() && self.unanswered.is_empty();
        self.must_reauthenticate(now) && drained && !self.waiting.is_empty() && !muted
    }

    /// The stream accepted that many more bytes.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.counters.wrote(bytes);
        self.written += bytes as u64;
        while self.unanswered.front().is_some_and(|sent| sent.end <= self.written) {
            let Some(done) = self.unanswered.pop_front() else { break };
            done.reply.deliver(Ok(Bytes::new()));
        }
    }

    /// How large the next answer may be without being out of the ordinary, in bytes.
    pub(super) fn expects(&self) -> usize {
        self.sent.front().map_or(0, |oldest| oldest.expects)
    }

    /// A response came in: it belongs to the oldest request in flight, since Kafka answers in
    /// order.
    ///
    /// # Errors
    /// The peer does not answer in order, or not in Kafka's protocol: the connection has to be
    /// closed.
    pub(super) fn answer(&mut self, mut frame: Bytes, now: Instant) -> Result<()> {
        self.counters.response(frame.len());
        self.last_active = now;
        self.heard = now;
        self.answered = true;
        let Some(oldest) = self.sent.front() else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("{}: a response came in that nobody had asked for", self.peer),
            ));
        };
        let correlation_id = decode_response_header(&mut frame, oldest.key, oldest.version)
            .map_err(|error| error.context(format_args!("{}: {}", self.peer, oldest.key)))?;
        if correlation_id != oldest.correlation_id || oldest.end > self.written {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "{}: a response with correlation id {correlation_id} came in where {} was due",
                    self.peer, oldest.correlation_id
                ),
            ));
        }
        let Some(oldest) = self.sent.pop_front() else { return Ok(()) };
        self.mute_for(throttle_time_ms(oldest.key, oldest.version, &frame), now);
        oldest.reply.deliver(Ok(frame));
        Ok(())
    }

    /// Sends nothing more for so long (KIP-219); what is in flight is still answered.
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
                    "the broker throttles this client for longer than any quota; requests go on after a minute"
                );
            } else {
                event!(DEBUG, origin, peer = self.peer, throttle_ms = ms, "the broker throttles this client");
            }
            let until = saturating_deadline(now, throttle.min(LONGEST_THROTTLE));
            self.muted_until = Some(self.muted_until.map_or(until, |earlier| earlier.max(until)));
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The connection has to be closed: a request was not answered in time, or there was nothing to
    /// do for too long.
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
            let why = if muted { "the broker throttles this client" } else { "earlier requests were not done" };
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

    /// When [`tick`](Self::tick) or [`take`](Self::take) has something to do at the latest.
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

    /// Ends the connection as soon as all that was asked is answered.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    /// Closes: everyone gets the error, with how far the own request got.
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

    /// Whether new requests are welcome.
    pub(super) fn is_usable(&self) -> bool {
        self.closed.is_none() && !self.retired
    }

    /// Whether the peer has been silent for longer than an idle broker would be. It need not be
    /// dead: it may wait for others. But who only wants any broker does better with another.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        !self.sent.is_empty() && now >= saturating_deadline(self.heard, STALLED)
    }

    /// Requests that are not answered yet.
    pub(super) fn load(&self) -> usize {
        self.waiting.len() + self.sent.len() + self.unanswered.len()
    }

    /// The oldest request that was sent whole and is not answered, by its correlation id.
    #[cfg(test)]
    pub(super) fn owed(&self) -> Option<i32> {
        self.sent.front().filter(|sent| sent.end <= self.written).map(|sent| sent.correlation_id)
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// The peer closed the connection. One that wants SASL and gets none does so at the first
    /// request.
    pub(super) fn hung_up(&self) -> Error {
        self.network(match self.answered || self.sent.is_empty() {
            true => "the peer closed the connection",
            false => "the peer closed the connection at its first request (a listener that wants SASL, perhaps?)",
        })
    }

    pub(super) fn network(&self, what: &str) -> Error {
        Error::new(ErrorKind::Network, format!("{}: {what}", self.peer))
    }

    fn is_empty(&self) -> bool {
        self.load() == 0
    }
}

/// A broker can only act on a request whose last byte was handed over.
fn status(whole: bool) -> DeliveryStatus {
    if whole { DeliveryStatus::PossiblyPersisted } else { DeliveryStatus::NotPersisted }
}
