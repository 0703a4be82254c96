//! Private keys for graviola, without copies left in memory.
//!
//! rustls passes the ownership of a key to the provider, and `rustls-graviola` frees its bytes
//! without zeroing them. Here they are overwritten once graviola has read them. graviola's own form
//! of a key overwrites itself when it is dropped.

use std::{fmt, sync::Arc};

use graviola::{
    hashing::{Sha256, Sha384},
    signing::{
        ecdsa::{self, P256, P384},
        eddsa::Ed25519SigningKey,
        rsa,
    },
};
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    crypto::KeyProvider,
    pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer},
    sign::{Signer, SigningKey},
};
use zeroize::Zeroize;

/// Loads the same keys as `rustls-graviola`, and zeroes their bytes.
#[derive(Debug)]
pub(super) struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, mut der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let key = read(&der);
        der.zeroize();
        wipe_stack();
        Ok(Arc::new(Key(key?)))
    }
}

/// Overwrites the stack below its caller, which held the variables of the functions that read the
/// key.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u8; 64 * 1024];
    below.zeroize();
}

#[derive(Clone)]
enum Kind {
    Rsa(Arc<rsa::SigningKey>),
    P256(Arc<ecdsa::SigningKey<P256>>),
    P384(Arc<ecdsa::SigningKey<P384>>),
    Ed25519(Arc<Ed25519SigningKey>),
}

#[inline(never)]
fn read(der: &PrivateKeyDer<'_>) -> Result<Kind, Error> {
    let bytes = der.secret_der();
    let key = match der {
        PrivateKeyDer::Pkcs1(_) => rsa::SigningKey::from_pkcs1_der(bytes).ok().map(|key| Kind::Rsa(Arc::new(key))),
        PrivateKeyDer::Sec1(_) => ecdsa::SigningKey::from_sec1_der(bytes)
            .map(|key| Kind::P256(Arc::new(key)))
            .or_else(|_| ecdsa::SigningKey::from_sec1_der(bytes).map(|key| Kind::P384(Arc::new(key))))
            .ok(),
        PrivateKeyDer::Pkcs8(_) => rsa::SigningKey::from_pkcs8_der(bytes)
            .map(|key| Kind::Rsa(Arc::new(key)))
            .or_else(|_| ecdsa::SigningKey::from_pkcs8_der(bytes).map(|key| Kind::P256(Arc::new(key))))
            .or_else(|_| ecdsa::SigningKey::from_pkcs8_der(bytes).map(|key| Kind::P384(Arc::new(key))))
            .or_else(|_| Ed25519SigningKey::from_pkcs8_der(bytes).map(|key| Kind::Ed25519(Arc::new(key))))
            .ok(),
        _ => None,
    };
    key.ok_or_else(|| {
        let message = "the private key is malformed, or of a kind that is not built in (RSA of 2048 to 8192 bits, EC on \
                       P-256 and P-384, and Ed25519 are)";
        Error::General(message.to_owned())
    })
}

struct Key(Kind);

/// Signature schemes of RSA keys, in the order of preference of `rustls-graviola`.
const RSA_SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let own: &[SignatureScheme] = match &self.0 {
            Kind::Rsa(_) => &RSA_SCHEMES,
            Kind::P256(_) => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Kind::P384(_) => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Kind::Ed25519(_) => &[SignatureScheme::ED25519],
        };
        let scheme = own.iter().copied().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(Signature { key: self.0.clone(), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match &self.0 {
            Kind::Rsa(_) => SignatureAlgorithm::RSA,
            Kind::P256(_) | Kind::P384(_) => SignatureAlgorithm::ECDSA,
            Kind::Ed25519(_) => SignatureAlgorithm::ED25519,
        }
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'static>> {
        let mut buffer = [0; 2048];
        let spki = match &self.0 {
            Kind::Rsa(key) => key.public_key().to_spki_der(&mut buffer).ok()?.to_vec(),
            Kind::P256(key) => key.to_spki_der(&mut buffer).ok()?.to_vec(),
            Kind::P384(key) => key.to_spki_der(&mut buffer).ok()?.to_vec(),
            Kind::Ed25519(key) => key.public_key().to_spki_der(&mut buffer).ok()?.to_vec(),
        };
        Some(SubjectPublicKeyInfoDer::from(spki))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

struct Signature {
    key: Kind,
    scheme: SignatureScheme,
}

impl Signer for Signature {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |error: graviola::Error| Error::General(format!("signing failed: {error:?}"));
        match &self.key {
            Kind::Rsa(key) => {
                let mut signature = vec![0; key.modulus_len_bytes()];
                match self.scheme {
                    SignatureScheme::RSA_PSS_SHA512 => key.sign_pss_sha512(&mut signature, message),
                    SignatureScheme::RSA_PSS_SHA384 => key.sign_pss_sha384(&mut signature, message),
                    SignatureScheme::RSA_PSS_SHA256 => key.sign_pss_sha256(&mut signature, message),
                    SignatureScheme::RSA_PKCS1_SHA512 => key.sign_pkcs1_sha512(&mut signature, message),
                    SignatureScheme::RSA_PKCS1_SHA384 => key.sign_pkcs1_sha384(&mut signature, message),
                    _ => key.sign_pkcs1_sha256(&mut signature, message),
                }
                .map_err(failed)?;
                Ok(signature)
            }
            Kind::P256(key) => {
                let mut buffer = [0; 128];
                Ok(key.sign_asn1::<Sha256>(&[message], &mut buffer).map_err(failed)?.to_vec())
            }
            Kind::P384(key) => {
                let mut buffer = [0; 128];
                Ok(key.sign_asn1::<Sha384>(&[message], &mut buffer).map_err(failed)?.to_vec())
            }
            Kind::Ed25519(key) => Ok(key.sign(message).to_vec()),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}
