//! A commit to the group's coordinator (OffsetCommit): the offsets that are left to commit, the
//! checks before each attempt, and the effect of each response on them.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use crate::consumer::group::{
    classic::requests::text,
    member_snapshot::{Identity, MemberSnapshot, Owned},
    offsets::{
        commit_order::{CommitNumber, CommitOrder, CommitOrigin},
        commit_response::{CodeClass, ResponseCodes},
    },
};
use crate::{
    cluster::Metadata,
    consumer::OffsetAndMetadata,
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
    wire::{
        byte_string::ByteString,
        messages::{
            OffsetCommitRequest, OffsetCommitResponse,
            offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        },
    },
};

/// Last version of OffsetCommit and OffsetFetch that names topics. Later ones send topic ids
/// (KIP-848), so that an offset of a topic that was deleted and created again is refused.
pub(crate) const LAST_BY_NAME: i16 = 9;

/// Longest metadata that the protocol can carry, in bytes. Brokers accept less:
/// `offset.metadata.max.bytes`, 4096 by default.
const LONGEST_METADATA: usize = i16::MAX as usize;

/// An offset to commit, with its topic's id (nil if it is not known).
pub(crate) type ToCommit = (TopicPartition, OffsetAndMetadata, Uuid);

/// A committed offset and the origin of its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) topic_id: Uuid,
    pub(crate) origin: CommitOrigin,
}

/// Time for which a commit is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryPolicy {
    /// Until the coordinator has answered: offsets that it refuses for now are left to the next
    /// commit.
    OneResponse,
    /// Until everything is committed. A topic that the coordinator does not know is not waited for,
    /// because it may have been deleted.
    UntilCommitted,
    /// Until everything is committed, including topics that the coordinator does not know, like the
    /// blocking commit of Kafka's Java client.
    UntilTopicsExist,
}

/// The offset to commit for one partition.
#[derive(Clone, Debug)]
struct PendingOffset {
    offset: OffsetAndMetadata,
    /// The ownership period in which the commit was requested.
    ownership: u64,
    topic_id: Uuid,
    number: CommitNumber,
    seek_epoch: u64,
}

impl PendingOffset {
    /// Returns true if this offset replaces `other`: the later request does, unless it is an
    /// auto-commit that would move the user's offset back.
    fn replaces(&self, other: &Self) -> bool {
        let is_later = self.number.at > other.number.at;
        let (earlier, later) = if is_later { (other, self) } else { (self, other) };
        let moves_back =
            earlier.number.by_user && !later.number.by_user && later.offset.offset <= earlier.offset.offset;
        is_later != moves_back
    }

    /// Returns true if the offset must not be committed any more: the partition was revoked since
    /// the request, or its topic was created again. `owned` is `None` outside of a group.
    fn is_lost(&self, partition: &TopicPartition, owned: Option<&Owned>, metadata: &Metadata) -> bool {
        let is_owned = owned.is_none_or(|owned| owned.get(partition) == Some(&self.ownership));
        let topic = metadata.topic(&partition.topic).filter(|topic| !topic.id.is_nil() && !self.topic_id.is_nil());
        !is_owned || topic.is_some_and(|topic| topic.id != self.topic_id)
    }

    /// Returns true if the topic has a known id, and the metadata does not confirm that the topic
    /// exists. Metadata up to version `unknown_topic_at` does not count: it is older than a
    /// response that the coordinator does not know the topic.
    fn awaits_topic(&self, partition: &TopicPartition, metadata: &Metadata, unknown_topic_at: u64) -> bool {
        let confirmed = metadata.topic(&partition.topic).is_some_and(|topic| {
            topic.error != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && metadata.version > unknown_topic_at
        });
        !self.topic_id.is_nil() && !confirmed
    }
}

/// A commit under way, with the offsets that are left to commit.
#[derive(Debug)]
pub(crate) struct Commit {
    group_id: Arc<str>,
    instance_id: Option<Arc<str>>,
    /// True if it is sent without a generation, for consumers that are in no group.
    without_group: bool,
    pending: BTreeMap<TopicPartition, PendingOffset>,
    /// Partitions that the next attempt leaves out: their topic's id is known but missing in the
    /// metadata. They wait, because the coordinator could take another topic of the same name for
    /// it.
    held_back: BTreeSet<TopicPartition>,
    /// Version of the metadata when the coordinator did not know some topic.
    unknown_topic_at: u64,
    /// Partitions that were revoked during the commit.
    lost: BTreeSet<TopicPartition>,
    /// First error because of which partitions were dropped from the commit.
    refused: Option<Error>,
}

/// State that a commit is checked against before each attempt.
pub(crate) struct CommitContext<'a> {
    pub(crate) member: &'a MemberSnapshot,
    pub(crate) metadata: &'a Metadata,
    pub(crate) order: &'a CommitOrder,
}

/// Next step of a commit.
#[derive(Clone, Debug)]
pub(crate) enum AttemptDecision {
    /// Send it for that member; `None` sends it without a generation.
    Send(Option<Identity>),
    /// The partitions are kept over a rebalance that is not complete, and there is no generation to
    /// commit in before it is.
    AwaitMembership,
    /// Wait for the topics, because the metadata has none of those that are left.
    AwaitTopic(Error),
    /// All partitions are done: nothing is left to commit.
    Finished,
}

/// Meaning of a response for the commit.
#[derive(Debug)]
pub(crate) enum CommitOutcome {
    /// All partitions are done: nothing is left to commit.
    Finished,
    /// The rest may be sent again; if `find_coordinator`, the coordinator has to be found first.
    Retry { find_coordinator: bool, error: Error },
    /// The member or generation that it was sent for is not (or no longer) current: `said` is for
    /// the membership. If there is another one by then, the rest may be sent again, otherwise
    /// `error` is the result.
    StaleMember { error: Error, said: Error },
}

impl CommitOutcome {
    /// Returns the coordinator's error, with Kafka's code, for the log and the membership; `None`
    /// if nothing is left to commit.
    pub(crate) fn said(&self) -> Option<&Error> {
        match self {
            Self::Finished => None,
            Self::Retry { error: said, .. } | Self::StaleMember { said, .. } => Some(said),
        }
    }
}

impl Commit {
    /// Creates a commit for partitions that are owned now. Fails if the user commits one that is
    /// not owned; an auto-commit leaves it out.
    pub(crate) fn new(
        group_id: Arc<str>,
        instance_id: Option<Arc<str>>,
        member: &MemberSnapshot,
        number: CommitNumber,
        seek_epoch: u64,
        offsets: Vec<ToCommit>,
    ) -> Result<Self> {
        let mut commit = Self {
            group_id,
            instance_id,
            without_group: true,
            pending: BTreeMap::new(),
            held_back: BTreeSet::new(),
            unknown_topic_at: 0,
            lost: BTreeSet::new(),
            refused: None,
        };
        if offsets.is_empty() {
            return Ok(commit);
        }
        offsets.iter().try_for_each(check_offset)?;
        let owned = match member {
            MemberSnapshot::NoGroup => None,
            MemberSnapshot::Member { owned, .. } | MemberSnapshot::Rebalancing { owned, .. } => Some(owned),
            MemberSnapshot::Fenced => {
                let message = format!("commit for group {}: the consumer is out of the group", commit.group_id);
                return Err(Error::new(ErrorKind::NotAssigned, message));
            }
            MemberSnapshot::Ended(error) => return Err(error.clone()),
        };
        commit.without_group = owned.is_none();
        for (partition, offset, topic_id) in offsets {
            let ownership = owned.map_or(Some(0), |owned| owned.get(&partition).copied());
            if let Some(ownership) = ownership {
                commit.pending.insert(partition, PendingOffset { offset, ownership, topic_id, number, seek_epoch });
                continue;
            }
            let error = commit.not_owned(&partition, member);
            if number.by_user {
                return Err(error);
            }
            commit.refused.get_or_insert(error);
        }
        Ok(commit)
    }

    fn not_owned(&self, partition: &TopicPartition, member: &MemberSnapshot) -> Error {
        if matches!(member, MemberSnapshot::Rebalancing { .. }) {
            return rebalancing(&self.group_id);
        }
        let message = format!("commit {partition} for group {}: the partition is not owned", self.group_id);
        Error::new(ErrorKind::NotAssigned, message)
    }

    /// Merges the rests of several commits, with the latest offset of each partition. Returns
    /// `None` if they cannot be sent for one member.
    pub(crate) fn merge<'a>(commits: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut commits = commits.into_iter();
        let mut merged = commits.next()?.remaining();
        for commit in commits {
            if commit.without_group != merged.without_group {
                return None;
            }
            merged.refused = merged.refused.or_else(|| commit.refused.clone());
            for (partition, wanted) in &commit.pending {
                if merged.pending.get(partition).is_none_or(|known| wanted.replaces(known)) {
                    merged.pending.insert(partition.clone(), wanted.clone());
                }
            }
        }
        Some(merged)
    }

    /// Returns a commit of the offsets that are left, as if it had not been sent yet.
    fn remaining(&self) -> Self {
        Self {
            group_id: self.group_id.clone(),
            instance_id: self.instance_id.clone(),
            without_group: self.without_group,
            pending: self.pending.clone(),
            held_back: BTreeSet::new(),
            unknown_topic_at: 0,
            lost: BTreeSet::new(),
            refused: self.refused.clone(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns true if the partition is still to be committed.
    pub(crate) fn wants(&self, partition: &TopicPartition) -> bool {
        self.pending.contains_key(partition)
    }

    /// Returns the partitions of the next attempt.
    pub(crate) fn next_partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.next_offsets().map(|(partition, _)| partition)
    }

    fn next_offsets(&self) -> impl Iterator<Item = (&TopicPartition, &PendingOffset)> {
        self.pending.iter().filter(|(partition, _)| !self.held_back.contains(*partition))
    }

    /// Decides the next attempt. A commit never outlives the assignment in which it was made, nor
    /// its topics, so both are checked before each attempt. Revoked partitions, those of topics
    /// created again, and those that a later commit has committed are left out.
    ///
    /// # Errors
    /// The membership in which the commit was made is over. With `OneResponse`, also if there is no
    /// generation to commit in.
    pub(crate) fn next_attempt(&mut self, now: &CommitContext<'_>, policy: RetryPolicy) -> Result<AttemptDecision> {
        self.pending
            .retain(|partition, wanted| !now.order.is_satisfied(partition, wanted.number, wanted.offset.offset));
        if self.pending.is_empty() {
            return Ok(AttemptDecision::Finished);
        }
        let (for_member, owned) = self.decide_member(now.member)?;
        self.leave_out_lost(owned, now.metadata);
        self.hold_back_topics(now.metadata, policy);
        if self.pending.is_empty() {
            return Ok(AttemptDecision::Finished);
        }
        if self.held_back.len() == self.pending.len() {
            return Ok(AttemptDecision::AwaitTopic(self.topics_missing().with_retriable(true)));
        }
        match for_member {
            AttemptDecision::AwaitMembership if policy == RetryPolicy::OneResponse => Err(rebalancing(&self.group_id)),
            for_member => Ok(for_member),
        }
    }

    /// Decides for which member the commit is sent, and returns the partitions that this member
    /// owns; `None` outside of a group.
    fn decide_member<'a>(&self, member: &'a MemberSnapshot) -> Result<(AttemptDecision, Option<&'a Owned>)> {
        match member {
            MemberSnapshot::Ended(error) => Err(error.clone()),
            MemberSnapshot::NoGroup if self.without_group => Ok((AttemptDecision::Send(None), None)),
            MemberSnapshot::NoGroup | MemberSnapshot::Fenced => Err(self.assignment_over()),
            _ if self.without_group => Err(self.assignment_over()),
            MemberSnapshot::Rebalancing { identity, owned } if identity.generation < 0 => {
                Ok((AttemptDecision::AwaitMembership, Some(owned)))
            }
            // During a rebalance, the coordinator accepts it until all members have joined.
            MemberSnapshot::Member { identity, owned } | MemberSnapshot::Rebalancing { identity, owned } => {
                Ok((AttemptDecision::Send(Some(identity.clone())), Some(owned)))
            }
        }
    }

    fn leave_out_lost(&mut self, owned: Option<&Owned>, metadata: &Metadata) {
        let lost = self.pending.iter().filter(|(partition, wanted)| wanted.is_lost(partition, owned, metadata));
        let lost: Vec<TopicPartition> = lost.map(|(partition, _)| partition.clone()).collect();
        for partition in lost {
            self.pending.remove(&partition);
            self.lost.insert(partition);
        }
    }

    /// Holds back the partitions of topics that the metadata lacks, or gives them up if the commit
    /// does not wait for topics.
    fn hold_back_topics(&mut self, metadata: &Metadata, policy: RetryPolicy) {
        let unknown_topic_at = self.unknown_topic_at;
        let held_back = self
            .pending
            .iter()
            .filter(|(partition, wanted)| wanted.awaits_topic(partition, metadata, unknown_topic_at));
        self.held_back = held_back.map(|(partition, _)| partition.clone()).collect();
        if policy != RetryPolicy::UntilTopicsExist && !self.held_back.is_empty() {
            let error = self.topics_missing();
            let missing = std::mem::take(&mut self.held_back);
            self.give_up(&missing, error);
        }
    }

    fn topics_missing(&self) -> Error {
        self.error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &self.held_back)
    }

    /// Returns the result of a commit with nothing left to send.
    pub(crate) fn result(&self) -> Result<()> {
        match &self.refused {
            Some(error) => Err(error.clone()),
            None if self.lost.is_empty() => Ok(()),
            None => Err(self.assignment_over()),
        }
    }

    fn give_up(&mut self, partitions: &BTreeSet<TopicPartition>, error: Error) {
        self.pending.retain(|partition, _| !partitions.contains(partition));
        self.refused.get_or_insert(error);
    }

    fn assignment_over(&self) -> Error {
        let lost: BTreeSet<TopicPartition> = self.lost.iter().chain(self.pending.keys()).cloned().collect();
        let message = format!(
            "commit {} for group {}: the assignment in which they were owned is over, so other members may own them, or \
             their topic was created again; their records will be read again from the last committed offset",
            PartitionList(&lost),
            self.group_id
        );
        Error::new(ErrorKind::NotAssigned, message)
    }

    /// Returns the last version in which the next attempt can be sent: a topic without a known id
    /// has to be named.
    pub(crate) fn max_version(&self) -> Option<i16> {
        self.next_offsets().any(|(_, wanted)| wanted.topic_id.is_nil()).then_some(LAST_BY_NAME)
    }

    pub(crate) fn request(&self, version: i16, identity: Option<&Identity>) -> OffsetCommitRequest {
        let mut topics: BTreeMap<(&Arc<str>, Uuid), Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, PendingOffset { offset, topic_id, .. }) in self.next_offsets() {
            let epoch = if version >= 6 { offset.leader_epoch.unwrap_or(-1) } else { -1 };
            // By name, equal names are one topic.
            let topic_id = if version > LAST_BY_NAME { *topic_id } else { Uuid::nil() };
            topics.entry((&partition.topic, topic_id)).or_default().push(OffsetCommitRequestPartition {
                partition_index: partition.partition,
                committed_offset: offset.offset,
                committed_leader_epoch: epoch,
                committed_metadata: Some(ByteString::from(offset.metadata.clone())),
            });
        }
        let topics = topics
            .into_iter()
            .map(|((topic, topic_id), partitions)| OffsetCommitRequestTopic { name: text(topic), topic_id, partitions })
            .collect();
        let request = OffsetCommitRequest { group_id: text(&self.group_id), topics, ..Default::default() };
        let Some(identity) = identity else {
            return OffsetCommitRequest { generation_id_or_member_epoch: -1, ..request };
        };
        let instance_id = self.instance_id.as_deref().filter(|_| version >= 7);
        OffsetCommitRequest {
            generation_id_or_member_epoch: identity.generation,
            member_id: text(&identity.member_id),
            group_instance_id: instance_id.map(text),
            ..request
        }
    }

    /// Removes the committed partitions from the rest, adds them to `committed`, and returns the
    /// meaning of the response for the rest. A permanent error of some partitions does not end the
    /// others. `metadata` is the version of the metadata now.
    pub(crate) fn handle_response(
        &mut self,
        response: &OffsetCommitResponse,
        policy: RetryPolicy,
        metadata: u64,
        order: &mut CommitOrder,
        committed: &mut Vec<CommittedOffset>,
    ) -> CommitOutcome {
        let codes = ResponseCodes::read(response);
        let sent = self.next_offsets().map(|(partition, wanted)| (partition, codes.of(partition, wanted.topic_id)));
        let sent: Vec<_> = sent.map(|(partition, code)| (partition.clone(), code)).collect();
        let (mut refused, mut unanswered) = (Refused::new(), BTreeSet::new());
        for (partition, code) in sent {
            match code {
                Some(ErrorCode::NONE) => committed.extend(self.complete(partition, order)),
                Some(code) => refused.entry(code).or_default().extend([partition]),
                None => unanswered.extend([partition]),
            }
        }
        if !unanswered.is_empty() {
            let message =
                format!("commit {} for group {}: missing in the response", PartitionList(&unanswered), self.group_id);
            self.give_up(&unanswered, Error::new(ErrorKind::Protocol, message));
        }
        let retried = self.give_up_permanent(refused, policy);
        self.outcome(&retried, metadata)
    }

    /// Removes a committed partition from the rest.
    fn complete(&mut self, partition: TopicPartition, order: &mut CommitOrder) -> Option<CommittedOffset> {
        let PendingOffset { offset, topic_id, number, seek_epoch, .. } = self.pending.remove(&partition)?;
        order.committed(&partition, number, offset.offset);
        let origin = CommitOrigin { by_user: number.by_user, seek_epoch };
        Some(CommittedOffset { partition, offset: offset.offset, topic_id, origin })
    }

    /// Gives up the partitions that are not sent again, and returns the others.
    fn give_up_permanent(&mut self, refused: Refused, policy: RetryPolicy) -> Refused {
        let (retried, permanent): (Refused, Refused) =
            refused.into_iter().partition(|(code, _)| self.is_sent_again(*code, policy));
        for (code, partitions) in permanent {
            let error = self.error(code, &partitions);
            self.give_up(&partitions, error);
        }
        retried
    }

    fn is_sent_again(&self, code: ErrorCode, policy: RetryPolicy) -> bool {
        match self.class_of(code) {
            CodeClass::Committed | CodeClass::Permanent => false,
            CodeClass::UnknownTopic => policy == RetryPolicy::UntilTopicsExist,
            CodeClass::NotReady | CodeClass::NotCoordinator | CodeClass::StaleEpoch | CodeClass::StaleMember => true,
        }
    }

    /// Returns the meaning of a response that left these partitions to be sent again. An error of
    /// the membership comes before all others.
    fn outcome(&mut self, retried: &Refused, metadata: u64) -> CommitOutcome {
        let any_is = |class| retried.keys().any(|code| self.class_of(*code) == class);
        let of_membership = retried.iter().find(|(code, _)| self.class_of(**code).concerns_membership());
        if let Some((&code, partitions)) = of_membership {
            return match self.class_of(code) {
                CodeClass::StaleEpoch => self.retry(code, partitions, false),
                _ => self.stale_member(code, partitions),
            };
        }
        let find_coordinator = any_is(CodeClass::NotCoordinator);
        if any_is(CodeClass::UnknownTopic) {
            self.unknown_topic_at = metadata;
        }
        match retried.first_key_value() {
            Some((&code, partitions)) => self.retry(code, partitions, find_coordinator),
            None if self.pending.is_empty() => CommitOutcome::Finished,
            // Only the partitions that were held back are left.
            None => self.retry(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &self.held_back, false),
        }
    }

    fn class_of(&self, code: ErrorCode) -> CodeClass {
        CodeClass::of(code, !self.without_group)
    }

    fn retry(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>, find_coordinator: bool) -> CommitOutcome {
        CommitOutcome::Retry { find_coordinator, error: self.error(code, partitions).with_retriable(true) }
    }

    fn stale_member(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>) -> CommitOutcome {
        let said = self.error(code, partitions);
        let error = match code {
            ErrorCode::REBALANCE_IN_PROGRESS => rebalancing(&self.group_id),
            ErrorCode::FENCED_INSTANCE_ID => said.clone(),
            _ if self.without_group => {
                let message = format!(
                    "commit for group {}: {code}: the group has members, so only they can commit; subscribe, or use \
                     another group.id",
                    self.group_id
                );
                Error::new(ErrorKind::NotAssigned, message).with_source(said.clone())
            }
            _ => self.assignment_over().with_source(said.clone()),
        };
        CommitOutcome::StaleMember { error, said }
    }

    fn error(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>) -> Error {
        Error::broker(code, format_args!("commit {} for group {}", PartitionList(partitions), self.group_id))
    }
}

/// Partitions that were not committed, by their error code.
type Refused = BTreeMap<ErrorCode, BTreeSet<TopicPartition>>;

/// Checks what no broker accepts.
fn check_offset((partition, offset, _): &ToCommit) -> Result<()> {
    if offset.offset < 0 {
        let message = format!("commit {partition}: an offset of {} is not allowed", offset.offset);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if offset.metadata.len() > LONGEST_METADATA {
        let message = format!("commit {partition}: its metadata has more than {LONGEST_METADATA} bytes");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

fn rebalancing(group_id: &str) -> Error {
    let context =
        format_args!("commit for group {group_id}: after the rebalance, commit the partitions that are still owned");
    Error::broker(ErrorCode::REBALANCE_IN_PROGRESS, context).with_retriable(true)
}

/// Displays the first few of many partitions.
struct PartitionList<'a>(&'a BTreeSet<TopicPartition>);

impl std::fmt::Display for PartitionList<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const FEW: usize = 5;
        for (i, partition) in self.0.iter().take(FEW).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{partition}")?;
        }
        if self.0.len() > FEW { write!(f, " and {} more", self.0.len() - FEW) } else { Ok(()) }
    }
}
