use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use super::{BoxFuture, Endpoint, Network, Stream};

/// Bytes that a connection buffers in each direction before its writer waits.
const PIPE: usize = 256 * 1024;

/// A network inside the process, for tests under paused time. It uses no sockets and no ports of
/// the machine.
///
/// Clones share one network. Every host name resolves to 127.0.0.1 unless it is an address itself.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    listeners: Arc<Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<DuplexStream>>>>,
}

/// Accepts connections to one address of a [`MemoryNetwork`]; dropping it closes the port.
#[derive(Debug)]
pub struct MemoryListener {
    network: MemoryNetwork,
    address: SocketAddr,
    incoming: mpsc::UnboundedReceiver<DuplexStream>,
}

impl MemoryNetwork {
    /// Makes a network without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// `AddrInUse` if the address already has a listener.
    pub fn listen(&self, address: SocketAddr) -> io::Result<MemoryListener> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(&address).is_some_and(|listener| !listener.is_closed()) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{address} already has a listener")));
        }
        let (sender, incoming) = mpsc::unbounded_channel();
        listeners.insert(address, sender);
        Ok(MemoryListener { network: self.clone(), address, incoming })
    }

    fn dial(&self, address: SocketAddr) -> io::Result<DuplexStream> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let (ours, theirs) = duplex(PIPE);
        match listeners.get(&address) {
            Some(listener) if listener.send(theirs).is_ok() => Ok(ours),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("no listener on {address}"))),
        }
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

impl Network for MemoryNetwork {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        let ip = host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Box::pin(async move { Ok(vec![(ip, port).into()]) })
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        // Every name is an address of the one machine.
        let ip = |host: &str| host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let address = match &endpoint {
            Endpoint::Address(address) => *address,
            Endpoint::Name { host, port } => SocketAddr::new(ip(host), *port),
        };
        Box::pin(async move { Ok(Box::new(self.dial(address)?) as Box<dyn Stream>) })
    }
}

impl MemoryListener {
    /// Returns the next connection.
    ///
    /// # Cancel safety
    /// Safe: no connection is lost when the future is dropped.
    pub async fn accept(&mut self) -> io::Result<DuplexStream> {
        self.incoming.recv().await.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        let mut listeners = self.network.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.remove(&self.address);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9092))
    }

    #[tokio::test(start_paused = true)]
    async fn transfers_bytes_and_refuses_closed_ports() {
        let network = MemoryNetwork::new();
        let mut listener = network.listen(address()).unwrap();
        assert_eq!(network.listen(address()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let mut client = network.connect(address().into()).await.unwrap();
        let mut server = listener.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        drop(server);
        assert_eq!(client.read(&mut got).await.unwrap(), 0);
        drop(listener);
        let refused = network.connect(address().into()).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
