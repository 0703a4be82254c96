use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};

/// One attempt that several callers wait for. A task of its own carries it out, so that it
/// continues when the callers give up.
#[derive(Clone, Debug)]
pub(super) struct SingleFlight<T>(watch::Receiver<Option<Result<T>>>);

/// The side that carries out the attempt. If it is dropped without a result (its runtime is gone,
/// or the client closed), the callers get `Closed`.
#[derive(Debug)]
pub(super) struct Promise<T>(watch::Sender<Option<Result<T>>>);

impl<T: Clone> SingleFlight<T> {
    pub(super) fn new() -> (Promise<T>, Self) {
        let (sender, receiver) = watch::channel(None);
        (Promise(sender), Self(receiver))
    }

    /// Waits for the result.
    pub(super) async fn wait(mut self) -> Result<T> {
        let done = self.0.wait_for(Option::is_some).await.ok().and_then(|result| result.clone());
        done.unwrap_or_else(|| Err(closed()))
    }

    /// Returns true if there is a result, or will never be one.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }
}

impl<T> Promise<T> {
    pub(super) fn complete(self, result: Result<T>) {
        self.0.send_replace(Some(result));
    }
}

/// Returns the error of calls that outlive the client or its runtime.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this client was closed, or the runtime that it was made on was shut down")
}
