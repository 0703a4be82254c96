//! Parses the `Debug` text of a message into a tree and compares it with JSON.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::Value as Json;

/// A value as `Debug` prints it.
#[derive(Debug, PartialEq)]
pub(crate) enum Value {
    Struct(Vec<(String, Value)>),
    List(Vec<Value>),
    Some(Box<Value>),
    None,
    Text(String),
    Bytes(Vec<u8>),
    /// A number, a boolean or a UUID.
    Word(String),
}

/// Parses the text of one value.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let value = parser.value()?;
    if parser.rest.is_empty() { Ok(value) } else { Err(format!("left over: {}", parser.rest)) }
}

struct Parser<'t> {
    rest: &'t str,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(format!("{token:?} expected before {}", self.rest)) }
    }

    fn word(&mut self) -> String {
        let end = self.rest.find([',', ' ', ':', '(', ')', '[', ']', '{', '}']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn value(&mut self) -> Result<Value, String> {
        if self.take("b\"") {
            return self.quoted(true).map(Value::Bytes);
        }
        if self.take("\"") {
            let text = String::from_utf8(self.quoted(false)?).map_err(|error| error.to_string())?;
            return Ok(Value::Text(text));
        }
        if self.take("[") {
            let mut elements = Vec::new();
            while !self.take("]") {
                elements.push(self.value()?);
                self.take(", ");
            }
            return Ok(Value::List(elements));
        }
        let word = self.word();
        match word.as_str() {
            "None" => return Ok(Value::None),
            "Some" => {
                self.expect("(")?;
                let value = self.value()?;
                self.expect(")")?;
                return Ok(Value::Some(Box::new(value)));
            }
            _ if !word.starts_with(|c: char| c.is_ascii_uppercase()) => return Ok(Value::Word(word)),
            _ => {}
        }
        let mut fields = Vec::new();
        if self.take(" { ") {
            while !self.take(" }") {
                let name = self.word();
                self.expect(": ")?;
                fields.push((name, self.value()?));
                self.take(", ");
            }
        }
        Ok(Value::Struct(fields))
    }

    /// Reads up to the closing quote.
    fn quoted(&mut self, bytes: bool) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        loop {
            let mut chars = self.rest.chars();
            let c = chars.next().ok_or("no closing quote")?;
            self.rest = chars.as_str();
            match c {
                '"' => return Ok(out),
                '\\' => self.escaped(&mut out, bytes)?,
                c => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn escaped(&mut self, out: &mut Vec<u8>, bytes: bool) -> Result<(), String> {
        let mut chars = self.rest.chars();
        let c = chars.next().ok_or("no escaped character")?;
        self.rest = chars.as_str();
        match c {
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' | '"' | '\'' => out.push(c as u8),
            'x' if bytes => {
                let (digits, rest) = self.rest.split_at_checked(2).ok_or("two digits expected")?;
                self.rest = rest;
                out.push(u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?);
            }
            'u' if !bytes => {
                self.expect("{")?;
                let digits = self.word();
                self.expect("}")?;
                let code = u32::from_str_radix(&digits, 16).map_err(|error| error.to_string())?;
                let c = char::from_u32(code).ok_or("no character")?;
                out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => return Err(format!("escape {other:?}")),
        }
        Ok(())
    }
}

/// Compares a value with the JSON that Kafka prints of it: every field of the JSON has to be in the
/// value, with the same content.
pub(crate) fn compare(json: &Json, value: &Value) -> Result<(), String> {
    let equal = match (json, value) {
        (Json::Null, Value::None) => true,
        (json, Value::Some(value)) => return compare(json, value),
        (Json::Object(object), Value::Struct(fields)) => {
            for (name, json) in object {
                let is_named = |field: &str| field.replace('_', "") == name.to_lowercase();
                let field = fields.iter().find(|(field, _)| is_named(field));
                let (_, value) = field.ok_or_else(|| format!("no field {name}"))?;
                compare(json, value).map_err(|problem| format!("{name}: {problem}"))?;
            }
            true
        }
        (Json::Array(array), Value::List(elements)) if array.len() == elements.len() => {
            for (json, value) in array.iter().zip(elements) {
                compare(json, value)?;
            }
            true
        }
        (Json::String(text), Value::Text(value)) => text == value,
        (Json::String(text), Value::Bytes(value)) => *text == STANDARD.encode(value),
        (Json::String(text), Value::Word(uuid)) => {
            let digits = uuid.replace('-', "");
            u128::from_str_radix(&digits, 16).is_ok_and(|uuid| *text == URL_SAFE_NO_PAD.encode(uuid.to_be_bytes()))
        }
        (Json::Bool(truth), Value::Word(word)) => word.parse() == Ok(*truth),
        (Json::Number(number), Value::Word(word)) => match number.as_i64() {
            Some(number) => word.parse() == Ok(number),
            None => number.as_f64().is_some_and(|number| word.parse() == Ok(number)),
        },
        _ => false,
    };
    if equal { Ok(()) } else { Err(format!("{json} is not {value:?}")) }
}

#[test]
fn parses_debug_output_and_compares_with_json() {
    #[derive(Debug)]
    #[allow(dead_code, reason = "printed alone")]
    struct Inner {
        names: Vec<Option<&'static str>>,
    }
    #[derive(Debug)]
    #[allow(dead_code, reason = "printed alone")]
    struct Outer {
        some_bytes: bytes::Bytes,
        inner: Option<Inner>,
        number: i64,
        float: f64,
    }
    let names = vec![Some("a\"\\\u{301}}, x: é"), None];
    let outer = Outer {
        some_bytes: bytes::Bytes::from_static(b"\0\xff\"a"),
        inner: Some(Inner { names }),
        number: i64::MIN,
        float: -1.5,
    };
    let value = parse(&format!("{outer:?}")).expect("a value");
    let json = serde_json::json!({
        "someBytes": "AP8iYQ==",
        "inner": { "names": ["a\"\\\u{301}}, x: é", null] },
        "number": i64::MIN,
        "float": -1.5,
    });
    assert_eq!(compare(&json, &value), Ok(()));
    for (pointer, other) in [
        ("/someBytes", serde_json::json!("AP8iYg==")),
        ("/inner/names/1", serde_json::json!("")),
        ("/number", serde_json::json!(1)),
        ("/float", serde_json::json!(2.5)),
        ("/inner", serde_json::json!({ "name": [] })),
    ] {
        let mut bent = json.clone();
        *bent.pointer_mut(pointer).expect("a place") = other;
        assert!(compare(&bent, &value).is_err(), "{pointer}");
    }
}
