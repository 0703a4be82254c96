//! A consumer that reads while the cluster is disturbed, and notes the records that it receives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ottla::{
    Consumer, ErrorKind, Offset, TopicPartition,
    consumer::{IsolationLevel, OffsetReset},
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::seen::Seen;

/// Settings of all consumers.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) partitions: usize,
    /// True if there are transactions; then only committed ones are read.
    pub(crate) committed: bool,
    pub(crate) properties: Vec<(String, String)>,
}

impl Orders {
    pub(crate) fn places(&self) -> Vec<TopicPartition> {
        (0..self.partitions).map(|n| TopicPartition::new(self.topic.as_str(), n as i32)).collect()
    }
}

/// One consumer.
pub(crate) struct Reader {
    pub(crate) name: String,
    orders: Orders,
    shared: Arc<Shared>,
    /// Number of times that it has to be closed and started again; `None` ends it.
    restarts: watch::Sender<Option<u64>>,
    task: JoinHandle<Result<(), Failure>>,
}

#[derive(Default)]
struct Shared {
    notes: Mutex<Notes>,
}

/// Observations of a consumer.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    pub(crate) seen: Seen,
    /// Per partition: the consumer's position, after markers and skipped offsets.
    positions: Vec<i64>,
    /// The longest time without a record.
    pub(crate) silence: Duration,
    /// Number of checks of the node from which partitions are read, and of those in which it was
    /// the node nearby.
    pub(crate) looks: u64,
    pub(crate) near: u64,
    /// Number of errors after which the consumer continued.
    pub(crate) told: u64,
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Starts a consumer, near a node or without a rack.
    pub(crate) fn start(node: Option<i32>, orders: &Orders) -> Self {
        let shared = Arc::new(Shared::default());
        shared.notes().seen = Seen::new(orders.partitions);
        shared.notes().positions = vec![0; orders.partitions];
        let (restarts, wanted) = watch::channel(Some(0));
        let task = tokio::spawn(read(node, orders.clone(), shared.clone(), wanted));
        let name = node.map_or("far".to_owned(), |node| format!("near {node}"));
        Self { name, orders: orders.clone(), shared, restarts, task }
    }

    /// Closes the consumer, and starts another one at its position.
    pub(crate) fn restart(&self) {
        self.restarts.send_modify(|times| *times = times.map(|times| times + 1));
    }

    pub(crate) fn notes(&self) -> Notes {
        self.shared.notes().clone()
    }

    /// Returns the longest time without a record since the last call.
    pub(crate) fn take_silence(&self) -> Duration {
        std::mem::take(&mut self.shared.notes().silence)
    }

    /// Waits until the consumer has reached the present end of the log.
    pub(crate) async fn caught_up(&self, within: Duration) -> Result<(), Failure> {
        let isolation =
            if self.orders.committed { IsolationLevel::ReadCommitted } else { IsolationLevel::ReadUncommitted };
        let asking = Consumer::builder(self.orders.bootstrap.as_str()).isolation_level(isolation).build().await?;
        let ends = asking.end_offsets(self.orders.places()).await?;
        let ends: Vec<i64> = self.orders.places().iter().map(|place| ends.get(place).copied().unwrap_or(0)).collect();
        let deadline = Instant::now() + within;
        loop {
            if self.task.is_finished() {
                return Err(format!("{} has ended", self.name).into());
            }
            let positions = self.shared.notes().positions.clone();
            if positions.iter().zip(&ends).all(|(position, end)| position >= end) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("{} makes no progress at {positions:?} of {ends:?}", self.name).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the consumer.
    pub(crate) async fn finish(self) -> Result<(String, Notes), Failure> {
        self.restarts.send_replace(None);
        self.task.await??;
        let notes = self.shared.notes().clone();
        Ok((self.name, notes))
    }
}

async fn read(
    node: Option<i32>,
    orders: Orders,
    shared: Arc<Shared>,
    mut wanted: watch::Receiver<Option<u64>>,
) -> Result<(), Failure> {
    let isolation = if orders.committed { IsolationLevel::ReadCommitted } else { IsolationLevel::ReadUncommitted };
    while wanted.borrow_and_update().is_some() {
        let mut builder = Consumer::builder(orders.bootstrap.as_str()).isolation_level(isolation);
        // Without a reset policy, a consumer cannot skip records silently.
        builder = builder.auto_offset_reset(OffsetReset::None).properties(orders.properties.iter().cloned());
        if let Some(node) = node {
            builder = builder.client_rack(format!("rack-{node}"));
        }
        let consumer = builder.build().await?;
        let positions = shared.notes().positions.clone();
        consumer.assign(orders.places().into_iter().zip(positions.into_iter().map(Offset::At)))?;
        let (mut last, mut looked) = (Instant::now(), Instant::now());
        while !wanted.has_changed()? {
            match consumer.poll(Duration::from_millis(200)).await {
                Ok(records) => {
                    let mut notes = shared.notes();
                    notes.silence = notes.silence.max(last.elapsed());
                    for record in &records {
                        last = Instant::now();
                        let value = record.value().unwrap_or_default();
                        notes.seen.record(record.partition(), record.offset(), value, orders.committed);
                    }
                    drop(records);
                    for (position, place) in notes.positions.iter_mut().zip(orders.places()) {
                        *position = consumer.position(&place).unwrap_or(*position);
                    }
                }
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(error) => {
                    let mut notes = shared.notes();
                    notes.told += 1;
                    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NoOffset | ErrorKind::InvalidArgument) {
                        notes.seen.blame(format!("told: {error}"));
                    }
                }
            }
            if looked.elapsed() > Duration::from_millis(500) {
                looked = Instant::now();
                let status = consumer.status();
                let mut notes = shared.notes();
                notes.looks += status.partitions.len() as u64;
                notes.near +=
                    status.partitions.values().filter(|of| node.is_some() && of.broker == node).count() as u64;
            }
        }
        consumer.close(Duration::from_secs(10)).await?;
    }
    Ok(())
}
