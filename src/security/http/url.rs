//! URLs of token endpoints.
//!
//! Sans-IO.

use std::fmt;

/// A URL of the scheme `http` or `https`, with a host.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    secure: bool,
    host: String,
    port: Option<u16>,
    /// Path and query.
    target: String,
    /// True if the path is a secret and must not be shown.
    hides_path: bool,
}

impl Url {
    /// Parses a URL. `Err` describes the mistake.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or("it has no `https://`")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("it is neither https nor http".to_owned()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).ok_or("it is malformed")?;
        if authority.contains('@') {
            return Err("it must not contain a name or a password".to_owned());
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|ipv6| ipv6.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or("its port is malformed")?)),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().map_err(|_| "its port is not a number of 0 to 65535")).transpose()?;
        if host.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it has no host, or characters that have to be escaped".to_owned());
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { secure, host: host.to_owned(), port, target, hides_path: false })
    }

    /// Returns the URL with its path hidden from `Display` and `Debug`.
    pub(crate) fn hide_path(mut self) -> Self {
        self.hides_path = true;
        self
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.secure { 443 } else { 80 })
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Returns true if the host is this machine or in its link-local or unique local network, so
    /// that requests do not leave the surroundings of the machine.
    pub(crate) fn is_local(&self) -> bool {
        match self.host.parse() {
            Ok(core::net::IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
            Ok(core::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Returns host and port in the form of the header `Host`.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }
}

/// Leaves out the query, which may hold a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.hides_path { "/…" } else { self.target.split('?').next().unwrap_or_default() };
        write!(f, "{}://{}{path}", if self.secure { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Escapes everything but ASCII letters, digits and `-._~` (RFC 3986; AWS has the same rule).
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Returns the body of a form.
pub(crate) fn form(fields: &[(&str, &str)]) -> zeroize::Zeroizing<Vec<u8>> {
    let size = fields.iter().map(|(name, value)| (name.len() + value.len()) * 3 + 2).sum();
    let mut out = zeroize::Zeroizing::new(Vec::with_capacity(size));
    for (name, value) in fields {
        if !out.is_empty() {
            out.push(b'&');
        }
        out.extend_from_slice(encoded(name).as_bytes());
        out.push(b'=');
        out.extend_from_slice(zeroize::Zeroizing::new(encoded(value)).as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_host_port_target_and_scheme() {
        let url = Url::parse("https://idp.example:8443/oauth/token?tenant=a#x").unwrap();
        assert_eq!((url.host(), url.port(), url.target()), ("idp.example", 8443, "/oauth/token?tenant=a"));
        assert_eq!((url.is_secure(), url.is_local()), (true, false));
        assert_eq!(url.to_string(), "https://idp.example:8443/oauth/token");
        let url = Url::parse("http://[::1]?q").unwrap();
        assert_eq!((url.host(), url.port(), url.target(), url.authority()), ("::1", 80, "/?q", "[::1]".to_owned()));
        assert!(url.is_local() && Url::parse("http://169.254.169.254").unwrap().is_local());
        for text in
            ["idp", "ftp://x", "https://", "https://u:p@x/", "https://x:99999/", "https://x/a b", "https://[::1]x/"]
        {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn form_encoding_escapes_reserved_characters() {
        assert_eq!(&**form(&[("a", "b c&d=é"), ("e", "-._~")]), b"a=b%20c%26d%3D%C3%A9&e=-._~");
    }
}
