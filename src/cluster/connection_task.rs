//! The task behind a connection: it owns the socket, and moves bytes between it and the pipeline.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

use super::{
    connection::{Shared, now},
    frames::{FrameReader, FrameWriter, broken},
};
use crate::{
    error::{Error, ErrorKind, Result},
    net::Stream,
};

/// Requests are taken while less than this waits for the socket, so that those behind can still be withdrawn, and what
/// is queued at one time still leaves in one write.
const WRITE_AHEAD: usize = 256 * 1024;
/// Frames, or writes, that one poll may handle before other tasks get their turn.
const TURNS: usize = 64;

/// Reads, writes and keeps time for one connection; ends with the reason why the connection closed.
///
/// One future polls both directions: a broker's answers and the next requests are mostly due at the same wake-up, and a
/// socket that one task owns needs no lock. Dropped (with its runtime), it closes the connection.
pub(super) struct Driver {
    shared: Arc<Shared>,
    stream: Box<dyn Stream>,
    reader: FrameReader,
    writer: FrameWriter,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to. It may fire early, when what it was set for is over; that costs less than setting it
    /// anew for each request.
    armed: Instant,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, stream: Box<dyn Stream>, reader: FrameReader) -> Self {
        let armed = shared.lock().pipeline.next_event();
        let timer = Box::pin(sleep_until(armed.into()));
        Self { shared, stream, reader, writer: FrameWriter::default(), timer, armed }
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Result<()> {
        {
            let mut state = self.shared.lock();
            state.register(cx.waker());
            if let Some(error) = state.pipeline.closed() {
                return Err(error.clone());
            }
        }
        // What has arrived counts as in time, however late this task got its turn.
        self.read(cx)?;
        self.shared.lock().pipeline.tick(now())?;
        self.write(cx)?;
        self.keep_time(cx);
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<()> {
        for _ in 0..TURNS {
            match self.reader.poll_frame(&mut *self.stream, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(frame))) => self.shared.lock().pipeline.answer(frame, now())?,
                Poll::Ready(Ok(None)) => {
                    return Err(self.shared.lock().pipeline.network("the peer closed the connection"));
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
            match self.writer.poll_write(&mut *self.stream, cx) {
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

impl Future for Driver {
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

impl Drop for Driver {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, "the runtime of this client was shut down");
        self.shared.lock().pipeline.close(&error);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("shared", &self.shared).finish_non_exhaustive()
    }
}
