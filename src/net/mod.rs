//! The network as a trait, so that the same client runs over TCP, over memory in tests, and over
//! any network that a user implements.

mod memory;
mod runtime;
mod tcp;

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

pub use memory::{MemoryListener, MemoryNetwork};
pub(crate) use runtime::{check_network, runtime};
pub use tcp::Tcp;

/// The domain of brokers on an in-memory network. `.invalid` is reserved (RFC 2606, RFC 6761), so
/// that no such name can resolve to a real broker.
pub(crate) const IN_MEMORY_DOMAIN: &str = ".testkit.invalid";

/// The boxed future that the methods of [`Network`] return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Resolves names to addresses, and connects to addresses.
///
/// The client applies the timeouts (`socket.connection.setup.timeout.ms`), chooses the order of
/// addresses, and runs TLS on top; an implementation only resolves and connects. Its futures are
/// dropped when the timeout expires.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Returns all addresses of a host, in the order in which they are to be tried.
    ///
    /// # Errors
    /// Every error is retried, except [`InvalidInput`](io::ErrorKind::InvalidInput). That kind
    /// means that the name will never resolve: calls that need the broker fail at once with
    /// [`Configuration`](crate::ErrorKind::Configuration).
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// Opens a new connection to one address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;

    /// Checks, when a client is built, that the current tokio runtime has all that connections
    /// need. The error becomes that of `build()`. Default: nothing is needed. A network on top of
    /// [`Tcp`] delegates to it, because tokio panics if its runtime has no IO.
    ///
    /// # Errors
    /// The error names the missing part of the runtime.
    fn check_runtime(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection: a stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
