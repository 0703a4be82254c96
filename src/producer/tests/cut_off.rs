//! Tests of a broker that is cut off by the network: connection attempts are neither refused nor
//! completed.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex},
};

use super::*;
use crate::net::{BoxFuture, Endpoint, Network, Stream};

/// A network on which connections to some ports never complete.
#[derive(Clone, Debug)]
struct Holes {
    inner: Arc<dyn Network>,
    swallowed: Arc<Mutex<HashSet<u16>>>,
}

impl Holes {
    fn in_network_of(cluster: &Cluster) -> Self {
        Self { inner: cluster.network(), swallowed: Arc::default() }
    }

    /// Cuts a broker off: its connections break, and new ones never complete.
    fn swallow(&self, cluster: &Cluster, broker: i32) {
        let bootstrap = cluster.bootstrap();
        let address = bootstrap.split(',').nth(broker as usize - 1).unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        self.swallowed.lock().unwrap().insert(port);
        cluster.disconnect(broker);
    }
}

impl Network for Holes {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        self.inner.resolve(host, port)
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        if self.swallowed.lock().unwrap().contains(&endpoint.port()) {
            return Box::pin(std::future::pending());
        }
        self.inner.connect(endpoint)
    }
}

#[tokio::test(start_paused = true)]
async fn resends_batches_together_after_unreachable_leader_moves() {
    for compression in [crate::wire::Compression::None, crate::wire::Compression::Lz4] {
        let cluster = cluster_with(Options::new().brokers(2), 1).await;
        cluster.move_leader(TOPIC, 0, 2).unwrap();
        let network = Holes::in_network_of(&cluster);
        let builder = builder(&cluster).network(Arc::new(network.clone())).batch_size(100_000).linger(ms(1));
        let producer = builder.compression(compression).build().await.unwrap();
        delivered(send_numbers(&producer, 0..1).await).await;
        network.swallow(&cluster, 2);
        // Five requests, the maximum in flight; large ones, so that they are compressed outside the
        // sender task.
        let mut deliveries = Vec::new();
        for batch in 0..5 {
            for number in 1 + batch * 400..1 + (batch + 1) * 400 {
                let value = format!("{number:>100}");
                deliveries.push(producer.send(Record::to(TOPIC).with_partition(0).with_value(value)).await.unwrap());
            }
            tokio::time::sleep(ms(5)).await;
        }
        cluster.move_leader(TOPIC, 0, 1).unwrap();
        let before = tokio::time::Instant::now();
        delivered(deliveries).await;
        // socket.connection.setup.timeout.ms is 10 s, and grows from attempt to attempt: one has to
        // be enough.
        let took = before.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}");
        let log: Vec<u64> = log(&cluster, 0).iter().map(|value| value.trim().parse().unwrap()).collect();
        assert_eq!(log, (0..2001).collect::<Vec<_>>());
    }
}
