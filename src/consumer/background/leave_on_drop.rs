//! What becomes of a consumer whose last handle is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle, time::Instant};

use crate::consumer::{
    background::shared::{Shared, after},
    fetch::{fetch_task::close_sessions, plan::SessionClose},
    group::{RequestedCommit, RetryPolicy},
};
use crate::{error::Result, log::event};

/// How long a consumer that was dropped goes on in the background at most.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What its commits leave of that for leaving the group.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long brokers may take to hear that fetch sessions are over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Lets a consumer leave its group when this is dropped, unless it was ended before: once for all
/// handles that share it.
pub(crate) struct LeaveOnDrop {
    shared: Arc<Shared>,
    task: AbortHandle,
    runtime: Handle,
    ended: AtomicBool,
}

impl LeaveOnDrop {
    pub(crate) fn new(shared: Arc<Shared>, task: AbortHandle, runtime: Handle) -> Self {
        Self { shared, task, runtime, ended: AtomicBool::new(false) }
    }

    /// Ends the consumer's own task, which fetches, follows the group and commits by itself.
    pub(crate) fn end_task(&self) {
        self.task.abort();
    }

    /// Ends all tasks and connections, and reading, at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.task.abort();
        self.shared.buffer.with_state_and_readers(|assignment| assignment.end(None));
        drop(CloseOnDrop(self.shared.clone()));
    }

    /// Ends reading at once; what was done is committed (with `enable.auto.commit`), and the group
    /// is left, in the background.
    pub(crate) fn leave(&self) {
        if self.ended.swap(true, SeqCst) {
            return;
        }
        let shared = &self.shared;
        if shared.group.is_none() {
            return self.end();
        }
        // Nothing fetches any more, which would begin new sessions.
        self.task.abort();
        let (done, closes) = shared.buffer.with_state_and_readers(|assignment| {
            let done = shared.auto_commits().then(|| shared.request_commit_completed(assignment, None));
            let closes = assignment.end_sessions();
            assignment.end(None);
            (done, closes)
        });
        // On a runtime that is shut down it is dropped at once, which closes the client all the
        // same.
        self.runtime.spawn(leave(CloseOnDrop(shared.clone()), done, closes));
    }
}

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Closes the client when it is dropped.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.commit_queue.end();
        self.0.client.close();
    }
}

async fn leave(ending: CloseOnDrop, done: Option<Result<RequestedCommit>>, closes: Vec<SessionClose>) {
    let shared = &ending.0;
    let (deadline, commit_by) = (after(TIMEOUT), after(TIMEOUT - GOODBYE));
    // First what was asked for before: the last to be committed is what was done last.
    shared.run_queued_commits(commit_by).await;
    if let Some(done) = done
        && let Err(error) = commit(shared, done, commit_by).await
    {
        event!(
            WARN, shared.client.origin(), %error,
            "the consumer was dropped without close, and its last offsets could not be committed: the member that reads \
             its partitions next reads records again from the last commit on"
        );
    }
    if let Some(group) = &shared.group
        && let Err(error) = group.close(deadline).await
    {
        event!(
            WARN, shared.client.origin(), %error,
            "the consumer was dropped without close, and could not leave its group: other members get its partitions when \
             its session has timed out"
        );
    }
    close_sessions(shared.fetch_task(), closes, deadline.min(after(FAREWELL))).await;
}

async fn commit(shared: &Shared, done: Result<RequestedCommit>, deadline: Instant) -> Result<()> {
    let mut done = done?;
    shared.run_commit(&mut done, RetryPolicy::UntilCommitted, deadline).await
}
