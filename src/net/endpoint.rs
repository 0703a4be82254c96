use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// A place to connect to, from [`Network::resolve`](super::Network::resolve).
///
/// There will be no third kind: a network knows an IP address, or leaves the name to a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An IP address and a port.
    Address(SocketAddr),
    /// A name and a port, to be resolved at the far end of a proxy.
    Name {
        /// The host's name, as the client was given it.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

impl Endpoint {
    /// Makes an endpoint of a name that a proxy resolves.
    pub fn name(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self::Name { host: host.into(), port }
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }

    /// Returns the IP address and port; `None` for a name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<(IpAddr, u16)> for Endpoint {
    fn from(address: (IpAddr, u16)) -> Self {
        Self::Address(address.into())
    }
}

/// Writes `host:port`, with brackets around an IPv6 address.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_host_and_port() {
        let address = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
        assert_eq!(address("10.0.0.1:9092").to_string(), "10.0.0.1:9092");
        assert_eq!(address("[::1]:9092").to_string(), "[::1]:9092");
        assert_eq!(Endpoint::name("kafka.internal", 9092).to_string(), "kafka.internal:9092");
        assert_eq!(Endpoint::name("fe80::1", 9092).to_string(), "[fe80::1]:9092");
        assert_eq!((Endpoint::name("a", 1).address(), Endpoint::name("a", 1).port()), (None, 1));
    }
}
