//! What a user is told of partitions that come and go.

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

/// What a listener's call came to; any error does.
pub type ListenerResult = std::result::Result<(), BoxError>;

/// Is told when the group gives partitions and takes them back (KIP-429,
/// `ConsumerRebalanceListener` in Java): given to
/// [`Consumer::subscribe_with`](crate::consumer::Consumer::subscribe_with).
///
/// The calls of one consumer come one after the other, in the order in which things happened, on a
/// task of their own: a call may wait for whatever it likes, heartbeats go on and other partitions
/// are read meanwhile. Each call may take `max.poll.interval.ms` at most; then its future is
/// dropped. A call that fails, panics or takes too long is told to the reader as an error of kind
/// [`Callback`](ErrorKind::Callback).
///
/// The usual use is to keep offsets where the results are:
/// ```no_run
/// # struct Database;
/// # impl Database { async fn offset(&self, _: &ottla::TopicPartition) -> std::io::Result<i64> { Ok(0) } }
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
/// let consumer = ottla::Consumer::builder("localhost:9092").group("billing").auto_commit(false).build().await?;
/// consumer.subscribe_with(["orders"], FromDatabase(database))?;
/// # Ok(()) }
/// ```
pub trait RebalanceListener: Send + Sync + 'static {
    /// These partitions are ours now, beside those that we had and kept. Comes after each
    /// rebalance, with no partitions where it gave us nothing new. Nothing of them is read before
    /// this is done; then they are read from where [`Assigned::start_at`] says, else from where the
    /// group committed.
    ///
    /// If it fails, the reader is told, and the partitions wait for a
    /// [`seek`](crate::consumer::Consumer::seek): reading from another place than the one that could not be
    /// found out would lose or double records.
    fn on_assigned(&self, assigned: &mut Assigned) -> impl Future<Output = ListenerResult> + Send {
        let _ = assigned;
        async { Ok(()) }
    }

    /// These partitions are still ours, but go to others when this is done, or when the consumer
    /// closes or unsubscribes. Nothing more of them is handed out, the reader is done with what it
    /// had of them, and with `enable.auto.commit` that is committed. If it fails, the reader is
    /// told, and the partitions go all the same.
    fn on_revoked(&self, revoked: &Revoked) -> impl Future<Output = ListenerResult> + Send {
        let _ = revoked;
        async { Ok(()) }
    }

    /// These partitions are no longer ours: the group has given us up (a session or
    /// `max.poll.interval.ms` passed, or a revocation took too long), and others may have them.
    /// What was not committed cannot be committed any more.
    fn on_lost(&self, lost: &[TopicPartition]) -> impl Future<Output = ListenerResult> + Send {
        let _ = lost;
        async { Ok(()) }
    }
}

/// Shared, so that it can be given again and looked at from elsewhere.
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

    /// The partitions, sorted.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    /// Reads a partition from that place, whatever the group has committed for it.
    ///
    /// # Errors
    /// `NotAssigned` for a partition that is not among these; `InvalidArgument` for a negative
    /// offset.
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

/// Partitions that go to others; see [`RebalanceListener::on_revoked`].
pub struct Revoked {
    partitions: Vec<TopicPartition>,
    shared: Weak<Shared>,
}

impl Revoked {
    pub(crate) fn new(partitions: Vec<TopicPartition>, shared: Weak<Shared>) -> Self {
        Self { partitions, shared }
    }

    /// The partitions, sorted.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    /// Commits these offsets, the last ones for these partitions: of each the *next* record to be
    /// read. Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// As [`Consumer::commit_offsets`](crate::consumer::Consumer::commit_offsets); `NotAssigned` for a
    /// partition that is not among these.
    ///
    /// # Cancel safety
    /// As [`Consumer::commit`](crate::consumer::Consumer::commit).
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
    Error::new(ErrorKind::NotAssigned, format!("{partition} is not among the partitions that the listener is told of"))
}

pub(crate) type Call<'a> = Pin<Box<dyn Future<Output = ListenerResult> + Send + 'a>>;

/// A listener whose type is not known.
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

/// The listener of the present subscription.
#[derive(Default)]
pub(crate) struct CurrentListener(pub(crate) Option<Arc<dyn AnyListener>>);

impl fmt::Debug for CurrentListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.0.is_some())
    }
}
