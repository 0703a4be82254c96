//! Reads a partition's records into the schedule, and drains it when it is revoked.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::schedule::PartitionId;
use crate::worker::shared_schedule::SharedSchedule;
use crate::{
    consumer::{Consumer, ManualPartitionReader, PartitionEnd},
    error::{Error, ErrorKind},
    log::event,
};

pub(super) struct Feeder {
    pub(super) plan: Arc<SharedSchedule>,
    pub(super) consumer: Consumer,
    pub(super) partition: PartitionId,
    pub(super) hand: ManualPartitionReader,
    /// Time that running handlers have to finish when the group waits for the partition.
    pub(super) drain: Duration,
    pub(super) skip_corrupt: bool,
}

/// The end of a partition's task.
pub(super) struct FeedEnd {
    pub(super) partition: PartitionId,
    pub(super) ending: PartitionEnd,
}

impl Feeder {
    /// Runs until the partition is revoked or lost and none of its jobs runs.
    pub(super) async fn run(self) -> FeedEnd {
        let ending = self.feed().await;
        let ending = self.drain(ending).await;
        FeedEnd { partition: self.partition, ending }
    }

    async fn feed(&self) -> PartitionEnd {
        let mut records = Vec::new();
        loop {
            let room = tokio::select! {
                biased;
                ending = self.hand.ended() => return ending,
                room = self.plan.room(self.partition) => room,
            };
            match self.hand.receive(room.records, room.bytes, &mut records).await {
                Some(Ok(mark)) => self.plan.offer(self.partition, mark, &mut records),
                Some(Err(error)) => {
                    // An error is reported after the records before it are done.
                    tokio::select! {
                        biased;
                        ending = self.hand.ended() => return ending,
                        () = self.plan.settled(self.partition) => self.report_error(error),
                    }
                }
                None => return self.hand.ended().await,
            }
        }
    }

    /// Handles an error of this partition: an error that only the user can resolve ends the worker,
    /// any other is logged.
    fn report_error(&self, error: Error) {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NoOffset if self.is_before(&error) => return,
            ErrorKind::EndOfPartition => return,
            ErrorKind::Corrupt if self.skip_corrupt => {
                let partition = self.hand.partition();
                // If the partition was sought or revoked meanwhile, there is nothing left to skip.
                if let Ok(next) = self.consumer.skip_corrupt(partition) {
                    event!(
                        ERROR, self.plan.origin, %partition, next, %error,
                        "damaged records are skipped (skip_corrupt) and are not handled"
                    );
                    self.plan.with(|schedule| schedule.count_corrupt());
                }
            }
            ErrorKind::Corrupt | ErrorKind::NoOffset => {
                return self.plan.with(|schedule| schedule.fail(error));
            }
            _ => self.plan.warn_of_error(Some(self.hand.partition()), &error),
        }
        self.plan.record_error(error);
    }

    /// Returns true if the partition is read again from before the place of the error, because a
    /// transaction was not committed: the error comes again.
    fn is_before(&self, error: &Error) -> bool {
        let position = self.consumer.position(self.hand.partition());
        let is_before = error.location().zip(position).is_some_and(|(at, position)| position < at.offset);
        is_before && self.plan.with(|schedule| schedule.is_rewound(self.partition))
    }

    /// Drops waiting records, and lets running jobs, and the records between them, finish within
    /// the time.
    async fn drain(&self, ending: PartitionEnd) -> PartitionEnd {
        self.plan.with(|schedule| schedule.drain(self.partition));
        let ending = match ending {
            PartitionEnd::Gone => PartitionEnd::Gone,
            PartitionEnd::Revoking => tokio::select! {
                biased;
                () = self.plan.drained(self.partition) => return PartitionEnd::Revoking,
                () = self.hand.gone() => PartitionEnd::Gone,
                () = sleep_until(Instant::now() + self.drain) => {
                    event!(
                        WARN, self.plan.origin, partition = %self.hand.partition(),
                        drain_ms = %self.drain.as_millis(),
                        "handlers are ended because they took longer than drain_timeout and the group waits for the \
                         partition: their records are handled again"
                    );
                    PartitionEnd::Revoking
                }
            },
        };
        self.plan.with(|schedule| schedule.end(self.partition));
        self.plan.cancel(Some(self.partition));
        self.plan.drained(self.partition).await;
        ending
    }
}
