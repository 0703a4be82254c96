//! Tests of members against brokers, on the in-memory network under paused time.

mod commits;
mod cooperative;
mod faults;
mod rebalance;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout},
};

use super::{
    GroupEvent, GroupHandle, GroupSettings,
    assignor::{RangeAssignor, RebalanceProtocol},
};
use crate::{
    cluster::{Client, ClientSettings},
    consumer::{OffsetAndMetadata, subscription::topics::Subscription},
    error::Error,
    record::TopicPartition,
    testkit::{Cluster, Options},
};

const SESSION: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_secs(120);
/// Longer than any wait in these tests.
const LONG: Duration = Duration::from_secs(1_000);

async fn cluster(options: Options) -> Cluster {
    let cluster = Cluster::start(options.in_memory()).await.unwrap();
    cluster.create_topic("t", 4).unwrap();
    cluster
}

fn client_settings(cluster: &Cluster) -> ClientSettings {
    ClientSettings {
        bootstrap_servers: vec![cluster.bootstrap()],
        network: cluster.network(),
        metadata_max_age: Duration::from_secs(5),
        seed: Some(7),
        ..ClientSettings::default()
    }
}

fn settings() -> GroupSettings {
    GroupSettings {
        group_id: "g".into(),
        group_instance_id: None,
        session_timeout: SESSION,
        heartbeat_interval: Duration::from_secs(1),
        max_poll_interval: POLL_INTERVAL,
        assignors: vec![Arc::new(RangeAssignor)],
        client_rack: None,
        exclude_internal_topics: true,
        origin: crate::log::Origin::default(),
    }
}

fn static_settings(instance_id: &str) -> GroupSettings {
    GroupSettings { group_instance_id: Some(instance_id.into()), ..settings() }
}

fn partitions(topic: &str, numbers: impl IntoIterator<Item = i32>) -> BTreeSet<TopicPartition> {
    numbers.into_iter().map(|number| TopicPartition::new(topic, number)).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Events that a member's consumer has received so far.
#[derive(Clone, Debug, Default)]
struct Heard {
    owned: BTreeSet<TopicPartition>,
    assigned: u32,
    revoked: u32,
    lost: u32,
    errors: Vec<Error>,
    fatal: Option<Error>,
}

/// The behaviour of the reader.
#[derive(Debug)]
struct Habits {
    polls: AtomicBool,
    /// Time that it takes to finish its records when partitions are revoked; then it commits
    /// `commits`.
    finishes_after: Mutex<Duration>,
    commits: Mutex<Vec<(TopicPartition, OffsetAndMetadata)>>,
}

/// A member with a reader that polls every half second and releases revoked partitions.
struct Member {
    handle: GroupHandle,
    heard: watch::Receiver<Heard>,
    habits: Arc<Habits>,
    driver: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Member {
    fn new(cluster: &Cluster) -> Self {
        Self::with(cluster, settings())
    }

    fn with(cluster: &Cluster, settings: GroupSettings) -> Self {
        Self::of(Client::new(client_settings(cluster)).unwrap(), settings)
    }

    fn of(client: Client, settings: GroupSettings) -> Self {
        let (events, received) = mpsc::unbounded_channel();
        let eager = settings.assignors.iter().any(|assignor| assignor.protocol() == RebalanceProtocol::Eager);
        let handle = GroupHandle::start(client, settings, events);
        let (said, heard) = watch::channel(Heard::default());
        let habits = Arc::new(Habits {
            polls: AtomicBool::new(true),
            finishes_after: Mutex::new(Duration::from_millis(10)),
            commits: Mutex::new(Vec::new()),
        });
        let driver = tokio::spawn(drive(handle.clone(), received, said, habits.clone(), eager));
        Self { handle, heard, habits, driver }
    }

    fn joined(cluster: &Cluster, elements: &[&str]) -> Self {
        let member = Self::new(cluster);
        member.subscribe(elements);
        member
    }

    fn subscribe(&self, elements: &[&str]) {
        self.handle.subscribe(Some(Subscription::parse(elements).unwrap()));
    }

    async fn until(&mut self, what: &str, condition: impl FnMut(&Heard) -> bool) -> Heard {
        if let Ok(heard) = timeout(LONG, self.heard.wait_for(condition)).await {
            return heard.unwrap().clone();
        }
        panic!("it never came to {what}: {:?}", self.now())
    }

    async fn owns(&mut self, expected: BTreeSet<TopicPartition>) -> Heard {
        self.until(&format!("owning {expected:?}"), |heard| heard.owned == expected).await
    }

    fn now(&self) -> Heard {
        self.heard.borrow().clone()
    }

    fn polls(&self, polls: bool) {
        self.habits.polls.store(polls, SeqCst);
    }

    fn finishes_after(&self, time: Duration) {
        *self.habits.finishes_after.lock().unwrap() = time;
    }
}

async fn drive(
    handle: GroupHandle,
    mut events: mpsc::UnboundedReceiver<GroupEvent>,
    said: watch::Sender<Heard>,
    habits: Arc<Habits>,
    eager: bool,
) {
    let mut polls = interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(GroupEvent::Revoking { partitions, done }) => {
                    let (handle, said, habits) = (handle.clone(), said.clone(), habits.clone());
                    tokio::spawn(async move {
                        let pause = *habits.finishes_after.lock().unwrap();
                        sleep(pause).await;
                        let offsets = habits.commits.lock().unwrap().clone();
                        if let Err(error) = handle.commit(offsets, soon()).await {
                            said.send_modify(|heard| heard.errors.push(error));
                        }
                        // Partitions that were lost meanwhile need no release.
                        if done.send(()).is_ok() {
                            said.send_modify(|heard| {
                                heard.revoked += 1;
                                heard.owned.retain(|partition| !partitions.contains(partition));
                            });
                        }
                    });
                }
                Some(event) => said.send_modify(|heard| match event {
                    GroupEvent::Assigned { partitions } => {
                        assert!(!eager || heard.owned.is_empty(), "everything is given up first");
                        heard.assigned += 1;
                        for partition in partitions {
                            assert!(heard.owned.insert(partition), "assigned twice");
                        }
                    }
                    GroupEvent::Lost { partitions } => {
                        let lost: BTreeSet<_> = partitions.into_iter().collect();
                        assert!(lost.is_subset(&heard.owned) && (!eager || lost == heard.owned));
                        heard.lost += 1;
                        heard.owned.retain(|partition| !lost.contains(partition));
                    }
                    GroupEvent::Error { error, fatal: true } => heard.fatal = Some(error),
                    GroupEvent::Error { error, fatal: false } => heard.errors.push(error),
                    GroupEvent::Revoking { .. } => {}
                }),
                None => return,
            },
            _ = polls.tick() => {
                if habits.polls.load(SeqCst) {
                    drop(handle.begin_poll());
                }
            }
        }
    }
}
