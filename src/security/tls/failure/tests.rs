//! Each variant of each error has its own text, and none shows its `Debug` output.

use std::{fmt::Debug, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, CertRevocationListError, CertificateError, ContentType, EncryptedClientHelloError,
    ExtendedKeyPurpose, HandshakeType, InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved,
    crypto::KeyExchangeAlgorithm,
    pki_types::{ServerName, UnixTime},
};

use super::*;
use crate::security::tls::{client_certificate::Answer, key_kind::KeyKind, verify::UnusableKey};

/// Returns the text of an error, and checks that it contains neither the variant's name nor its
/// fields in the form of `Debug`.
fn says(error: impl Into<TlsError>, variant: impl Debug) -> String {
    let error = error.into();
    let said = text(&error, None);
    let debug = format!("{variant:?}");
    let name = debug.split(['(', ' ', '{']).next().unwrap();
    assert!(!said.contains(name), "{name} is in: {said}");
    for mark in ["Some(", "Context", "OtherError", " { ", "DnsName", "Unknown(", "\""] {
        assert!(!said.contains(mark), "{mark} is in: {said}");
    }
    assert!(said.len() > 20 && !said.contains("cannot describe"), "{debug}: {said}");
    said
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

const SHA1: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05, 0x05, 0x00];
const P521: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

#[test]
fn every_certificate_error_has_specific_text() {
    use CertificateError as Error;
    let name = || ServerName::try_from("broker.example").unwrap();
    #[allow(deprecated)]
    let old = Error::UnsupportedSignatureAlgorithm;
    for (error, part) in [
        (Error::BadEncoding, "DER"),
        (Error::Expired, "expired"),
        (Error::ExpiredContext { time: at(1_706_745_601), not_after: at(1_706_745_600) }, "2024-02-01 00:00:00 UTC"),
        (Error::NotValidYet, "clock"),
        (Error::NotValidYetContext { time: at(1), not_before: at(1_706_745_600) }, "2024-02-01"),
        (Error::Revoked, "revoked"),
        (Error::UnhandledCriticalExtension, "critical extension"),
        (Error::UnknownIssuer, "ssl.ca.location"),
        (Error::UnknownRevocationStatus, "revoked"),
        (Error::ExpiredRevocationList, "too old"),
        (Error::ExpiredRevocationListContext { time: at(2), next_update: at(1) }, "too old"),
        (Error::BadSignature, "wrong"),
        (old, "algorithm"),
        (
            Error::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: SHA1.to_vec(),
                supported_algorithms: Vec::new(),
            },
            "sha1WithRSAEncryption",
        ),
        (
            Error::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: SHA1.to_vec(),
                public_key_algorithm_id: P521.to_vec(),
            },
            "EC on the curve P-521",
        ),
        (Error::NotValidForName, "subjectAltName"),
        (
            Error::NotValidForNameContext { expected: name(), presented: Vec::new() },
            "subjectAltName=DNS:broker.example",
        ),
        (
            Error::NotValidForNameContext {
                expected: ServerName::try_from("192.0.2.1").unwrap(),
                presented: vec!["DnsName(\"a.example\u{1b}[2J\")".to_owned(), "IpAddress(192.0.2.2)".to_owned()],
            },
            "a.example?[2J, 192.0.2.2, and not for 192.0.2.1; connect by one of these names, reissue it with \
             subjectAltName=IP:192.0.2.1",
        ),
        (Error::InvalidPurpose, "serverAuth"),
        (
            Error::InvalidPurposeContext {
                required: ExtendedKeyPurpose::ServerAuth,
                presented: vec![ExtendedKeyPurpose::ClientAuth, ExtendedKeyPurpose::Other(vec![1, 3, 6])],
            },
            "it has clientAuth, 1.3.6",
        ),
        (Error::InvalidOcspResponse, "OCSP"),
        (Error::ApplicationVerificationFailure, "application"),
        (Error::Other(OtherError(Arc::new(UnusableKey(KeyKind::Rsa { bits: 1024 })))), "RSA of 1024 bits"),
        (Error::Other(OtherError(Arc::new(SelfSigned))), "signs itself"),
    ] {
        let said = says(error.clone(), error);
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

#[test]
fn every_webpki_error_has_specific_text() {
    use webpki::Error;
    let signature = || webpki::UnsupportedSignatureAlgorithmContext {
        signature_algorithm_id: SHA1.to_vec(),
        supported_algorithms: Vec::new(),
    };
    let key = || webpki::UnsupportedSignatureAlgorithmForPublicKeyContext {
        signature_algorithm_id: SHA1.to_vec(),
        public_key_algorithm_id: P521.to_vec(),
    };
    let name =
        webpki::InvalidNameContext { expected: ServerName::try_from("b.example").unwrap(), presented: Vec::new() };
    #[allow(deprecated)]
    let old = [
        Error::RequiredEkuNotFound,
        Error::UnsupportedSignatureAlgorithm,
        Error::UnsupportedSignatureAlgorithmForPublicKey,
        Error::UnsupportedCrlSignatureAlgorithm,
        Error::UnsupportedCrlSignatureAlgorithmForPublicKey,
    ];
    let errors = [
        Error::BadDer,
        Error::BadDerTime,
        Error::CaUsedAsEndEntity,
        Error::CertDistrusted,
        Error::CertExpired { time: at(2), not_after: at(1) },
        Error::CertNotValidForName(name),
        Error::CertNotValidYet { time: at(1), not_before: at(2) },
        Error::CertRevoked,
        Error::CrlExpired { time: at(2), next_update: at(1) },
        Error::EmptyEkuExtension,
        Error::EndEntityUsedAsCa,
        Error::ExtensionValueInvalid,
        Error::InvalidCertValidity,
        Error::InvalidCrlNumber,
        Error::InvalidNetworkMaskConstraint,
        Error::InvalidSerialNumber,
        Error::InvalidCrlSignatureForPublicKey,
        Error::InvalidSignatureForPublicKey,
        Error::IssuerNotCrlSigner,
        Error::MalformedDnsIdentifier,
        Error::MalformedExtensions,
        Error::MalformedNameConstraint,
        Error::MaximumNameConstraintComparisonsExceeded,
        Error::MaximumPathBuildCallsExceeded,
        Error::MaximumPathDepthExceeded,
        Error::MaximumSignatureChecksExceeded,
        Error::NameConstraintViolation,
        Error::PathLenConstraintViolated,
        Error::SignatureAlgorithmMismatch,
        Error::TrailingData(webpki::DerTypeId::Certificate),
        Error::UnknownIssuer,
        Error::UnknownRevocationStatus,
        Error::UnsupportedCertVersion,
        Error::UnsupportedCriticalExtension,
        Error::UnsupportedCrlIssuingDistributionPoint,
        Error::UnsupportedCrlVersion,
        Error::UnsupportedDeltaCrl,
        Error::UnsupportedIndirectCrl,
        Error::UnsupportedNameType,
        Error::UnsupportedRevocationReason,
        Error::UnsupportedRevocationReasonsPartitioning,
        Error::UnsupportedCrlSignatureAlgorithmContext(signature()),
        Error::UnsupportedSignatureAlgorithmContext(signature()),
        Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(key()),
        Error::UnsupportedSignatureAlgorithmForPublicKeyContext(key()),
    ];
    for error in errors.into_iter().chain(old) {
        says(CertificateError::Other(OtherError(Arc::new(error.clone()))), error);
    }
}

#[test]
fn every_peer_error_has_specific_text() {
    use PeerMisbehaved as Why;
    for why in [
        Why::AttemptedDowngradeToTls12WhenTls13IsSupported,
        Why::BadCertChainExtensions,
        Why::CipherSuiteDifferedOnRetry,
        Why::DisallowedEncryptedExtension,
        Why::DuplicateClientHelloExtensions,
        Why::DuplicateEncryptedExtensions,
        Why::DuplicateHelloRetryRequestExtensions,
        Why::DuplicateNewSessionTicketExtensions,
        Why::DuplicateServerHelloExtensions,
        Why::DuplicateServerNameTypes,
        Why::EarlyDataAttemptedInSecondClientHello,
        Why::EarlyDataExtensionWithoutResumption,
        Why::EarlyDataOfferedWithVariedCipherSuite,
        Why::EchAcceptanceVariedAfterRetry,
        Why::HandshakeHashVariedAfterRetry,
        Why::IllegalHelloRetryRequestWithEmptyCookie,
        Why::IllegalHelloRetryRequestWithNoChanges,
        Why::IllegalHelloRetryRequestWithOfferedGroup,
        Why::IllegalHelloRetryRequestWithUnofferedCipherSuite,
        Why::IllegalHelloRetryRequestWithUnofferedNamedGroup,
        Why::IllegalHelloRetryRequestWithUnsupportedVersion,
        Why::IllegalHelloRetryRequestWithWrongSessionId,
        Why::IllegalHelloRetryRequestWithInvalidEch,
        Why::IllegalMiddleboxChangeCipherSpec,
        Why::IllegalTlsInnerPlaintext,
        Why::IncorrectBinder,
        Why::InvalidCertCompression,
        Why::InvalidMaxEarlyDataSize,
        Why::InvalidKeyShare,
        Why::KeyEpochWithPendingFragment,
        Why::KeyUpdateReceivedInQuicConnection,
        Why::MessageInterleavedWithHandshakeMessage,
        Why::MissingBinderInPskExtension,
        Why::MissingKeyShare,
        Why::MissingPskExtensionInSecondClientHello,
        Why::MissingPskModesExtension,
        Why::MissingQuicTransportParameters,
        Why::OfferedDuplicateCertificateCompressions,
        Why::OfferedDuplicateKeyShares,
        Why::OfferedEarlyDataWithOldProtocolVersion,
        Why::OfferedEmptyApplicationProtocol,
        Why::OfferedIncorrectCompressions,
        Why::PskExtensionMustBeLast,
        Why::PskExtensionWithMismatchedIdsAndBinders,
        Why::RefusedToFollowHelloRetryRequest,
        Why::RejectedEarlyDataInterleavedWithHandshakeMessage,
        Why::ResumptionAttemptedWithVariedEms,
        Why::ResumptionOfferedWithVariedCipherSuite,
        Why::ResumptionOfferedWithVariedEms,
        Why::ResumptionOfferedWithIncompatibleCipherSuite,
        Why::SelectedDifferentCipherSuiteAfterRetry,
        Why::SelectedInvalidPsk,
        Why::SelectedTls12UsingTls13VersionExtension,
        Why::SelectedUnofferedApplicationProtocol,
        Why::SelectedUnofferedCertCompression,
        Why::SelectedUnofferedCipherSuite,
        Why::SelectedUnofferedCompression,
        Why::SelectedUnofferedKxGroup,
        Why::SelectedUnofferedPsk,
        Why::SelectedUnusableCipherSuiteForVersion,
        Why::ServerEchoedCompatibilitySessionId,
        Why::ServerHelloMustOfferUncompressedEcPoints,
        Why::ServerNameDifferedOnRetry,
        Why::ServerNameMustContainOneHostName,
        Why::SignedKxWithWrongAlgorithm,
        Why::SignedHandshakeWithUnadvertisedSigScheme,
        Why::TooManyEmptyFragments,
        Why::TooManyKeyUpdateRequests,
        Why::TooManyRenegotiationRequests,
        Why::TooManyWarningAlertsReceived,
        Why::TooMuchEarlyDataReceived,
        Why::UnexpectedCleartextExtension,
        Why::UnsolicitedCertExtension,
        Why::UnsolicitedEncryptedExtension,
        Why::UnsolicitedSctList,
        Why::UnsolicitedServerHelloExtension,
        Why::WrongGroupForKeyShare,
        Why::UnsolicitedEchExtension,
    ] {
        says(why.clone(), why);
    }
    use PeerIncompatible as Lacks;
    for lacks in [
        Lacks::EcPointsExtensionRequired,
        Lacks::ExtendedMasterSecretExtensionRequired,
        Lacks::IncorrectCertificateTypeExtension,
        Lacks::KeyShareExtensionRequired,
        Lacks::NamedGroupsExtensionRequired,
        Lacks::NoCertificateRequestSignatureSchemesInCommon,
        Lacks::NoCipherSuitesInCommon,
        Lacks::NoEcPointFormatsInCommon,
        Lacks::NoKxGroupsInCommon,
        Lacks::NoSignatureSchemesInCommon,
        Lacks::NullCompressionRequired,
        Lacks::ServerDoesNotSupportTls12Or13,
        Lacks::ServerSentHelloRetryRequestWithUnknownExtension,
        Lacks::ServerTlsVersionIsDisabledByOurConfig,
        Lacks::SignatureAlgorithmsExtensionRequired,
        Lacks::SupportedVersionsExtensionRequired,
        Lacks::Tls12NotOffered,
        Lacks::Tls12NotOfferedOrEnabled,
        Lacks::Tls13RequiredForQuic,
        Lacks::UncompressedEcPointsRequired,
        Lacks::UnsolicitedCertificateTypeExtension,
        Lacks::ServerRejectedEncryptedClientHello(None),
    ] {
        says(lacks.clone(), lacks);
    }
}

#[test]
fn every_message_error_has_specific_text() {
    for message in [
        InvalidMessage::CertificatePayloadTooLarge,
        InvalidMessage::HandshakePayloadTooLarge,
        InvalidMessage::InvalidCcs,
        InvalidMessage::InvalidContentType,
        InvalidMessage::InvalidCertificateStatusType,
        InvalidMessage::InvalidCertRequest,
        InvalidMessage::InvalidDhParams,
        InvalidMessage::InvalidEmptyPayload,
        InvalidMessage::InvalidKeyUpdate,
        InvalidMessage::InvalidServerName,
        InvalidMessage::MessageTooLarge,
        InvalidMessage::MessageTooShort,
        InvalidMessage::MissingData("x"),
        InvalidMessage::MissingKeyExchange,
        InvalidMessage::NoSignatureSchemes,
        InvalidMessage::TrailingData("x"),
        InvalidMessage::UnexpectedMessage("x"),
        InvalidMessage::UnknownProtocolVersion,
        InvalidMessage::UnsupportedCompression,
        InvalidMessage::UnsupportedCurveType,
        InvalidMessage::UnsupportedKeyExchangeAlgorithm(KeyExchangeAlgorithm::DHE),
        InvalidMessage::EmptyTicketValue,
        InvalidMessage::IllegalEmptyList("x"),
        InvalidMessage::IllegalEmptyValue,
        InvalidMessage::DuplicateExtension(1),
        InvalidMessage::PreSharedKeyIsNotFinalExtension,
        InvalidMessage::UnknownHelloRetryRequestExtension,
        InvalidMessage::UnknownCertificateExtension,
    ] {
        says(message, message);
    }
}

#[test]
fn remaining_tls_errors_have_clean_texts() {
    for error in [
        TlsError::InappropriateMessage { expect_types: vec![ContentType::Alert], got_type: ContentType::Heartbeat },
        TlsError::InappropriateHandshakeMessage {
            expect_types: vec![HandshakeType::Finished],
            got_type: HandshakeType::ServerHello,
        },
        TlsError::InvalidEncryptedClientHello(EncryptedClientHelloError::SniRequired),
        TlsError::NoCertificatesPresented,
        TlsError::UnsupportedNameType,
        TlsError::DecryptError,
        TlsError::EncryptError,
        TlsError::InvalidCertRevocationList(CertRevocationListError::ParseError),
        TlsError::General("out of\u{7} order".to_owned()),
        TlsError::FailedToGetCurrentTime,
        TlsError::FailedToGetRandomBytes,
        TlsError::HandshakeNotComplete,
        TlsError::PeerSentOversizedRecord,
        TlsError::NoApplicationProtocol,
        TlsError::BadMaxFragmentSize,
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch),
        TlsError::InconsistentKeys(InconsistentKeys::Unknown),
        TlsError::Other(OtherError(Arc::new(io::Error::other("the token was\u{1b} unplugged")))),
    ] {
        let said = says(error.clone(), error);
        assert!(!said.contains(char::is_control), "{said}");
    }
}

#[test]
fn every_tls_alert_has_specific_text() {
    let mut named = 0;
    for number in 0..=255 {
        let alert = AlertDescription::from(number);
        let said = text(&TlsError::AlertReceived(alert), None);
        assert!(!said.contains(&format!("{alert:?}")) && said.len() > 40, "{said}");
        named += usize::from(!said.contains(&format!(" {number}: ")));
    }
    assert_eq!(named, 35);
}

#[test]
fn alert_text_depends_on_certificate_request() {
    let provider = rustls_graviola::default_provider();
    let said = |alert, asked: Option<&Asked>| {
        text(&TlsError::AlertReceived(alert), Some(&Handshake { provider: &provider, asked }))
    };
    let asked =
        |answer| Asked { schemes: vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::Unknown(0x0809)], answer };
    for alert in [
        AlertDescription::HandshakeFailure,
        AlertDescription::BadCertificate,
        AlertDescription::CertificateRequired,
        AlertDescription::CertificateUnknown,
    ] {
        assert!(said(alert, Some(&asked(Answer::NoneConfigured))).contains("none is configured"));
        let kind = said(alert, Some(&asked(Answer::NoCommonScheme("Ed25519".to_owned()))));
        assert!(kind.contains("which is Ed25519: it accepts RSA_PSS_SHA256, 0x0809."), "{kind}");
        assert!(!said(alert, Some(&asked(Answer::Shown))).contains("configured"));
    }
    let common = said(AlertDescription::HandshakeFailure, None);
    assert!(common.contains("TLS13_AES_256_GCM_SHA384") && common.contains("X25519"), "{common}");
    assert!(!said(AlertDescription::UnknownCA, Some(&asked(Answer::NoneConfigured))).contains("none is configured"));
}
