//! Writes Rust from schemas: one file for each message, and a list of them.

mod decode;
mod encode;
mod field;
mod structs;

use std::{collections::BTreeMap, error::Error, fmt::Write};

use crate::{
    apis::{APIS, DATA},
    jar::{Schemas, VERSION},
    schema::{Message, Type, Versions},
};

/// Files by their names.
pub(crate) type Files = BTreeMap<String, String>;

/// One message, and the versions that have each of its structs.
struct Context<'m> {
    message: &'m Message,
    reach: BTreeMap<&'m str, Versions>,
}

impl<'m> Context<'m> {
    fn new(message: &'m Message) -> Self {
        let mut reach = BTreeMap::from([(message.name.as_str(), message.stable_versions())]);
        // An outer struct comes before its inner ones, but common structs may use each other.
        for _ in 0..4 {
            for outer in message.structs() {
                let Some(&of_outer) = reach.get(outer.name) else { continue };
                for field in outer.fields {
                    let Some(name) = field.kind.struct_name() else { continue };
                    let here = field.versions.intersect(of_outer);
                    let known = reach.entry(name).or_insert(here);
                    *known = hull(*known, here);
                }
            }
        }
        Self { message, reach }
    }

    fn reach(&self, name: &str) -> Versions {
        self.reach.get(name).copied().unwrap_or_default()
    }
}

fn hull(a: Versions, b: Versions) -> Versions {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => Versions { min: a.min.min(b.min), max: a.max.max(b.max) },
    }
}

/// Returns a condition on the version `v`, known to be in `outer`, that is true if it is in
/// `inner`; `None` if it always is.
fn condition(inner: Versions, outer: Versions) -> Option<String> {
    let both = inner.intersect(outer);
    Some(match both {
        _ if both.cover(outer) => return None,
        _ if both.is_empty() => "false".to_owned(),
        Versions { min, max } if min == max => format!("v == {min}"),
        Versions { min, max } if max == outer.max => format!("v >= {min}"),
        Versions { min, max } if min == outer.min => format!("v <= {max}"),
        Versions { min, max } => format!("({min}..={max}).contains(&v)"),
    })
}

/// Returns every generated file of `src/wire/messages/`, not formatted yet.
///
/// # Errors
/// An error if a schema is missing, or has something that this generator does not know.
pub(crate) fn files(schemas: &Schemas) -> Result<Files, Box<dyn Error>> {
    let mut files = Files::new();
    let mut modules = String::new();
    let mut exports = String::new();
    let mut list = String::new();
    let mut table = String::new();
    let mut throttled = String::new();
    for api in APIS {
        let get = |half: &str| {
            let name = format!("{api}{half}");
            schemas.get(&name).ok_or_else(|| format!("the jar has no schema {name}"))
        };
        let (request, response) = (get("Request")?, get("Response")?);
        if (request.stable_versions(), request.flexible_versions.min)
            != (request.stable_versions().intersect(response.valid_versions), response.flexible_versions.min)
        {
            return Err(format!("{api}: request and response differ in their versions").into());
        }
        for message in [request, response] {
            let module = snake(&message.name);
            files.insert(format!("{module}.rs"), file(message, Some(api))?);
            writeln!(modules, "pub(crate) mod {module};")?;
            writeln!(exports, "pub(crate) use {module}::{};", message.name)?;
            writeln!(list, "    {},", message.name)?;
        }
        let Versions { min, max } = request.stable_versions();
        writeln!(table, "ApiKey::{api} => ({min}, {max}, {}),", flexible(request))?;
        if let Some(first) = throttled_from(response) {
            writeln!(throttled, "ApiKey::{api} => {first},")?;
        }
    }
    for name in DATA {
        let message = schemas.get(*name).ok_or_else(|| format!("the jar has no schema {name}"))?;
        let module = snake(name);
        files.insert(format!("{module}.rs"), file(message, None)?);
        writeln!(modules, "{BROKER}pub(crate) mod {module};")?;
        writeln!(exports, "{BROKER}pub(crate) use {module}::{name};")?;
    }
    let index = INDEX
        .replace("@head", &head())
        .replace("@modules", &modules)
        .replace("@exports", &exports)
        .replace("@versions", &table)
        .replace("@throttled", &throttled)
        .replace("@list", &list);
    files.insert("mod.rs".to_owned(), index);
    Ok(files)
}

/// The file that lists the others; its lines with `@` are placeholders.
const INDEX: &str = include_str!("index.rs.txt");

/// The attribute of an item that only a broker needs.
const BROKER: &str = "#[cfg(feature = \"testkit\")]\n";

/// Returns the first version that begins with `ThrottleTimeMs`, as all later versions then do.
fn throttled_from(response: &Message) -> Option<i16> {
    let stable = response.stable_versions();
    let leads = |version: i16| {
        let first = response.fields.iter().find(|field| {
            field.versions.contains(version) && !(field.tag.is_some() && field.tagged_versions.contains(version))
        });
        first.is_some_and(|field| field.name == "ThrottleTimeMs")
    };
    (stable.min..=stable.max).find(|from| (*from..=stable.max).all(leads))
}

fn head() -> String {
    format!("// Generated by `cargo run -p generator -- write` from the schemas of Kafka {VERSION}; do not edit.\n")
}

/// Returns the first flexible version as Rust source.
fn flexible(message: &Message) -> String {
    match message.flexible_versions {
        none if none.is_empty() => "i16::MAX".to_owned(),
        some => some.min.to_string(),
    }
}

fn file(message: &Message, api: Option<&str>) -> Result<String, Box<dyn Error>> {
    let context = Context::new(message);
    let mut body = String::new();
    for of in message.structs() {
        if context.reach(of.name).is_empty() {
            continue;
        }
        structs::write(&mut body, &context, &of)?;
        body.push_str(if message.kind == "response" { BROKER } else { "" });
        encode::write(&mut body, &context, &of)?;
        body.push_str(if message.kind == "request" { BROKER } else { "" });
        decode::write(&mut body, &context, &of)?;
    }
    let Versions { min, max } = message.stable_versions();
    if let Some(api) = api {
        write!(
            body,
            "impl Message for {} {{\n const API: ApiKey = ApiKey::{api};\n const VERSIONS: (i16, i16) = ({min}, {max});\n const FLEXIBLE: i16 = {};\n}}\n\n",
            message.name,
            flexible(message)
        )?;
    }
    if let ("request", Some(api)) = (message.kind.as_str(), api) {
        write!(body, "impl Request for {} {{\n type Response = super::{api}Response;\n}}\n", message.name)?;
    }
    let uses = |word: &str| body.contains(word);
    let mut imports = String::new();
    if uses(": Bytes,") || uses("<Bytes>") {
        imports.push_str("use bytes::Bytes;\n");
    }
    if uses("Uuid") {
        imports.push_str("use uuid::Uuid;\n");
    }
    if !imports.is_empty() {
        imports.push('\n');
    }
    let string = if uses("ByteString") { "byte_string::ByteString, " } else { "" };
    let traits = match message.kind.as_str() {
        "request" => "ApiKey, protocol::{Message, Request}, ",
        "response" => "ApiKey, protocol::Message, ",
        _ => "",
    };
    Ok(format!(
        "{}\n{imports}use crate::{{error::Result, wire::{{{traits}{string}decoder::{{Decode, Decoder}}, encoder::{{Encode, Encoder}}}}}};\n\n{body}",
        head()
    ))
}

/// Converts `TopicId` to `topic_id`, `IsrNodes` to `isr_nodes`, `Enable2Pc` to `enable2_pc`.
fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, &c) in chars.iter().enumerate() {
        if c.is_uppercase() && at > 0 {
            let after_lower = !chars[at - 1].is_uppercase();
            let before_lower = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
            if after_lower || before_lower {
                out.push('_');
            }
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Returns the type in Rust, without the `Option` of a nullable field.
fn rust_type(kind: &Type) -> String {
    match kind {
        Type::Bool => "bool".to_owned(),
        Type::Int8 => "i8".to_owned(),
        Type::Int16 => "i16".to_owned(),
        Type::Uint16 => "u16".to_owned(),
        Type::Int32 => "i32".to_owned(),
        Type::Int64 => "i64".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Uuid => "Uuid".to_owned(),
        Type::String => "ByteString".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::Array(element) => format!("Vec<{}>", rust_type(element)),
        Type::Struct(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_field_names_to_snake_case() {
        for (name, expected) in [("TopicId", "topic_id"), ("ISRNodes", "isr_nodes"), ("MaxWaitMs", "max_wait_ms")] {
            assert_eq!(snake(name), expected);
        }
    }

    #[test]
    fn conditions_omit_bounds_already_implied() {
        let versions = |text: &str| text.parse().unwrap();
        let of = |inner: &str, outer: &str| condition(versions(inner), versions(outer));
        assert_eq!(of("0+", "1-5"), None);
        assert_eq!(of("3+", "1-5").as_deref(), Some("v >= 3"));
        assert_eq!(of("0-3", "1-5").as_deref(), Some("v <= 3"));
        assert_eq!(of("5+", "1-5").as_deref(), Some("v == 5"));
        assert_eq!(of("2-3", "1-5").as_deref(), Some("(2..=3).contains(&v)"));
        assert_eq!(of("6+", "1-5").as_deref(), Some("false"));
    }
}
