//! Addresses of brokers as users write them.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// A broker's address before its name is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// A name, or an IPv4 or IPv6 address (without brackets).
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads one entry of `bootstrap.servers`: `host:port`, `[v6]:port`, either behind `PLAINTEXT://`.
pub(crate) fn parse_address(text: &str) -> Result<Address> {
    let wrong = |what: fmt::Arguments<'_>| {
        Err(Error::new(ErrorKind::Configuration, format!("property `bootstrap.servers`: \"{text}\" {what}")))
    };
    let mut address = text.trim();
    if let Some((scheme, rest)) = address.split_once("://") {
        if !scheme.eq_ignore_ascii_case("PLAINTEXT") {
            return wrong(format_args!(
                "asks for {scheme}; only PLAINTEXT is supported by this version (TLS and SASL are not there yet)"
            ));
        }
        address = rest;
    }
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let Some((host, behind)) = rest.split_once(']') else {
            return wrong(format_args!("has no closing bracket; write an IPv6 address as [::1]:9092"));
        };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return wrong(format_args!("has no IPv6 address in its brackets"));
        }
        (host, behind.strip_prefix(':'))
    } else if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return wrong(format_args!("is an IPv6 address without brackets; write it as [{address}]:9092"));
    } else {
        match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    if host.is_empty() {
        return wrong(format_args!("has no host; write it as host:port"));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@,;?#".contains(c))
        || (host.contains(':') && !address.starts_with('['))
    {
        return wrong(format_args!("is not host:port"));
    }
    let Some(port) = port else {
        return wrong(format_args!("has no port; write it as {host}:9092 if that is its listener"));
    };
    match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(Address { host: host.to_owned(), port: number })
        }
        _ => wrong(format_args!("has the port \"{port}\"; allowed: 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, host, port) in [
            ("localhost:9092", "localhost", 9092),
            (" kafka-1.example.org:65535 ", "kafka-1.example.org", 65535),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:9092", "::1", 9092),
            ("PLAINTEXT://broker:9092", "broker", 9092),
            ("plaintext://[fe80::1]:9092", "fe80::1", 9092),
            ("a_b:9", "a_b", 9),
        ] {
            assert_eq!(parse_address(text).unwrap(), Address { host: host.to_owned(), port }, "{text}");
        }
        assert_eq!(parse_address("[::1]:9092").unwrap().to_string(), "[::1]:9092");
        assert_eq!(parse_address("h:9").unwrap().to_string(), "h:9");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("localhost", "no port"),
            ("[::1]", "no port"),
            ("localhost:", "the port \"\""),
            ("localhost:0", "1 to 65535"),
            ("localhost:65536", "1 to 65535"),
            ("localhost:+92", "1 to 65535"),
            ("localhost:kafka", "the port \"kafka\""),
            (":9092", "no host"),
            ("", "no host"),
            ("::1", "without brackets"),
            ("::1:9092", "without brackets"),
            ("[::1:9092", "closing bracket"),
            ("[host]:9092", "no IPv6 address"),
            ("a:b:9092", "not host:port"),
            ("http://host:9092", "asks for http"),
            ("SASL_SSL://host:9092", "asks for SASL_SSL"),
            ("PLAINTEXT://host:9092/x", "the port"),
            ("two words:9092", "not host:port"),
        ] {
            let error = parse_address(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(error.to_string().contains("bootstrap.servers"), "{text}: {error}");
        }
    }
}
