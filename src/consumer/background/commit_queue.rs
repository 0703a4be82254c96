//! Commits in the background: asked for by the user, carried out in their order, and put together
//! where they wait.

use std::sync::{Mutex, MutexGuard};

use tokio::time::{Instant, timeout_at};

use crate::consumer::{
    api::pending_commit::{CommitCompleter, PendingCommit},
    background::shared::Shared,
    buffer::fetch_buffer::lock,
    group::{RequestedCommit, RetryPolicy},
};
use crate::error::{ErrorKind, Result};

/// What nobody waits for right now.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    waiting: Mutex<QueuedCommits>,
    /// Whoever has it carries them out, one at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct QueuedCommits {
    commits: Vec<QueuedCommit>,
    /// Nothing is committed any more.
    ended: bool,
}

#[derive(Debug)]
struct QueuedCommit {
    commit: RequestedCommit,
    done: CommitCompleter,
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
struct TakenCommits<'a> {
    from: &'a CommitQueue,
    commits: Vec<QueuedCommit>,
}

impl<'a> TakenCommits<'a> {
    fn all(from: &'a CommitQueue) -> Self {
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

impl Shared {
    /// Carries out what was asked for in the background until now; what waited is put together, the
    /// latest offset for each partition. Waits, until the deadline, for whoever is at it already.
    ///
    /// # Cancel safety
    /// What is under way may be committed, and is carried out again by the next call.
    pub(crate) async fn run_queued_commits(&self, deadline: Instant) {
        let Ok(_turn) = timeout_at(deadline, self.commit_queue.turn.lock()).await else { return };
        let mut taken = TakenCommits::all(&self.commit_queue);
        if taken.commits.is_empty() {
            return;
        }
        let Ok(group) = self.group("commit offsets") else { return };
        if let Some(mut together) = group.together(taken.commits.iter().map(|asked| &asked.commit)) {
            let together = self.run_commit(&mut together, RetryPolicy::UntilCommitted, deadline).await;
            let is_late = together.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout);
            if together.is_ok() || is_late || taken.commits.len() == 1 {
                let mut unheard = None;
                for asked in taken.commits.drain(..) {
                    unheard = asked.done.complete(together.clone()).or(unheard);
                }
                unheard.iter().for_each(|error| self.log_failed_commit(error));
                return;
            }
        }
        // One of them may be at fault for all. What got through is known, and not sent again.
        while let Some(first) = taken.commits.first_mut() {
            let committed = self.run_commit(&mut first.commit, RetryPolicy::UntilCommitted, deadline).await;
            let unheard = taken.commits.remove(0).done.complete(committed);
            unheard.iter().for_each(|error| self.log_failed_commit(error));
        }
    }
}
