//! Streams under TLS, by what the files say now.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{ClientConfig, crypto::CryptoProvider, pki_types::ServerName};
use tokio::io::BufReader;
use tokio_rustls::TlsConnector;

use super::{Tls, client_config::client_config, failure::tls_failure, material::Raw, provider::provider};
use crate::{
    error::{Error, ErrorKind, Result},
    log::{Limiter, Origin, event},
    net::Stream,
};

/// rustls reads 4 KiB at a time: with this before it, a large response costs a sixteenth of the system calls.
const READ_AHEAD: usize = 64 * 1024;

/// Puts streams under TLS.
#[derive(Debug)]
pub(crate) struct Connector {
    tls: Arc<Tls>,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Option<Loaded>>,
    unread: Mutex<Limiter<()>>,
}

#[derive(Clone, Debug)]
struct Loaded {
    digest: [u8; 32],
    config: Arc<ClientConfig>,
}

impl Connector {
    /// # Errors
    /// `Configuration` where there is no cryptography that can be used.
    pub(crate) fn new(tls: Tls) -> Result<Self> {
        let provider = provider(tls.provider.as_ref())?;
        Ok(Self { tls: Arc::new(tls), provider, loaded: Mutex::new(None), unread: Mutex::default() })
    }

    /// Reads the files, so that what is wrong with them is known before the first connection.
    ///
    /// # Errors
    /// `Configuration`, naming the file.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.config().await.map(drop)
    }

    /// What the files say now; if they cannot be used now, what they said before.
    async fn config(&self) -> Result<Arc<ClientConfig>> {
        let known = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (tls, provider, before) = (Arc::clone(&self.tls), Arc::clone(&self.provider), known.clone());
        let load = move || {
            let raw = Raw::read(&tls)?;
            let digest = raw.digest();
            match before {
                Some(before) if before.digest == digest => Ok(before),
                _ => Ok(Loaded { digest, config: Arc::new(client_config(&tls, &raw, &provider)?) }),
            }
        };
        let loaded = tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Closed, "the runtime of this client was shut down").with_source(error))
        });
        match (loaded, known) {
            (Ok(loaded), known) => {
                if known.is_some_and(|known| known.digest != loaded.digest) {
                    event!(INFO, Origin::current(), "certificates or keys were replaced; new connections use them");
                }
                *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded.clone());
                Ok(loaded.config)
            }
            (Err(error), Some(known)) => {
                let now = tokio::time::Instant::now().into_std();
                let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(suppressed) = unread.admit((), now) {
                    event!(
                        WARN, Origin::current(), %error, suppressed,
                        "certificates or keys cannot be read again: those from before are used, and the next connection \
                         reads the files again"
                    );
                }
                Ok(known.config)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// A TLS session with that host over a stream.
    ///
    /// # Errors
    /// `Authentication` where the two do not accept each other, `Network` where the stream broke.
    pub(crate) async fn connect(&self, stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned()).map_err(|_| {
            let message = format!("TLS: \"{host}\" is not a host name that a certificate could be made out to");
            Error::new(ErrorKind::Authentication, message)
        })?;
        let connector = TlsConnector::from(self.config().await?);
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        let stream = connector.connect(name, stream).await.map_err(|error| failed(&error))?;
        Ok(Box::new(stream))
    }
}

fn failed(error: &io::Error) -> Error {
    let closed = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
    tls_failure(error).unwrap_or_else(|| match closed {
        true => Error::new(
            ErrorKind::Network,
            "the peer closed the connection during the TLS handshake (a listener without TLS, for which \
             security.protocol is PLAINTEXT or SASL_PLAINTEXT, or a broker that is going down?)",
        ),
        false => Error::new(ErrorKind::Network, format!("the connection broke during the TLS handshake: {error}")),
    })
}
