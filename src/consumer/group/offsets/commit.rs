//! Commits to the group's coordinator (OffsetCommit): the member that sends them, and the meaning
//! of each response.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use crate::consumer::group::{
    classic::{Identity, MemberSnapshot, requests::text},
    offsets::commit_order::{CommitNumber, CommitOrder, CommitOrigin},
};
use crate::{
    cluster::Metadata,
    consumer::OffsetAndMetadata,
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
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
    /// Returns true if this offset replaces `other`: it was requested later, unless an auto-commit
    /// would go below the user's offset.
    fn is_instead_of(&self, other: &Self) -> bool {
        let back = |user: &Self, own: &Self| {
            user.number.by_user && !own.number.by_user && own.offset.offset <= user.offset.offset
        };
        if self.number.at > other.number.at { !back(other, self) } else { back(self, other) }
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
    /// Wait for the topics.
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

impl Commit {
    /// Creates a commit for partitions that are owned now. Fails if the user commits one that is
    /// not owned; an auto-commit leaves it out.
    pub(crate) fn new(
        group_id: Arc<str>,
        instance_id: Option<Arc<str>>,
        member: &MemberSnapshot,
        number: CommitNumber,
        positioned: u64,
        offsets: Vec<ToCommit>,
    ) -> Result<Self> {
        if offsets.is_empty() {
            return Ok(Self::of(group_id, instance_id, true, BTreeMap::new()));
        }
        if let Some((partition, offset, _)) = offsets.iter().find(|(_, offset, _)| offset.offset < 0) {
            let message = format!("commit {partition}: an offset of {} is not allowed", offset.offset);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if let Some((partition, ..)) = offsets.iter().find(|(_, offset, _)| offset.metadata.len() > LONGEST_METADATA) {
            let message = format!("commit {partition}: its metadata has more than {LONGEST_METADATA} bytes");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let (alone, owned) = match member {
            MemberSnapshot::NoGroup => (true, None),
            MemberSnapshot::Member { owned, .. } | MemberSnapshot::Rebalancing { owned, .. } => (false, Some(owned)),
            MemberSnapshot::Fenced => {
                let message = format!("commit for group {group_id}: the consumer is out of the group");
                return Err(Error::new(ErrorKind::NotAssigned, message));
            }
            MemberSnapshot::Ended(error) => return Err(error.clone()),
        };
        let (mut left, mut refused) = (BTreeMap::new(), None);
        for (partition, offset, topic_id) in offsets {
            let Some(since) = owned.map_or(Some(0), |owned| owned.get(&partition).copied()) else {
                let error = match member {
                    MemberSnapshot::Rebalancing { .. } => rebalancing(&group_id),
                    _ => {
                        let message = format!("commit {partition} for group {group_id}: the partition is not owned");
                        Error::new(ErrorKind::NotAssigned, message)
                    }
                };
                if number.by_user {
                    return Err(error);
                }
                refused.get_or_insert(error);
                continue;
            };
            left.insert(
                partition,
                PendingOffset { offset, ownership: since, topic_id, number, seek_epoch: positioned },
            );
        }
        Ok(Self { refused, ..Self::of(group_id, instance_id, alone, left) })
    }

    fn of(
        group_id: Arc<str>,
        instance_id: Option<Arc<str>>,
        alone: bool,
        left: BTreeMap<TopicPartition, PendingOffset>,
    ) -> Self {
        Self {
            group_id,
            instance_id,
            without_group: alone,
            pending: left,
            held_back: BTreeSet::new(),
            unknown_topic_at: 0,
            lost: BTreeSet::new(),
            refused: None,
        }
    }

    /// Merges the rests of several commits, with the latest offset of each partition. Returns
    /// `None` if they cannot be sent for one member.
    pub(crate) fn merge<'a>(commits: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut commits = commits.into_iter();
        let first = commits.next()?;
        let (mut left, mut refused) = (first.pending.clone(), first.refused.clone());
        for commit in commits {
            if commit.without_group != first.without_group {
                return None;
            }
            refused = refused.or_else(|| commit.refused.clone());
            for (partition, wanted) in &commit.pending {
                if left.get(partition).is_none_or(|known| wanted.is_instead_of(known)) {
                    left.insert(partition.clone(), wanted.clone());
                }
            }
        }
        let together = Self::of(first.group_id.clone(), first.instance_id.clone(), first.without_group, left);
        Some(Self { refused, ..together })
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
        self.pending.keys().filter(|partition| !self.held_back.contains(*partition))
    }

    /// Decides the next attempt. A commit never outlives the assignment in which it was made, nor
    /// its topics, so both are checked before each attempt. Revoked partitions, those of topics
    /// created again, and those that a later commit has committed are left out.
    pub(crate) fn next_attempt(&mut self, now: &CommitContext<'_>, policy: RetryPolicy) -> Result<AttemptDecision> {
        self.pending
            .retain(|partition, wanted| !now.order.is_satisfied(partition, wanted.number, wanted.offset.offset));
        if self.pending.is_empty() {
            return Ok(AttemptDecision::Finished);
        }
        let (turn, owned) = match now.member {
            MemberSnapshot::Ended(error) => return Err(error.clone()),
            MemberSnapshot::NoGroup if self.without_group => (AttemptDecision::Send(None), None),
            MemberSnapshot::NoGroup | MemberSnapshot::Fenced => return Err(self.finished()),
            _ if self.without_group => return Err(self.finished()),
            MemberSnapshot::Member { identity, owned } => (AttemptDecision::Send(Some(identity.clone())), Some(owned)),
            MemberSnapshot::Rebalancing { identity, owned } if identity.generation < 0 => {
                (AttemptDecision::AwaitMembership, Some(owned))
            }
            // The coordinator accepts it until all members have joined.
            MemberSnapshot::Rebalancing { identity, owned } => {
                (AttemptDecision::Send(Some(identity.clone())), Some(owned))
            }
        };
        self.held_back.clear();
        let (doubtful, lost, held_back) = (self.unknown_topic_at, &mut self.lost, &mut self.held_back);
        self.pending.retain(|partition, wanted| {
            let is_owned = owned.is_none_or(|owned| owned.get(partition) == Some(&wanted.ownership));
            let topic =
                if is_owned { topic_of(wanted, partition, now.metadata, doubtful) } else { TopicMatch::Another };
            match topic {
                TopicMatch::Same => {}
                TopicMatch::Missing => _ = held_back.insert(partition.clone()),
                TopicMatch::Another => _ = lost.insert(partition.clone()),
            }
            topic != TopicMatch::Another
        });
        if self.held_back.is_empty() {
            return if self.pending.is_empty() { Ok(AttemptDecision::Finished) } else { Ok(turn) };
        }
        let error = self.error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &self.held_back);
        if policy != RetryPolicy::UntilTopicsExist {
            let gone = std::mem::take(&mut self.held_back);
            self.give_up(&gone, error);
            return if self.pending.is_empty() { Ok(AttemptDecision::Finished) } else { Ok(turn) };
        }
        Ok(if self.held_back.len() == self.pending.len() {
            AttemptDecision::AwaitTopic(error.with_retriable(true))
        } else {
            turn
        })
    }

    /// Returns the result of a commit with nothing left to send.
    pub(crate) fn result(&self) -> Result<()> {
        match &self.refused {
            Some(error) => Err(error.clone()),
            None if self.lost.is_empty() => Ok(()),
            None => Err(self.finished()),
        }
    }

    fn give_up(&mut self, partitions: &BTreeSet<TopicPartition>, error: Error) {
        self.pending.retain(|partition, _| !partitions.contains(partition));
        self.refused.get_or_insert(error);
    }

    fn finished(&self) -> Error {
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
        let mut going = self.pending.iter().filter(|(partition, _)| !self.held_back.contains(*partition));
        going.any(|(_, wanted)| wanted.topic_id.is_nil()).then_some(LAST_BY_NAME)
    }

    pub(crate) fn request(&self, version: i16, identity: Option<&Identity>) -> OffsetCommitRequest {
        let mut topics: BTreeMap<(&Arc<str>, Uuid), Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, PendingOffset { offset, topic_id, .. }) in &self.pending {
            if self.held_back.contains(partition) {
                continue;
            }
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
    /// next step. A permanent error of some partitions does not end the others.
    pub(crate) fn handle_response(
        &mut self,
        response: &OffsetCommitResponse,
        policy: RetryPolicy,
        metadata: u64,
        order: &mut CommitOrder,
        committed: &mut Vec<CommittedOffset>,
    ) -> CommitOutcome {
        // By name, or by id (version 10): the other of the two is empty in the response.
        let mut answers: HashMap<(&str, Uuid), HashMap<i32, ErrorCode>> = HashMap::new();
        for topic in &response.topics {
            let codes = topic.partitions.iter().map(|it| (it.partition_index, ErrorCode::from(it.error_code)));
            answers.entry((topic.name.as_str(), topic.topic_id)).or_default().extend(codes);
        }
        let answer = |partition: &TopicPartition, topic_id: Uuid| {
            let by_name = answers.get(&(&*partition.topic, Uuid::nil()));
            let topic = by_name.or_else(|| answers.get(&("", topic_id)).filter(|_| !topic_id.is_nil()));
            topic?.get(&partition.partition).copied()
        };
        let mut refused: BTreeMap<ErrorCode, BTreeSet<TopicPartition>> = BTreeMap::new();
        let mut unanswered = BTreeSet::new();
        self.pending.retain(|partition, wanted| {
            match answer(partition, wanted.topic_id) {
                _ if self.held_back.contains(partition) => {}
                Some(code) if code.is_ok() => {
                    order.committed(partition, wanted.number, wanted.offset.offset);
                    let asker = CommitOrigin { by_user: wanted.number.by_user, seek_epoch: wanted.seek_epoch };
                    let (partition, offset) = (partition.clone(), wanted.offset.offset);
                    committed.push(CommittedOffset { partition, offset, topic_id: wanted.topic_id, origin: asker });
                    return false;
                }
                Some(code) => _ = refused.entry(code).or_default().insert(partition.clone()),
                None => _ = unanswered.insert(partition.clone()),
            }
            true
        });
        if !unanswered.is_empty() {
            let message =
                format!("commit {} for group {}: missing in the response", PartitionList(&unanswered), self.group_id);
            self.give_up(&unanswered, Error::new(ErrorKind::Protocol, message));
        }
        let goes_on = |code: ErrorCode| self.concerns_membership(code) || is_retriable(code, policy);
        let (passing, for_good): (BTreeMap<_, _>, BTreeMap<_, _>) =
            refused.into_iter().partition(|(code, _)| goes_on(*code));
        for (code, partitions) in for_good {
            let error = self.error(code, &partitions);
            self.give_up(&partitions, error);
        }
        let of_membership = passing.iter().find(|(code, _)| self.concerns_membership(**code));
        match of_membership.map(|(&code, partitions)| (code, partitions.clone())) {
            // The next attempt is sent in the epoch that is current then (KIP-848).
            Some((ErrorCode::STALE_MEMBER_EPOCH, partitions)) if !self.without_group => {
                let error = self.error(ErrorCode::STALE_MEMBER_EPOCH, &partitions).with_retriable(true);
                return CommitOutcome::Retry { find_coordinator: false, error };
            }
            Some((code, partitions)) => return self.stale_member(code, &partitions),
            None => {}
        }
        if passing.keys().any(|code| is_unknown_topic(*code)) {
            self.unknown_topic_at = metadata;
        }
        match passing.first_key_value() {
            None if self.pending.is_empty() => CommitOutcome::Finished,
            // Only the partitions that were held back are left.
            None => CommitOutcome::Retry {
                find_coordinator: false,
                error: self.error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &self.held_back).with_retriable(true),
            },
            Some((&code, partitions)) => CommitOutcome::Retry {
                find_coordinator: passing.keys().any(|code| is_not_coordinator(*code)),
                error: self.error(code, partitions).with_retriable(true),
            },
        }
    }

    /// Returns true if the code is about the member, or about a commit without membership.
    fn concerns_membership(&self, code: ErrorCode) -> bool {
        matches!(
            code,
            ErrorCode::REBALANCE_IN_PROGRESS
                | ErrorCode::FENCED_INSTANCE_ID
                | ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::STALE_MEMBER_EPOCH
        ) || (code == ErrorCode::GROUP_ID_NOT_FOUND && !self.without_group)
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
            _ => self.finished().with_source(said.clone()),
        };
        CommitOutcome::StaleMember { error, said }
    }

    fn error(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>) -> Error {
        Error::broker(code, format_args!("commit {} for group {}", PartitionList(partitions), self.group_id))
    }
}

/// Comparison of an offset's topic with the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TopicMatch {
    /// Not known to differ.
    Same,
    Missing,
    Another,
}

fn topic_of(wanted: &PendingOffset, partition: &TopicPartition, metadata: &Metadata, doubtful: u64) -> TopicMatch {
    if wanted.topic_id.is_nil() {
        return TopicMatch::Same;
    }
    match metadata.topic(&partition.topic) {
        Some(topic) if !topic.id.is_nil() && topic.id != wanted.topic_id => TopicMatch::Another,
        None => TopicMatch::Missing,
        Some(topic) if topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => TopicMatch::Missing,
        // This metadata is older than the coordinator's response that it does not know the topic.
        Some(_) if metadata.version <= doubtful => TopicMatch::Missing,
        Some(_) => TopicMatch::Same,
    }
}

/// Returns true after errors for which the same commit is sent again, by the rules of Kafka's Java
/// client.
fn is_retriable(code: ErrorCode, policy: RetryPolicy) -> bool {
    (is_unknown_topic(code) && policy == RetryPolicy::UntilTopicsExist)
        || code == ErrorCode::UNSTABLE_OFFSET_COMMIT
        || code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        || is_not_coordinator(code)
}

/// Returns true if the coordinator does not know the topic, by its name or by its id.
pub(crate) fn is_unknown_topic(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID)
}

fn is_not_coordinator(code: ErrorCode) -> bool {
    code.remedy() == Remedy::FindCoordinator || code == ErrorCode::REQUEST_TIMED_OUT
}

pub(crate) fn rebalancing(group_id: &str) -> Error {
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
