//! What each error means to a member, by the rules of Kafka's Java client.

use std::time::{Duration, Instant};

use super::{Action, Membership, State};
use crate::error::{Error, ErrorCode, ErrorKind, clean};

/// How long joining may fail before the reader is told: longer than a coordinator that moves is away.
const PATIENCE: Duration = Duration::from_secs(10);

impl Membership {
    /// JoinGroup or SyncGroup failed.
    pub(super) fn join_failed(&mut self, now: Instant, error: Error) {
        if error.is_fatal() {
            return self.end(error);
        }
        tracing::debug!(group = %self.settings.group_id, %error, "joining failed");
        self.doubtful = true;
        match error.code() {
            Some(ErrorCode::UNKNOWN_MEMBER_ID) => {
                self.lose(now, true, "the coordinator did not know the member");
                self.tell_trouble(now, error);
            }
            Some(ErrorCode::ILLEGAL_GENERATION) => {
                self.generation = -1;
                self.retry_because(now, "the generation was over");
                self.tell_trouble(now, error);
            }
            Some(ErrorCode::REBALANCE_IN_PROGRESS) => {
                self.retry_because(now, "the group rebalances again");
                self.tell_trouble(now, error);
            }
            _ if error.is_retriable() => {
                self.retry_later(now);
                self.tell_trouble(now, error);
            }
            _ => self.raise(now, error),
        }
    }

    /// What may pass is tried again without end; but a reader that gets nothing has to learn why, once.
    pub(super) fn tell_trouble(&mut self, now: Instant, error: Error) {
        let (since, told) = self.troubled_since.get_or_insert((now, false));
        let lasted = now.saturating_duration_since(*since);
        if lasted >= PATIENCE && !std::mem::replace(told, true) {
            let (group, secs) = (&self.settings.group_id, lasted.as_secs());
            let error = error.context(format_args!("group {group} cannot be joined since {secs} s and is still tried"));
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    /// The coordinator ended a generation of the member. One that ends all of them before it has answered a heartbeat is
    /// joined less and less often, and the reader is told once.
    pub(super) fn set_back(&mut self, now: Instant, error: &Error) {
        if self.setbacks.note(now, &mut self.rng) {
            let error = error.clone().context(self.setbacks.describe(&self.settings.group_id));
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    fn retry_because(&mut self, now: Instant, reason: &str) {
        reason.clone_into(&mut self.reason);
        self.retry_soon(now);
    }

    /// Takes the answer that says that we are no longer in the generation; false if it says something else.
    pub(super) fn expelled(&mut self, now: Instant, error: &Error) -> bool {
        match error.code() {
            _ if error.is_fatal() => self.end(error.clone()),
            // From OffsetCommit v9 on it says so where it knows nothing of the group.
            Some(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND) => {
                self.set_back(now, error);
                self.lose(now, true, "the coordinator did not know the member");
            }
            Some(ErrorCode::ILLEGAL_GENERATION) => {
                self.set_back(now, error);
                self.lose(now, false, "the generation was over");
            }
            _ => return false,
        }
        true
    }

    /// The partitions may be others' already: gives them up without asking, and joins anew. The member keeps its name
    /// unless the coordinator has forgotten it, so that no ghost of it stays behind.
    pub(super) fn lose(&mut self, now: Instant, forgotten: bool, reason: &str) {
        tracing::debug!(group = %self.settings.group_id, member = %clean(&self.member_id), reason, "out of the generation");
        let leaving = matches!(self.state, State::Revoking { then: super::Then::Leave, .. });
        self.tell_lost();
        let member_id = self.member_id.clone();
        self.reset();
        if !forgotten {
            self.member_id = member_id;
        }
        if leaving {
            return self.leave("the consumer unsubscribed");
        }
        self.retry_because(now, reason);
    }

    pub(super) fn poll_interval_passed(&mut self, now: Instant) {
        let interval = self.settings.max_poll_interval;
        let unsubscribed = self.topics.is_none();
        self.say_goodbye("the reader did not ask for records within max.poll.interval.ms");
        self.reset();
        self.tell_lost();
        if unsubscribed {
            self.state = State::Outside;
            return;
        }
        let message = format!(
            "group {}: the reader did not ask for records for {interval:?} (max.poll.interval.ms), so the consumer left \
             the group; it joins again when the reader asks next. Handle records faster, ask for fewer at a time \
             (max.poll.records), or raise max.poll.interval.ms",
            self.settings.group_id
        );
        "the reader asks for records again".clone_into(&mut self.reason);
        self.park(now, Error::new(ErrorKind::NotAssigned, message));
    }

    /// An error that trying again does not mend: the reader has it, and nothing is tried before the reader comes again.
    pub(super) fn raise(&mut self, now: Instant, error: Error) {
        self.tell_lost();
        self.generation = -1;
        let not_before = now + self.backoff.next(&mut self.rng);
        self.park(not_before, error);
    }

    fn park(&mut self, not_before: Instant, error: Error) {
        self.state = State::Parked { not_before };
        self.heartbeat.in_flight = None;
        // In this order: the reader may ask again as soon as it has the error.
        self.actions.push_back(Action::AwaitPoll);
        self.actions.push_back(Action::Error { error, fatal: false });
    }

    /// A heartbeat failed otherwise: the reader has to know where nothing but it can help, but not at every heartbeat.
    pub(super) fn complain(&mut self, error: Error) {
        if error.is_retriable() {
            tracing::debug!(group = %self.settings.group_id, %error, "heartbeat failed");
        } else if !self.heartbeat.complained {
            self.heartbeat.complained = true;
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    fn end(&mut self, error: Error) {
        self.tell_lost();
        self.reset();
        self.state = State::Ended(error.clone());
        self.actions.push_back(Action::Error { error, fatal: true });
    }

    pub(super) fn tell_lost(&mut self) {
        let partitions: Vec<_> = self.owned.keys().cloned().collect();
        self.owned = Default::default();
        self.parts_from_all = false;
        if !partitions.is_empty() {
            self.actions.push_back(Action::Lost { partitions });
        }
    }
}
