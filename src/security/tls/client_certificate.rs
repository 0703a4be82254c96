//! The client's certificate, which is sent if a broker requests one, and a note of the broker's
//! request.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use super::{certificate::Certificate, key, key_kind::KeyKind};

/// Combines certificate and key. `Err` says why they cannot be used.
///
/// The keys are compared here, because rustls refuses certificates of version 1 when it compares
/// them, while a broker may accept such a certificate.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let key = key::load(key, provider)?;
    if let Some(public) = key.public_key() {
        let of = |certificate: &CertificateDer<'static>| {
            Certificate::parse(certificate).map(|one| one.key == public.as_ref())
        };
        match chain.first().map(of) {
            Some(Some(true)) => {}
            Some(Some(false)) => {
                let other = chain.iter().position(|certificate| of(certificate) == Some(true));
                return Err(match other {
                    Some(place) => format!(
                        "the key does not belong to the first certificate of the chain but to certificate {}; the client's own \
                         has to be the first",
                        place + 1
                    ),
                    None => "the key does not belong to the certificate".to_owned(),
                });
            }
            Some(None) | None => {
                return Err("the first certificate of the chain is malformed (not X.509 in DER)".to_owned());
            }
        }
    }
    Ok(CertifiedKey::new(chain, key))
}

/// The broker's request for a certificate, and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Signature schemes that the broker accepts.
    pub(super) schemes: Vec<SignatureScheme>,
    pub(super) answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A client certificate is not configured.
    NoneConfigured,
    /// The client's key, of this kind, supports none of the broker's schemes. TLS continues without
    /// a certificate.
    NoCommonScheme(String),
    Shown,
}

tokio::task_local! {
    static NOTE: Note;
}

/// The note of one handshake. All connections share one resolver, because rustls resumes a session
/// only with the same resolver. So each handshake has its note in a task-local variable of the task
/// that drives it.
#[derive(Clone, Debug, Default)]
pub(super) struct Note(Arc<Mutex<Option<Asked>>>);

impl Note {
    /// Drives a handshake, and keeps its request for a certificate in this note.
    pub(super) async fn during<F: Future>(&self, handshake: F) -> F::Output {
        NOTE.scope(self.clone(), handshake).await
    }

    /// Returns the broker's request; `None` if the broker requested no certificate.
    pub(super) fn asked(&self) -> Option<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, asked: Asked) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }
}

/// Answers a broker's request for a certificate.
#[derive(Debug)]
pub(super) struct ClientCertificate(pub(super) Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let (answer, shown) = match &self.0 {
            None => (Answer::NoneConfigured, None),
            Some(own) if own.key.choose_scheme(schemes).is_none() => {
                let kind = own.key.public_key().and_then(|key| KeyKind::of_public_key(key.as_ref()));
                (Answer::NoCommonScheme(kind.map_or_else(|| "another".to_owned(), |kind| kind.to_string())), None)
            }
            Some(own) => (Answer::Shown, Some(Arc::clone(own))),
        };
        // Outside a connection's handshake, the task has no note.
        let _ = NOTE.try_with(|note| note.set(Asked { schemes: schemes.to_vec(), answer }));
        shown
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
