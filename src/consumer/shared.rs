//! What the consumer and its tasks share, and the commits that both make.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    OffsetAndMetadata,
    asked_commits::AskedCommits,
    assignment::Tenure,
    fetch_task::FetchTask,
    group::GroupHandle,
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
    error::{Error, ErrorKind, Result},
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
    /// Commits that nobody waits for right now.
    pub(super) asked: AskedCommits,
    /// One commit at a time, so that an older one that is retried never comes behind a newer one.
    committing: tokio::sync::Mutex<()>,
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
            asked: AskedCommits::default(),
            committing: tokio::sync::Mutex::new(()),
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

    // ---- the rebalance listener

    pub(super) fn has_listener(&self) -> bool {
        lock(&self.listener).0.is_some()
    }

    pub(super) fn tell(&self, what: Tell) {
        // A listener that is no longer called belongs to a consumer that has ended.
        let _ = self.calls.send(what);
    }

    /// Tells the listener, if there is one, that these partitions (or all) are about to go, and waits until it is done.
    pub(super) async fn take_leave(&self, only: Option<&[Tenure]>, deadline: Instant) -> Result<()> {
        let partitions = self.inbox.with(|assignment| assignment.take_leave(only));
        if partitions.is_empty() || !self.has_listener() {
            return Ok(());
        }
        let (done, told) = oneshot::channel();
        self.tell(Tell::Revoked { partitions, done });
        // Where nobody calls it any more, there is nothing to wait for.
        timeout_at(deadline, told).await.map(drop).map_err(|_| {
            Error::new(ErrorKind::Callback, "the rebalance listener's on_revoked was not done at the deadline")
        })
    }

    // ---- commits

    /// Commits these offsets in the background, after those that were asked for before.
    pub(super) fn commit_soon(&self, offsets: Offsets) -> PendingCommit {
        let pending = self.asked.push(offsets);
        self.inbox.driver.notify_one();
        pending
    }

    /// Commits what is done (or was handed out) of these partitions, or of all.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up: the offsets may or may not be committed.
    pub(super) async fn commit_read(
        &self,
        only: Option<&[TopicPartition]>,
        handed_out: bool,
        deadline: Instant,
    ) -> Result<()> {
        // What is to be committed is looked at when it is this commit's turn.
        self.commit_with(deadline, || self.inbox.with(|assignment| assignment.to_commit(only, handed_out))).await
    }

    /// Commits these offsets.
    ///
    /// # Cancel safety
    /// As [`commit_read`](Self::commit_read).
    pub(super) async fn commit(&self, offsets: Offsets, deadline: Instant) -> Result<()> {
        self.commit_with(deadline, || offsets).await
    }

    async fn commit_with(&self, deadline: Instant, offsets: impl FnOnce() -> Offsets) -> Result<()> {
        let group = self.group("commit offsets")?;
        let _turn = timeout_at(deadline, self.committing.lock()).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, "commit of offsets: an earlier commit was still under way at the deadline")
        })?;
        let offsets = offsets();
        if offsets.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let committed = group.commit(offsets.clone(), deadline).await;
        self.inbox.with(|assignment| {
            assignment.watch.committed(committed.is_ok(), begun.elapsed());
            if committed.is_ok() {
                assignment.committed(&offsets);
            }
        });
        committed
    }
}
