//! Members that are frozen, like a stopped virtual machine: none of their data reaches a broker and
//! none reaches them until they are thawed. Data that was in flight then arrives, however late.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{BoxFuture, Endpoint, Network, Stream};

#[derive(Clone, Debug, Default)]
pub(super) struct Freezer(Arc<Mutex<Ice>>);

#[derive(Debug, Default)]
struct Ice {
    frozen: bool,
    waiting: Vec<Waker>,
}

impl Freezer {
    /// Returns the same network, for the member that will be frozen.
    pub(super) fn network(&self, network: Arc<dyn Network>) -> Arc<dyn Network> {
        Arc::new(Freezing { freezer: self.clone(), network })
    }

    pub(super) fn freeze(&self) {
        self.0.lock().unwrap().frozen = true;
    }

    pub(super) fn thaw(&self) {
        let mut ice = self.0.lock().unwrap();
        ice.frozen = false;
        let waiting = std::mem::take(&mut ice.waiting);
        drop(ice);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll_thawed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut ice = self.0.lock().unwrap();
        if !ice.frozen {
            return Poll::Ready(());
        }
        ice.waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

#[derive(Debug)]
struct Freezing {
    freezer: Freezer,
    network: Arc<dyn Network>,
}

impl Network for Freezing {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        self.network.resolve(host, port)
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            poll_fn(|cx| self.freezer.poll_thawed(cx)).await;
            let stream = self.network.connect(endpoint).await?;
            Ok(Box::new(FrozenStream { freezer: self.freezer.clone(), stream }) as Box<dyn Stream>)
        })
    }
}

struct FrozenStream {
    freezer: Freezer,
    stream: Box<dyn Stream>,
}

impl AsyncRead for FrozenStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.freezer.poll_thawed(cx));
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for FrozenStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.freezer.poll_thawed(cx));
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.freezer.poll_thawed(cx));
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
