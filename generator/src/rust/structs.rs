//! Writes the type itself, with its defaults.

use std::fmt::{self, Write};

use super::{Context, field::views, snake};
use crate::schema::Struct;

pub(super) fn write<'m>(out: &mut String, context: &Context<'m>, of: &Struct<'m>) -> fmt::Result {
    let views = views(context, of);
    let message = context.message;
    if of.name == message.name {
        let (api, half) = match of.name.strip_suffix("Request") {
            Some(api) => (api, "Request"),
            None => (of.name.trim_end_matches("Response"), "Response"),
        };
        let flexible = match message.flexible_versions {
            none if none.is_empty() => "no version is flexible".to_owned(),
            some => format!("flexible since {}", some.min),
        };
        let versions = message.stable_versions();
        match message.api_key {
            Some(key) => writeln!(out, "/// {half} of {api} (key {key}), versions {versions}; {flexible}.")?,
            None => writeln!(out, "/// {}, versions {versions}; {flexible}.", of.name)?,
        }
    } else {
        let used = message.structs().into_iter().find_map(|outer| {
            let field = outer.fields.iter().find(|field| field.kind.struct_name() == Some(of.name))?;
            Some((outer.name.to_owned(), snake(&field.name), matches!(field.kind, crate::schema::Type::Array(_))))
        });
        if let Some((outer, field, array)) = used {
            let element = if array { "Element" } else { "Value" };
            writeln!(out, "/// {element} of `{field}` in [`{outer}`].")?;
        }
    }
    let plain = views.iter().all(|view| view.default().is_none());
    let default = if plain { ", Default" } else { "" };
    writeln!(out, "#[derive(Clone, Debug{default}, PartialEq)]\npub(crate) struct {} {{", of.name)?;
    for view in &views {
        writeln!(out, "{}pub(crate) {}: {},", view.doc(), view.name, view.rust_type())?;
    }
    out.push_str("}\n\n");
    if !plain {
        writeln!(out, "impl Default for {} {{\nfn default() -> Self {{\nSelf {{", of.name)?;
        for view in &views {
            writeln!(out, "{}: {},", view.name, view.default_expression())?;
        }
        out.push_str("}\n}\n}\n\n");
    }
    Ok(())
}
