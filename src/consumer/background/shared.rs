//! The data that the consumer and its tasks share, and the commits that both make.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
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
    config::{isolation::Isolation, settings::ConsumerSettings},
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

/// The way in which partitions are assigned.
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
    pub(crate) isolation: Isolation,
    /// True if a worker commits the offsets in its transactions.
    commits_in_transactions: AtomicBool,
    pub(crate) mode: Mutex<Mode>,
    pub(crate) poll_stats: Mutex<PollStats>,
    /// The current rebalance listener. The listener task makes the calls of `listener_calls`, in
    /// order.
    pub(crate) listener: Mutex<CurrentListener>,
    pub(crate) listener_calls: mpsc::UnboundedSender<RebalanceCall>,
    /// Number of revocation calls of the listener that are queued or under way.
    pub(crate) announced_revocations: AtomicUsize,
    /// Commits that run in the background.
    pub(crate) commit_queue: CommitQueue,
    /// Limits log lines about commits that failed in the background, by error.
    failed_commits: Mutex<Limiter<Option<ErrorCode>>>,
}

/// Returns the deadline after a timeout; any duration is valid.
pub(crate) fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(FOREVER)
}

impl Shared {
    pub(crate) fn new(
        client: Client,
        settings: ConsumerSettings,
        group: Option<GroupHandle>,
        buffer: Arc<FetchBuffer>,
        isolation: Isolation,
        calls: mpsc::UnboundedSender<RebalanceCall>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            settings,
            group,
            buffer,
            isolation,
            commits_in_transactions: AtomicBool::new(false),
            mode: Mutex::new(Mode::None),
            poll_stats: Mutex::default(),
            listener: Mutex::default(),
            listener_calls: calls,
            announced_revocations: AtomicUsize::new(0),
            commit_queue: CommitQueue::default(),
            failed_commits: Mutex::default(),
        })
    }

    /// Creates a task that fetches from a broker.
    pub(crate) fn fetch_task(&self) -> FetchTask {
        FetchTask {
            client: self.client.clone(),
            buffer: self.buffer.clone(),
            timeout: self.client.settings().request_timeout.saturating_add(self.settings.fetch_max_wait),
        }
    }

    /// Returns true if the consumer commits automatically.
    pub(crate) fn auto_commits(&self) -> bool {
        self.settings.enable_auto_commit && self.group.is_some() && !self.commits_in_transactions.load(Relaxed)
    }

    /// Leaves all commits to transactions from now on.
    pub(crate) fn commit_in_transactions(&self) {
        self.commits_in_transactions.store(true, Relaxed);
    }

    /// Returns the deadline of a call that starts now (`default.api.timeout.ms`).
    pub(crate) fn deadline(&self) -> Instant {
        after(self.client.settings().default_api_timeout)
    }

    pub(crate) fn group(&self, what: &str) -> Result<&GroupHandle> {
        self.group.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("to {what}, a consumer needs a group: set group.id"))
        })
    }

    /// Logs that offsets could not be committed in the background.
    pub(crate) fn log_failed_commit(&self, error: &Error) {
        let Some(suppressed) = lock(&self.failed_commits).admit(error.code(), Instant::now().into_std()) else {
            return;
        };
        let retry_ms = u64::try_from(self.settings.auto_commit_interval.as_millis()).unwrap_or(u64::MAX);
        event!(
            WARN, self.client.origin(), %error, retry_ms, suppressed,
            "offsets could not be committed; the next commit (auto.commit.interval.ms) includes them"
        );
    }

    // ---- the rebalance listener

    pub(crate) fn has_listener(&self) -> bool {
        lock(&self.listener).0.is_some()
    }

    pub(crate) fn call_listener(&self, what: RebalanceCall) {
        // Sending fails only after the consumer has ended, and then no listener is called.
        let _ = self.listener_calls.send(what);
    }

    /// Calls the listener, if there is one, for the revocation of these partitions (or all), and
    /// waits until it is done. Also waits for an earlier call for them that is not done yet.
    pub(crate) async fn announce_revocation(&self, only: Option<&[Ownership]>, deadline: Instant) -> Result<()> {
        let listens = self.has_listener();
        // In one step with the counter, so that the next caller sees both that the listener was
        // told and that it is busy.
        let told = self.buffer.with_state(|state| {
            let is_at_it =
                self.announced_revocations.load(SeqCst) > 0 && state.partitions.any_revocation_announced(only);
            let partitions = state.partitions.announce_revocation(only);
            if !is_at_it && (partitions.is_empty() || !listens) {
                return None;
            }
            let (done, told) = oneshot::channel();
            self.announced_revocations.fetch_add(1, SeqCst);
            self.call_listener(RebalanceCall::Revoked { partitions, done });
            Some(told)
        });
        let Some(told) = told else { return Ok(()) };
        // An error means that the listener task has ended, so there is nothing to wait for.
        timeout_at(deadline, told).await.map(drop).map_err(|_| {
            Error::new(ErrorKind::Callback, "the rebalance listener's on_revoked did not return by the deadline")
        })
    }

    // ---- commits

    /// Registers a commit of these offsets, for the current assignment and topic ids, after all
    /// commits that were requested before.
    fn request_commit(&self, state: &ConsumerState, offsets: Offsets, by_user: bool) -> Result<RequestedCommit> {
        let group = self.group("commit offsets")?;
        let metadata = self.client.metadata();
        let offsets = offsets.into_iter().map(|(partition, offset)| {
            let id = match state.partitions.assigned(&partition) {
                // For a topic that is read, use the id of the topic that its records came from.
                Ok(state) => state.topic_id,
                Err(_) => metadata.topic(&partition.topic).map_or(Uuid::nil(), |topic| topic.id),
            };
            (partition, offset, id)
        });
        group
            .request_commit(offsets.collect(), CommitOrigin { by_user, seek_epoch: state.partitions.last_seek_epoch() })
    }

    /// Registers a commit of the completed offsets of these partitions, or of all, that are not
    /// committed already.
    pub(crate) fn request_commit_completed(
        &self,
        state: &ConsumerState,
        only: Option<&[TopicPartition]>,
    ) -> Result<RequestedCommit> {
        self.request_commit(state, state.completed_offsets(only), false)
    }

    /// Registers a commit of the delivered offsets of these partitions, or of all, for the user.
    fn request_commit_position(
        &self,
        state: &ConsumerState,
        only: Option<&[TopicPartition]>,
    ) -> Result<RequestedCommit> {
        let mut offsets = state.delivered_offsets(only);
        if !self.group("commit offsets")?.is_committing() {
            // Otherwise the results of commits in flight are unknown, so none may be left out.
            offsets.retain(|(partition, offset)| !state.is_committed(partition, offset));
        }
        self.request_commit(state, offsets, true)
    }

    /// Commits these offsets in the background, after the commits that were requested before.
    pub(crate) fn commit_in_background(&self, offsets: Offsets) -> PendingCommit {
        let asked = self.buffer.with_state(|state| self.request_commit(state, offsets, true));
        self.enqueue_commit(asked)
    }

    pub(crate) fn enqueue_commit(&self, asked: Result<RequestedCommit>) -> PendingCommit {
        let pending = self.commit_queue.push(asked);
        self.buffer.task.notify_one();
        pending
    }

    /// Commits the completed offsets of these partitions, or of all.
    ///
    /// # Cancel safety
    /// Dropping the future discards the result: the offsets may or may not be committed.
    pub(crate) async fn commit_completed(
        &self,
        only: Option<&[TopicPartition]>,
        policy: RetryPolicy,
        deadline: Instant,
    ) -> Result<()> {
        let mut asked = self.buffer.with_state(|state| self.request_commit_completed(state, only))?;
        self.run_commit(&mut asked, policy, deadline).await
    }

    /// Commits the delivered offsets of these partitions, or of all, for a caller that waits.
    /// Background commits that were requested before run first.
    ///
    /// # Cancel safety
    /// Like [`commit_completed`](Self::commit_completed).
    pub(crate) async fn commit_position(&self, only: Option<&[TopicPartition]>) -> Result<()> {
        let deadline = self.deadline();
        let mut asked = self.buffer.with_state(|state| self.request_commit_position(state, only))?;
        self.run_queued_commits(deadline).await;
        self.run_commit(&mut asked, RetryPolicy::UntilTopicsExist, deadline).await
    }

    /// Commits these offsets, for a caller that waits. Background commits that were requested
    /// before run first.
    ///
    /// # Cancel safety
    /// Like [`commit_completed`](Self::commit_completed).
    pub(crate) async fn commit(&self, offsets: Offsets, policy: RetryPolicy) -> Result<()> {
        let deadline = self.deadline();
        let mut asked = self.buffer.with_state(|state| self.request_commit(state, offsets, true))?;
        self.run_queued_commits(deadline).await;
        self.run_commit(&mut asked, policy, deadline).await
    }

    /// Runs a commit that was registered before.
    ///
    /// # Cancel safety
    /// Like [`commit_completed`](Self::commit_completed); the commit can be run again.
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
                let hear = |news| self.buffer.with_state(|state| state.handle_commit_event(news));
                group.run_commit(asked, policy, deadline, hear).await
            }
            true => match asked.end() {
                Ok(()) => return Ok(()),
                failed => failed,
            },
        };
        self.buffer.with_state(|state| state.stats.commit_ended(committed.is_ok(), begun.elapsed()));
        committed
    }
}
