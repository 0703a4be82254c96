//! How positions are found out: the questions that are open, and what their answers mean. Decides;
//! does no IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    assignment::Assignment,
    group::CommittedOffsets,
    position::{Start, State, Validity},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
    log::{event, several},
    record::TopicPartition,
};

/// How long an error that only a human can mend waits before it is tried again.
pub(super) const HUMAN: Duration = Duration::from_secs(30);

/// One partition that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked<T> {
    pub(super) partition: TopicPartition,
    /// The positioning that asks; an answer to an older one is stale.
    pub(super) generation: u64,
    /// Of the leader that is asked; once another one leads, its answer is stale as well.
    pub(super) leader_epoch: i32,
    pub(super) what: T,
}

/// A request to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What has the group committed?
    Committed(Vec<Asked<()>>),
    /// ListOffsets to that broker.
    Offsets(i32, Vec<Asked<Start>>),
    /// OffsetForLeaderEpoch to that broker: where do these (offset, epoch) end?
    Epochs(i32, Vec<Asked<(i64, i32)>>),
}

impl Assignment {
    /// All questions that can be asked now; each is asked once until it is answered.
    pub(super) fn questions(&mut self, now: Instant) -> Vec<Question> {
        let mut committed = Vec::new();
        let mut offsets: BTreeMap<i32, Vec<Asked<Start>>> = BTreeMap::new();
        let mut epochs: BTreeMap<i32, Vec<Asked<(i64, i32)>>> = BTreeMap::new();
        for (partition, found) in self.partitions.iter_mut().filter(|(_, found)| found.position.is_due(now)) {
            let (partition, generation) = (partition.clone(), found.position.generation());
            let leader_epoch = found.leader.map_or(-1, |(_, epoch)| epoch);
            match (found.position.state(), found.leader) {
                (State::Committed, _) => committed.push(Asked { partition, generation, leader_epoch, what: () }),
                (State::Reset(what), Some((node, _))) => {
                    offsets.entry(node).or_default().push(Asked { partition, generation, leader_epoch, what });
                }
                (State::Validate { offset, epoch }, Some((node, _))) => {
                    let what = (offset, epoch);
                    epochs.entry(node).or_default().push(Asked { partition, generation, leader_epoch, what });
                }
                // A new leader makes it due.
                _ => continue,
            }
            found.position.ask(leader_epoch);
        }
        let mut questions = Vec::new();
        if !committed.is_empty() {
            questions.push(Question::Committed(committed));
        }
        questions.extend(offsets.into_iter().map(|(node, asked)| Question::Offsets(node, asked)));
        questions.extend(epochs.into_iter().map(|(node, asked)| Question::Epochs(node, asked)));
        questions
    }

    /// When a question that waits becomes due.
    pub(super) fn next_question(&self) -> Option<Instant> {
        let open = |state| matches!(state, State::Committed | State::Reset(_) | State::Validate { .. });
        let waiting = self.partitions.values().filter(|found| open(found.position.state()));
        waiting.filter_map(|found| found.position.not_before()).min()
    }

    fn awaits<T>(&self, asked: &Asked<T>) -> bool {
        let found = self.partitions.get(&asked.partition);
        found.is_some_and(|found| found.position.awaits(asked.generation, asked.leader_epoch))
    }

    /// A leader has said of its log from where to read on.
    fn checked_under(&mut self, asked: &TopicPartition, leader_epoch: i32) {
        if let Some(found) = self.partitions.get_mut(asked) {
            found.checked_under(leader_epoch);
        }
    }

    /// What the group has committed.
    pub(super) fn committed_answer(&mut self, asked: &[Asked<()>], answer: Result<CommittedOffsets>, now: Instant) {
        let asked: Vec<_> = asked.iter().filter(|asked| self.awaits(asked)).collect();
        match answer {
            Ok(mut offsets) => {
                let mut failed: BTreeMap<Option<ErrorCode>, (Error, Vec<TopicPartition>)> = BTreeMap::new();
                for Asked { partition, .. } in asked {
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
                            if let Some(found) = self.partitions.get_mut(partition) {
                                found.committed = Some(committed.offset);
                                found.reported = false;
                            }
                            self.enter(partition, State::resume(committed.offset, committed.leader_epoch));
                        }
                        None => {
                            let start = Start::of(self.rules.reset);
                            self.reset(partition, start, "its group has committed no offset", None);
                        }
                    }
                }
                for (error, partitions) in failed.into_values() {
                    self.question_failed(&partitions, error, now);
                }
            }
            Err(error) => {
                let partitions: Vec<_> = asked.into_iter().map(|asked| asked.partition.clone()).collect();
                self.question_failed(&partitions, error, now);
            }
        }
    }

    /// The offset (and the epoch of the record before it, or −1) where a partition is to start.
    /// Whether a new look at the metadata is needed.
    pub(super) fn offset_answer(
        &mut self,
        asked: &Asked<Start>,
        answer: Result<(i64, i32), ErrorCode>,
        now: Instant,
    ) -> bool {
        if !self.awaits(asked) {
            return false;
        }
        let partition = &asked.partition;
        match answer {
            Ok((offset, epoch)) if offset >= 0 => {
                event!(DEBUG, self.rules.origin, %partition, offset, "the position is found");
                self.checked_under(partition, asked.leader_epoch);
                self.enter(partition, State::Fetch { offset, epoch });
                false
            }
            // Nothing is as young as was asked for: what comes from now on is.
            Ok(_) if asked.what != Start::Latest => {
                self.enter(partition, State::Reset(Start::Latest));
                false
            }
            Ok(_) => self.code_answer(partition, ErrorCode::UNKNOWN_SERVER_ERROR, "look-up of an offset", now),
            Err(code) => self.code_answer(partition, code, "look-up of an offset", now),
        }
    }

    /// Where the epoch ends under which the record before the position was read. Whether a new look
    /// at the metadata is needed.
    pub(super) fn epoch_answer(
        &mut self,
        asked: &Asked<(i64, i32)>,
        answer: Result<(i32, i64), ErrorCode>,
        now: Instant,
    ) -> bool {
        if !self.awaits(asked) {
            return false;
        }
        let (partition, (offset, epoch)) = (&asked.partition, asked.what);
        let validity = match answer {
            Ok((end_epoch, end_offset)) => Validity::of(offset, end_epoch, end_offset),
            // Without an answer nothing is known to be lost.
            Err(ErrorCode::UNSUPPORTED_VERSION) => Validity::Sound,
            Err(code) => return self.code_answer(partition, code, "look-up of a leader epoch", now),
        };
        let can_reset = Start::of(self.rules.reset).is_some();
        self.checked_under(partition, asked.leader_epoch);
        match validity {
            Validity::Sound => self.enter(partition, State::Fetch { offset, epoch }),
            Validity::Truncated { at, epoch } if can_reset => {
                // What waits for its reader lies on either side of the break: all of it is read
                // anew.
                let lease = self.partitions.get(partition).and_then(|found| found.lease.as_ref());
                let behind = lease.filter(|lease| lease.handed() < at).map(|lease| lease.to_commit(lease.handed()));
                let (handed, epoch) = behind.map_or((at, epoch), |at| (at.offset, at.leader_epoch.unwrap_or(-1)));
                self.journal.truncated(partition, offset, at);
                self.begin(partition, State::Fetch { offset: handed, epoch }, false);
            }
            Validity::Truncated { at, .. } => {
                self.reset(partition, None, "its log was truncated before the position", Some(at));
            }
            Validity::Undefined => {
                let start = Start::of(self.rules.reset);
                self.reset(partition, start, "its leader no longer knows the epoch of its position", Some(offset));
            }
        }
        false
    }

    /// A partition's question was answered with an error.
    fn code_answer(&mut self, partition: &TopicPartition, code: ErrorCode, what: &str, now: Instant) -> bool {
        self.question_failed(
            std::slice::from_ref(partition),
            Error::broker(code, format_args!("{what} of {partition}")),
            now,
        );
        code.remedy() == Remedy::RefreshMetadata
    }

    /// A broker could not be asked.
    pub(super) fn unanswered<T>(&mut self, asked: &[Asked<T>], error: Error, now: Instant) {
        let partitions = asked.iter().filter(|asked| self.awaits(asked)).map(|asked| asked.partition.clone());
        let partitions: Vec<_> = partitions.collect();
        self.question_failed(&partitions, error, now);
    }

    /// The same question later: soon if that may help, else seldom, and then the reader is told.
    fn question_failed(&mut self, partitions: &[TopicPartition], error: Error, now: Instant) {
        let retriable = error.is_retriable() || error.kind() == ErrorKind::Protocol;
        event!(
            DEBUG, self.rules.origin, %error, partitions = %several(partitions), count = partitions.len(),
            "positions are not known yet"
        );
        let mut told = false;
        for partition in partitions {
            let Some(found) = self.partitions.get_mut(partition) else { continue };
            let wait = found.retries.next(&mut self.rng);
            found.seen.trouble = Some(error.clone());
            found.position.retry_at(self.grid.started(now).after(now, if retriable { wait } else { HUMAN }));
            if retriable || std::mem::replace(&mut found.reported, true) {
                continue;
            }
            // Of those that are read together, once.
            if found.split.is_some() || !std::mem::replace(&mut told, true) {
                self.tell(partition, error.clone());
            }
        }
        self.signals.driver = true;
    }
}
