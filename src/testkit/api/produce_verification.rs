//! The question to the transaction coordinator that precedes the first batch of a transaction in a
//! partition (KIP-890). Up to Produce 11 the producer has added the partition itself and the leader
//! only asks whether it did; from Produce 12 on the leader adds the partition.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::Context;
use crate::{
    error::ErrorCode,
    record::TopicPartition,
    testkit::state::{
        producers::Stamp,
        transaction_coordinator::{Participants, ProducerIdAndEpoch},
    },
};

/// The first version of Produce whose clients know TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 11;
/// The first version of Produce that adds the partition to the transaction.
const ADDS_PARTITIONS: i16 = 12;

/// Time for which a leader lets a batch wait while the markers of the transaction before are
/// written (`add.partitions.to.txn.retry.backoff.max.ms`).
const PATIENCE: Duration = Duration::from_millis(100);

/// A transactional batch of a request.
pub(super) struct TransactionalBatch {
    pub(super) partition: TopicPartition,
    pub(super) stamp: Stamp,
}

/// The result for a request.
pub(super) enum Verification {
    /// No batch of the request may be appended.
    Refused(ErrorCode),
    /// These partitions have errors, and the batches of all others may be appended.
    Done(HashMap<TopicPartition, ErrorCode>),
    /// The coordinator has to be asked again, at the latest at that time.
    Later(Instant),
}

/// Asks the coordinator about the batches of a request. `since` is the time of the first question.
pub(super) fn verify(
    context: &mut Context<'_>,
    transactional_id: Option<&str>,
    batches: Vec<TransactionalBatch>,
    since: Instant,
) -> Verification {
    let Some(transactional_id) = transactional_id else {
        return Verification::Refused(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    };
    let Some(first) = batches.first().map(|batch| batch.stamp) else { return Verification::Done(HashMap::new()) };
    let producer = ProducerIdAndEpoch { id: first.producer_id, epoch: first.epoch };
    if batches.iter().any(|batch| (batch.stamp.producer_id, batch.stamp.epoch) != (producer.id, producer.epoch)) {
        return Verification::Refused(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    }
    let version = context.head.version;
    let adds = version >= ADDS_PARTITIONS;
    let mut errors = HashMap::new();
    if !adds && !context.state.options.verifies_transactions {
        return Verification::Done(errors);
    }
    let unverified = unverified(context, batches, &mut errors);
    if unverified.is_empty() {
        return Verification::Done(errors);
    }
    let answers = ask(context, transactional_id, producer, unverified, adds);
    let is_busy = answers.iter().any(|(_, answer)| *answer == Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    if adds && is_busy && context.now < since + PATIENCE {
        let ended = context.state.transactions.deadline().unwrap_or(since + PATIENCE);
        return Verification::Later(ended.min(since + PATIENCE));
    }
    for (partition, answer) in answers {
        let Err(code) = answer else { continue };
        let code = match code {
            ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
            // Retriable for clients of every version, and no reason to refresh the metadata.
            ErrorCode::COORDINATOR_NOT_AVAILABLE => ErrorCode::NOT_ENOUGH_REPLICAS,
            ErrorCode::CONCURRENT_TRANSACTIONS if !adds => ErrorCode::NOT_ENOUGH_REPLICAS,
            ErrorCode::TRANSACTION_ABORTABLE if version < KNOWS_ABORTABLE => ErrorCode::INVALID_TXN_STATE,
            code => code,
        };
        errors.insert(partition, code);
    }
    Verification::Done(errors)
}

/// Returns the partitions for which the coordinator has to be asked. Those that have errors of
/// their own are left to the append.
fn unverified(
    context: &mut Context<'_>,
    batches: Vec<TransactionalBatch>,
    errors: &mut HashMap<TopicPartition, ErrorCode>,
) -> Vec<TopicPartition> {
    let (version, broker) = (context.head.version, context.broker);
    let mut unverified = Vec::new();
    for TransactionalBatch { partition: at, stamp } in batches {
        if context.refused_partition(&at.topic, at.partition).is_some() {
            continue;
        }
        let Some(partition) = context.state.topics.partition_mut(&at.topic, at.partition) else { continue };
        if partition.check_leader(broker, -1).is_err() {
            continue;
        }
        let is_open = partition.log.transactions().is_open(stamp.producer_id);
        match partition.producers.needs_verification(&stamp, is_open, version >= ADDS_PARTITIONS) {
            Ok(true) => unverified.push(at),
            Ok(false) => {}
            Err(code) => _ = errors.insert(at, code),
        }
    }
    unverified
}

fn ask(
    context: &mut Context<'_>,
    transactional_id: &str,
    producer: ProducerIdAndEpoch,
    partitions: Vec<TopicPartition>,
    adds: bool,
) -> Vec<(TopicPartition, Result<(), ErrorCode>)> {
    let now = context.now;
    let is_up = context.state.coordinator(transactional_id).is_some();
    let transactions = &mut context.state.transactions;
    let all = match (is_up, adds) {
        (false, _) => Some(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)),
        (true, true) => {
            let added = Participants::of_partitions(partitions.iter().cloned());
            Some(transactions.add(transactional_id, producer, added, now))
        }
        (true, false) => None,
    };
    let answer = |partition: &TopicPartition| {
        let asked = || Participants::of_partitions([partition.clone()]);
        all.unwrap_or_else(|| transactions.verify(transactional_id, producer, &asked()))
    };
    partitions.into_iter().map(|partition| (partition.clone(), answer(&partition))).collect()
}
