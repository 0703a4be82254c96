//! The network as a trait, so that the same client runs over TCP, over memory in tests, and over
//! whatever a user brings.

mod memory;
mod runtime;
mod tcp;

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

pub use memory::{MemoryListener, MemoryNetwork};
pub(crate) use runtime::{check_network, runtime};
pub use tcp::Tcp;

/// The domain of brokers on an in-memory network. `.invalid` is reserved (RFC 2606, RFC 6761), so
/// that no such name leads to a real broker.
pub(crate) const IN_MEMORY_DOMAIN: &str = ".testkit.invalid";

/// A boxed future, as the methods of [`Network`] return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Turns names into addresses and addresses into connections.
///
/// The client brings the timeouts (`socket.connection.setup.timeout.ms`), the order in which
/// addresses are tried, and, above this, TLS; an implementation only resolves and connects. Its
/// futures are dropped when time is up.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// All addresses of a host, in the order in which they should be tried.
    ///
    /// # Errors
    /// Every error is one that trying again may cure, except
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): no address will ever be found for that name,
    /// and calls that need the broker fail at once with
    /// [`Configuration`](crate::ErrorKind::Configuration).
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// A new connection to one address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;

    /// Checks, when a client is built, that the current tokio runtime has what connections need;
    /// the error becomes that of `build()`. Default: nothing is needed. A network over [`Tcp`]
    /// hands the question on to it, because tokio panics where its runtime has no IO.
    ///
    /// # Errors
    /// What the runtime lacks.
    fn check_runtime(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection: bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
