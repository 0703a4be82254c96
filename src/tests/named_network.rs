//! A network on which one name stands for one cluster after the other.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use crate::{
    net::{BoxFuture, Endpoint, MemoryNetwork, Network, Stream},
    testkit::Cluster,
};

/// A network on which the name `kafka` resolves to the first broker of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct NamedNetwork {
    inner: MemoryNetwork,
    stands_for: Arc<Mutex<SocketAddr>>,
}

impl NamedNetwork {
    pub(crate) fn new(inner: MemoryNetwork, cluster: &Cluster) -> Self {
        Self { inner, stands_for: Arc::new(Mutex::new(address(cluster))) }
    }

    /// Makes the name stand for another cluster.
    pub(crate) fn point_to(&self, cluster: &Cluster) {
        *self.stands_for.lock().unwrap() = address(cluster);
    }
}

impl Network for NamedNetwork {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        let named = *self.stands_for.lock().unwrap();
        if host == "kafka" { Box::pin(async move { Ok(vec![named.into()]) }) } else { self.inner.resolve(host, port) }
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.inner.connect(endpoint)
    }
}

fn address(cluster: &Cluster) -> SocketAddr {
    let bootstrap = cluster.bootstrap();
    let port = bootstrap.split(',').next().unwrap().rsplit(':').next().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}
