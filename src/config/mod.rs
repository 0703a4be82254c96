//! Properties by name: Java's names, librdkafka's accepted where they differ, and errors that help.
//!
//! This room knows how a table of properties is applied; each room keeps the table of its own settings.

pub(crate) mod parse;

use crate::error::Result;

/// One property of settings `S`.
pub(crate) struct Property<S: 'static> {
    /// Java's name.
    pub(crate) name: &'static str,
    /// Other accepted names (librdkafka's).
    pub(crate) aliases: &'static [&'static str],
    /// What is allowed, for the error: "milliseconds, 0 or more".
    pub(crate) allowed: &'static str,
    /// Sets the value; `None` when it is not allowed.
    pub(crate) set: fn(&mut S, &str) -> Option<()>,
}

/// Applies pairs of names and values to settings. Unknown names (with the nearest known one), values that are not
/// allowed (with what is), and one property given twice with different values are errors of kind `Configuration`.
pub(crate) fn apply<S, K: AsRef<str>, V: AsRef<str>>(
    settings: &mut S,
    tables: &[&[Property<S>]],
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Result<()> {
    let _ = (settings, tables, pairs.into_iter().count());
    unimplemented!()
}
