//! Texts of certificates that are not accepted.

use std::{fmt, time::Duration, time::UNIX_EPOCH};

use rustls::{
    CertificateError,
    pki_types::{ServerName, UnixTime},
};

use super::clean;
use crate::security::{
    time,
    tls::{key_kind::BUILT_IN_KEYS, names, verify::UnusableKey},
};

/// The error of a self-signed certificate that is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct SelfSigned;

impl fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it signs itself and is not trusted")
    }
}

impl std::error::Error for SelfSigned {}

const OFF: &str = "ssl.endpoint.identification.algorithm= (empty) leaves names unchecked";
const BAD_ENCODING: &str = "it is malformed (not X.509 in DER)";
const NO_WORDS: &str = "for a reason that this version of the client cannot describe";

pub(super) fn text(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "it was not issued by an authority that is trusted here (ssl.ca.location, ssl.truststore.*), or the peer does not \
             send the certificates between the two"
                .to_owned()
        }
        CertificateError::Expired => "it has expired; the peer needs a new one".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "it, or one above it, expired on {}; by this machine's clock it is {}",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYet => "it is not valid yet; is this machine's clock right?".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "it is not valid before {}; by this machine's clock it is {}: is that right?",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForName => {
            format!("it was issued for another host name; connect by a name in its subjectAltName, or {OFF}")
        }
        CertificateError::NotValidForNameContext { expected, presented } => of_name(expected, presented),
        CertificateError::InvalidPurpose => {
            "its extended key usage does not allow servers (serverAuth is missing); it must be reissued".to_owned()
        }
        CertificateError::InvalidPurposeContext { presented, .. } => format!(
            "its extended key usage does not allow servers (serverAuth is missing; it has {}); it must be reissued",
            match presented.as_slice() {
                [] => "none".to_owned(),
                some => some.iter().take(8).map(purpose).collect::<Vec<_>>().join(", "),
            }
        ),
        #[allow(deprecated)]
        CertificateError::UnsupportedSignatureAlgorithm => {
            "a signature in its chain is of an algorithm that the crypto provider does not verify".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => format!(
            "a signature in its chain is of the algorithm {}, which the crypto provider does not verify (SHA-1 and MD5 are \
             no longer safe); reissue the chain with SHA-256, or set a provider that verifies it with \
             `Tls::crypto_provider`",
            names::algorithm(signature_algorithm_id)
        ),
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            public_key_algorithm_id,
        } => format!(
            "a signature in its chain ({}) was made with a key that is {}, which the crypto provider does not support; \
             the built-in one supports {BUILT_IN_KEYS}. Reissue the chain, or set a provider that supports it with \
             `Tls::crypto_provider`",
            names::algorithm(signature_algorithm_id),
            names::algorithm(public_key_algorithm_id)
        ),
        CertificateError::BadSignature => {
            "a signature is wrong: its chain is not what it claims to be, or the peer does not have its key".to_owned()
        }
        CertificateError::BadEncoding => BAD_ENCODING.to_owned(),
        CertificateError::UnhandledCriticalExtension => UNKNOWN_EXTENSION.to_owned(),
        CertificateError::Revoked => "it was revoked; the peer needs a new one".to_owned(),
        CertificateError::UnknownRevocationStatus => "it is unknown whether it was revoked".to_owned(),
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the list of revoked certificates is too old".to_owned()
        }
        CertificateError::InvalidOcspResponse => "the proof that it was not revoked (OCSP) is wrong".to_owned(),
        CertificateError::ApplicationVerificationFailure => "the application does not accept it".to_owned(),
        CertificateError::Other(other) => {
            let other = &other.0;
            if let Some(error) = other.downcast_ref::<webpki::Error>() {
                return of_webpki(error);
            }
            if let Some(UnusableKey(kind)) = other.downcast_ref() {
                return format!(
                    "its key, or that of an authority above it, is {kind}, which the crypto provider does not support; the \
                     built-in one supports {BUILT_IN_KEYS}. Reissue it with such a key, or set a provider that supports \
                     this one with `Tls::crypto_provider`"
                );
            }
            if other.downcast_ref::<SelfSigned>().is_some() {
                return "it signs itself; to trust it, add this certificate itself to ssl.ca.location (ssl.truststore.*)".to_owned();
            }
            clean(&other.to_string())
        }
        _ => NO_WORDS.to_owned(),
    }
}

fn date(time: UnixTime) -> String {
    UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs())).map_or_else(|| "never".to_owned(), time::shown)
}

fn of_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let expected_text = clean(&expected.to_str());
    let entry = match expected {
        ServerName::IpAddress(_) => "IP",
        _ => "DNS",
    };
    let needed = format!("subjectAltName={entry}:{expected_text}");
    if presented.is_empty() {
        return format!(
            "it names no host in its subjectAltName; a name in its subject alone (CN) does not count. Reissue it with \
             {needed}, or {OFF}"
        );
    }
    let names: Vec<_> = presented.iter().take(8).map(|name| presented_name(name)).collect();
    let more = if presented.len() > names.len() { ", …" } else { "" };
    format!(
        "it was issued for {}{more}, and not for {expected_text}; connect by one of these names, reissue it with {needed}, or \
         {OFF}",
        names.join(", ")
    )
}

/// Extracts a name from webpki's form, which is its `Debug` output: `DnsName("broker")`.
fn presented_name(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')')).unwrap_or(name);
    clean(inner.trim_matches('"'))
}

fn purpose(purpose: &rustls::ExtendedKeyPurpose) -> String {
    match purpose {
        rustls::ExtendedKeyPurpose::ClientAuth => "clientAuth".to_owned(),
        rustls::ExtendedKeyPurpose::ServerAuth => "serverAuth".to_owned(),
        rustls::ExtendedKeyPurpose::Other(arcs) => {
            arcs.iter().take(16).map(ToString::to_string).collect::<Vec<_>>().join(".")
        }
    }
}

const UNKNOWN_EXTENSION: &str =
    "it has a critical extension that this client does not know; reissue it without the extension";
const TOO_COMPLEX: &str = "its chain is too long or too branched to be verified; the peer sends too many certificates";
const REVOCATION: &str = "a list of revoked certificates cannot be used; this client reads none by itself";
const CONSTRAINT: &str = "an authority above it limits the names for which it may be issued, and it has others, or the limits are \
                          malformed";

fn of_webpki(error: &webpki::Error) -> String {
    use webpki::Error;
    match error {
        Error::CaUsedAsEndEntity => {
            "it is a certificate of an authority (basicConstraints CA:TRUE), which no peer may send; reissue it with CA:FALSE, \
             or add this certificate itself to the trusted ones (ssl.ca.location, ssl.truststore.*)"
        }
        Error::EndEntityUsedAsCa => {
            "a certificate above it is not of an authority (basicConstraints CA:TRUE is missing), and must not issue any"
        }
        Error::UnsupportedCertVersion => {
            "it is X.509 of version 1, which has no extensions and so no subjectAltName; reissue it in version 3 (`openssl x509 \
             -req -extfile …` with subjectAltName), or add this certificate itself to the trusted ones and leave names unchecked \
             (ssl.endpoint.identification.algorithm= empty)"
        }
        Error::UnsupportedCriticalExtension => UNKNOWN_EXTENSION,
        Error::PathLenConstraintViolated => {
            "an authority above it allows fewer authorities below itself than there are (pathlen)"
        }
        Error::NameConstraintViolation
        | Error::MalformedNameConstraint
        | Error::InvalidNetworkMaskConstraint
        | Error::UnsupportedNameType => CONSTRAINT,
        Error::MaximumNameConstraintComparisonsExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumSignatureChecksExceeded => TOO_COMPLEX,
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => BAD_ENCODING,
        Error::MalformedExtensions | Error::ExtensionValueInvalid => "an extension of it is malformed; it must be reissued",
        Error::EmptyEkuExtension => "its extended key usage is empty; it must be reissued with serverAuth, or without an extended key usage",
        Error::MalformedDnsIdentifier => "a DNS name in its subjectAltName is malformed; it must be reissued",
        Error::InvalidSerialNumber => "its serial number is malformed; it must be reissued",
        Error::InvalidCertValidity => "it expires before it becomes valid; it must be reissued",
        Error::SignatureAlgorithmMismatch => {
            "it names two different algorithms for one signature; it must be reissued"
        }
        Error::CertDistrusted => "an authority above it is no longer trusted",
        Error::CertRevoked
        | Error::CrlExpired { .. }
        | Error::InvalidCrlNumber
        | Error::InvalidCrlSignatureForPublicKey
        | Error::IssuerNotCrlSigner
        | Error::UnknownRevocationStatus
        | Error::UnsupportedCrlIssuingDistributionPoint
        | Error::UnsupportedCrlVersion
        | Error::UnsupportedDeltaCrl
        | Error::UnsupportedIndirectCrl
        | Error::UnsupportedRevocationReason
        | Error::UnsupportedRevocationReasonsPartitioning
        | Error::UnsupportedCrlSignatureAlgorithmContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => REVOCATION,
        Error::CertExpired { time, not_after } => {
            return text(&CertificateError::ExpiredContext { time: *time, not_after: *not_after });
        }
        Error::CertNotValidYet { time, not_before } => {
            return text(&CertificateError::NotValidYetContext { time: *time, not_before: *not_before });
        }
        Error::CertNotValidForName(name) => return of_name(&name.expected, &name.presented),
        Error::InvalidSignatureForPublicKey => return text(&CertificateError::BadSignature),
        Error::RequiredEkuNotFoundContext(_) => return text(&CertificateError::InvalidPurpose),
        Error::UnknownIssuer => return text(&CertificateError::UnknownIssuer),
        Error::UnsupportedSignatureAlgorithmContext(algorithms) => {
            return text(&CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: algorithms.signature_algorithm_id.clone(),
                supported_algorithms: Vec::new(),
            });
        }
        Error::UnsupportedSignatureAlgorithmForPublicKeyContext(algorithms) => {
            return text(&CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: algorithms.signature_algorithm_id.clone(),
                public_key_algorithm_id: algorithms.public_key_algorithm_id.clone(),
            });
        }
        #[allow(deprecated)]
        Error::RequiredEkuNotFound => return text(&CertificateError::InvalidPurpose),
        #[allow(deprecated)]
        Error::UnsupportedSignatureAlgorithm | Error::UnsupportedSignatureAlgorithmForPublicKey => {
            return text(&CertificateError::UnsupportedSignatureAlgorithm);
        }
        #[allow(deprecated)]
        Error::UnsupportedCrlSignatureAlgorithm | Error::UnsupportedCrlSignatureAlgorithmForPublicKey => REVOCATION,
        _ => NO_WORDS,
    }
    .to_owned()
}
