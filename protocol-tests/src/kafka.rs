//! A running cluster.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::builder::Builder;
use crate::error::{Error, tail};
use crate::jars::{Jars, Version};
use crate::node::Node;
use crate::places::Scratch;
use crate::tools::Tools;
use crate::wire::{self, ClusterView, TopicView};

/// JVM options for a quick start and little memory: no second compiler, no threads for the
/// collector.
pub(crate) const QUICK_JVM: [&str; 4] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData"];

/// Maximum size of a cluster, chosen for the memory of test machines.
pub(crate) const MAX_NODES: usize = 5;

const PAUSE: Duration = Duration::from_millis(100);

/// A real Apache Kafka on loopback. Dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Kafka {
    // Nodes before the directory, since they are dropped in this order.
    pub(crate) nodes: Vec<Node>,
    pub(crate) jars: Jars,
    pub(crate) scratch: Scratch,
    pub(crate) start_timeout: Duration,
    pub(crate) _seats: Option<Seats>,
}

impl Kafka {
    /// Starts with one node of Kafka [`default_version`](crate::default_version).
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns `bootstrap.servers`: every node's plain listener.
    pub fn bootstrap(&self) -> String {
        join(self.nodes.iter().map(Node::address))
    }

    /// Returns `bootstrap.servers` for a listener that the builder added.
    pub fn bootstrap_of(&self, listener: &str) -> Option<String> {
        self.nodes.iter().map(|node| node.listener(listener)).collect::<Option<Vec<_>>>().map(join)
    }

    /// Returns the node with this broker id: 0, 1, and so on.
    ///
    /// # Panics
    /// If there is no such node, which is a mistake of the test.
    pub fn node(&self, id: usize) -> &Node {
        match self.nodes.get(id) {
            Some(node) => node,
            None => panic!("there is no node {id}: the cluster has {}", self.nodes.len()),
        }
    }

    /// Returns all nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the version.
    pub fn version(&self) -> &Version {
        self.jars.version()
    }

    /// Returns Kafka's own clients and tools, of the same version, for this cluster.
    pub fn tools(&self) -> Tools {
        Tools::new(self.jars.clone(), self.bootstrap())
    }

    /// Waits until every node that is up knows every other such node as alive, and no others. A
    /// frozen node counts as up and does not answer, so the cluster is not ready until that node is
    /// thawed or killed.
    ///
    /// # Errors
    /// `Ended` when a node ended meanwhile; `TimedOut`.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn ready(&self) -> Result<(), Error> {
        self.ready_within(self.start_timeout).await
    }

    pub(crate) async fn ready_within(&self, within: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        loop {
            let mut up: Vec<i32> = Vec::new();
            for node in &self.nodes {
                node.check()?;
                if node.is_up() {
                    up.push(node.id);
                }
            }
            let mut agree = 0;
            for id in &up {
                let Some(node) = self.nodes.iter().find(|node| node.id == *id) else {
                    continue;
                };
                // An error here means "not yet"; the log in the final error shows the cause.
                if let Ok(mut view) = wire::metadata(node.address(), &[]).await {
                    view.brokers.sort_unstable();
                    agree += usize::from(view.brokers == up);
                }
            }
            if agree == up.len() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.not_ready(within));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(crate) fn not_ready(&self, after: Duration) -> Error {
        let logs: Vec<_> = self.nodes.iter().map(Node::log).collect();
        Error::TimedOut { what: format!("Kafka {}", self.version().as_str()), after, log: tail(&logs) }
    }

    /// Returns the state of the cluster and of these topics as one node knows it (an empty list: no
    /// topics).
    ///
    /// # Errors
    /// `Io` or `TimedOut` (5 s) when it does not answer.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn view(&self, node: usize, topics: &[&str]) -> Result<ClusterView, Error> {
        wire::metadata(self.node(node).address(), topics).await
    }

    /// Returns the id of the active controller, according to the first node that is up and answers.
    ///
    /// # Errors
    /// `Refused` by a Kafka before 3.3, which does not forward the request; `Io` or `TimedOut` (5
    /// s) when no node answers.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn controller(&self) -> Result<i32, Error> {
        let mut answer = wire::controller(self.node(0).address()).await;
        for node in self.nodes.iter().skip(1).filter(|node| node.is_up()) {
            if answer.is_ok() {
                break;
            }
            answer = wire::controller(node.address()).await;
        }
        answer
    }

    /// Creates a topic and waits until every node that is up knows the leader of each of its
    /// partitions. It takes milliseconds, because unlike the command line tool it needs no JVM.
    ///
    /// # Errors
    /// `Refused` with the broker's code; `Io` when no node answers; `TimedOut` after 30 s.
    ///
    /// # Cancel safety
    /// When the future is dropped early, the topic may have been created.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Result<(), Error> {
        let up = self.nodes.iter().find(|node| node.is_up()).unwrap_or(self.node(0));
        wire::create_topic(up.address(), name, partitions, replicas, configs).await?;
        let wanted = usize::try_from(partitions).unwrap_or(1);
        self.until_topic(name, Duration::from_secs(30), |topic| {
            topic.error == 0
                && topic.partitions.len() >= wanted.max(1)
                && topic.partitions.iter().all(|partition| partition.error == 0 && partition.leader >= 0)
        })
        .await
        .map(drop)
    }

    /// Sets properties of a group, such as `consumer.session.timeout.ms` (Kafka 4.0 and newer).
    ///
    /// # Errors
    /// `Refused` with the broker's code, `Io` or `TimedOut` when it does not answer.
    ///
    /// # Cancel safety
    /// When the future is dropped early, the properties may have been set.
    pub async fn configure_group(&self, group: &str, configs: &[(&str, &str)]) -> Result<(), Error> {
        let up = self.nodes.iter().find(|node| node.is_up()).unwrap_or(self.node(0));
        wire::configure_group(up.address(), group, configs).await
    }

    /// Waits until the topic satisfies `wanted` on every node that is up, and returns the view of
    /// the last of them.
    ///
    /// # Errors
    /// `TimedOut`, with the nodes' last views.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn until_topic(
        &self,
        name: &str,
        within: Duration,
        wanted: impl Fn(&TopicView) -> bool,
    ) -> Result<TopicView, Error> {
        let deadline = Instant::now() + within;
        loop {
            let mut seen = Vec::new();
            let mut good = None;
            let up: Vec<&Node> = self.nodes.iter().filter(|node| node.is_up()).collect();
            for node in &up {
                match wire::metadata(node.address(), &[name]).await {
                    Ok(ClusterView { topics, .. }) => match topics.into_iter().next() {
                        Some(topic) if wanted(&topic) => good = Some(topic),
                        other => seen.push(format!("node {}: {other:?}", node.id)),
                    },
                    Err(error) => seen.push(format!("node {}: {error}", node.id)),
                }
            }
            if let (Some(topic), true) = (good, seen.is_empty()) {
                return Ok(topic);
            }
            if Instant::now() >= deadline {
                let what = format!("waiting for topic {name}");
                return Err(Error::TimedOut { what, after: within, log: seen.join("\n") });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Keeps the cluster's logs and data when it is dropped.
    pub fn keep_files(&mut self) {
        self.scratch.keep();
    }
}

fn join(addresses: impl IntoIterator<Item = SocketAddr>) -> String {
    let mut text = String::new();
    for address in addresses {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{address}");
    }
    text
}

/// Memory reserved for some nodes, returned when the cluster is dropped.
#[derive(Debug)]
pub(crate) struct Seats(#[allow(dead_code, reason = "held for its drop")] SemaphorePermit<'static>);

impl Seats {
    /// # Cancel safety
    /// Safe: nothing is reserved.
    pub(crate) async fn take(nodes: usize, within: Duration) -> Result<Self, Error> {
        static FREE: Semaphore = Semaphore::const_new(3);
        // More permits than exist would never be granted; such a cluster runs alone.
        let wanted = u32::try_from(nodes.clamp(1, 3)).unwrap_or(3);
        match timeout(within, FREE.acquire_many(wanted)).await {
            Ok(Ok(permit)) => Ok(Self(permit)),
            _ => Err(Error::TimedOut {
                what: format!("waiting for memory for {nodes} nodes beside the running clusters"),
                after: within,
                log: String::new(),
            }),
        }
    }
}
