//! One field: its name, its default, and the versions that have it.

use serde_json::Value;

use super::{Context, condition, rust_type, snake};
use crate::schema::{Field, Struct, Type, Versions};

/// The parts of a field that the writers of a struct need.
pub(super) struct View<'m> {
    pub(super) field: &'m Field,
    /// The field's name in Rust.
    pub(super) name: String,
    /// The field's name in errors: the Rust name without `r#`.
    pub(super) label: String,
    /// The versions of its struct that have the field.
    pub(super) versions: Versions,
    /// The versions that have its struct.
    pub(super) outer: Versions,
    /// The versions in which the field may be null.
    nullable: Versions,
}

/// Returns the fields of a struct that any version has.
pub(super) fn views<'m>(context: &Context<'m>, of: &Struct<'m>) -> Vec<View<'m>> {
    let outer = context.reach(of.name);
    let view = |field: &'m Field| {
        let versions = field.versions.intersect(outer);
        let label = snake(&field.name);
        let name = match label.as_str() {
            "type" | "match" => format!("r#{label}"),
            _ => label.clone(),
        };
        View { field, name, label, versions, outer, nullable: field.nullable_versions.intersect(versions) }
    };
    of.fields.iter().map(view).filter(|view| !view.versions.is_empty()).collect()
}

impl View<'_> {
    pub(super) fn is_tagged(&self) -> bool {
        self.field.tag.is_some()
    }

    pub(super) fn is_nullable(&self) -> bool {
        !self.nullable.is_empty()
    }

    /// Returns the condition under which the field is present, or `None` if it always is.
    pub(super) fn condition(&self) -> Option<String> {
        condition(self.versions, self.outer)
    }

    /// Returns the condition under which the tag is the field's, in a version that has tags.
    pub(super) fn tag_condition(&self, flexible: Versions) -> Option<String> {
        condition(self.versions, self.outer.intersect(flexible))
    }

    /// Returns the condition under which the field may be null, as an expression.
    pub(super) fn may_be_null(&self) -> String {
        condition(self.nullable, self.versions).unwrap_or_else(|| "true".to_owned())
    }

    pub(super) fn rust_type(&self) -> String {
        let plain = rust_type(&self.field.kind);
        if self.is_nullable() { format!("Option<{plain}>") } else { plain }
    }

    /// Returns the schema's default, or `None` for a default that is empty: 0, false, "" and no
    /// elements.
    fn given_default(&self) -> Option<String> {
        let text = match self.field.default.as_ref()? {
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        match text.as_str() {
            "" | "0" | "false" => None,
            _ => Some(text),
        }
    }

    fn defaults_to_null(&self) -> bool {
        self.is_nullable() && self.given_default().as_deref() == Some("null")
    }

    /// Returns the default in Rust, or `None` if `Default` gives it.
    pub(super) fn default(&self) -> Option<String> {
        if self.defaults_to_null() {
            return None;
        }
        let plain = self.given_default().filter(|text| text != "null").map(|text| literal(&text));
        match (plain, self.is_nullable()) {
            (plain, false) => plain,
            (Some(plain), true) => Some(format!("Some({plain})")),
            (None, true) => Some(match &self.field.kind {
                Type::String => "Some(ByteString::new())".to_owned(),
                Type::Bytes => "Some(Bytes::new())".to_owned(),
                Type::Struct(of) => format!("Some({of}::default())"),
                _ => "Some(Vec::new())".to_owned(),
            }),
        }
    }

    /// Returns the default as an expression in any case.
    pub(super) fn default_expression(&self) -> String {
        self.default().unwrap_or_else(|| match &self.field.kind {
            _ if self.is_nullable() => "None".to_owned(),
            Type::Bool => "false".to_owned(),
            Type::Float64 => "0.0".to_owned(),
            Type::Uuid => "Uuid::nil()".to_owned(),
            Type::String => "ByteString::new()".to_owned(),
            Type::Bytes => "Bytes::new()".to_owned(),
            Type::Array(_) => "Vec::new()".to_owned(),
            Type::Struct(of) => format!("{of}::default()"),
            _ => "0".to_owned(),
        })
    }

    /// Returns an expression that is true if the value is not the default.
    pub(super) fn is_set(&self) -> String {
        let name = &self.name;
        if self.is_nullable() {
            return match self.default() {
                None => format!("self.{name}.is_some()"),
                Some(_) => format!("self.{name}.as_ref().is_none_or(|it| !it.is_empty())"),
            };
        }
        match (&self.field.kind, self.default()) {
            (Type::Bool, None) => format!("self.{name}"),
            (Type::Bool, Some(_)) => format!("!self.{name}"),
            (Type::String | Type::Bytes | Type::Array(_), _) => format!("!self.{name}.is_empty()"),
            (Type::Uuid, _) => format!("!self.{name}.is_nil()"),
            (Type::Struct(of), _) => format!("self.{name} != {of}::default()"),
            (Type::Float64, default) => format!("self.{name} != {}", default.unwrap_or_else(|| "0.0".to_owned())),
            (_, default) => format!("self.{name} != {}", default.unwrap_or_else(|| "0".to_owned())),
        }
    }

    /// Returns the field's documentation from its type, versions, tag and default in the schema.
    pub(super) fn doc(&self) -> String {
        let mut sentences = Vec::new();
        sentences.push(match self.field.entity_type.as_deref() {
            Some("topicName") => "Topic name.".to_owned(),
            Some("groupId") => "Group id.".to_owned(),
            Some("brokerId") => "Broker id.".to_owned(),
            Some("producerId") => "Producer id.".to_owned(),
            Some("transactionalId") => "Transactional id.".to_owned(),
            _ if self.field.name.ends_with("Ms") => "Milliseconds.".to_owned(),
            _ if self.field.name == "ErrorCode" => "Kafka's error code; 0 is success.".to_owned(),
            _ => String::new(),
        });
        if self.condition().is_some() {
            let Versions { min, max } = self.versions;
            let last = if max == self.outer.max { i16::MAX } else { max };
            let versions = Versions { min, max: last };
            sentences.push(format!("Version{} {versions}.", if min == last || last == i16::MAX { "" } else { "s" }));
        }
        if self.is_nullable() {
            sentences.push(match condition(self.nullable, self.versions) {
                None => "Nullable.".to_owned(),
                Some(_) if self.nullable.max == self.versions.max => {
                    format!("Nullable in version {} and later.", self.nullable.min)
                }
                Some(_) => format!("Nullable in versions {}.", self.nullable),
            });
        }
        if let Some(tag) = self.field.tag {
            sentences.push(format!("Tagged field {tag}."));
        }
        if let Some(default) = self.default().filter(|default| !default.starts_with("Some")) {
            sentences.push(format!("Default: {}.", default.replace('-', "−")));
        }
        sentences.retain(|sentence| !sentence.is_empty());
        if sentences.is_empty() { String::new() } else { format!("/// {}\n", sentences.join(" ")) }
    }
}

fn literal(text: &str) -> String {
    match text {
        "0x7fffffff" => "i32::MAX".to_owned(),
        "-2147483648" => "i32::MIN".to_owned(),
        "9223372036854775807" => "i64::MAX".to_owned(),
        other => other.to_owned(),
    }
}
