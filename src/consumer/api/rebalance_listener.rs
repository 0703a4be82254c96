//! The user's listener for partitions that are assigned, revoked or lost.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
};

use crate::consumer::{
    OffsetAndMetadata,
    api::checks::{check_offset, check_partition},
    background::shared::Shared,
    group::RetryPolicy,
};
use crate::{
    error::{BoxError, Error, ErrorKind, Result},
    record::{Offset, TopicPartition},
};

/// The result of a listener's call. Any error type converts into its error.
pub type ListenerResult = std::result::Result<(), BoxError>;

/// Receives calls when the group assigns partitions and when it revokes them (KIP-429,
/// `ConsumerRebalanceListener` in Java). Pass it to
/// [`Consumer::subscribe_with`](crate::consumer::Consumer::subscribe_with).
///
/// The calls of one consumer come one after the other, in the order of the events, on a task of
/// their own: a call may wait for anything, because heartbeats continue and other partitions are
/// read meanwhile. Each call may take `max.poll.interval.ms` at most; then its future is dropped.
/// If a call fails, panics or takes too long, the reader gets an error of kind
/// [`Callback`](ErrorKind::Callback).
///
/// The usual purpose is to store offsets beside the results:
/// ```no_run
/// # struct Database;
/// # impl Database {
/// #     async fn offset(&self, _: &ottla::TopicPartition) -> std::io::Result<i64> { Ok(0) }
/// # }
/// use ottla::consumer::{Assigned, ListenerResult, RebalanceListener};
///
/// struct FromDatabase(Database);
///
/// impl RebalanceListener for FromDatabase {
///     async fn on_assigned(&self, assigned: &mut Assigned) -> ListenerResult {
///         for partition in assigned.partitions().to_vec() {
///             let offset = self.0.offset(&partition).await?;
///             assigned.start_at(&partition, offset)?;
///         }
///         Ok(())
///     }
/// }
/// # async fn example(database: Database) -> ottla::Result<()> {
/// let builder = ottla::Consumer::builder("localhost:9092").group("billing").auto_commit(false);
/// let consumer = builder.build().await?;
/// consumer.subscribe_with(["orders"], FromDatabase(database))?;
/// # Ok(()) }
/// ```
pub trait RebalanceListener: Send + Sync + 'static {
    /// Receives, after each rebalance, the partitions that were added to this consumer; those that
    /// it kept are not among them. The list is empty if the rebalance added none. No record of them
    /// is read before this call returns; then they are read from the offset of
    /// [`Assigned::start_at`], otherwise from the group's committed offset.
    ///
    /// If the call fails, the reader gets an error, and the partitions wait for a
    /// [`seek`](crate::consumer::Consumer::seek): reading from another offset than the one that the
    /// call could not provide would lose or duplicate records.
    fn on_assigned(&self, assigned: &mut Assigned) -> impl Future<Output = ListenerResult> + Send {
        let _ = assigned;
        async { Ok(()) }
    }

    /// Receives the partitions that are revoked: before they go to other members, and before the
    /// consumer closes or unsubscribes. The partitions still belong to this consumer until the call
    /// returns. No more of their records are delivered, and the reader is done with those that it
    /// held (an unsubscribe does not wait for this). With `enable.auto.commit`, what is done was
    /// committed before the call. If the call fails, the reader gets an error, and the partitions
    /// are given up all the same.
    fn on_revoked(&self, revoked: &Revoked) -> impl Future<Output = ListenerResult> + Send {
        let _ = revoked;
        async { Ok(()) }
    }

    /// Receives the partitions that no longer belong to this consumer: the group has removed the
    /// member (the session timeout or `max.poll.interval.ms` passed, or a revocation took too
    /// long), and other members may have them. Uncommitted progress can no longer be committed.
    fn on_lost(&self, lost: &[TopicPartition]) -> impl Future<Output = ListenerResult> + Send {
        let _ = lost;
        async { Ok(()) }
    }
}

/// Delegates to the shared listener, so that one can be passed again and inspected from elsewhere.
impl<L: RebalanceListener + ?Sized> RebalanceListener for Arc<L> {
    fn on_assigned(&self, assigned: &mut Assigned) -> impl Future<Output = ListenerResult> + Send {
        (**self).on_assigned(assigned)
    }

    fn on_revoked(&self, revoked: &Revoked) -> impl Future<Output = ListenerResult> + Send {
        (**self).on_revoked(revoked)
    }

    fn on_lost(&self, lost: &[TopicPartition]) -> impl Future<Output = ListenerResult> + Send {
        (**self).on_lost(lost)
    }
}

/// Partitions that were assigned; see [`RebalanceListener::on_assigned`].
pub struct Assigned {
    partitions: Vec<TopicPartition>,
    pub(crate) starts: BTreeMap<TopicPartition, Offset>,
}

impl Assigned {
    pub(crate) fn new(partitions: Vec<TopicPartition>) -> Self {
        Self { partitions, starts: BTreeMap::new() }
    }

    /// Returns the partitions, sorted.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    /// Reads a partition from that offset, whatever the group has committed for it.
    ///
    /// # Errors
    /// `NotAssigned` for a partition that is not in [`partitions`](Self::partitions);
    /// `InvalidArgument` for a negative offset.
    pub fn start_at(&mut self, partition: &TopicPartition, offset: impl Into<Offset>) -> Result<()> {
        if !self.partitions.contains(partition) {
            return Err(not_among(partition));
        }
        self.starts.insert(partition.clone(), check_offset(partition, offset.into())?);
        Ok(())
    }
}

impl fmt::Debug for Assigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assigned").field("partitions", &self.partitions).field("starts", &self.starts).finish()
    }
}

/// Partitions that are revoked; see [`RebalanceListener::on_revoked`].
pub struct Revoked {
    partitions: Vec<TopicPartition>,
    shared: Weak<Shared>,
}

impl Revoked {
    pub(crate) fn new(partitions: Vec<TopicPartition>, shared: Weak<Shared>) -> Self {
        Self { partitions, shared }
    }

    /// Returns the partitions, sorted.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    /// Commits these offsets, the last ones for these partitions: for each that of the *next*
    /// record to be read. Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// Those of [`Consumer::commit_offsets`](crate::consumer::Consumer::commit_offsets);
    /// `NotAssigned` for a partition that is not in [`partitions`](Self::partitions).
    ///
    /// # Cancel safety
    /// Like [`Consumer::commit`](crate::consumer::Consumer::commit).
    pub async fn commit_offsets<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<()> {
        let offsets: Vec<_> = offsets.into_iter().map(|(partition, offset)| (partition, offset.into())).collect();
        for (partition, offset) in &offsets {
            check_partition(partition)?;
            check_offset(partition, Offset::At(offset.offset))?;
            if !self.partitions.contains(partition) {
                return Err(not_among(partition));
            }
        }
        let Some(shared) = self.shared.upgrade() else {
            return Err(Error::new(ErrorKind::Closed, "the consumer was dropped"));
        };
        shared.commit(offsets, RetryPolicy::UntilCommitted).await
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoked").field("partitions", &self.partitions).finish()
    }
}

fn not_among(partition: &TopicPartition) -> Error {
    Error::new(ErrorKind::NotAssigned, format!("{partition} is not among the partitions of this listener call"))
}

pub(crate) type Call<'a> = Pin<Box<dyn Future<Output = ListenerResult> + Send + 'a>>;

/// A listener with its type erased.
pub(crate) trait AnyListener: Send + Sync {
    fn assigned<'a>(&'a self, assigned: &'a mut Assigned) -> Call<'a>;
    fn revoked<'a>(&'a self, revoked: &'a Revoked) -> Call<'a>;
    fn lost<'a>(&'a self, lost: &'a [TopicPartition]) -> Call<'a>;
}

impl<L: RebalanceListener> AnyListener for L {
    fn assigned<'a>(&'a self, assigned: &'a mut Assigned) -> Call<'a> {
        Box::pin(self.on_assigned(assigned))
    }

    fn revoked<'a>(&'a self, revoked: &'a Revoked) -> Call<'a> {
        Box::pin(self.on_revoked(revoked))
    }

    fn lost<'a>(&'a self, lost: &'a [TopicPartition]) -> Call<'a> {
        Box::pin(self.on_lost(lost))
    }
}

/// The listener of the current subscription.
#[derive(Default)]
pub(crate) struct CurrentListener(pub(crate) Option<Arc<dyn AnyListener>>);

impl fmt::Debug for CurrentListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.0.is_some())
    }
}
