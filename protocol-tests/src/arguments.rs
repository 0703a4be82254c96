//! The arguments of the programs beside the tests.

use std::collections::BTreeSet;

/// The arguments, where each option but those that are `repeatable` is given once: the last of
/// several would win unseen.
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
            return Err(format!("{option} is given twice, and only one value can count"));
        }
    }
    Ok(arguments.into_iter())
}
