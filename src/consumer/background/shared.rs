//! What the consumer and its tasks share, and the commits that both make.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::consumer::{
    OffsetAndMetadata,
    api::{pending_commit::PendingCommit, rebalance_listener::CurrentListener},
    background::{commit_queue::CommitQueue, rebalance_call::RebalanceCall},
    buffer::fetch_buffer::FetchBuffer,
    config::settings::ConsumerSettings,
    fetch::fetch_task::FetchTask,
    group::{CommitOrigin, GroupHandle, RequestedCommit, RetryPolicy},
    lock::lock,
    observability::group_stats::PollStats,
    state::ConsumerState,
    subscription::ownership::Ownership,
};
use crate::{
    cluster::Client,
    config::parse::FOREVER,
    error::{Error, ErrorCode, ErrorKind, Result},
    log::{Limiter, event},
    record::TopicPartition,
};

/// How the partitions come to be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    None,
    /// By the user.
    Assigned,
    /// By the group.
    Subscribed,
}

pub(crate) type Offsets = Vec<(TopicPartition, OffsetAndMetadata)>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) settings: ConsumerSettings,
    pub(crate) group: Option<GroupHandle>,
    pub(crate) buffer: Arc<FetchBuffer>,
    pub(crate) mode: Mutex<Mode>,
    pub(crate) poll_stats: Mutex<PollStats>,
    /// Told of partitions that come and go; `calls` takes what it is to be told, in order.
    pub(crate) listener: Mutex<CurrentListener>,
    pub(crate) listener_calls: mpsc::UnboundedSender<RebalanceCall>,
    /// Revocations that the listener is being told of, or will be.
    pub(crate) announced_revocations: AtomicUsize,
    /// Commits that nobody waits for right now.
    pub(crate) commit_queue: CommitQueue,
    /// Commits that failed in the background, by error.
    failed_commits: Mutex<Limiter<Option<ErrorCode>>>,
}

/// A deadline for any duration that a user may think of.
pub(crate) fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(FOREVER)
}

impl Shared {
    pub(crate) fn new(
        client: Client,
        settings: ConsumerSettings,
        group: Option<GroupHandle>,
        buffer: Arc<FetchBuffer>,
        calls: mpsc::UnboundedSender<RebalanceCall>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            settings,
            group,
            buffer: buffer,
            mode: Mutex::new(Mode::None),
            poll_stats: Mutex::default(),
            listener: Mutex::default(),
            listener_calls: calls,
            announced_revocations: AtomicUsize::new(0),
            commit_queue: CommitQueue::default(),
            failed_commits: Mutex::default(),
        })
    }

    /// What fetches from a broker.
    pub(crate) fn fetch_task(&self) -> FetchTask {
        FetchTask {
            client: self.client.clone(),
            buffer: self.buffer.clone(),
            isolation: self.settings.isolation_level,
            timeout: self.client.settings().request_timeout.saturating_add(self.settings.fetch_max_wait),
        }
    }

    /// Whether anything is committed by itself.
    pub(crate) fn auto_commits(&self) -> bool {
        self.settings.enable_auto_commit && self.group.is_some()
    }

    /// How long a call may take where nothing else is said (`default.api.timeout.ms`).
    pub(crate) fn deadline(&self) -> Instant {
        after(self.client.settings().default_api_timeout)
    }

    pub(crate) fn group(&self, what: &str) -> Result<&GroupHandle> {
        self.group.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("to {what}, a consumer needs a group: set group.id"))
        })
    }

    /// Writes that offsets could not be committed in the background.
    pub(crate) fn log_failed_commit(&self, error: &Error) {
        let Some(suppressed) = lock(&self.failed_commits).admit(error.code(), Instant::now().into_std()) else {
            return;
        };
        let retry_ms = u64::try_from(self.settings.auto_commit_interval.as_millis()).unwrap_or(u64::MAX);
        event!(
            WARN, self.client.origin(), %error, retry_ms, suppressed,
            "offsets could not be committed; the next commit (auto.commit.interval.ms) has them too"
        );
    }

    // ---- the rebalance listener

    pub(crate) fn has_listener(&self) -> bool {
        lock(&self.listener).0.is_some()
    }

    pub(crate) fn call_listener(&self, what: RebalanceCall) {
        // A listener that is no longer called belongs to a consumer that has ended.
        let _ = self.listener_calls.send(what);
    }

    /// Tells the listener, if there is one, that these partitions (or all) are about to go, and
    /// waits until it is done; also where it was told before, and is not done yet.
    pub(crate) async fn announce_revocation(&self, only: Option<&[Ownership]>, deadline: Instant) -> Result<()> {
        let listens = self.has_listener();
        // In one step: whoever looks next finds them told, and the listener busy with them.
        let told = self.buffer.with_state(|assignment| {
            let is_at_it = self.announced_revocations.load(SeqCst) > 0 && assignment.any_revocation_announced(only);
            let partitions = assignment.announce_revocation(only);
            if !is_at_it && (partitions.is_empty() || !listens) {
                return None;
            }
            let (done, told) = oneshot::channel();
            self.announced_revocations.fetch_add(1, SeqCst);
            self.call_listener(RebalanceCall::Revoked { partitions, done });
            Some(told)
        });
        let Some(told) = told else { return Ok(()) };
        // Where nobody calls it any more, there is nothing to wait for.
        timeout_at(deadline, told).await.map(drop).map_err(|_| {
            Error::new(ErrorKind::Callback, "the rebalance listener's on_revoked was not done at the deadline")
        })
    }

    // ---- commits

    /// Takes note of a commit: of these offsets, of the assignment and the topics that are current
    /// now, behind all commits that were asked for before.
    fn request_commit(&self, assignment: &ConsumerState, offsets: Offsets, by_user: bool) -> Result<RequestedCommit> {
        let group = self.group("commit offsets")?;
        let metadata = self.client.metadata();
        let offsets = offsets.into_iter().map(|(partition, offset)| {
            let id = match assignment.get(&partition) {
                // Of a topic that is read, what its records came from.
                Ok(state) => state.topic_id,
                Err(_) => metadata.topic(&partition.topic).map_or(Uuid::nil(), |topic| topic.id),
            };
            (partition, offset, id)
        });
        group.request_commit(offsets.collect(), CommitOrigin { by_user, seek_epoch: assignment.seek_epoch })
    }

    /// The same of what is done of these partitions, or of all, where it is not committed already.
    pub(crate) fn request_commit_completed(
        &self,
        assignment: &ConsumerState,
        only: Option<&[TopicPartition]>,
    ) -> Result<RequestedCommit> {
        self.request_commit(assignment, assignment.completed_offsets(only), false)
    }

    /// The same of what was handed out of them, for the user.
    fn request_commit_position(
        &self,
        assignment: &ConsumerState,
        only: Option<&[TopicPartition]>,
    ) -> Result<RequestedCommit> {
        let mut offsets = assignment.delivered_offsets(only);
        if !self.group("commit offsets")?.is_committing() {
            // Else it is not known what comes of those that are under way.
            offsets.retain(|(partition, offset)| !assignment.is_committed(partition, offset));
        }
        self.request_commit(assignment, offsets, true)
    }

    /// Commits these offsets in the background, after those that were asked for before.
    pub(crate) fn commit_in_background(&self, offsets: Offsets) -> PendingCommit {
        let asked = self.buffer.with_state(|assignment| self.request_commit(assignment, offsets, true));
        self.enqueue_commit(asked)
    }

    pub(crate) fn enqueue_commit(&self, asked: Result<RequestedCommit>) -> PendingCommit {
        let pending = self.commit_queue.push(asked);
        self.buffer.task.notify_one();
        pending
    }

    /// Commits what is done of these partitions, or of all.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up: the offsets may or may not be committed.
    pub(crate) async fn commit_completed(
        &self,
        only: Option<&[TopicPartition]>,
        policy: RetryPolicy,
        deadline: Instant,
    ) -> Result<()> {
        let mut asked = self.buffer.with_state(|assignment| self.request_commit_completed(assignment, only))?;
        self.run_commit(&mut asked, policy, deadline).await
    }

    /// Commits what was handed out of these partitions, or of all, for somebody who waits for it:
    /// whatever was asked for before, in the background, is through before.
    ///
    /// # Cancel safety
    /// As [`commit_done`](Self::commit_done).
    pub(crate) async fn commit_position(&self, only: Option<&[TopicPartition]>) -> Result<()> {
        let deadline = self.deadline();
        let mut asked = self.buffer.with_state(|assignment| self.request_commit_position(assignment, only))?;
        self.run_queued_commits(deadline).await;
        self.run_commit(&mut asked, RetryPolicy::UntilTopicsExist, deadline).await
    }

    /// Commits these offsets, for somebody who waits for it: whatever was asked for before, in the
    /// background, is through before.
    ///
    /// # Cancel safety
    /// As [`commit_done`](Self::commit_done).
    pub(crate) async fn commit(&self, offsets: Offsets, policy: RetryPolicy) -> Result<()> {
        let deadline = self.deadline();
        let mut asked = self.buffer.with_state(|assignment| self.request_commit(assignment, offsets, true))?;
        self.run_queued_commits(deadline).await;
        self.run_commit(&mut asked, policy, deadline).await
    }

    /// Carries out a commit that was asked for.
    ///
    /// # Cancel safety
    /// As [`commit_done`](Self::commit_done); it can be carried out again.
    pub(crate) async fn run_commit(
        &self,
        asked: &mut RequestedCommit,
        policy: RetryPolicy,
        deadline: Instant,
    ) -> Result<()> {
        let group = self.group("commit offsets")?;
        let begun = Instant::now();
        let committed = match asked.is_empty() {
            false => {
                let hear = |news| self.buffer.with_state(|assignment| assignment.handle_commit_event(news));
                group.run_commit(asked, policy, deadline, hear).await
            }
            true => match asked.end() {
                Ok(()) => return Ok(()),
                failed => failed,
            },
        };
        self.buffer.with_state(|assignment| assignment.stats.commit_ended(committed.is_ok(), begun.elapsed()));
        committed
    }
}
