//! How positions are found out: the questions that are open, and what their answers mean.
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
    /// All questions that can be asked now; each is asked once until it is answered.
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
                // A new leader makes it due.
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

    /// When a question that waits becomes due.
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

    /// A leader has said of its log from where to read on.
    fn validated_under(&mut self, asked: &TopicPartition, leader_epoch: i32) {
        if let Some(state) = self.partitions.get_mut(asked) {
            state.validated_under(leader_epoch);
        }
    }

    /// What the group has committed.
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

    /// The offset (and the epoch of the record before it, or −1) where a partition is to start.
    /// Whether a new look at the metadata is needed.
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
                event!(DEBUG, self.rules.origin, %partition, offset, "the position is found");
                self.validated_under(partition, asked.leader_epoch);
                self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch });
                false
            }
            // Nothing is as young as was asked for: what comes from now on is.
            Ok(_) if asked.query != ResetTarget::Latest => {
                self.enter_fetch_state(partition, FetchState::AwaitReset(ResetTarget::Latest));
                false
            }
            Ok(_) => self.handle_offset_error(partition, ErrorCode::UNKNOWN_SERVER_ERROR, "look-up of an offset", now),
            Err(code) => self.handle_offset_error(partition, code, "look-up of an offset", now),
        }
    }

    /// Where the epoch ends under which the record before the position was read. Whether a new look
    /// at the metadata is needed.
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
            // Without an answer nothing is known to be lost.
            Err(ErrorCode::UNSUPPORTED_VERSION) => LogValidation::Valid,
            Err(code) => return self.handle_offset_error(partition, code, "look-up of a leader epoch", now),
        };
        let can_reset = ResetTarget::of(self.rules.reset).is_some();
        self.validated_under(partition, asked.leader_epoch);
        match validity {
            LogValidation::Valid => self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch }),
            LogValidation::Truncated { at, epoch } if can_reset => {
                // What waits for its reader lies on either side of the break: all of it is read
                // anew.
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

    /// A partition's question was answered with an error.
    fn handle_offset_error(&mut self, partition: &TopicPartition, code: ErrorCode, what: &str, now: Instant) -> bool {
        self.retry_offset_request(
            std::slice::from_ref(partition),
            Error::broker(code, format_args!("{what} of {partition}")),
            now,
        );
        code.remedy() == Remedy::RefreshMetadata
    }

    /// A broker could not be asked.
    pub(crate) fn handle_offset_failure<T>(&mut self, asked: &[OffsetQuery<T>], error: Error, now: Instant) {
        let partitions = asked.iter().filter(|asked| self.awaits_offset(asked)).map(|asked| asked.partition.clone());
        let partitions: Vec<_> = partitions.collect();
        self.retry_offset_request(&partitions, error, now);
    }

    /// The same question later: soon if that may help, else seldom, and then the reader is told.
    fn retry_offset_request(&mut self, partitions: &[TopicPartition], error: Error, now: Instant) {
        let retriable = error.is_retriable() || error.kind() == ErrorKind::Protocol;
        event!(
            DEBUG, self.rules.origin, %error, partitions = %several(partitions), count = partitions.len(),
            "positions are not known yet"
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
            // Of those that are read together, once.
            if state.split.is_some() || !std::mem::replace(&mut told, true) {
                self.push_partition_error(partition, error.clone());
            }
        }
        self.signals.task = true;
    }
}
