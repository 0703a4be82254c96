//! OpenSSL's `TRUSTED CERTIFICATE`: a certificate followed by settings that limit the purposes for
//! which it is trusted.
//!
//! Sans-IO.

use super::{
    certificate,
    der::{self, Der},
};

const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
const ANY_PURPOSE: &str = "2.5.29.37.0";

/// Returns the certificate, and true if its settings trust it for servers, by OpenSSL's rules: a
/// rejected purpose is not trusted, and if the settings list trusted purposes, no others are.
/// `None` if it is malformed.
pub(super) fn split(bytes: &[u8]) -> Option<(&[u8], bool)> {
    let (certificate, behind) = bytes.split_at_checked(certificate::length(bytes)?)?;
    if behind.is_empty() {
        return Some((certificate, true));
    }
    let mut settings = Der::new(behind).one(der::SEQUENCE)?.inside();
    let trusted = settings.one(der::SEQUENCE).map(|purposes| concerns_servers(purposes.inside()));
    let rejected = settings.one(der::context(0)).is_some_and(|purposes| concerns_servers(purposes.inside()));
    Some((certificate, trusted.unwrap_or(true) && !rejected))
}

fn concerns_servers(mut purposes: Der<'_>) -> bool {
    std::iter::from_fn(|| purposes.any())
        .map(|purpose| der::dotted(purpose.contents))
        .any(|purpose| purpose == SERVER_AUTH || purpose == ANY_PURPOSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::tls::pem;

    #[test]
    fn trust_settings_decide_use_for_servers() {
        for (text, expected) in [
            (include_str!("../../../tests/security/certificates/trusted.pem"), true),
            (include_str!("../../../tests/security/certificates/trusted-rejected.pem"), false),
            (include_str!("../../../tests/security/certificates/trusted-for-mail.pem"), false),
            (include_str!("../../../tests/security/certificates/authority.pem"), true),
        ] {
            let blocks = pem::blocks(text.as_bytes()).unwrap();
            let plain = pem::blocks(include_bytes!("../../../tests/security/certificates/authority.pem")).unwrap();
            assert_eq!(split(&blocks[0].bytes), Some((&**plain[0].bytes, expected)));
            let cut = &blocks[0].bytes[..blocks[0].bytes.len() - 1];
            assert_eq!(split(cut), None);
        }
    }
}
