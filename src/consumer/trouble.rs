//! What the common reader waits for and is told, up to the end. Decides; does no IO.

use std::{task::Waker, time::Instant};

use super::assignment::Assignment;
use crate::{
    error::{Error, ErrorKind},
    record::TopicPartition,
};

impl Assignment {
    /// An error for the reader.
    pub(super) fn push_error(&mut self, error: Error) {
        self.errors.push_back(error);
        self.wake_reader();
        // Who waits for partitions hears of it too, and whoever comes first has it.
        self.signals.moved = true;
    }

    pub(super) fn pop_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    /// Nothing more is handed out; what was handed out can still be committed.
    pub(super) fn close_reading(&mut self) {
        self.ended = true;
        for lease in self.partitions.values().filter_map(|found| found.lease.as_ref()) {
            lease.withhold();
        }
        self.wake_reader();
        self.wake_splits();
        self.signals.moved = true;
    }

    /// The last error: after it there is nothing more to read.
    pub(super) fn end(&mut self, error: Option<Error>) {
        if let Some(error) = &error {
            self.tell_splits(error);
        }
        self.errors.extend(error);
        self.close_reading();
        for partition in self.assigned() {
            self.remove(&partition);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The reader waits for whatever comes.
    pub(super) fn wait(&mut self, waker: &Waker) {
        match &mut self.reader {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        self.wake_starved();
    }

    /// Who has no room for a fetch gets it now, if nothing else helps a reader.
    pub(super) fn wake_starved(&mut self) {
        let starved = self.nodes.iter().filter(|(_, node)| node.account.is_starved());
        self.signals.nodes.extend(starved.map(|(id, _)| *id));
    }

    /// Whether the reader of all that is not split off waits right now for records: where there is
    /// nothing of it, it only listens.
    pub(super) fn reader_waits(&self) -> bool {
        self.reader.is_some() && self.partitions.values().any(|found| found.split.is_none())
    }

    pub(super) fn wake_reader(&mut self) {
        self.signals.reader = self.reader.take().or(self.signals.reader.take());
    }

    /// Tells the reader, once, what has been in the way for long: `failure` is why the last look at
    /// the cluster failed, `subscribed` whether a group is to give us partitions, which needs a
    /// cluster as well.
    pub(super) fn check_trouble(&mut self, failure: Option<Error>, subscribed: bool, now: Instant) {
        self.settle_accounts();
        let patience = self.rules.patience;
        let (mut errors, mut of_partitions) = (Vec::new(), Vec::new());
        // The user has said how long to wait (KIP-909).
        if let Some(failure) = failure.as_ref().filter(|failure| failure.kind() == ErrorKind::Resolution)
            && self.is_blind()
            && !std::mem::replace(&mut self.unresolved_reported, true)
        {
            self.unreachable_reported = true;
            errors.push(failure.clone());
        }
        if !(subscribed && self.is_blind()) {
            self.blind_since = None;
        } else if now.saturating_duration_since(*self.blind_since.get_or_insert(now)) >= patience
            && let Some(failure) = &failure
            && !std::mem::replace(&mut self.unreachable_reported, true)
        {
            errors.push(failure.clone());
        }
        for (partition, found) in &mut self.partitions {
            let long = found.leaderless_since.is_some_and(|since| now.saturating_duration_since(since) >= patience);
            // Of a topic that is not there, the topic is told and not each of its partitions.
            if !long || found.reported || self.topics.is_absent(&partition.topic) {
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
                    found.reported = true;
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
        for (error, topics) in self.topics.tell(now) {
            let split = self
                .partitions
                .iter()
                .filter(|(partition, found)| found.split.is_some() && topics.contains(&partition.topic));
            let split: Vec<TopicPartition> = split.map(|(partition, _)| partition.clone()).collect();
            // Their readers hear of nothing else.
            split.iter().for_each(|partition| self.tell(partition, error.clone()));
            self.push_error(error);
        }
        for (partition, error) in of_partitions {
            self.tell(&partition, error);
        }
    }

    /// Whether nothing has been heard of the cluster yet.
    pub(super) fn is_blind(&self) -> bool {
        !self.has_metadata
    }

    /// Whether some partition has no leader that is known.
    pub(super) fn lacks_leaders(&self) -> bool {
        self.partitions.values().any(|found| found.leader.is_none())
    }
}
