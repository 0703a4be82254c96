//! Texts of TLS failures: the failure, its cause, and its remedy.
//!
//! rustls and webpki show most of their errors by `Debug`, which tells a user little. So each of
//! their variants has its own text here, and tests check that no `Debug` output is shown.

mod alert;
mod certificate;
mod peer;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests;

use std::io;

use rustls::{CipherSuite, Error as TlsError, InconsistentKeys, NamedGroup, SignatureScheme, crypto::CryptoProvider};

use super::{client_certificate::Asked, key_kind::BUILT_IN_KEYS};
use crate::error::{Error, ErrorKind};

pub(super) use certificate::SelfSigned;

/// The context of a handshake that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handshake<'a> {
    pub(super) provider: &'a CryptoProvider,
    /// The peer's request for a client certificate, if it sent one.
    pub(super) asked: Option<&'a Asked>,
}

/// Returns the TLS failure behind a failed read or write; `None` if TLS is not the cause.
pub(crate) fn tls_failure(error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?;
    // An `ExplainedStream` has already described the error with the context of its handshake.
    inner.downcast_ref::<Error>().cloned().or_else(|| inner.downcast_ref::<TlsError>().map(|tls| failure(tls, None)))
}

/// Returns the TLS failure behind a failed handshake, or behind a failure after one; `None` if TLS
/// is not the cause.
pub(super) fn handshake_failure(error: &io::Error, handshake: &Handshake<'_>) -> Option<Error> {
    error.get_ref()?.downcast_ref::<TlsError>().map(|tls| failure(tls, Some(handshake)))
}

/// Returns the reason why a certificate of the configuration cannot be used.
pub(super) fn certificate_described(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => certificate::text(error),
        error => text(error, None),
    }
}

/// Returns the text of a rustls error.
pub(crate) fn described(error: &TlsError) -> String {
    text(error, None)
}

/// Returns the error for a TLS failure. Its kind is `Authentication`, like in Java, because trying
/// again does not help.
fn failure(error: &TlsError, handshake: Option<&Handshake<'_>>) -> Error {
    Error::new(ErrorKind::Authentication, format!("TLS: {}", text(error, handshake))).with_source(error.clone())
}

fn text(error: &TlsError, handshake: Option<&Handshake<'_>>) -> String {
    match error {
        TlsError::InvalidCertificate(error) => {
            format!("the peer's certificate is not accepted: {}", certificate::text(error))
        }
        TlsError::AlertReceived(alert) => alert::text(*alert, handshake),
        TlsError::PeerIncompatible(error) => peer::incompatible(error, handshake),
        TlsError::PeerMisbehaved(error) => peer::misbehaved(error),
        TlsError::InvalidMessage(error) => peer::invalid(error),
        TlsError::InappropriateMessage { .. } | TlsError::InappropriateHandshakeMessage { .. } => {
            peer::broke("a TLS message came out of order")
        }
        TlsError::DecryptError => peer::broke("a message cannot be decrypted: bytes were changed on their way"),
        TlsError::PeerSentOversizedRecord => peer::broke("a record is larger than TLS allows"),
        TlsError::NoCertificatesPresented => {
            "the peer shows no certificate: its listener has no key store (ssl.keystore.* of the broker)".to_owned()
        }
        TlsError::UnsupportedNameType => {
            "the peer's certificate cannot be verified against this kind of host name; connect by a DNS name or an IP \
             address"
                .to_owned()
        }
        TlsError::NoApplicationProtocol => {
            "the peer requires another protocol above TLS (ALPN): it is not a Kafka listener".to_owned()
        }
        TlsError::InvalidCertRevocationList(_) => {
            "a certificate revocation list cannot be used; this client reads none by itself".to_owned()
        }
        TlsError::InvalidEncryptedClientHello(_) => {
            "the encrypted client hello cannot be used; this client configures none".to_owned()
        }
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the key does not belong to the certificate".to_owned()
        }
        TlsError::InconsistentKeys(_) => {
            "the crypto provider cannot tell whether key and certificate belong together".to_owned()
        }
        TlsError::FailedToGetCurrentTime => "the system has no clock, which verifying certificates needs".to_owned(),
        TlsError::FailedToGetRandomBytes => "the system provides no random numbers".to_owned(),
        TlsError::EncryptError | TlsError::HandshakeNotComplete | TlsError::BadMaxFragmentSize => {
            "this client used TLS wrongly; please report it".to_owned()
        }
        // The text comes from the crypto provider, which may be the user's own.
        TlsError::General(words) => format!("the crypto provider failed: {}", clean(words)),
        TlsError::Other(error) => format!("the crypto provider failed: {}", clean(&error.0.to_string())),
        _ => "it failed in a way that this version of the client cannot describe".to_owned(),
    }
}

/// Describes the algorithms that this client offers, and the kinds of keys that the peer may have.
fn offer(provider: &CryptoProvider) -> String {
    let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| suite_name(suite.suite())).collect();
    let groups: Vec<_> = provider.kx_groups.iter().map(|group| group_name(group.name())).collect();
    format!(
        "the built-in crypto provider supports peers with the keys {BUILT_IN_KEYS}; for others (P-521, RSASSA-PSS, DSA), set a \
         provider with `Tls::crypto_provider`. This client offers the cipher suites {}; the groups {}; the \
         signature schemes {}",
        suites.join(", "),
        groups.join(", "),
        schemes(&provider.signature_verification_algorithms.supported_schemes()),
    )
}

fn group_name(group: NamedGroup) -> String {
    group.as_str().map_or_else(|| format!("{:#06x}", u16::from(group)), str::to_owned)
}

fn suite_name(suite: CipherSuite) -> String {
    suite.as_str().map_or_else(|| format!("{:#06x}", u16::from(suite)), str::to_owned)
}

fn schemes(schemes: &[SignatureScheme]) -> String {
    let name = |scheme: &SignatureScheme| {
        scheme.as_str().map_or_else(|| format!("{:#06x}", u16::from(*scheme)), str::to_owned)
    };
    schemes.iter().take(32).map(name).collect::<Vec<_>>().join(", ")
}

/// Cleans a text from outside: replaces control characters, which could act on a terminal or a log,
/// and cuts it after 300 characters.
fn clean(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect()
}
