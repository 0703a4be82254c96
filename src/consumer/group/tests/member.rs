//! A member of a group with a reader, against brokers on the in-memory network under paused time.

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

use super::LONG;
use crate::{
    cluster::{Client, ClientSettings},
    consumer::{
        GroupProtocol, OffsetAndMetadata,
        group::{
            GroupEvent, GroupHandle, GroupSettings,
            assignor::{RangeAssignor, RebalanceProtocol},
        },
        subscription::topics::Subscription,
    },
    error::Error,
    record::TopicPartition,
    testkit::Cluster,
};

pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(120);

/// Returns the time after which the group removes a silent member: the member's own setting in the
/// classic protocol, that of the brokers in the consumer protocol.
pub(super) fn session(protocol: GroupProtocol) -> Duration {
    match protocol {
        GroupProtocol::Classic => Duration::from_secs(10),
        GroupProtocol::Consumer => Duration::from_secs(45),
    }
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

/// Returns the settings of a member of the group `g`.
pub(super) fn settings(protocol: GroupProtocol) -> GroupSettings {
    GroupSettings {
        group_id: "g".into(),
        group_instance_id: None,
        session_timeout: session(protocol),
        heartbeat_interval: Duration::from_secs(1),
        max_poll_interval: POLL_INTERVAL,
        assignors: vec![Arc::new(RangeAssignor)],
        client_rack: None,
        exclude_internal_topics: true,
        origin: crate::log::Origin::default(),
    }
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
struct Habits {
    polls: AtomicBool,
    /// Time that it takes to finish its records when partitions are revoked; then it commits those
    /// of `commits` that are revoked.
    finishes_after: Mutex<Duration>,
    commits: Mutex<Vec<(TopicPartition, OffsetAndMetadata)>>,
}

/// A member with a reader that polls every half second and releases revoked partitions.
pub(super) struct Member {
    pub(super) handle: GroupHandle,
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
    /// Creates a member that subscribes to nothing yet.
    pub(super) fn new(cluster: &Cluster, protocol: GroupProtocol) -> Self {
        Self::with(cluster, protocol, settings(protocol))
    }

    pub(super) fn with(cluster: &Cluster, protocol: GroupProtocol, settings: GroupSettings) -> Self {
        Self::of(client(cluster), protocol, settings)
    }

    pub(super) fn of(client: Client, protocol: GroupProtocol, settings: GroupSettings) -> Self {
        let is_eager = protocol == GroupProtocol::Classic
            && settings.assignors.iter().any(|assignor| assignor.protocol() == RebalanceProtocol::Eager);
        let (events, received) = mpsc::unbounded_channel();
        let handle = match protocol {
            GroupProtocol::Classic => GroupHandle::start(client, settings, events),
            GroupProtocol::Consumer => GroupHandle::start_consumer_protocol(client, settings, None, events),
        };
        Self::driven(handle, received, is_eager)
    }

    /// Creates a member of the consumer protocol that names the assignor of the brokers.
    pub(super) fn assigned_by(cluster: &Cluster, assignor: &str) -> Self {
        let (events, received) = mpsc::unbounded_channel();
        let (settings, assignor) = (settings(GroupProtocol::Consumer), Some(assignor.into()));
        let handle = GroupHandle::start_consumer_protocol(client(cluster), settings, assignor, events);
        Self::driven(handle, received, false)
    }

    /// Creates a static member that subscribes to `t`.
    pub(super) fn fixed(cluster: &Cluster, protocol: GroupProtocol, instance_id: &str) -> Self {
        let settings = GroupSettings { group_instance_id: Some(instance_id.into()), ..settings(protocol) };
        let member = Self::with(cluster, protocol, settings);
        member.subscribe(&["t"]);
        member
    }

    pub(super) fn joined(cluster: &Cluster, protocol: GroupProtocol, elements: &[&str]) -> Self {
        let member = Self::new(cluster, protocol);
        member.subscribe(elements);
        member
    }

    fn driven(handle: GroupHandle, received: mpsc::UnboundedReceiver<GroupEvent>, is_eager: bool) -> Self {
        let (said, heard) = watch::channel(Heard::default());
        let habits = Arc::new(Habits {
            polls: AtomicBool::new(true),
            finishes_after: Mutex::new(Duration::from_millis(10)),
            commits: Mutex::new(Vec::new()),
        });
        let driver = tokio::spawn(drive(handle.clone(), received, said, habits.clone(), is_eager));
        Self { handle, heard, habits, driver }
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

    pub(super) fn commits(&self, offsets: Vec<(TopicPartition, OffsetAndMetadata)>) {
        *self.habits.commits.lock().unwrap() = offsets;
    }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(super) fn partitions(topic: &str, numbers: impl IntoIterator<Item = i32>) -> BTreeSet<TopicPartition> {
    numbers.into_iter().map(|number| TopicPartition::new(topic, number)).collect()
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
    is_eager: bool,
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
                        let revoked = offsets.into_iter().filter(|(partition, _)| partitions.contains(partition));
                        if let Err(error) = handle.commit(revoked.collect(), soon()).await {
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
                        assert!(!is_eager || heard.owned.is_empty(), "everything is given up first");
                        heard.assigned += 1;
                        for partition in partitions {
                            assert!(heard.owned.insert(partition), "assigned twice");
                        }
                    }
                    GroupEvent::Lost { partitions } => {
                        let lost: BTreeSet<_> = partitions.into_iter().collect();
                        assert!(lost.is_subset(&heard.owned) && (!is_eager || lost == heard.owned));
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
