//! TxnOffsetCommit 0–6: offsets of a consumer group that count once the producer's transaction is
//! committed. The group's coordinator asks that of the transaction whether the group was added, or
//! adds it (v5, KIP-890). From version 3 on the member and its generation are checked (KIP-447);
//! topics by name, or by id (v6, KIP-1319, which also tells GROUP_ID_NOT_FOUND and
//! STALE_MEMBER_EPOCH from ILLEGAL_GENERATION).

use std::sync::Arc;

use super::{Call, Context, Step, Subject};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::{
        State,
        group::{Committed, MemberIdentity},
        transaction_coordinator::{Participants, ProducerIdAndEpoch},
    },
    wire::messages::{
        TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        txn_offset_commit_request::TxnOffsetCommitRequestTopic,
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
};

/// `offset.metadata.max.bytes`
const MAX_METADATA: usize = 4096;

/// The first version whose clients know COORDINATOR_LOAD_IN_PROGRESS.
const KNOWS_LOADING: i16 = 2;
/// The first version whose clients know TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 4;
/// The first version that adds the group to the transaction.
const ADDS_GROUP: i16 = 5;
/// The first version with topic ids and the errors of newer groups.
const TOPIC_IDS: i16 = 6;

pub(crate) struct TxnOffsetCommit(pub(crate) TxnOffsetCommitRequest);

impl Call for TxnOffsetCommit {
    fn subject(&self, state: &State, _broker: i32) -> Subject {
        let partitions = self.0.topics.iter().flat_map(|topic| {
            let name = state.topics.name_of(topic.topic_id).map_or(&*topic.name, |name| &**name);
            topic.partitions.iter().map(move |asked| TopicPartition::new(name, asked.partition_index))
        });
        Subject { partitions: partitions.collect(), group: Some(self.0.group_id.to_string()) }
    }

    fn transactional_id(&self) -> Option<&str> {
        Some(&self.0.transactional_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let names: Vec<_> = self.0.topics.iter().map(|topic| name_of(topic, context)).collect();
        let mut checked: Vec<Vec<Result<(), ErrorCode>>> = Vec::with_capacity(names.len());
        for (topic, name) in self.0.topics.iter().zip(&names) {
            let check = |index| check_partition(context, name.as_deref(), index);
            checked.push(topic.partitions.iter().map(|asked| check(asked.partition_index)).collect());
        }
        // Without a partition that exists, the coordinators are not asked.
        let any = checked.iter().flatten().any(Result::is_ok);
        let allowed = if any { self.allowed(context) } else { Ok(()) };
        let mut response = TxnOffsetCommitResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for ((topic, name), checked) in self.0.topics.iter().zip(&names).zip(checked) {
            let known = name.as_deref().unwrap_or_default();
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for (asked, checked) in topic.partitions.iter().zip(checked) {
                let index = asked.partition_index;
                let metadata = asked.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default();
                let error = match checked.and(allowed) {
                    Err(code) => code,
                    Ok(()) if metadata.len() > MAX_METADATA => ErrorCode::OFFSET_METADATA_TOO_LARGE,
                    Ok(()) => {
                        let leader_epoch = asked.committed_leader_epoch;
                        let committed = Committed { offset: asked.committed_offset, leader_epoch, metadata };
                        let producer = (self.0.producer_id, self.0.producer_epoch);
                        let group = context.state.group_mut(&self.0.group_id, context.now);
                        group.offsets.commit_in_transaction(producer, known, index, committed);
                        ErrorCode::NONE
                    }
                };
                let error = match context.spoiled_partition(known, index, error) {
                    ErrorCode::COORDINATOR_LOAD_IN_PROGRESS if context.head.version < KNOWS_LOADING => {
                        ErrorCode::COORDINATOR_NOT_AVAILABLE
                    }
                    error => error,
                };
                answers.push(TxnOffsetCommitResponsePartition { partition_index: index, error_code: error.code() });
            }
            let (name, topic_id) = (topic.name.clone(), topic.topic_id);
            response.topics.push(TxnOffsetCommitResponseTopic { name, topic_id, partitions: answers });
        }
        context.reply(&response)
    }
}

fn name_of(topic: &TxnOffsetCommitRequestTopic, context: &Context<'_>) -> Option<Arc<str>> {
    if context.head.version >= TOPIC_IDS {
        context.state.topics.name_of(topic.topic_id).cloned()
    } else {
        Some(Arc::from(&*topic.name))
    }
}

fn check_partition(context: &Context<'_>, topic: Option<&str>, partition: i32) -> Result<(), ErrorCode> {
    if let Some(code) = context.refused_partition(topic.unwrap_or_default(), partition) {
        return Err(code);
    }
    let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
    let found = context.state.topics.partition(topic, partition);
    found.map(|_| ()).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

impl TxnOffsetCommit {
    /// Makes the checks of both coordinators: the group is in the transaction, and the member may
    /// commit.
    fn allowed(&self, context: &mut Context<'_>) -> Result<(), ErrorCode> {
        context.check_group(&self.0.group_id)?;
        self.verify(context)?;
        let identity = MemberIdentity {
            member_id: self.0.member_id.to_string(),
            instance: self.0.group_instance_id.as_ref().map(ToString::to_string),
        };
        let generation = self.0.generation_id_or_member_epoch;
        let distinguishes = context.head.version >= TOPIC_IDS;
        if let Some((group, ..)) = context.state.consumer_group(&self.0.group_id, context.now) {
            let allowed = group.may_commit_in_transaction(context.now, &identity, generation);
            return allowed.map_err(|code| match code {
                ErrorCode::STALE_MEMBER_EPOCH if !distinguishes => ErrorCode::ILLEGAL_GENERATION,
                code => code,
            });
        }
        let settings = context.state.group_settings();
        let group = context.state.group_mut(&self.0.group_id, context.now);
        let allowed = group.classic.may_commit_in_transaction(context.now, &identity, generation, &settings);
        let unknown = distinguishes && group.classic.is_unknown();
        allowed.map_err(|code| if unknown { ErrorCode::GROUP_ID_NOT_FOUND } else { code })
    }

    fn verify(&self, context: &mut Context<'_>) -> Result<(), ErrorCode> {
        let (version, id) = (context.head.version, &*self.0.transactional_id);
        let adds = version >= ADDS_GROUP;
        let (producer_id, epoch) = (self.0.producer_id, self.0.producer_epoch);
        let group = context.state.group_mut(&self.0.group_id, context.now);
        let needed = group.offsets.pending().needs_verification(producer_id, epoch)?;
        if !needed || !(adds || context.state.options.verifies_transactions) {
            return Ok(());
        }
        if context.state.coordinator(id).is_none() {
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        let producer = ProducerIdAndEpoch { id: producer_id, epoch };
        let group = Participants::of_group(&self.0.group_id);
        let verified = match adds {
            _ if id.is_empty() => Err(ErrorCode::INVALID_REQUEST),
            true => context.state.transactions.add(id, producer, group, context.now),
            false => context.state.transactions.verify(id, producer, &group),
        };
        verified.map_err(|code| match code {
            ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
            ErrorCode::TRANSACTION_ABORTABLE if version < KNOWS_ABORTABLE => ErrorCode::INVALID_TXN_STATE,
            code => code,
        })
    }
}
