//! The part of JSON that is needed: writing, and reading the one flat object that a runner prints.

/// The value of a field of a runner's line.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Text(String),
}

/// The fields of a flat object, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(|value| if let Value::Number(number) = value { Some(*number) } else { None })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// Reads one object of numbers and strings; anything nested is an error.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text.trim() };
        let object = reader.object().map_err(|what| format!("{what} in {text:?}"))?;
        if reader.rest.is_empty() { Ok(object) } else { Err(format!("extra text after the object in {text:?}")) }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn object(&mut self) -> Result<Object, &'static str> {
        let mut fields = Vec::new();
        self.expect('{')?;
        if self.take('}') {
            return Ok(Object(fields));
        }
        loop {
            self.expect('"')?;
            let name = self.string()?;
            self.expect(':')?;
            let value = if self.take('"') { Value::Text(self.string()?) } else { Value::Number(self.number()?) };
            fields.push((name, value));
            if !self.take(',') {
                self.expect('}')?;
                return Ok(Object(fields));
            }
        }
    }

    /// Reads the text after an opening quotation mark, up to the closing one.
    fn string(&mut self) -> Result<String, &'static str> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        while let Some(char) = chars.next() {
            match char {
                '"' => {
                    self.rest = chars.as_str();
                    return Ok(text);
                }
                '\\' => text.push(match chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(char @ ('"' | '\\' | '/')) => char,
                    _ => return Err("an escape that no runner writes"),
                }),
                char => text.push(char),
            }
        }
        Err("a string without an end")
    }

    fn number(&mut self) -> Result<f64, &'static str> {
        let end = self.rest.find([',', '}']).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let number = number.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        self.rest = rest;
        number.ok_or("no number")
    }

    fn take(&mut self, char: char) -> bool {
        let Some(rest) = self.rest.trim_start().strip_prefix(char) else { return false };
        // Spaces count within a string, so they are skipped only before a token.
        self.rest = if char == '"' { rest } else { rest.trim_start() };
        true
    }

    fn expect(&mut self, char: char) -> Result<(), &'static str> {
        if self.take(char) { Ok(()) } else { Err("an unexpected character") }
    }
}

pub fn text(text: &str) -> String {
    let mut out = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            char if char < ' ' => out.push_str(&format!("\\u{:04x}", char as u32)),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

/// Returns `null` for a missing number and for one that is not finite.
pub fn number(number: Option<f64>) -> String {
    number.filter(|number| number.is_finite()).map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// Writes an object of fields; their values are JSON already.
pub fn object<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{}:{value}", text(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// Writes an array of values that are JSON already.
pub fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_numbers_of_runner() {
        let line = "{\"client\":\"ottla\",\"version\":\"0.1.0\",\"records\":200,\"cpu_us_per_record\":1.5e-1}\n";
        let object = Object::read(line).unwrap();
        assert_eq!((object.text("client"), object.number("records")), (Some("ottla"), Some(200.0)));
        assert_eq!(object.number("cpu_us_per_record"), Some(0.15));
        assert_eq!((object.number("p50_us"), object.number("client"), object.text("records")), (None, None, None));
    }

    #[test]
    fn reads_spaces_and_escapes_in_text() {
        let object = Object::read(r#" { "a b" : " x\"\\ " , "n" : -3 } "#).unwrap();
        assert_eq!((object.text("a b"), object.number("n")), (Some(" x\"\\ "), Some(-3.0)));
        assert_eq!(Object::read("{}").unwrap(), Object::default());
    }

    #[test]
    fn rejects_anything_but_flat_objects() {
        let wrong = [
            "",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1}}",
            "{\"a\":[1]}",
            "{\"a\":{}}",
            "{\"a\":NaN}",
            "{\"a\":\"b}",
            "{\"a\":1,}",
            "error",
            "{\"a\":\"\\u0041\"}",
        ];
        for line in wrong {
            assert!(Object::read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn written_objects_are_read_back_equal() {
        let line = object([("a\"\\\n", text("b\t\"")), ("n", number(Some(1.25)))]);
        let read = Object::read(&line).unwrap();
        assert_eq!((read.text("a\"\\\n"), read.number("n")), (Some("b\t\""), Some(1.25)));
        assert_eq!(array([number(None), number(Some(f64::NAN)), text("\u{1}")]), "[null,null,\"\\u0001\"]");
    }
}
