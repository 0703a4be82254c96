//! What went wrong in TLS, and who has to do what about it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::error::{Error, ErrorKind};

/// What a failed read, write or handshake says of TLS; `None` where it says nothing of it.
pub(crate) fn tls_failure(error: &io::Error) -> Option<Error> {
    let tls = error.get_ref()?.downcast_ref::<TlsError>()?;
    // Waiting makes none of these better. Java, too, calls them failures of authentication.
    Some(Error::new(ErrorKind::Authentication, format!("TLS: {}", told(tls))).with_source(tls.clone()))
}

fn told(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(certificate) => {
            format!("the peer's certificate is not accepted: {}", of_certificate(certificate))
        }
        TlsError::NoCertificatesPresented => "the peer shows no certificate".to_owned(),
        TlsError::AlertReceived(alert) => of_alert(*alert),
        TlsError::InvalidMessage(_) => {
            "the peer does not answer in TLS: this is a listener without it (set security.protocol to PLAINTEXT or \
             SASL_PLAINTEXT), or something else than Kafka"
                .to_owned()
        }
        TlsError::PeerIncompatible(why) => {
            format!("the peer has no TLS version or cipher suite in common with this client ({why:?})")
        }
        other => other.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "it was not issued by an authority that is trusted here (ssl.ca.location, ssl.truststore.*)".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!("it has expired ({error})"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("it is not valid yet; is this machine's clock right? ({error})")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it was made out to another host name ({error})")
        }
        other => other.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateRequired => "it wants a client certificate (ssl.keystore.*), and there is none",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it wants a client certificate, or does not accept this one",
        AlertDescription::UnknownCA => "it does not trust who issued this client's certificate",
        AlertDescription::CertificateExpired => "this client's certificate has expired",
        AlertDescription::CertificateRevoked => "this client's certificate was revoked",
        AlertDescription::HandshakeFailure => {
            "it wants a client certificate that there is not, or has no cipher suite in common with this client"
        }
        AlertDescription::ProtocolVersion => "it has no TLS version in common with this client",
        _ => "see its log",
    };
    format!("the peer refused this client with the alert {alert:?}: {why}")
}
