//! Runs the commits that wait in the queue.

use crate::{
    consumer::{
        background::{commit_queue::TakenCommits, shared::Shared},
        group::RetryPolicy,
    },
    error::ErrorKind,
};
use tokio::time::{Instant, timeout_at};

impl Shared {
    /// Runs the commits that are queued now, combined into one with the latest offset for each
    /// partition. If another caller runs commits already, waits for it until the deadline.
    ///
    /// # Cancel safety
    /// A commit in flight may succeed, and the next call runs it again.
    pub(crate) async fn run_queued_commits(&self, deadline: Instant) {
        let Ok(_turn) = timeout_at(deadline, self.commit_queue.turn.lock()).await else { return };
        let mut taken = TakenCommits::all(&self.commit_queue);
        if taken.commits.is_empty() {
            return;
        }
        let Ok(group) = self.group("commit offsets") else { return };
        if let Some(mut together) = group.together(taken.commits.iter().map(|asked| &asked.commit)) {
            let result = self.run_commit(&mut together, RetryPolicy::UntilCommitted, deadline).await;
            let is_late = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout);
            // After a timeout there is no time left to run each on its own.
            if result.is_ok() || is_late || taken.commits.len() == 1 {
                let mut unheard = None;
                for asked in taken.commits.drain(..) {
                    unheard = asked.done.complete(result.clone()).or(unheard);
                }
                unheard.iter().for_each(|error| self.log_failed_commit(error));
                return;
            }
        }
        // One commit may have made the combined one fail, so each runs on its own. Partitions that
        // were already committed are not sent again.
        while let Some(first) = taken.commits.first_mut() {
            let committed = self.run_commit(&mut first.commit, RetryPolicy::UntilCommitted, deadline).await;
            let unheard = taken.commits.remove(0).done.complete(committed);
            unheard.iter().for_each(|error| self.log_failed_commit(error));
        }
    }
}
