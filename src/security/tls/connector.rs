//! Streams under TLS, by what the files say now.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{ClientConfig, crypto::CryptoProvider, pki_types::ServerName};
use tokio::io::BufReader;
use tokio_rustls::TlsConnector;

use super::{
    Tls, Verification,
    client_certificate::{Answer, Asked, Note},
    client_config::client_config,
    explained_stream::ExplainedStream,
    failure::{Handshake, handshake_failure},
    material::Raw,
    provider::provider,
};
use crate::{
    error::{Error, ErrorKind, Result},
    log::{Limiter, Origin, event},
    net::Stream,
};

/// rustls reads 4 KiB at a time: with this before it, a large response costs a sixteenth of the
/// system calls.
const READ_AHEAD: usize = 64 * 1024;

/// Puts streams under TLS.
#[derive(Debug)]
pub(crate) struct Connector {
    tls: Arc<Tls>,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Option<Loaded>>,
    unread: Mutex<Limiter<()>>,
    /// Whether it was said already that the client's key cannot answer a request for a certificate.
    warned: AtomicBool,
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
        Ok(Self {
            tls: Arc::new(tls),
            provider,
            loaded: Mutex::new(None),
            unread: Mutex::default(),
            warned: AtomicBool::new(false),
        })
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
        let connector = TlsConnector::from(self.config().await?);
        let name = server_name(host, self.tls.verification)?;
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        let note = Note::default();
        let connected = note.during(connector.connect(name, stream)).await;
        let asked = note.asked();
        let handshake = Handshake { provider: &self.provider, asked: asked.as_ref() };
        let stream = connected.map_err(|error| failed(&error, &handshake))?;
        Ok(match asked {
            // The peer may refuse that behind the handshake of TLS 1.3.
            Some(asked) if asked.answer != Answer::Shown => {
                self.warn_of_kind(&asked);
                Box::new(ExplainedStream::new(stream, Arc::clone(&self.provider), asked))
            }
            _ => Box::new(stream),
        })
    }

    /// A peer that only wishes for a certificate takes the client for an anonymous one.
    fn warn_of_kind(&self, asked: &Asked) {
        if let Answer::NoCommonScheme(kind) = &asked.answer
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            event!(
                WARN,
                Origin::current(),
                %kind,
                "the peer asks for a client certificate and accepts no signature scheme of the client's key; the certificate is \
                 not shown"
            );
        }
    }
}

/// The name to verify, and to ask for. A host that is no name matters only where names are
/// verified.
fn server_name(host: &str, verification: Verification) -> Result<ServerName<'static>> {
    match ServerName::try_from(host.trim_end_matches('.').to_owned()) {
        Ok(name) => Ok(name),
        // An address is not sent to the peer.
        Err(_) if verification != Verification::Full => Ok(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())),
        Err(_) => {
            let message = format!(
                "TLS: {host:?} is neither a DNS name nor an IP address that a certificate could be made out to; connect by \
                 another name, or leave names unchecked (ssl.endpoint.identification.algorithm= empty)"
            );
            Err(Error::new(ErrorKind::Authentication, message))
        }
    }
}

fn failed(error: &io::Error, handshake: &Handshake<'_>) -> Error {
    let closed = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
    handshake_failure(error, handshake).unwrap_or_else(|| match closed {
        true => Error::new(
            ErrorKind::Network,
            "the peer closed the connection during the TLS handshake (a listener without TLS, for which \
             security.protocol is PLAINTEXT or SASL_PLAINTEXT, or a broker that is going down?)",
        ),
        false => Error::new(ErrorKind::Network, format!("the connection broke during the TLS handshake: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_invalid_host_only_when_verified() {
        for host in ["broker.example.", "kafka_1", "127.0.0.1", "::1"] {
            server_name(host, Verification::Full).unwrap();
        }
        let error = server_name("fe80::1%eth0", Verification::Full).unwrap_err();
        assert!(error.to_string().contains("ssl.endpoint.identification.algorithm"), "{error}");
        for verification in [Verification::WithoutHostName, Verification::None] {
            server_name("fe80::1%eth0", verification).unwrap();
        }
    }
}
