//! The crypto provider of rustls.

use std::sync::Arc;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::sync::OnceLock;

use rustls::crypto::CryptoProvider;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use rustls::{SignatureScheme, SupportedCipherSuite, Tls12CipherSuite, crypto::CipherSuiteCommon};

use crate::error::{Error, ErrorKind, Result};

/// Returns the crypto provider: the given one, else the built-in one, else the default of the
/// process.
///
/// # Errors
/// `Configuration` if there is none: on another target, or on a processor without the instructions
/// that graviola uses.
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
            "TLS: the built-in crypto provider cannot be used here ({missing}); set another one with \
             `Tls::crypto_provider`, or install one as rustls' default"
        );
        Error::new(ErrorKind::Configuration, message)
    })
}

/// Returns the processor features that graviola requires, with true for those that the processor
/// has. graviola checks most of them itself, and panics if one is missing. It does not check bmi2
/// and popcnt, without which its curves and its ML-KEM end the process by an illegal instruction.
/// It uses wider vectors and SHA instructions only if the processor has them.
#[cfg(target_arch = "x86_64")]
fn needed() -> Vec<(&'static str, bool)> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        ("aes", has!("aes")),
        ("pclmulqdq", has!("pclmulqdq")),
        ("bmi1", has!("bmi1")),
        ("bmi2", has!("bmi2")),
        ("adx", has!("adx")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
        ("popcnt", has!("popcnt")),
        ("sse3", has!("sse3")),
        ("ssse3", has!("ssse3")),
        ("sse4.1", has!("sse4.1")),
    ]
}

/// Returns the processor features that graviola requires, with true for those that the processor
/// has.
#[cfg(target_arch = "aarch64")]
fn needed() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![("neon", has!("neon")), ("aes", has!("aes")), ("pmull", has!("pmull")), ("sha2", has!("sha2"))]
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn built_in() -> Result<Arc<CryptoProvider>, String> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    first_missing(&needed())?;
    Ok(Arc::clone(PROVIDER.get_or_init(|| {
        let mut provider =
            CryptoProvider { key_provider: &super::signing::Keys, ..rustls_graviola::default_provider() };
        provider.cipher_suites.iter_mut().for_each(allow_ed25519);
        Arc::new(provider)
    })))
}

/// Allows a peer with an Ed25519 key to use the ECDSA suites of TLS 1.2 (RFC 8422, section 2.2).
/// graviola verifies such signatures, but its suites leave the scheme out.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn allow_ed25519(suite: &mut SupportedCipherSuite) {
    const SIGN: &[SignatureScheme] =
        &[SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519];
    let SupportedCipherSuite::Tls12(known) = *suite else { return };
    if !known.sign.contains(&SignatureScheme::ECDSA_NISTP256_SHA256) {
        return;
    }
    let common = CipherSuiteCommon {
        suite: known.common.suite,
        hash_provider: known.common.hash_provider,
        confidentiality_limit: known.common.confidentiality_limit,
    };
    let extended = Tls12CipherSuite { common, sign: SIGN, ..*known };
    // rustls requires suites that live as long as the process. There are three of these, created
    // once.
    *suite = SupportedCipherSuite::Tls12(Box::leak(Box::new(extended)));
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

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests;
