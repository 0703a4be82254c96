//! The actions of a membership for its task, the same in both group protocols.
//!
//! Sans-IO.

use std::collections::VecDeque;

use crate::{error::Error, record::TopicPartition};

/// Identifies an attempt at a request or a revocation: a response to any other than the awaited one
/// is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId(pub(super) u64);

/// An action of the task. `R` is a request of the protocol, `L` its way of leaving the group.
#[derive(Debug)]
pub(crate) enum Action<R, L> {
    /// Send this request, and pass its response to the membership.
    Send { attempt: AttemptId, request: R },
    /// Leave the group; `leave_ended` reports that it was answered, or will not be retried.
    Leave(L),
    /// Do nothing until the reader polls again, which `polled` reports.
    AwaitPoll,
    /// Tell the consumer that it owns these partitions now, besides those that it keeps.
    Assigned { partitions: Vec<TopicPartition> },
    /// Tell the consumer to give these up, answered by `revoked`.
    Revoke { attempt: AttemptId, partitions: Vec<TopicPartition> },
    /// Tell the consumer that these are lost.
    Lost { partitions: Vec<TopicPartition> },
    /// Report an error to the reader.
    Error { error: Error, fatal: bool },
}

/// The actions that the task has not carried out yet, in their order.
pub(super) struct ActionQueue<R, L> {
    actions: VecDeque<Action<R, L>>,
    last_attempt: u64,
}

impl<R, L> ActionQueue<R, L> {
    pub(super) fn new() -> Self {
        Self { actions: VecDeque::new(), last_attempt: 0 }
    }

    /// Returns the next action, or `None` if there is none.
    pub(super) fn next(&mut self) -> Option<Action<R, L>> {
        self.actions.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.actions.clear();
    }

    pub(super) fn push(&mut self, action: Action<R, L>) {
        self.actions.push_back(action);
    }

    pub(super) fn send(&mut self, request: R) -> AttemptId {
        let attempt = self.new_attempt();
        self.push(Action::Send { attempt, request });
        attempt
    }

    pub(super) fn revoke(&mut self, partitions: Vec<TopicPartition>) -> AttemptId {
        let attempt = self.new_attempt();
        self.push(Action::Revoke { attempt, partitions });
        attempt
    }

    /// Reports an error after which the member goes on.
    pub(super) fn report(&mut self, error: Error) {
        self.push(Action::Error { error, fatal: false });
    }

    /// Reports an error after which the member waits for the reader's next poll.
    pub(super) fn report_and_await_poll(&mut self, error: Error) {
        // In this order, because the reader may poll again as soon as it has the error.
        self.push(Action::AwaitPoll);
        self.report(error);
    }

    fn new_attempt(&mut self) -> AttemptId {
        self.last_attempt += 1;
        AttemptId(self.last_attempt)
    }
}
