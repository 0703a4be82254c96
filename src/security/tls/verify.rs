//! Verification of a broker's certificate.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::ParsedCertificate,
};
use webpki::RawPublicKeyEntity;

use super::{certificate::Certificate, failure::SelfSigned, key_kind::KeyKind, trust::Trust};

/// Verifies the chain and the host name, the chain alone, or only that the broker has the key of
/// its certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    /// The trusted certificates; `None` accepts any certificate.
    pub(super) trust: Option<Trust>,
    pub(super) host_name: bool,
    pub(super) provider: Arc<CryptoProvider>,
}

/// The error of a chain that has a key which the crypto provider does not support.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnusableKey(pub(super) KeyKind);

impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its key, or that of an authority above it, is {}", self.0)
    }
}

impl std::error::Error for UnusableKey {}

impl Verifier {
    /// Verifies the chain. A trusted certificate is a trust anchor: as in Java, it needs no issuer,
    /// and its extensions do not limit its use. Unlike in Java, it expires.
    fn verify_chain(
        &self,
        trust: &Trust,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if trust.holds(end_entity) {
            let certificate = Certificate::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
            return Ok(certificate.valid_at(now)?);
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified =
            verify_server_cert_signed_by_trust_anchor(&certificate, &trust.anchors, intermediates, now, algorithms);
        verified.map_err(|error| {
            let chain: Vec<_> =
                [end_entity].into_iter().chain(intermediates).filter_map(|der| Certificate::parse(der)).collect();
            let issuer_of_one = |root: &Certificate<'_>| chain.iter().any(|one| one.issuer == root.subject);
            let roots = trust.certificates().iter().filter_map(|der| Certificate::parse(der)).filter(issuer_of_one);
            explained(error, chain.iter().copied().chain(roots))
        })
    }

    /// Returns the key that the broker must have, as webpki reads it. Certificates that webpki does
    /// not read get here only if they are trusted themselves, or if any certificate is accepted.
    fn key_of(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
        match ParsedCertificate::try_from(certificate) {
            Ok(parsed) => Ok(parsed.subject_public_key_info()),
            Err(_) => {
                let certificate = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
                Ok(certificate.key.to_vec().into())
            }
        }
    }
}

/// Replaces two misleading errors: a signature by an unsupported key is reported as wrong, and the
/// issuer of a self-signed certificate is reported as unknown. The chain begins with the peer's own
/// certificate.
fn explained<'a>(error: Error, mut chain: impl Iterator<Item = Certificate<'a>>) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            let unusable = chain.find_map(|one| KeyKind::of_public_key(one.key).filter(|kind| !kind.is_built_in()));
            unusable.map_or(error, |kind| CertificateError::Other(OtherError(Arc::new(UnusableKey(kind)))).into())
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
            if chain.next().is_some_and(|own| own.issuer == own.subject) =>
        {
            CertificateError::Other(OtherError(Arc::new(SelfSigned))).into()
        }
        error => error,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trust) = &self.trust {
            self.verify_chain(trust, end_entity, intermediates, now)?;
            if self.host_name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Self::key_of(certificate)?;
        let entity = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let mapping = self.provider.signature_verification_algorithms.mapping;
        let (_, algorithms) = mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // In TLS 1.2 a scheme does not determine the curve, so all algorithms of the scheme are
        // tried.
        let valid = algorithms.iter().any(|one| entity.verify_signature(*one, message, signed.signature()).is_ok());
        match valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(explained(CertificateError::BadSignature.into(), Certificate::parse(certificate).into_iter())),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Self::key_of(certificate)?;
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
            .map_err(|error| explained(error, Certificate::parse(certificate).into_iter()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
