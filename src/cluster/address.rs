use std::fmt;

use crate::error::{Error, ErrorKind, Result, clean};

/// A host and a port, as `bootstrap.servers` and the cluster's metadata name them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads `host:port`, `[v6]:port`, or either behind the name of a protocol (`PLAINTEXT://host:port`, as Kafka's own
    /// listeners are written).
    ///
    /// # Errors
    /// Kind `Configuration`, naming the entry.
    pub(super) fn parse(entry: &str) -> Result<Self> {
        let wrong = |why| {
            Error::new(
                ErrorKind::Configuration,
                format!("bootstrap.servers: \"{entry}\" {why}: write host:port, or [address]:port for IPv6"),
            )
        };
        let address = entry.trim();
        let address = match address.split_once("://") {
            Some((protocol, address)) if protocol.eq_ignore_ascii_case("PLAINTEXT") => address,
            Some(_) => {
                return Err(wrong(
                    "asks for a protocol other than PLAINTEXT, and this version has neither TLS nor SASL",
                ));
            }
            None => address,
        };
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

    /// All entries; at least one is needed.
    pub(super) fn parse_all(entries: &[String]) -> Result<Vec<Self>> {
        let mut addresses = Vec::new();
        for entry in entries.iter().flat_map(|entry| entry.split(',')).filter(|entry| !entry.trim().is_empty()) {
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
    fn hosts_addresses_and_protocols_are_read() {
        for (entry, shown) in [
            ("localhost:9092", "localhost:9092"),
            (" broker.example.com:1 ", "broker.example.com:1"),
            ("[::1]:9092", "[::1]:9092"),
            ("PLAINTEXT://127.0.0.1:65535", "127.0.0.1:65535"),
        ] {
            assert_eq!(Address::parse(entry).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_said() {
        for (entry, why) in [
            ("localhost", "no port"),
            ("localhost:0", "1 to 65535"),
            ("localhost:kafka", "1 to 65535"),
            ("localhost:70000", "1 to 65535"),
            (":9092", "no usable host"),
            ("a b:9092", "no usable host"),
            ("::1:9092", "without brackets"),
            ("[::1:9092", "not closed"),
            ("SASL_SSL://a:9092", "neither TLS nor SASL"),
        ] {
            let error = Address::parse(entry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(why) && error.to_string().contains(entry), "{error}");
        }
    }

    #[test]
    fn lists_may_have_commas_and_doubles_but_not_be_empty() {
        let entries = ["a:1,b:2".to_owned(), "a:1".to_owned(), " ".to_owned()];
        assert_eq!(Address::parse_all(&entries).unwrap().len(), 2);
        assert_eq!(Address::parse_all(&[]).unwrap_err().kind(), ErrorKind::Configuration);
    }
}
