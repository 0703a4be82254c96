//! The cryptography below rustls.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::{Error, ErrorKind, Result};

/// What is used where nothing was given.
///
/// # Errors
/// `Configuration` where there is none: another target, or a processor without what graviola needs (which would panic).
pub(crate) fn provider(given: Option<&Arc<CryptoProvider>>) -> Result<Arc<CryptoProvider>> {
    if let Some(given) = given {
        return Ok(Arc::clone(given));
    }
    let missing = match built_in() {
        Ok(provider) => return Ok(provider),
        Err(missing) => missing,
    };
    CryptoProvider::get_default().map(Arc::clone).ok_or_else(|| {
        let message = format!(
            "TLS: the built-in cryptography cannot be used here ({missing}); give a provider of your own with \
             `Tls::crypto_provider`, or install one as rustls' default"
        );
        Error::new(ErrorKind::Configuration, message)
    })
}

#[cfg(target_arch = "x86_64")]
fn built_in() -> Result<Arc<CryptoProvider>, String> {
    use std::arch::is_x86_feature_detected as has;
    first_missing(&[
        ("aes", has!("aes")),
        ("pclmulqdq", has!("pclmulqdq")),
        ("bmi1", has!("bmi1")),
        ("adx", has!("adx")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
    ])
    .map(|()| graviola())
}

#[cfg(target_arch = "aarch64")]
fn built_in() -> Result<Arc<CryptoProvider>, String> {
    use std::arch::is_aarch64_feature_detected as has;
    first_missing(&[("neon", has!("neon")), ("aes", has!("aes")), ("pmull", has!("pmull")), ("sha2", has!("sha2"))])
        .map(|()| graviola())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn graviola() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { key_provider: &super::signing::Keys, ..rustls_graviola::default_provider() })
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn built_in() -> Result<Arc<CryptoProvider>, String> {
    Err(format!("it has no code for {}", std::env::consts::ARCH))
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn first_missing(features: &[(&str, bool)]) -> Result<(), String> {
    match features.iter().find(|(_, there)| !there) {
        Some((name, _)) => Err(format!("the processor lacks {name}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn a_processor_that_lacks_something_is_an_error_that_names_it() {
        assert_eq!(first_missing(&[("aes", true), ("adx", false)]), Err("the processor lacks adx".to_owned()));
        assert_eq!(first_missing(&[("aes", true)]), Ok(()));
    }
}
