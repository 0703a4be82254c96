//! Escapes and cuts text from outside (a broker, another member, a token endpoint, a certificate)
//! for error messages and log lines.

use std::borrow::Cow;

/// Maximum bytes of one piece of such text.
const PIECE: usize = 512;
/// Maximum bytes of a whole message, which may hold many pieces.
const MESSAGE: usize = 8192;
const CUT: char = '…';

/// Returns `text` with each character that a terminal or a log viewer acts on written as an escape
/// (`\n`, `\u{1b}`), cut at 512 bytes. Text without such characters is returned as it is, without
/// an allocation.
///
/// Escaped characters are: control characters (C0, DEL, C1), the separators of lines and paragraphs
/// (U+2028, U+2029), and characters that reorder or hide text (bidirectional controls, zero-width
/// characters, tags). A second call changes nothing.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    escaped(text, PIECE).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Returns true if [`clean`] returns the text as it is.
pub(crate) fn is_clean(text: &str) -> bool {
    matches!(clean(text), Cow::Borrowed(_))
}

/// Cleans the message of an error like [`clean`], but cuts it at 8192 bytes, because it may hold
/// many pieces.
pub(super) fn clean_message(message: String) -> String {
    escaped(&message, MESSAGE).unwrap_or(message)
}

/// Returns `None` if nothing has to change.
fn escaped(text: &str, limit: usize) -> Option<String> {
    if text.len() <= limit && !text.chars().any(is_unsafe) {
        return None;
    }
    let mut out = String::with_capacity(text.len().min(limit));
    // Length at which the text is cut if it does not fit.
    let mut fits = 0;
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
        if out.len() > limit {
            out.truncate(fits);
            out.push(CUT);
            break;
        }
        if out.len() + CUT.len_utf8() <= limit {
            fits = out.len();
        }
    }
    Some(out)
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_control_and_invisible_characters() {
        for (raw, shown) in [
            ("a\r\nb\tc\0", r"a\r\nb\tc\0"),
            ("\u{1b}[31mred\u{7f}", r"\u{1b}[31mred\u{7f}"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            ("\u{202e}txt\u{2066}\u{200f}\u{61c}", r"\u{202e}txt\u{2066}\u{200f}\u{61c}"),
            ("a\u{2028}b\u{2029}c", r"a\u{2028}b\u{2029}c"),
            ("\u{feff}a\u{200b}b\u{e0041}\u{ad}", r"\u{feff}a\u{200b}b\u{e0041}\u{ad}"),
        ] {
            assert_eq!(clean(raw), shown);
        }
    }

    #[test]
    fn borrows_text_without_control_characters() {
        let long = "é".repeat(PIECE / 2);
        for text in ["", "plain", r#"a\nb "quoted" 'it'"#, "naïve e\u{301} 東京 🦦", "nbsp\u{a0}", &long] {
            assert!(matches!(clean(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn truncates_long_text_between_whole_characters() {
        for unit in ["x", "é", "東", "🦦", "\u{1b}", "a\n"] {
            let cleaned = clean(&unit.repeat(PIECE + 1)).into_owned();
            assert!(cleaned.len() <= PIECE && cleaned.len() > PIECE - 16, "{} of {unit:?}", cleaned.len());
            let kept = cleaned.strip_suffix(CUT).expect("the cut is visible");
            assert!(!kept.ends_with(['\\', '{']), "an escape was cut: {kept}");
        }
        assert_eq!(clean_message("y".repeat(MESSAGE)).len(), MESSAGE);
        assert!(clean_message("y".repeat(MESSAGE + 1)).ends_with(CUT));
    }

    proptest! {
        #[test]
        fn cleaning_twice_equals_cleaning_once(text in any::<String>(), times in 1_usize..40) {
            let once = clean(&text.repeat(times)).into_owned();
            prop_assert!(once.len() <= PIECE && !once.chars().any(is_unsafe));
            prop_assert_eq!(&*clean(&once), &*once);
        }
    }
}
