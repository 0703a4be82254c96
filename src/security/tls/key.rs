//! Private keys in all their forms.

use std::sync::Arc;

use rustls::{
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer},
    sign::SigningKey,
};

use super::pem;
use crate::security::Secret;

/// The first private key of a PEM text. `Err` says why there is none.
pub(super) fn private_key(text: &str, password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, String> {
    let mut seen = Vec::new();
    for block in pem::blocks(text)? {
        if block.legacy_encryption {
            return Err(format!(
                "the {} is encrypted in OpenSSL's own old way; turn it into PKCS#8 with `openssl pkcs8 -topk8`",
                pem::shown_label(block.label)
            ));
        }
        match block.label {
            "PRIVATE KEY" => return Ok(PrivatePkcs8KeyDer::from(block.bytes.to_vec()).into()),
            "RSA PRIVATE KEY" => return Ok(PrivatePkcs1KeyDer::from(block.bytes.to_vec()).into()),
            "EC PRIVATE KEY" => return Ok(PrivateSec1KeyDer::from(block.bytes.to_vec()).into()),
            "ENCRYPTED PRIVATE KEY" => return decrypt(&block.bytes, password),
            other => seen.push(pem::shown_label(other).to_owned()),
        }
    }
    match seen.is_empty() {
        true => Err("it is not PEM (no BEGIN line)".to_owned()),
        false => Err(format!("it holds no private key, but: {}", seen.join(", "))),
    }
}

fn decrypt(der: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, String> {
    let password = password.ok_or("the private key is encrypted, and there is no password (ssl.key.password)")?;
    let encrypted = pkcs8::EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|error| format!("the encrypted private key is malformed or of an unknown kind ({error})"))?;
    let key = encrypted
        .decrypt(password.expose())
        .map_err(|error| format!("the private key cannot be decrypted: is the password right? ({error})"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// A key to sign with, from a PEM text. `Err` says why there is none.
pub(crate) fn signing_key(
    text: &str,
    password: Option<&Secret>,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, String> {
    let key = private_key(text, password)?;
    provider.key_provider.load_private_key(key).map_err(|error| format!("the private key cannot be used: {error}"))
}
