//! The common reader's waker, its errors, and the end of reading.
//!
//! Sans-IO.

use std::{task::Waker, time::Instant};

use crate::consumer::state::ConsumerState;
use crate::{
    error::{Error, ErrorKind},
    record::TopicPartition,
};

impl ConsumerState {
    /// Queues an error for the reader.
    pub(crate) fn push_error(&mut self, error: Error) {
        self.errors.push_back(error);
        self.wake_reader();
        // Also wakes callers of `next_partition`; the first to poll receives the error.
        self.signals.position_waiters = true;
    }

    pub(crate) fn pop_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    /// Stops the delivery of records; delivered records can still be committed.
    pub(crate) fn close_reading(&mut self) {
        self.ended = true;
        for progress in self.partitions.values().filter_map(|state| state.progress.as_ref()) {
            progress.withhold();
        }
        self.wake_reader();
        self.wake_splits();
        self.signals.position_waiters = true;
    }

    /// Queues the last error and ends the reading.
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

    /// Registers the waker of a reader that waits for records.
    pub(crate) fn register_waker(&mut self, waker: &Waker) {
        match &mut self.reader {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        self.wake_starved();
    }

    /// Lets connections without room for a fetch plan again: one of them may exceed its share if
    /// the reader has nothing else.
    pub(crate) fn wake_starved(&mut self) {
        let starved = self.connections.iter().filter(|(_, node)| node.quota.is_starved());
        self.signals.connections.extend(starved.map(|(id, _)| *id));
    }

    /// Returns true if the common reader waits for records now. If all partitions have streams of
    /// their own, it only waits for errors.
    pub(crate) fn reader_waits(&self) -> bool {
        self.reader.is_some() && self.partitions.values().any(|state| state.split.is_none())
    }

    pub(crate) fn wake_reader(&mut self) {
        self.signals.reader = self.reader.take().or(self.signals.reader.take());
    }

    /// Reports conditions that have lasted for long to the reader, once each. `failure` is the
    /// error of the last metadata request; `subscribed` says that the consumer waits for a group's
    /// assignment, which needs the cluster as well.
    pub(crate) fn report_persistent_failures(&mut self, failure: Option<Error>, subscribed: bool, now: Instant) {
        self.release_unused_quotas();
        let patience = self.rules.grace_period;
        let (mut errors, mut of_partitions) = (Vec::new(), Vec::new());
        // The user's `bootstrap.resolve.timeout.ms` has already waited (KIP-909).
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
            // If a topic is missing, the topic is reported and not each of its partitions.
            if !long || state.reported || self.wanted_topics.is_absent(&partition.topic) {
                continue;
            }
            match &failure {
                Some(failure) if !self.has_metadata => {
                    if !std::mem::replace(&mut self.unreachable_reported, true) {
                        errors.push(failure.clone());
                    }
                }
                // The first metadata request is still outstanding: the partition may exist.
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
            // The readers of these partitions receive no other error.
            split.iter().for_each(|partition| self.push_partition_error(partition, error.clone()));
            self.push_error(error);
        }
        for (partition, error) in of_partitions {
            self.push_partition_error(&partition, error);
        }
    }

    /// Returns true if no metadata has arrived yet.
    pub(crate) fn lacks_metadata(&self) -> bool {
        !self.has_metadata
    }

    /// Returns true if some partition has no known leader.
    pub(crate) fn lacks_leaders(&self) -> bool {
        self.partitions.values().any(|state| state.leader.is_none())
    }
}
