//! Reads frames from a stream and writes requests into it, with as few copies as possible.

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

/// Size of the buffer that small responses are read through. Responses that fit are copied out, so
/// that a few bytes that a caller keeps never pin the buffer.
const SMALL: usize = 16 * 1024;
/// Most memory reserved for a response on its announced length alone, unless its caller expects
/// more; beyond that the buffer grows as bytes arrive.
const RESERVED: usize = 1024 * 1024;
/// Most slices in one vectored write; more only make the call longer.
const SLICES: usize = 64;

/// Reads length-prefixed frames: small ones through one buffer, each large one into a buffer of its
/// own size.
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

    /// Returns true if no bytes were read that belong to an unfinished or unreturned frame.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.large.is_none()
    }

    /// Returns the next frame without its length; `None` at the end of the stream. `expects`
    /// returns the size up to which a response is expected: it is called for large frames only, and
    /// a frame up to that size is read into memory reserved for all of it.
    ///
    /// # Errors
    /// The stream broke, ended within a frame, or does not carry frames of Kafka's protocol.
    pub(super) fn poll_frame(
        &mut self,
        stream: &mut dyn Stream,
        cx: &mut Context<'_>,
        expects: impl Fn() -> usize,
    ) -> Poll<Result<Option<Bytes>>> {
        loop {
            if self.large.is_some() {
                return ready!(self.poll_large(stream, cx))?.map_or(Poll::Pending, |body| Poll::Ready(Ok(Some(body))));
            }
            if let Some(frame) = self.parse(&expects)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.large.is_some() {
                continue;
            }
            // The buffer is never shared, so this only moves an unfinished frame to its front.
            self.buffer.reserve(SMALL - self.buffer.len());
            let missing = SMALL - self.buffer.len();
            if ready!(poll_read(stream, cx, &mut self.buffer, missing))? == 0 {
                return Poll::Ready(if self.buffer.is_empty() { Ok(None) } else { Err(cut_off()) });
            }
        }
    }

    /// Returns a frame from the buffer, or starts a large one.
    fn parse(&mut self, expects: impl Fn() -> usize) -> Result<Option<Bytes>> {
        let Some(prefix) = self.buffer.first_chunk() else { return Ok(None) };
        let length = frame_length(*prefix, self.limit)?;
        if let Some(frame) = self.buffer.get(4..4 + length) {
            let frame = Bytes::copy_from_slice(frame);
            self.buffer.advance(4 + length);
            return Ok(Some(frame));
        }
        if 4 + length > SMALL {
            let mut body = BytesMut::with_capacity(length.min(RESERVED.max(expects())));
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
                // `reserve` would round up; a response takes only the memory that its length
                // announces.
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
    // The future holds nothing between polls, so a new one for each poll equals one that continues.
    let read = pin!(stream.read_buf(&mut into));
    read.poll(cx).map_err(|error| broken(&error))
}

/// Converts an IO error of a connection.
pub(super) fn broken(error: &io::Error) -> Error {
    Error::new(ErrorKind::Network, format!("the connection broke: {error}"))
}

fn cut_off() -> Error {
    Error::new(ErrorKind::Network, "the peer closed the connection in the middle of a response")
}

/// Requests that are being written into the stream.
#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    unflushed: bool,
}

impl FrameWriter {
    /// Adds a request after the others.
    pub(super) fn push(&mut self, frame: Frame) {
        for chunk in std::iter::once(frame.head).chain(frame.chunks) {
            if !chunk.is_empty() {
                self.bytes += chunk.len();
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Returns true if the stream has accepted and flushed everything.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && !self.unflushed
    }

    /// Returns the number of bytes that the stream has not accepted yet.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Performs one vectored write, or the flush when nothing is left. Returns the number of bytes
    /// that the stream accepted; 0 when all is done.
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIMIT: usize = 64 << 20;

    async fn write(stream: &mut DuplexStream, announced: usize, bytes: &[u8]) {
        stream.write_all(&i32::try_from(announced).unwrap().to_be_bytes()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
    }

    async fn read(reader: &mut FrameReader, stream: &mut DuplexStream, expects: usize) -> Result<Option<Bytes>> {
        poll_fn(|cx| reader.poll_frame(stream, cx, || expects)).await
    }

    /// Reads the available part of an unfinished frame; returns its memory's address and capacity.
    fn begun(reader: &mut FrameReader, stream: &mut DuplexStream, expects: usize) -> (*const u8, usize) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(reader.poll_frame(stream, &mut cx, || expects).is_pending());
        let body = &reader.large.as_ref().expect("a large frame is unfinished").body;
        (body.as_ptr(), body.capacity())
    }

    #[tokio::test]
    async fn reads_expected_response_size_without_copying() {
        // Kafka's responses to fetches of 1 MiB and of 8 MiB: the records and a header.
        for asked in [RESERVED, 8 * RESERVED] {
            let length = asked + 80;
            let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (mut ours, mut theirs) = duplex(2 * length);
            let mut reader = FrameReader::new(LIMIT);
            write(&mut theirs, length, &body[..20_000]).await;
            let (memory, capacity) = begun(&mut reader, &mut ours, asked + 128);
            assert_eq!(capacity, length, "reserves the whole length");
            theirs.write_all(&body[20_000..length - 1]).await.unwrap();
            assert_eq!(begun(&mut reader, &mut ours, 0), (memory, capacity));
            theirs.write_all(&body[length - 1..]).await.unwrap();
            let frame = read(&mut reader, &mut ours, 0).await.unwrap().unwrap();
            assert_eq!((frame.as_ptr(), &frame[..]), (memory, &body[..]), "neither grown nor copied");
        }
    }

    #[tokio::test]
    async fn unexpected_size_reserves_memory_as_data_arrives() {
        let body = vec![7; 5 * RESERVED];
        let (mut ours, mut theirs) = duplex(2 * body.len());
        let mut reader = FrameReader::new(LIMIT);
        write(&mut theirs, body.len(), &body[..100]).await;
        assert_eq!(begun(&mut reader, &mut ours, 0).1, RESERVED);
        theirs.write_all(&body[100..2 * RESERVED]).await.unwrap();
        assert!(begun(&mut reader, &mut ours, 0).1 <= 4 * RESERVED);
        theirs.write_all(&body[2 * RESERVED..]).await.unwrap();
        assert_eq!(read(&mut reader, &mut ours, 0).await.unwrap().unwrap(), body);
        write(&mut theirs, LIMIT + 1, &[]).await;
        assert!(read(&mut reader, &mut ours, usize::MAX).await.is_err(), "larger than the limit");
    }

    #[tokio::test]
    async fn small_responses_skip_expected_size_lookup() {
        let (mut ours, mut theirs) = duplex(1 << 16);
        let mut reader = FrameReader::new(LIMIT);
        for length in [0, 1, 5000, SMALL - 4] {
            write(&mut theirs, length, &vec![1; length]).await;
            let frame = poll_fn(|cx| reader.poll_frame(&mut ours, cx, || panic!("for {length} bytes"))).await;
            assert_eq!(frame.unwrap().unwrap().len(), length);
        }
        drop(theirs);
        assert!(read(&mut reader, &mut ours, 0).await.unwrap().is_none() && reader.is_empty());
    }
}
