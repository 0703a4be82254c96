//! Writes the encoder of a struct.

use std::fmt::{self, Write};

use super::{
    Context,
    field::{View, views},
};
use crate::schema::{Struct, Type};

pub(super) fn write<'m>(out: &mut String, context: &Context<'m>, of: &Struct<'m>) -> fmt::Result {
    let views = views(context, of);
    let mut body = String::new();
    let plain: Vec<&View<'_>> = views.iter().filter(|view| !view.is_tagged()).collect();
    // Adjacent fields that the same versions have, and that are ignorable in the others, share an
    // `if`.
    let together = |a: &&View<'_>, b: &&View<'_>| {
        a.condition() == b.condition() && (a.condition().is_none() || (a.field.ignorable && b.field.ignorable))
    };
    for group in plain.chunk_by(together) {
        let put: Vec<String> = group.iter().map(|view| put(view)).collect();
        in_its_versions(&mut body, group[0], &put.join("\n"))?;
    }
    if !context.message.flexible_versions.is_empty() {
        let mut tagged: Vec<&View<'_>> = views.iter().filter(|view| view.is_tagged()).collect();
        tagged.sort_by_key(|view| view.field.tag);
        if tagged.is_empty() {
            body.push_str("e.no_tags();\n");
        } else {
            body.push_str("let mut tags = e.tags();\n");
            for view in tagged {
                let tag = view.field.tag.unwrap_or_default();
                let put = put(view);
                let put = match put.strip_suffix("?;") {
                    Some(call) => call.to_owned(),
                    None => format!("{{ {put} Ok(()) }}"),
                };
                match view.condition() {
                    None => write!(body, "if {} {{ tags.put({tag}, |e| {put})?; }}", view.is_set())?,
                    Some(condition) => {
                        write!(body, "if {condition} && {} {{ tags.put({tag}, |e| {put})?; }}", view.is_set())?;
                        if !view.field.ignorable {
                            write!(body, " else if {} {{ return Err(e.lacks(\"{}\")); }}", view.is_set(), view.label)?;
                        }
                    }
                }
                body.push('\n');
            }
            body.push_str("tags.end();\n");
        }
    }
    let version = if body.contains("v ") || body.contains("(&v)") { "let v = e.version();\n" } else { "" };
    let e = if body.is_empty() { "_" } else { "e" };
    write!(
        out,
        "impl Encode for {} {{\nfn encode(&self, {e}: &mut Encoder<'_>) -> Result<()> {{\n{version}{body}Ok(())\n}}\n}}\n\n",
        of.name
    )
}

fn in_its_versions(body: &mut String, view: &View<'_>, put: &str) -> fmt::Result {
    let Some(condition) = view.condition() else { return writeln!(body, "{put}") };
    write!(body, "if {condition} {{ {put} }}")?;
    if !view.field.ignorable {
        write!(body, " else if {} {{ return Err(e.lacks(\"{}\")); }}", view.is_set(), view.label)?;
    }
    body.push('\n');
    Ok(())
}

fn put(view: &View<'_>) -> String {
    let View { name, label, .. } = view;
    let null = view.may_be_null();
    match (&view.field.kind, view.is_nullable()) {
        (Type::Bool, _) => format!("e.bool(self.{name});"),
        (Type::Int8, _) => format!("e.i8(self.{name});"),
        (Type::Int16, _) => format!("e.i16(self.{name});"),
        (Type::Uint16, _) => format!("e.u16(self.{name});"),
        (Type::Int32, _) => format!("e.i32(self.{name});"),
        (Type::Int64, _) => format!("e.i64(self.{name});"),
        (Type::Float64, _) => format!("e.f64(self.{name});"),
        (Type::Uuid, _) => format!("e.uuid(self.{name});"),
        (Type::String, false) => format!("e.string(\"{label}\", &self.{name})?;"),
        (Type::String, true) => format!("e.string_or_null(\"{label}\", self.{name}.as_deref(), {null})?;"),
        (Type::Bytes, false) => format!("e.bytes(\"{label}\", &self.{name})?;"),
        (Type::Bytes, true) => format!("e.bytes_or_null(\"{label}\", self.{name}.as_deref(), {null})?;"),
        (Type::Array(_), false) => format!("e.array(\"{label}\", &self.{name})?;"),
        (Type::Array(_), true) => format!("e.array_or_null(\"{label}\", self.{name}.as_deref(), {null})?;"),
        (Type::Struct(_), false) => format!("self.{name}.encode(e)?;"),
        (Type::Struct(_), true) => format!("e.struct_or_null(\"{label}\", self.{name}.as_ref(), {null})?;"),
    }
}
