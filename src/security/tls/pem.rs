//! PEM (RFC 7468): blocks of base64 between lines that say what they are.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

/// One block.
pub(super) struct Block<'a> {
    /// What it is, such as `CERTIFICATE`.
    pub(super) label: &'a str,
    /// Whether it is encrypted in the way of old OpenSSL (`Proc-Type: 4,ENCRYPTED`), so that its bytes say nothing.
    pub(super) legacy_encryption: bool,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// All blocks of a text; what stands between them is passed over. `Err` says what is wrong with the text.
///
/// As Kafka does, this reads also a text whose lines were joined with spaces.
pub(super) fn blocks(text: &str) -> Result<Vec<Block<'_>>, String> {
    const BEGIN: &str = "-----BEGIN ";
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        let (label, body) = begun.split_once("-----").ok_or("a BEGIN line has no end")?;
        let end = format!("-----END {label}-----");
        let (body, behind) =
            body.split_once(&*end).ok_or_else(|| format!("a {} has no END line", shown_label(label)))?;
        rest = behind;
        let legacy_encryption = body.contains("Proc-Type:");
        let mut digits = Zeroizing::new(String::with_capacity(body.len()));
        if !legacy_encryption {
            digits.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
        }
        let bytes = BASE64.decode(&*digits).map_err(|_| format!("a {} is not base64", shown_label(label)))?;
        blocks.push(Block { label, legacy_encryption, bytes: Zeroizing::new(bytes) });
    }
    Ok(blocks)
}

/// The label of a block, as an error may show it: the text may be no PEM at all.
pub(super) fn shown_label(label: &str) -> &str {
    let plain = label.len() <= 40 && label.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | ' ' | '#'));
    if plain { label } else { "block" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = "bag attributes\n-----BEGIN A B-----\r\naGVs\r\nbG8=\r\n-----END A B-----\n\
                    -----BEGIN C----- aGVs bG8= -----END C-----\n\
                    -----BEGIN D-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\naGVs\n-----END D-----";
        let blocks = blocks(text).unwrap();
        let seen: Vec<_> = blocks.iter().map(|b| (b.label, b.legacy_encryption, b.bytes.len())).collect();
        assert_eq!(seen, [("A B", false, 5), ("C", false, 5), ("D", true, 0)]);
    }

    #[test]
    fn what_is_broken_is_named() {
        for (text, part) in [
            ("-----BEGIN CERTIFICATE-----\naGVs", "no END"),
            ("-----BEGIN CERTIFICATE-----\n$$\n-----END CERTIFICATE-----", "not base64"),
            ("-----BEGIN X", "no end"),
        ] {
            assert!(blocks(text).err().unwrap().contains(part));
        }
        assert!(blocks("").unwrap().is_empty());
    }
}
