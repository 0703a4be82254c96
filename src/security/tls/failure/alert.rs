//! Texts of alerts: the codes by which a peer says why it ends TLS.

use rustls::AlertDescription as Alert;

use super::{Handshake, offer, schemes};
use crate::security::tls::client_certificate::Answer;

/// Returns the text of an alert: its name in RFC 8446, and its meaning for this client.
pub(super) fn text(alert: Alert, handshake: Option<&Handshake<'_>>) -> String {
    let (name, meaning) = meaning(alert);
    let why = match (concerns_certificate(alert), handshake) {
        (true, Some(handshake)) => because_of_certificate(handshake),
        _ => None,
    };
    let why = why.or_else(|| match (alert, handshake) {
        (Alert::HandshakeFailure | Alert::InsufficientSecurity, Some(handshake)) if handshake.asked.is_none() => {
            Some(format!("it has no algorithm in common with this client; {}", offer(handshake.provider)))
        }
        _ => None,
    });
    let name = if name.is_empty() { u8::from(alert).to_string() } else { name.to_owned() };
    format!("the peer refused this client with the alert {name}: {}", why.as_deref().unwrap_or(meaning))
}

/// Returns true if peers send the alert for a client certificate that is missing or not accepted.
fn concerns_certificate(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::NoCertificate
            | Alert::HandshakeFailure
            | Alert::InsufficientSecurity
            | Alert::AccessDenied
    )
}

/// Returns the reason why the client sent no certificate, if the peer asked for one.
fn because_of_certificate(handshake: &Handshake<'_>) -> Option<String> {
    let asked = handshake.asked?;
    match &asked.answer {
        Answer::NoneConfigured => Some(
            "it asks for a client certificate, and none is configured (ssl.keystore.*, ssl.certificate.location and \
             ssl.key.location)"
                .to_owned(),
        ),
        Answer::NoCommonScheme(kind) => Some(format!(
            "it asks for a client certificate, but accepts no signature scheme of this client's key, which is {kind}: it \
             accepts {}. Use a key of another kind, or allow its scheme at the peer",
            schemes(&asked.schemes)
        )),
        Answer::Shown => None,
    }
}

const NOT_ACCEPTED: &str = "it asks for a client certificate (ssl.keystore.*), or does not accept the one that this client sent; \
                            its log says which";
const BROKEN: &str = "it did not understand this client's messages: bytes were changed on their way, or its TLS differs from \
                      this client's; its log says more";

fn meaning(alert: Alert) -> (&'static str, &'static str) {
    match alert {
        Alert::CloseNotify => ("close_notify", "it ended the connection; its log says why"),
        Alert::UnexpectedMessage => ("unexpected_message", BROKEN),
        Alert::BadRecordMac => ("bad_record_mac", BROKEN),
        Alert::DecryptionFailed => ("decryption_failed", BROKEN),
        Alert::RecordOverflow => ("record_overflow", BROKEN),
        Alert::DecompressionFailure => ("decompression_failure", BROKEN),
        Alert::DecodeError => ("decode_error", BROKEN),
        Alert::IllegalParameter => ("illegal_parameter", BROKEN),
        Alert::MissingExtension => ("missing_extension", BROKEN),
        Alert::UnsupportedExtension => ("unsupported_extension", BROKEN),
        Alert::HandshakeFailure => (
            "handshake_failure",
            "it asks for a client certificate (ssl.keystore.*), or has no algorithm in common with this client; its log says \
             which",
        ),
        Alert::InsufficientSecurity => {
            ("insufficient_security", "it wants stronger algorithms than this client offers; its log says which")
        }
        Alert::NoCertificate => ("no_certificate", NOT_ACCEPTED),
        Alert::BadCertificate => ("bad_certificate", NOT_ACCEPTED),
        Alert::UnsupportedCertificate => ("unsupported_certificate", NOT_ACCEPTED),
        Alert::CertificateUnknown => ("certificate_unknown", NOT_ACCEPTED),
        Alert::AccessDenied => ("access_denied", "it accepts this client's certificate but denies access"),
        Alert::CertificateRequired => {
            ("certificate_required", "it asks for a client certificate (ssl.keystore.*), and this client sent none")
        }
        Alert::CertificateRevoked => {
            ("certificate_revoked", "this client's certificate was revoked; it needs a new one")
        }
        Alert::CertificateExpired => {
            ("certificate_expired", "this client's certificate has expired; it needs a new one")
        }
        Alert::UnknownCA => (
            "unknown_ca",
            "it does not trust the authority of this client's certificate (ssl.truststore.* of the broker), or the chain that \
             this client sent is incomplete",
        ),
        Alert::DecryptError => {
            ("decrypt_error", "it found a signature wrong: the client's key may not belong to its certificate")
        }
        Alert::ProtocolVersion => (
            "protocol_version",
            "it supports no version of TLS that this client offers (1.2 and 1.3, unless ssl.enabled.protocols says otherwise)",
        ),
        Alert::InappropriateFallback => {
            ("inappropriate_fallback", "it takes this client's TLS version for a downgrade")
        }
        Alert::ExportRestriction => ("export_restriction", "it wants algorithms that are no longer safe"),
        Alert::InternalError => ("internal_error", "it has a fault of its own; its log says which"),
        Alert::UserCanceled => ("user_canceled", "its user or program cancelled the handshake"),
        Alert::NoRenegotiation => ("no_renegotiation", "it does not negotiate again on one connection"),
        Alert::CertificateUnobtainable => ("certificate_unobtainable", "it could not fetch this client's certificate"),
        Alert::UnrecognisedName => (
            "unrecognized_name",
            "it has no certificate for the host name that this client connects to (SNI); use a name that it knows",
        ),
        Alert::BadCertificateStatusResponse => ("bad_certificate_status_response", NOT_ACCEPTED),
        Alert::BadCertificateHashValue => ("bad_certificate_hash_value", NOT_ACCEPTED),
        Alert::UnknownPSKIdentity => ("unknown_psk_identity", "it has forgotten the session that was to be resumed"),
        Alert::NoApplicationProtocol => {
            ("no_application_protocol", "it requires another protocol above TLS (ALPN): it is not a Kafka listener")
        }
        Alert::EncryptedClientHelloRequired => {
            ("ech_required", "it requires an encrypted client hello, which this client does not send")
        }
        _ => ("", "its log says why"),
    }
}
