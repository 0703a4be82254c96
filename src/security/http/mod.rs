//! An HTTP/1.1 client, limited to the needs of token endpoints: one request and its response on one
//! connection.

mod response;
mod url;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use zeroize::Zeroizing;

pub(crate) use response::Response;
pub(crate) use url::{Url, encoded, form};

use crate::{
    error::{Error, ErrorKind, Result},
    net::{Network, Stream},
};

/// Limit of a response in bytes; no response with a token is larger.
const MAX_ANSWER: usize = 1024 * 1024;

/// Sends requests to web servers.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) network: Arc<dyn Network>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<crate::security::tls::Connector>>,
    /// `sasl.login.connect.timeout.ms`.
    pub(crate) connect_timeout: Duration,
    /// `sasl.login.read.timeout.ms`.
    pub(crate) read_timeout: Duration,
}

/// A request to a web server.
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: &'a Url,
    pub(crate) headers: Vec<(&'static str, Zeroizing<String>)>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Http {
    /// Creates a client on this network, with timeouts of ten seconds.
    pub(crate) fn new(network: Arc<dyn Network>) -> Self {
        Self {
            network,
            #[cfg(feature = "tls")]
            tls: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
        }
    }

    /// Sends one request and returns its response, whatever its status.
    ///
    /// # Errors
    /// `Network` and `Timeout` if trying again may help, `Authentication` if the server's
    /// certificate is not accepted, `Protocol` for a response that is not HTTP. All of them name
    /// the URL's host.
    pub(crate) async fn ask(&self, request: Request<'_>) -> Result<Response> {
        let url = request.url;
        let connected = timeout(self.connect_timeout, self.connect(url)).await;
        let late = |what: &str, limit: Duration| {
            Error::new(ErrorKind::Timeout, format!("{what} took longer than {} ms", limit.as_millis()))
        };
        let connected = connected.unwrap_or_else(|_| Err(late("connecting", self.connect_timeout)));
        let mut stream = connected.map_err(|error| error.context(url))?;
        let answered = timeout(self.read_timeout, exchange(&mut *stream, &request)).await;
        let answered = answered.unwrap_or_else(|_| Err(late("the response", self.read_timeout)));
        answered.map_err(|error| error.context(url))
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>> {
        let network = |error: io::Error| Error::new(ErrorKind::Network, error.to_string());
        let mut failure = Error::new(ErrorKind::Network, "the name has no address");
        for address in self.network.resolve(url.host(), url.port()).await.map_err(network)? {
            match self.network.connect(address).await.map_err(network) {
                Ok(stream) => return self.secure(stream, url).await,
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn secure(&self, stream: Box<dyn Stream>, url: &Url) -> Result<Box<dyn Stream>> {
        if !url.is_secure() {
            return Ok(stream);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.connect(stream, url.host()).await;
        }
        Err(Error::new(ErrorKind::Configuration, "https needs the feature `tls`"))
    }
}

async fn exchange(stream: &mut dyn Stream, request: &Request<'_>) -> Result<Response> {
    let broken = |error: io::Error| {
        crate::security::tls_failure(&error)
            .unwrap_or_else(|| Error::new(ErrorKind::Network, format!("the connection broke: {error}")))
    };
    stream.write_all(&request.encode()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    // Larger than usual responses from the start, so that growing does not leave a copy of a token
    // in memory.
    let mut answer = Zeroizing::new(Vec::with_capacity(64 * 1024));
    loop {
        if let Some(response) = Response::parse(&answer, false)? {
            return Ok(response);
        }
        if answer.len() > MAX_ANSWER {
            return Err(Error::new(ErrorKind::Protocol, format!("the response is larger than {MAX_ANSWER} bytes")));
        }
        let read = match stream.read_buf(&mut *answer).await {
            // Some servers end their TLS session by closing the connection.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read.map_err(broken)?,
        };
        if read == 0 {
            return Response::parse(&answer, true)?.ok_or_else(|| {
                Error::new(ErrorKind::Network, "the server closed the connection before the end of its response")
            });
        }
    }
}

impl Request<'_> {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(1024 + self.url.target().len() + headers + self.body.len()));
        let mut put = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        put(&[self.method, " ", self.url.target(), " HTTP/1.1\r\nHost: ", &self.url.authority(), "\r\n"]);
        put(&["User-Agent: ottla/", env!("CARGO_PKG_VERSION"), "\r\nConnection: close\r\n"]);
        put(&["Content-Length: ", &self.body.len().to_string(), "\r\n"]);
        for (name, value) in &self.headers {
            put(&[name, ": ", value, "\r\n"]);
        }
        put(&["\r\n"]);
        out.extend_from_slice(&self.body);
        out
    }
}
