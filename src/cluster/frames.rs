//! Frames out of a stream, and requests into it, without a byte copied that need not be.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::pipeline::Frame;
use crate::{
    error::{Error, ErrorKind, Result},
    net::Stream,
    wire::frame::frame_length,
};

/// What is read at once while no large response is under way. Responses that fit are copied out, so that a few bytes
/// that a caller keeps never pin the buffer.
const SMALL: usize = 16 * 1024;
/// What is reserved for a response on its word alone; beyond that the buffer grows as bytes arrive.
const RESERVED: usize = 1024 * 1024;
/// Slices in one vectored write; more only make the call longer.
const SLICES: usize = 64;

/// Reads length-prefixed frames: small ones through one buffer, each large one into a buffer of its own size.
#[derive(Debug)]
pub(super) struct FrameReader {
    limit: usize,
    buffer: BytesMut,
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    body: BytesMut,
    length: usize,
}

impl FrameReader {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, buffer: BytesMut::with_capacity(SMALL), large: None }
    }

    /// Whether nothing of a frame was read that was not given out.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.large.is_none()
    }

    /// The next frame without its length, `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream broke, ended within a frame, or does not carry frames of Kafka's protocol.
    pub(super) fn poll_frame(&mut self, stream: &mut dyn Stream, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if self.large.is_some() {
                return ready!(self.poll_large(stream, cx))?.map_or(Poll::Pending, |body| Poll::Ready(Ok(Some(body))));
            }
            if let Some(frame) = self.parse()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.large.is_some() {
                continue;
            }
            // Nothing of the buffer is ever shared, so this only moves a started frame to its front.
            self.buffer.reserve(SMALL - self.buffer.len());
            let missing = SMALL - self.buffer.len();
            if ready!(poll_read(stream, cx, &mut self.buffer, missing))? == 0 {
                return Poll::Ready(if self.buffer.is_empty() { Ok(None) } else { Err(cut_off()) });
            }
        }
    }

    /// A frame out of the buffer, or a large one begun.
    fn parse(&mut self) -> Result<Option<Bytes>> {
        let Some(prefix) = self.buffer.first_chunk() else { return Ok(None) };
        let length = frame_length(*prefix, self.limit)?;
        if let Some(frame) = self.buffer.get(4..4 + length) {
            let frame = Bytes::copy_from_slice(frame);
            self.buffer.advance(4 + length);
            return Ok(Some(frame));
        }
        if 4 + length > SMALL {
            let mut body = BytesMut::with_capacity(length.min(RESERVED));
            self.buffer.advance(4);
            body.extend_from_slice(&self.buffer);
            self.buffer.clear();
            self.large = Some(Large { body, length });
        }
        Ok(None)
    }

    fn poll_large(&mut self, stream: &mut dyn Stream, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        while let Some(Large { body, length }) = &mut self.large {
            let missing = *length - body.len();
            if missing == 0 {
                return Poll::Ready(Ok(self.large.take().map(|large| large.body.freeze())));
            }
            if body.capacity() == body.len() {
                // `reserve` would round up; a response takes as much memory as its length says.
                let mut grown = BytesMut::with_capacity((body.len() * 2).min(*length));
                grown.extend_from_slice(body);
                *body = grown;
            }
            let room = missing.min(body.capacity() - body.len());
            if ready!(poll_read(stream, cx, body, room))? == 0 {
                return Poll::Ready(Err(cut_off()));
            }
        }
        Poll::Ready(Ok(None))
    }
}

fn poll_read(stream: &mut dyn Stream, cx: &mut Context<'_>, into: &mut BytesMut, most: usize) -> Poll<Result<usize>> {
    let mut into = into.limit(most);
    // Holds nothing between polls, so a new one for each poll is the same as one that goes on.
    let read = pin!(stream.read_buf(&mut into));
    read.poll(cx).map_err(|error| broken(&error))
}

/// What an IO error means for a connection.
pub(super) fn broken(error: &io::Error) -> Error {
    Error::new(ErrorKind::Network, format!("the connection broke: {error}"))
}

fn cut_off() -> Error {
    Error::new(ErrorKind::Network, "the peer closed the connection in the middle of a response")
}

/// Requests on their way into the stream.
#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    unflushed: bool,
}

impl FrameWriter {
    /// Adds a request behind the others.
    pub(super) fn push(&mut self, frame: Frame) {
        for chunk in std::iter::once(frame.head).chain(frame.chunks) {
            if !chunk.is_empty() {
                self.bytes += chunk.len();
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Whether the stream has accepted and passed on everything.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && !self.unflushed
    }

    /// Bytes that the stream has not accepted yet.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// One vectored write, or the flush when nothing is left: how many bytes the stream accepted, 0 when all is done.
    pub(super) fn poll_write(&mut self, stream: &mut dyn Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.chunks.is_empty() {
            if self.unflushed {
                ready!(Pin::new(stream).poll_flush(cx))?;
                self.unflushed = false;
            }
            return Poll::Ready(Ok(0));
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        let slices = slices.get(..used).unwrap_or_default();
        let written = ready!(Pin::new(stream).poll_write_vectored(cx, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        self.forget(written);
        Poll::Ready(Ok(written))
    }

    fn forget(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.len() > written {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
    }
}
