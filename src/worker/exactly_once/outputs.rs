//! The outputs of a handler: records that commit together with the offset of the handled record.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use super::cycle::{Cycle, Failure};
use crate::{
    error::{Error, ErrorKind, Result},
    producer::{TransactionHandle, TransactionSender},
    record::Record,
    worker::shared_schedule::SharedSchedule,
};

/// Sends the results of a handled record, for handlers of an exactly-once worker
/// ([`WorkerBuilder::exactly_once`](super::super::WorkerBuilder::exactly_once)).
///
/// The records become visible to `read_committed` consumers when the transaction commits, together
/// with the offset of the handled record. If the handler fails, or another record of the same
/// transaction does, they are never visible, and the record is handled again.
///
/// Clones share the attempt of the handler that they were made for: once it has ended, they send
/// nothing any more.
#[derive(Clone)]
pub struct Outputs {
    attempt: Arc<Attempt>,
}

struct Attempt {
    sender: TransactionSender,
    transaction: Arc<OpenTransaction>,
    schedule: Weak<SharedSchedule>,
    /// True once the attempt has ended.
    is_over: AtomicBool,
    /// True if a send failed because of the transaction, and not because of the record.
    is_innocent: AtomicBool,
}

/// The open transaction, for the attempts in it.
#[derive(Debug, Default)]
struct OpenTransaction {
    bytes: AtomicU64,
    /// True once a record of an attempt was refused: the transaction fails because of that one.
    is_blamed: AtomicBool,
}

/// Holds the sender of the open transaction.
pub(crate) struct OutputsSlot {
    schedule: Weak<SharedSchedule>,
    /// Bytes after which the transaction takes no more records.
    limit: u64,
    open: Mutex<Option<(TransactionSender, Arc<OpenTransaction>)>>,
    /// The producer, for status and metrics.
    producer: Mutex<Option<Arc<TransactionHandle>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OutputsSlot {
    pub(crate) fn new(schedule: &Arc<SharedSchedule>, limit: u64) -> Self {
        Self { schedule: Arc::downgrade(schedule), limit, open: Mutex::default(), producer: Mutex::default() }
    }

    /// Opens a transaction for attempts.
    pub(crate) fn open(&self, sender: TransactionSender) {
        *lock(&self.open) = Some((sender, Arc::default()));
    }

    /// Returns the outputs of an attempt that begins.
    pub(crate) fn begin_attempt(&self) -> Option<AttemptOutputs> {
        let (sender, transaction) = lock(&self.open).clone()?;
        let schedule = self.schedule.clone();
        let (is_over, is_innocent) = (AtomicBool::new(false), AtomicBool::new(false));
        let attempt = Arc::new(Attempt { sender, transaction, schedule, is_over, is_innocent });
        Some(AttemptOutputs { outputs: Outputs { attempt }, limit: self.limit })
    }

    pub(crate) fn set_producer(&self, producer: Arc<TransactionHandle>) {
        *lock(&self.producer) = Some(producer);
    }

    pub(crate) fn producer(&self) -> Option<Arc<TransactionHandle>> {
        lock(&self.producer).clone()
    }
}

/// The outputs of one attempt, until it has ended.
pub(crate) struct AttemptOutputs {
    pub(crate) outputs: Outputs,
    limit: u64,
}

impl AttemptOutputs {
    /// Returns true if a failure of the attempt says nothing about its record.
    pub(crate) fn is_innocent(&self) -> bool {
        self.outputs.attempt.is_innocent.load(SeqCst)
    }
}

impl Drop for AttemptOutputs {
    fn drop(&mut self) {
        let attempt = &self.outputs.attempt;
        attempt.is_over.store(true, SeqCst);
        if attempt.transaction.bytes.load(Relaxed) >= self.limit
            && let Some(schedule) = attempt.schedule.upgrade()
        {
            schedule.with(|schedule| schedule.cycle(Cycle::close));
        }
    }
}

impl Outputs {
    /// Sends a record in the transaction of the handled record. Returns once the record is in the
    /// producer's buffer: there is no need to wait for the broker, because the transaction commits
    /// only if all of its records were acknowledged. Waits for room like
    /// [`Producer::send`](crate::Producer::send).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.create_topic("invoices", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("7")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// # consumer.subscribe(["orders"])?;
    /// let producer = cluster.producer().transactional_id("billing-1");
    /// let worker = consumer.worker().exactly_once(producer).start(|order, outputs| async move {
    ///     let cents = order.value.as_deref().unwrap_or_default();
    ///     let invoice = Record::to("invoices").with_value(cents);
    ///     outputs.send(invoice).await
    /// })?;
    /// # while cluster.records("invoices", 0)?.is_empty() { tokio::task::yield_now().await }
    /// worker.close(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`TransactionFailed`](ErrorKind::TransactionFailed): the record was refused, or the
    /// transaction cannot commit for another reason, which is the source. Return the error from the
    /// handler: the worker aborts the transaction and handles its records again. `InvalidArgument`
    /// after the handler has ended. An error that the handler hides does not make the transaction
    /// commit.
    ///
    /// # Cancel safety
    /// A future that is dropped before it is ready may or may not have sent the record, and the
    /// transaction may commit: drop it only together with the handler's future.
    pub async fn send(&self, record: Record<'_>) -> Result<()> {
        let attempt = &self.attempt;
        if attempt.is_over.load(SeqCst) {
            return Err(Error::new(ErrorKind::InvalidArgument, "the handler that these outputs belong to has ended"));
        }
        let bytes = size(&record);
        match attempt.sender.send(record).await {
            // The commit waits for the delivery.
            Ok(_delivery) => {
                attempt.transaction.bytes.fetch_add(bytes, Relaxed);
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Decides whether a failure is the fault of the record.
    fn failed(&self, error: Error) -> Error {
        let attempt = &self.attempt;
        let is_first = || !attempt.transaction.is_blamed.swap(true, SeqCst);
        if is_of_record(&error) && is_first() {
            return error;
        }
        attempt.is_innocent.store(true, SeqCst);
        if !is_of_record(&error)
            && let Some(schedule) = attempt.schedule.upgrade()
        {
            schedule.with(|schedule| schedule.fail_transaction(Failure::Producer(error.clone())));
        }
        error
    }
}

/// Returns true if a record was refused because of what it is.
fn is_of_record(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    let kind = source.filter(|_| error.is_abortable()).unwrap_or(error).kind();
    matches!(kind, ErrorKind::RecordTooLarge | ErrorKind::InvalidArgument | ErrorKind::UnknownTopicOrPartition)
}

fn size(record: &Record<'_>) -> u64 {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers: usize = record.headers().map(|(name, value)| name.len() + length(value)).sum();
    (length(record.key()) + length(record.value()) + headers) as u64
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outputs").field("transaction", &self.attempt.sender.number()).finish_non_exhaustive()
    }
}

impl fmt::Debug for OutputsSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputsSlot").field("limit", &self.limit).finish_non_exhaustive()
    }
}
