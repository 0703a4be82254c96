//! The worker's own task: follows the group, starts handler tasks and partition tasks, and ends
//! everything in time.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    handler::Work,
    partition_task::{FeedEnd, Feeder},
    schedule::PartitionId,
};
use crate::worker::{
    exactly_once::transactions_task::TransactionsTask,
    handler_task::{self, HandlerContext},
    shared_schedule::{SharedSchedule, now},
};
use crate::{
    config::parse::FOREVER,
    consumer::{Consumer, ManualPartitionReader, ManualReader, ManualReaderEvent, PartitionEnd},
    error::{Error, ErrorKind, Result},
    log::event,
    record::TopicPartition,
};

/// Time that cancelled handlers have to notice it.
const GRACE: Duration = Duration::from_millis(100);

pub(super) type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct WorkerTask<W> {
    pub(super) plan: Arc<SharedSchedule>,
    pub(super) context: Arc<HandlerContext<W>>,
    pub(super) consumer: Consumer,
    pub(super) hands: ManualReader,
    /// Deadline of `close`, once it was called.
    pub(super) close: watch::Receiver<Option<Instant>>,
    pub(super) shutdown: Option<Shutdown>,
    pub(super) drain: Duration,
    pub(super) skip_corrupt: bool,
    pub(super) running: ChildTask,
}

/// Tasks of the worker, which end with it.
#[derive(Default)]
pub(super) struct ChildTask {
    lanes: JoinSet<()>,
    feeders: JoinSet<FeedEnd>,
    names: HashMap<TopicPartition, PartitionId>,
    /// Partitions that were assigned again while a job of their earlier assignment still runs.
    early: Vec<ManualPartitionReader>,
    /// The task of an exactly-once worker, and the sender by which it is closed.
    transactions: JoinSet<()>,
    close_transactions: Option<watch::Sender<Option<Instant>>>,
    /// True if the group may have excluded this member, and is to be told that it is ready again.
    unwell: bool,
}

impl ChildTask {
    /// Starts the task that performs the transactions.
    pub(super) fn start_transactions(&mut self, (task, close): (TransactionsTask, watch::Sender<Option<Instant>>)) {
        self.transactions.spawn(task.run());
        self.close_transactions = Some(close);
    }

    /// Ends the task that performs the transactions, by that time.
    async fn end_transactions(&mut self, deadline: Instant) {
        if let Some(close) = &self.close_transactions {
            close.send_replace(Some(deadline));
        }
        // A transaction that is still open then is aborted in the background.
        let _ = timeout_at(deadline, self.transactions.join_next()).await;
        self.transactions.shutdown().await;
    }
}

/// The reason and the deadline of the worker's end.
struct StopReason {
    deadline: Instant,
    error: Option<Error>,
}

impl<W: Work> WorkerTask<W> {
    pub(super) async fn run(mut self) -> Result<()> {
        let StopReason { deadline, error } = self.run_until_stopped().await;
        let closed = self.finish(deadline).await;
        match error {
            Some(error) => Err(error),
            None => closed,
        }
    }

    async fn run_until_stopped(&mut self) -> StopReason {
        loop {
            self.start_handlers();
            self.report_recovery();
            if let Some(error) = self.plan.with(|schedule| schedule.failure().cloned()) {
                return self.end_by(Some(error));
            }
            let due = self.plan.with(|schedule| schedule.next_due());
            let due = due.map_or_else(|| Instant::now() + FOREVER, Instant::from_std);
            let ChildTask { lanes, feeders, transactions, .. } = &mut self.running;
            tokio::select! {
                biased;
                closed = self.close.changed() => {
                    // The worker itself is dropped only with this task.
                    let deadline = self.close.borrow().filter(|_| closed.is_ok());
                    return StopReason { deadline: deadline.unwrap_or_else(Instant::now), error: None };
                }
                () = over(&mut self.shutdown) => return self.end_by(None),
                () = self.plan.driver.notified() => {}
                Some(fed) = feeders.join_next() => if let Err(error) = self.handle_feed_end(fed) {
                    return self.end_by(Some(error));
                },
                Some(lane) = lanes.join_next() => if let Err(error) = lane {
                    return self.end_by(Some(broken(error)));
                },
                Some(ended) = transactions.join_next() => if let Err(error) = ended {
                    return self.end_by(Some(broken(error)));
                },
                event = self.hands.next() => match event {
                    ManualReaderEvent::Partition(hand) => self.begin_partition(hand),
                    ManualReaderEvent::Error(error) => self.handle_error(error),
                    ManualReaderEvent::Ended(error) => return self.end_by(error),
                },
                () = sleep_until(due) => self.plan.with(|schedule| schedule.tick(now())),
            }
        }
    }

    fn end_by(&self, error: Option<Error>) -> StopReason {
        // Half of the time is for running handlers, half for committing and leaving the group.
        StopReason { deadline: Instant::now() + self.drain.saturating_mul(2).min(FOREVER), error }
    }

    fn start_handlers(&mut self) {
        for lane in self.plan.with(|schedule| schedule.new_lanes()) {
            self.running.lanes.spawn(handler_task::run(self.context.clone(), lane));
        }
    }

    /// Rejoins the group, if the member may be excluded and no handler hangs any more.
    fn report_recovery(&mut self) {
        if self.running.unwell && !self.plan.with(|schedule| schedule.is_overdue(now())) {
            self.running.unwell = false;
            self.hands.recover();
        }
    }

    /// Handles an error of the whole consumer, which goes on trying.
    fn handle_error(&mut self, error: Error) {
        self.plan.warn_of_error(None, &error);
        self.plan.record_error(error);
        // The group makes its next attempt only when it is asked to.
        self.running.unwell = true;
    }

    // ---- partitions

    fn begin_partition(&mut self, hand: ManualPartitionReader) {
        let name = hand.partition().clone();
        if self.running.names.contains_key(&name) {
            // Running jobs of the earlier assignment have to end first: two handlers must not
            // handle the same record.
            return self.running.early.push(hand);
        }
        let partition = self.plan.with(|schedule| schedule.add(name.clone()));
        self.running.names.insert(name, partition);
        let feeder = Feeder {
            plan: self.plan.clone(),
            consumer: self.consumer.clone(),
            partition,
            hand,
            drain: self.drain,
            skip_corrupt: self.skip_corrupt,
        };
        self.running.feeders.spawn(feeder.run());
    }

    fn handle_feed_end(&mut self, fed: Result<FeedEnd, JoinError>) -> Result<()> {
        let FeedEnd { partition, ending } = fed.map_err(broken)?;
        self.plan.with(|schedule| schedule.remove(partition));
        self.running.names.retain(|_, known| *known != partition);
        self.running.unwell |= ending == PartitionEnd::Gone;
        for hand in std::mem::take(&mut self.running.early) {
            self.begin_partition(hand);
        }
        Ok(())
    }

    // ---- the end

    /// Lets running handlers finish, commits completed records, and leaves the group, all before
    /// the deadline.
    async fn finish(mut self, deadline: Instant) -> Result<()> {
        self.plan.close();
        let left = deadline.saturating_duration_since(Instant::now());
        let drained = Instant::now() + self.drain.min(left / 2);
        let mut idle = timeout_at(drained, self.plan.idle()).await;
        if idle.is_err() {
            self.plan.with(|schedule| schedule.end_all());
            self.plan.cancel(None);
            idle = timeout_at((drained + GRACE).min(deadline), self.plan.idle()).await;
        }
        if idle.is_err() {
            event!(
                WARN,
                self.plan.origin,
                "the worker ends while a handler still blocks its thread: use spawn_blocking for blocking work"
            );
        }
        // They are dropped with the task; a handler that blocks its thread cannot be waited for.
        self.running.lanes.abort_all();
        self.running.early.clear();
        // Half of what is left is for leaving the group.
        let left = deadline.saturating_duration_since(Instant::now());
        self.running.end_transactions(Instant::now() + left / 2).await;
        self.running.feeders.shutdown().await;
        self.consumer.close(deadline.saturating_duration_since(Instant::now())).await
    }
}

async fn over(shutdown: &mut Option<Shutdown>) {
    match shutdown {
        Some(shutdown) => shutdown.await,
        None => std::future::pending().await,
    }
}

fn broken(error: JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a task of the worker ended").with_source(error)
}
