//! A commit in the background, as its caller holds it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// A commit that goes on in the background, from
/// [`Consumer::commit_async`](crate::consumer::Consumer::commit_async). Await it for its result, or drop it:
/// it is carried out all the same.
///
/// # Errors
/// As [`Consumer::commit_offsets`](crate::consumer::Consumer::commit_offsets); `Closed` if the consumer ended
/// before.
#[derive(Debug)]
#[must_use = "a commit may fail: await it, or drop it if that does not matter"]
pub struct PendingCommit(oneshot::Receiver<Result<()>>);

/// The end that knows.
#[derive(Debug)]
pub(crate) struct CommitCompleter(oneshot::Sender<Result<()>>);

impl PendingCommit {
    pub(crate) fn new() -> (CommitCompleter, Self) {
        let (done, pending) = oneshot::channel();
        (CommitCompleter(done), Self(pending))
    }
}

impl CommitCompleter {
    /// Returns the error, if there is no caller any more that would see it.
    pub(crate) fn complete(self, result: Result<()>) -> Option<Error> {
        self.0.send(result).err().and_then(Result::err)
    }
}

impl Future for PendingCommit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = || Error::new(ErrorKind::Closed, "the consumer ended before it could commit");
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or_else(|_| Err(ended())))
    }
}
