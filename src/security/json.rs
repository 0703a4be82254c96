//! A JSON reader, limited to the needs of tokens and their endpoints. Texts are zeroed on drop,
//! because some of them are secrets.
//!
//! Sans-IO.

use zeroize::Zeroizing;

use super::Secret;

/// Limit of nesting; deeper than any response that is read here.
const DEPTH: usize = 16;

/// A JSON value.
#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Boolean(bool),
    Number(f64),
    Text(Text),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// A text that `Debug` does not show.
#[derive(PartialEq)]
pub(crate) struct Text(Zeroizing<String>);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Json {
    /// Reads one value; `None` if the bytes are not JSON, or if anything but white space follows
    /// the value.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: std::str::from_utf8(bytes).ok()? };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    /// Returns a member of an object. If several members have the name, it returns the last.
    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Self::Object(members) => members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Self::Text(text) => Some(&text.0),
            _ => None,
        }
    }

    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).filter(|text| !text.is_empty()).map(Secret::from)
    }

    /// Returns a number, also if it is in quotes, because some endpoints send it so.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.0.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn take(&mut self, what: &str) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(what)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.skip_space();
        match self.rest.chars().next()? {
            '{' if depth < DEPTH => self.object(depth + 1),
            '[' if depth < DEPTH => self.list(depth + 1),
            '"' => Some(Json::Text(Text(self.text()?))),
            't' => self.take("true").map(|()| Json::Boolean(true)),
            'f' => self.take("false").map(|()| Json::Boolean(false)),
            'n' => self.take("null").map(|()| Json::Null),
            '-' | '0'..='9' => self.number(),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.take("{")?;
        let mut members = Vec::new();
        if self.take("}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.skip_space();
            let name = self.text()?.to_string();
            self.take(":")?;
            members.push((name, self.value(depth)?));
            if self.take("}").is_some() {
                return Some(Json::Object(members));
            }
            self.take(",")?;
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.take("[")?;
        let mut items = Vec::new();
        if self.take("]").is_some() {
            return Some(Json::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.take("]").is_some() {
                return Some(Json::List(items));
            }
            self.take(",")?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let end = self.rest.find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'));
        let (digits, rest) = self.rest.split_at_checked(end.unwrap_or(self.rest.len()))?;
        self.rest = rest;
        digits.parse().ok().filter(|number: &f64| number.is_finite()).map(Json::Number)
    }

    fn text(&mut self) -> Option<Zeroizing<String>> {
        self.rest = self.rest.strip_prefix('"')?;
        // No text is longer than its escaped form, so the buffer never grows: growing would leave a
        // copy of a secret in memory.
        let mut out = Zeroizing::new(String::with_capacity(escaped_length(self.rest)));
        let mut chars = self.rest.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => out.push(match chars.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'u' => unicode(&mut chars)?,
                    c @ ('"' | '\\' | '/') => c,
                    _ => return None,
                }),
                c if c < ' ' => return None,
                c => out.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(out)
    }
}

/// Returns the bytes before the closing quotation mark.
fn escaped_length(rest: &str) -> usize {
    let mut bytes = rest.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return at,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    rest.len()
}

fn unicode(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let mut unit = || {
        let digits: String = chars.by_ref().take(4).collect();
        (digits.len() == 4).then(|| u16::from_str_radix(&digits, 16).ok())?
    };
    let first = unit()?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first.into());
    }
    (chars.next()? == '\\' && chars.next()? == 'u').then_some(())?;
    let digits: String = chars.by_ref().take(4).collect();
    let second = u16::from_str_radix(&digits, 16).ok()?;
    char::decode_utf16([first, second]).next()?.ok()
}

/// Returns a text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer that grows leaves a copy of a secret in memory that is given back.
    #[test]
    fn buffer_of_text_never_grows() {
        let secret = format!("\\\"{}\\\"\\ud83d\\ude00", "s".repeat(500));
        let json = format!("\"{secret}\"");
        let text = Reader { rest: &json }.text().unwrap();
        assert_eq!(text.chars().count(), 503);
        assert_eq!(text.capacity(), secret.len(), "the size at the beginning");
    }

    #[test]
    fn parses_token_endpoint_response() {
        let json = Json::parse(
            br#" {"access_token":"a\"\u00e9\ud83d\ude00/","expires_in": 3600, "s":"60","x":[1,-2.5e3,null,true,{}],"e":[]} "#,
        )
        .unwrap();
        assert_eq!(json.text("access_token"), Some("a\"é😀/"));
        assert_eq!((json.number("expires_in"), json.number("s"), json.number("x")), (Some(3600.0), Some(60.0), None));
        assert!(!format!("{json:?}").contains('é'));
        assert_eq!(Json::parse(b"[1, 2]"), Some(Json::List(vec![Json::Number(1.0), Json::Number(2.0)])));
    }

    #[test]
    fn rejects_malformed_or_deeply_nested_text() {
        let deep = "[".repeat(100_000);
        for bytes in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":}",
            "[1,]",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "1 2",
            "tru",
            "--",
            "1e999",
            "\"\n\"",
            "{a:1}",
            &deep,
        ] {
            assert_eq!(Json::parse(bytes.as_bytes()), None, "{}", bytes.get(..10).unwrap_or(bytes));
        }
        assert_eq!(Json::parse(&[0xff]), None);
    }

    #[test]
    fn quoted_text_parses_to_same_text() {
        for text in ["", "a\"b\\c\n\u{1}é"] {
            let json = Json::parse(format!("{{\"t\":{}}}", quoted(text)).as_bytes()).unwrap();
            assert_eq!(json.text("t"), Some(text));
        }
    }
}
