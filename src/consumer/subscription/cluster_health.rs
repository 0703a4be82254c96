//! Failures of the cluster that last: brokers that cannot be reached, and partitions without a
//! leader. Each is reported to the reader once.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::subscription::{partitions::Partitions, wanted_topics::WantedTopics};
use crate::{
    error::{Error, ErrorKind},
    record::TopicPartition,
};

#[derive(Debug, Default)]
pub(crate) struct ClusterHealth {
    has_metadata: bool,
    /// True if the reader was told that no broker can be reached.
    unreachable_reported: bool,
    /// True if the reader was told that the bootstrap servers are not resolved in time.
    unresolved_reported: bool,
    /// Time since which the group is awaited without any metadata.
    without_metadata_since: Option<Instant>,
}

impl ClusterHealth {
    /// Records that metadata has arrived.
    pub(crate) fn metadata_arrived(&mut self) {
        (self.has_metadata, self.unreachable_reported, self.unresolved_reported) = (true, false, false);
    }

    /// Returns true if metadata has arrived.
    pub(crate) fn has_metadata(&self) -> bool {
        self.has_metadata
    }

    /// Returns the error to report about the cluster as a whole. `failure` is the error of the last
    /// metadata request; `subscribed` says that the consumer waits for a group's assignment, which
    /// needs the cluster as well.
    pub(crate) fn cluster_error(
        &mut self,
        failure: Option<&Error>,
        subscribed: bool,
        patience: Duration,
        now: Instant,
    ) -> Option<Error> {
        // The user's `bootstrap.resolve.timeout.ms` has already waited (KIP-909).
        let unresolved = failure.filter(|failure| failure.kind() == ErrorKind::Resolution && !self.has_metadata);
        let unresolved = unresolved.filter(|_| !std::mem::replace(&mut self.unresolved_reported, true));
        if unresolved.is_some() {
            self.unreachable_reported = true;
        }
        if self.has_metadata || !subscribed {
            self.without_metadata_since = None;
            return unresolved.cloned();
        }
        let since = *self.without_metadata_since.get_or_insert(now);
        let lasts = now.saturating_duration_since(since) >= patience;
        unresolved.cloned().or_else(|| failure.filter(|_| lasts).and_then(|failure| self.unreachable(failure)))
    }

    /// Returns the error about brokers that cannot be reached, once.
    fn unreachable(&mut self, failure: &Error) -> Option<Error> {
        (!std::mem::replace(&mut self.unreachable_reported, true)).then(|| failure.clone())
    }

    /// Returns the errors to report about partitions that have had no leader for `patience`, and
    /// before them the error about the cluster as a whole if that is the reason. Topics that are
    /// missing are reported as such, and not each of their partitions.
    pub(crate) fn leaderless(
        &mut self,
        partitions: &mut Partitions,
        wanted_topics: &WantedTopics,
        failure: Option<&Error>,
        patience: Duration,
        now: Instant,
    ) -> (Option<Error>, Vec<(TopicPartition, Error)>) {
        let (mut cluster, mut errors) = (None, Vec::new());
        for (partition, state) in partitions.iter_mut() {
            let lasts = state.leaderless_since.is_some_and(|since| now.saturating_duration_since(since) >= patience);
            if !lasts || state.reported || wanted_topics.is_absent(&partition.topic) {
                continue;
            }
            if !self.has_metadata {
                // Without a failure, the first metadata request is still outstanding: the partition
                // may exist.
                cluster = cluster.or(failure.and_then(|failure| self.unreachable(failure)));
                continue;
            }
            state.reported = true;
            let message = format!(
                "{partition} has had no leader for {} s, or does not exist; it is read as soon as it has one",
                patience.as_secs()
            );
            errors.push((partition.clone(), Error::new(ErrorKind::UnknownTopicOrPartition, message)));
        }
        (cluster, errors)
    }
}
