//! The network as a trait, so that the same client runs over TCP, over memory in tests, and over
//! any network that a user implements.

mod endpoint;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod memory;
mod runtime;
mod tcp;

use std::{fmt, future::Future, io, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

pub use endpoint::Endpoint;
#[cfg(any(test, feature = "testkit"))]
pub(crate) use memory::{MemoryListener, MemoryNetwork};
pub(crate) use runtime::{check_network, runtime};
pub use tcp::Tcp;

/// The domain of brokers on an in-memory network. `.invalid` is reserved (RFC 2606, RFC 6761), so
/// that no such name can resolve to a real broker.
pub(crate) const IN_MEMORY_DOMAIN: &str = ".testkit.invalid";

/// The boxed future that the methods of [`Network`] return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Resolves names and connects to brokers. The default is [`Tcp`].
///
/// The client brings the timeouts (`socket.connection.setup.timeout.ms`), the order in which
/// endpoints are tried, and, above this, TLS; an implementation resolves and connects. The client
/// drops the futures when the time is up.
///
/// # Proxies
/// A proxy such as SOCKS5 or HTTP CONNECT can resolve the brokers' names at its own end. Its
/// network returns the name itself from [`resolve`](Self::resolve), and passes it on in
/// [`connect`](Self::connect):
///
/// ```
/// use ottla::net::{BoxFuture, Endpoint, Network, Stream, Tcp};
/// use std::{io, sync::Arc};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// /// Connects through an HTTP proxy (RFC 9110, CONNECT).
/// #[derive(Debug)]
/// struct HttpProxy(std::net::SocketAddr);
///
/// impl Network for HttpProxy {
///     fn resolve<'a>(
///         &'a self,
///         host: &'a str,
///         port: u16,
///     ) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
///         Box::pin(async move { Ok(vec![Endpoint::name(host, port)]) })
///     }
///
///     fn connect(
///         &self,
///         endpoint: Endpoint,
///     ) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
///         Box::pin(async move {
///             let mut stream = Tcp.connect(self.0.into()).await?;
///             stream
///                 .write_all(
///                     format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n")
///                         .as_bytes(),
///                 )
///                 .await?;
///             let mut head = Vec::new();
///             while !head.ends_with(b"\r\n\r\n") {
///                 if head.len() == 8192 {
///                     return Err(io::Error::other("the proxy's answer does not end"));
///                 }
///                 head.push(stream.read_u8().await?);
///             }
///             match head.get(9..12) {
///                 Some(b"200") => Ok(stream),
///                 _ => Err(io::Error::other("the proxy refuses the connection")),
///             }
///         })
///     }
/// }
///
/// let consumer = ottla::Consumer::builder("kafka.internal:9092")
///     .network(Arc::new(HttpProxy(([10, 0, 0, 1], 3128).into())));
/// ```
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Returns all endpoints of a host, in the order in which the client tries them.
    ///
    /// # Errors
    /// The client tries again after every error but [`InvalidInput`](io::ErrorKind::InvalidInput):
    /// that one says that the name will never have an address, and calls that need the broker fail
    /// at once with [`Configuration`](crate::ErrorKind::Configuration).
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>>;

    /// Opens a new connection to one endpoint that [`resolve`](Self::resolve) returned.
    ///
    /// # Errors
    /// The client tries the next endpoint, and all of them again after `reconnect.backoff.ms`.
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;

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
