//! A TLS stream to a peer that asked for a client certificate and got none.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::crypto::CryptoProvider;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    client_certificate::Asked,
    failure::{Handshake, handshake_failure},
};

/// Adds to a refusal after the handshake the reason why the client sent no certificate.
pub(super) struct ExplainedStream<S> {
    stream: S,
    provider: Arc<CryptoProvider>,
    asked: Asked,
}

impl<S> ExplainedStream<S> {
    pub(super) fn new(stream: S, provider: Arc<CryptoProvider>, asked: Asked) -> Self {
        Self { stream, provider, asked }
    }

    fn explained<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let handshake = Handshake { provider: &self.provider, asked: Some(&self.asked) };
            match handshake_failure(&error, &handshake) {
                Some(failure) => io::Error::new(error.kind(), failure),
                None => error,
            }
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ExplainedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        read.map(|result| self.explained(result))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ExplainedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        written.map(|result| self.explained(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        written.map(|result| self.explained(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        flushed.map(|result| self.explained(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
