//! Properties by name: Java's names, librdkafka's names if they differ, and errors that name the
//! nearest known property.
//!
//! This room applies a table of properties; each room keeps the table of its own settings.

mod given;
mod ignored;
mod known;
mod nearest;
pub(crate) mod parse;
pub(crate) mod shown;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroizing;

pub(crate) use given::{Given, Limit};
use ignored::Ignored;
use known::Verdict;

use crate::error::{Error, ErrorKind, Result};

/// Stands for the name of a property that does not look like one.
const HIDDEN: &str = "(a name that is not shown)";

/// The kind of a client, which decides the properties that have an effect on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Producer,
    Consumer,
    Admin,
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Admin => "admin client",
        })
    }
}

/// Settings that properties are applied to.
pub(crate) trait Configure {
    /// The client that the settings are for.
    const CLIENT: ClientKind;

    /// Records that a property was set, under its Java name.
    fn note(&mut self, property: &'static str);

    /// Returns the `client.id` that log lines name.
    fn client_id(&self) -> &str;
}

/// Properties that are yet to be applied. `Debug` does not show secrets among them, and all values
/// are zeroed on drop.
#[derive(Clone, Default)]
pub(crate) struct Pairs(Vec<(String, Zeroizing<String>)>);

impl Pairs {
    pub(crate) fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), Zeroizing::new(value.into())));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (shown::name(name).unwrap_or(HIDDEN), shown::value(name, value))))
            .finish()
    }
}

/// One property of settings `S`.
pub(crate) struct Property<S: 'static> {
    /// Java's name.
    pub(crate) name: &'static str,
    /// Other accepted names (librdkafka's).
    pub(crate) aliases: &'static [&'static str],
    /// The allowed values, for the error: "milliseconds, 0 or more".
    pub(crate) allowed: &'static str,
    /// Sets the value, or returns `None` if it is not allowed.
    pub(crate) set: fn(&mut S, &str) -> Option<()>,
}

/// Makes a table of properties: `"name" | "alias", allowed, |settings, value| assignment;` for
/// each.
macro_rules! table {
    ($($name:literal $(| $alias:literal)*, $allowed:expr, |$s:ident, $v:ident| $set:expr;)*) => {
        &[$($crate::config::Property {
            name: $name,
            aliases: &[$($alias),*],
            allowed: $allowed,
            set: |$s, $v| { $set; Some(()) },
        }),*]
    };
}
pub(crate) use table;

impl<S> Property<S> {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// Applies pairs of names and values to settings. Names that Kafka knows and that have no effect on
/// this client are ignored, with one warning for all of them.
///
/// The tables are searched in their order, so that a client's own property precedes the common one
/// of that name.
///
/// # Errors
/// Kind `Configuration` for an unknown name (with the nearest known one), for a name that cannot be
/// ignored without weakening security or delivery (with the reason), for a value that is not
/// allowed (with the allowed values), and for a property given twice with different values.
pub(crate) fn apply<S: Configure, K: AsRef<str>, V: AsRef<str>>(
    settings: &mut S,
    tables: &[&[Property<S>]],
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Result<()> {
    // The properties seen so far: Java's name, the name that the user gave, and the value.
    let mut seen: Vec<(&'static str, String, Zeroizing<String>)> = Vec::new();
    let mut ignored = Ignored::default();
    for (name, value) in pairs {
        let (name, value) = (name.as_ref().trim(), value.as_ref());
        let Some(property) = tables.iter().flat_map(|table| table.iter()).find(|property| property.is_called(name))
        else {
            match known::verdict(S::CLIENT, name, value) {
                Some((_, Verdict::AsIs)) => {}
                Some((name, Verdict::Ignored(reason))) => ignored.push(name, reason),
                Some((_, Verdict::Refused(why))) => {
                    let message = format!("property `{name}` is known to Kafka but not supported here: {why}");
                    return Err(Error::new(ErrorKind::Configuration, message));
                }
                None => return Err(unknown(name, tables)),
            }
            continue;
        };
        if let Some((_, earlier, earlier_value)) = seen.iter().find(|(canonical, ..)| *canonical == property.name) {
            if earlier_value.trim() == value.trim() {
                continue;
            }
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "property {} is given twice, as {} and as {}; give it once",
                    called(property, name),
                    shown::value(earlier, earlier_value),
                    shown::value(name, value)
                ),
            ));
        }
        (property.set)(settings, value).ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                format!(
                    "property {}: {} is not allowed; allowed: {}",
                    called(property, name),
                    shown::value(name, value),
                    property.allowed
                ),
            )
        })?;
        settings.note(property.name);
        if let Some(reason) = known::without_effect(S::CLIENT, property.name, value) {
            ignored.push(property.name, reason);
        }
        seen.push((property.name, name.to_owned(), Zeroizing::new(value.to_owned())));
    }
    let value = |name| seen.iter().find(|(seen, ..)| *seen == name).map(|(.., value)| value.trim());
    if let Some(protocol) = value("security.protocol") {
        for &(name, ..) in &seen {
            if let Some(reason) = known::without_effect_under(protocol, name) {
                ignored.push(name, reason);
            }
        }
    }
    if S::CLIENT != ClientKind::Producer
        && let (Some(acks), Some(socket)) = (value("request.timeout.ms"), value("socket.timeout.ms"))
        && acks != socket
    {
        ignored.push("request.timeout.ms", "with `socket.timeout.ms` it is a producer's time for acknowledgements");
    }
    ignored.warn(S::CLIENT, settings.client_id());
    Ok(())
}

fn unknown<S>(name: &str, tables: &[&[Property<S>]]) -> Error {
    let names = tables.iter().flat_map(|table| table.iter());
    let names = names.flat_map(|property| std::iter::once(property.name).chain(property.aliases.iter().copied()));
    let message = match nearest::nearest(name, names) {
        Some(near) if name.chars().all(|c| c.is_ascii_graphic()) => {
            format!("unknown property `{name}`; did you mean `{near}`?")
        }
        _ => {
            let shown = shown::name(name).unwrap_or(HIDDEN);
            format!("unknown property `{shown}`; names are those of Kafka's Java clients and of librdkafka")
        }
    };
    Error::new(ErrorKind::Configuration, message)
}

/// Returns the name that the user gave, followed by Java's name if that differs.
fn called<S>(property: &Property<S>, name: &str) -> String {
    if property.name == name { format!("`{name}`") } else { format!("`{name}` (`{}`)", property.name) }
}
