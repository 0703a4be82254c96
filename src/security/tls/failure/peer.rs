//! Texts of failures caused by peers without TLS, or with TLS that is incompatible with this
//! client.

use rustls::{InvalidMessage, PeerIncompatible, PeerMisbehaved};

use super::{Handshake, offer};

/// Returns the text for a peer that violates the TLS protocol.
pub(super) fn broke(why: &str) -> String {
    format!(
        "the peer violates the TLS protocol: {why}. This is a fault of its TLS, or of a device in between (proxy, firewall); the \
         peer's log may say more"
    )
}

const NO_TLS: &str = "the peer does not answer in TLS: it is a listener without TLS (set security.protocol to PLAINTEXT or \
                      SASL_PLAINTEXT), or not a Kafka broker";

pub(super) fn invalid(message: &InvalidMessage) -> String {
    broke(match message {
        // rustls reports these for the first bytes of an answer that is not TLS.
        InvalidMessage::InvalidContentType
        | InvalidMessage::UnknownProtocolVersion
        | InvalidMessage::MessageTooLarge
        | InvalidMessage::InvalidEmptyPayload => return NO_TLS.to_owned(),
        InvalidMessage::CertificatePayloadTooLarge => {
            return "the peer's certificate chain is larger than this client accepts; the peer sends too many certificates"
                .to_owned();
        }
        InvalidMessage::HandshakePayloadTooLarge => "a message of the handshake is too large",
        InvalidMessage::InvalidCcs => "a change of ciphers is malformed",
        InvalidMessage::InvalidCertificateStatusType => "the status of its certificate is of an unknown type",
        InvalidMessage::InvalidCertRequest => "its request for a client certificate is malformed",
        InvalidMessage::InvalidDhParams => "its parameters of the key exchange are malformed",
        InvalidMessage::InvalidKeyUpdate => "its update of keys is malformed",
        InvalidMessage::InvalidServerName => "its server name is malformed",
        InvalidMessage::MessageTooShort | InvalidMessage::MissingData(_) => "a message ends too early",
        InvalidMessage::TrailingData(_) => "a message has data after its end",
        InvalidMessage::MissingKeyExchange => "its key exchange is missing",
        InvalidMessage::NoSignatureSchemes => "it names no signature schemes",
        InvalidMessage::UnexpectedMessage(_) => "a message came out of order",
        InvalidMessage::UnsupportedCompression => "it compresses by a method that was not offered",
        InvalidMessage::UnsupportedCurveType => "its key exchange is on a curve of an unknown type",
        InvalidMessage::UnsupportedKeyExchangeAlgorithm(_) => "its key exchange was not offered",
        InvalidMessage::EmptyTicketValue => "its session ticket is empty",
        InvalidMessage::IllegalEmptyList(_) | InvalidMessage::IllegalEmptyValue => "a value is empty that must not be",
        InvalidMessage::DuplicateExtension(_) => "it sent an extension twice",
        InvalidMessage::PreSharedKeyIsNotFinalExtension => "its extensions are out of order",
        InvalidMessage::UnknownHelloRetryRequestExtension => "its request to begin again has an unknown extension",
        InvalidMessage::UnknownCertificateExtension => "its certificate message has an unknown extension",
        _ => "a message is malformed",
    })
}

pub(super) fn incompatible(why: &PeerIncompatible, handshake: Option<&Handshake<'_>>) -> String {
    let offer = || handshake.map_or_else(String::new, |handshake| format!("; {}", offer(handshake.provider)));
    let reason = match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
            "it supports neither TLS 1.2 nor 1.3, and older versions are not safe; add them to its ssl.enabled.protocols"
        }
        PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            "it uses a version of TLS that this client's configuration excludes (ssl.enabled.protocols, ssl.protocol)"
        }
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            return format!("the peer is incompatible with this client: no algorithm is in common{}", offer());
        }
        PeerIncompatible::ExtendedMasterSecretExtensionRequired => {
            "its TLS 1.2 lacks the extended master secret (RFC 7627), without which it is not safe; update its TLS, or let it use \
             TLS 1.3"
        }
        PeerIncompatible::EcPointsExtensionRequired
        | PeerIncompatible::NoEcPointFormatsInCommon
        | PeerIncompatible::UncompressedEcPointsRequired => "it does not take points of curves in uncompressed form",
        PeerIncompatible::KeyShareExtensionRequired
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::NullCompressionRequired => "it leaves out an extension that TLS needs to agree on keys",
        PeerIncompatible::IncorrectCertificateTypeExtension | PeerIncompatible::UnsolicitedCertificateTypeExtension => {
            "it uses keys without certificates (RFC 7250), which this client does not"
        }
        PeerIncompatible::ServerSentHelloRetryRequestWithUnknownExtension => {
            "it asks to begin again with an extension that this client does not know"
        }
        PeerIncompatible::Tls13RequiredForQuic => "it expects QUIC, which Kafka does not use",
        PeerIncompatible::ServerRejectedEncryptedClientHello(_) => "it does not take an encrypted client hello",
        _ => "it needs a feature of TLS that this client does not have",
    };
    format!("the peer is incompatible with this client: {reason}")
}

const ONLY_CLIENTS: &str = "it sent a message or an extension that only clients may send";
const UNOFFERED: &str = "it chose an algorithm or a protocol that this client did not offer";
const RETRY: &str = "its request to begin again is against the rules";
const TWICE: &str = "it sent an extension twice";
const UNASKED: &str = "it sent an extension that was not requested";
const FLOOD: &str = "it sends too many messages without effect";
const RESUMED: &str = "it resumes a session with other parameters than it began";

pub(super) fn misbehaved(why: &PeerMisbehaved) -> String {
    use PeerMisbehaved as Why;
    broke(match why {
        Why::AttemptedDowngradeToTls12WhenTls13IsSupported => {
            "it supports TLS 1.3 but was made to use 1.2: a device in between changes the handshake"
        }
        Why::SignedKxWithWrongAlgorithm | Why::SignedHandshakeWithUnadvertisedSigScheme => {
            "it signs with an algorithm that does not match the cipher suite, or that this client did not offer; a broker's key \
             of another kind (RSA, or EC on P-256) avoids it"
        }
        Why::SelectedUnofferedCipherSuite
        | Why::SelectedUnofferedCompression
        | Why::SelectedUnofferedKxGroup
        | Why::SelectedUnofferedApplicationProtocol
        | Why::SelectedUnofferedCertCompression
        | Why::SelectedUnofferedPsk
        | Why::SelectedInvalidPsk => UNOFFERED,
        Why::SelectedTls12UsingTls13VersionExtension | Why::SelectedUnusableCipherSuiteForVersion => {
            "its TLS version and its cipher suite do not match"
        }
        Why::InvalidKeyShare | Why::MissingKeyShare | Why::WrongGroupForKeyShare => {
            "its half of the key exchange is missing or wrong"
        }
        Why::CipherSuiteDifferedOnRetry
        | Why::SelectedDifferentCipherSuiteAfterRetry
        | Why::HandshakeHashVariedAfterRetry
        | Why::EchAcceptanceVariedAfterRetry
        | Why::IllegalHelloRetryRequestWithEmptyCookie
        | Why::IllegalHelloRetryRequestWithNoChanges
        | Why::IllegalHelloRetryRequestWithOfferedGroup
        | Why::IllegalHelloRetryRequestWithUnofferedCipherSuite
        | Why::IllegalHelloRetryRequestWithUnofferedNamedGroup
        | Why::IllegalHelloRetryRequestWithUnsupportedVersion
        | Why::IllegalHelloRetryRequestWithWrongSessionId
        | Why::IllegalHelloRetryRequestWithInvalidEch => RETRY,
        Why::DuplicateEncryptedExtensions
        | Why::DuplicateHelloRetryRequestExtensions
        | Why::DuplicateNewSessionTicketExtensions
        | Why::DuplicateServerHelloExtensions => TWICE,
        Why::DisallowedEncryptedExtension
        | Why::UnexpectedCleartextExtension
        | Why::UnsolicitedCertExtension
        | Why::UnsolicitedEncryptedExtension
        | Why::UnsolicitedSctList
        | Why::UnsolicitedServerHelloExtension
        | Why::UnsolicitedEchExtension
        | Why::BadCertChainExtensions => UNASKED,
        Why::TooManyEmptyFragments
        | Why::TooManyKeyUpdateRequests
        | Why::TooManyRenegotiationRequests
        | Why::TooManyWarningAlertsReceived
        | Why::TooMuchEarlyDataReceived => FLOOD,
        Why::ResumptionAttemptedWithVariedEms
        | Why::ResumptionOfferedWithVariedCipherSuite
        | Why::ResumptionOfferedWithVariedEms
        | Why::ResumptionOfferedWithIncompatibleCipherSuite
        | Why::EarlyDataExtensionWithoutResumption
        | Why::EarlyDataOfferedWithVariedCipherSuite
        | Why::InvalidMaxEarlyDataSize
        | Why::ServerEchoedCompatibilitySessionId => RESUMED,
        Why::IllegalMiddleboxChangeCipherSpec
        | Why::KeyEpochWithPendingFragment
        | Why::MessageInterleavedWithHandshakeMessage
        | Why::RejectedEarlyDataInterleavedWithHandshakeMessage => "a message came at a point where none is allowed",
        Why::IllegalTlsInnerPlaintext => "an encrypted record is malformed inside",
        Why::InvalidCertCompression => "its compressed certificate cannot be read",
        Why::ServerHelloMustOfferUncompressedEcPoints => "it does not take points of curves in uncompressed form",
        Why::KeyUpdateReceivedInQuicConnection | Why::MissingQuicTransportParameters => {
            "it uses QUIC, which Kafka does not"
        }
        Why::DuplicateClientHelloExtensions
        | Why::DuplicateServerNameTypes
        | Why::EarlyDataAttemptedInSecondClientHello
        | Why::IncorrectBinder
        | Why::MissingBinderInPskExtension
        | Why::MissingPskExtensionInSecondClientHello
        | Why::MissingPskModesExtension
        | Why::OfferedDuplicateCertificateCompressions
        | Why::OfferedDuplicateKeyShares
        | Why::OfferedEarlyDataWithOldProtocolVersion
        | Why::OfferedEmptyApplicationProtocol
        | Why::OfferedIncorrectCompressions
        | Why::PskExtensionMustBeLast
        | Why::PskExtensionWithMismatchedIdsAndBinders
        | Why::RefusedToFollowHelloRetryRequest
        | Why::ServerNameDifferedOnRetry
        | Why::ServerNameMustContainOneHostName => ONLY_CLIENTS,
        _ => "this version of the client cannot describe how",
    })
}
