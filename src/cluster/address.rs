//! Addresses of brokers.
//!
//! Sans-IO.

use std::fmt;

use crate::{
    config::parse::list,
    error::{Error, ErrorKind, Result, clean},
};

/// A host and a port, from `bootstrap.servers` or the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Parses `host:port` or `[v6]:port`, with or without a listener's name in front
    /// (`EXTERNAL://host:port`, as brokers and providers' consoles write it). The name is ignored,
    /// as in Java; [`check_listeners`](Self::check_listeners) checks it.
    ///
    /// # Errors
    /// Kind `Configuration`, naming the entry.
    pub(super) fn parse(entry: &str) -> Result<Self> {
        if entry.contains('@') {
            // The part before the @ may be a password.
            let message = "bootstrap.servers: an entry (not shown) has an @: write host:port; a user and a password \
                           are set by sasl.username and sasl.password";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        let wrong = |why| {
            Error::new(
                ErrorKind::Configuration,
                format!("bootstrap.servers: {entry:?} {why}: write host:port, or [address]:port for IPv6"),
            )
        };
        let (listener, address) = split_listener(entry);
        if listener.is_some_and(|name| name.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._%".contains(c))) {
            return Err(wrong("has an invalid listener name before ://"));
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').ok_or_else(|| wrong("has a bracket that is not closed"))?,
            None if host.contains(':') => return Err(wrong("has an IPv6 address without brackets")),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wrong("has no usable host"));
        }
        match port.parse() {
            Ok(port @ 1..) => Ok(Self { host: host.to_owned(), port }),
            _ => Err(wrong("has a port that is not a number from 1 to 65535")),
        }
    }

    /// Compares the listeners' names with the configured security protocol: by default a listener
    /// has the name of its protocol, so a listener named after another protocol is a mistake. Other
    /// names imply nothing.
    ///
    /// # Errors
    /// Kind `Configuration`, naming both.
    pub(super) fn check_listeners(entries: &[String], in_force: &str) -> Result<()> {
        for entry in separate(entries) {
            let Some(listener) = split_listener(entry).0 else { continue };
            let asked = PROTOCOLS.iter().find(|protocol| listener.eq_ignore_ascii_case(protocol));
            if let Some(asked) = asked.filter(|asked| **asked != in_force) {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "bootstrap.servers: {entry:?} names a listener for {asked}, but `security.protocol` is \
                         {in_force}: set security.protocol={asked} with what belongs to it, or leave {listener}:// out"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Parses all entries; at least one is required.
    pub(super) fn parse_all(entries: &[String]) -> Result<Vec<Self>> {
        let mut addresses = Vec::new();
        for entry in separate(entries) {
            let address = Self::parse(entry)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            let message = "bootstrap.servers is empty: name at least one broker as host:port";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(addresses)
    }
}

/// The values of `security.protocol`.
const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

fn separate(entries: &[String]) -> impl Iterator<Item = &str> {
    entries.iter().flat_map(|entry| list(entry))
}

/// Splits an entry into the listener's name, if there is one, and the rest.
fn split_listener(entry: &str) -> (Option<&str>, &str) {
    let entry = entry.trim();
    match entry.split_once("://") {
        Some((listener, address)) => (Some(listener), address),
        None => (None, entry),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = clean(&self.host);
        if host.contains(':') { write!(f, "[{host}]:{}", self.port) } else { write!(f, "{host}:{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_in_an_address_is_not_shown() {
        for entry in ["user:hunter2@broker:9092", "SASL_SSL://user:hunter2@broker:9092", "hunter2@broker:9092"] {
            let error = Address::parse(entry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert!(error.to_string().contains("sasl.password"), "{error}");
        }
    }

    #[test]
    fn parses_hosts_addresses_and_protocol_prefixes() {
        for (entry, shown) in [
            ("localhost:9092", "localhost:9092"),
            (" broker.example.com:1 ", "broker.example.com:1"),
            ("[::1]:9092", "[::1]:9092"),
            ("PLAINTEXT://127.0.0.1:65535", "127.0.0.1:65535"),
            (" EXTERNAL-2.x_y://[::1]:1 ", "[::1]:1"),
            ("://a:1", "a:1"),
        ] {
            assert_eq!(Address::parse(entry).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn error_explains_invalid_address_entry() {
        for (entry, why) in [
            ("localhost", "no port"),
            ("localhost:0", "1 to 65535"),
            ("localhost:kafka", "1 to 65535"),
            ("localhost:70000", "1 to 65535"),
            (":9092", "no usable host"),
            ("a b:9092", "no usable host"),
            ("::1:9092", "without brackets"),
            ("[::1:9092", "not closed"),
            ("a b://c:9092", "invalid listener name"),
            ("EXTERNAL://", "no port"),
            ("A://B://c:1", "brackets"),
        ] {
            let error = Address::parse(entry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(why) && error.to_string().contains(entry), "{error}");
        }
    }

    #[test]
    fn address_list_ignores_duplicates_but_needs_entry() {
        let entries = ["a:1,b:2".to_owned(), "a:1".to_owned(), " ".to_owned()];
        assert_eq!(Address::parse_all(&entries).unwrap().len(), 2);
        assert_eq!(Address::parse_all(&[]).unwrap_err().kind(), ErrorKind::Configuration);
    }

    #[test]
    fn rejects_listener_prefix_of_other_protocol() {
        let check = |entries: &str, in_force| Address::check_listeners(&[entries.to_owned()], in_force);
        for (entries, in_force) in [
            ("a:1, PLAINTEXT://b:1,", "PLAINTEXT"),
            ("sasl_ssl://a:1,INTERNAL://b:1", "SASL_SSL"),
            ("PLAINTEXT_HOST://a:1,http://b:1", "SSL"),
        ] {
            check(entries, in_force).unwrap();
        }
        let error = check("INTERNAL://b:1, SSL://a:1", "SASL_SSL").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(
            text.contains("\"SSL://a:1\"") && text.contains("is SASL_SSL") && text.contains("SSL:// out"),
            "{text}"
        );
    }
}
