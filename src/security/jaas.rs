//! `sasl.jaas.config`: a login module with its options, as Java writes it.
//!
//! Sans-IO.

use std::{cell::RefCell, collections::BTreeSet};

use zeroize::Zeroizing;

use super::Secret;

/// A parsed configuration: `Module required name="value" … ;`.
#[derive(Debug)]
pub(crate) struct Jaas {
    /// The class's name without its package.
    pub(crate) module: String,
    options: Vec<(String, Secret)>,
    /// Indexes of the options that were read.
    read: RefCell<BTreeSet<usize>>,
}

impl Jaas {
    /// Parses a configuration. `Err` describes the mistake without showing any of the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens(text);
        let class = tokens.word().ok_or("it must begin with the class of a login module")?;
        let module = class.rsplit('.').next().unwrap_or_default().to_owned();
        let flag = tokens.word().ok_or("the login module must be followed by `required`")?;
        if !["required", "requisite", "sufficient", "optional"].iter().any(|known| flag.eq_ignore_ascii_case(known)) {
            return Err("the login module must be followed by `required`".to_owned());
        }
        let mut options: Vec<(String, Secret)> = Vec::new();
        loop {
            if tokens.take(';') {
                break;
            }
            // The names of options are not shown either, because the rest of an unquoted password
            // with a blank in it is read as a name.
            let at = options.len() + 1;
            let name = tokens.word().ok_or("an option has no name, or the `;` at the end is missing")?.to_string();
            if !tokens.take('=') {
                return Err(format!(
                    "the name of option {at} must be followed by `=` and its value (a value with a blank, `=` or `;` in it \
                     must be in quotes)"
                ));
            }
            let value = tokens.word().ok_or_else(|| format!("option {at} has no value, or its value has no end"))?;
            if options.iter().any(|(known, _)| *known == name) {
                return Err(format!("option {at} was given before"));
            }
            options.push((name, value.as_bytes().into()));
        }
        if tokens.word().is_some() {
            return Err("it names more than one login module".to_owned());
        }
        Ok(Self { module, options, read: RefCell::default() })
    }

    fn value(&self, at: usize) -> Option<&Secret> {
        self.read.borrow_mut().insert(at);
        self.options.get(at).map(|(_, value)| value)
    }

    /// Returns the value of an option; `None` if it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&Secret> {
        let at = self.options.iter().position(|(known, _)| known == name)?;
        self.value(at).filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Secret::expose_str)
    }

    /// Returns true if the name of an option begins with `prefix`.
    pub(crate) fn has_below(&self, prefix: &str) -> bool {
        self.options.iter().any(|(name, _)| name.starts_with(prefix))
    }

    /// Returns the options with names that begin with `prefix`; the names are returned without it.
    pub(crate) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let named = self.options.iter().enumerate();
        let named = named.filter_map(move |(at, (name, _))| Some((at, name.strip_prefix(prefix)?)));
        named.filter_map(|(at, name)| Some((name, self.value(at)?.expose_str()?)))
    }

    /// Returns the options that have a value and were not read, by the names in `known`:
    /// `extension_*` for an option with a name of the user's choice.
    pub(crate) fn unread(&self, known: &[&str]) -> Vec<String> {
        let read = self.read.borrow();
        let unread = self.options.iter().enumerate();
        let unread = unread.filter(|(at, (_, value))| !value.is_empty() && !read.contains(at));
        let pattern = |name: &str| known.iter().find(|known| matches(name, known)).copied().unwrap_or("another option");
        unread.map(|(_, (name, _))| format!("{} of sasl.jaas.config", pattern(name))).collect()
    }

    /// Returns the index, counted from 1, of the first option that is not in `known`.
    pub(crate) fn stranger(&self, known: &[&str]) -> Option<usize> {
        let is_known = |name: &str| known.iter().any(|known| matches(name, known));
        self.options.iter().position(|(name, _)| !is_known(name)).map(|at| at + 1)
    }
}

/// Returns true if a name equals `known`, or begins with it if `known` ends with `*`.
fn matches(name: &str, known: &str) -> bool {
    known.strip_suffix('*').map_or(name == known, |prefix| name.starts_with(prefix))
}

/// Splits text into words, which may be quoted, and the signs between them.
struct Tokens<'a>(&'a str);

impl Tokens<'_> {
    fn take(&mut self, sign: char) -> bool {
        self.0 = self.0.trim_start();
        self.0.strip_prefix(sign).map(|rest| self.0 = rest).is_some()
    }

    fn word(&mut self) -> Option<Zeroizing<String>> {
        self.0 = self.0.trim_start();
        let mut chars = self.0.chars();
        let mut word = Zeroizing::new(String::with_capacity(self.0.len()));
        if let Some(quote @ ('"' | '\'')) = chars.clone().next() {
            chars.next();
            loop {
                match chars.next()? {
                    c if c == quote => break,
                    '\\' => word.push(match chars.next()? {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        c => c,
                    }),
                    c => word.push(c),
                }
            }
            self.0 = chars.as_str();
            return Some(word);
        }
        let end = self.0.find(|c: char| c.is_whitespace() || matches!(c, ';' | '=')).unwrap_or(self.0.len());
        let (bare, rest) = self.0.split_at_checked(end)?;
        word.push_str(bare);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_module_and_options_like_java() {
        let jaas = Jaas::parse(
            "org.apache.kafka.common.security.scram.ScramLoginModule  required\n\
             username=\"al\\\"ice\" password='s;e=c ret' tokenauth=true a.b=\"\";",
        )
        .unwrap();
        assert_eq!(jaas.module, "ScramLoginModule");
        assert_eq!((jaas.text("username"), jaas.text("password")), (Some("al\"ice"), Some("s;e=c ret")));
        assert_eq!((jaas.text("tokenauth"), jaas.text("a.b"), jaas.text("c")), (Some("true"), None, None));
        assert_eq!(jaas.below("token").collect::<Vec<_>>(), [("auth", "true")]);
        assert_eq!(jaas.stranger(&["username", "password", "token*"]), Some(4));
        assert!(!format!("{jaas:?}").contains("ret"));
    }

    #[test]
    fn syntax_errors_name_problem_without_secrets() {
        for (text, part) in [
            ("", "login module"),
            ("PlainLoginModule", "required"),
            ("PlainLoginModule username=\"hunter2\";", "required"),
            ("PlainLoginModule required username=\"a\" password=\"hunter2\"", "`;`"),
            ("PlainLoginModule required password \"hunter2\";", "`=`"),
            ("PlainLoginModule required password=\"hunter2;", "no value"),
            ("PlainLoginModule required password=;", "no value"),
            ("PlainLoginModule required a=1 a=2;", "given before"),
            ("PlainLoginModule required password=pass hunter2;", "in quotes"),
            ("PlainLoginModule required password=pass hunter2=x hunter2=y;", "option 3"),
            ("PlainLoginModule required a=1; Other required;", "more than one"),
        ] {
            let why = Jaas::parse(text).unwrap_err();
            assert!(why.contains(part) && !why.contains("hunter2"), "{text}: {why}");
        }
    }
}
