//! The task behind a connection: it owns the socket, and moves bytes between it and the pipeline.

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

/// Requests are taken while less than this waits for the socket, so that those behind can still be
/// withdrawn, and what is queued at one time still leaves in one write.
const WRITE_AHEAD: usize = 256 * 1024;
/// Frames, or writes, that one poll may handle before other tasks get their turn.
const TURNS: usize = 64;

/// Reads, writes and keeps time for one connection; ends with the reason why the connection closed.
///
/// One future polls both directions: a broker's answers and the next requests are mostly due at the
/// same wake-up, and a socket that one task owns needs no lock. Dropped (with its runtime), it
/// closes the connection.
pub(super) struct ConnectionDriver {
    shared: Arc<ConnectionShared>,
    stream: StreamState,
    reader: FrameReader,
    writer: FrameWriter,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to. It may fire early, when what it was set for is over; that costs
    /// less than setting it anew for each request.
    armed: Instant,
    /// Where the connection is authenticated by SASL.
    login: Option<Arc<Login>>,
}

/// Who has the stream.
enum StreamState {
    Idle(Box<dyn Stream>),
    /// The connection is being authenticated again; what comes out is the stream, and when to do so
    /// the next time.
    Reauthenticating(Reauthentication),
    /// Only while it changes hands.
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

    /// The connection was authenticated, and has to be again after that time, if at all.
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
        // What has arrived counts as in time, however late this task got its turn.
        self.read(cx)?;
        self.shared.lock().pipeline.tick(now())?;
        self.write(cx)?;
        // All answers may be in now that were waited for.
        self.begin_reauthentication(cx)?;
        self.keep_time(cx);
        Ok(())
    }

    /// Begins to authenticate again if it is time: what was sent is answered, and nothing is sent
    /// before it is done.
    fn begin_reauthentication(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let Some(login) = &self.login else { return Ok(()) };
        if !self.shared.lock().pipeline.is_ready_to_reauthenticate(now()) || !self.writer.is_empty() {
            return Ok(());
        }
        if !self.reader.is_empty() {
            let error = Error::new(ErrorKind::Protocol, "a response came in that nobody had asked for");
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

    /// Goes on with the authentication that is under way, if one is.
    fn continue_reauthentication(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let StreamState::Reauthenticating(login) = &mut self.stream else { return Ok(()) };
        let Poll::Ready((stream, done)) = login.as_mut().poll(cx) else { return Ok(()) };
        self.stream = StreamState::Idle(stream);
        let again_after = done.map_err(|error| self.named(error))?;
        let mut state = self.shared.lock();
        event!(DEBUG, Origin::current(), peer = state.pipeline.peer(), "authenticated again");
        state.pipeline.authenticated(again_after, now());
        drop(state);
        // Requests that waited are written in this turn or, when it began behind the writing, in
        // the next.
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
