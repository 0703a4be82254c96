//! Producers that send at a steady rate, whatever happens, and note the result of each record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ottla::{DeliveryStatus, Error, Producer, RecordMetadata, producer::DeliveryReport};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::drive::Drive;
use crate::ledger::{Book, Fate, Wrong};
use crate::profile::{Aim, Means, Profile};
use crate::pulse::Pulse;

/// Maximum number of records of one producer without a result: this limits the memory of this
/// program while the cluster is away. The producer's own memory is limited by `buffer.memory`.
const OUTSTANDING: usize = 200_000;
/// The sum of `delivery.timeout.ms` and `max.block.ms`, and a little more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Settings of all producers.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) partitions: usize,
    /// Size of a value, in bytes.
    pub(crate) size: usize,
    /// Records per second of each producer.
    pub(crate) rate: u64,
    /// One codec for all; `None`: each profile uses its own.
    pub(crate) codec: Option<String>,
    /// Properties that override each profile's own.
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

/// State that a producer's tasks share.
pub(crate) struct Shared {
    name: &'static str,
    book: Mutex<Book>,
    /// Per partition: the number of the last record that was reported.
    reported: Mutex<Vec<Option<u64>>>,
    /// Numbers of errors, by text.
    errors: Mutex<BTreeMap<String, u64>>,
    /// Permits for records without a result.
    pub(crate) room: Semaphore,
    /// Acknowledgements of all producers together.
    pulse: Arc<Pulse>,
    /// This producer's acknowledgements, if it sends to every partition all the time.
    own_pulse: Option<Pulse>,
}

impl Shared {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a record's result from its delivery.
    pub(crate) fn settle(&self, number: u64, result: Result<RecordMetadata, Error>) {
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
                        self.book().wrongs.add(Wrong::Vague, format_args!("{} {number}: {error:?}", self.name));
                        Fate::PossiblyPersisted
                    }
                }
            }
        };
        self.book().result(number, fate);
        self.room.add_permits(1);
    }

    /// Notes a record's result from a report; those of a partition arrive in the order of sending.
    pub(crate) fn report(&self, report: &DeliveryReport) {
        let Some(number) = report.tag else {
            self.book().wrongs.add(Wrong::AnsweredTwice, format_args!("a report without a tag: {report:?}"));
            return;
        };
        if let Some(partition) = report.partition.and_then(|partition| usize::try_from(partition).ok()) {
            let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            let before = reported.get_mut(partition).and_then(|last| last.replace(number));
            if let Some(before) = before.filter(|before| *before >= number) {
                let what = format_args!("{} {number} of [{partition}] was reported after {before}", self.name);
                self.book().wrongs.add(Wrong::AnsweredOutOfOrder, what);
            }
        }
        self.settle(number, report.result.clone());
    }

    /// Notes a record that `send` refused.
    pub(crate) fn refused(&self, number: u64, error: &Error) {
        self.count(error);
        self.book().result(number, Fate::NotPersisted);
        self.room.add_permits(1);
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
        let common = [("compression.type", codec)];
        let given = orders.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let properties: BTreeMap<&str, &str> = common.into_iter().chain(own).chain(given).collect();
        let shared = Arc::new(Shared {
            name: profile.name,
            book: Mutex::new(Book::new(profile.name, orders.partitions)),
            reported: Mutex::new(vec![None; orders.partitions]),
            errors: Mutex::default(),
            room: Semaphore::new(OUTSTANDING),
            pulse,
            own_pulse: (profile.aim == Aim::Turns).then(|| Pulse::new(orders.partitions)),
        });
        let mut builder = Producer::builder(orders.bootstrap.as_str()).properties(properties);
        if profile.means == Means::Callback {
            let shared = shared.clone();
            builder = builder.on_delivery(move |report| shared.report(report));
        }
        let producer = builder.build().await?;
        let size = orders.size * profile.times;
        // Before anything is sent, because only records sent from then on are reported.
        let reports = (profile.means == Means::Stream).then(|| producer.delivery_reports());
        let drive = Drive { index, profile, size, orders: orders.clone(), producer: producer.clone(), stop };
        let (sender, collector) = drive.start(shared.clone(), reports);
        Ok(Self { profile, size, shared, producer, sender, collector })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book()
    }

    /// Returns the longest time without an acknowledgement from one of the partitions since the
    /// last call.
    pub(crate) fn take_longest(&self) -> Option<Duration> {
        self.shared.own_pulse.as_ref().map(|pulse| pulse.take_longest().1)
    }

    /// Returns the numbers of errors, by text.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.shared.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all records below `cut` have a result. Returns the number without a result when
    /// the time is up.
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

    /// Ends the load, after its sender was told to stop: waits until every record has its result.
    pub(crate) async fn finish(&mut self) {
        if tokio::time::timeout(PATIENCE, &mut self.sender).await.is_err() {
            self.sender.abort();
            self.book().wrongs.add(Wrong::StoodStill, "the sending task did not end");
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
