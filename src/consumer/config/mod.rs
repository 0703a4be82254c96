//! The consumer's settings, by builder and by property name.

pub(super) mod properties;
pub(super) mod settings;
