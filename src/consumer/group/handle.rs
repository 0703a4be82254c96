use std::collections::HashMap;

use tokio::{sync::mpsc, time::Instant};

use super::{GroupEvent, GroupSettings};
use crate::{
    cluster::Client,
    consumer::{OffsetAndMetadata, subscription::Subscription},
    error::Result,
    record::TopicPartition,
};

/// A consumer's hold on its membership. When the last clone is dropped, the membership's task ends without leaving the
/// group: the session lapses at the broker.
#[derive(Clone, Debug)]
pub(crate) struct GroupHandle;

/// As long as it lives, a reader waits for records: the poll interval does not run.
#[derive(Debug)]
pub(crate) struct Reading<'a>(&'a GroupHandle);

impl GroupHandle {
    /// Starts the membership's task on the current tokio runtime. It joins nothing before [`subscribe`](Self::subscribe).
    pub(crate) fn start(client: Client, settings: GroupSettings, events: mpsc::UnboundedSender<GroupEvent>) -> Self {
        let _ = (client, settings, events);
        unimplemented!()
    }

    /// Joins the group for that subscription, or changes it; `None` (or an empty one) unsubscribes, which leaves.
    pub(crate) fn subscribe(&self, subscription: Option<Subscription>) {
        let _ = subscription;
        unimplemented!()
    }

    /// The reader asked for records: `max.poll.interval.ms` counts from here. One atomic load where nothing changed.
    pub(crate) fn polled(&self) {
        unimplemented!()
    }

    /// The reader asked for records and waits for them: until the guard is dropped the poll interval does not run.
    /// Includes [`polled`](Self::polled).
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading(self)
    }

    /// Commits offsets for the generation that is current now; for a consumer that is not subscribed, as no member.
    ///
    /// # Errors
    /// `NotAssigned` where a partition is not owned or its generation is over, and other kinds as the broker answers.
    /// `REBALANCE_IN_PROGRESS` (as [`Error::code`](crate::Error::code)) where the group is rebalancing.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up: the offsets may or may not be committed.
    pub(crate) async fn commit(
        &self,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        deadline: Instant,
    ) -> Result<()> {
        let _ = (offsets, deadline);
        unimplemented!()
    }

    /// What the group has committed for those partitions; `None` where it has nothing.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn committed(
        &self,
        partitions: Vec<TopicPartition>,
        deadline: Instant,
    ) -> Result<HashMap<TopicPartition, Option<OffsetAndMetadata>>> {
        let _ = (partitions, deadline);
        unimplemented!()
    }

    /// Leaves the group (a static member stays, KIP-345) and ends the task. Tells nothing more to the consumer, so what is
    /// to be committed is committed before. Done at the deadline at the latest.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the leaving; it goes on until the deadline.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<()> {
        let _ = deadline;
        unimplemented!()
    }
}
