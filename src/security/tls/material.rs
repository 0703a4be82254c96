//! Certificates and keys of a configuration, read from files and texts.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Identity, Roots, Source, Tls, key, openssl_trust, pem, trust::Trust};
use crate::error::{Error, ErrorKind, Result};

// The settings that name files, and those that take PEM text.
const CA_FILE: &str = "trusted certificates (ssl.ca.location, ssl.truststore.location)";
const CA_TEXT: &str = "ssl.ca.pem, ssl.truststore.certificates or `Tls::ca_pem`";
const CHAIN_FILE: &str = "client certificate (ssl.certificate.location, ssl.keystore.location)";
const CHAIN_TEXT: &str = "ssl.certificate.pem, ssl.keystore.certificate.chain or `Tls::client_certificate_pem`";
const KEY_FILE: &str = "client key (ssl.key.location, ssl.keystore.location)";
const KEY_TEXT: &str = "ssl.key.pem, ssl.keystore.key or `Tls::client_certificate_pem`";
#[cfg(feature = "pkcs12")]
const TRUST_STORE: &str = "trust store (ssl.truststore.location)";
#[cfg(feature = "pkcs12")]
const KEY_STORE: &str = "key store (ssl.keystore.location)";

/// The bytes of all files and texts of a configuration, in the order of the configuration.
pub(super) struct Raw {
    roots: Vec<Zeroizing<Vec<u8>>>,
    identity: Vec<Zeroizing<Vec<u8>>>,
}

/// The parsed certificates and keys.
pub(super) struct Material {
    pub(super) trust: Trust,
    pub(super) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Source {
    /// Returns the bytes. `text` names the settings that take them as text, for the error of a path
    /// that is PEM text.
    fn read(&self, text: &str) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Text(text) => Ok(Zeroizing::new(text.expose().to_vec())),
            Self::File(path) => match path.mistaken() {
                Some(mistake) => Err(configuration(format!("{mistake}; text is given by {text}"))),
                None => {
                    let failed = |error| configuration(format!("{path}: {error}"));
                    std::fs::read(path.as_path()).map(Zeroizing::new).map_err(failed)
                }
            },
        }
    }

    /// Returns the name of the source for errors.
    fn name(&self, what: &str) -> String {
        match self {
            Self::File(path) => format!("{what} {path}"),
            Self::Text(_) => format!("{what} (given as text)"),
        }
    }
}

impl Raw {
    /// Reads the files. Blocks.
    pub(super) fn read(tls: &Tls) -> Result<Self> {
        let mut raw = Self { roots: Vec::new(), identity: Vec::new() };
        for roots in &tls.roots {
            raw.roots.push(match roots {
                Roots::Pem(source) => source.read(CA_TEXT).map_err(|error| error.context(CA_FILE))?,
                #[cfg(feature = "pkcs12")]
                Roots::Pkcs12(source, _) => source.read(CA_TEXT).map_err(|error| error.context(TRUST_STORE))?,
                Roots::Web => Zeroizing::default(),
                #[cfg(feature = "native-roots")]
                Roots::System => Zeroizing::default(),
            });
        }
        match &tls.identity {
            None => {}
            Some(Identity::Pem { chain, key, .. }) => {
                raw.identity.push(chain.read(CHAIN_TEXT).map_err(|error| error.context(CHAIN_FILE))?);
                raw.identity.push(key.read(KEY_TEXT).map_err(|error| error.context(KEY_FILE))?);
            }
            #[cfg(feature = "pkcs12")]
            Some(Identity::Pkcs12(source, _)) => {
                raw.identity.push(source.read(KEY_TEXT).map_err(|error| error.context(KEY_STORE))?);
            }
        }
        Ok(raw)
    }

    /// Returns a digest of all bytes, which changes if any of them does.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in self.roots.iter().chain(&self.identity) {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(&**bytes);
        }
        digest.finalize().into()
    }

    pub(super) fn parse(&self, tls: &Tls) -> Result<Material> {
        let mut trust = Trust::default();
        for (roots, bytes) in tls.roots.iter().zip(&self.roots) {
            add(&mut trust, roots, bytes)?;
        }
        if tls.roots.is_empty() {
            trust.add_web();
        }
        let identity = match &tls.identity {
            None => None,
            Some(Identity::Pem { chain, key, password }) => {
                let [chain_bytes, key_bytes] = self.identity.as_slice() else {
                    return Err(Error::new(ErrorKind::Internal, "certificate and key were not both read"));
                };
                let (chain_name, key_name) = (chain.name("client certificate"), key.name("client key"));
                let chain_named = |why| configuration(format!("{chain_name}: {why}"));
                let certificates = certificates(chain_bytes, "ssl.keystore.type").map_err(chain_named)?;
                let named = |why| configuration(format!("{key_name}: {why}"));
                let key = key::private_key(key_bytes, password.as_ref()).map_err(named)?;
                Some((certificates.into_iter().map(|one| one.der).collect(), key))
            }
            #[cfg(feature = "pkcs12")]
            Some(Identity::Pkcs12(source, password)) => {
                let bytes = self.identity.first().map_or(&[][..], |bytes| bytes.as_slice());
                let named = |why| configuration(format!("{}: {why}", source.name("key store")));
                Some(super::pkcs12::identity(bytes, password).map_err(named)?)
            }
        };
        Ok(Material { trust, identity })
    }
}

fn add(trust: &mut Trust, roots: &Roots, bytes: &[u8]) -> Result<()> {
    match roots {
        Roots::Web => trust.add_web(),
        #[cfg(feature = "native-roots")]
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            // A certificate that cannot be read does not exclude the others.
            let added = found.certs.into_iter().filter(|der| trust.add(der.clone()).is_ok()).count();
            if added == 0 {
                let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
                return Err(configuration(format!("the system has no trusted certificates that can be read{why}")));
            }
        }
        Roots::Pem(source) => {
            let named = |why| configuration(format!("{}: {why}", source.name("trusted certificates")));
            let certificates = certificates(bytes, "ssl.truststore.type").map_err(named)?;
            let for_servers: Vec<_> = certificates.into_iter().filter(|one| one.for_servers).collect();
            if for_servers.is_empty() {
                let why = "each TRUSTED CERTIFICATE in it is marked as not trusted for servers (serverAuth); write it again \
                           without the mark with `openssl x509 -in FILE -out NEWFILE`";
                return Err(named(why.to_owned()));
            }
            trust.add_all(for_servers.into_iter().map(|one| one.der)).map_err(named)?;
        }
        #[cfg(feature = "pkcs12")]
        Roots::Pkcs12(source, password) => {
            let named = |why| configuration(format!("{}: {why}", source.name("trust store")));
            let certificates = super::pkcs12::certificates(bytes, password).map_err(named)?;
            trust.add_all(certificates).map_err(named)?;
        }
    }
    Ok(())
}

/// A certificate of a PEM file.
struct Listed {
    der: CertificateDer<'static>,
    /// False if OpenSSL's trust settings exclude the certificate from verifying servers.
    for_servers: bool,
}

/// Returns all certificates of a PEM file. `Err` says why there are none. `kind` is the property
/// that names a store's type.
fn certificates(bytes: &[u8], kind: &str) -> std::result::Result<Vec<Listed>, String> {
    let blocks = pem::blocks(bytes)?;
    let mut certificates = Vec::new();
    let mut others = Vec::new();
    for block in &blocks {
        match block.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => {
                certificates.push(Listed { der: block.bytes.to_vec().into(), for_servers: true });
            }
            "TRUSTED CERTIFICATE" => {
                let (der, for_servers) =
                    openssl_trust::split(&block.bytes).ok_or("a TRUSTED CERTIFICATE is malformed")?;
                certificates.push(Listed { der: der.to_vec().into(), for_servers });
            }
            other => others.push(other),
        }
    }
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    Err(match others.as_slice() {
        [] => pem::other_form(bytes, kind),
        ["PKCS7" | "CMS", ..] => {
            "there is no CERTIFICATE in it, but PKCS#7; convert it to PEM certificates with `openssl pkcs7 \
                                  -print_certs -in FILE -out FILE.pem`"
                .to_owned()
        }
        ["CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST", ..] => {
            "there is no CERTIFICATE in it, but a certificate request, which an authority has to sign first".to_owned()
        }
        _ => format!("there is no CERTIFICATE in it, but: {}", others.join(", ")),
    })
}

pub(super) fn configuration(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
