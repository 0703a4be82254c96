//! TLS connections, by the current contents of the configured files.

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

/// Size of the read buffer in bytes. rustls reads 4 KiB at a time: with this buffer below it, a
/// large response costs a sixteenth of the system calls.
const READ_AHEAD: usize = 64 * 1024;

/// Runs TLS on streams.
#[derive(Debug)]
pub(crate) struct Connector {
    tls: Arc<Tls>,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Option<Loaded>>,
    unread: Mutex<Limiter<()>>,
    /// True once the client has logged that its key cannot answer a request for a certificate.
    warned: AtomicBool,
}

#[derive(Clone, Debug)]
struct Loaded {
    digest: [u8; 32],
    config: Arc<ClientConfig>,
}

impl Connector {
    /// # Errors
    /// `Configuration` without a usable crypto provider.
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

    /// Reads the files, so that errors in them are known before the first connection.
    ///
    /// # Errors
    /// `Configuration`, naming the file.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.config().await.map(drop)
    }

    /// Returns the configuration by the current contents of the files; if they cannot be used, by
    /// the contents that were read before.
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
                    event!(
                        INFO,
                        Origin::current(),
                        "certificates or keys in the TLS files were replaced; new connections use the new ones"
                    );
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
                        "certificates or keys in the TLS files cannot be read again; the client uses the ones read before, and the next connection \
                         reads the files again"
                    );
                }
                Ok(known.config)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Opens a TLS session with that host on a stream.
    ///
    /// # Errors
    /// `Authentication` if client and server do not accept each other, `Network` if the stream
    /// broke.
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
            // In TLS 1.3, the peer may refuse the missing certificate after the handshake.
            Some(asked) if asked.answer != Answer::Shown => {
                self.warn_of_kind(&asked);
                Box::new(ExplainedStream::new(stream, Arc::clone(&self.provider), asked))
            }
            _ => Box::new(stream),
        })
    }

    /// Logs a certificate that cannot be sent, because a peer that requests one but does not
    /// require it treats the client as anonymous.
    fn warn_of_kind(&self, asked: &Asked) {
        if let Answer::NoCommonScheme(kind) = &asked.answer
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            event!(
                WARN,
                Origin::current(),
                %kind,
                "the peer asks for a client certificate but accepts no signature scheme of the client's key; the client sends no \
                 certificate"
            );
        }
    }
}

/// Returns the name to send to the peer and to verify. A host that is neither a DNS name nor an IP
/// address is an error only if names are verified.
fn server_name(host: &str, verification: Verification) -> Result<ServerName<'static>> {
    match ServerName::try_from(host.trim_end_matches('.').to_owned()) {
        Ok(name) => Ok(name),
        // The placeholder is not sent to the peer, because addresses are not.
        Err(_) if verification != Verification::Full => Ok(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())),
        Err(_) => {
            let message = format!(
                "TLS: {host:?} is neither a DNS name nor an IP address for which a certificate could be issued; connect by \
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
            "the peer closed the connection during the TLS handshake (is it a listener without TLS, for which \
             security.protocol is PLAINTEXT or SASL_PLAINTEXT, or a broker that is shutting down?)",
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
