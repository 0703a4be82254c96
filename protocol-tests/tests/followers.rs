//! Tests of reading from a follower in the reader's own rack (KIP-392), against a real Kafka with a
//! follower that goes down and comes back.
#![cfg(unix)]

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use ottla::{
    Consumer, Offset, Producer, Record, TopicPartition,
    consumer::OffsetReset,
    net::{BoxFuture, Endpoint, Network, Stream, Tcp},
};
use protocol_tests::{Kafka, needs, or_skip};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// TCP that counts the bytes read from each port.
#[derive(Debug, Default)]
struct Counting(Mutex<HashMap<u16, Arc<AtomicU64>>>);

impl Counting {
    fn read_from(&self, address: SocketAddr) -> u64 {
        self.counter(address.port()).load(Relaxed)
    }

    fn counter(&self, port: u16) -> Arc<AtomicU64> {
        self.0.lock().expect("no panic").entry(port).or_default().clone()
    }
}

struct Counted(Box<dyn Stream>, Arc<AtomicU64>);

impl Network for Counting {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        Tcp.resolve(host, port)
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let counter = self.counter(endpoint.port());
            Ok(Box::new(Counted(Tcp.connect(endpoint).await?, counter)) as Box<dyn Stream>)
        })
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, into);
        self.1.fetch_add((into.filled().len() - before) as u64, Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

const RECORDS: i64 = 30_000;

#[tokio::test(flavor = "multi_thread")]
async fn reads_once_while_preferred_replica_restarts() -> Outcome {
    if !needs("3.0", "a quorum of several controllers, which 2.8's preview of KRaft cannot keep up") {
        return Ok(());
    }
    let started = Kafka::builder()
        .nodes(3)
        .config("broker.rack", "rack-{id}")
        .config("broker.session.timeout.ms", "3000")
        .config("broker.heartbeat.interval.ms", "500")
        .config("replica.lag.time.max.ms", "2500")
        .config("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector")
        .start()
        .await;
    let Some(kafka) = or_skip(started) else { return Ok(()) };
    kafka.create_topic("near", 1, 3, &[("min.insync.replicas", "1")]).await?;
    let producer = Producer::builder(kafka.bootstrap()).build().await?;
    producer.send(Record::to("near").with_partition(0).with_value("0")).await?.await?;

    // Reads near each node in turn: one of the three leads, and is read from directly.
    let at = TopicPartition::new("near", 0);
    let mut followers = 0;
    for node in 0..3 {
        let network = Arc::new(Counting::default());
        let builder = Consumer::builder(kafka.bootstrap()).client_rack(format!("rack-{node}"));
        let builder = builder.auto_offset_reset(OffsetReset::None).network(network.clone());
        let consumer = builder.property("metadata.max.age.ms", "3000").build().await?;
        consumer.assign([(at.clone(), Offset::At(0))])?;

        // The records of this round are all written before the next round begins, so this round's
        // first offset is the present end of the log.
        let ends = consumer.end_offsets([at.clone()]).await?;
        let first = ends.get(&at).copied().unwrap_or(0);
        let sender = tokio::spawn({
            let producer = producer.clone();
            async move {
                let value = vec![b'x'; 1000];
                for n in 0..RECORDS {
                    // The reader counts records, so it notices one that is missing in the log.
                    drop(producer.send(Record::to("near").with_partition(0).with_value(&value[..])).await?);
                    if n % 300 == 0 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                producer.flush(Duration::from_secs(60)).await;
                Ok::<_, ottla::Error>(())
            }
        });
        let mut next = 0;
        let mut downs = 0;
        while next < first + RECORDS {
            let records = consumer.poll(Duration::from_secs(60)).await?;
            assert!(!records.is_empty(), "rack {node}: no record for a minute at offset {next}");
            for record in &records {
                assert_eq!(record.offset(), next, "rack {node}: a record is skipped or repeated");
                next += 1;
            }
            drop(records);
            // Twice in between the broker nearby goes down for a while, unless it leads.
            let due = first + RECORDS / 3 * (downs + 1);
            if downs < 2 && next >= due && !leads(&kafka, node).await? {
                downs += 1;
                kafka.node(node).kill()?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                kafka.node(node).start()?;
            }
        }
        sender.await??;
        kafka.ready().await?;
        let bytes: Vec<u64> = kafka.nodes().iter().map(|node| network.read_from(node.address())).collect();
        println!("rack {node}: bytes read from each node: {bytes:?}");
        if !leads(&kafka, node).await? {
            followers += 1;
            let all: u64 = bytes.iter().sum();
            assert!(bytes[node] > all / 10, "rack {node}: {bytes:?}");
        }
        consumer.close(Duration::from_secs(10)).await?;
    }
    assert!(followers >= 1);
    producer.close(Duration::from_secs(10)).await?;
    Ok(())
}

/// Returns true if that node leads the partition.
async fn leads(kafka: &Kafka, node: usize) -> Result<bool, protocol_tests::Error> {
    let ask = (0..kafka.nodes().len()).find(|id| *id != node && kafka.node(*id).is_up()).unwrap_or(node);
    let view = kafka.view(ask, &["near"]).await?;
    let partition = view.topics.first().and_then(|topic| topic.partitions.first());
    Ok(partition.is_some_and(|partition| partition.leader == kafka.node(node).id()))
}
