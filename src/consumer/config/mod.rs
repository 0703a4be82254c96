//! The consumer's settings, set by the builder or by property name.

pub(super) mod isolation;
pub(super) mod properties;
pub(super) mod settings;
