//! The difference between the messages of two versions of Kafka.

use std::{collections::BTreeSet, error::Error};

use crate::{
    apis::APIS,
    jar::{Schemas, VERSION, schemas},
    schema::{Field, Message},
};

/// Returns one line for each message that is new in `version`, and for each version or field that
/// an existing message gained.
///
/// # Errors
/// An error if the schemas of either version cannot be fetched.
pub fn news(version: &str) -> Result<Vec<String>, Box<dyn Error>> {
    Ok(differences(&schemas(VERSION)?, &schemas(version)?))
}

fn differences(old: &Schemas, new: &Schemas) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, message) in new {
        let api = name.trim_end_matches("Request").trim_end_matches("Response");
        let place = if APIS.contains(&api) { "" } else { " (not generated)" };
        let Some(before) = old.get(name) else {
            lines.push(format!("{name}{place}: new, versions {}", message.stable_versions()));
            continue;
        };
        if before.stable_versions() != message.stable_versions() {
            let (from, to) = (before.stable_versions(), message.stable_versions());
            lines.push(format!("{name}{place}: versions {from} become {to}"));
        }
        let known = fields(before);
        lines.extend(fields(message).difference(&known).map(|field| format!("{name}{place}: {field}")));
    }
    lines.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("{name}: gone")));
    lines
}

/// Returns every field with its struct, type and versions.
fn fields(message: &Message) -> BTreeSet<String> {
    let line = |of: &str, field: &Field| format!("{of}.{}: {:?}, versions {}", field.name, field.kind, field.versions);
    message.structs().iter().flat_map(|of| of.fields.iter().map(|field| line(of.name, field))).collect()
}
