//! A model of the brokers' side of transactions: one transactional id with its coordinator, the
//! logs of some partitions and the offsets of one group, by the rules of Kafka 4.3 for both
//! protocols. Markers are written later than EndTxn is answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::{error::ErrorCode, producer::idempotence::ProducerId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxnState {
    Empty,
    Ongoing,
    Prepared { commit: bool },
    Completed { commit: bool },
}

/// A record or an offset in an open transaction. `number` is the producer's own number of the
/// transaction for which it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written {
    pub(super) number: u64,
    pub(super) place: i32,
    pub(super) value: u64,
}

#[derive(Debug)]
pub(super) struct ModelCoordinator {
    pub(super) producer: ProducerId,
    last_epoch: i16,
    previous_id: i64,
    next_id: Option<i64>,
    ids: i64,
    pub(super) state: TxnState,
    added: BTreeSet<i32>,
    records: Vec<Written>,
    offsets: BTreeMap<i32, Written>,
    /// The highest epoch that each partition has seen of each id.
    epochs: BTreeMap<(i32, i64), i16>,
    appended: BTreeSet<(i64, i16, u64)>,
    pub(super) committed: Vec<Written>,
    pub(super) aborted: Vec<Written>,
    pub(super) committed_offsets: BTreeMap<i32, u64>,
    /// The transactions whose offsets were committed.
    pub(super) numbers_of_offsets: BTreeSet<u64>,
}

const EXHAUSTED: i16 = i16::MAX - 1;

/// The place that stands for the group in a transaction.
pub(super) const GROUP: i32 = -1;

impl ModelCoordinator {
    pub(super) fn new(epoch: i16) -> Self {
        Self {
            producer: ProducerId { id: 1000, epoch },
            last_epoch: -1,
            previous_id: -1,
            next_id: None,
            ids: 1000,
            state: TxnState::Empty,
            added: BTreeSet::new(),
            records: Vec::new(),
            offsets: BTreeMap::new(),
            epochs: BTreeMap::new(),
            appended: BTreeSet::new(),
            committed: Vec::new(),
            aborted: Vec::new(),
            committed_offsets: BTreeMap::new(),
            numbers_of_offsets: BTreeSet::new(),
        }
    }

    fn new_id(&mut self) -> i64 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn init(&mut self, expected: Option<ProducerId>) -> Result<ProducerId, ErrorCode> {
        if let Some(expected) = expected {
            let is_retry_of_rotation = expected.id == self.previous_id && expected.epoch >= EXHAUSTED;
            if matches!(self.state, TxnState::Prepared { .. }) {
                return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
            }
            if self.producer.epoch >= 0 && expected.id != self.producer.id && !is_retry_of_rotation {
                return Err(ErrorCode::PRODUCER_FENCED);
            }
        }
        match self.state {
            TxnState::Prepared { .. } => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            TxnState::Ongoing => {
                self.fence(false);
                Err(ErrorCode::CONCURRENT_TRANSACTIONS)
            }
            TxnState::Empty | TxnState::Completed { .. } => {
                let epoch = self.producer.epoch;
                if epoch >= EXHAUSTED && expected.is_none_or(|expected| expected.epoch == epoch) {
                    self.previous_id = self.producer.id;
                    self.producer = ProducerId { id: self.new_id(), epoch: 0 };
                    self.last_epoch = if expected.is_some() { epoch } else { -1 };
                } else if expected.is_none_or(|expected| expected.epoch == epoch) {
                    self.producer.epoch += 1;
                    self.last_epoch = if expected.is_some() { epoch } else { -1 };
                } else if expected.is_some_and(|expected| expected.epoch != self.last_epoch) {
                    return Err(ErrorCode::PRODUCER_FENCED);
                }
                self.state = TxnState::Empty;
                Ok(self.producer)
            }
        }
    }

    /// Aborts the open transaction, because it has timed out or another producer initializes.
    pub(super) fn fence(&mut self, is_v2: bool) {
        if self.state == TxnState::Ongoing {
            self.last_epoch = if is_v2 { self.producer.epoch } else { -1 };
            self.producer.epoch += 1;
            self.state = TxnState::Prepared { commit: false };
        }
    }

    /// Adds a partition or the group to the transaction, and opens one if there is none.
    pub(super) fn add(&mut self, producer: ProducerId, places: &[i32]) -> Result<(), ErrorCode> {
        // This comes first, because the producer may use an id that holds only after the markers.
        if matches!(self.state, TxnState::Prepared { .. }) {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        if producer.id != self.producer.id {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        if producer.epoch != self.producer.epoch {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        if self.state != TxnState::Ongoing {
            self.added.clear();
        }
        self.state = TxnState::Ongoing;
        self.added.extend(places);
        Ok(())
    }

    pub(super) fn end(&mut self, producer: ProducerId, commit: bool, is_v2: bool) -> Result<ProducerId, ErrorCode> {
        if matches!(self.state, TxnState::Prepared { .. }) {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let is_next_epoch = producer.id == self.producer.id && producer.epoch + 1 == self.producer.epoch;
        let is_next_id = producer.id == self.previous_id && producer.epoch == EXHAUSTED && self.producer.epoch == 0;
        if producer.id != self.producer.id && !(is_v2 && is_next_id) {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        let is_same = producer == self.producer;
        let is_retry = is_v2 && (is_next_epoch || is_next_id);
        let is_completed = matches!(self.state, TxnState::Completed { .. });
        if !(is_same || is_retry && is_completed) {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        match self.state {
            TxnState::Ongoing => Ok(self.prepare(commit, is_v2)),
            TxnState::Completed { commit: committed } if is_v2 && is_retry => {
                if commit == committed {
                    Ok(self.producer)
                } else {
                    Err(ErrorCode::INVALID_TXN_STATE)
                }
            }
            TxnState::Completed { .. } | TxnState::Empty if is_v2 && !commit => {
                self.added.clear();
                Ok(self.prepare(false, true))
            }
            TxnState::Completed { commit: committed } if !is_v2 && commit == committed => Ok(self.producer),
            _ => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }

    /// Decides on the end; returns the identity of the next transaction.
    fn prepare(&mut self, commit: bool, is_v2: bool) -> ProducerId {
        self.state = TxnState::Prepared { commit };
        if !is_v2 {
            return self.producer;
        }
        self.last_epoch = self.producer.epoch;
        if self.producer.epoch >= EXHAUSTED {
            let id = self.new_id();
            self.next_id = Some(id);
            self.producer.epoch = i16::MAX;
            return ProducerId { id, epoch: 0 };
        }
        self.producer.epoch += 1;
        self.producer
    }

    /// Writes the markers of a decided transaction.
    pub(super) fn write_markers(&mut self) {
        let TxnState::Prepared { commit } = self.state else { return };
        let ended = if commit { &mut self.committed } else { &mut self.aborted };
        ended.append(&mut self.records);
        for (place, offset) in std::mem::take(&mut self.offsets) {
            if commit {
                self.committed_offsets.insert(place, offset.value);
                self.numbers_of_offsets.insert(offset.number);
            }
        }
        for place in &self.added {
            let epoch = self.epochs.entry((*place, self.producer.id)).or_insert(-1);
            *epoch = self.producer.epoch.max(*epoch);
        }
        if let Some(id) = self.next_id.take() {
            self.previous_id = self.producer.id;
            self.producer = ProducerId { id, epoch: 0 };
        }
        self.added.clear();
        self.state = TxnState::Completed { commit };
    }

    /// Checks a write of a partition's leader or of the group coordinator.
    fn admit(&mut self, producer: ProducerId, place: i32, is_v2: bool) -> Result<(), ErrorCode> {
        if self.epochs.get(&(place, producer.id)).is_some_and(|known| *known > producer.epoch) {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if is_v2 {
            let fenced =
                |code| if code == ErrorCode::PRODUCER_FENCED { ErrorCode::INVALID_PRODUCER_EPOCH } else { code };
            return self.add(producer, &[place]).map_err(fenced);
        }
        let is_open = self.state == TxnState::Ongoing && self.producer == producer && self.added.contains(&place);
        if is_open { Ok(()) } else { Err(ErrorCode::INVALID_TXN_STATE) }
    }

    pub(super) fn produce(&mut self, producer: ProducerId, record: Written, is_v2: bool) -> Result<(), ErrorCode> {
        let key = (producer.id, producer.epoch, record.value);
        if self.appended.contains(&key) {
            return Ok(());
        }
        self.admit(producer, record.place, is_v2)?;
        self.check_one_transaction(record.number);
        self.appended.insert(key);
        self.records.push(record);
        Ok(())
    }

    pub(super) fn commit_offsets(
        &mut self,
        producer: ProducerId,
        offsets: &[Written],
        is_v2: bool,
    ) -> Result<(), ErrorCode> {
        self.admit(producer, GROUP, is_v2)?;
        for offset in offsets {
            self.check_one_transaction(offset.number);
            self.offsets.insert(offset.place, *offset);
        }
        Ok(())
    }

    /// Checks that nothing of an older transaction reaches a newer one.
    fn check_one_transaction(&self, number: u64) {
        let mut others = self.records.iter().chain(self.offsets.values()).filter(|other| other.number != number);
        assert_eq!(others.next(), None, "transaction {number} has something of another one");
    }
}
