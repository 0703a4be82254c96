//! The queue of background commits. They run in the order of their calls, and are combined while
//! they wait.

use std::sync::{Mutex, MutexGuard};

use crate::consumer::{
    api::pending_commit::{CommitCompleter, PendingCommit},
    group::RequestedCommit,
    lock::lock,
};
use crate::error::Result;

/// Commits that wait to run in the background.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    waiting: Mutex<QueuedCommits>,
    /// Held by the caller that runs the commits, so that only one does at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct QueuedCommits {
    commits: Vec<QueuedCommit>,
    /// True once the consumer has ended and commits nothing any more.
    ended: bool,
}

#[derive(Debug)]
pub(crate) struct QueuedCommit {
    pub(crate) commit: RequestedCommit,
    pub(crate) done: CommitCompleter,
}

impl CommitQueue {
    pub(crate) fn push(&self, commit: Result<RequestedCommit>) -> PendingCommit {
        let (done, pending) = PendingCommit::new();
        match commit {
            Ok(commit) => {
                let mut waiting = self.lock();
                if !waiting.ended {
                    waiting.commits.push(QueuedCommit { commit, done });
                }
            }
            // Dropped, because the caller is about to get the other end of the channel.
            Err(error) => drop(done.complete(Err(error))),
        }
        pending
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().commits.is_empty()
    }

    /// Drops all queued and all later commits; their callers learn that the consumer has ended.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        waiting.commits.clear();
    }

    fn lock(&self) -> MutexGuard<'_, QueuedCommits> {
        lock(&self.waiting)
    }
}

/// Commits that were taken from the queue to run. Those without a result return to the queue on
/// drop.
pub(crate) struct TakenCommits<'a> {
    from: &'a CommitQueue,
    pub(crate) commits: Vec<QueuedCommit>,
}

impl<'a> TakenCommits<'a> {
    pub(crate) fn all(from: &'a CommitQueue) -> Self {
        Self { from, commits: std::mem::take(&mut from.lock().commits) }
    }
}

impl Drop for TakenCommits<'_> {
    fn drop(&mut self) {
        let mut waiting = self.from.lock();
        if !waiting.ended {
            waiting.commits.splice(0..0, self.commits.drain(..));
        }
    }
}
