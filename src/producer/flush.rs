//! Groups of records that a flush waits for: everything that was sent before it, and nothing that
//! is sent later.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Held by every batch (and every record that waits for its topic) until its results are published.
/// When the last holder is dropped, the watch's sender is dropped, which ends the wait of flushes.
pub(crate) type FlushGroup = Arc<watch::Sender<()>>;

/// The group that new batches join, and the unfinished groups of earlier flushes.
#[derive(Debug)]
pub(crate) struct FlushGroups {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: FlushGroup,
    earlier: Vec<watch::Receiver<()>>,
}

impl FlushGroups {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { current: new_group(), earlier: Vec::new() }) }
    }

    /// Returns the group to hold until the holder's results are published.
    pub(crate) fn join(&self) -> FlushGroup {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    /// Closes the current group, so that later records join another; returns the groups to wait
    /// for.
    pub(crate) fn cut(&self) -> Vec<watch::Receiver<()>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = std::mem::replace(&mut state.current, new_group());
        let done = closed.subscribe();
        drop(closed);
        state.earlier.retain(|group| group.has_changed().is_ok());
        if done.has_changed().is_ok() {
            state.earlier.push(done);
        }
        state.earlier.clone()
    }
}

/// Waits until all of these groups are done.
pub(crate) async fn wait_for(groups: Vec<watch::Receiver<()>>) {
    for mut group in groups {
        // No value is ever sent: the only change is the end.
        while group.changed().await.is_ok() {}
    }
}

fn new_group() -> FlushGroup {
    Arc::new(watch::Sender::new(()))
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    #[test]
    fn flush_waits_only_for_earlier_records() {
        let groups = FlushGroups::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(groups.cut().is_empty(), "nothing was sent, so the flush has nothing to wait for");
        let first = groups.join();
        let mut flush = pin!(wait_for(groups.cut()));
        let second = groups.join();
        assert!(flush.as_mut().poll(&mut cx).is_pending());
        let mut later = pin!(wait_for(groups.cut()));
        drop(first);
        assert!(flush.as_mut().poll(&mut cx).is_ready());
        assert!(later.as_mut().poll(&mut cx).is_pending());
        drop(second);
        assert!(later.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn flush_waits_for_records_of_cancelled_flush() {
        let groups = FlushGroups::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let first = groups.join();
        drop(groups.cut());
        let mut flush = pin!(wait_for(groups.cut()));
        assert!(flush.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(flush.as_mut().poll(&mut cx).is_ready());
    }
}
