//! Kafka's message schemas: JSON with comments, one message per file.

use std::{error::Error, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// A range of versions, both ends included; an empty range has `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first version.
    pub min: i16,
    /// The last version.
    pub max: i16,
}

impl Versions {
    /// The empty range.
    pub const NONE: Self = Self { min: 0, max: -1 };

    /// Returns true if the range contains the version.
    pub fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Returns the versions that are in both ranges.
    pub fn intersect(self, other: Self) -> Self {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        if both.is_empty() { Self::NONE } else { both }
    }

    /// Returns true if the range is empty.
    pub fn is_empty(self) -> bool {
        self.min > self.max
    }

    /// Returns true if the range contains every version of `other`.
    pub fn cover(self, other: Self) -> bool {
        other.is_empty() || (self.min <= other.min && self.max >= other.max)
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::NONE
    }
}

impl FromStr for Versions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a range of versions"));
        if text == "none" {
            return Ok(Self::NONE);
        }
        if let Some(min) = text.strip_suffix('+') {
            return Ok(Self { min: number(min)?, max: i16::MAX });
        }
        match text.split_once('-') {
            Some((min, max)) => Ok(Self { min: number(min)?, max: number(max)? }),
            None => number(text).map(|only| Self { min: only, max: only }),
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { min, max } if min > max => f.write_str("none"),
            Self { min, max: i16::MAX } => write!(f, "{min} and later"),
            Self { min, max } if min == max => write!(f, "{min}"),
            Self { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// One byte, 0 or 1.
    Bool,
    /// One byte.
    Int8,
    /// Two bytes.
    Int16,
    /// Two bytes, unsigned.
    Uint16,
    /// Four bytes.
    Int32,
    /// Eight bytes.
    Int64,
    /// Eight bytes of IEEE 754.
    Float64,
    /// Sixteen bytes.
    Uuid,
    /// UTF-8, after its length.
    String,
    /// `bytes` and `records`, which have the same encoding.
    Bytes,
    /// Elements, after their number.
    Array(Box<Type>),
    /// The fields of a struct of that name.
    Struct(String),
}

impl Type {
    /// Returns the struct of a value, or of each element of an array.
    pub fn struct_name(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(element) => element.struct_name(),
            _ => None,
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(element) = text.strip_prefix("[]") {
            return Ok(Self::Array(Box::new(element.parse()?)));
        }
        Ok(match text {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "uint16" => Self::Uint16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "float64" => Self::Float64,
            "uuid" => Self::Uuid,
            "string" => Self::String,
            "bytes" | "records" => Self::Bytes,
            name if name.starts_with(char::is_uppercase) => Self::Struct(name.to_owned()),
            other => return Err(format!("type {other:?} is not known")),
        })
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// A field of a message or of a struct in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The name, in camel case.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: Type,
    /// The versions that have the field.
    pub versions: Versions,
    /// The versions in which the value may be null.
    #[serde(default)]
    pub nullable_versions: Versions,
    /// The versions in which the field is a tagged one (KIP-482).
    #[serde(default)]
    pub tagged_versions: Versions,
    /// The number of a tagged field.
    pub tag: Option<u32>,
    /// The default, if the schema gives one.
    pub default: Option<Value>,
    /// True if a version without the field drops a value instead of refusing it.
    #[serde(default)]
    pub ignorable: bool,
    /// The kind of entity that the value names, such as `topicName`.
    pub entity_type: Option<String>,
    /// The fields, in their order on the wire.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// A struct that several fields of a message share.
#[derive(Clone, Debug, Deserialize)]
pub struct Common {
    /// The name, in camel case.
    pub name: String,
    /// The fields, in their order on the wire.
    pub fields: Vec<Field>,
}

/// One message.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The name, in camel case.
    pub name: String,
    /// The key of the API; headers and data have none.
    pub api_key: Option<i16>,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Every version, including one that is unstable.
    pub valid_versions: Versions,
    /// The versions with compact lengths and tagged fields (KIP-482).
    #[serde(default)]
    pub flexible_versions: Versions,
    /// True if the last version may still change.
    #[serde(default)]
    pub latest_version_unstable: bool,
    /// The fields, in their order on the wire.
    #[serde(default)]
    pub fields: Vec<Field>,
    /// The structs that several fields share.
    #[serde(default)]
    pub common_structs: Vec<Common>,
}

/// A struct of a message, by its name.
pub struct Struct<'m> {
    /// The name, in camel case.
    pub name: &'m str,
    /// The fields, in their order on the wire.
    pub fields: &'m [Field],
}

impl Message {
    /// Reads a schema as it is in the jar.
    ///
    /// # Errors
    /// An error if the text is not such a schema.
    pub fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        Ok(serde_json::from_str(&without_comments(text))?)
    }

    /// Returns the versions that a client may use: all but the last one while the schema calls it
    /// unstable.
    pub fn stable_versions(&self) -> Versions {
        let Versions { min, max } = self.valid_versions;
        Versions { min, max: max - i16::from(self.latest_version_unstable) }
    }

    /// Returns the message itself and every struct in it, an outer one before its inner ones.
    pub fn structs(&self) -> Vec<Struct<'_>> {
        let mut all = vec![Struct { name: &self.name, fields: &self.fields }];
        inner(&self.fields, &mut all);
        for common in &self.common_structs {
            all.push(Struct { name: &common.name, fields: &common.fields });
            inner(&common.fields, &mut all);
        }
        all
    }

    /// Returns the fields of the struct of that name.
    pub fn fields_of(&self, name: &str) -> Option<&[Field]> {
        self.structs().into_iter().find(|it| it.name == name).map(|it| it.fields)
    }
}

fn inner<'m>(fields: &'m [Field], all: &mut Vec<Struct<'m>>) {
    for field in fields.iter().filter(|field| !field.fields.is_empty()) {
        if let Some(name) = field.kind.struct_name() {
            all.push(Struct { name, fields: &field.fields });
        }
        inner(&field.fields, all);
    }
}

/// Removes `//` comments from the text; a string may contain two slashes.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let (mut in_string, mut escaped, mut end) = (false, false, line.len());
        for (at, c) in line.char_indices() {
            match c {
                '"' if !escaped => in_string = !in_string,
                '/' if !in_string && line[at..].starts_with("//") => {
                    end = at;
                    break;
                }
                _ => {}
            }
            escaped = c == '\\' && !escaped;
        }
        out.push_str(&line[..end]);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_version_ranges_of_schemas() {
        let versions = |text: &str| text.parse::<Versions>().unwrap();
        assert_eq!(versions("none"), Versions::NONE);
        assert_eq!(versions("3"), Versions { min: 3, max: 3 });
        assert_eq!(versions("0-4"), Versions { min: 0, max: 4 });
        assert_eq!(versions("7+"), Versions { min: 7, max: i16::MAX });
        assert!("x".parse::<Versions>().is_err());
        assert_eq!(versions("3+").intersect(versions("0-2")), Versions::NONE);
        assert!(versions("0+").cover(versions("2-5")) && !versions("3+").cover(versions("2-5")));
    }

    #[test]
    fn removes_comments_but_keeps_string_contents() {
        assert_eq!(without_comments("// a\n{ \"u\": \"a//b\\\"//\" } // c\n"), "\n{ \"u\": \"a//b\\\"//\" } \n");
    }
}
