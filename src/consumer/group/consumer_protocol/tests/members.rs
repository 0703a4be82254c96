//! Tests of members with readers, against brokers on the in-memory network under paused time.

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

use crate::{
    cluster::{Client, ClientSettings},
    consumer::{
        OffsetAndMetadata,
        group::{GroupEvent, GroupHandle, GroupSettings},
        subscription::topics::Subscription,
    },
    error::Error,
    record::TopicPartition,
    testkit::{Cluster, Options},
};

pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(120);
/// Longer than any wait in these tests.
const LONG: Duration = Duration::from_secs(1_000);

pub(super) async fn cluster(options: Options) -> Cluster {
    let cluster = Cluster::start(options.in_memory()).await.unwrap();
    cluster.create_topic("t", 4).unwrap();
    cluster
}

pub(super) fn client(cluster: &Cluster) -> Client {
    let settings = ClientSettings {
        bootstrap_servers: vec![cluster.bootstrap()],
        network: cluster.network(),
        metadata_max_age: Duration::from_secs(5),
        seed: Some(7),
        ..ClientSettings::default()
    };
    Client::new(settings).unwrap()
}

pub(super) fn group_settings(instance_id: Option<&str>) -> GroupSettings {
    GroupSettings { max_poll_interval: POLL_INTERVAL, ..super::settings(instance_id) }
}

pub(super) fn set(topic: &str, numbers: impl IntoIterator<Item = i32>) -> BTreeSet<TopicPartition> {
    numbers.into_iter().map(|number| TopicPartition::new(topic, number)).collect()
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Events that a member's consumer has received so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) owned: BTreeSet<TopicPartition>,
    pub(super) assigned: u32,
    pub(super) revoked: u32,
    pub(super) lost: u32,
    pub(super) errors: Vec<Error>,
    pub(super) fatal: Option<Error>,
}

/// The behaviour of the reader.
#[derive(Debug)]
pub(super) struct Habits {
    polls: AtomicBool,
    /// Time that it takes to finish its records when partitions are revoked; then it commits
    /// `commits`.
    finishes_after: Mutex<Duration>,
    pub(super) commits: Mutex<Vec<(TopicPartition, OffsetAndMetadata)>>,
}

/// A member with a reader that polls every half second and releases revoked partitions.
pub(super) struct Member {
    pub(super) handle: GroupHandle,
    heard: watch::Receiver<Heard>,
    pub(super) habits: Arc<Habits>,
    driver: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Member {
    pub(super) fn with(cluster: &Cluster, settings: GroupSettings, assignor: Option<&str>) -> Self {
        let (events, received) = mpsc::unbounded_channel();
        let assignor = assignor.map(Arc::from);
        let handle = GroupHandle::start_consumer_protocol(client(cluster), settings, assignor, events);
        Self::driven(handle, received)
    }

    /// Creates a member of the classic protocol.
    pub(super) fn classic(cluster: &Cluster) -> Self {
        let (events, received) = mpsc::unbounded_channel();
        let handle = GroupHandle::start(client(cluster), group_settings(None), events);
        Self::driven(handle, received)
    }

    fn driven(handle: GroupHandle, received: mpsc::UnboundedReceiver<GroupEvent>) -> Self {
        let (said, heard) = watch::channel(Heard::default());
        let habits = Arc::new(Habits {
            polls: AtomicBool::new(true),
            finishes_after: Mutex::new(Duration::from_millis(10)),
            commits: Mutex::new(Vec::new()),
        });
        let driver = tokio::spawn(drive(handle.clone(), received, said, habits.clone()));
        Self { handle, heard, habits, driver }
    }

    pub(super) fn joined(cluster: &Cluster, elements: &[&str]) -> Self {
        let member = Self::with(cluster, group_settings(None), None);
        member.subscribe(elements);
        member
    }

    pub(super) fn subscribe(&self, elements: &[&str]) {
        self.handle.subscribe(Some(Subscription::parse(elements).unwrap()));
    }

    pub(super) async fn until(&mut self, what: &str, condition: impl FnMut(&Heard) -> bool) -> Heard {
        if let Ok(heard) = timeout(LONG, self.heard.wait_for(condition)).await {
            return heard.unwrap().clone();
        }
        panic!("it never came to {what}: {:?}", self.now())
    }

    pub(super) async fn owns(&mut self, expected: BTreeSet<TopicPartition>) -> Heard {
        self.until(&format!("owning {expected:?}"), |heard| heard.owned == expected).await
    }

    pub(super) async fn owns_so_many(&mut self, partitions: usize) -> BTreeSet<TopicPartition> {
        let what = format!("owning {partitions} partitions");
        self.until(&what, |heard| heard.owned.len() == partitions).await.owned
    }

    pub(super) fn now(&self) -> Heard {
        self.heard.borrow().clone()
    }

    pub(super) fn polls(&self, polls: bool) {
        self.habits.polls.store(polls, SeqCst);
    }

    pub(super) fn finishes_after(&self, time: Duration) {
        *self.habits.finishes_after.lock().unwrap() = time;
    }
}

/// Asserts that no partition belongs to two members.
pub(super) fn one_owner_each(members: &[&Member]) {
    let owned: Vec<_> = members.iter().flat_map(|member| member.now().owned).collect();
    let distinct: BTreeSet<_> = owned.iter().collect();
    assert_eq!(owned.len(), distinct.len(), "{owned:?}");
}

async fn drive(
    handle: GroupHandle,
    mut events: mpsc::UnboundedReceiver<GroupEvent>,
    said: watch::Sender<Heard>,
    habits: Arc<Habits>,
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
                        let offsets: Vec<_> = habits.commits.lock().unwrap().clone();
                        let ours = offsets.into_iter().filter(|(partition, _)| partitions.contains(partition));
                        if let Err(error) = handle.commit(ours.collect(), soon()).await {
                            said.send_modify(|heard| heard.errors.push(error));
                        }
                        // Partitions that were lost meanwhile need no release. The state changes
                        // before `done` is sent, because the group continues then.
                        if !done.is_closed() {
                            said.send_modify(|heard| {
                                heard.revoked += 1;
                                heard.owned.retain(|partition| !partitions.contains(partition));
                            });
                            let _ = done.send(());
                        }
                    });
                }
                Some(event) => said.send_modify(|heard| match event {
                    GroupEvent::Assigned { partitions } => {
                        heard.assigned += 1;
                        heard.owned.extend(partitions);
                    }
                    GroupEvent::Lost { partitions } => {
                        heard.lost += 1;
                        heard.owned.retain(|partition| !partitions.contains(partition));
                    }
                    GroupEvent::Error { error, fatal: true } => heard.fatal = Some(error),
                    GroupEvent::Error { error, fatal: false } => heard.errors.push(error),
                    _ => {}
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
