//! Commits in the background: asked for by the user, carried out in their order, and put together
//! where they wait.

use std::sync::{Mutex, MutexGuard};

use tokio::time::{Instant, timeout_at};

use super::{
    group::{AskedCommit, Insistence},
    inbox::lock,
    pending_commit::{Done, PendingCommit},
    shared::Shared,
};
use crate::error::{ErrorKind, Result};

/// What nobody waits for right now.
#[derive(Debug, Default)]
pub(super) struct AskedCommits {
    waiting: Mutex<Waiting>,
    /// Whoever has it carries them out, one at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    commits: Vec<Asked>,
    /// Nothing is committed any more.
    ended: bool,
}

#[derive(Debug)]
struct Asked {
    commit: AskedCommit,
    done: Done,
}

impl AskedCommits {
    pub(super) fn push(&self, commit: Result<AskedCommit>) -> PendingCommit {
        let (done, pending) = PendingCommit::new();
        match commit {
            Ok(commit) => {
                let mut waiting = self.lock();
                if !waiting.ended {
                    waiting.commits.push(Asked { commit, done });
                }
            }
            // Its caller is about to get the other end.
            Err(error) => drop(done.tell(Err(error))),
        }
        pending
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().commits.is_empty()
    }

    /// Those that are left, and that come, are told that the consumer has ended.
    pub(super) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        waiting.commits.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

/// Commits that were taken to be carried out. Those that have no result when it is dropped wait
/// again.
struct Taken<'a> {
    from: &'a AskedCommits,
    commits: Vec<Asked>,
}

impl<'a> Taken<'a> {
    fn all(from: &'a AskedCommits) -> Self {
        Self { from, commits: std::mem::take(&mut from.lock().commits) }
    }
}

impl Drop for Taken<'_> {
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
    pub(super) async fn commit_asked(&self, deadline: Instant) {
        let Ok(_turn) = timeout_at(deadline, self.asked.turn.lock()).await else { return };
        let mut taken = Taken::all(&self.asked);
        if taken.commits.is_empty() {
            return;
        }
        let Ok(group) = self.group("commit offsets") else { return };
        if let Some(mut together) = group.together(taken.commits.iter().map(|asked| &asked.commit)) {
            let together = self.carry_out(&mut together, Insistence::Through, deadline).await;
            let is_late = together.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout);
            if together.is_ok() || is_late || taken.commits.len() == 1 {
                let mut unheard = None;
                for asked in taken.commits.drain(..) {
                    unheard = asked.done.tell(together.clone()).or(unheard);
                }
                unheard.iter().for_each(|error| self.tell_failed_commit(error));
                return;
            }
        }
        // One of them may be at fault for all. What got through is known, and not sent again.
        while let Some(first) = taken.commits.first_mut() {
            let committed = self.carry_out(&mut first.commit, Insistence::Through, deadline).await;
            let unheard = taken.commits.remove(0).done.tell(committed);
            unheard.iter().for_each(|error| self.tell_failed_commit(error));
        }
    }
}
