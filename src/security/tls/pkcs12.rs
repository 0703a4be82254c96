//! PKCS#12 stores.

use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy, error::Error};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::pem;
use crate::security::Secret;

fn open(bytes: &[u8], password: &Secret, policy: Pkcs12ImportPolicy) -> Result<KeyStore, String> {
    let password = password.expose_str().ok_or("the password is not text")?;
    KeyStore::from_pkcs12(bytes, password, policy).map_err(|error| refused(bytes, &error))
}

/// Returns the reason why a store cannot be opened. The texts of the library's own errors are not
/// used, because they describe its code.
fn refused(bytes: &[u8], error: &Error) -> String {
    if let Some(form) = pem::form_beside_pkcs12(bytes) {
        return form;
    }
    const ANEW: &str = "write it again with `openssl pkcs12 -in STORE -nodes -out ALL.pem` and `openssl pkcs12 -export -in ALL.pem \
                        -out NEWSTORE`";
    match error {
        Error::MacError(_) | Error::UnpadError => "the password does not open the PKCS#12 store".to_owned(),
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm => {
            format!("the PKCS#12 store is encrypted in a way that is not supported; {ANEW}")
        }
        Error::Pkcs5Error(_) => {
            format!(
                "the password does not open the PKCS#12 store, or it is encrypted in a way that is not supported; {ANEW}"
            )
        }
        Error::UnsupportedContentType | Error::UnsupportedCertificateType => {
            format!("the PKCS#12 store holds entries of a kind that is not supported; {ANEW}")
        }
        Error::InvalidPrivateKey => "the private key in the PKCS#12 store is malformed".to_owned(),
        Error::X509Error(_) => "a certificate in the PKCS#12 store is malformed".to_owned(),
        Error::IoError(_)
        | Error::DerError(_)
        | Error::InvalidVersion
        | Error::InvalidLength
        | Error::InvalidParameters
        | Error::InvalidData => "it is not a PKCS#12 store, or it is damaged".to_owned(),
    }
}

/// Returns the first private key of a store with its chain. `Err` says why there is none.
pub(super) fn identity(
    bytes: &[u8],
    password: &Secret,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let store = open(bytes, password, Pkcs12ImportPolicy::Strict)?;
    let (_, chain) = store.private_key_chain().ok_or("there is no private key in it")?;
    let certificates = chain.certs().iter().map(|certificate| CertificateDer::from(certificate.as_der().to_vec()));
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        return Err("the private key in it has no certificate".to_owned());
    }
    Ok((certificates, PrivatePkcs8KeyDer::from(chain.key().as_der().to_vec()).into()))
}

/// Returns all certificates of a store that are entries of their own. `Err` says why there are
/// none.
pub(super) fn certificates(bytes: &[u8], password: &Secret) -> Result<Vec<CertificateDer<'static>>, String> {
    // A store that was written by OpenSSL does not mark trusted certificates, so all of them are
    // trusted.
    let store = open(bytes, password, Pkcs12ImportPolicy::Raw)?;
    let certificates = store.entries().filter_map(|(_, entry)| match entry {
        KeyStoreEntry::Certificate(certificate) => Some(CertificateDer::from(certificate.as_der().to_vec())),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() { Err("there are no trusted certificates in it".to_owned()) } else { Ok(certificates) }
}
