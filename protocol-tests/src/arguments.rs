//! Arguments of the programs beside the tests.

use std::collections::BTreeSet;

/// Collects the arguments and requires that each option, except the `repeatable` ones, is given
/// once: otherwise the last of several would silently win.
///
/// # Errors
/// Names the option that is given twice.
pub fn given_once(
    arguments: impl Iterator<Item = String>,
    repeatable: &[&str],
) -> Result<std::vec::IntoIter<String>, String> {
    let arguments: Vec<String> = arguments.collect();
    let mut given = BTreeSet::new();
    for option in arguments.iter().filter(|word| word.starts_with("--") && !repeatable.contains(&word.as_str())) {
        if !given.insert(option) {
            return Err(format!("{option} is given twice, but can have only one value"));
        }
    }
    Ok(arguments.into_iter())
}
