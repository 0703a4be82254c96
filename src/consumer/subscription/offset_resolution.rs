//! Finds positions: the offset requests that are due, and the handling of their responses.
//!
//! Sans-IO.

use std::{collections::BTreeMap, time::Instant};

use crate::consumer::subscription::offset_query::{OffsetQuery, OffsetRequest};
use crate::consumer::subscription::reset_backoff::HUMAN;
use crate::consumer::{
    group::CommittedOffsets,
    state::ConsumerState,
    subscription::fetch_position::{FetchState, LogValidation, ResetTarget},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
    log::{event, several},
    record::TopicPartition,
};

impl ConsumerState {
    /// Returns all offset requests that can be sent now; each is sent once until it is answered.
    pub(crate) fn due_offset_requests(&mut self, now: Instant) -> Vec<OffsetRequest> {
        let mut committed = Vec::new();
        let mut offsets: BTreeMap<i32, Vec<OffsetQuery<ResetTarget>>> = BTreeMap::new();
        let mut epochs: BTreeMap<i32, Vec<OffsetQuery<(i64, i32)>>> = BTreeMap::new();
        for (partition, state) in self.partitions.iter_mut().filter(|(_, state)| state.position.is_due(now)) {
            let (partition, generation) = (partition.clone(), state.position.seek_epoch());
            let leader_epoch = state.leader.map_or(-1, |(_, epoch)| epoch);
            match (state.position.state(), state.leader) {
                (FetchState::Initializing, _) => {
                    committed.push(OffsetQuery { partition, seek_epoch: generation, leader_epoch, query: () })
                }
                (FetchState::AwaitReset(what), Some((node, _))) => {
                    offsets.entry(node).or_default().push(OffsetQuery {
                        partition,
                        seek_epoch: generation,
                        leader_epoch,
                        query: what,
                    });
                }
                (FetchState::AwaitValidation { offset, epoch }, Some((node, _))) => {
                    let what = (offset, epoch);
                    epochs.entry(node).or_default().push(OffsetQuery {
                        partition,
                        seek_epoch: generation,
                        leader_epoch,
                        query: what,
                    });
                }
                // A new leader makes the request due.
                _ => continue,
            }
            state.position.mark_asked(leader_epoch);
        }
        let mut questions = Vec::new();
        if !committed.is_empty() {
            questions.push(OffsetRequest::Committed(committed));
        }
        questions.extend(offsets.into_iter().map(|(node, asked)| OffsetRequest::Offsets(node, asked)));
        questions.extend(epochs.into_iter().map(|(node, asked)| OffsetRequest::Epochs(node, asked)));
        questions
    }

    /// Returns the time at which the next waiting offset request is due.
    pub(crate) fn next_offset_request_at(&self) -> Option<Instant> {
        let open = |state| {
            matches!(state, FetchState::Initializing | FetchState::AwaitReset(_) | FetchState::AwaitValidation { .. })
        };
        let waiting = self.partitions.values().filter(|found| open(found.position.state()));
        waiting.filter_map(|found| found.position.not_before()).min()
    }

    fn awaits_offset<T>(&self, asked: &OffsetQuery<T>) -> bool {
        let state = self.partitions.get(&asked.partition);
        state.is_some_and(|state| state.position.awaits(asked.seek_epoch, asked.leader_epoch))
    }

    /// Records that a leader confirmed the position in its log.
    fn validated_under(&mut self, asked: &TopicPartition, leader_epoch: i32) {
        if let Some(state) = self.partitions.get_mut(asked) {
            state.validated_under(leader_epoch);
        }
    }

    /// Handles the group's committed offsets.
    pub(crate) fn handle_committed_offsets(
        &mut self,
        asked: &[OffsetQuery<()>],
        answer: Result<CommittedOffsets>,
        now: Instant,
    ) {
        let asked: Vec<_> = asked.iter().filter(|asked| self.awaits_offset(asked)).collect();
        match answer {
            Ok(mut offsets) => {
                let mut failed: BTreeMap<Option<ErrorCode>, (Error, Vec<TopicPartition>)> = BTreeMap::new();
                for OffsetQuery { partition, .. } in asked {
                    let committed = match offsets.remove(partition).unwrap_or(Ok(None)) {
                        Ok(committed) => committed.filter(|committed| committed.offset >= 0),
                        Err(error) => {
                            let (_, partitions) = failed.entry(error.code()).or_insert_with(|| (error, Vec::new()));
                            partitions.push(partition.clone());
                            continue;
                        }
                    };
                    match committed {
                        Some(committed) => {
                            if let Some(state) = self.partitions.get_mut(partition) {
                                state.committed = Some(committed.offset);
                                state.reported = false;
                            }
                            self.enter_fetch_state(
                                partition,
                                FetchState::resume(committed.offset, committed.leader_epoch),
                            );
                        }
                        None => {
                            let start = ResetTarget::of(self.rules.reset);
                            self.reset(partition, start, "its group has committed no offset", None);
                        }
                    }
                }
                for (error, partitions) in failed.into_values() {
                    self.retry_offset_request(&partitions, error, now);
                }
            }
            Err(error) => {
                let partitions: Vec<_> = asked.into_iter().map(|asked| asked.partition.clone()).collect();
                self.retry_offset_request(&partitions, error, now);
            }
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
        if !self.awaits_offset(asked) {
            return false;
        }
        let partition = &asked.partition;
        match answer {
            Ok((offset, epoch)) if offset >= 0 => {
                event!(DEBUG, self.rules.origin, %partition, offset, "found the position");
                self.validated_under(partition, asked.leader_epoch);
                self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch });
                false
            }
            // No record is as recent as requested; every record from now on is.
            Ok(_) if asked.query != ResetTarget::Latest => {
                self.enter_fetch_state(partition, FetchState::AwaitReset(ResetTarget::Latest));
                false
            }
            Ok(_) => self.handle_offset_error(partition, ErrorCode::UNKNOWN_SERVER_ERROR, "look-up of an offset", now),
            Err(code) => self.handle_offset_error(partition, code, "look-up of an offset", now),
        }
    }

    /// Handles the end of the epoch of the record before the position. Returns true if the metadata
    /// has to be refreshed.
    pub(crate) fn handle_epoch_end(
        &mut self,
        asked: &OffsetQuery<(i64, i32)>,
        answer: Result<(i32, i64), ErrorCode>,
        now: Instant,
    ) -> bool {
        if !self.awaits_offset(asked) {
            return false;
        }
        let (partition, (offset, epoch)) = (&asked.partition, asked.query);
        let validity = match answer {
            Ok((end_epoch, end_offset)) => LogValidation::of(offset, end_epoch, end_offset),
            // Without a response, nothing shows that records were lost.
            Err(ErrorCode::UNSUPPORTED_VERSION) => LogValidation::Valid,
            Err(code) => return self.handle_offset_error(partition, code, "look-up of a leader epoch", now),
        };
        let can_reset = ResetTarget::of(self.rules.reset).is_some();
        self.validated_under(partition, asked.leader_epoch);
        match validity {
            LogValidation::Valid => self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch }),
            LogValidation::Truncated { at, epoch } if can_reset => {
                // Buffered records lie on both sides of the truncation, so all of them are fetched
                // again.
                let progress = self.partitions.get(partition).and_then(|state| state.progress.as_ref());
                let behind = progress
                    .filter(|progress| progress.delivered() < at)
                    .map(|progress| progress.to_commit(progress.delivered()));
                let (handed, epoch) = behind.map_or((at, epoch), |at| (at.offset, at.leader_epoch.unwrap_or(-1)));
                self.journal.truncated(partition, offset, at);
                self.reposition(partition, FetchState::Fetching { offset: handed, epoch }, false);
            }
            LogValidation::Truncated { at, .. } => {
                self.reset(partition, None, "its log was truncated before the position", Some(at));
            }
            LogValidation::Undefined => {
                let start = ResetTarget::of(self.rules.reset);
                self.reset(partition, start, "its leader no longer knows the epoch of its position", Some(offset));
            }
        }
        false
    }

    /// Handles an error in the response for one partition.
    fn handle_offset_error(&mut self, partition: &TopicPartition, code: ErrorCode, what: &str, now: Instant) -> bool {
        self.retry_offset_request(
            std::slice::from_ref(partition),
            Error::broker(code, format_args!("{what} of {partition}")),
            now,
        );
        code.remedy() == Remedy::RefreshMetadata
    }

    /// Handles a broker that could not be asked.
    pub(crate) fn handle_offset_failure<T>(&mut self, asked: &[OffsetQuery<T>], error: Error, now: Instant) {
        let partitions = asked.iter().filter(|asked| self.awaits_offset(asked)).map(|asked| asked.partition.clone());
        let partitions: Vec<_> = partitions.collect();
        self.retry_offset_request(&partitions, error, now);
    }

    /// Sends the request again later: soon if that may help, otherwise seldom, and then the error
    /// is reported to the reader.
    fn retry_offset_request(&mut self, partitions: &[TopicPartition], error: Error, now: Instant) {
        let retriable = error.is_retriable() || error.kind() == ErrorKind::Protocol;
        event!(
            DEBUG, self.rules.origin, %error, partitions = %several(partitions), count = partitions.len(),
            "positions could not be found; they are requested again"
        );
        let mut told = false;
        for partition in partitions {
            let Some(state) = self.partitions.get_mut(partition) else { continue };
            let wait = state.retries.next(&mut self.rng);
            state.offsets.error = Some(error.clone());
            state.position.retry_at(self.retry_grid.started(now).after(now, if retriable { wait } else { HUMAN }));
            if retriable || std::mem::replace(&mut state.reported, true) {
                continue;
            }
            // Partitions with a common reader report the error once.
            if state.split.is_some() || !std::mem::replace(&mut told, true) {
                self.push_partition_error(partition, error.clone());
            }
        }
        self.signals.task = true;
    }
}
