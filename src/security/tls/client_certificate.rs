//! The client's certificate: shown where a broker asks for one, with a note of what the broker
//! asked for.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use super::{certificate::Certificate, key, key_kind::KeyKind};

/// Certificate and key. `Err` says why they cannot be used.
///
/// rustls reads the certificate to compare keys, and refuses version 1, which a broker may accept.
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
    /// The signature schemes that the broker accepts.
    pub(super) schemes: Vec<SignatureScheme>,
    pub(super) answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No client certificate is configured.
    NoneConfigured,
    /// The client's key, of this kind, signs with none of the broker's schemes. TLS goes on without
    /// a certificate.
    NoCommonScheme(String),
    Shown,
}

tokio::task_local! {
    static NOTE: Note;
}

/// The note of one handshake. rustls binds sessions that it may resume to one resolver, so the
/// resolver is shared by all connections, and each handshake has its note in the task that drives
/// it.
#[derive(Clone, Debug, Default)]
pub(super) struct Note(Arc<Mutex<Option<Asked>>>);

impl Note {
    /// Drives a handshake whose request for a certificate is noted here.
    pub(super) async fn during<F: Future>(&self, handshake: F) -> F::Output {
        NOTE.scope(self.clone(), handshake).await
    }

    /// `None` where the broker asked for no certificate.
    pub(super) fn asked(&self) -> Option<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, asked: Asked) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }
}

/// Answers the broker's request for a certificate.
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
        // Outside of a connection's handshake there is no note.
        let _ = NOTE.try_with(|note| note.set(Asked { schemes: schemes.to_vec(), answer }));
        shown
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
