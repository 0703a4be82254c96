//! The state towards the brokers: metadata, the fetches and offset requests to send, and their
//! responses.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::consumer::{
    buffer::fetched_batch::is_heavy,
    fetch::{
        batch_scan::ScannedEntry,
        connection_id::FetchConnectionId,
        fetch_size::Bottleneck,
        memory_budget::Reservation,
        partition_response::PartitionResponse,
        plan::FetchPlan,
        planner::{FetchPlanner, largest_response},
        scanned::{MetadataHints, ScannedPartition},
        session::SessionOutcome,
    },
    group::CommittedOffsets,
    state::ConsumerState,
    subscription::{
        fetch_position::{FetchState, ResetTarget},
        offset_query::{OffsetQuery, OffsetRequest},
        offset_resolution,
        partition_context::PartitionContext,
        partition_state::PartitionState,
        reset_backoff::HUMAN,
    },
};
use crate::{
    cluster::Metadata,
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
    log::{event, several},
    record::TopicPartition,
};

impl ConsumerState {
    // ---- metadata

    /// Applies new metadata to all assigned partitions.
    pub(crate) fn metadata_changed(&mut self, metadata: &Metadata, now: Instant) {
        self.health.metadata_arrived();
        self.connections.set_brokers(metadata);
        for partition in self.partitions.names() {
            self.update_from_metadata(&partition, metadata, now);
        }
        self.update_wanted_topics(metadata, now);
        self.connections.release_unused_quotas();
    }

    /// Updates one partition from the metadata.
    pub(crate) fn update_from_metadata(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) {
        if let Some(mut partition) = self.partition(partition) {
            partition.update_from_metadata(metadata, now);
        }
    }

    /// Updates the state of the topics that the consumer asks for.
    pub(crate) fn update_wanted_topics(&mut self, metadata: &Metadata, now: Instant) {
        let assigned = self.partitions.iter().map(|(partition, _)| partition.topic.clone()).collect();
        self.wanted_topics.update(metadata, assigned, now);
    }

    /// Returns true if some partition has no known leader.
    pub(crate) fn lacks_leaders(&self) -> bool {
        self.partitions.states().any(|state| state.leader.is_none())
    }

    /// Reports conditions that have lasted for long to the reader, once each. `failure` is the
    /// error of the last metadata request; `subscribed` says that the consumer waits for a group's
    /// assignment, which needs the cluster as well.
    pub(crate) fn report_persistent_failures(&mut self, failure: Option<Error>, subscribed: bool, now: Instant) {
        let (failure, patience) = (failure.as_ref(), self.rules.grace_period);
        let Self { partitions, connections, readers, health, wanted_topics, .. } = self;
        connections.release_unused_quotas();
        let cluster = health.cluster_error(failure, subscribed, patience, now);
        let (unreachable, leaderless) = health.leaderless(partitions, wanted_topics, failure, patience, now);
        cluster.into_iter().chain(unreachable).for_each(|error| readers.push_error(error));
        for (error, topics) in wanted_topics.report_missing(now) {
            // The readers of split-off partitions receive no other error.
            for (partition, _) in partitions.iter().filter(|(partition, _)| topics.contains(&partition.topic)) {
                if readers.is_split(partition) {
                    readers.push_partition_error(partition, error.clone());
                }
            }
            readers.push_error(error);
        }
        for (partition, error) in leaderless {
            readers.push_partition_error(&partition, error);
        }
    }

    // ---- fetches

    /// Returns the next fetch from a broker, over one of the connections to it.
    pub(crate) fn plan_fetch(&mut self, from: impl Into<FetchConnectionId>, now: Instant) -> FetchPlan {
        let id = from.into();
        let plan = self.planner().plan(id, now);
        if matches!(plan, FetchPlan::End) {
            self.stats.brokers.remove(&id);
        }
        plan
    }

    /// Returns the planner of fetches.
    pub(crate) fn planner(&mut self) -> FetchPlanner<'_> {
        let has_metadata = self.health.has_metadata();
        let Self { rules, partitions, connections, delivery, readers, .. } = self;
        FetchPlanner { rules, partitions, connections, delivery, readers, has_metadata }
    }

    /// Handles a fetch response; returns the changes that it implies for the metadata.
    pub(crate) fn handle_fetch_response(
        &mut self,
        from: impl Into<FetchConnectionId>,
        session_id: i32,
        error: ErrorCode,
        arrived: Vec<ScannedPartition>,
        reservation: Reservation,
        now: Instant,
    ) -> MetadataHints {
        let id = from.into();
        let mut hints = MetadataHints::default();
        let in_flight_on_siblings = self.connections.in_flight_on_siblings(id);
        self.connections.wake_siblings(id);
        let Some(connection) = self.connections.get_mut(&id) else { return hints };
        connection.in_flight = 0;
        match connection.session.handle_response(session_id, error) {
            SessionOutcome::Valid => {
                connection.retries.reset();
                connection.reported = false;
            }
            SessionOutcome::Renewed => return hints,
            SessionOutcome::Failed(code) => {
                hints.refresh = code.remedy() == Remedy::RefreshMetadata;
                self.handle_session_error(id, code, now);
                return hints;
            }
        }
        self.delay_after_empty_response(id, &arrived, now);
        let bottleneck = self.measure_response(id, &arrived, &reservation, in_flight_on_siblings, now);
        let reservation = Arc::new(reservation);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.last_response = Arc::downgrade(&reservation);
        }
        for arrived in arrived {
            self.handle_partition_response(id, arrived, &reservation, &mut hints, now);
        }
        if session_id == 0 {
            self.connections.record_refused_session(id, &mut self.partitions, now);
        }
        self.connections.record_bottleneck(id, bottleneck, &mut self.partitions, now);
        self.delivery.start_decompressions(&mut self.partitions, &self.readers);
        hints
    }

    /// Handles an error for the whole of a fetch.
    fn handle_session_error(&mut self, id: FetchConnectionId, code: ErrorCode, now: Instant) {
        let broker = id.broker;
        event!(DEBUG, self.rules.origin, node = broker, %code, "the broker answered a fetch with an error");
        if id.connection > 0 {
            return self.connections.keep(broker, id.connection, &mut self.partitions);
        }
        let passes = code.is_retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR;
        self.retry_connection_later(id, passes, Error::broker(code, format_args!("fetch from broker {broker}")), now);
    }

    /// Delays the next fetch if the broker does not wait for records as requested.
    fn delay_after_empty_response(&mut self, id: FetchConnectionId, arrived: &[ScannedPartition], now: Instant) {
        let is_empty = arrived.iter().all(ScannedPartition::is_empty);
        let max_wait = if self.rules.min_bytes > 0 { self.rules.max_wait } else { Duration::ZERO };
        if let Some(connection) = self.connections.get_mut(&id)
            && let Some(attempts) = connection.empty_responses.record_response(is_empty, max_wait, now)
        {
            connection.not_before = Some(now + connection.retries.after(attempts, &mut self.retries.rng));
        }
    }

    /// Adapts the fetch size and the expected batch size to a response; returns the bottleneck that
    /// it shows.
    fn measure_response(
        &mut self,
        id: FetchConnectionId,
        arrived: &[ScannedPartition],
        reservation: &Reservation,
        in_flight_on_siblings: usize,
        now: Instant,
    ) -> Bottleneck {
        let open = self.connections.open_to(id.broker);
        let any_reader_waits = self.readers.common_waits(self.partitions.len()) || self.readers.any_split_waits();
        let max_bytes = usize::try_from(self.rules.max_bytes).unwrap_or(0);
        let Some(connection) = self.connections.get_mut(&id) else { return Bottleneck::Other };
        let unread = connection.quota.used().saturating_sub(reservation.bytes()).saturating_sub(in_flight_on_siblings);
        // With several connections responses arrive in parallel, so data that other connections
        // have just delivered does not show a slow reader.
        let is_behind =
            connection.last_response.strong_count() > 0 || unread > reservation.bytes().saturating_mul(open.into());
        let unread = match open {
            1 => unread,
            _ if is_behind => usize::MAX,
            _ => 0,
        };
        let most = largest_response(&connection.quota).min(max_bytes);
        let bottleneck = connection.fetch_size.record_response(reservation.bytes(), unread, most, now);
        let largest = arrived.iter().map(|arrived| arrived.scan.largest_batch).max().unwrap_or(0);
        if largest > 0 {
            let mut entries = arrived.iter().flat_map(|arrived| &arrived.scan.entries);
            let decompresses = entries.any(|entry| matches!(entry, ScannedEntry::Batch(batch) if is_heavy(batch)));
            connection.largest_batch = largest.max(connection.largest_batch / 8 * 7);
            connection.quota.set_decompresses(decompresses);
        }
        match bottleneck {
            Bottleneck::Connection if open == 1 && !any_reader_waits => Bottleneck::Other,
            bottleneck => bottleneck,
        }
    }

    /// Handles one partition's part of a fetch response, unless it belongs to an earlier
    /// positioning.
    fn handle_partition_response(
        &mut self,
        id: FetchConnectionId,
        ScannedPartition { head, scan }: ScannedPartition,
        reservation: &Arc<Reservation>,
        hints: &mut MetadataHints,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get(&id) else { return };
        let topic = if head.topic.is_empty() { connection.session.name(&head.topic_id) } else { Some(&head.topic) };
        let Some(topic) = topic else { return };
        let name = TopicPartition { topic: topic.clone(), partition: head.partition };
        let Some(spec) = connection.session.requested(&name) else { return };
        let (asked_from, leader_epoch) = (spec.partition.fetch_offset, spec.partition.current_leader_epoch);
        let seek_epoch = spec.seek_epoch;
        let grown = if self.rules.partition_grows {
            connection.fetch_size.bytes().min(largest_response(&connection.quota))
        } else {
            0
        };
        let largest_fetch = i32::try_from(grown).unwrap_or(i32::MAX).min(self.rules.max_bytes);
        let Some(state) = self.partitions.get_mut(&name) else { return };
        // Discards the data if the partition was sought or moved meanwhile, or was already read
        // through another broker.
        let is_current = state.position.seek_epoch() == seek_epoch
            && matches!(state.position.state(), FetchState::Fetching { offset, .. } if offset == asked_from)
            // Data from an older leader may be missing in the log of the newer leader that answered
            // meanwhile.
            && leader_epoch >= state.validated_epoch;
        // Errors of a broker that the partition moved away from are ignored; its data is used.
        let has_moved = state.connection_id() != Some(id);
        if !is_current || (has_moved && (!head.error.is_ok() || scan.entries.is_empty())) {
            return;
        }
        if !scan.entries.is_empty() {
            state.validated_under(leader_epoch);
        }
        state.offsets.record_response(&name, &head, &scan, &mut self.stats.sums);
        if let Some((leader, epoch)) = head.current_leader.filter(|(leader, epoch)| *leader >= 0 && *epoch >= 0) {
            hints.leaders.push((name.clone(), leader, epoch));
        }
        if let Some(mut partition) = self.partition(&name) {
            let response = PartitionResponse { id, asked_from, head, reservation, largest_fetch, now };
            hints.refresh |= response.handle(&mut partition, scan);
        }
    }

    /// Handles a fetch without a response.
    pub(crate) fn handle_fetch_failure(&mut self, from: impl Into<FetchConnectionId>, error: &Error, now: Instant) {
        let id = from.into();
        let broker = id.broker;
        self.connections.wake_siblings(id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        event!(DEBUG, self.rules.origin, node = broker, connection = id.connection, %error, "a fetch failed");
        connection.in_flight = 0;
        connection.session.handle_failure();
        if id.connection > 0 {
            return self.connections.record_failure(id, error, &mut self.partitions, now);
        }
        let passes = error.is_retriable() || error.kind() == ErrorKind::Protocol;
        let reported = error.clone().context(format_args!("fetch from broker {broker}"));
        self.retry_connection_later(id, passes, reported, now);
        // A replica that does not answer is abandoned, even if the leader still recommends it.
        let is_replica = |state: &PartitionState| {
            state.preferred_replica.node() == Some(broker) && state.connection_id() == Some(id)
        };
        for partition in self.partitions.names_where(is_replica) {
            if let Some(mut partition) = self.partition(&partition) {
                partition.leave_preferred_replica(true, now);
            }
        }
    }

    /// Delays the next fetch from a broker: briefly if the error may pass, otherwise by `HUMAN`,
    /// and then the error is reported to the reader.
    fn retry_connection_later(&mut self, id: FetchConnectionId, passes: bool, error: Error, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let wait = self.retries.wait(&mut connection.retries);
        connection.not_before = Some(now + if passes { wait } else { HUMAN });
        if !passes && !std::mem::replace(&mut connection.reported, true) {
            self.readers.push_error(error);
        }
    }

    // ---- offset requests

    /// Returns all offset requests that can be sent now; each is sent once until it is answered.
    pub(crate) fn due_offset_requests(&mut self, now: Instant) -> Vec<OffsetRequest> {
        offset_resolution::due_offset_requests(&mut self.partitions, now)
    }

    /// Returns the time at which the next waiting offset request is due.
    pub(crate) fn next_offset_request_at(&self) -> Option<Instant> {
        offset_resolution::next_offset_request_at(&self.partitions)
    }

    /// Handles the group's committed offsets.
    pub(crate) fn handle_committed_offsets(
        &mut self,
        asked: &[OffsetQuery<()>],
        answer: Result<CommittedOffsets>,
        now: Instant,
    ) {
        let mut offsets = match answer {
            Ok(offsets) => offsets,
            Err(error) => return self.handle_offset_failure(asked, error, now),
        };
        let mut failed: BTreeMap<Option<ErrorCode>, (Error, Vec<TopicPartition>)> = BTreeMap::new();
        for name in self.still_awaited(asked) {
            match offsets.remove(&name).unwrap_or(Ok(None)) {
                Ok(committed) => {
                    if let Some(mut partition) = self.partition(&name) {
                        offset_resolution::handle_committed_offset(&mut partition, committed.as_ref());
                    }
                }
                Err(error) => failed.entry(error.code()).or_insert_with(|| (error, Vec::new())).1.push(name),
            }
        }
        for (error, partitions) in failed.into_values() {
            self.retry_offset_requests(&partitions, &error, now);
        }
    }

    /// Handles a listed offset (and the epoch of the record before it, or −1), at which the
    /// partition starts. Returns true if the metadata has to be refreshed.
    pub(crate) fn handle_listed_offset(
        &mut self,
        asked: &OffsetQuery<ResetTarget>,
        answer: Result<(i64, i32), ErrorCode>,
        now: Instant,
    ) -> bool {
        let Some(mut partition) = self.awaiting(asked) else { return false };
        let handled = offset_resolution::handle_listed_offset(&mut partition, asked, answer);
        handled.is_err_and(|code| self.handle_offset_error(&asked.partition, code, "look-up of an offset", now))
    }

    /// Handles the end of the epoch of the record before the position. Returns true if the metadata
    /// has to be refreshed.
    pub(crate) fn handle_epoch_end(
        &mut self,
        asked: &OffsetQuery<(i64, i32)>,
        answer: Result<(i32, i64), ErrorCode>,
        now: Instant,
    ) -> bool {
        let Some(mut partition) = self.awaiting(asked) else { return false };
        let handled = offset_resolution::handle_epoch_end(&mut partition, asked, answer);
        handled.is_err_and(|code| self.handle_offset_error(&asked.partition, code, "look-up of a leader epoch", now))
    }

    /// Returns the partition if it still waits for the response.
    fn awaiting<'a, T>(&'a mut self, asked: &'a OffsetQuery<T>) -> Option<PartitionContext<'a>> {
        self.partition(&asked.partition).filter(|partition| asked.is_awaited(partition.state))
    }

    /// Handles a partition's error in the response to an offset request; returns true if the
    /// metadata has to be refreshed.
    fn handle_offset_error(&mut self, partition: &TopicPartition, code: ErrorCode, what: &str, now: Instant) -> bool {
        let error = Error::broker(code, format_args!("{what} of {partition}"));
        self.retry_offset_requests(std::slice::from_ref(partition), &error, now);
        code.remedy() == Remedy::RefreshMetadata
    }

    /// Handles a broker that could not be asked.
    pub(crate) fn handle_offset_failure<T>(&mut self, asked: &[OffsetQuery<T>], error: Error, now: Instant) {
        let partitions = self.still_awaited(asked);
        self.retry_offset_requests(&partitions, &error, now);
    }

    /// Returns the partitions that still wait for the response.
    fn still_awaited<T>(&self, asked: &[OffsetQuery<T>]) -> Vec<TopicPartition> {
        let is_awaited = |asked: &&OffsetQuery<T>| {
            self.partitions.get(&asked.partition).is_some_and(|state| asked.is_awaited(state))
        };
        asked.iter().filter(is_awaited).map(|asked| asked.partition.clone()).collect()
    }

    /// Sends an offset request of many partitions again later. An error that does not pass is
    /// reported once to the common reader, and to each reader of a split-off partition.
    fn retry_offset_requests(&mut self, partitions: &[TopicPartition], error: &Error, now: Instant) {
        event!(
            DEBUG, self.rules.origin, %error, partitions = %several(partitions), count = partitions.len(),
            "positions could not be found; they are requested again"
        );
        let mut is_reported = false;
        for name in partitions {
            if let Some(mut partition) = self.partition(name) {
                is_reported |= offset_resolution::retry_offset_request(&mut partition, error, !is_reported, now);
            }
        }
        self.partitions.wake_task();
    }
}
