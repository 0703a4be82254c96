use std::sync::{Mutex, PoisonError};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::{Instant, timeout_at};

use super::{TopicResults, rounds::Rounds};
use crate::{
    cluster::{Backoff, Client, ConnectionKind, Route},
    error::{Error, ErrorCode, ErrorKind},
    wire::protocol::Request,
};

/// The attempts of one round. An attempt that another one replaces before its response arrived
/// counts as lost.
#[derive(Debug, Default)]
struct Attempts {
    waiting: bool,
    lost: bool,
}

impl Attempts {
    fn sent(&mut self) {
        self.lost |= self.waiting;
        self.waiting = true;
    }

    fn answered(&mut self) {
        self.waiting = false;
    }
}

/// Sends the open topics to the controller, again and again until all have a result or the deadline
/// passes.
///
/// `build` makes the request for the open topics, `codes` returns the error codes of a response,
/// and `read` passes its results to the rounds.
pub(super) async fn repeat<R: Request, T: Send + Sync>(
    client: &Client,
    deadline: Instant,
    mut rounds: Rounds<T>,
    build: impl Fn(&Rounds<T>, i16) -> R + Send + Sync,
    codes: impl Fn(&R::Response) -> Vec<ErrorCode> + Send + Sync,
    read: impl Fn(&mut Rounds<T>, R::Response),
) -> TopicResults<T> {
    let settings = client.settings();
    let mut backoff = Backoff::new(settings.retry_backoff, settings.retry_backoff_max);
    let mut rng = settings.seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64);
    while !rounds.is_done() {
        let attempts = Mutex::new(Attempts::default());
        let note = |event: fn(&mut Attempts)| event(&mut attempts.lock().unwrap_or_else(PoisonError::into_inner));
        let answer = client
            .call(
                Route::Controller,
                ConnectionKind::Main,
                deadline,
                |version| {
                    note(Attempts::sent);
                    build(&rounds, version)
                },
                |response| {
                    note(Attempts::answered);
                    common(&codes(response))
                },
            )
            .await;
        let attempts = attempts.into_inner().unwrap_or_else(PoisonError::into_inner);
        if attempts.lost || attempts.waiting {
            rounds.lost();
        }
        match answer {
            Ok(response) => {
                read(&mut rounds, response);
                rounds.end_of_answer();
            }
            Err(error) => rounds.give_up(&error),
        }
        if !rounds.is_done() {
            let pause = tokio::time::sleep(backoff.next(&mut rng));
            if timeout_at(deadline, pause).await.is_err() {
                rounds.give_up(&Error::new(ErrorKind::Timeout, "the deadline passed"));
            }
        }
    }
    rounds.into_results()
}

/// Returns the code by which the request path treats the whole response: `NOT_CONTROLLER` if all
/// topics have it, because then nothing was done and another broker has to be asked. If the topics
/// differ, each is judged on its own.
fn common(codes: &[ErrorCode]) -> ErrorCode {
    let first = codes.first().copied().unwrap_or(ErrorCode::NONE);
    let whole = first == ErrorCode::NOT_CONTROLLER && codes.iter().all(|code| *code == first);
    if whole { first } else { ErrorCode::NONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_attempt_counts_as_lost_when_resent() {
        let mut attempts = Attempts::default();
        attempts.sent();
        attempts.answered();
        attempts.sent();
        assert!(!attempts.lost && attempts.waiting);
        attempts.sent();
        attempts.answered();
        assert!(attempts.lost && !attempts.waiting);
    }

    #[test]
    fn retries_request_only_if_all_not_controller() {
        use ErrorCode as Code;
        assert_eq!(common(&[Code::NOT_CONTROLLER, Code::NOT_CONTROLLER]), Code::NOT_CONTROLLER);
        assert_eq!(common(&[Code::NOT_CONTROLLER, Code::NONE]), Code::NONE);
        assert_eq!(common(&[Code::REQUEST_TIMED_OUT]), Code::NONE);
        assert_eq!(common(&[]), Code::NONE);
    }
}
