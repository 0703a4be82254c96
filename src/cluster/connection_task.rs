//! The task of one connection: owns the socket, and moves bytes between it and the pipeline.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

use super::{
    connection::ConnectionShared,
    frames::{FrameReader, FrameWriter, broken},
    login::Login,
};
use crate::cluster::deadline::now;
use crate::{
    error::{Error, ErrorKind, Result},
    log::{Origin, event},
    net::Stream,
};

/// Requests are taken from the pipeline while fewer bytes than this wait for the socket, so that
/// later requests can still be withdrawn, and requests queued together still leave in one write.
const WRITE_AHEAD: usize = 256 * 1024;
/// Most frames, or writes, that one poll handles before other tasks run.
const TURNS: usize = 64;

/// Reads, writes and keeps time for one connection; ends with the reason why the connection closed.
///
/// One future polls both directions, because a broker's responses and the next requests are mostly
/// due at the same wake-up, and a socket that one task owns needs no lock. If the driver is dropped
/// (with its runtime), the connection closes.
pub(super) struct ConnectionDriver {
    shared: Arc<ConnectionShared>,
    stream: StreamState,
    reader: FrameReader,
    writer: FrameWriter,
    timer: Pin<Box<Sleep>>,
    /// Time for which the timer is set. It may fire early, when the event it was set for is over,
    /// because that costs less than resetting it for each request.
    armed: Instant,
    /// Set if the connection is authenticated by SASL.
    login: Option<Arc<Login>>,
}

/// The owner of the stream.
enum StreamState {
    Idle(Box<dyn Stream>),
    /// The connection is being re-authenticated; the future returns the stream and the time until
    /// the next re-authentication.
    Reauthenticating(Reauthentication),
    /// Only between the two other states.
    Taken,
}

type Reauthentication = Pin<Box<dyn Future<Output = (Box<dyn Stream>, Result<Option<Duration>>)> + Send>>;

impl ConnectionDriver {
    pub(super) fn new(shared: Arc<ConnectionShared>, stream: Box<dyn Stream>, reader: FrameReader) -> Self {
        let armed = shared.lock().pipeline.next_event();
        let timer = Box::pin(sleep_until(armed.into()));
        Self {
            shared,
            stream: StreamState::Idle(stream),
            reader,
            writer: FrameWriter::default(),
            timer,
            armed,
            login: None,
        }
    }

    /// Enables re-authentication: the connection was authenticated, and has to be again after
    /// `again_after`, if that is set.
    pub(super) fn authenticated(&mut self, login: Login, again_after: Option<Duration>) {
        self.login = Some(Arc::new(login));
        self.shared.lock().pipeline.authenticated(again_after, now());
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Result<()> {
        {
            let mut state = self.shared.lock();
            state.register(cx.waker());
            if let Some(error) = state.pipeline.closed() {
                return Err(error.clone());
            }
        }
        self.continue_reauthentication(cx)?;
        // Responses that have arrived count as in time, even if this task was polled late.
        self.read(cx)?;
        self.shared.lock().pipeline.tick(now())?;
        self.write(cx)?;
        // All outstanding responses may have arrived by now.
        self.begin_reauthentication(cx)?;
        self.keep_time(cx);
        Ok(())
    }

    /// Starts re-authentication if it is due and all sent requests are answered; requests are sent
    /// again once it is done.
    fn begin_reauthentication(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let Some(login) = &self.login else { return Ok(()) };
        if !self.shared.lock().pipeline.is_ready_to_reauthenticate(now()) || !self.writer.is_empty() {
            return Ok(());
        }
        if !self.reader.is_empty() {
            let error = Error::new(ErrorKind::Protocol, "received a response without a request");
            return Err(self.named(error));
        }
        match std::mem::replace(&mut self.stream, StreamState::Taken) {
            StreamState::Idle(mut stream) => {
                let login = Arc::clone(login);
                self.stream = StreamState::Reauthenticating(Box::pin(async move {
                    let done = login.again(&mut *stream).await;
                    (stream, done)
                }));
                self.continue_reauthentication(cx)
            }
            other => {
                self.stream = other;
                Ok(())
            }
        }
    }

    /// Polls the re-authentication, if one is under way.
    fn continue_reauthentication(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let StreamState::Reauthenticating(login) = &mut self.stream else { return Ok(()) };
        let Poll::Ready((stream, done)) = login.as_mut().poll(cx) else { return Ok(()) };
        self.stream = StreamState::Idle(stream);
        let again_after = done.map_err(|error| self.named(error))?;
        let mut state = self.shared.lock();
        event!(DEBUG, Origin::current(), peer = state.pipeline.peer(), "re-authenticated the connection");
        state.pipeline.authenticated(again_after, now());
        drop(state);
        // Waiting requests are written in this poll or, if re-authentication began after the write,
        // in the next one.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let StreamState::Idle(stream) = &mut self.stream else { return Ok(()) };
        for _ in 0..TURNS {
            let expects = || self.shared.lock().pipeline.expects();
            match self.reader.poll_frame(&mut **stream, cx, expects) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(frame))) => self.shared.lock().pipeline.answer(frame, now())?,
                Poll::Ready(Ok(None)) => {
                    return Err(self.shared.lock().pipeline.hung_up());
                }
                Poll::Ready(Err(error)) => return Err(self.named(error)),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<()> {
        for _ in 0..TURNS {
            self.take();
            let StreamState::Idle(stream) = &mut self.stream else { return Ok(()) };
            match self.writer.poll_write(&mut **stream, cx) {
                Poll::Pending | Poll::Ready(Ok(0)) => return Ok(()),
                Poll::Ready(Ok(written)) => self.shared.lock().pipeline.wrote(written),
                Poll::Ready(Err(error)) => return Err(self.named(broken(&error))),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn take(&mut self) {
        if self.writer.len() >= WRITE_AHEAD {
            return;
        }
        let now = now();
        let mut state = self.shared.lock();
        while self.writer.len() < WRITE_AHEAD
            && let Some(frame) = state.pipeline.take(now)
        {
            self.writer.push(frame);
        }
    }

    fn keep_time(&mut self, cx: &mut Context<'_>) {
        let next = self.shared.lock().pipeline.next_event();
        if next < self.armed || self.timer.is_elapsed() {
            self.arm(next);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn arm(&mut self, at: Instant) {
        self.armed = at;
        self.timer.as_mut().reset(at.into());
    }

    fn named(&self, error: Error) -> Error {
        error.context(self.shared.lock().pipeline.peer())
    }
}

impl Future for ConnectionDriver {
    type Output = Error;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        let this = self.get_mut();
        match this.drive(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                this.shared.lock().pipeline.close(&error);
                Poll::Ready(error)
            }
        }
    }
}

impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, "the runtime of this client was shut down");
        self.shared.lock().pipeline.close(&error);
    }
}

impl fmt::Debug for ConnectionDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("shared", &self.shared).finish_non_exhaustive()
    }
}
