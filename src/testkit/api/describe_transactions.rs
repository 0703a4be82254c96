//! DescribeTransactions 0: the transactions of transactional ids, by their coordinator. A group is
//! shown as its partition of `__consumer_offsets`, as with Kafka.

use std::collections::BTreeMap;

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::State,
    wire::{
        byte_string::ByteString,
        messages::{
            DescribeTransactionsRequest, DescribeTransactionsResponse,
            describe_transactions_response::{TopicData, TransactionState},
        },
    },
};

/// `offsets.topic.num.partitions`
const OFFSETS_PARTITIONS: i32 = 50;

pub(crate) struct DescribeTransactions(pub(crate) DescribeTransactionsRequest);

impl Call for DescribeTransactions {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        self.0.transactional_ids.first().map_or_else(Subject::default, |id| Subject::of_group(id))
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let states = self.0.transactional_ids.iter().map(|id| describe(context, id)).collect();
        let mut response = DescribeTransactionsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.transaction_states = states;
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

fn describe(context: &Context<'_>, id: &ByteString) -> TransactionState {
    let found = match context.refused() {
        Some(code) => Err(code),
        None if id.is_empty() => Err(ErrorCode::INVALID_REQUEST),
        None => context.state.check_coordinator(id, context.broker),
    };
    let found = found.and_then(|()| context.state.transactions.view(id).ok_or(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND));
    let error = context.spoiled(found.as_ref().err().copied().unwrap_or_default());
    let mut state = TransactionState { transactional_id: id.clone(), error_code: error.code(), ..Default::default() };
    if let (Ok(found), true) = (found, error.is_ok()) {
        state.transaction_state = text(found.state);
        state.transaction_timeout_ms = i32::try_from(found.timeout.as_millis()).unwrap_or(i32::MAX);
        state.transaction_start_time_ms = found.started.map_or(-1, |at| context.state.millis(at));
        state.producer_id = found.producer_id;
        state.producer_epoch = found.producer_epoch;
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in &found.partitions {
            topics.entry(&partition.topic).or_default().push(partition.partition);
        }
        for group in &found.groups {
            topics.entry("__consumer_offsets").or_default().push(offsets_partition(group));
        }
        let topics = topics.into_iter();
        state.topics = topics.map(|(topic, partitions)| TopicData { topic: text(topic), partitions }).collect();
    }
    state
}

/// Returns the partition of `__consumer_offsets` of a group: its name's hash, as Java computes it.
fn offsets_partition(group: &str) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % OFFSETS_PARTITIONS
}
