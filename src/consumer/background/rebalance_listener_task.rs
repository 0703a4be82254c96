//! Calls the rebalance listener: one call after the other, each with a time limit.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::consumer::background::rebalance_call::RebalanceCall;
use crate::consumer::{
    api::rebalance_listener::{AnyListener, Assigned, ListenerResult, Revoked},
    background::shared::Shared,
    lock::lock,
    subscription::fetch_position::FetchState,
};
use crate::{
    error::{Error, ErrorKind, Result},
    log::event,
    record::TopicPartition,
};

pub(crate) struct ListenerTask {
    pub(crate) shared: Arc<Shared>,
    pub(crate) calls: mpsc::UnboundedReceiver<RebalanceCall>,
}

impl ListenerTask {
    pub(crate) async fn run(mut self) {
        while let Some(tell) = self.calls.recv().await {
            let listener = lock(&self.shared.listener).0.clone();
            match tell {
                RebalanceCall::Assigned(held) => self.assigned(listener, held).await,
                RebalanceCall::Revoked { partitions, done } => {
                    // Without partitions the caller only waits for earlier calls.
                    if let Some(listener) = listener.filter(|_| !partitions.is_empty()) {
                        let revoked = Revoked::new(partitions, Arc::downgrade(&self.shared));
                        let told = self.call("on_revoked", async move { ((), listener.revoked(&revoked).await) }).await;
                        self.report_error(told.err());
                    }
                    self.shared.announced_revocations.fetch_sub(1, SeqCst);
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                }
                RebalanceCall::Lost(lost) => {
                    if let Some(listener) = listener {
                        let told = self.call("on_lost", async move { ((), listener.lost(&lost).await) }).await;
                        self.report_error(told.err());
                    }
                }
            }
        }
    }

    async fn assigned(&self, listener: Option<Arc<dyn AnyListener>>, held: Vec<(TopicPartition, u64)>) {
        let told = match listener {
            Some(listener) => {
                let mut assigned = Assigned::new(held.iter().map(|(partition, _)| partition.clone()).collect());
                let call = async move {
                    let told = listener.assigned(&mut assigned).await;
                    (assigned.starts, told)
                };
                self.call("on_assigned", call).await
            }
            None => Ok(Default::default()),
        };
        let error = self.shared.buffer.with_state_and_readers(|state| match told {
            Ok(starts) => {
                for (partition, generation) in held {
                    let start = starts.get(&partition).copied().map_or(FetchState::Initializing, FetchState::at);
                    state.release_held(&partition, generation, Some(start));
                }
                None
            }
            Err(error) => {
                held.iter().for_each(|(partition, generation)| state.release_held(partition, *generation, None));
                Some(error)
            }
        });
        self.report_error(error);
    }

    fn report_error(&self, error: Option<Error>) {
        if let Some(error) = error {
            event!(
                WARN, self.shared.client.origin(), %error,
                "the rebalance listener failed: the reader gets the error, and the rebalance continues"
            );
            self.shared.buffer.with_state(|state| state.readers.push_error(error));
        }
    }

    /// Runs one call on a task of its own, so that a panic in it is contained.
    async fn call<T: Send + 'static>(
        &self,
        name: &str,
        call: impl Future<Output = (T, ListenerResult)> + Send + 'static,
    ) -> Result<T> {
        let bound = self.shared.settings.max_poll_interval;
        let failed = |what: String| Error::new(ErrorKind::Callback, format!("the rebalance listener's {name} {what}"));
        let mut task = JoinSet::new();
        task.spawn(call);
        // Dropping the set aborts a call that takes too long.
        match timeout(bound, task.join_next()).await {
            Ok(Some(Ok((value, Ok(()))))) => Ok(value),
            Ok(Some(Ok((_, Err(cause))))) => Err(failed(format!("failed: {cause}")).with_source(cause)),
            Ok(Some(Err(panic))) => Err(failed("panicked".to_owned()).with_source(panic)),
            Ok(None) => Err(failed("was not called".to_owned())),
            Err(_) => Err(failed(format!("took longer than {bound:?} (max.poll.interval.ms) and was dropped"))),
        }
    }
}
