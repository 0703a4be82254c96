//! Configuration of the cluster to start.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::error::{Error, tail};
use crate::jars::{Jars, Version};
use crate::kafka::{Kafka, MAX_NODES, QUICK_JVM, Seats};
use crate::node::{Node, write_properties};
use crate::places::{self, Scratch};

/// The version that is started if neither the test nor `OTTLA_KAFKA_VERSION` names one.
pub const DEFAULT_VERSION: &str = "4.4.0";

/// The environment variable that names the version for every test that does not.
const VERSION_VARIABLE: &str = "OTTLA_KAFKA_VERSION";

/// Returns the version that [`Kafka::builder`] starts: that of `OTTLA_KAFKA_VERSION`, otherwise
/// [`DEFAULT_VERSION`].
pub fn default_version() -> String {
    std::env::var(VERSION_VARIABLE)
        .ok()
        .filter(|version| !version.is_empty())
        .unwrap_or_else(|| DEFAULT_VERSION.to_owned())
}

const CLIENT: &str = "CLIENT";
const CONTROLLER: &str = "CONTROLLER";
/// Kafka's own ids are 22 characters of base64; any id will do for a cluster that only its test
/// uses.
const CLUSTER_ID: &str = "b3R0bGEtZml4dHVyZS0wMQ";
/// Generous, because a machine that runs tests in parallel gives a JVM little time: on an idle
/// machine, a start takes four seconds.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// Configures a cluster. Made by [`Kafka::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    version: String,
    cluster_id: String,
    nodes: usize,
    configs: Vec<(String, String)>,
    listeners: Vec<(String, String)>,
    format_args: Vec<String>,
    jvm_args: Option<Vec<String>>,
    heap_mb: Option<u32>,
    start_timeout: Duration,
    announce: bool,
    log_requests: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            version: default_version(),
            cluster_id: CLUSTER_ID.to_owned(),
            nodes: 1,
            configs: Vec::new(),
            listeners: Vec::new(),
            format_args: Vec::new(),
            jvm_args: None,
            heap_mb: None,
            start_timeout: START_TIMEOUT,
            announce: true,
            log_requests: false,
        }
    }
}

impl Builder {
    /// Sets the version of Apache Kafka; default [`default_version`]. 2.8 is the oldest that can be
    /// started (always as KRaft).
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Sets the cluster's id, 16 bytes in base64 (22 characters); by default all clusters of this
    /// fixture have the same id.
    #[must_use]
    pub fn cluster_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.cluster_id);
        self
    }

    /// Writes every request and its response as JSON into the [log](Node::log) of the node that
    /// answered; default false.
    #[must_use]
    pub fn log_requests(mut self) -> Self {
        self.log_requests = true;
        self
    }

    /// Sets the number of nodes, each broker and controller in one; 1 to 5, default 1.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Sets a broker setting of every node; it overrides the fixture's own value. `{id}` in the
    /// value becomes the node's id.
    #[must_use]
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.configs.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a listener to each node, beside the plain one: a name, and `PLAINTEXT`, `SSL`,
    /// `SASL_PLAINTEXT` or `SASL_SSL`. Its settings are given with [`config`](Self::config), its
    /// address with [`Node::listener`].
    #[must_use]
    pub fn listener(mut self, name: &str, protocol: &str) -> Self {
        self.listeners.push((name.to_owned(), protocol.to_owned()));
        self
    }

    /// Adds an argument for Kafka's `StorageTool format`, such as `--add-scram` and its value.
    #[must_use]
    pub fn format_arg(mut self, arg: &str) -> Self {
        self.format_args.push(arg.to_owned());
        self
    }

    /// Returns true if SCRAM credentials can be given to `StorageTool` (KIP-900).
    pub(crate) fn has_scram(&self) -> bool {
        Version::parse(&self.version).is_ok_and(|version| version.number >= (3, 5, 0))
    }

    /// Sets arguments for the JVM, replacing those that make it start quickly and stay small; the
    /// heap is set by [`heap_mb`](Self::heap_mb).
    #[must_use]
    pub fn jvm_args(mut self, args: &[&str]) -> Self {
        self.jvm_args = Some(args.iter().map(|arg| (*arg).to_owned()).collect());
        self
    }

    /// Sets each node's heap in MiB; default 512 for one node, 400 for several.
    #[must_use]
    pub fn heap_mb(mut self, mb: u32) -> Self {
        self.heap_mb = Some(mb);
        self
    }

    /// Sets the time within which the cluster has to be ready, without the time for fetching jars;
    /// default 180 s.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Writes the version and address to standard error when the cluster is ready; default true.
    #[must_use]
    pub fn announce(mut self, announce: bool) -> Self {
        self.announce = announce;
        self
    }

    /// Starts the cluster and waits until every node knows all the others.
    ///
    /// # Errors
    /// `Unavailable` when this machine has no Java or Maven or cannot fetch; `Unfit` for an
    /// impossible version or number of nodes; `Ended` or `TimedOut`, with the end of its log, when
    /// the cluster did not come up.
    ///
    /// # Cancel safety
    /// When the future is dropped early, the processes that were started are killed and their files
    /// removed.
    pub async fn start(self) -> Result<Kafka, Error> {
        // Several clusters at once would not fit into memory, so later ones wait.
        let seats = Seats::take(self.nodes, self.start_timeout.saturating_mul(4)).await?;
        self.start_seated(Some(seats)).await
    }

    /// Starts the cluster without waiting for other clusters.
    pub(crate) async fn start_seated(self, seats: Option<Seats>) -> Result<Kafka, Error> {
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(Error::Unfit(format!("{} nodes: 1 to {MAX_NODES} can be started", self.nodes)));
        }
        let jars = Jars::get(Version::parse(&self.version)?).await?;
        let deadline = Instant::now() + self.start_timeout;
        let scratch = Scratch::new("cluster")?;
        let nodes = self.lay_out(&jars, &scratch)?;
        let mut kafka = Kafka { nodes, jars, scratch, start_timeout: self.start_timeout, _seats: seats };
        match self.bring_up(&kafka, deadline).await {
            Ok(()) => Ok(kafka),
            Err(error) => {
                kafka.scratch.keep();
                Err(error)
            }
        }
    }

    async fn bring_up(&self, kafka: &Kafka, deadline: Instant) -> Result<(), Error> {
        let mut formats = Vec::new();
        for node in &kafka.nodes {
            formats.push((node, node.format(&self.cluster_id, &self.format_args)?));
        }
        for (node, mut format) in formats {
            let what = format!("formatting the data of node {}", node.id);
            let log = || tail(&[node.log()]);
            match format.wait_until(deadline).await.map_err(Error::io(what.clone()))? {
                Some(status) if status.success() => {}
                Some(status) => {
                    return Err(Error::Ended { what, status, log: log() });
                }
                None => {
                    return Err(Error::TimedOut { what, after: self.start_timeout, log: log() });
                }
            }
        }
        for node in &kafka.nodes {
            node.start()?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = timeout_at(deadline, kafka.ready_within(left));
        ready.await.unwrap_or_else(|_| Err(kafka.not_ready(self.start_timeout)))?;
        if self.announce {
            let version = kafka.version().as_str();
            crate::say(&format!(
                "a real Kafka {version} at {} (log: {})",
                kafka.bootstrap(),
                kafka.nodes[0].log().display()
            ));
        }
        Ok(())
    }

    /// Chooses ports and writes each node's directory and properties.
    fn lay_out(&self, jars: &Jars, scratch: &Scratch) -> Result<Vec<Node>, Error> {
        let names: Vec<&str> =
            [CLIENT].into_iter().chain(self.listeners.iter().map(|(name, _)| name.as_str())).collect();
        // Each node's ports: its controller's, then one for each listener.
        let each = 1 + names.len();
        let ports = places::free_ports(each * self.nodes)?;
        let ports: Vec<&[u16]> = ports.chunks(each).collect();
        let voters: Vec<String> =
            ports.iter().enumerate().map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports[0])).collect();
        let voters = voters.join(",");
        let mut nodes = Vec::with_capacity(self.nodes);
        for (id, ports) in (0i32..).zip(&ports) {
            let listeners: Vec<(String, u16)> =
                names.iter().map(|name| (*name).to_owned()).zip(ports[1..].iter().copied()).collect();
            let node = Node {
                id,
                dir: scratch.path().join(format!("node-{id}")),
                jars: jars.clone(),
                jvm_args: self.jvm(),
                process: Mutex::new(None),
                listeners,
            };
            let write = || -> std::io::Result<()> {
                std::fs::create_dir_all(node.data())?;
                write_properties(&node.properties(), &self.properties(&node, ports[0], &voters))
            };
            write().map_err(Error::io(format!("making {}", node.dir.display())))?;
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn jvm(&self) -> Vec<String> {
        let heap = self.heap_mb.unwrap_or(if self.nodes == 1 { 512 } else { 400 });
        let args = self.jvm_args.clone().unwrap_or_else(|| QUICK_JVM.iter().map(|arg| (*arg).to_owned()).collect());
        let requests = self.log_requests.then(|| "-Dorg.slf4j.simpleLogger.log.kafka.request.logger=debug".to_owned());
        [format!("-Xmx{heap}m")].into_iter().chain(args).chain(requests).collect()
    }

    fn properties(&self, node: &Node, controller_port: u16, voters: &str) -> Vec<(String, String)> {
        let advertised: Vec<String> =
            node.listeners.iter().map(|(name, port)| format!("{name}://127.0.0.1:{port}")).collect();
        let advertised = advertised.join(",");
        let protocols: String = self.listeners.iter().map(|(name, protocol)| format!(",{name}:{protocol}")).collect();
        let copies = self.nodes.min(3).to_string();
        // With three replicas, writes that offsets and transactions depend on must be on two.
        let copies_needed = if self.nodes >= 3 { "2" } else { "1" };
        let own = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", node.id.to_string()),
            ("controller.quorum.voters", voters.to_owned()),
            ("listeners", format!("{advertised},{CONTROLLER}://127.0.0.1:{controller_port}")),
            ("advertised.listeners", advertised),
            ("controller.listener.names", CONTROLLER.to_owned()),
            ("inter.broker.listener.name", CLIENT.to_owned()),
            ("listener.security.protocol.map", format!("{CLIENT}:PLAINTEXT,{CONTROLLER}:PLAINTEXT{protocols}")),
            ("log.dirs", node.data().display().to_string()),
            ("default.replication.factor", copies.clone()),
            ("offsets.topic.replication.factor", copies.clone()),
            // The default of 50 partitions costs seconds on a busy machine and tests nothing more.
            ("offsets.topic.num.partitions", "5".to_owned()),
            ("transaction.state.log.replication.factor", copies.clone()),
            ("transaction.state.log.min.isr", copies_needed.to_owned()),
            ("transaction.state.log.num.partitions", "5".to_owned()),
            ("share.coordinator.state.topic.replication.factor", copies),
            ("share.coordinator.state.topic.min.isr", copies_needed.to_owned()),
            ("share.coordinator.state.topic.num.partitions", "5".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            // The cleaner's default buffer of 128 MiB would be a third of the heap.
            ("log.cleaner.dedupe.buffer.size", "4194304".to_owned()),
        ];
        let mut all: Vec<(String, String)> = own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        for (key, value) in &self.configs {
            let value = value.replace("{id}", &node.id.to_string());
            match all.iter_mut().find(|(known, _)| known == key) {
                Some(entry) => entry.1 = value,
                None => all.push((key.clone(), value)),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_settings_override_defaults_per_node() {
        let builder = Builder::default()
            .nodes(3)
            .listener("WHO", "SASL_SSL")
            .config("group.initial.rebalance.delay.ms", "7")
            .config("broker.rack", "rack-{id}");
        let jars = Jars::at(Version::parse("4.3.1").expect("a version"), "nowhere".into());
        let scratch = Scratch::new("layout").expect("a directory");
        let nodes = builder.lay_out(&jars, &scratch).expect("three nodes");
        assert_eq!(nodes.iter().map(Node::id).collect::<Vec<_>>(), [0, 1, 2]);
        let node = &nodes[2];
        let text = std::fs::read_to_string(node.properties()).expect("its properties");
        let value = |key: &str| {
            let values: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
            assert_eq!(values.len(), 1, "{key} in {text}");
            values[0].to_owned()
        };
        let who = node.listener("WHO").expect("the listener that was added");
        assert_eq!(value("advertised.listeners"), format!("CLIENT://{},WHO://{who}", node.address()));
        assert!(value("listener.security.protocol.map").ends_with(",WHO:SASL_SSL"));
        assert_eq!(value("controller.quorum.voters").split(',').count(), 3);
        assert_eq!(value("transaction.state.log.min.isr"), "2");
        assert_eq!(value("group.initial.rebalance.delay.ms"), "7");
        assert_eq!(value("broker.rack"), "rack-2");
    }
}
