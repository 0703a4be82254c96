//! Writes the decoder of a struct.

use std::fmt::{self, Write};

use super::{
    Context,
    field::{View, views},
};
use crate::schema::{Field, Message, Struct, Type, Versions};

pub(super) fn write<'m>(out: &mut String, context: &Context<'m>, of: &Struct<'m>) -> fmt::Result {
    let views = views(context, of);
    let (tagged, plain): (Vec<&View<'_>>, Vec<&View<'_>>) = views.iter().partition(|view| view.is_tagged());
    let flexible = context.message.flexible_versions;
    let mut literal = String::new();
    for view in plain {
        let read = take(view);
        let read = match view.condition() {
            None => read,
            Some(condition) => format!("if {condition} {{ {read} }} else {{ {} }}", view.default_expression()),
        };
        writeln!(literal, "{}: {read},", view.name)?;
    }
    let mut tags = String::new();
    if tagged.is_empty() {
        tags.push_str(if flexible.is_empty() { "" } else { "d.skip_tags()?;\n" });
    } else {
        tags.push_str("d.tags(|tag, d| {\nmatch tag {\n");
        for view in &tagged {
            let tag = view.field.tag.unwrap_or_default();
            let guard = view.tag_condition(flexible).map_or_else(String::new, |condition| format!(" if {condition}"));
            writeln!(tags, "{tag}{guard} => it.{} = {},", view.name, take(view))?;
            writeln!(literal, "{}: {},", view.name, view.default_expression())?;
        }
        tags.push_str("_ => return Ok(false),\n}\nOk(true)\n})?;\n");
    }
    let body = match (tagged.is_empty(), tags.is_empty()) {
        (true, true) => format!("Ok(Self {{\n{literal}}})"),
        (true, false) => format!("let it = Self {{\n{literal}}};\n{tags}Ok(it)"),
        (false, _) => format!("let mut it = Self {{\n{literal}}};\n{tags}Ok(it)"),
    };
    let version = if body.contains("v ") || body.contains("(&v)") { "let v = d.version();\n" } else { "" };
    let d = if body.contains("d.") { "d" } else { "_" };
    let least = match least_of_element(context, of) {
        Some(least) => format!("const LEAST: usize = {least};\n\n"),
        None => String::new(),
    };
    write!(
        out,
        "impl Decode for {} {{\n{least}fn decode({d}: &mut Decoder) -> Result<Self> {{\n{version}{body}\n}}\n}}\n\n",
        of.name
    )
}

/// Returns the minimum bytes of the struct in any version that has it, or `None` if no array has it
/// as its element.
fn least_of_element(context: &Context<'_>, of: &Struct<'_>) -> Option<usize> {
    let is_element =
        |field: &Field| matches!(&field.kind, Type::Array(of_array) if of_array.struct_name() == Some(of.name));
    if !context.message.structs().iter().any(|outer| outer.fields.iter().any(is_element)) {
        return None;
    }
    let Versions { min, max } = context.reach(of.name);
    (min..=max).map(|version| least(context.message, of.fields, version)).min()
}

/// Returns the minimum bytes of the fields of a struct in a version.
fn least(message: &Message, fields: &[Field], version: i16) -> usize {
    let flexible = message.flexible_versions.contains(version);
    let plain = fields.iter().filter(|field| {
        field.versions.contains(version) && !(field.tag.is_some() && field.tagged_versions.contains(version))
    });
    let of_field = |field: &Field| match &field.kind {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        // These take only their length.
        Type::String | Type::Bytes | Type::Array(_) if flexible => 1,
        Type::String => 2,
        Type::Bytes | Type::Array(_) => 4,
        Type::Struct(_) if field.nullable_versions.contains(version) => 1,
        Type::Struct(name) => least(message, message.fields_of(name).unwrap_or_default(), version),
    };
    plain.map(of_field).sum::<usize>() + usize::from(flexible)
}

fn take(view: &View<'_>) -> String {
    let label = &view.label;
    let null = view.may_be_null();
    let plain = |read: &str| format!("d.{read}(\"{label}\")?");
    match (&view.field.kind, view.is_nullable()) {
        (Type::Bool, _) => plain("bool"),
        (Type::Int8, _) => plain("i8"),
        (Type::Int16, _) => plain("i16"),
        (Type::Uint16, _) => plain("u16"),
        (Type::Int32, _) => plain("i32"),
        (Type::Int64, _) => plain("i64"),
        (Type::Float64, _) => plain("f64"),
        (Type::Uuid, _) => plain("uuid"),
        (Type::String, false) => plain("string"),
        (Type::String, true) => format!("d.string_or_null(\"{label}\", {null})?"),
        (Type::Bytes, false) => plain("bytes"),
        (Type::Bytes, true) => format!("d.bytes_or_null(\"{label}\", {null})?"),
        (Type::Array(_), false) => plain("array"),
        (Type::Array(_), true) => format!("d.array_or_null(\"{label}\", {null})?"),
        (Type::Struct(_), false) => plain("structure"),
        (Type::Struct(_), true) => format!("d.struct_or_null(\"{label}\", {null})?"),
    }
}
