//! The parts of a worker that handle its transactions.

use std::{sync::Arc, time::Duration};

use rand::rngs::StdRng;
use tokio::{sync::watch, time::Instant};

use super::{
    cycle::{Cycle, CycleRules},
    outputs::OutputsSlot,
    recoveries::Recoveries,
    transactions_task::TransactionsTask,
};
use crate::{
    consumer::Consumer,
    error::Result,
    producer::TransactionalProducerBuilder,
    worker::{settings::Settings, shared_schedule::SharedSchedule},
};

/// Number of producers and transactions that may fail within `max.poll.interval.ms`.
const RECOVERIES: usize = 5;

/// Makes the parts of a worker that handle its transactions.
pub(crate) struct Transactions {
    producer: TransactionalProducerBuilder,
    id: Arc<str>,
    /// `transaction.timeout.ms`.
    pub(crate) timeout: Duration,
}

impl Transactions {
    /// # Errors
    /// `Configuration` for a producer without an id, or with a property that cannot be used.
    pub(crate) fn new(producer: TransactionalProducerBuilder) -> Result<Self> {
        let (id, timeout) = producer.id_and_timeout()?;
        Ok(Self { producer, id, timeout })
    }

    pub(crate) fn cycle(&self, settings: &Settings, patience: Option<Duration>, rng: StdRng) -> Cycle {
        let rules = CycleRules {
            records: settings.transaction_records,
            interval: settings.transaction_interval,
            timeout: self.timeout,
            transactional_id: self.id.clone(),
        };
        let window = patience.unwrap_or(self.timeout);
        Cycle::new(rules, Recoveries::new(RECOVERIES, window), rng)
    }

    /// Returns the task, and the sender by which it is closed.
    pub(crate) fn task(
        self,
        plan: Arc<SharedSchedule>,
        consumer: Consumer,
        outputs: Arc<OutputsSlot>,
    ) -> (TransactionsTask, watch::Sender<Option<Instant>>) {
        let (close, closed) = watch::channel(None);
        let Self { producer: builder, id: transactional_id, .. } = self;
        (TransactionsTask { plan, consumer, builder, transactional_id, outputs, close: closed }, close)
    }
}
