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

use super::{
    OffsetAndMetadata,
    asked_commits::AskedCommits,
    assignment::{Assignment, Tenure},
    fetch_task::FetchTask,
    group::{AskedCommit, Asker, GroupHandle, Insistence},
    inbox::{Inbox, lock},
    listener_task::Tell,
    pace::Polls,
    pending_commit::PendingCommit,
    rebalance_listener::Listener,
    settings::ConsumerSettings,
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
pub(super) enum Mode {
    None,
    /// By the user.
    Assigned,
    /// By the group.
    Subscribed,
}

pub(super) type Offsets = Vec<(TopicPartition, OffsetAndMetadata)>;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) settings: ConsumerSettings,
    pub(super) group: Option<GroupHandle>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) mode: Mutex<Mode>,
    pub(super) polls: Mutex<Polls>,
    /// Told of partitions that come and go; `calls` takes what it is to be told, in order.
    pub(super) listener: Mutex<Listener>,
    pub(super) calls: mpsc::UnboundedSender<Tell>,
    /// Revocations that the listener is being told of, or will be.
    pub(super) revocations_told: AtomicUsize,
    /// Commits that nobody waits for right now.
    pub(super) asked: AskedCommits,
    /// Commits that failed in the background, by error.
    failed_commits: Mutex<Limiter<Option<ErrorCode>>>,
}

/// A deadline for any duration that a user may think of.
pub(super) fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(FOREVER)
}

impl Shared {
    pub(super) fn new(
        client: Client,
        settings: ConsumerSettings,
        group: Option<GroupHandle>,
        inbox: Arc<Inbox>,
        calls: mpsc::UnboundedSender<Tell>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            settings,
            group,
            inbox,
            mode: Mutex::new(Mode::None),
            polls: Mutex::default(),
            listener: Mutex::default(),
            calls,
            revocations_told: AtomicUsize::new(0),
            asked: AskedCommits::default(),
            failed_commits: Mutex::default(),
        })
    }

    /// What fetches from a broker.
    pub(super) fn fetch_task(&self) -> FetchTask {
        FetchTask {
            client: self.client.clone(),
            inbox: self.inbox.clone(),
            isolation: self.settings.isolation_level,
            timeout: self.client.settings().request_timeout.saturating_add(self.settings.fetch_max_wait),
        }
    }

    /// Whether anything is committed by itself.
    pub(super) fn commits_by_itself(&self) -> bool {
        self.settings.enable_auto_commit && self.group.is_some()
    }

    /// How long a call may take where nothing else is said (`default.api.timeout.ms`).
    pub(super) fn deadline(&self) -> Instant {
        after(self.client.settings().default_api_timeout)
    }

    pub(super) fn group(&self, what: &str) -> Result<&GroupHandle> {
        self.group.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("to {what}, a consumer needs a group: set group.id"))
        })
    }

    /// Writes that offsets could not be committed in the background.
    pub(super) fn tell_failed_commit(&self, error: &Error) {
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

    pub(super) fn has_listener(&self) -> bool {
        lock(&self.listener).0.is_some()
    }

    pub(super) fn tell(&self, what: Tell) {
        // A listener that is no longer called belongs to a consumer that has ended.
        let _ = self.calls.send(what);
    }

    /// Tells the listener, if there is one, that these partitions (or all) are about to go, and
    /// waits until it is done; also where it was told before, and is not done yet.
    pub(super) async fn take_leave(&self, only: Option<&[Tenure]>, deadline: Instant) -> Result<()> {
        let listens = self.has_listener();
        // In one step: whoever looks next finds them told, and the listener busy with them.
        let told = self.inbox.with(|assignment| {
            let is_at_it = self.revocations_told.load(SeqCst) > 0 && assignment.any_told(only);
            let partitions = assignment.take_leave(only);
            if !is_at_it && (partitions.is_empty() || !listens) {
                return None;
            }
            let (done, told) = oneshot::channel();
            self.revocations_told.fetch_add(1, SeqCst);
            self.tell(Tell::Revoked { partitions, done });
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
    fn ask_to_commit(&self, assignment: &Assignment, offsets: Offsets, by_user: bool) -> Result<AskedCommit> {
        let group = self.group("commit offsets")?;
        let picture = self.client.metadata();
        let offsets = offsets.into_iter().map(|(partition, offset)| {
            let id = match assignment.get(&partition) {
                // Of a topic that is read, what its records came from.
                Ok(found) => found.topic_id,
                Err(_) => picture.topic(&partition.topic).map_or(Uuid::nil(), |topic| topic.id),
            };
            (partition, offset, id)
        });
        group.ask_to_commit(offsets.collect(), Asker { by_user, positioned: assignment.generation })
    }

    /// The same of what is done of these partitions, or of all, where it is not committed already.
    pub(super) fn ask_to_commit_done(
        &self,
        assignment: &Assignment,
        only: Option<&[TopicPartition]>,
    ) -> Result<AskedCommit> {
        self.ask_to_commit(assignment, assignment.done_to_commit(only), false)
    }

    /// The same of what was handed out of them, for the user.
    fn ask_to_commit_position(&self, assignment: &Assignment, only: Option<&[TopicPartition]>) -> Result<AskedCommit> {
        let mut offsets = assignment.handed_to_commit(only);
        if !self.group("commit offsets")?.is_committing() {
            // Else it is not known what comes of those that are under way.
            offsets.retain(|(partition, offset)| !assignment.is_committed(partition, offset));
        }
        self.ask_to_commit(assignment, offsets, true)
    }

    /// Commits these offsets in the background, after those that were asked for before.
    pub(super) fn commit_soon(&self, offsets: Offsets) -> PendingCommit {
        let asked = self.inbox.with(|assignment| self.ask_to_commit(assignment, offsets, true));
        self.carry_out_soon(asked)
    }

    pub(super) fn carry_out_soon(&self, asked: Result<AskedCommit>) -> PendingCommit {
        let pending = self.asked.push(asked);
        self.inbox.driver.notify_one();
        pending
    }

    /// Commits what is done of these partitions, or of all.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up: the offsets may or may not be committed.
    pub(super) async fn commit_done(
        &self,
        only: Option<&[TopicPartition]>,
        insistence: Insistence,
        deadline: Instant,
    ) -> Result<()> {
        let mut asked = self.inbox.with(|assignment| self.ask_to_commit_done(assignment, only))?;
        self.carry_out(&mut asked, insistence, deadline).await
    }

    /// Commits what was handed out of these partitions, or of all, for somebody who waits for it:
    /// whatever was asked for before, in the background, is through before.
    ///
    /// # Cancel safety
    /// As [`commit_done`](Self::commit_done).
    pub(super) async fn commit_position(&self, only: Option<&[TopicPartition]>) -> Result<()> {
        let deadline = self.deadline();
        let mut asked = self.inbox.with(|assignment| self.ask_to_commit_position(assignment, only))?;
        self.commit_asked(deadline).await;
        self.carry_out(&mut asked, Insistence::AlsoForTopics, deadline).await
    }

    /// Commits these offsets, for somebody who waits for it: whatever was asked for before, in the
    /// background, is through before.
    ///
    /// # Cancel safety
    /// As [`commit_done`](Self::commit_done).
    pub(super) async fn commit(&self, offsets: Offsets, insistence: Insistence) -> Result<()> {
        let deadline = self.deadline();
        let mut asked = self.inbox.with(|assignment| self.ask_to_commit(assignment, offsets, true))?;
        self.commit_asked(deadline).await;
        self.carry_out(&mut asked, insistence, deadline).await
    }

    /// Carries out a commit that was asked for.
    ///
    /// # Cancel safety
    /// As [`commit_done`](Self::commit_done); it can be carried out again.
    pub(super) async fn carry_out(
        &self,
        asked: &mut AskedCommit,
        insistence: Insistence,
        deadline: Instant,
    ) -> Result<()> {
        let group = self.group("commit offsets")?;
        let begun = Instant::now();
        let committed = match asked.is_empty() {
            false => {
                let hear = |news| self.inbox.with(|assignment| assignment.hear_of_commit(news));
                group.carry_out(asked, insistence, deadline, hear).await
            }
            true => match asked.end() {
                Ok(()) => return Ok(()),
                failed => failed,
            },
        };
        self.inbox.with(|assignment| assignment.watch.committed(committed.is_ok(), begun.elapsed()));
        committed
    }
}
