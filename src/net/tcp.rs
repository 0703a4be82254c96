use std::io;

use tokio::net::{TcpStream, lookup_host};

use super::{BoxFuture, Endpoint, IN_MEMORY_DOMAIN, Network, Stream, runtime};

/// TCP, with the system's resolver and `TCP_NODELAY`: the client coalesces requests itself, so
/// waiting for more bytes would only add latency.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        Box::pin(async move {
            if host.ends_with(IN_MEMORY_DOMAIN) {
                // The resolver is not asked, because some resolvers answer for names that do not
                // exist.
                let message = "this is the in-memory cluster of testkit: pass .network(cluster.network()) to the \
                               client's builder, or build clients with cluster.producer(), cluster.consumer() or \
                               cluster.admin()";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            Ok(lookup_host((host, port)).await?.map(Endpoint::from).collect())
        })
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = match endpoint {
                Endpoint::Address(address) => TcpStream::connect(address).await?,
                Endpoint::Name { host, port } => TcpStream::connect((&*host, port)).await?,
            };
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn check_runtime(&self) -> io::Result<()> {
        runtime::check_io()
    }
}
