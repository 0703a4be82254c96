//! Kinds of keys, for errors that say why a key cannot be used.
//!
//! Sans-IO.

use std::fmt;

use super::{
    der::{self, Der},
    names,
};

/// A key's algorithm, with its curve or size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Rsa { bits: usize },
    Ec { curve: String },
    Other(String),
}

/// Keys with which the built-in crypto provider signs and verifies.
pub(super) const BUILT_IN_KEYS: &str = "RSA of 2048 to 8192 bits, EC on the curves P-256 and P-384, and Ed25519";

impl KeyKind {
    /// Returns the kind of a `SubjectPublicKeyInfo`.
    pub(super) fn of_public_key(key: &[u8]) -> Option<Self> {
        let mut parts = Der::new(key).one(der::SEQUENCE)?.inside();
        let algorithm = parts.one(der::SEQUENCE)?;
        let bits = parts.one(der::BIT_STRING)?.contents.get(1..)?;
        Self::of_algorithm(algorithm, || rsa_bits(Der::new(bits).one(der::SEQUENCE)?.inside()))
    }

    /// Returns the kind of a private key in PKCS#8.
    pub(super) fn of_pkcs8(key: &[u8]) -> Option<Self> {
        let mut parts = Der::new(key).one(der::SEQUENCE)?.inside();
        parts.one(der::INTEGER)?;
        let algorithm = parts.one(der::SEQUENCE)?;
        let inner = parts.one(der::OCTET_STRING)?.contents;
        Self::of_algorithm(algorithm, || match Self::of_pkcs1(inner)? {
            Self::Rsa { bits } => Some(bits),
            _ => None,
        })
    }

    /// Returns the kind of a private key in PKCS#1, which is always an RSA key.
    pub(super) fn of_pkcs1(key: &[u8]) -> Option<Self> {
        let mut parts = Der::new(key).one(der::SEQUENCE)?.inside();
        parts.one(der::INTEGER)?;
        Some(Self::Rsa { bits: rsa_bits(parts)? })
    }

    /// Returns the kind of a private key in SEC1, which is always a key on a curve.
    pub(super) fn of_sec1(key: &[u8]) -> Option<Self> {
        let mut parts = Der::new(key).one(der::SEQUENCE)?.inside();
        parts.one(der::INTEGER)?;
        parts.one(der::OCTET_STRING)?;
        let curve = parts.one(der::context(0)).and_then(|curve| curve.inside().one(der::OID));
        Some(Self::Ec { curve: curve_name(curve) })
    }

    fn of_algorithm(algorithm: der::Element<'_>, rsa_bits: impl FnOnce() -> Option<usize>) -> Option<Self> {
        let mut parts = algorithm.inside();
        let oid = der::dotted(parts.one(der::OID)?.contents);
        Some(match names::named(&oid).as_str() {
            "RSA" => Self::Rsa { bits: rsa_bits()? },
            "EC" => Self::Ec { curve: curve_name(parts.one(der::OID)) },
            name => Self::Other(name.to_owned()),
        })
    }

    /// Returns true if the built-in crypto provider signs and verifies with such keys.
    pub(super) fn is_built_in(&self) -> bool {
        match self {
            Self::Rsa { bits } => (2048..=8192).contains(bits),
            Self::Ec { curve } => curve == "P-256" || curve == "P-384",
            Self::Other(name) => name == "Ed25519",
        }
    }
}

/// Returns the size in bits of an RSA key, of which the next element is the modulus.
fn rsa_bits(mut parts: Der<'_>) -> Option<usize> {
    let modulus = parts.one(der::INTEGER)?.contents;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let digits = modulus.get(zeros..)?;
    Some(digits.len() * 8 - digits.first()?.leading_zeros() as usize)
}

fn curve_name(oid: Option<der::Element<'_>>) -> String {
    oid.map_or_else(|| "with parameters of its own".to_owned(), |oid| names::named(&der::dotted(oid.contents)))
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA of {bits} bits"),
            Self::Ec { curve } => write!(f, "EC on the curve {curve}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use super::*;
    use crate::security::tls::certificate::Certificate;

    #[test]
    fn private_and_public_keys_have_same_kind() {
        macro_rules! field {
            ($name:literal) => {
                include_str!(concat!("../../../tests/security/certificates/", $name))
            };
        }
        for (key, certificate, name, built_in) in [
            (field!("p521.key"), field!("p521.pem"), "EC on the curve P-521", false),
            (field!("rsa-1024.key"), field!("rsa-1024.pem"), "RSA of 1024 bits", false),
            (field!("rsa-pss.key"), field!("rsa-pss.pem"), "RSASSA-PSS", false),
            (field!("ed25519.key"), field!("ed25519.pem"), "Ed25519", true),
            (field!("keytool.key"), field!("keytool.pem"), "RSA of 2048 bits", true),
            (field!("client.key"), field!("client.pem"), "EC on the curve P-256", true),
        ] {
            let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap() else { panic!() };
            let private = KeyKind::of_pkcs8(key.secret_pkcs8_der()).unwrap();
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let public = KeyKind::of_public_key(Certificate::parse(&certificate).unwrap().key).unwrap();
            assert_eq!(private, public);
            assert_eq!((private.to_string().as_str(), private.is_built_in()), (name, built_in));
        }
    }
}
