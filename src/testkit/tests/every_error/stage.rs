//! One pair played: a cluster with a fault that never ends, a client, and a virtual minute.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::Notify,
    time::{Instant, sleep},
};

use super::ear::{Ear, Way};
use crate::{
    ApiKey, Consumer, Producer, Record,
    consumer::ConsumerBuilder,
    net::Network,
    producer::ProducerBuilder,
    testkit::{Cluster, Fault, FaultHandle, Options, on_any_of},
};

/// The time over which requests are averaged, and within which the user has to learn of an error.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// A call may take all of `default.api.timeout.ms`, which is a minute, and its last attempt ends a
/// little later.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(62);
/// Duration of a scenario: long enough for a minute that begins with the first refusal.
pub(super) const PLAYED: Duration = Duration::from_secs(80);
/// Maximum number of requests in a minute: ten a second.
const MOST_REQUESTS: usize = 600;
/// Maximum number of log lines of one cause in a scenario: one in ten seconds.
const MOST_LINES: usize = 8;
/// A pair is cut short when it has run for this long and the user has learned of the error.
const ENOUGH: Duration = Duration::from_secs(12);
/// A client that sends this many requests spins, and the scenario is cut off.
const SPINS: usize = 1500;

/// The topic of the scenarios, with two partitions.
pub(super) const TOPIC: &str = "t";
/// The group of the scenarios.
pub(super) const GROUP: &str = "g";

pub(super) type Playing = Pin<Box<dyn Future<Output = ()>>>;

/// The environment of a scenario.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) cluster: Arc<Cluster>,
    pub(super) network: Arc<dyn Network>,
    pub(super) ear: Ear,
    pub(super) ends: Instant,
}

impl Stage {
    pub(super) fn producer(&self) -> ProducerBuilder {
        Producer::builder(self.cluster.bootstrap()).network(self.network.clone())
    }

    pub(super) fn consumer(&self) -> ConsumerBuilder {
        // With the default of 500 ms, the many long polls would hide requests that are repeated
        // without a backoff.
        let wait = Duration::from_secs(5);
        Consumer::builder(self.cluster.bootstrap()).network(self.network.clone()).fetch_max_wait(wait)
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    pub(super) fn append(&self, partition: i32) {
        self.cluster.append(TOPIC, partition, &[Record::to(TOPIC).with_value("v")]).unwrap();
    }
}

/// The outcome of a pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Time for which the pair was played.
    pub(super) played: Duration,
    /// Number of requests that the fault struck.
    pub(super) hits: u64,
    /// Maximum number of requests in any minute, of all kinds.
    pub(super) requests: usize,
    /// Total number of requests, by kind.
    pub(super) by_api: BTreeMap<ApiKey, usize>,
    /// True if the client did its work to the end all the same.
    pub(super) works: bool,
    /// True if the scenario was cut off because the client sent too many requests.
    pub(super) spun: bool,
    /// Time from the first refusal until the user learned of the error, by each way.
    pub(super) heard: BTreeMap<Way, Duration>,
    /// Number of lines from the place in the code that wrote most, and one of them.
    pub(super) lines: (usize, String),
    pub(super) transcript: String,
}

impl Outcome {
    /// Returns the share of `whole` that was played.
    fn share(&self, whole: Duration) -> f64 {
        (self.played.as_secs_f64() / whole.as_secs_f64()).clamp(0.3, 1.0)
    }

    pub(super) fn spins(&self) -> bool {
        self.spun || self.requests as f64 > MOST_REQUESTS as f64 * self.share(MINUTE)
    }

    pub(super) fn floods(&self) -> bool {
        // The first lines of a backoff are close together.
        let early = f64::from(u8::from(self.played < PLAYED));
        self.lines.0 as f64 > (MOST_LINES as f64 * self.share(PLAYED)).ceil() + early
    }

    pub(super) fn heard_after(&self) -> Option<Duration> {
        self.heard.values().min().copied()
    }
}

/// Requests, and the times at which they were sent.
type Sent = Vec<(Instant, ApiKey)>;

#[derive(Clone, Default)]
struct Meter(Arc<(Mutex<Sent>, Notify)>);

impl Meter {
    fn count(&self, key: ApiKey) {
        let mut seen = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((Instant::now(), key));
        if seen.len() > SPINS {
            self.0.1.notify_one();
        }
    }

    fn seen(&self) -> Sent {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns the largest number of these requests in any minute.
fn busiest_minute(seen: &[(Instant, ApiKey)]) -> usize {
    let mut from = 0;
    let counts = seen.iter().enumerate().map(|(i, (at, _))| {
        while at.duration_since(seen[from].0) > MINUTE {
            from += 1;
        }
        i + 1 - from
    });
    counts.max().unwrap_or(0)
}

/// Creates the fault, and the network that the client is on.
pub(super) type MakeFault = Box<dyn Fn(&Cluster) -> (Option<Fault>, Arc<dyn Network>)>;

/// The settings of a pair.
pub(super) struct Setting {
    pub(super) options: Options,
    pub(super) fault: MakeFault,
    pub(super) play: fn(Stage) -> Playing,
    /// The user has to see one of these words.
    pub(super) words: Vec<String>,
    /// True if a client that does its work all the same need not report anything.
    pub(super) work_counts: bool,
    /// True if the pair is not cut short.
    pub(super) whole: bool,
}

/// Plays a pair. `ear` is the thread's subscriber.
pub(super) fn play(setting: &Setting, ear: &Ear) -> Outcome {
    ear.clear();
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(async {
        let cluster = Arc::new(Cluster::start(setting.options.clone().brokers(2).in_memory()).await.unwrap());
        cluster.create_topic(TOPIC, 2).unwrap();
        let meter = Meter::default();
        let counting = meter.clone();
        let count = move |request: &crate::testkit::Request| {
            counting.count(request.key);
            false
        };
        let _ = cluster.fault(on_any_of([]).when(count).forever());
        let (fault, network) = (setting.fault)(&cluster);
        let handle = fault.map(|fault| Arc::new(cluster.fault(fault)));
        let began = Instant::now();
        let stage = Stage { cluster, network, ear: ear.clone(), ends: began + PLAYED };
        let struck = handle.clone().map(|handle: Arc<FaultHandle>| {
            tokio::spawn(async move {
                handle.reached(1).await;
                Instant::now()
            })
        });
        let is_sound = async {
            if setting.whole {
                std::future::pending::<()>().await;
            }
            if let Some(handle) = &handle {
                handle.reached(1).await;
            }
            let struck = Instant::now();
            loop {
                sleep(ENOUGH).await;
                let heard = ear.first_of(&setting.words, struck).values().any(|after| *after <= HEARD_WITHIN);
                if heard || setting.work_counts && ear.worked_since(Instant::now() - ENOUGH / 2) {
                    return;
                }
            }
        };
        let spun = tokio::select! {
            biased;
            () = meter.0.1.notified() => true,
            () = (setting.play)(stage) => false,
            () = is_sound => false,
        };
        let played = began.elapsed();
        let hits = handle.as_ref().map_or(0, |handle| handle.hits());
        let since = match struck {
            Some(struck) if hits > 0 => struck.await.unwrap(),
            _ => began,
        };
        let seen = meter.seen();
        let mut by_api = BTreeMap::new();
        for (_, key) in &seen {
            *by_api.entry(*key).or_default() += 1;
        }
        let heard = ear.first_of(&setting.words, since);
        let (requests, lines) = (busiest_minute(&seen), ear.loudest());
        let works = setting.work_counts && ear.worked_since(Instant::now() - ENOUGH);
        Outcome { works, played, hits, requests, by_api, spun, heard, lines, transcript: ear.transcript(since) }
    });
    // Tasks of one pair must not run during the next.
    runtime.shutdown_background();
    outcome
}
