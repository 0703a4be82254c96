//! PEM (RFC 7468): blocks of base64 between lines that name them.
//!
//! Sans-IO.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::der::{self, Der};

/// A block of a PEM text.
pub(super) struct Block<'a> {
    /// The block's name, such as `CERTIFICATE`.
    pub(super) label: &'a str,
    /// True if the block is encrypted in OpenSSL's traditional way (`Proc-Type: 4,ENCRYPTED`). Its
    /// bytes are left out.
    pub(super) legacy_encryption: bool,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";

/// Returns all blocks of a file. Bytes outside blocks are ignored, whatever their encoding is.
/// `Err` says how a block is malformed, without its contents.
///
/// Like Kafka, the function also reads a text in which the lines were joined with spaces.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = split(rest, BEGIN) {
        let (label, body) = split(begun, DASHES).ok_or("a BEGIN line has no end")?;
        let label = name(label).ok_or("a BEGIN line names no kind of block")?;
        let end = [b"-----END ", label.as_bytes(), DASHES].concat();
        let (body, behind) = split(body, &end)
            .filter(|(body, _)| split(body, BEGIN).is_none())
            .ok_or_else(|| format!("a {} has no END line", shown_label(label)))?;
        rest = behind;
        let legacy_encryption = split(body, b"Proc-Type:").is_some();
        let mut digits = Zeroizing::new(Vec::with_capacity(body.len()));
        if !legacy_encryption {
            digits.extend(body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 4 * 3 + 3));
        BASE64.decode_vec(&*digits, &mut bytes).map_err(|_| format!("a {} is not base64", shown_label(label)))?;
        blocks.push(Block { label, legacy_encryption, bytes });
    }
    Ok(blocks)
}

/// Returns the label of a block in a form that an error may show, because the text may not be PEM
/// at all.
pub(super) fn shown_label(label: &str) -> &str {
    let plain = label.len() <= 40 && label.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | ' ' | '#'));
    if plain { label } else { "block" }
}

/// Returns the bytes before and after the first occurrence of a mark.
fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

/// Returns a label, if the bytes look like one.
fn name(label: &[u8]) -> Option<&str> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b" .#/".contains(byte);
    let label = (!label.is_empty() && label.len() <= 48 && label.iter().all(allowed)).then_some(label)?;
    std::str::from_utf8(label).ok()
}

/// Describes the form of a file that is not PEM, and how to convert it to PEM. `kind` is the
/// property that names a store's type.
pub(super) fn other_form(bytes: &[u8], kind: &str) -> String {
    if let Some(store) = java_store(bytes) {
        return store.to_owned();
    }
    let utf_16 = |window: &[u8]| matches!(window, [b'-', 0, b'-', 0] | [0, b'-', 0, b'-']);
    let form = match bytes {
        [] => "it is empty",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => UTF_16,
        _ if bytes.windows(4).any(utf_16) => UTF_16,
        _ => match der_form(bytes) {
            Some(Form::Pkcs12) => {
                return format!("it is not PEM but a PKCS#12 store: set {kind}=PKCS12 (needs the feature `pkcs12`)");
            }
            Some(Form::Certificate) => {
                "it is not PEM but a certificate in DER; convert it to PEM with `openssl x509 -inform DER -in FILE -out \
                 FILE.pem`"
            }
            Some(Form::Key) => {
                "it is not PEM but a private key in DER; convert it to PEM with `openssl pkey -inform DER -in FILE -out \
                 FILE.pem`"
            }
            Some(Form::Pkcs7) => {
                "it is not PEM but PKCS#7 in DER; convert it to PEM with `openssl pkcs7 -print_certs -inform DER -in FILE -out \
                 FILE.pem`"
            }
            None => "it is not PEM (there is no BEGIN line in it)",
        },
    };
    form.to_owned()
}

/// Describes the form of a file that was read as a PKCS#12 store and is not one.
#[cfg(feature = "pkcs12")]
pub(super) fn form_beside_pkcs12(bytes: &[u8]) -> Option<String> {
    if let Some(store) = java_store(bytes) {
        return Some(store.to_owned());
    }
    let pem = split(bytes, BEGIN).is_some();
    pem.then(|| "it is not a PKCS#12 store but PEM: set ssl.keystore.type (ssl.truststore.type) to PEM".to_owned())
}

fn java_store(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xfe, 0xed, 0xfe, 0xed, ..] => Some(
            "it is a JKS store, which only Java reads; convert it to PKCS#12 with `keytool -importkeystore -srckeystore STORE \
             -destkeystore STORE.p12 -deststoretype PKCS12`, or to PEM with `keytool -exportcert -rfc`",
        ),
        [0xce, 0xce, 0xce, 0xce, ..] => Some(
            "it is a JCEKS store, which only Java reads; convert it to PKCS#12 with `keytool -importkeystore -srcstoretype \
             JCEKS -srckeystore STORE -destkeystore STORE.p12 -deststoretype PKCS12`",
        ),
        _ => None,
    }
}

const UTF_16: &str = "it is UTF-16, as some editors and shells of Windows save text; convert it to UTF-8 with `iconv -f UTF-16 -t UTF-8`";

enum Form {
    Pkcs12,
    Pkcs7,
    Certificate,
    Key,
}

fn der_form(bytes: &[u8]) -> Option<Form> {
    let mut parts = Der::new(bytes).one(der::SEQUENCE)?.inside();
    let first = parts.any()?;
    match (first.tag, first.contents) {
        (der::INTEGER, [3]) => Some(Form::Pkcs12),
        (der::INTEGER, _) => Some(Form::Key),
        (der::OID, _) => Some(Form::Pkcs7),
        // An encrypted key begins with its algorithm, a certificate with the signed part.
        (der::SEQUENCE, _) => match parts.any()?.tag {
            der::OCTET_STRING => Some(Form::Key),
            _ => Some(Form::Certificate),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_blocks_among_other_bytes() {
        let text = b"bag attributes \xff\x00\n-----BEGIN A B-----\r\naGVs\r\nbG8=\r\n-----END A B-----\n\
                     -----BEGIN C----- aGVs bG8= -----END C-----\n\
                     -----BEGIN D-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\naGVs\n-----END D-----";
        let blocks = blocks(text).unwrap();
        let seen: Vec<_> = blocks.iter().map(|b| (b.label, b.legacy_encryption, b.bytes.len())).collect();
        assert_eq!(seen, [("A B", false, 5), ("C", false, 5), ("D", true, 0)]);
    }

    #[test]
    fn error_names_defect_of_block() {
        for (text, part) in [
            ("-----BEGIN CERTIFICATE-----\naGVs", "no END"),
            ("-----BEGIN A-----\naGVs\n-----BEGIN A-----\naGVs\n-----END A-----", "no END"),
            ("-----BEGIN CERTIFICATE-----\n$$\n-----END CERTIFICATE-----", "not base64"),
            ("-----BEGIN X", "no end"),
            ("-----BEGIN hunter2=\u{1b}-----", "names no kind"),
        ] {
            assert!(blocks(text.as_bytes()).err().unwrap().contains(part), "{text}");
        }
        assert!(blocks(b"").unwrap().is_empty());
    }

    #[test]
    fn recognises_files_in_other_formats() {
        let key = include_bytes!("../../testkit/certificates/client.p12");
        assert!(other_form(key, "ssl.keystore.type").contains("ssl.keystore.type=PKCS12"));
        for (bytes, part) in [
            (&[][..], "empty"),
            (b"hunter2", "no BEGIN line"),
            (&[0xfe, 0xed, 0xfe, 0xed, 0], "JKS"),
            (b"-\0-\0-\0-\0-\0B\0", "UTF-16"),
            (b"\0-\0-\0-\0-\0-\0B", "UTF-16"),
            (&[0x30, 5, 2, 1, 0, 0x30, 0], "private key in DER"),
            (&[0x30, 4, 0x30, 0, 4, 0], "private key in DER"),
            (&[0x30, 4, 0x30, 0, 0x30, 0], "certificate in DER"),
            (&[0x30, 2, 6, 0], "PKCS#7"),
            (&[0x30, 0x82, 0xff], "no BEGIN line"),
        ] {
            let form = other_form(bytes, "ssl.truststore.type");
            assert!(form.contains(part) && !form.contains("hunter2"), "{bytes:?}: {form}");
        }
    }

    proptest! {
        #[test]
        fn reads_arbitrary_bytes_without_panic(
            parts in prop::collection::vec(prop_oneof![
                Just(BEGIN.to_vec()), Just(b"-----END A-----".to_vec()), Just(b"A-----".to_vec()), Just(b"Proc-Type:".to_vec()),
                prop::collection::vec(any::<u8>(), 0..24),
            ], 0..12),
        ) {
            let bytes = parts.concat();
            if let Err(why) = blocks(&bytes) {
                prop_assert!(why.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
            }
            let _ = other_form(&bytes, "");
        }
    }
}
