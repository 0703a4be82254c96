//! Values of users and servers, in the form in which errors, `Debug` and the log may show them.

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
};

use crate::error::clean;

/// A value that is not secret, but that `Debug` does not show, because a secret may have been put
/// in its place by mistake.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hidden<T>(pub(crate) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<T> Deref for Hidden<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The path of a file. It is shown only if it looks like a path, because a key or a token may have
/// been given in its place.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FilePath(PathBuf);

/// File extensions with which a path is shown even if it does not begin with `/`, `./`, `../` or a
/// drive.
const ENDINGS: [&str; 13] =
    ["pem", "crt", "cer", "cert", "der", "key", "p12", "pfx", "pkcs12", "jks", "jwt", "token", "txt"];

impl FilePath {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }

    /// Returns the reason if the value cannot be meant as a path.
    pub(crate) fn mistaken(&self) -> Option<&'static str> {
        let text = self.0.to_string_lossy();
        if text.contains("-----BEGIN") {
            return Some("a path is expected here, and the value is PEM text");
        }
        text.contains(|c: char| c.is_control()).then_some("a path is expected here, and the value has several lines")
    }

    fn is_plain(&self) -> bool {
        let Some(text) = self.0.to_str() else { return false };
        let plain = |part: &str| {
            part.chars().count() <= 64 && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        let (drive, rest) = match text.as_bytes() {
            [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic() => {
                (true, text.get(2..).unwrap_or_default())
            }
            _ => (false, text),
        };
        let mut parts = rest.split(['/', '\\']);
        let begins = drive || ["/", "./", "../"].iter().any(|begin| rest.starts_with(begin));
        let ends = self.0.extension().and_then(|ending| ending.to_str());
        let ends = ends.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()));
        text.len() <= 1024 && (begins || ends) && parts.all(plain)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_plain() {
            true => write!(f, "{}", self.0.display()),
            false => f.write_str("(a path that is not shown)"),
        }
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_plain() {
            true => write!(f, "{:?}", self.0),
            false => f.write_str("(hidden)"),
        }
    }
}

/// Returns a server's text as an error may show it: without the `secrets` that the client sent to
/// the server, with control characters escaped, and cut after `longest` characters.
pub(crate) fn scrubbed<'a>(text: &str, longest: usize, secrets: impl IntoIterator<Item = &'a str>) -> String {
    const SHORTEST: usize = 4;
    let mut text = text.to_owned();
    for secret in secrets {
        let secret = secret.trim();
        let words = secret.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > SHORTEST + 1);
        for part in std::iter::once(secret).filter(|secret| secret.len() >= SHORTEST).chain(words) {
            if text.contains(part) {
                text = text.replace(part, "(hidden)");
            }
        }
    }
    let cut: String = text.chars().take(longest).collect();
    clean(&cut).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_file_paths_but_hides_secrets() {
        for path in ["/etc/kafka/ca.pem", "./certs/ca", "../x/y.z", "client.key", "certs/ca.crt", "C:\\kafka\\key.p12"]
        {
            assert_eq!(FilePath::new(path).to_string(), path);
        }
        for secret in [
            "hunter2",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE",
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln",
            "-----BEGIN PRIVATE KEY-----\nMIG",
            "/abc+def=",
            "pass word.pem",
        ] {
            let path = FilePath::new(secret);
            assert_eq!(format!("{path} {path:?}"), "(a path that is not shown) (hidden)");
        }
        assert!(FilePath::new("-----BEGIN X-----").mistaken().unwrap().contains("PEM text"));
        assert!(FilePath::new("a\nb").mistaken().unwrap().contains("several lines"));
        assert_eq!(FilePath::new("/a b/c").mistaken(), None);
    }

    #[test]
    fn removes_secrets_from_texts_of_servers() {
        let text = "wrong secret \"hun ter222\" (ter222) for\u{1b} alice";
        assert_eq!(scrubbed(text, 200, ["hun ter222"]), "wrong secret \"(hidden)\" ((hidden)) for\\u{1b} alice");
        assert_eq!(scrubbed("abc", 2, [""]), "ab");
    }
}
