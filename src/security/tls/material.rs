//! What a configuration says, read from where it is kept.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Identity, Roots, Source, Tls, key, pem};
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

/// The bytes of all files and texts of a configuration, in its order.
pub(super) struct Raw {
    roots: Vec<Zeroizing<Vec<u8>>>,
    identity: Vec<Zeroizing<Vec<u8>>>,
}

/// What the bytes say.
pub(super) struct Material {
    pub(super) roots: RootCertStore,
    pub(super) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Source {
    /// The bytes; `text` names the settings that take them as text.
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

    /// What to call it in an error.
    fn name(&self, what: &str) -> String {
        match self {
            Self::File(path) => format!("{what} {path}"),
            Self::Text(_) => format!("{what} (given as text)"),
        }
    }
}

impl Raw {
    /// Reads files: blocks.
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

    /// The same as long as the bytes are the same.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in self.roots.iter().chain(&self.identity) {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(&**bytes);
        }
        digest.finalize().into()
    }

    pub(super) fn parse(&self, tls: &Tls) -> Result<Material> {
        let mut store = RootCertStore::empty();
        for (roots, bytes) in tls.roots.iter().zip(&self.roots) {
            add(&mut store, roots, bytes)?;
        }
        if tls.roots.is_empty() {
            add(&mut store, &Roots::Web, &[])?;
        }
        let identity = match &tls.identity {
            None => None,
            Some(Identity::Pem { chain, key, password }) => {
                let [chain_bytes, key_bytes] = self.identity.as_slice() else {
                    return Err(Error::new(ErrorKind::Internal, "certificate and key were not both read"));
                };
                let (chain_name, key_name) = (chain.name("client certificate"), key.name("client key"));
                let certificates = certificates(&chain_name, chain_bytes)?;
                let named = |why| configuration(format!("{key_name}: {why}"));
                let key = key::private_key(text(&key_name, key_bytes)?, password.as_ref()).map_err(named)?;
                Some((certificates, key))
            }
            #[cfg(feature = "pkcs12")]
            Some(Identity::Pkcs12(source, password)) => {
                let bytes = self.identity.first().map_or(&[][..], |bytes| bytes.as_slice());
                let named = |why| configuration(format!("{}: {why}", source.name("key store")));
                Some(super::pkcs12::identity(bytes, password).map_err(named)?)
            }
        };
        Ok(Material { roots: store, identity })
    }
}

fn add(store: &mut RootCertStore, roots: &Roots, bytes: &[u8]) -> Result<()> {
    match roots {
        Roots::Web => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        #[cfg(feature = "native-roots")]
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
                return Err(configuration(format!("the system has no trusted certificates that can be read{why}")));
            }
        }
        Roots::Pem(source) => {
            let name = source.name("trusted certificates");
            for certificate in certificates(&name, bytes)? {
                store.add(certificate).map_err(|error| configuration(format!("{name}: {error}")))?;
            }
        }
        #[cfg(feature = "pkcs12")]
        Roots::Pkcs12(source, password) => {
            let name = source.name("trust store");
            let named = |why| configuration(format!("{name}: {why}"));
            for certificate in super::pkcs12::certificates(bytes, password).map_err(named)? {
                store.add(certificate).map_err(|error| configuration(format!("{name}: {error}")))?;
            }
        }
    }
    Ok(())
}

fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) {
        let message = "it is a JKS store, which only Java reads; turn it into PEM with `keytool -exportcert -rfc` or \
                       into PKCS#12 with `keytool -importkeystore -deststoretype PKCS12`";
        return Err(configuration(format!("{name}: {message}")));
    }
    std::str::from_utf8(bytes).map_err(|_| {
        let hint = if bytes.starts_with(&[0x30]) { " (DER or PKCS#12, perhaps?)" } else { "" };
        configuration(format!("{name}: it is not PEM but binary{hint}"))
    })
}

fn certificates(name: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let blocks = pem::blocks(text(name, bytes)?).map_err(|why| configuration(format!("{name}: {why}")))?;
    let certificates = blocks.iter().filter(|block| block.label == "CERTIFICATE");
    let certificates: Vec<_> = certificates.map(|block| CertificateDer::from(block.bytes.to_vec())).collect();
    if certificates.is_empty() {
        return Err(configuration(format!("{name}: there is no CERTIFICATE in it")));
    }
    Ok(certificates)
}

pub(super) fn configuration(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
