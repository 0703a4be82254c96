//! What the common reader waits for and is told, up to the end.
//!
//! Sans-IO.

use std::{task::Waker, time::Instant};

use crate::consumer::state::ConsumerState;
use crate::{
    error::{Error, ErrorKind},
    record::TopicPartition,
};

impl ConsumerState {
    /// An error for the reader.
    pub(crate) fn push_error(&mut self, error: Error) {
        self.errors.push_back(error);
        self.wake_reader();
        // Who waits for partitions hears of it too, and whoever comes first has it.
        self.signals.position_waiters = true;
    }

    pub(crate) fn pop_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    /// Nothing more is handed out; what was handed out can still be committed.
    pub(crate) fn close_reading(&mut self) {
        self.ended = true;
        for progress in self.partitions.values().filter_map(|state| state.progress.as_ref()) {
            progress.withhold();
        }
        self.wake_reader();
        self.wake_splits();
        self.signals.position_waiters = true;
    }

    /// The last error: after it there is nothing more to read.
    pub(crate) fn end(&mut self, error: Option<Error>) {
        if let Some(error) = &error {
            self.push_error_to_splits(error);
        }
        self.errors.extend(error);
        self.close_reading();
        for partition in self.assigned() {
            self.remove(&partition);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The reader waits for whatever comes.
    pub(crate) fn register_waker(&mut self, waker: &Waker) {
        match &mut self.reader {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        self.wake_starved();
    }

    /// Who has no room for a fetch gets it now, if nothing else helps a reader.
    pub(crate) fn wake_starved(&mut self) {
        let starved = self.connections.iter().filter(|(_, node)| node.quota.is_starved());
        self.signals.connections.extend(starved.map(|(id, _)| *id));
    }

    /// Whether the reader of all that is not split off waits right now for records: where there is
    /// nothing of it, it only listens.
    pub(crate) fn reader_waits(&self) -> bool {
        self.reader.is_some() && self.partitions.values().any(|state| state.split.is_none())
    }

    pub(crate) fn wake_reader(&mut self) {
        self.signals.reader = self.reader.take().or(self.signals.reader.take());
    }

    /// Tells the reader, once, what has been in the way for long: `failure` is why the last look at
    /// the cluster failed, `subscribed` whether a group is to give us partitions, which needs a
    /// cluster as well.
    pub(crate) fn report_persistent_failures(&mut self, failure: Option<Error>, subscribed: bool, now: Instant) {
        self.release_unused_quotas();
        let patience = self.rules.grace_period;
        let (mut errors, mut of_partitions) = (Vec::new(), Vec::new());
        // The user has said how long to wait (KIP-909).
        if let Some(failure) = failure.as_ref().filter(|failure| failure.kind() == ErrorKind::Resolution)
            && self.lacks_metadata()
            && !std::mem::replace(&mut self.unresolved_reported, true)
        {
            self.unreachable_reported = true;
            errors.push(failure.clone());
        }
        if !(subscribed && self.lacks_metadata()) {
            self.without_metadata_since = None;
        } else if now.saturating_duration_since(*self.without_metadata_since.get_or_insert(now)) >= patience
            && let Some(failure) = &failure
            && !std::mem::replace(&mut self.unreachable_reported, true)
        {
            errors.push(failure.clone());
        }
        for (partition, state) in &mut self.partitions {
            let long = state.leaderless_since.is_some_and(|since| now.saturating_duration_since(since) >= patience);
            // Of a topic that is not there, the topic is told and not each of its partitions.
            if !long || state.reported || self.wanted_topics.is_absent(&partition.topic) {
                continue;
            }
            match &failure {
                Some(failure) if !self.has_metadata => {
                    if !std::mem::replace(&mut self.unreachable_reported, true) {
                        errors.push(failure.clone());
                    }
                }
                // The first look is still under way: it is not the partition that is missing.
                None if !self.has_metadata => {}
                _ => {
                    state.reported = true;
                    of_partitions.push((partition.clone(), Error::new(
                        ErrorKind::UnknownTopicOrPartition,
                        format!(
                            "{partition} has had no leader for {} s, or does not exist; it is read as soon as it has one",
                            patience.as_secs()
                        ),
                    )));
                }
            }
        }
        for error in errors {
            self.push_error(error);
        }
        for (error, topics) in self.wanted_topics.report_missing(now) {
            let split = self
                .partitions
                .iter()
                .filter(|(partition, state)| state.split.is_some() && topics.contains(&partition.topic));
            let split: Vec<TopicPartition> = split.map(|(partition, _)| partition.clone()).collect();
            // Their readers hear of nothing else.
            split.iter().for_each(|partition| self.push_partition_error(partition, error.clone()));
            self.push_error(error);
        }
        for (partition, error) in of_partitions {
            self.push_partition_error(&partition, error);
        }
    }

    /// Whether nothing has been heard of the cluster yet.
    pub(crate) fn lacks_metadata(&self) -> bool {
        !self.has_metadata
    }

    /// Whether some partition has no leader that is known.
    pub(crate) fn lacks_leaders(&self) -> bool {
        self.partitions.values().any(|state| state.leader.is_none())
    }
}
