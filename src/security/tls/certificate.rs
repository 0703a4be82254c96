//! The parts of a certificate (RFC 5280), for certificates that webpki does not read (version 1),
//! and for uses that need only the key.
//!
//! Sans-IO.

use std::time::{Duration, UNIX_EPOCH};

use rustls::{CertificateError, pki_types::UnixTime};

use super::der::{self, Der};
use crate::security::time;

/// The parts of a certificate. Nothing is verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Certificate<'a> {
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    not_before: u64,
    not_after: u64,
    /// `SubjectPublicKeyInfo` with its tag.
    pub(super) key: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Parses a certificate; `None` if the bytes are not one.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut signed = Der::new(der).one(der::SEQUENCE)?.inside().one(der::SEQUENCE)?.inside();
        let _version_1_is_left_out = signed.one(der::context(0));
        signed.one(der::INTEGER)?;
        signed.one(der::SEQUENCE)?;
        let issuer = signed.one(der::SEQUENCE)?.whole;
        let mut validity = signed.one(der::SEQUENCE)?.inside();
        let (not_before, not_after) = (seconds(validity.any()?)?, seconds(validity.any()?)?);
        let subject = signed.one(der::SEQUENCE)?.whole;
        let key = signed.one(der::SEQUENCE)?.whole;
        Some(Self { issuer, subject, not_before, not_after, key })
    }

    /// Checks that the certificate is valid at that time.
    pub(super) fn valid_at(&self, time: UnixTime) -> Result<(), CertificateError> {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        if time.as_secs() < self.not_before {
            return Err(CertificateError::NotValidYetContext { time, not_before: at(self.not_before) });
        }
        if time.as_secs() > self.not_after {
            return Err(CertificateError::ExpiredContext { time, not_after: at(self.not_after) });
        }
        Ok(())
    }
}

/// Returns the length of the certificate at the beginning of the bytes, which may be followed by
/// data of OpenSSL's own.
pub(super) fn length(der: &[u8]) -> Option<usize> {
    Der::new(der).one(der::SEQUENCE).map(|certificate| certificate.whole.len())
}

/// Returns a `Time` in seconds since 1970; 0 for earlier times.
fn seconds(written: der::Element<'_>) -> Option<u64> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = written.contents.strip_suffix(b"Z")?;
    let (year, rest) = match (written.tag, digits.len()) {
        (UTC_TIME, 10 | 12) => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let mut parts = rest.chunks(2).map(number);
    let (month, day, hour, minute) = (parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    // Certificates without a beginning of their validity have the year 0.
    if year < 1970 {
        return Some(0);
    }
    let time = time::from_civil([year, month, day, hour, minute, second])?;
    Some(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    const VERSION_1: &str = include_str!("../../../tests/security/certificates/version-1.pem");
    const EXPIRED: &str = include_str!("../../../tests/security/certificates/self-signed-expired.pem");

    #[test]
    fn parses_fields_of_versions_1_and_3() {
        let one = der(VERSION_1);
        assert_ne!(Certificate::parse(&one).unwrap().issuer, Certificate::parse(&one).unwrap().subject);
        let expired = der(EXPIRED);
        let certificate = Certificate::parse(&expired).unwrap();
        assert_eq!(certificate.issuer, certificate.subject);
        // From 2024-01-01 to 2024-02-01.
        assert_eq!((certificate.not_before, certificate.not_after), (1_704_067_200, 1_706_745_600));
        assert_eq!(length(&[&*expired, &[1, 2, 3]].concat()), Some(expired.len()));
        let parsed = rustls::server::ParsedCertificate::try_from(&expired).unwrap();
        assert_eq!(parsed.subject_public_key_info().as_ref(), certificate.key);
    }

    #[test]
    fn validity_includes_both_ends() {
        let expired = der(EXPIRED);
        let certificate = Certificate::parse(&expired).unwrap();
        let at = |seconds| certificate.valid_at(UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
        assert!(at(1_704_067_200).is_ok() && at(1_706_745_600).is_ok());
        assert!(matches!(at(1_704_067_199), Err(CertificateError::NotValidYetContext { .. })));
        assert!(matches!(at(1_706_745_601), Err(CertificateError::ExpiredContext { .. })));
    }

    #[test]
    fn parses_utc_time_and_generalized_time() {
        let time = |tag, text: &'static str| seconds(der::Element { tag, contents: text.as_bytes(), whole: &[] });
        assert_eq!(time(0x17, "000229000000Z"), Some(951_782_400));
        assert_eq!(time(0x18, "21000301000000Z"), Some(4_107_542_400));
        assert_eq!(time(0x18, "99991231235959Z"), Some(253_402_300_799));
        assert_eq!(time(0x17, "500101000000Z"), Some(0));
        assert_eq!(time(0x18, "00000101000000Z"), Some(0));
        for text in ["", "Z", "21000301000000", "210013010000Z", "+10101000000Z", "2100030100000xZ"] {
            assert_eq!(time(0x18, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn damaged_certificates_do_not_panic(at in 0..300_usize, byte: u8, cut in 0..400_usize) {
            let mut der = der(VERSION_1).to_vec();
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            der.truncate(cut);
            let _ = Certificate::parse(&der);
            let _ = length(&der);
        }
    }
}
