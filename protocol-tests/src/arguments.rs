//! Arguments of the programs beside the tests.

use std::process::ExitCode;

use clap::{
    Arg, ArgAction, ArgMatches,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::default_version;

/// Returns an option that takes a value and can be given once.
pub fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// Returns an option without a value.
pub fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// Returns the option for the version of Kafka.
pub fn version() -> Arg {
    // clap takes texts that live as long as the program.
    option("version", "V", "version of Kafka").default_value(&*default_version().leak())
}

/// Parses `name=value`.
///
/// # Errors
/// The text has no equals sign.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Returns a parser that accepts the name of one of `all`.
pub fn one_of<T: Clone + Send + Sync + 'static>(
    all: impl Into<Vec<T>>,
    name: fn(&T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let all = all.into();
    PossibleValuesParser::new(all.iter().map(name))
        .map(move |given| all.iter().find(|one| name(one) == given).expect("one of the possible values").clone())
}

/// Returns the value of an option that is required or has a default.
///
/// # Panics
/// The option is of another type, or has no value.
pub fn value<T: Clone + Send + Sync + 'static>(given: &ArgMatches, option: &str) -> T {
    given.get_one::<T>(option).expect("a default value").clone()
}

/// Returns all values of an option; none if it is not given.
///
/// # Panics
/// The option is of another type.
pub fn values<T: Clone + Send + Sync + 'static>(given: &ArgMatches, option: &str) -> Vec<T> {
    given.get_many::<T>(option).into_iter().flatten().cloned().collect()
}

/// Prints the help or an error in the arguments, and returns the exit code: 0 for the help,
/// otherwise `failure`.
pub fn exit(why: &clap::Error, failure: u8) -> ExitCode {
    // If the stream is closed, the text cannot be printed anywhere.
    let _ = why.print();
    ExitCode::from(if why.use_stderr() { failure } else { 0 })
}
