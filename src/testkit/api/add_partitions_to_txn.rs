//! AddPartitionsToTxn 0–5: adds partitions to the transaction of a transactional id. Versions from
//! 4 on are those of brokers: several transactions in one request, and the question whether the
//! partitions were added already (`verify_only`). If one partition does not exist none is added.

use std::collections::BTreeSet;

use super::{Call, Context, Step, Subject, fenced};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::{
        State,
        transaction_coordinator::{Participants, ProducerIdAndEpoch},
    },
    wire::messages::{
        AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        add_partitions_to_txn_response::{
            AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
        },
    },
};

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

/// The first version with several transactions.
const BATCHED: i16 = 4;

pub(crate) struct AddPartitionsToTxn {
    transactions: Vec<AddPartitionsToTxnTransaction>,
}

impl AddPartitionsToTxn {
    pub(crate) fn new(request: AddPartitionsToTxnRequest, version: i16) -> Self {
        if version >= BATCHED {
            return Self { transactions: request.transactions };
        }
        let only = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        Self { transactions: vec![only] }
    }
}

impl Call for AddPartitionsToTxn {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        let partitions = self.transactions.iter().flat_map(|transaction| partitions_of(&transaction.topics)).collect();
        Subject { partitions, group: self.transactional_id().map(str::to_owned) }
    }

    fn transactional_id(&self) -> Option<&str> {
        self.transactions.first().map(|transaction| &*transaction.transactional_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = AddPartitionsToTxnResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for transaction in &self.transactions {
            let topic_results = answer(transaction, context);
            if context.head.version >= BATCHED {
                let transactional_id = transaction.transactional_id.clone();
                response.results_by_transaction.push(AddPartitionsToTxnResult { transactional_id, topic_results });
            } else {
                response.results_by_topic_v3_and_below = topic_results;
            }
        }
        context.reply(&response)
    }
}

fn partitions_of(topics: &[AddPartitionsToTxnTopic]) -> BTreeSet<TopicPartition> {
    let partitions = |topic: &AddPartitionsToTxnTopic| -> Vec<_> {
        topic.partitions.iter().map(|&partition| TopicPartition::new(&*topic.name, partition)).collect()
    };
    topics.iter().flat_map(partitions).collect()
}

/// Adds or verifies the partitions of one transaction, and returns the result of each.
fn answer(
    transaction: &AddPartitionsToTxnTransaction,
    context: &mut Context<'_>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let partitions = partitions_of(&transaction.topics);
    let fault = |context: &Context<'_>, at: &TopicPartition| match context.refused_partition(&at.topic, at.partition) {
        None if context.state.topics.partition(&at.topic, at.partition).is_none() => {
            Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        }
        refused => refused,
    };
    let all_or_none = if partitions.iter().any(|partition| fault(context, partition).is_some()) {
        Err(ErrorCode::OPERATION_NOT_ATTEMPTED)
    } else if transaction.verify_only {
        Ok(())
    } else {
        act_on(transaction, context, |context, producer| {
            let added = Participants::of_partitions(partitions.clone());
            context.state.transactions.add(&transaction.transactional_id, producer, added, context.now)
        })
    };
    let mut results = Vec::with_capacity(transaction.topics.len());
    for topic in &transaction.topics {
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for &index in &topic.partitions {
            let partition = TopicPartition::new(&*topic.name, index);
            let result = match (fault(context, &partition), all_or_none) {
                (Some(code), _) | (None, Err(code)) => Err(code),
                (None, Ok(())) if transaction.verify_only => act_on(transaction, context, |context, producer| {
                    let asked = Participants::of_partitions([partition]);
                    context.state.transactions.verify(&transaction.transactional_id, producer, &asked)
                }),
                (None, Ok(())) => Ok(()),
            };
            let error = context.spoiled_partition(&topic.name, index, result.err().unwrap_or_default());
            answers.push(AddPartitionsToTxnPartitionResult {
                partition_index: index,
                partition_error_code: fenced(error, context.head.version, KNOWS_FENCED).code(),
            });
        }
        results.push(AddPartitionsToTxnTopicResult { name: topic.name.clone(), results_by_partition: answers });
    }
    results
}

fn act_on(
    transaction: &AddPartitionsToTxnTransaction,
    context: &mut Context<'_>,
    act: impl FnOnce(&mut Context<'_>, ProducerIdAndEpoch) -> Result<(), ErrorCode>,
) -> Result<(), ErrorCode> {
    if transaction.transactional_id.is_empty() {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    context.state.check_coordinator(&transaction.transactional_id, context.broker)?;
    act(context, ProducerIdAndEpoch { id: transaction.producer_id, epoch: transaction.producer_epoch })
}
