//! One transactional id at its coordinator: the producer id and epoch that it has, and the
//! transaction that is open under them.
//!
//! ```text
//!   Empty ──────────┐                ┌─ commit ─▶ PrepareCommit ─ markers ─▶ CompleteCommit
//!   CompleteCommit ─┼─ partition ─▶ Ongoing                    written
//!   CompleteAbort ──┘   added        └─ abort, timeout, ─▶ PrepareAbort ──▶ CompleteAbort
//!     │  ▲                              new producer          ▲
//!     │  └── InitProducerId (to Empty, from all of these)     │
//!     └───── abort of nothing, with transactions v2 ──────────┘
//! ```
//!
//! The rules are those of Kafka's `TransactionCoordinator` and `TransactionMetadata` (KIP-98,
//! KIP-360, KIP-890). With transactions v2 each EndTxn raises the epoch, before the markers are
//! written, so that a repeated EndTxn is recognized by its older epoch.
//!
//! Sans-IO.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{error::ErrorCode, record::TopicPartition};

/// The last epoch that a client may use; the one after it is left for the coordinator, which fences
/// with it.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// The epoch of a producer id that no client has got yet.
pub(super) const NO_EPOCH: i16 = -1;

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerIdAndEpoch {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// The protocol of a transaction. Brokers decide by the version of each request (AddPartitionsToTxn
/// 4, Produce 12, TxnOffsetCommit 5 and EndTxn 5 are the first of version 2), and by
/// `transaction.version` for what they do on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionVersion {
    V1,
    V2,
}

/// The state of a transaction, with Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionState {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl TransactionState {
    pub(crate) const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

/// The partitions and groups that a transaction has written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Participants {
    pub(crate) partitions: BTreeSet<TopicPartition>,
    pub(crate) groups: BTreeSet<String>,
}

impl Participants {
    pub(crate) fn of_partitions(partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        Self { partitions: partitions.into_iter().collect(), groups: BTreeSet::new() }
    }

    pub(crate) fn of_group(group: &str) -> Self {
        Self { partitions: BTreeSet::new(), groups: BTreeSet::from([group.to_owned()]) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.groups.is_empty()
    }
}

/// One transactional id.
#[derive(Debug)]
pub(crate) struct TransactionalId {
    pub(super) producer: ProducerIdAndEpoch,
    /// The producer id before the last transition: a client that did not get the answer repeats its
    /// request with it.
    previous_id: i64,
    /// The producer id that follows when the markers are written, because the epochs of this one
    /// are used up.
    next_id: Option<i64>,
    /// The epoch before the last one, unless another producer was fenced by it.
    last_epoch: i16,
    pub(super) timeout: Duration,
    pub(super) state: TransactionState,
    pub(super) participants: Participants,
    pub(super) started: Option<Instant>,
    version: TransactionVersion,
    /// Time at which the markers are written; set in the two prepared states.
    pub(super) markers_due: Option<Instant>,
    /// Time before which the coordinator makes no change by itself, because it is down.
    not_before: Option<Instant>,
    /// The broker that last wrote markers as the coordinator, and the epoch of its term.
    coordinator: Option<i32>,
    coordinator_epoch: i32,
}

/// The circumstances of a transition: the time, and values that its id does not know.
pub(crate) struct Transition<'a> {
    pub(crate) now: Instant,
    /// Time at which the markers are written if the transition ends the transaction.
    pub(crate) markers_due: Instant,
    /// The version of transactions that the coordinator ends on its own.
    pub(crate) server_version: TransactionVersion,
    pub(crate) new_producer_id: &'a mut dyn FnMut() -> i64,
}

/// The markers of a transaction that is ending.
#[derive(Clone, Debug)]
pub(crate) struct EndMarkers {
    pub(crate) producer: ProducerIdAndEpoch,
    pub(crate) committed: bool,
    pub(crate) version: TransactionVersion,
    pub(crate) participants: Participants,
    pub(crate) coordinator_epoch: i32,
}

impl TransactionalId {
    /// Creates the state of an id that no producer has used yet.
    pub(super) fn new(producer_id: i64) -> Self {
        Self {
            producer: ProducerIdAndEpoch { id: producer_id, epoch: NO_EPOCH },
            previous_id: -1,
            next_id: None,
            last_epoch: NO_EPOCH,
            timeout: Duration::ZERO,
            state: TransactionState::Empty,
            participants: Participants::default(),
            started: None,
            version: TransactionVersion::V1,
            markers_due: None,
            not_before: None,
            coordinator: None,
            coordinator_epoch: 0,
        }
    }

    /// Returns true while markers are being written.
    fn is_ending(&self) -> bool {
        matches!(self.state, TransactionState::PrepareCommit | TransactionState::PrepareAbort)
    }

    fn is_exhausted(&self) -> bool {
        self.producer.epoch >= LAST_EPOCH
    }

    /// Returns the time of the next change that needs no request: the end of the timeout, or the
    /// writing of the markers.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = match self.state {
            TransactionState::Ongoing => self.started.map(|started| started + self.timeout),
            _ => self.markers_due,
        };
        deadline.map(|at| self.not_before.map_or(at, |not_before| at.max(not_before)))
    }

    /// Puts the next change off.
    pub(super) fn postpone(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// Handles InitProducerId: raises the epoch, or replaces an exhausted producer id. `expected`
    /// is the id and epoch that the client has (KIP-360); without them it is a new producer, which
    /// fences every other one.
    pub(super) fn init(
        &mut self,
        expected: Option<ProducerIdAndEpoch>,
        timeout: Duration,
        transition: &mut Transition<'_>,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        if self.is_ending() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let is_known = |expected: ProducerIdAndEpoch| {
            self.producer.epoch == NO_EPOCH
                || expected.id == self.producer.id
                || (expected.id == self.previous_id && expected.epoch >= LAST_EPOCH)
        };
        if !expected.is_none_or(is_known) {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        if self.state == TransactionState::Ongoing {
            // The client has to ask again, which raises the epoch once more.
            self.fence(transition);
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let id = self.producer.id;
        let current = self.producer.epoch;
        (self.producer, self.last_epoch) = match expected.map(|expected| expected.epoch) {
            epoch if self.is_exhausted() && epoch.is_none_or(|epoch| epoch == current) => {
                let last = if epoch.is_some() { current } else { NO_EPOCH };
                (ProducerIdAndEpoch { id: (transition.new_producer_id)(), epoch: 0 }, last)
            }
            // Kafka's coordinator fails with an exception here.
            _ if self.is_exhausted() => return Err(ErrorCode::UNKNOWN_SERVER_ERROR),
            None => (ProducerIdAndEpoch { id, epoch: current + 1 }, NO_EPOCH),
            Some(epoch) if current == NO_EPOCH || epoch == current => {
                (ProducerIdAndEpoch { id, epoch: current + 1 }, current)
            }
            // The repetition of a request whose answer was lost.
            Some(epoch) if epoch == self.last_epoch => (self.producer, self.last_epoch),
            Some(_) => return Err(ErrorCode::PRODUCER_FENCED),
        };
        self.previous_id = id;
        self.timeout = timeout;
        self.state = TransactionState::Empty;
        self.participants = Participants::default();
        self.started = None;
        Ok(self.producer)
    }

    /// Adds partitions or groups to the transaction, which begins with the first.
    pub(super) fn add(
        &mut self,
        producer: ProducerIdAndEpoch,
        participants: Participants,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        // Checked first, because the client may have the producer id that follows already.
        if self.is_ending() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        self.check_producer(producer)?;
        if self.state != TransactionState::Ongoing {
            self.state = TransactionState::Ongoing;
            self.previous_id = self.producer.id;
            self.started = Some(now);
        }
        self.participants.partitions.extend(participants.partitions);
        self.participants.groups.extend(participants.groups);
        Ok(())
    }

    /// Checks that a partition or group was added before, as brokers do for clients of version 1.
    pub(super) fn verify(&self, producer: ProducerIdAndEpoch, participant: &Participants) -> Result<(), ErrorCode> {
        self.check_producer(producer)?;
        if self.is_ending() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let there = participant.partitions.is_subset(&self.participants.partitions)
            && participant.groups.is_subset(&self.participants.groups);
        if there { Ok(()) } else { Err(ErrorCode::TRANSACTION_ABORTABLE) }
    }

    fn check_producer(&self, producer: ProducerIdAndEpoch) -> Result<(), ErrorCode> {
        if producer.id != self.producer.id {
            Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING)
        } else if producer.epoch != self.producer.epoch {
            Err(ErrorCode::PRODUCER_FENCED)
        } else {
            Ok(())
        }
    }

    /// Handles EndTxn. Returns the id and epoch of the next transaction, which only version 2 tells
    /// the client.
    pub(super) fn end(
        &mut self,
        producer: ProducerIdAndEpoch,
        committed: bool,
        version: TransactionVersion,
        transition: &mut Transition<'_>,
    ) -> Result<Option<ProducerIdAndEpoch>, ErrorCode> {
        match version {
            TransactionVersion::V1 => self.end_v1(producer, committed, transition).map(|()| None),
            TransactionVersion::V2 => self.end_v2(producer, committed, transition).map(Some),
        }
    }

    fn end_v1(
        &mut self,
        producer: ProducerIdAndEpoch,
        committed: bool,
        transition: &mut Transition<'_>,
    ) -> Result<(), ErrorCode> {
        use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};
        self.check_producer(producer)?;
        match (self.state, committed) {
            (PrepareCommit | PrepareAbort, _) => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            (Ongoing, _) => {
                self.prepare(committed, TransactionVersion::V1, transition);
                Ok(())
            }
            (CompleteCommit, true) | (CompleteAbort, false) => Ok(()),
            (CompleteCommit, false) | (CompleteAbort, true) | (Empty, _) => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }

    fn end_v2(
        &mut self,
        producer: ProducerIdAndEpoch,
        committed: bool,
        transition: &mut Transition<'_>,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing};
        if self.is_ending() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let overflowed = self.previous_id == producer.id && producer.epoch == LAST_EPOCH && self.producer.epoch == 0;
        if producer.id != self.producer.id && !overflowed {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        // An EndTxn that has raised the epoch already is repeated with the epoch before it.
        let repeated = overflowed || producer.epoch.checked_add(1) == Some(self.producer.epoch);
        let may_repeat = matches!(self.state, CompleteCommit | CompleteAbort);
        let is_valid = producer.epoch == self.producer.epoch || (may_repeat && repeated);
        if !is_valid {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        match (self.state, committed) {
            (Ongoing, _) => Ok(self.prepare(committed, TransactionVersion::V2, transition)),
            (CompleteCommit, true) | (CompleteAbort, false) if repeated => Ok(self.producer),
            // An abort of nothing still raises the epoch.
            (Empty | CompleteCommit | CompleteAbort, false) if !repeated => {
                Ok(self.prepare(false, TransactionVersion::V2, transition))
            }
            _ => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }

    /// Aborts the open transaction, because it has lasted too long or another producer has taken
    /// over the id, under an epoch that its producer does not know.
    pub(super) fn fence(&mut self, transition: &mut Transition<'_>) {
        let version = transition.server_version;
        if version == TransactionVersion::V1 {
            self.producer.epoch = self.producer.epoch.saturating_add(1);
            self.last_epoch = NO_EPOCH;
        }
        self.prepare(false, version, transition);
    }

    /// Begins to end the transaction; returns the id and epoch of the next one.
    fn prepare(
        &mut self,
        committed: bool,
        version: TransactionVersion,
        transition: &mut Transition<'_>,
    ) -> ProducerIdAndEpoch {
        self.next_id = None;
        if version == TransactionVersion::V2 {
            self.next_id = self.is_exhausted().then(|| (transition.new_producer_id)());
            self.last_epoch = self.producer.epoch;
            self.producer.epoch = self.producer.epoch.saturating_add(1);
        }
        self.previous_id = self.producer.id;
        self.started = self.started.or(Some(transition.now));
        self.version = version;
        self.state = if committed { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        self.markers_due = Some(transition.markers_due);
        self.next_id.map_or(self.producer, |id| ProducerIdAndEpoch { id, epoch: 0 })
    }

    /// Returns the markers to be written, by that broker as the coordinator; `None` if no
    /// transaction is ending. The epoch of the coordinator rises with every change of the broker.
    pub(super) fn markers(&mut self, coordinator: i32) -> Option<EndMarkers> {
        if !self.is_ending() {
            return None;
        }
        if self.coordinator.replace(coordinator).is_some_and(|former| former != coordinator) {
            self.coordinator_epoch += 1;
        }
        Some(EndMarkers {
            producer: self.producer,
            committed: self.state == TransactionState::PrepareCommit,
            version: self.version,
            participants: self.participants.clone(),
            coordinator_epoch: self.coordinator_epoch,
        })
    }

    /// Notes the result of writing markers: `left` are the partitions and groups without theirs,
    /// to which they are written at `retry_at`.
    pub(super) fn markers_written(&mut self, left: Participants, retry_at: Instant) {
        if !left.is_empty() {
            self.participants = left;
            self.markers_due = Some(retry_at);
            return;
        }
        self.previous_id = self.producer.id;
        if let Some(id) = self.next_id.take() {
            self.producer = ProducerIdAndEpoch { id, epoch: 0 };
        }
        self.state = match self.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            _ => TransactionState::CompleteAbort,
        };
        self.participants = Participants::default();
        self.markers_due = None;
    }

    /// Sets the epoch of an id without an open transaction.
    pub(super) fn set_epoch(&mut self, epoch: i16) {
        self.producer.epoch = epoch;
        self.last_epoch = NO_EPOCH;
    }

    /// Begins a transaction that wrote to nothing, for a sink, which does not look at what is
    /// produced.
    pub(super) fn assume_ongoing(&mut self, now: Instant) {
        if !self.is_ending() && self.state != TransactionState::Ongoing {
            self.state = TransactionState::Ongoing;
            self.started = Some(now);
        }
    }
}
