//! Performs the steps of the cycle: begins, commits and aborts transactions, and reads records
//! again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    cycle::{Cycle, RewindTo, Step},
    outputs::OutputsSlot,
};
use crate::{
    consumer::Consumer,
    error::{Error, ErrorKind, Result},
    log::event,
    producer::{CommitError, Transaction, TransactionalProducer, TransactionalProducerBuilder},
    record::{OffsetAndMetadata, TopicPartition},
    worker::shared_schedule::{SharedSchedule, now},
};

/// Time between attempts to read records again.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct TransactionsTask {
    pub(crate) plan: Arc<SharedSchedule>,
    pub(crate) consumer: Consumer,
    pub(crate) builder: TransactionalProducerBuilder,
    pub(crate) transactional_id: Arc<str>,
    pub(crate) outputs: Arc<OutputsSlot>,
    /// Deadline of the end, once the worker needs no more transactions.
    pub(crate) close: watch::Receiver<Option<Instant>>,
}

impl TransactionsTask {
    /// Runs until the worker closes it. If it is dropped, an open transaction is aborted in the
    /// background.
    pub(crate) async fn run(mut self) {
        let mut producer = None;
        while let Some(step) = self.next_step().await {
            match (step, &mut producer) {
                (Step::Prepare(replaced), _) => {
                    let prepared = self.prepare(&mut producer, replaced).await;
                    self.plan.with(|schedule| schedule.cycle(|cycle| cycle.prepared(prepared, now())));
                }
                (Step::Begin, Some(producer)) => self.transaction(producer).await,
                (Step::Rewind(to), producer) => self.rewind(to, producer.as_mut()).await,
                (Step::Fail(error), _) => {
                    event!(
                        ERROR, self.plan.origin, transactional_id = %self.transactional_id, %error,
                        advice = error.advice(),
                        "the exactly-once worker ends, because its transactions fail"
                    );
                    self.plan.with(|schedule| schedule.fail(error));
                }
                // The cycle does not ask for these without a transaction.
                (Step::Begin | Step::Commit | Step::Abort, _) => {
                    let error = Error::new(ErrorKind::Internal, "a transaction was ended that was not begun");
                    self.plan.with(|schedule| schedule.fail(error));
                }
            }
        }
        let deadline = self.close.borrow().unwrap_or_else(Instant::now);
        self.close_producer(producer, deadline.saturating_duration_since(Instant::now())).await;
    }

    /// Waits for the next step; `None` once the worker needs no more transactions.
    async fn next_step(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.plan.with(|schedule| schedule.cycle(Cycle::take_step)).flatten() {
                return Some(step);
            }
            tokio::select! {
                biased;
                () = self.plan.transactions.notified() => {}
                _ = self.close.wait_for(Option::is_some) => return None,
            }
        }
    }

    // ---- the producer

    /// Makes a producer that takes over the transactional id.
    async fn prepare(&self, producer: &mut Option<TransactionalProducer>, replaced: Option<Error>) -> Result<()> {
        if let Some(error) = &replaced {
            self.plan.record_error(error.clone());
            if let Some(suppressed) = self.plan.admit_line("replaced producer", Some(error)) {
                event!(
                    WARN, self.plan.origin, transactional_id = %self.transactional_id, %error, suppressed,
                    "the worker's producer was fenced and is replaced: another producer uses the transactional.id, or \
                     a transaction was older than transaction.timeout.ms; the records of the transaction are handled \
                     again"
                );
            }
            self.close_producer(producer.take(), Duration::ZERO).await;
        }
        if producer.is_none() {
            let made = self.builder.clone().build().await?;
            self.outputs.set_producer(made.handle().clone());
            *producer = Some(made);
        }
        let initialized = match producer {
            Some(producer) => producer.init().await,
            None => Err(Error::new(ErrorKind::Internal, "there is no producer")),
        };
        self.warn_of(initialized, "the worker's producer could not take over its transactional.id, and tries again")
    }

    async fn close_producer(&self, producer: Option<TransactionalProducer>, timeout: Duration) {
        if let Some(producer) = producer
            && let Err(error) = producer.close(timeout).await
        {
            event!(
                DEBUG, self.plan.origin, transactional_id = %self.transactional_id, %error,
                "the worker's producer was closed before its last transaction had ended"
            );
        }
    }

    /// Logs an error, and shows it in the worker's status.
    fn warn_of<T>(&self, result: Result<T>, what: &'static str) -> Result<T> {
        if let Err(error) = &result {
            self.plan.record_error(error.clone());
            if let Some(suppressed) = self.plan.admit_line(what, Some(error)) {
                event!(
                    WARN, self.plan.origin, transactional_id = %self.transactional_id, %error,
                    advice = error.advice(), suppressed, "{what}"
                );
            }
        }
        result
    }

    // ---- one transaction

    async fn transaction(&mut self, producer: &mut TransactionalProducer) {
        let begun = self.warn_of(producer.begin().await, "the worker could not begin a transaction, and tries again");
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => return self.plan.with(|schedule| schedule.transaction_begun(Err(error), now())),
        };
        self.outputs.open(transaction.sender());
        self.plan.with(|schedule| schedule.transaction_begun(Ok(()), now()));
        match self.next_step().await {
            Some(Step::Commit) => self.commit(transaction).await,
            Some(Step::Abort) => self.abort(transaction).await,
            // It has no records.
            None => drop(transaction),
            Some(step) => {
                let message = format!("a transaction is open, and the next step is {step:?}");
                drop(transaction);
                self.plan.with(|schedule| schedule.fail(Error::new(ErrorKind::Internal, message)));
            }
        }
    }

    async fn abort(&self, transaction: Transaction<'_>) {
        let aborted = transaction.abort().await;
        let aborted = self.warn_of(aborted, "the abort of a worker's transaction was not confirmed");
        self.plan.with(|schedule| schedule.cycle(|cycle| cycle.aborted(aborted, now())));
    }

    async fn commit(&mut self, transaction: Transaction<'_>) {
        // First: if a partition is lost after this, the group's coordinator refuses its offset.
        let group = self.consumer.group_metadata();
        let Some(offsets) = self.plan.with(|schedule| schedule.offsets_to_commit(now())) else {
            // A partition was lost just now.
            return match self.next_step().await {
                Some(Step::Abort) | None => self.abort(transaction).await,
                Some(step) => {
                    let message = format!("a transaction cannot commit, and the next step is {step:?}");
                    drop(transaction);
                    self.plan.with(|schedule| schedule.fail(Error::new(ErrorKind::Internal, message)));
                }
            };
        };
        let offsets: Vec<(TopicPartition, OffsetAndMetadata)> =
            offsets.into_iter().map(|of| (of.partition, of.mark.to_commit(of.next))).collect();
        let sent = match group {
            Ok(group) => transaction.send_offsets(offsets, &group).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => self.finish_commit(transaction).await,
            // They are still being sent, and the commit waits for them.
            Err(error) if error.kind() == ErrorKind::Timeout && !error.is_abortable() => {
                self.finish_commit(transaction).await;
            }
            Err(error) => {
                let aborted = transaction.abort().await;
                let aborted = self.warn_of(aborted, "the abort of a worker's transaction was not confirmed");
                // A fenced producer is told by the abort, if not before.
                self.give_up_commit(aborted.err().filter(Error::is_fatal).unwrap_or(error));
            }
        }
    }

    async fn finish_commit(&self, transaction: Transaction<'_>) {
        let mut result = transaction.commit().await;
        loop {
            match result {
                Ok(()) => return self.plan.with(|schedule| schedule.transaction_committed(now())),
                Err(CommitError::Aborted(error)) => return self.give_up_commit(error),
                Err(CommitError::Unknown(error)) => {
                    self.plan.record_error(error.clone());
                    event!(
                        WARN, self.plan.origin, transactional_id = %self.transactional_id, %error,
                        "the outcome of a worker's transaction is not known: the group's committed offsets tell it"
                    );
                    return self.plan.with(|schedule| {
                        schedule.cycle(|cycle| cycle.commit_unknown(error, now()));
                    });
                }
                Err(CommitError::Pending(pending)) => {
                    let what = "a worker's transaction is not committed yet; the commit goes on";
                    let _logged: Result<()> = self.warn_of(Err(pending.cause().clone()), what);
                    result = pending.wait().await;
                }
            }
        }
    }

    fn give_up_commit(&self, error: Error) {
        let what = "a worker's transaction was aborted: its records are handled again";
        let _logged: Result<()> = self.warn_of(Err(error.clone()), what);
        self.plan.with(|schedule| schedule.cycle(|cycle| cycle.commit_aborted(error, now())));
    }

    // ---- reading again

    async fn rewind(&mut self, to: RewindTo, producer: Option<&mut TransactionalProducer>) {
        if to == RewindTo::Committed
            && let Some(producer) = producer
        {
            // Ends the transaction if it is still open, so that its offsets become stable. What
            // fails here fails again before the next transaction, and is handled there.
            let what = "the worker's producer has not ended its transaction with unknown outcome yet";
            let _logged: Result<()> = self.warn_of(producer.init().await, what);
        }
        let starts = self.plan.with(|schedule| schedule.rewind_transaction());
        let result = match to {
            RewindTo::Start => {
                self.seek(&starts);
                Ok(())
            }
            RewindTo::Committed => self.rewind_to_committed(starts).await,
        };
        self.plan.with(|schedule| schedule.transaction_rewound(result, now()));
    }

    fn seek(&self, starts: &[(TopicPartition, i64)]) {
        for (partition, start) in starts {
            // An error means that the partition is not owned any more: its next owner reads on.
            if let Err(error) = self.consumer.seek(partition, *start) {
                event!(DEBUG, self.plan.origin, %partition, %error, "a partition is not read again");
            }
        }
    }

    /// Looks the committed offsets up until they are known: they tell whether the transaction was
    /// committed. A partition without one was not committed.
    async fn rewind_to_committed(&mut self, starts: Vec<(TopicPartition, i64)>) -> Result<()> {
        loop {
            let names = starts.iter().map(|(partition, _)| partition.clone());
            let committed = match self.consumer.committed(names).await {
                Ok(committed) => committed,
                Err(error) if error.is_retriable() => {
                    let what = "the outcome of a worker's transaction could not be looked up yet";
                    let _logged: Result<()> = self.warn_of(Err(error), what);
                    tokio::select! {
                        () = sleep(PAUSE) => continue,
                        _ = self.close.wait_for(Option::is_some) => return Ok(()),
                    }
                }
                Err(error) => return Err(error),
            };
            let place = |(partition, start): (TopicPartition, i64)| {
                let next = committed.get(&partition).and_then(Option::as_ref).map(|known| known.offset);
                (partition, next.map_or(start, |next| next.max(start)))
            };
            self.seek(&starts.into_iter().map(place).collect::<Vec<_>>());
            return Ok(());
        }
    }
}
