//! A JSON reader with the features that lines of events need.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Parses a text; `None` if it is not JSON as a whole.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.space();
        reader.rest.is_empty().then_some(value)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        if let Self::Object(fields) = self { fields.get(name) } else { None }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        if let Some(Self::Text(text)) = self.get(name) { Some(text) } else { None }
    }

    /// Returns a field that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Self::Number(number)) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
            _ => None,
        }
    }

    pub(crate) fn list(&self, name: &str) -> &[Self] {
        if let Some(Self::List(items)) = self.get(name) { items } else { &[] }
    }
}

struct Reader<'t> {
    rest: &'t str,
}

/// Maximum depth; no event is that deep.
const DEEPEST: u32 = 16;

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, text: &str) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        if depth > DEEPEST {
            return None;
        }
        self.space();
        match self.rest.chars().next()? {
            '{' => {
                self.take("{")?;
                let mut fields = BTreeMap::new();
                if self.take("}").is_some() {
                    return Some(Json::Object(fields));
                }
                loop {
                    self.space();
                    let name = self.text()?;
                    self.take(":")?;
                    fields.insert(name, self.value(depth + 1)?);
                    if self.take(",").is_none() {
                        return self.take("}").map(|()| Json::Object(fields));
                    }
                }
            }
            '[' => {
                self.take("[")?;
                let mut items = Vec::new();
                if self.take("]").is_some() {
                    return Some(Json::List(items));
                }
                loop {
                    items.push(self.value(depth + 1)?);
                    if self.take(",").is_none() {
                        return self.take("]").map(|()| Json::List(items));
                    }
                }
            }
            '"' => self.text().map(Json::Text),
            't' => self.take("true").map(|()| Json::Bool(true)),
            'f' => self.take("false").map(|()| Json::Bool(false)),
            'n' => self.take("null").map(|()| Json::Null),
            _ => {
                let end = self.rest.find([',', '}', ']', ' ']).unwrap_or(self.rest.len());
                let number = self.rest.get(..end)?.parse().ok()?;
                self.rest = self.rest.get(end..)?;
                Some(Json::Number(number))
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        let mut chars = self.rest.strip_prefix('"')?.chars();
        let mut out = String::new();
        loop {
            match chars.next()? {
                '"' => {
                    self.rest = chars.as_str();
                    return Some(out);
                }
                '\\' => out.push(match chars.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'u' => {
                        let code = chars.as_str().get(..4)?;
                        chars = chars.as_str().get(4..)?.chars();
                        char::from_u32(u32::from_str_radix(code, 16).ok()?).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    other => other,
                }),
                c => out.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_events_and_rejects_malformed_text() {
        let line = r#"{"timestamp":17,"name":"x\"\u0041\n","key":null,"list":[{"a":-1.5},true, []],"none":{}}"#;
        let event = Json::parse(line).unwrap();
        assert_eq!((event.number("timestamp"), event.text("name")), (Some(17), Some("x\"A\n")));
        assert_eq!(event.get("key"), Some(&Json::Null));
        assert_eq!(event.list("list")[0].get("a"), Some(&Json::Number(-1.5)));
        assert_eq!((event.list("list")[0].number("a"), event.list("list").len()), (None, 3));
        let deep = "[".repeat(100);
        for bad in
            ["", "{", r#"{"a":}"#, r#"{"a" 1}"#, "[1,]", r#"{"a":1} x"#, r#""open"#, "nul", "1x", r#""\u12"#, &deep]
        {
            assert_eq!(Json::parse(bad), None, "{bad}");
        }
    }
}
