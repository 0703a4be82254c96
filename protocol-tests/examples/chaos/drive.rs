//! The loops that send records and those that receive the results, for each API that the client has
//! for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use ottla::{Delivery, Producer, Record, producer::DeliveryReports};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::load::{Orders, Shared};
use crate::profile::{Aim, Means, Profile, key, write_value};

/// Maximum time of a standstill that is made up for at once.
const BEHIND: Duration = Duration::from_secs(1);
/// Records in one call of `send_batch`.
const BATCH: u64 = 50;

/// One producer and the records that it has to send.
pub(crate) struct Drive {
    pub(crate) index: usize,
    pub(crate) profile: Profile,
    /// Size of its values, in bytes.
    pub(crate) size: usize,
    pub(crate) orders: Orders,
    pub(crate) producer: Producer,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Drive {
    /// Starts sending and receiving results; the latter ends once all of them have arrived and the
    /// producer is closed.
    pub(crate) fn start(
        self,
        shared: Arc<Shared>,
        reports: Option<DeliveryReports>,
    ) -> (JoinHandle<()>, JoinHandle<()>) {
        match self.profile.means {
            Means::Batches => {
                let (results, sent) = mpsc::unbounded_channel();
                let collector = tokio::spawn(await_batches(sent, shared.clone()));
                (tokio::spawn(self.send_batches(shared, results)), collector)
            }
            Means::Deliveries => {
                let (results, sent) = mpsc::unbounded_channel();
                let collector = tokio::spawn(await_each(sent, shared.clone()));
                (tokio::spawn(self.send(shared, Some(results))), collector)
            }
            Means::Stream | Means::Callback => {
                let collector = tokio::spawn(read_reports(reports, shared.clone()));
                (tokio::spawn(self.send(shared, None)), collector)
            }
        }
    }

    /// Waits until `count` more records are due.
    async fn pace(&self, due: &mut Instant, count: u64) {
        let pause = Duration::from_nanos(1_000_000_000 * count / self.orders.rate.max(1));
        let now = Instant::now();
        *due = (*due + pause).max(now.checked_sub(BEHIND).unwrap_or(now));
        // The timer is coarse: a few records at a time are sent at once.
        if due.saturating_duration_since(now) > Duration::from_millis(2) {
            tokio::time::sleep_until((*due).into()).await;
        }
    }

    /// Returns the record with that number, with its value from the buffer.
    fn record<'a>(&'a self, number: u64, value: &'a [u8]) -> Record<'a> {
        let record = Record::to(self.orders.topic.as_str()).with_value(value).with_tag(number);
        match self.profile.aim {
            Aim::Turns => {
                let partition = number % self.orders.partitions as u64;
                record.with_partition(i32::try_from(partition).unwrap_or_default())
            }
            Aim::Keys => record.with_key(key(number)),
            Aim::Anywhere => record,
        }
    }

    async fn send(self, shared: Arc<Shared>, results: Option<mpsc::UnboundedSender<(u64, Delivery)>>) {
        let mut due = Instant::now();
        let mut value = Vec::new();
        while !*self.stop.borrow() {
            self.pace(&mut due, 1).await;
            let Ok(room) = shared.room.acquire().await else { break };
            room.forget();
            let number = shared.book().enter();
            write_value(self.index, number, self.size, &mut value);
            match (self.producer.send(self.record(number, &value)).await, &results) {
                // The task that receives the results ends after this.
                (Ok(delivery), Some(results)) => drop(results.send((number, delivery))),
                (Ok(delivery), None) => drop(delivery),
                (Err(error), _) => shared.refused(number, &error),
            }
        }
    }

    async fn send_batches(
        self,
        shared: Arc<Shared>,
        results: mpsc::UnboundedSender<(u64, ottla::producer::Deliveries)>,
    ) {
        let mut due = Instant::now();
        while !*self.stop.borrow() {
            self.pace(&mut due, BATCH).await;
            let Ok(room) = shared.room.acquire_many(u32::try_from(BATCH).unwrap_or(1)).await else { break };
            room.forget();
            let numbers: Vec<u64> = (0..BATCH).map(|_| shared.book().enter()).collect();
            let values: Vec<Vec<u8>> = numbers
                .iter()
                .map(|number| {
                    let mut value = Vec::new();
                    write_value(self.index, *number, self.size, &mut value);
                    value
                })
                .collect();
            let records: Vec<Record<'_>> =
                numbers.iter().zip(&values).map(|(number, value)| self.record(*number, value)).collect();
            let deliveries = self.producer.send_batch(records).await;
            drop(results.send((numbers[0], deliveries)));
        }
    }
}

/// Receives each record's result from its own delivery, in any order.
async fn await_each(mut sent: mpsc::UnboundedReceiver<(u64, Delivery)>, shared: Arc<Shared>) {
    let mut deliveries = FuturesUnordered::new();
    let mut open = true;
    while open || !deliveries.is_empty() {
        tokio::select! {
            next = sent.recv(), if open => match next {
                Some((number, delivery)) => deliveries.push(async move { (number, delivery.await) }),
                None => open = false,
            },
            Some((number, result)) = deliveries.next() => shared.settle(number, result),
        }
    }
}

/// Receives the results of whole calls of `send_batch`.
async fn await_batches(mut sent: mpsc::UnboundedReceiver<(u64, ottla::producer::Deliveries)>, shared: Arc<Shared>) {
    let mut batches = FuturesUnordered::new();
    let mut open = true;
    while open || !batches.is_empty() {
        tokio::select! {
            next = sent.recv(), if open => match next {
                Some((first, deliveries)) => batches.push(async move { (first, deliveries.await) }),
                None => open = false,
            },
            Some((first, results)) = batches.next() => {
                for (number, result) in (first..).zip(results.iter()) {
                    shared.settle(number, result);
                }
            }
        }
    }
}

/// Receives the results from the stream of reports; those of the callback need no task.
async fn read_reports(reports: Option<DeliveryReports>, shared: Arc<Shared>) {
    let Some(mut reports) = reports else { return };
    while let Some(report) = reports.next().await {
        shared.report(&report);
    }
}
