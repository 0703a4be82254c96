use std::{io, net::SocketAddr};

use tokio::net::{TcpStream, lookup_host};

use super::{BoxFuture, Network, Stream, runtime};

/// TCP, with the system's resolver and `TCP_NODELAY`: requests are coalesced by the client, so waiting for more bytes
/// would only add latency.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn check_runtime(&self) -> io::Result<()> {
        runtime::check_io()
    }
}
