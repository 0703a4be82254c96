//! Producers that send at a steady rate, whatever happens, and note what becomes of each record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use ottla::{Delivery, DeliveryId, DeliveryReports, DeliveryStatus, Error, Producer, Record, RecordMetadata};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::ledger::{Book, Fate, Wrong};
use crate::profile::{Aim, Profile, key, write_value};
use crate::pulse::Pulse;

/// Records of one producer that may be without a result at once: what bounds the memory of this program when the cluster
/// is away. Their own bytes are bounded by `buffer.memory`.
const OUTSTANDING: usize = 200_000;
/// How much of a standstill is made up for at once.
const BEHIND: Duration = Duration::from_secs(1);
/// All that `delivery.timeout.ms` and `max.block.ms` allow, and a little.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// What all producers are told.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) partitions: usize,
    /// Bytes of a value.
    pub(crate) size: usize,
    /// Records per second of each producer.
    pub(crate) rate: u64,
    /// One codec for all, or each profile's own.
    pub(crate) codec: Option<String>,
    /// Properties over each profile's own.
    pub(crate) properties: Vec<(String, String)>,
}

/// One producer under load.
pub(crate) struct Load {
    pub(crate) profile: Profile,
    pub(crate) size: usize,
    shared: Arc<Shared>,
    producer: Producer,
    sender: JoinHandle<()>,
    collector: JoinHandle<()>,
}

struct Shared {
    book: Mutex<Book>,
    /// Errors by what they say of themselves.
    errors: Mutex<BTreeMap<String, u64>>,
    /// Of all producers together, and of this one if it sends to every partition all the time.
    pulse: Arc<Pulse>,
    own_pulse: Option<Pulse>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, number: u64, result: Result<RecordMetadata, Error>) {
        let fate = match result {
            Ok(at) => {
                self.pulse.beat(at.partition);
                if let Some(pulse) = &self.own_pulse {
                    pulse.beat(at.partition);
                }
                Fate::Acknowledged { partition: at.partition, offset: at.offset }
            }
            Err(error) => {
                self.count(&error);
                match error.delivery_status() {
                    Some(DeliveryStatus::NotPersisted) => Fate::NotPersisted,
                    Some(DeliveryStatus::PossiblyPersisted) => Fate::PossiblyPersisted,
                    None => {
                        self.book().wrongs.add(Wrong::Vague, format_args!("{number}: {error:?}"));
                        Fate::PossiblyPersisted
                    }
                }
            }
        };
        self.book().result(number, fate);
    }

    fn count(&self, error: &Error) {
        let code = error.code().map_or(String::new(), |code| format!(" {code}"));
        let status = error.delivery_status().map_or("not sent".to_owned(), |status| format!("{status:?}"));
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(format!("{status}: {:?}{code}", error.kind())).or_default() += 1;
    }
}

impl Load {
    /// Starts the `index`th producer.
    pub(crate) async fn start(
        index: usize,
        profile: Profile,
        orders: &Orders,
        pulse: Arc<Pulse>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let codec = orders.codec.as_deref().unwrap_or(profile.codec);
        let own = profile.properties.iter().copied();
        let common = [("bootstrap.servers", orders.bootstrap.as_str()), ("compression.type", codec)];
        let given = orders.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let properties: BTreeMap<&str, &str> = common.into_iter().chain(own).chain(given).collect();
        let producer = Producer::from_properties(properties).await?;
        let shared = Arc::new(Shared {
            book: Mutex::new(Book::new(profile.name, orders.partitions)),
            errors: Mutex::default(),
            pulse,
            own_pulse: (profile.aim == Aim::Turns).then(|| Pulse::new(orders.partitions)),
        });
        let size = orders.size * profile.times;
        // Before anything is sent: only what is sent from then on is reported.
        let reports = profile.reports.then(|| producer.delivery_reports());
        let (sent, results) = mpsc::channel(OUTSTANDING);
        let collector = match reports {
            Some(reports) => tokio::spawn(read_reports(results, reports, shared.clone())),
            None => tokio::spawn(await_each(results, shared.clone())),
        };
        let drive = Drive { index, profile, size, orders: orders.clone(), producer: producer.clone(), sent, stop };
        let sender = tokio::spawn(drive.run(shared.clone()));
        Ok(Self { profile, size, shared, producer, sender, collector })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book()
    }

    /// The longest time without an acknowledgement from one of the partitions since this was asked last.
    pub(crate) fn take_longest(&self) -> Option<Duration> {
        self.shared.own_pulse.as_ref().map(|pulse| pulse.take_longest().1)
    }

    /// What failed, by what the errors say.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.shared.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all records below `cut` have a result. Gives how many have none when the time is up.
    pub(crate) async fn answered(&self, cut: u64, within: Duration) -> u64 {
        let deadline = Instant::now() + within;
        loop {
            match self.book().unanswered(cut) {
                0 => return 0,
                open if Instant::now() >= deadline => return open,
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it, once its sender was told to stop: waits until every record has its result.
    pub(crate) async fn finish(&mut self) {
        if tokio::time::timeout(PATIENCE, &mut self.sender).await.is_err() {
            self.sender.abort();
            self.book().wrongs.add(Wrong::StoodStill, "send did not return");
        }
        let cut = self.book().next();
        self.answered(cut, PATIENCE).await;
        if let Err(error) = self.producer.close(Duration::from_secs(30)).await {
            self.book().wrongs.add(Wrong::Unanswered, error);
        }
        if tokio::time::timeout(Duration::from_secs(10), &mut self.collector).await.is_err() {
            self.collector.abort();
            let name = self.profile.name;
            self.book().wrongs.add(Wrong::Unanswered, format_args!("{name}: results did not end after close"));
        }
    }
}

/// The loop that sends.
struct Drive {
    index: usize,
    profile: Profile,
    size: usize,
    orders: Orders,
    producer: Producer,
    sent: mpsc::Sender<(u64, Delivery)>,
    stop: watch::Receiver<bool>,
}

impl Drive {
    async fn run(self, shared: Arc<Shared>) {
        let pause = Duration::from_nanos(1_000_000_000 / self.orders.rate.max(1));
        let mut due = Instant::now();
        let mut value = Vec::new();
        while !*self.stop.borrow() {
            let now = Instant::now();
            due = (due + pause).max(now.checked_sub(BEHIND).unwrap_or(now));
            // The timer is coarse: a few records at a time go out at once.
            if due.saturating_duration_since(now) > Duration::from_millis(2) {
                tokio::time::sleep_until(due.into()).await;
            }
            // Room to note it, before it is sent.
            let Ok(room) = self.sent.reserve().await else { break };
            let number = shared.book().next();
            write_value(self.index, number, self.size, &mut value);
            let record = Record::to(self.orders.topic.as_str()).value(&value);
            let record = match self.profile.aim {
                Aim::Turns => {
                    let partition = number % self.orders.partitions as u64;
                    record.partition(i32::try_from(partition).unwrap_or_default())
                }
                Aim::Keys => record.key(key(number)),
                Aim::Anywhere => record,
            };
            shared.book().enter();
            match self.producer.send(record).await {
                Ok(delivery) => room.send((number, delivery)),
                Err(error) => {
                    shared.count(&error);
                    shared.book().result(number, Fate::NotPersisted);
                }
            }
        }
    }
}

/// Takes each record's result from its own delivery, in whatever order they come.
async fn await_each(mut sent: mpsc::Receiver<(u64, Delivery)>, shared: Arc<Shared>) {
    let mut deliveries = FuturesUnordered::new();
    let mut open = true;
    while open || !deliveries.is_empty() {
        tokio::select! {
            next = sent.recv(), if open && deliveries.len() < OUTSTANDING => match next {
                Some((number, delivery)) => deliveries.push(async move { (number, delivery.await) }),
                None => open = false,
            },
            Some((number, result)) = deliveries.next() => shared.settle(number, result),
        }
    }
}

/// Takes the results from the stream of reports, and drops the deliveries.
async fn read_reports(mut sent: mpsc::Receiver<(u64, Delivery)>, mut reports: DeliveryReports, shared: Arc<Shared>) {
    let mut numbers: HashMap<DeliveryId, u64> = HashMap::new();
    // Reports can be quicker than we hear of what they are about.
    let mut early = HashMap::new();
    let (mut sending, mut reporting) = (true, true);
    while sending || reporting {
        tokio::select! {
            next = sent.recv(), if sending && numbers.len() < OUTSTANDING => match next {
                Some((number, delivery)) => match early.remove(&delivery.id()) {
                    Some(result) => shared.settle(number, result),
                    None => drop(numbers.insert(delivery.id(), number)),
                },
                None => sending = false,
            },
            next = reports.next(), if reporting => match next {
                Some(report) => match numbers.remove(&report.id) {
                    Some(number) => shared.settle(number, report.result),
                    None => {
                        if early.insert(report.id, report.result).is_some() {
                            shared.book().wrongs.add(Wrong::AnsweredTwice, format_args!("{:?}", report.id));
                        }
                    }
                },
                None => reporting = false,
            },
            // Nothing is sent any more and nothing comes: the producer is closed, or what is left has no result.
            else => break,
        }
    }
    for (id, result) in early {
        shared.book().wrongs.add(Wrong::AnsweredTwice, format_args!("a report of no record: {id:?}: {result:?}"));
    }
}
