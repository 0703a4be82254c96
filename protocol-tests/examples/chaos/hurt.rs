//! Disturbs the cluster as planned, and waits until it is whole again.

use std::time::{Duration, Instant};

use protocol_tests::{Kafka, TopicView};

use crate::Failure;
use crate::plan::{Deed, Victim};

/// Time within which a node has to be in sync again, on a machine that is busy otherwise.
const HEAL: Duration = Duration::from_secs(240);

/// A cluster, and the disturbances of this round.
pub(crate) struct Surgeon<'a> {
    kafka: &'a Kafka,
    topic: &'a str,
    started: Instant,
    /// The actions so far, with the seconds since the round began.
    pub(crate) done: Vec<String>,
}

impl<'a> Surgeon<'a> {
    pub(crate) fn new(kafka: &'a Kafka, topic: &'a str) -> Self {
        Self { kafka, topic, started: Instant::now(), done: Vec::new() }
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        self.done.push(format!("{:.1} s: {what}", self.started.elapsed().as_secs_f64()));
    }

    /// Carries out a plan, and leaves the cluster with all nodes up and thawed, though not yet
    /// whole.
    pub(crate) async fn hurt(&mut self, deed: &Deed) -> Result<(), Failure> {
        match *deed {
            Deed::Kill { victim, down } => {
                let victim = self.settle(victim).await?;
                self.kill(victim)?;
                tokio::time::sleep(down).await;
                self.start(victim)?;
            }
            Deed::Freeze { victim, frozen } => {
                let victim = self.settle(victim).await?;
                self.freeze(victim)?;
                tokio::time::sleep(frozen).await;
                self.thaw(victim)?;
            }
            Deed::Stutter { victim, times, frozen, between } => {
                let victim = self.settle(victim).await?;
                for _ in 0..times {
                    self.freeze(victim)?;
                    tokio::time::sleep(frozen).await;
                    self.thaw(victim)?;
                    tokio::time::sleep(between).await;
                }
            }
            Deed::FreezeAndKill { victim, frozen, down } => {
                let victim = self.settle(victim).await?;
                self.freeze(victim)?;
                tokio::time::sleep(frozen).await;
                self.kill(victim)?;
                tokio::time::sleep(down).await;
                self.start(victim)?;
            }
            Deed::Roll { first, down } => {
                let nodes = self.kafka.nodes().len();
                for node in (0..nodes).map(|n| (first + n) % nodes) {
                    self.note(format_args!("node {node} stopped"));
                    self.kafka.node(node).stop().await?;
                    tokio::time::sleep(down).await;
                    self.start(node)?;
                    self.healed().await?;
                }
            }
            Deed::KillTwo { first, apart, down } => {
                let [first, second] = self.two(first).await?;
                self.kill(first)?;
                tokio::time::sleep(apart).await;
                self.kill(second)?;
                tokio::time::sleep(down).await;
                self.start(first)?;
                tokio::time::sleep(apart).await;
                self.start(second)?;
            }
            Deed::FreezeTwo { first, apart, frozen } => {
                let [first, second] = self.two(first).await?;
                self.freeze(first)?;
                tokio::time::sleep(apart).await;
                self.freeze(second)?;
                tokio::time::sleep(frozen).await;
                self.thaw(first)?;
                tokio::time::sleep(apart).await;
                self.thaw(second)?;
            }
        }
        Ok(())
    }

    /// Waits until every node knows all others and every replica is in sync.
    pub(crate) async fn healed(&mut self) -> Result<(), Failure> {
        self.kafka.ready().await?;
        let whole = |topic: &TopicView| {
            let in_sync = |p: &protocol_tests::PartitionView| p.leader >= 0 && p.in_sync.len() == p.replicas.len();
            topic.error == 0 && topic.partitions.iter().all(in_sync)
        };
        self.kafka.until_topic(self.topic, HEAL, whole).await?;
        self.note("all in sync");
        Ok(())
    }

    async fn settle(&mut self, victim: Victim) -> Result<usize, Failure> {
        let nodes = self.kafka.nodes().len();
        let id = match victim {
            Victim::Node(node) => return Ok(node % nodes),
            Victim::Controller => match self.kafka.controller().await {
                Ok(id) => id,
                Err(error) => {
                    self.note(format_args!("node 0 instead of the controller ({error})"));
                    0
                }
            },
            Victim::MostLeader => {
                let view = self.kafka.view(0, &[self.topic]).await?;
                let led = |id: i32| {
                    let partitions = view.topics.iter().flat_map(|topic| &topic.partitions);
                    partitions.filter(|partition| partition.leader == id).count()
                };
                self.kafka.nodes().iter().map(protocol_tests::Node::id).max_by_key(|id| led(*id)).unwrap_or(0)
            }
        };
        Ok(usize::try_from(id)?.min(nodes - 1))
    }

    /// Returns a node, and the one after it.
    async fn two(&mut self, first: Victim) -> Result<[usize; 2], Failure> {
        let first = self.settle(first).await?;
        Ok([first, (first + 1) % self.kafka.nodes().len()])
    }

    fn kill(&mut self, node: usize) -> Result<(), Failure> {
        self.kafka.node(node).kill()?;
        self.note(format_args!("node {node} killed"));
        Ok(())
    }

    fn start(&mut self, node: usize) -> Result<(), Failure> {
        self.kafka.node(node).start()?;
        self.note(format_args!("node {node} started"));
        Ok(())
    }

    fn freeze(&mut self, node: usize) -> Result<(), Failure> {
        self.kafka.node(node).freeze()?;
        self.note(format_args!("node {node} frozen"));
        Ok(())
    }

    fn thaw(&mut self, node: usize) -> Result<(), Failure> {
        self.kafka.node(node).thaw()?;
        self.note(format_args!("node {node} thawed"));
        Ok(())
    }
}
