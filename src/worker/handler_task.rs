//! A handler task: runs handlers one after the other.

use std::{sync::Arc, time::Duration};

use tokio::{task::coop::consume_budget, time::timeout};

use crate::worker::{
    attempt::{self, Cancel, Ended},
    dead_letter::DeadLetters,
    exactly_once::outputs::{Outputs, OutputsSlot},
    failure::{Cause, failed},
    handler::Work,
    schedule::{HandlerId, Job, Outcome, Task, Verdict},
    shared_schedule::SharedSchedule,
};
use crate::{
    error::{Error, ErrorKind},
    log::event,
};

/// State that every handler task needs.
pub(super) struct HandlerContext<W> {
    pub(super) schedule: Arc<SharedSchedule>,
    pub(super) handler: W,
    /// Timeout of one attempt.
    pub(super) timeout: Option<Duration>,
    pub(super) dead_letters: Option<DeadLetters>,
    /// Set if records are handled exactly once.
    pub(super) outputs: Option<Arc<OutputsSlot>>,
}

/// Runs until it is aborted.
pub(super) async fn run<W: Work>(context: Arc<HandlerContext<W>>, lane: HandlerId) {
    let cancel = context.schedule.cancel_of(lane);
    let mut next = None;
    loop {
        // A handler that never waits still yields to other tasks.
        consume_budget().await;
        let job = match next.take() {
            Some(job) => job,
            None => context.schedule.next_job(lane, &cancel).await,
        };
        let outcome = context.attempt(&job, &cancel).await;
        next = context.finish(lane, job, outcome, &cancel);
    }
}

impl<W: Work> HandlerContext<W> {
    async fn attempt(&self, job: &Job, cancel: &Cancel) -> Outcome {
        let outputs = self.outputs.as_ref().and_then(|slot| slot.begin_attempt());
        let outcome = self.run_task(job, cancel, outputs.as_ref().map(|attempt| &attempt.outputs)).await;
        let is_innocent = outputs.is_some_and(|attempt| attempt.is_innocent());
        match outcome {
            // The transaction fails, for a reason that is not in the job's records.
            Outcome::Failed { .. } | Outcome::BuryingFailed(_) if is_innocent => Outcome::Refused,
            outcome => outcome,
        }
    }

    async fn run_task(&self, job: &Job, cancel: &Cancel, outputs: Option<&Outputs>) -> Outcome {
        match &job.task {
            Task::Handle => self.handle(job, cancel, outputs).await,
            Task::Skip => Outcome::Skipped,
            Task::DeadLetter(error) => match &self.dead_letters {
                Some(letters) => {
                    match attempt::run(letters.send(job.load.records(), error, job.attempt, outputs), cancel).await {
                        Ended::With(Ok(())) => Outcome::Buried,
                        Ended::With(Err(error)) => Outcome::BuryingFailed(error),
                        Ended::Cancelled => Outcome::Cancelled,
                        Ended::Panicked(said) => {
                            let message = format!("a dead letter could not be sent: {said}");
                            Outcome::BuryingFailed(Error::new(ErrorKind::Internal, message))
                        }
                    }
                }
                None => Outcome::BuryingFailed(error.clone()),
            },
        }
    }

    async fn handle(&self, job: &Job, cancel: &Cancel, outputs: Option<&Outputs>) -> Outcome {
        let failed = |cause| failed(job.load.records(), job.attempt, cause);
        // Called inside of the future, so that a panic while the handler's future is created is
        // caught as well.
        let handling = async { self.handler.work(&job.load, outputs).await };
        let ended = match self.timeout {
            None => attempt::run(handling, cancel).await,
            Some(after) => match attempt::run(timeout(after, handling), cancel).await {
                Ended::With(Ok(result)) => Ended::With(result),
                Ended::With(Err(_)) => {
                    self.schedule.with(|schedule| schedule.count_timeout());
                    return failed(Cause::Timeout(after));
                }
                Ended::Panicked(said) => Ended::Panicked(said),
                Ended::Cancelled => Ended::Cancelled,
            },
        };
        match ended {
            Ended::With(Ok(())) => Outcome::Handled,
            Ended::With(Err(error)) => failed(Cause::Error(error)),
            Ended::Cancelled => Outcome::Cancelled,
            Ended::Panicked(said) => {
                self.schedule.with(|schedule| schedule.count_panic());
                failed(Cause::Panic(said))
            }
        }
    }

    /// Reports the outcome to the schedule, and logs it unless it was a success.
    fn finish(&self, lane: HandlerId, job: Job, outcome: Outcome, cancel: &Cancel) -> Option<Job> {
        let error = match &outcome {
            Outcome::Handled | Outcome::Buried | Outcome::Skipped => {
                return self.schedule.finished(lane, job, outcome, cancel).1;
            }
            Outcome::Failed { error, .. } => Some(error.clone()),
            Outcome::BuryingFailed(error) => {
                self.schedule.record_error(error.clone());
                Some(error.clone())
            }
            Outcome::Cancelled | Outcome::Refused => None,
        };
        let first = job.load.records().first().cloned();
        let (verdict, next) = self.schedule.finished(lane, job, outcome, cancel);
        let (topic, partition, offset) = match &first {
            Some(record) => (&*record.topic, record.partition, record.offset),
            None => ("", -1, -1),
        };
        let kind = match verdict {
            Verdict::Done | Verdict::Undone => return next,
            Verdict::Again(_) => "again",
            Verdict::ToTheDeadLetters => "dead letters",
            Verdict::Skipped => "skipped",
            Verdict::Stopped => "stopped",
            Verdict::Abandoned => "abandoned",
        };
        let Some(suppressed) = self.schedule.admit_line(kind, error.as_ref()) else { return next };
        let (origin, error) = (&self.schedule.origin, error.as_ref().map(tracing::field::display));
        match verdict {
            Verdict::Done | Verdict::Undone => {}
            Verdict::Again(after) => {
                event!(
                    WARN,
                    origin,
                    topic,
                    partition,
                    offset,
                    error,
                    ?after,
                    suppressed,
                    "a handler or the delivery to the dead letter topic failed: the record is tried again"
                );
            }
            Verdict::ToTheDeadLetters => {
                event!(
                    WARN,
                    origin,
                    topic,
                    partition,
                    offset,
                    error,
                    suppressed,
                    "the last attempt at a record failed: it is sent to the dead letter topic"
                );
            }
            Verdict::Skipped => {
                event!(
                    ERROR,
                    origin,
                    topic,
                    partition,
                    offset,
                    error,
                    suppressed,
                    "the last attempt at a record failed: it is skipped (skip_failed)"
                );
            }
            Verdict::Stopped => {
                event!(
                    ERROR,
                    origin,
                    topic,
                    partition,
                    offset,
                    error,
                    "the worker ends, because a record could not be handled or sent to the dead letter topic; \
                     WorkerBuilder::dead_letter or skip_failed let it go on"
                );
            }
            Verdict::Abandoned => {
                event!(
                    INFO,
                    origin,
                    topic,
                    partition,
                    offset,
                    error,
                    suppressed,
                    "a record was not finished before its partition was given up: the next owner handles it again"
                );
            }
        }
        next
    }
}
