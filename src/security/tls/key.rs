//! Private keys in all supported formats.

use std::sync::Arc;

use rustls::{
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer},
    sign::SigningKey,
};

use super::{
    encrypted_key,
    key_kind::{BUILT_IN_KEYS, KeyKind},
    pem,
};
use crate::security::Secret;

/// Returns the first private key of a PEM file. `Err` says why there is none.
pub(super) fn private_key(text: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, String> {
    let mut seen = Vec::new();
    for block in pem::blocks(text)? {
        if block.legacy_encryption {
            return Err(format!(
                "the {} is encrypted in OpenSSL's traditional way (Proc-Type: 4,ENCRYPTED), which is not supported; convert it \
                 to PKCS#8 with `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEWKEY`",
                pem::shown_label(block.label)
            ));
        }
        match block.label {
            "PRIVATE KEY" => return Ok(PrivatePkcs8KeyDer::from(block.bytes.to_vec()).into()),
            "RSA PRIVATE KEY" => return Ok(PrivatePkcs1KeyDer::from(block.bytes.to_vec()).into()),
            "EC PRIVATE KEY" => return Ok(PrivateSec1KeyDer::from(block.bytes.to_vec()).into()),
            "ENCRYPTED PRIVATE KEY" => {
                let password =
                    password.ok_or("the private key is encrypted, and there is no password (ssl.key.password)")?;
                let key = encrypted_key::decrypt(&block.bytes, password)?;
                return Ok(PrivatePkcs8KeyDer::from(key.to_vec()).into());
            }
            "OPENSSH PRIVATE KEY" => {
                return Err(
                    "it is a private key of OpenSSH; convert it to PKCS#8 with `ssh-keygen -p -m PKCS8 -f KEY`"
                        .to_owned(),
                );
            }
            "DSA PRIVATE KEY" => return Err(unusable(Some(&KeyKind::Other("DSA".to_owned())))),
            other => seen.push(pem::shown_label(other).to_owned()),
        }
    }
    match seen.is_empty() {
        true => Err(pem::other_form(text, "ssl.keystore.type")),
        false => Err(format!("there is no private key in it, but: {}", seen.join(", "))),
    }
}

/// Loads a private key for signing. `Err` names the kind of the key.
pub(super) fn load(key: PrivateKeyDer<'static>, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    let kind = match &key {
        PrivateKeyDer::Pkcs8(key) => KeyKind::of_pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(key) => KeyKind::of_pkcs1(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => KeyKind::of_sec1(key.secret_sec1_der()),
        _ => None,
    };
    provider.key_provider.load_private_key(key).map_err(|_| unusable(kind.as_ref()))
}

fn unusable(kind: Option<&KeyKind>) -> String {
    match kind {
        None => "the private key is malformed".to_owned(),
        Some(kind) if kind.is_built_in() => format!("the private key ({kind}) is damaged: the provider refused it"),
        Some(kind) => format!(
            "the private key is {kind}, which the crypto provider does not support; the built-in one supports \
             {BUILT_IN_KEYS}. Use such a key, or set a provider that supports this one with `Tls::crypto_provider`"
        ),
    }
}

#[cfg(feature = "oauth")]
/// Loads the first private key of a PEM file for signing. `Err` says why there is none.
pub(crate) fn signing_key(
    text: &[u8],
    password: Option<&Secret>,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, String> {
    load(private_key(text, password)?, provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_unsupported_key_format() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        for (text, part) in [
            (block("OPENSSH PRIVATE KEY"), "ssh-keygen"),
            (block("DSA PRIVATE KEY"), "DSA"),
            (block("CERTIFICATE"), "but: CERTIFICATE"),
            (block("ENCRYPTED PRIVATE KEY"), "ssl.key.password"),
            ("hunter2".to_owned(), "not PEM"),
        ] {
            let error = private_key(text.as_bytes(), None).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
        }
        let malformed = private_key(block("ENCRYPTED PRIVATE KEY").as_bytes(), Some(&"x".into())).unwrap_err();
        assert!(malformed.contains("malformed"), "{malformed}");
    }
}
