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

/// Makes a JVM start quickly and stay small: no second compiler, no threads for the collector.
pub(crate) const QUICK_JVM: [&str; 4] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData"];

/// The largest cluster that a machine for tests should be asked for.
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
    /// One node of Kafka [`default_version`](crate::default_version), unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What goes into `bootstrap.servers`: every node's plain listener.
    pub fn bootstrap(&self) -> String {
        join(self.nodes.iter().map(Node::address))
    }

    /// The same for a listener that the builder added.
    pub fn bootstrap_of(&self, listener: &str) -> Option<String> {
        self.nodes.iter().map(|node| node.listener(listener)).collect::<Option<Vec<_>>>().map(join)
    }

    /// The node with this broker id: 0, 1, and so on.
    ///
    /// # Panics
    /// When there is no such node, which is a mistake of the test.
    pub fn node(&self, id: usize) -> &Node {
        match self.nodes.get(id) {
            Some(node) => node,
            None => panic!("there is no node {id}: the cluster has {}", self.nodes.len()),
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What version it is.
    pub fn version(&self) -> &Version {
        self.jars.version()
    }

    /// Kafka's own clients and tools, of the same version, for this cluster.
    pub fn tools(&self) -> Tools {
        Tools::new(self.jars.clone(), self.bootstrap())
    }

    /// Waits until every node that is up knows every other such node as alive, and knows of no
    /// more. A frozen node counts as up and does not answer, so nothing is ready until it is thawed
    /// or killed.
    ///
    /// # Errors
    /// `Ended` when a node ended meanwhile; `TimedOut`.
    ///
    /// # Cancel safety
    /// May be dropped; nothing changes.
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
                // An error here means "not yet"; the log in the final error says why.
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

    /// What one node knows about the cluster and these topics (an empty list: none).
    ///
    /// # Errors
    /// `Io` or `TimedOut` (5 s) when it does not answer.
    ///
    /// # Cancel safety
    /// May be dropped; nothing changes.
    pub async fn view(&self, node: usize, topics: &[&str]) -> Result<ClusterView, Error> {
        wire::metadata(self.node(node).address(), topics).await
    }

    /// The node that is the active controller, as the first node that is up and answers knows it.
    ///
    /// # Errors
    /// `Refused` by a Kafka before 3.3, which does not pass the question on; `Io` or `TimedOut` (5
    /// s) when no node answers.
    ///
    /// # Cancel safety
    /// May be dropped; nothing changes.
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

    /// Creates a topic and waits until every node that is up knows who leads each of its
    /// partitions. Takes milliseconds, where the command line tool needs a JVM.
    ///
    /// # Errors
    /// `Refused` with the broker's code; `Io` when no node answers; `TimedOut` after 30 s.
    ///
    /// # Cancel safety
    /// Dropped early, the topic may have been created.
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
    /// `Refused` when the broker will not, `Io` or `TimedOut` when it does not answer.
    ///
    /// # Cancel safety
    /// Dropped early, they may be set all the same.
    pub async fn configure_group(&self, group: &str, configs: &[(&str, &str)]) -> Result<(), Error> {
        let up = self.nodes.iter().find(|node| node.is_up()).unwrap_or(self.node(0));
        wire::configure_group(up.address(), group, configs).await
    }

    /// Waits until every node that is up sees the topic as `wanted` says, and gives what the last
    /// of them sees.
    ///
    /// # Errors
    /// `TimedOut`, with what the nodes saw last.
    ///
    /// # Cancel safety
    /// May be dropped; nothing changes.
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
                let what = format!("topic {name} being as wanted");
                return Err(Error::TimedOut { what, after: within, log: seen.join("\n") });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Leaves the cluster's logs and data where they are when it is dropped.
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

/// Room in memory for some nodes, given back with the cluster.
#[derive(Debug)]
pub(crate) struct Seats(#[allow(dead_code, reason = "held for its drop")] SemaphorePermit<'static>);

impl Seats {
    /// # Cancel safety
    /// May be dropped; nothing is taken.
    pub(crate) async fn take(nodes: usize, within: Duration) -> Result<Self, Error> {
        static FREE: Semaphore = Semaphore::const_new(3);
        // More than there are would wait for ever; such a cluster runs alone.
        let wanted = u32::try_from(nodes.clamp(1, 3)).unwrap_or(3);
        match timeout(within, FREE.acquire_many(wanted)).await {
            Ok(Ok(permit)) => Ok(Self(permit)),
            _ => Err(Error::TimedOut {
                what: format!("room for {nodes} nodes beside the clusters that run"),
                after: within,
                log: String::new(),
            }),
        }
    }
}
