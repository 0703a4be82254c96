use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};

/// One piece of work that any number of callers wait for. It is done by a task of its own, so that
/// it goes on when they give up.
#[derive(Clone, Debug)]
pub(super) struct SingleFlight<T>(watch::Receiver<Option<Result<T>>>);

/// The end that does the work. Dropped without a result (its runtime is gone, or the client
/// closed), it tells the callers.
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

    /// Whether there is a result, or will never be one.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }
}

impl<T> Promise<T> {
    pub(super) fn complete(self, result: Result<T>) {
        self.0.send_replace(Some(result));
    }
}

/// What calls end with when the client, or the runtime that it was made on, is gone.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this client was closed, or the runtime that it was made on was shut down")
}
