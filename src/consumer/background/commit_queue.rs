//! Commits in the background: asked for by the user, carried out in their order, and put together
//! where they wait.

use std::sync::{Mutex, MutexGuard};

use crate::consumer::{
    api::pending_commit::{CommitCompleter, PendingCommit},
    group::RequestedCommit,
    lock::lock,
};
use crate::error::Result;

/// What nobody waits for right now.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    waiting: Mutex<QueuedCommits>,
    /// Whoever has it carries them out, one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct QueuedCommits {
    commits: Vec<QueuedCommit>,
    /// Nothing is committed any more.
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
            // Its caller is about to get the other end.
            Err(error) => drop(done.complete(Err(error))),
        }
        pending
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().commits.is_empty()
    }

    /// Those that are left, and that come, are told that the consumer has ended.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        waiting.commits.clear();
    }

    fn lock(&self) -> MutexGuard<'_, QueuedCommits> {
        lock(&self.waiting)
    }
}

/// Commits that were taken to be carried out. Those that have no result when it is dropped wait
/// again.
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
