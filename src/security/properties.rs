//! Security properties as they were set, before [`resolve`](SecurityProperties::resolve) checks
//! them together.
//!
//! Sans-IO.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Secret, Security};
use crate::{
    config::{parse, shown},
    error::{Error, ErrorKind, Result},
};

/// Properties that were set by name, or the [`Security`] that was given to a builder.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecurityProperties {
    given: Option<Security>,
    /// Values by Java's names. Any of them may be a secret.
    values: BTreeMap<&'static str, Secret>,
}

impl SecurityProperties {
    /// Sets a whole [`Security`], which excludes properties.
    pub(crate) fn give(&mut self, security: Security) {
        self.given = Some(security);
    }

    pub(super) fn given(&self) -> Option<&Security> {
        self.given.as_ref()
    }

    /// Sets a property. Its value is checked together with the others in
    /// [`resolve`](Self::resolve).
    pub(crate) fn set(&mut self, name: &'static str, value: &str) -> Option<()> {
        self.values.insert(name, Secret::from(value));
        Some(())
    }

    /// Returns the name of a property that is set.
    pub(super) fn any(&self) -> Option<&'static str> {
        self.values.keys().next().copied()
    }

    /// Returns the name of a property other than `security.protocol` that is set.
    pub(super) fn any_other(&self) -> Option<&'static str> {
        self.values.keys().find(|name| **name != "security.protocol").copied()
    }
}

/// Tracks which properties are read. A property that no setting reads has no effect, and the user
/// is told so.
pub(super) struct Reading<'a> {
    values: &'a BTreeMap<&'static str, Secret>,
    read: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(properties: &'a SecurityProperties) -> Self {
        Self { values: &properties.values, read: RefCell::default() }
    }

    /// Returns the names of the properties that have a value and were not read.
    pub(super) fn unread(&self) -> Vec<&'static str> {
        let read = self.read.borrow();
        let unread = self.values.iter().filter(|(name, value)| !value.is_empty() && !read.contains(*name));
        unread.map(|(name, _)| *name).collect()
    }

    /// Returns true if a property has a value. The call does not count as reading it.
    #[cfg(feature = "tls")]
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.get(name).and_then(Secret::expose_str).is_some_and(|value| !value.trim().is_empty())
    }

    fn value(&self, name: &str) -> Option<&'a Secret> {
        let (name, value) = self.values.get_key_value(name)?;
        self.read.borrow_mut().insert(name);
        Some(value)
    }

    /// Returns a value as it was set, even if it is empty.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.value(name).and_then(Secret::expose_str)
    }

    /// Returns a value without white space around it; `None` if nothing is left.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.raw(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Returns a value with its white space; `None` if it is empty.
    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        self.value(name).filter(|value| !value.is_empty()).cloned()
    }

    pub(super) fn boolean(&self, name: &str, default: bool) -> Result<bool> {
        let Some(value) = self.text(name) else { return Ok(default) };
        parse::boolean(value).ok_or_else(|| refused(name, value, parse::BOOLEAN))
    }

    /// Returns a number of seconds, from 0 to `most`.
    pub(super) fn seconds(&self, name: &str, most: u64, default: Duration) -> Result<Duration> {
        let Some(value) = self.text(name) else { return Ok(default) };
        let seconds = parse::within(value, 0..=most).map(Duration::from_secs);
        seconds.ok_or_else(|| refused(name, value, &format!("seconds, 0 to {most}")))
    }

    pub(super) fn millis(&self, name: &str, default: Duration) -> Result<Duration> {
        let Some(value) = self.text(name) else { return Ok(default) };
        parse::millis_above_zero(value).ok_or_else(|| refused(name, value, "milliseconds, 1 or more"))
    }

    pub(super) fn fraction(&self, name: &str, (min, max): (f64, f64), default: f64) -> Result<f64> {
        let Some(value) = self.text(name) else { return Ok(default) };
        let fraction = value.parse().ok().filter(|fraction| (min..=max).contains(fraction));
        fraction.ok_or_else(|| refused(name, value, &format!("{min} to {max}")))
    }
}

/// Returns the error for a value that is not allowed.
pub(super) fn refused(name: &str, value: &str, allowed: &str) -> Error {
    configuration(format!("property `{name}`: {} is not allowed; allowed: {allowed}", shown::value(name, value)))
}

pub(super) fn configuration(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
