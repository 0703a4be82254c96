//! The properties that were set, and checks of pairs of settings against each other.

use std::{collections::BTreeSet, fmt::Display};

use crate::{
    error::{Error, ErrorKind, Result},
    log::{Origin, event},
};

/// The properties that were set, by name or by a builder's method, under their Java names. In a
/// check of two settings, one that is not among them is adjusted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given(BTreeSet<&'static str>);

/// One setting of a pair that is checked.
pub(crate) struct Limit<'a, T> {
    pub(crate) name: &'static str,
    pub(crate) value: &'a mut T,
}

impl Given {
    pub(crate) fn note(&mut self, property: &'static str) {
        self.0.insert(property);
    }

    pub(crate) fn has(&self, property: &str) -> bool {
        self.0.contains(property)
    }

    /// Checks that `high` is not less than `low`. If it is less, the setting that was not set gets
    /// the value that `raised` or `lowered` computes from the other; if neither was set, `high` is
    /// raised. `show` formats values for the error and the log.
    ///
    /// # Errors
    /// Kind `Configuration`, naming both, if both were set.
    pub(crate) fn reconcile<T: Copy, D: Display>(
        &self,
        low: Limit<'_, T>,
        high: Limit<'_, T>,
        fits: impl Fn(T, T) -> bool,
        (lowered, raised): (impl FnOnce(T) -> T, impl FnOnce(T) -> T),
        show: impl Fn(T) -> D,
        origin: &Origin,
    ) -> Result<()> {
        if fits(*low.value, *high.value) {
            return Ok(());
        }
        let (changed, because) = match (self.has(low.name), self.has(high.name)) {
            (true, true) => {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "property `{}` ({}) does not fit `{}` ({}): lower the former or raise the latter",
                        low.name,
                        show(*low.value),
                        high.name,
                        show(*high.value)
                    ),
                ));
            }
            (_, false) => {
                *high.value = raised(*low.value);
                (high, low)
            }
            (false, true) => {
                *low.value = lowered(*high.value);
                (low, high)
            }
        };
        event!(
            INFO,
            origin,
            "property `{}` was not set and is {} because `{}` is {}",
            changed.name,
            show(*changed.value),
            because.name,
            show(*because.value)
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reconciled(given: &[&'static str], mut low: u32, mut high: u32) -> Result<(u32, u32)> {
        let mut set = Given::default();
        given.iter().for_each(|name| set.note(name));
        let limits = (Limit { name: "low", value: &mut low }, Limit { name: "high", value: &mut high });
        set.reconcile(
            limits.0,
            limits.1,
            |low, high| low <= high,
            (|high| high, |low| low),
            |value| value,
            &Origin::default(),
        )?;
        Ok((low, high))
    }

    #[test]
    fn default_adapts_to_explicitly_set_value() {
        assert_eq!(reconciled(&["low", "high"], 1, 2).unwrap(), (1, 2));
        assert_eq!(reconciled(&["low"], 5, 2).unwrap(), (5, 5));
        assert_eq!(reconciled(&["high"], 5, 2).unwrap(), (2, 2));
        assert_eq!(reconciled(&[], 5, 2).unwrap(), (5, 5));
    }

    #[test]
    fn rejects_two_explicit_settings_in_conflict() {
        let error = reconciled(&["low", "high"], 5, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(text.contains("`low` (5)") && text.contains("`high` (2)"), "{text}");
    }
}
