//! Leaves the group in the background when the last handle of a consumer is dropped.

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

/// Longest time for which a dropped consumer continues in the background.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Part of [`TIMEOUT`] that is reserved for leaving the group after the commits.
const GOODBYE: Duration = Duration::from_secs(2);
/// Longest time for which it waits for brokers to confirm that fetch sessions are closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Leaves the group on drop, unless the consumer was ended before. All handles share one.
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

    /// Ends the consumer's main task, which fetches, follows the group and commits automatically.
    pub(crate) fn end_task(&self) {
        self.task.abort();
    }

    /// Ends reading and all tasks and connections at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.task.abort();
        self.shared.buffer.with_state_and_readers(|state| state.end(None));
        drop(CloseOnDrop(self.shared.clone()));
    }

    /// Ends reading at once; commits what is done (with `enable.auto.commit`) and leaves the group
    /// in the background.
    pub(crate) fn leave(&self) {
        if self.ended.swap(true, SeqCst) {
            return;
        }
        let shared = &self.shared;
        if shared.group.is_none() {
            return self.end();
        }
        // The fetch tasks end first, because a further fetch would open new sessions.
        self.task.abort();
        let (done, closes) = shared.buffer.with_state_and_readers(|state| {
            let done = shared.auto_commits().then(|| shared.request_commit_completed(state, None));
            let closes = state.connections.end_sessions();
            state.end(None);
            (done, closes)
        });
        // A runtime that is shut down drops the future at once, which still closes the client.
        self.runtime.spawn(leave(CloseOnDrop(shared.clone()), done, closes));
    }
}

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Closes the client on drop.
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
    // Earlier commits run first, so that the offsets of the records that were done last are
    // committed last.
    shared.run_queued_commits(commit_by).await;
    if let Some(done) = done
        && let Err(error) = commit(shared, done, commit_by).await
    {
        event!(
            WARN, shared.client.origin(), %error,
            "the consumer was dropped without close, and its last offsets could not be committed: the next reader \
             of its partitions reads records again from the last committed offsets"
        );
    }
    if let Some(group) = &shared.group
        && let Err(error) = group.close(deadline).await
    {
        event!(
            WARN, shared.client.origin(), %error,
            "the consumer was dropped without close, and could not leave its group: other members get its partitions after \
             its session times out"
        );
    }
    close_sessions(shared.fetch_task(), closes, deadline.min(after(FAREWELL))).await;
}

async fn commit(shared: &Shared, done: Result<RequestedCommit>, deadline: Instant) -> Result<()> {
    let mut done = done?;
    shared.run_commit(&mut done, RetryPolicy::UntilCommitted, deadline).await
}
