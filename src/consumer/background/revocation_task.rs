//! Gives up the partitions that the group revokes.

use tokio::sync::oneshot;

use crate::consumer::{
    background::shared::{Shared, after},
    buffer::fetch_buffer::FetchBuffer,
    group::RetryPolicy,
    subscription::ownership::Ownership,
};
use crate::log::{event, several};

/// Partitions that the group revokes, and the answer that it waits for.
pub(crate) struct Revocation {
    partitions: Vec<Ownership>,
    done: oneshot::Sender<()>,
}

impl Revocation {
    pub(crate) fn new(partitions: Vec<Ownership>, done: oneshot::Sender<()>) -> Self {
        Self { partitions, done }
    }

    /// Leaves out partitions that were lost meanwhile.
    pub(crate) fn leave_out(&mut self, lost: &[Ownership]) {
        self.partitions.retain(|partition| !lost.contains(partition));
    }

    /// Returns true while a reader holds records of the partitions.
    pub(crate) fn is_held(&self, buffer: &FetchBuffer) -> bool {
        buffer.holds(&buffer.with_state(|state| state.partitions.still_owned(&self.partitions)))
    }

    /// Gives the partitions up: commits their completed offsets, calls the rebalance listener,
    /// removes them, and answers the group. Failures of the first two steps are logged and delay
    /// the group no further.
    pub(crate) async fn complete(self, shared: &Shared) {
        self.commit(shared).await;
        self.call_listener(shared).await;
        shared.buffer.with_state_and_readers(|state| state.remove_all(&self.partitions));
        // The group may have stopped waiting.
        let _ = self.done.send(());
    }

    async fn commit(&self, shared: &Shared) {
        let deadline = after(shared.settings.max_poll_interval.min(shared.settings.session_timeout));
        shared.run_queued_commits(deadline).await;
        if !shared.auto_commits() {
            return;
        }
        let read = shared.buffer.with_state(|state| state.partitions.still_owned(&self.partitions));
        if let Err(error) = shared.commit_completed(Some(&read), RetryPolicy::UntilCommitted, deadline).await {
            event!(
                WARN, shared.client.origin(), %error, partitions = %several(&read), count = read.len(),
                "offsets of revoked partitions could not be committed: the next reader of these partitions reads \
                 records again from the last committed offsets"
            );
        }
    }

    async fn call_listener(&self, shared: &Shared) {
        let deadline = after(shared.settings.max_poll_interval);
        if let Err(error) = shared.announce_revocation(Some(&self.partitions), deadline).await {
            event!(
                WARN, shared.client.origin(), %error,
                "on_revoked of the rebalance listener did not return by the deadline; the partitions are given up all the same"
            );
        }
    }
}
