//! Encrypted private keys: PKCS#8's `EncryptedPrivateKeyInfo` (RFC 5958).
//!
//! Sans-IO.

use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use sha1::{Digest, Sha1};
use zeroize::{Zeroize, Zeroizing};

use super::{
    der::{self, Der},
    names,
};
use crate::security::Secret;

/// Limit of rounds. More are refused, because a key file must not keep a client from being built.
const MAX_ROUNDS: u64 = 10_000_000;

/// Limit of the memory of scrypt, in blocks of 128 bytes: 256 MiB, which is 16 times OpenSSL's
/// default.
const MAX_SCRYPT_BLOCKS: u64 = 2 << 20;

/// Decrypts a key to PKCS#8. `Err` says why that is not possible, and never contains bytes of the
/// key.
pub(super) fn decrypt(encrypted: &[u8], password: &Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    const MALFORMED: &str = "the encrypted private key is malformed: it is not PKCS#8";
    let scheme = Scheme::parse(encrypted).ok_or(MALFORMED)?;
    if !scheme.is_known() {
        return Err(format!(
            "the private key is encrypted with {}, which is not supported; encrypt it again with `openssl pkcs8 -topk8 -v2 \
             aes-256-cbc -in KEY -out NEWKEY` (OpenSSL 3 reads RC2, RC4 and DES with `-provider legacy -provider default`)",
            scheme.name
        ));
    }
    if scheme.rounds > MAX_ROUNDS || scheme.scrypt_blocks > MAX_SCRYPT_BLOCKS {
        return Err(format!(
            "the private key is encrypted with {} at an excessive cost ({} rounds); encrypt it again with `openssl \
             pkcs8 -topk8 -v2 aes-256-cbc`",
            scheme.name, scheme.rounds
        ));
    }
    let wrong = || {
        format!(
            "the password (ssl.key.password) does not open the private key, which is encrypted with {}",
            scheme.name
        )
    };
    let key = match scheme.cipher {
        Cipher::Pbes2 => {
            let key = pkcs8::EncryptedPrivateKeyInfoRef::try_from(encrypted).map_err(|_| MALFORMED)?;
            let key = key.decrypt(password.expose()).map_err(|error| match error {
                pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::AlgorithmParametersInvalid { .. }) => {
                    format!("the encrypted private key has parameters of {} that do not fit it", scheme.name)
                }
                _ => wrong(),
            })?;
            Zeroizing::new(key.as_bytes().to_vec())
        }
        Cipher::Pkcs12TripleDes => pkcs12_triple_des(&scheme, password)?.ok_or_else(wrong)?,
        Cipher::Unknown => return Err(MALFORMED.to_owned()),
    };
    // About one wrong password in 256 leaves padding that looks right, so the result is checked.
    is_private_key(&key).then_some(key).ok_or_else(wrong)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Pbes2,
    Pkcs12TripleDes,
    Unknown,
}

/// The encryption of a key.
struct Scheme<'a> {
    cipher: Cipher,
    /// The scheme's name for errors.
    name: String,
    salt: &'a [u8],
    rounds: u64,
    scrypt_blocks: u64,
    encrypted: &'a [u8],
}

impl<'a> Scheme<'a> {
    fn parse(key: &'a [u8]) -> Option<Self> {
        let mut parts = Der::new(key).one(der::SEQUENCE)?.inside();
        let mut algorithm = parts.one(der::SEQUENCE)?.inside();
        let encrypted = parts.one(der::OCTET_STRING)?.contents;
        let oid = names::named(&der::dotted(algorithm.one(der::OID)?.contents));
        let mut scheme = Self { cipher: Cipher::Unknown, name: oid, salt: &[], rounds: 0, scrypt_blocks: 0, encrypted };
        match scheme.name.as_str() {
            "PBES2" => scheme.read_pbes2(algorithm.one(der::SEQUENCE)?.inside())?,
            "pbeWithSHA1And3-KeyTripleDES-CBC" => {
                let mut parameters = algorithm.one(der::SEQUENCE)?.inside();
                scheme.salt = parameters.one(der::OCTET_STRING)?.contents;
                scheme.rounds = unsigned(parameters.one(der::INTEGER)?)?;
                scheme.cipher = Cipher::Pkcs12TripleDes;
            }
            _ => {}
        }
        Some(scheme)
    }

    fn read_pbes2(&mut self, mut parameters: Der<'a>) -> Option<()> {
        let mut derivation = parameters.one(der::SEQUENCE)?.inside();
        let mut encryption = parameters.one(der::SEQUENCE)?.inside();
        let cipher = names::named(&der::dotted(encryption.one(der::OID)?.contents));
        let function = names::named(&der::dotted(derivation.one(der::OID)?.contents));
        let mut values = derivation.one(der::SEQUENCE)?.inside();
        values.one(der::OCTET_STRING)?;
        let cost = unsigned(values.one(der::INTEGER)?)?;
        let known = match function.as_str() {
            "PBKDF2" => {
                self.rounds = cost;
                let _key_length = values.one(der::INTEGER);
                let hash = values.one(der::SEQUENCE).and_then(|hash| hash.inside().one(der::OID));
                let hash =
                    hash.map_or_else(|| "hmacWithSHA1".to_owned(), |hash| names::named(&der::dotted(hash.contents)));
                self.name = format!("PBES2 ({cipher}, {hash})");
                hash.starts_with("hmacWithSHA")
            }
            "scrypt" => {
                let (size, parallel) = (unsigned(values.one(der::INTEGER)?)?, unsigned(values.one(der::INTEGER)?)?);
                self.scrypt_blocks = cost.saturating_mul(size).saturating_mul(parallel);
                self.rounds = cost;
                self.name = format!("PBES2 ({cipher}, scrypt)");
                true
            }
            _ => {
                self.name = format!("PBES2 ({cipher}, {function})");
                false
            }
        };
        let known = known && (cipher == "DES-EDE3-CBC" || cipher.starts_with("AES-"));
        self.cipher = if known { Cipher::Pbes2 } else { Cipher::Unknown };
        Some(())
    }

    fn is_known(&self) -> bool {
        self.cipher != Cipher::Unknown
    }
}

fn unsigned(integer: der::Element<'_>) -> Option<u64> {
    let digits = integer.contents;
    match digits {
        [] | [0x80..=0xff, ..] => None,
        [0, digits @ ..] | digits if digits.len() <= 8 => {
            Some(digits.iter().fold(0, |value, digit| value << 8 | u64::from(*digit)))
        }
        _ => Some(u64::MAX),
    }
}

fn is_private_key(key: &[u8]) -> bool {
    let mut whole = Der::new(key);
    let Some(element) = whole.one(der::SEQUENCE) else { return false };
    let mut parts = element.inside();
    whole.any().is_none()
        && parts.one(der::INTEGER).is_some()
        && parts.one(der::SEQUENCE).is_some()
        && parts.one(der::OCTET_STRING).is_some()
}

/// Decrypts a key by PKCS#12's older scheme (RFC 7292, appendices B and C). `None` for a wrong
/// password.
fn pkcs12_triple_des(scheme: &Scheme<'_>, password: &Secret) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let text = password.expose_str().ok_or("the password of the private key (ssl.key.password) is not UTF-8")?;
    let units = text.encode_utf16().chain([0]);
    let mut wide = Zeroizing::new(Vec::with_capacity(2 * text.len() + 2));
    wide.extend(units.flat_map(u16::to_be_bytes));
    let (mut key, mut vector) = (Zeroizing::new([0; 24]), [0; 8]);
    derive(&wide, scheme, 1, &mut *key);
    derive(&wide, scheme, 2, &mut vector);
    let mut buffer = Zeroizing::new(scheme.encrypted.to_vec());
    let plain = cbc::Decryptor::<des::TdesEde3>::new((&*key).into(), (&vector).into());
    let length = match plain.decrypt_padded::<Pkcs7>(&mut buffer) {
        Ok(plain) => plain.len(),
        Err(_) => return Ok(None),
    };
    buffer.truncate(length);
    Ok(Some(buffer))
}

/// Derives a key (`purpose` 1) or an initialization vector (`purpose` 2) with SHA-1.
fn derive(password: &[u8], scheme: &Scheme<'_>, purpose: u8, out: &mut [u8]) {
    const BLOCK: usize = 64;
    let padded = |bytes: &[u8]| bytes.len().next_multiple_of(BLOCK);
    let salt = scheme.salt.iter().cycle().take(padded(scheme.salt));
    let mut input = Zeroizing::new(Vec::with_capacity(padded(scheme.salt) + padded(password)));
    input.extend(salt.chain(password.iter().cycle().take(padded(password))));
    for part in out.chunks_mut(20) {
        let mut hash = Sha1::new().chain_update([purpose; BLOCK]).chain_update(&*input).finalize();
        for _ in 1..scheme.rounds {
            hash = Sha1::digest(hash);
        }
        part.copy_from_slice(&hash[..part.len()]);
        // Adds the hash, repeated to the length of the block, and one to each block of the input.
        for block in input.chunks_mut(BLOCK) {
            let mut carry = 1_u16;
            for (place, byte) in block.iter_mut().enumerate().rev() {
                carry += u16::from(*byte) + u16::from(hash[place % 20]);
                *byte = carry as u8;
                carry >>= 8;
            }
        }
        hash.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::pem::{self, PemObject};

    use super::*;

    /// Returns the bytes of a PEM block with any label.
    fn der(text: &str) -> Vec<u8> {
        <(pem::SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes()).map_or_else(
            // rustls does not know the label of encrypted keys.
            |_| {
                use base64::{Engine, engine::general_purpose::STANDARD};
                STANDARD.decode(text.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
            },
            |(_, der)| der,
        )
    }

    const TRIPLE_DES: &str = include_str!("../../../tests/security/certificates/encrypted-pbe-sha1-3des.key");
    const PLAIN: &str = include_str!("../../../tests/security/certificates/client.key");

    #[test]
    fn decrypts_key_with_pkcs12_triple_des() {
        assert_eq!(*decrypt(&der(TRIPLE_DES), &"ottla".into()).unwrap(), der(PLAIN));
    }

    #[test]
    fn wrong_password_error_names_password_property() {
        // Of this many wrong passwords, some leave padding that looks right.
        for n in 0..600 {
            let error = decrypt(&der(TRIPLE_DES), &format!("hunter{n}").into()).unwrap_err();
            assert!(error.contains("ssl.key.password") && !error.contains("hunter"), "{error}");
        }
        assert!(decrypt(&der(TRIPLE_DES), &vec![0xff, 0xfe].into()).unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn rejects_excessive_iteration_count() {
        let mut key = der(TRIPLE_DES);
        // The iteration count is the INTEGER after the salt: 2048, encoded as 02 02 08 00.
        let at = key.windows(4).position(|window| window == [2, 2, 8, 0]).unwrap();
        let (before, behind) = (key[..at].to_vec(), key[at + 4..].to_vec());
        key = [before, vec![2, 4, 0x7f, 0xff, 0xff, 0xff], behind].concat();
        // The lengths of the three sequences around the count grow by two.
        for place in [2, 4, 18] {
            key[place] += 2;
        }
        let error = decrypt(&key, &"ottla".into()).unwrap_err();
        assert!(error.contains("2147483647 rounds"), "{error}");
    }

    proptest! {
        #[test]
        fn damaged_keys_do_not_panic(at in 0..48_usize, byte: u8, cut in 0..260_usize) {
            let mut key = der(TRIPLE_DES);
            key[at] = byte;
            key.truncate(cut);
            let scheme = Scheme::parse(&key);
            // A large round count caused by the damage would take long.
            if scheme.is_none_or(|scheme| scheme.rounds < 10_000) {
                let _ = decrypt(&key, &"ottla".into());
            }
        }
    }
}
