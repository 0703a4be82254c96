//! Handles a broker's fetch response: batches for the partitions' queues, new leaders, errors.
//!
//! Sans-IO.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::consumer::fetch::scanned::{MetadataHints, ScannedPartition};
use crate::consumer::{
    buffer::partition_buffer::is_heavy,
    fetch::{
        batch_scan::{ScannedEntry, ScannedSlice},
        connection_id::FetchConnectionId,
        connection_scaling::ConnectionScaling,
        fetch_size::{Bottleneck, PartitionResponseSize, partition_bytes},
        memory_budget::Reservation,
        planner::largest_response,
        preferred_replica::SHUNNED,
        session::SessionOutcome,
    },
    state::ConsumerState,
    subscription::{
        fetch_position::{FetchState, ResetTarget},
        partition_state::PartitionState,
        reset_backoff::{HUMAN, Pause},
    },
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy},
    log::event,
    record::TopicPartition,
};

impl ConsumerState {
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
        let mut hints = MetadataHints::default();
        let connection = from.into();
        let id = connection.broker;
        let beside = self.in_flight_on_siblings(connection);
        self.wake_siblings(connection);
        let Some(node) = self.connections.get_mut(&connection) else { return hints };
        node.in_flight = 0;
        match node.session.handle_response(session_id, error) {
            SessionOutcome::Valid => {
                node.retries.reset();
                node.reported = false;
            }
            SessionOutcome::Renewed => return hints,
            SessionOutcome::Failed(code) => {
                event!(DEBUG, self.rules.origin, node = id, %code, "the broker answered a fetch with an error");
                hints.refresh = code.remedy() == Remedy::RefreshMetadata;
                if connection.connection > 0 {
                    self.keep_connections(id, connection.connection);
                    return hints;
                }
                let passes = code.is_retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR;
                self.retry_connection_later(
                    connection,
                    passes,
                    Error::broker(code, format_args!("fetch from broker {id}")),
                    now,
                );
                return hints;
            }
        }
        let is_empty = arrived.iter().all(|arrived| arrived.is_empty());
        let max_wait = if self.rules.min_bytes > 0 { self.rules.max_wait } else { Duration::ZERO };
        if let Some(attempts) = node.empty_responses.record_response(is_empty, max_wait, now) {
            // The broker does not wait for records as requested, so the consumer waits.
            node.not_before = Some(now + node.retries.after(attempts, &mut self.rng));
        }
        let largest = arrived.iter().map(|arrived| arrived.scan.largest_batch).max().unwrap_or(0);
        let mut steps = arrived.iter().flat_map(|arrived| &arrived.scan.entries);
        let opens = steps.any(|step| matches!(step, ScannedEntry::Batch(batch) if is_heavy(batch)));
        let waits = node.quota.used().saturating_sub(reservation.bytes()).saturating_sub(beside);
        // With several connections responses arrive in parallel, so data that other connections
        // have just delivered does not show a slow reader.
        let open = self.scaling.get(&id).map_or(1, ConnectionScaling::open);
        let left = node.last_response.strong_count() > 0 || waits > reservation.bytes().saturating_mul(open.into());
        let waits = match open {
            1 => waits,
            _ if left => usize::MAX,
            _ => 0,
        };
        let most = largest_response(&node.quota).min(usize::try_from(self.rules.max_bytes).unwrap_or(0));
        let pace = node.fetch_size.record_response(reservation.bytes(), waits, most, now);
        if largest > 0 {
            node.largest_batch = largest.max(node.largest_batch / 8 * 7);
            node.quota.set_decompresses(opens);
        }
        let busy = pace == Bottleneck::Connection && open == 1 && !self.any_reader_waits();
        let pace = if busy { Bottleneck::Other } else { pace };
        let reservation = Arc::new(reservation);
        if let Some(node) = self.connections.get_mut(&connection) {
            node.last_response = Arc::downgrade(&reservation);
        }
        for ScannedPartition { head, scan: walk } in arrived {
            let Some(node) = self.connections.get(&connection) else { break };
            let topic = if head.topic.is_empty() { node.session.name(&head.topic_id) } else { Some(&head.topic) };
            let Some(topic) = topic else { continue };
            let partition = TopicPartition { topic: topic.clone(), partition: head.partition };
            let Some(spec) = node.session.requested(&partition) else { continue };
            let (asked_from, leader_epoch) = (spec.partition.fetch_offset, spec.partition.current_leader_epoch);
            let Some(state) = self.partitions.get_mut(&partition) else { continue };
            // Discards the data if the partition was sought or moved meanwhile, or was already read
            // through another broker.
            let current = state.position.seek_epoch() == spec.seek_epoch
                && matches!(state.position.state(), FetchState::Fetching { offset, .. } if offset == asked_from)
                // Data from an older leader may be missing in the log of the newer leader that
                // answered meanwhile.
                && leader_epoch >= state.validated_epoch;
            if !current {
                continue;
            }
            // Errors of a broker that the partition moved away from are ignored; its data is used.
            if state.connection_id() != Some(connection) && (!head.error.is_ok() || walk.entries.is_empty()) {
                continue;
            }
            if !walk.entries.is_empty() {
                state.validated_under(leader_epoch);
            }
            self.record_partition_data(&partition, &head, &walk);
            if let Some((leader, epoch)) = head.current_leader.filter(|(leader, epoch)| *leader >= 0 && *epoch >= 0) {
                hints.leaders.push((partition.clone(), leader, epoch));
            }
            if self.handle_probe(id, &partition, asked_from, &head, &walk) {
                continue;
            }
            if head.error.is_ok() && head.preferred_read_replica >= 0 && head.preferred_read_replica != id {
                hints.refresh |= self.redirect_to_replica(id, &partition, head.preferred_read_replica, now);
            } else if head.error.is_ok() {
                self.handle_partition_data(connection, &partition, asked_from, walk, &reservation, now);
                self.report_partition_end(&partition);
            } else {
                hints.refresh |= self.handle_partition_error(id, &partition, asked_from, head.error, now);
            }
        }
        if session_id == 0 {
            self.session_refused(connection, now);
        }
        self.record_bottleneck(connection, pace, now);
        self.plan_decompressions();
        hints
    }

    /// Handles a broker's recommendation of another replica (KIP-392); returns true if the metadata
    /// has to be refreshed.
    fn redirect_to_replica(&mut self, id: i32, partition: &TopicPartition, to: i32, now: Instant) -> bool {
        event!(DEBUG, self.rules.origin, %partition, node = id, to, "the broker recommends another replica");
        let known = self.brokers.contains(&to);
        let Some(state) = self.partitions.get_mut(partition) else { return false };
        let leads = state.leader.is_some_and(|(leader, _)| leader == id);
        if leads && known {
            let again = state.preferred_replica.recommend(to, now + self.rules.replica_age, now);
            if let Some(again) = again {
                // The leader recommends the replica although it was not told the rack, so there is
                // no other broker to read from.
                state.position.retry_at(again.min(now + state.retries.next(&mut self.rng)));
            }
            self.choose_broker_again(partition);
            return false;
        }
        // Only a leader may recommend a replica, and only a broker that exists.
        if leads {
            state.position.retry_at(now + state.retries.next(&mut self.rng));
            self.hide_rack(id, now + SHUNNED);
            self.mark_changed(partition);
        } else {
            self.leave_preferred_replica(partition, false, now);
        }
        true
    }

    /// Handles a partition's slice of a response without an error.
    fn handle_partition_data(
        &mut self,
        id: FetchConnectionId,
        partition: &TopicPartition,
        asked_from: i64,
        scan: ScannedSlice,
        reservation: &Arc<Reservation>,
        now: Instant,
    ) {
        let fetch_bytes = self.rules.partition_bytes;
        let node = self.connections.get(&id).filter(|_| self.rules.partition_grows);
        let answer = node.map_or(0, |node| node.fetch_size.bytes().min(largest_response(&node.quota)));
        let answer = i32::try_from(answer).unwrap_or(i32::MAX).min(self.rules.max_bytes);
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let gained = scan.next_offset.is_none_or(|next| next > asked_from);
        if gained {
            state.reported = false;
            state.retries.reset();
        }
        state.position.retry_now();
        state.resets.clear();
        if state.preferred_replica.node() == Some(id.broker) {
            state.preferred_replica.served();
        }
        if scan.too_small && state.fetch_bytes < i32::MAX {
            state.fetch_bytes = state.fetch_bytes.saturating_mul(2);
            self.mark_changed(partition);
            return;
        }
        if scan.too_small {
            // The fetch asked for the largest possible response, so the broker's data ends before
            // the batch does.
            let error = Error::new(
                ErrorKind::Corrupt,
                format!("{partition}: the batch at offset {asked_from} announces more bytes than the broker has"),
            );
            state.fetch_bytes = fetch_bytes;
            state.queue.push_corrupt(error, asked_from, scan.resync_offset);
            self.enter_fetch_state(partition, FetchState::Stopped);
            self.enqueue_for_delivery(partition);
            self.wake_reader();
            return;
        }
        if scan.entries.is_empty() {
            return;
        }
        let broken = matches!(scan.entries.last(), Some(ScannedEntry::Corrupt { .. }));
        if !broken && scan.next_offset.is_some_and(|next| next <= asked_from) {
            self.handle_stale_batches(partition, asked_from, scan.next_offset.unwrap_or(0), now);
            return;
        }
        let offset = scan.next_offset.map_or(asked_from, |next| next.max(asked_from));
        state.last_data_at = Some(now);
        let came =
            PartitionResponseSize { bytes: scan.bytes, largest: scan.largest_batch, buffered: state.queue.bytes() };
        state.fetch_bytes = partition_bytes(state.fetch_bytes, came, fetch_bytes, answer);
        state.queue.push(scan.entries, asked_from, reservation);
        let FetchState::Fetching { epoch: before, .. } = state.position.state() else { return };
        let epoch = scan.epochs.last().map_or(before, |(_, epoch)| *epoch);
        for (from, epoch) in scan.epochs {
            state.progress.iter().for_each(|progress| progress.note_epoch(from, epoch));
        }
        self.enter_fetch_state(
            partition,
            if broken { FetchState::Stopped } else { FetchState::Fetching { offset, epoch } },
        );
        self.enqueue_for_delivery(partition);
        self.wake_reader();
    }

    /// Handles a response with only batches before the requested offset: the partition is fetched
    /// again after a backoff, and the error is reported once.
    fn handle_stale_batches(&mut self, partition: &TopicPartition, asked_from: i64, end: i64, now: Instant) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let wait = state.retries.next(&mut self.rng);
        state.position.retry_at(now + wait);
        if !std::mem::replace(&mut state.reported, true) {
            let what =
                format!("{partition}: a fetch at offset {asked_from} returned only batches that end before {end}");
            self.push_partition_error(partition, Error::new(ErrorKind::Corrupt, what));
        }
        self.mark_changed(partition);
    }

    /// Handles a partition's error; returns true if the metadata has to be refreshed.
    fn handle_partition_error(
        &mut self,
        id: i32,
        partition: &TopicPartition,
        asked_from: i64,
        code: ErrorCode,
        now: Instant,
    ) -> bool {
        event!(DEBUG, self.rules.origin, %partition, node = id, %code, "a partition cannot be fetched");
        let Some(state) = self.partitions.get_mut(partition) else { return false };
        if state.preferred_replica.node() == Some(id) {
            // A follower may lag or be gone, so its error says nothing of the offset in the
            // leader's log.
            self.leave_preferred_replica(partition, false, now);
            return code.remedy() == Remedy::RefreshMetadata;
        }
        match code {
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                // The reader receives the buffered records first.
                state.queue.push_out_of_range(asked_from);
                state.resets.refused(now);
                self.enter_fetch_state(partition, FetchState::Stopped);
                self.enqueue_for_delivery(partition);
                self.wake_reader();
                return false;
            }
            ErrorCode::CORRUPT_MESSAGE => {
                let cause = Error::broker(code, format_args!("fetch of {partition} at offset {asked_from}"));
                let error = Error::new(ErrorKind::Corrupt, cause.to_string()).with_source(cause);
                state.queue.push_corrupt(error, asked_from, None);
                self.enter_fetch_state(partition, FetchState::Stopped);
                self.enqueue_for_delivery(partition);
                self.wake_reader();
                return false;
            }
            _ => {}
        }
        let wait = state.retries.next(&mut self.rng);
        state.position.retry_at(self.retry_grid.started(now).after(now, wait));
        let retriable = code.is_retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR;
        if !retriable && !std::mem::replace(&mut state.reported, true) {
            self.push_partition_error(
                partition,
                Error::broker(code, format_args!("fetch of {partition} at offset {asked_from}")),
            );
        }
        self.mark_changed(partition);
        code.remedy() == Remedy::RefreshMetadata
    }

    /// Delays the next fetch from a broker: briefly if the error may pass, otherwise by `HUMAN`,
    /// and then the error is reported to the reader.
    fn retry_connection_later(&mut self, id: FetchConnectionId, passes: bool, error: Error, now: Instant) {
        let Some(node) = self.connections.get_mut(&id) else { return };
        let wait = node.retries.next(&mut self.rng);
        node.not_before = Some(now + if passes { wait } else { HUMAN });
        if !passes && !std::mem::replace(&mut node.reported, true) {
            self.push_error(error);
        }
    }

    /// Handles a fetch without a response.
    pub(crate) fn handle_fetch_failure(&mut self, from: impl Into<FetchConnectionId>, error: &Error, now: Instant) {
        let connection = from.into();
        let id = connection.broker;
        self.wake_siblings(connection);
        let Some(node) = self.connections.get_mut(&connection) else { return };
        event!(DEBUG, self.rules.origin, node = id, connection = connection.connection, %error, "a fetch failed");
        node.in_flight = 0;
        node.session.handle_failure();
        if connection.connection > 0 {
            return self.connection_failed(connection, error, now);
        }
        let passes = error.is_retriable() || error.kind() == ErrorKind::Protocol;
        let told = error.clone().context(format_args!("fetch from broker {id}"));
        self.retry_connection_later(connection, passes, told, now);
        // A replica that does not answer is abandoned, even if the leader still recommends it.
        let replica = |state: &PartitionState| {
            state.preferred_replica.node() == Some(id) && state.connection_id() == Some(connection)
        };
        let here = self.partitions.iter().filter(|(_, state)| replica(state));
        let here: Vec<_> = here.map(|(partition, _)| partition.clone()).collect();
        for partition in here {
            self.leave_preferred_replica(&partition, true, now);
        }
    }

    /// Handles the reader's arrival at an offset that the log does not have (any more): resets the
    /// position, or reports the error.
    pub(crate) fn handle_out_of_range(&mut self, partition: &TopicPartition, generation: u64) {
        let Some(state) = self.partitions.get(partition) else { return };
        if state.position.seek_epoch() == generation {
            let start = ResetTarget::of(self.rules.reset);
            let offset = state.progress.as_ref().map_or(-1, |progress| progress.delivered());
            let why = "its offset is not in the log (any more): OFFSET_OUT_OF_RANGE";
            self.reset(partition, start, why, Some(offset));
            if start.is_some() {
                self.delay_reset(partition, offset);
            }
        }
    }

    /// Delays a reset if the previous one led to OFFSET_OUT_OF_RANGE again.
    fn delay_reset(&mut self, partition: &TopicPartition, offset: i64) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let Some(Pause { since, wait, tell }) = state.resets.next(&mut self.rng) else { return };
        let what = format!("fetch of {partition} at offset {offset}, the result of auto.offset.reset");
        let error = Error::broker(ErrorCode::OFFSET_OUT_OF_RANGE, what).with_retriable(true);
        state.offsets.error = Some(error.clone());
        state.position.retry_at(self.retry_grid.started(since).after(since, wait));
        let split = state.split.is_some();
        let told = self.failing_resets_reported_at.is_some_and(|at| since < at + HUMAN);
        if !tell || (told && !split) {
            return;
        }
        self.failing_resets_reported_at = Some(since);
        let error = error.context(format_args!(
            "{partition} and perhaps other partitions are not read: the leader refuses the offset that it returned for the \
             reset; the position is reset again, eventually every {} s",
            HUMAN.as_secs()
        ));
        event!(WARN, self.rules.origin, %partition, offset, %error, "the leader refuses the offset of a reset; the position is reset again after a backoff");
        self.push_partition_error(partition, error);
    }
}
