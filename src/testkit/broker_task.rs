//! One broker: accepts connections, and closes them all when it is told to.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tracing::warn;

use super::{connection_task::Connection, shared::Shared};
use crate::net::{MemoryListener, MemoryNetwork, Stream};

/// A broker's listener, on a loopback port or on the in-memory network.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Memory(MemoryListener),
}

impl Listener {
    /// Listens on `port` (0: any free port).
    pub(crate) async fn bind(network: Option<&MemoryNetwork>, port: u16) -> io::Result<Self> {
        const FIRST: u16 = 9092;
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        match network {
            None => Ok(Self::Tcp(TcpListener::bind(address(port)).await?)),
            Some(network) if port != 0 => Ok(Self::Memory(network.listen(address(port))?)),
            Some(network) => {
                let free = (FIRST..=u16::MAX).find_map(|port| network.listen(address(port)).ok());
                free.map(Self::Memory).ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))
            }
        }
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.port()),
            Self::Memory(listener) => Ok(listener.address().port()),
        }
    }

    async fn accept(&mut self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Memory(listener) => Ok(Box::new(listener.accept().await?)),
        }
    }
}

#[derive(Debug)]
enum Command {
    /// Close all connections and continue to accept new ones.
    Disconnect,
    /// Close the port and all connections.
    Stop,
}

/// A broker that is up.
#[derive(Debug)]
pub(crate) struct BrokerTask {
    commands: mpsc::UnboundedSender<Command>,
    task: JoinHandle<()>,
}

impl BrokerTask {
    pub(crate) fn spawn(shared: Arc<Shared>, broker: i32, listener: Listener) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(shared, broker, listener, inbox));
        Self { commands, task }
    }

    /// Closes all connections; the broker accepts new ones.
    pub(crate) fn disconnect(&self) {
        // A broker that has ended has no connections.
        let _ = self.commands.send(Command::Disconnect);
    }

    /// Tells the broker to close its port and all connections; the returned future completes when
    /// it has.
    pub(crate) fn stop(self) -> impl Future<Output = ()> {
        let _ = self.commands.send(Command::Stop);
        async move {
            if let Err(error) = self.task.await {
                warn!(%error, "a testkit broker's task ended with an error");
            }
        }
    }

    /// Aborts the broker at once, without waiting.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }
}

/// Serves one connection, under TLS if the brokers ask for it by now.
async fn serve(shared: Arc<Shared>, broker: i32, id: u64, stream: Box<dyn Stream>) {
    #[cfg(feature = "tls")]
    {
        let tls = shared.tls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(config) = tls {
            match tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
                Ok(stream) => Connection::new(shared, broker, id, stream).run().await,
                Err(error) => tracing::debug!(broker, connection = id, %error, "TLS handshake failed"),
            }
            return;
        }
    }
    Connection::new(shared, broker, id, stream).run().await;
}

async fn run(shared: Arc<Shared>, broker: i32, mut listener: Listener, mut inbox: mpsc::UnboundedReceiver<Command>) {
    const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            command = inbox.recv() => match command {
                Some(Command::Disconnect) => connections.shutdown().await,
                Some(Command::Stop) | None => break,
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(broker, %error, "a testkit connection's task ended with an error");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    let id = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
                    connections.spawn(serve(shared.clone(), broker, id, stream));
                }
                Err(error) => {
                    warn!(broker, %error, "a testkit broker cannot accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}
