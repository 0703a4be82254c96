//! Offsets to the group's coordinator (OffsetCommit): in whose name, and what each answer means.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
    protocol::StrBytes,
};

use super::{
    membership::{Identity, Standing},
    requests::{group, text, topic_name},
};
use crate::{
    consumer::OffsetAndMetadata,
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
    record::TopicPartition,
};

/// A commit on its way: what is left of it.
#[derive(Debug)]
pub(super) struct Commit {
    group_id: Arc<str>,
    instance_id: Option<Arc<str>>,
    /// Goes without a generation, as consumers do that are in no group.
    alone: bool,
    /// With the number of the assignment that each was made in.
    left: BTreeMap<TopicPartition, (OffsetAndMetadata, u64)>,
    /// What was taken away while the commit was under way.
    lost: BTreeSet<TopicPartition>,
}

/// Whether a commit can be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// In that name; `None` goes without a generation.
    Now(Option<Identity>),
    /// The partitions are kept over a rebalance that is not through yet, and we have no name before it is.
    Later,
}

/// What an answer means for the commit.
#[derive(Debug)]
pub(super) enum Verdict {
    Done,
    /// What is left may be sent again; first the coordinator has to be found anew, if so said.
    Again {
        find_coordinator: bool,
        error: Error,
    },
    /// The name under which it was sent is not (or no longer) ours: `said` is what the membership has to hear. Where we
    /// have another name by then, what is left may be sent again, else `error` is what became of it.
    NotOurName {
        error: Error,
        said: Error,
    },
    /// The commit has failed.
    Failed(Error),
}

impl Commit {
    /// Takes a commit of what is ours now. Refuses what is not ours to commit.
    pub(super) fn new(
        group_id: Arc<str>,
        instance_id: Option<Arc<str>>,
        standing: &Standing,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    ) -> Result<Self> {
        if let Some((partition, offset)) = offsets.iter().find(|(_, offset)| offset.offset < 0) {
            let message = format!("commit {partition}: an offset of {} is not allowed", offset.offset);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let (alone, owned) = match standing {
            Standing::Alone => (true, None),
            Standing::Member { owned, .. } | Standing::Rebalancing { owned, .. } => (false, Some(owned)),
            Standing::Out => {
                let message = format!("commit for group {group_id}: the consumer is out of the group");
                return Err(Error::new(ErrorKind::NotAssigned, message));
            }
            Standing::Ended(error) => return Err(error.clone()),
        };
        let mut left = BTreeMap::new();
        for (partition, offset) in offsets {
            let Some(since) = owned.map_or(Some(0), |owned| owned.get(&partition).copied()) else {
                return Err(match standing {
                    Standing::Rebalancing { .. } => rebalancing(&group_id),
                    _ => {
                        let message = format!("commit {partition} for group {group_id}: the partition is not owned");
                        Error::new(ErrorKind::NotAssigned, message)
                    }
                });
            };
            left.insert(partition, (offset, since));
        }
        Ok(Self { group_id, instance_id, alone, left, lost: BTreeSet::new() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// A commit never outlives the assignment that it was made in: looked at before each attempt. What was taken away is
    /// left out of it.
    pub(super) fn turn(&mut self, standing: &Standing) -> Result<Turn> {
        let (turn, owned) = match standing {
            Standing::Ended(error) => return Err(error.clone()),
            Standing::Alone if self.alone => return Ok(Turn::Now(None)),
            Standing::Alone | Standing::Out => return Err(self.over()),
            _ if self.alone => return Err(self.over()),
            Standing::Member { identity, owned } => (Turn::Now(Some(identity.clone())), owned),
            Standing::Rebalancing { identity, owned } if identity.generation < 0 => (Turn::Later, owned),
            // The coordinator takes it until all have joined.
            Standing::Rebalancing { identity, owned } => (Turn::Now(Some(identity.clone())), owned),
        };
        self.left.retain(|partition, (_, since)| {
            let kept = owned.get(partition) == Some(since);
            if !kept {
                self.lost.insert(partition.clone());
            }
            kept
        });
        if self.left.is_empty() { Err(self.over()) } else { Ok(turn) }
    }

    /// How a commit came out of which nothing is left.
    pub(super) fn end(&self) -> Result<()> {
        if self.lost.is_empty() { Ok(()) } else { Err(self.over()) }
    }

    fn over(&self) -> Error {
        let lost: BTreeSet<TopicPartition> = self.lost.iter().chain(self.left.keys()).cloned().collect();
        let message = format!(
            "commit {} for group {}: the assignment in which they were owned is over, so they may be others' by now; \
             their records will be read again from what was committed before",
            Shown(&lost),
            self.group_id
        );
        Error::new(ErrorKind::NotAssigned, message)
    }

    pub(super) fn request(&self, version: i16, identity: Option<&Identity>) -> OffsetCommitRequest {
        let mut topics: BTreeMap<&Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, (offset, _)) in &self.left {
            let epoch = if version >= 6 { offset.leader_epoch.unwrap_or(-1) } else { -1 };
            topics.entry(&partition.topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.partition)
                    .with_committed_offset(offset.offset)
                    .with_committed_leader_epoch(epoch)
                    .with_committed_metadata(Some(StrBytes::from_string(offset.metadata.clone()))),
            );
        }
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| {
                OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
            })
            .collect();
        let request = OffsetCommitRequest::default().with_group_id(group(&self.group_id)).with_topics(topics);
        let Some(identity) = identity else {
            return request.with_generation_id_or_member_epoch(-1);
        };
        let instance_id = self.instance_id.as_deref().filter(|_| version >= 7);
        request
            .with_generation_id_or_member_epoch(identity.generation)
            .with_member_id(text(&identity.member_id))
            .with_group_instance_id(instance_id.map(text))
    }

    /// Takes what was committed off what is left, and says how it goes on.
    pub(super) fn answered(&mut self, response: &OffsetCommitResponse) -> Verdict {
        let mut answers: HashMap<(&str, i32), ErrorCode> = HashMap::new();
        for topic in &response.topics {
            for partition in &topic.partitions {
                answers.insert((topic.name.as_str(), partition.partition_index), partition.error_code.into());
            }
        }
        let mut refused: BTreeMap<ErrorCode, BTreeSet<TopicPartition>> = BTreeMap::new();
        let mut unanswered = None;
        self.left.retain(|partition, _| match answers.get(&(&*partition.topic, partition.partition)) {
            Some(code) if code.is_ok() => false,
            Some(&code) => {
                refused.entry(code).or_default().insert(partition.clone());
                true
            }
            None => {
                unanswered = Some(partition.clone());
                true
            }
        });
        // The next attempt goes in the name of the epoch that is current then (KIP-848).
        let passes = |code| may_pass(code) || (code == ErrorCode::STALE_MEMBER_EPOCH && !self.alone);
        if let Some((&code, partitions)) = refused.iter().find(|(code, _)| !passes(**code)) {
            return self.failed(code, partitions);
        }
        if let Some(partition) = unanswered {
            let message = format!("commit {partition} for group {}: the answer leaves it out", self.group_id);
            return Verdict::Failed(Error::new(ErrorKind::Protocol, message));
        }
        match refused.first_key_value() {
            None => Verdict::Done,
            Some((&code, partitions)) => Verdict::Again {
                find_coordinator: refused.keys().any(|code| names_no_coordinator(*code)),
                error: self.error(code, partitions).retriable(true),
            },
        }
    }

    fn failed(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>) -> Verdict {
        let said = self.error(code, partitions);
        match code {
            ErrorCode::REBALANCE_IN_PROGRESS => Verdict::NotOurName { error: rebalancing(&self.group_id), said },
            ErrorCode::FENCED_INSTANCE_ID => Verdict::NotOurName { error: said.clone(), said },
            ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::STALE_MEMBER_EPOCH => {
                let error = if self.alone {
                    let message = format!(
                        "commit for group {}: the group has members, so only they can commit; subscribe, or use another \
                         group.id",
                        self.group_id
                    );
                    Error::new(ErrorKind::NotAssigned, message)
                } else {
                    self.over()
                };
                Verdict::NotOurName { error: error.with_source(said.clone()), said }
            }
            _ => Verdict::Failed(said),
        }
    }

    fn error(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>) -> Error {
        Error::broker(code, format_args!("commit {} for group {}", Shown(partitions), self.group_id))
    }
}

/// Errors after which the same commit may be sent again, by the rules of Kafka's Java client.
fn may_pass(code: ErrorCode) -> bool {
    code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        || code == ErrorCode::UNSTABLE_OFFSET_COMMIT
        || code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        || names_no_coordinator(code)
}

fn names_no_coordinator(code: ErrorCode) -> bool {
    code.remedy() == Remedy::FindCoordinator || code == ErrorCode::REQUEST_TIMED_OUT
}

fn rebalancing(group_id: &str) -> Error {
    let context = format_args!("commit for group {group_id}: commit what is still owned when the rebalance is through");
    Error::broker(ErrorCode::REBALANCE_IN_PROGRESS, context).retriable(true)
}

/// The first few partitions of many.
struct Shown<'a>(&'a BTreeSet<TopicPartition>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const FEW: usize = 5;
        for (i, partition) in self.0.iter().take(FEW).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{partition}")?;
        }
        if self.0.len() > FEW { write!(f, " and {} more", self.0.len() - FEW) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};

    use super::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn member(generation: i32) -> Standing {
        let identity = Identity { generation, member_id: "m".into() };
        Standing::Member { identity, owned: Arc::new([(tp(0), 1), (tp(1), 1)].into()) }
    }

    fn me(generation: i32) -> Identity {
        Identity { generation, member_id: "m".into() }
    }

    fn nothing_kept() -> Standing {
        Standing::Rebalancing { identity: me(5), owned: Arc::default() }
    }

    fn commit(standing: &Standing) -> Result<Commit> {
        let offsets = [tp(0), tp(1)].map(|partition| (partition, OffsetAndMetadata::new(7)));
        Commit::new("g".into(), Some("i".into()), standing, offsets.into())
    }

    fn response(codes: &[(i32, ErrorCode)]) -> OffsetCommitResponse {
        let partitions = codes.iter().map(|&(partition, code)| {
            OffsetCommitResponsePartition::default().with_partition_index(partition).with_error_code(code.code())
        });
        let topic =
            OffsetCommitResponseTopic::default().with_name(topic_name("t")).with_partitions(partitions.collect());
        OffsetCommitResponse::default().with_topics(vec![topic])
    }

    fn both(code: ErrorCode) -> OffsetCommitResponse {
        response(&[(0, code), (1, code)])
    }

    #[test]
    fn requests_carry_who_we_are_as_far_as_their_version_can() {
        let commit = commit(&member(5)).unwrap();
        let request = commit.request(9, Some(&me(5)));
        assert_eq!((request.generation_id_or_member_epoch, request.member_id.as_str()), (5, "m"));
        assert_eq!(request.group_instance_id.as_deref(), Some("i"));
        assert_eq!(request.topics[0].partitions.len(), 2);
        assert!(commit.request(6, Some(&me(5))).group_instance_id.is_none());
    }

    #[test]
    fn without_a_group_any_partition_is_committed_without_a_generation() {
        let offsets = vec![(tp(99), OffsetAndMetadata { leader_epoch: Some(4), ..OffsetAndMetadata::new(1) })];
        let commit = Commit::new("g".into(), Some("i".into()), &Standing::Alone, offsets).unwrap();
        let request = commit.request(9, None);
        assert_eq!((request.generation_id_or_member_epoch, request.member_id.as_str()), (-1, ""));
        assert!(request.group_instance_id.is_none());
        assert_eq!(request.topics[0].partitions[0].committed_leader_epoch, 4);
        assert_eq!(commit.request(5, None).topics[0].partitions[0].committed_leader_epoch, -1);
    }

    #[test]
    fn what_is_not_ours_is_refused_before_it_is_sent() {
        let foreign = vec![(tp(2), OffsetAndMetadata::new(7))];
        let error = Commit::new("g".into(), None, &member(5), foreign).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAssigned);
        let negative = vec![(tp(0), OffsetAndMetadata::new(-1))];
        let error = Commit::new("g".into(), None, &member(5), negative).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(commit(&nothing_kept()).unwrap_err().code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
        assert_eq!(commit(&Standing::Out).unwrap_err().kind(), ErrorKind::NotAssigned);
        let fenced = Error::broker(ErrorCode::FENCED_INSTANCE_ID, "test");
        assert!(commit(&Standing::Ended(fenced)).unwrap_err().is_fatal());
    }

    #[test]
    fn a_commit_does_not_outlive_its_assignment() {
        let mut made = commit(&member(5)).unwrap();
        assert_eq!(made.turn(&member(5)).unwrap(), Turn::Now(Some(me(5))));
        for standing in [nothing_kept(), Standing::Out, Standing::Alone] {
            let mut made = commit(&member(5)).unwrap();
            assert_eq!(made.turn(&standing).unwrap_err().kind(), ErrorKind::NotAssigned, "{standing:?}");
        }
    }

    #[test]
    fn what_is_kept_over_a_rebalance_is_committed_after_it_in_the_new_name() {
        let kept = |generation| {
            let owned = Arc::new([(tp(0), 1), (tp(1), 1)].into());
            Standing::Rebalancing { identity: me(generation), owned }
        };
        let mut made = commit(&member(5)).unwrap();
        assert_eq!(made.turn(&kept(5)).unwrap(), Turn::Now(Some(me(5))), "until the next generation begins");
        assert_eq!(made.turn(&kept(-1)).unwrap(), Turn::Later);
        assert_eq!(made.turn(&member(6)).unwrap(), Turn::Now(Some(me(6))));
        let mut made = commit(&kept(-1)).unwrap();
        assert_eq!(made.turn(&member(6)).unwrap(), Turn::Now(Some(me(6))));
    }

    #[test]
    fn what_was_away_in_between_is_left_out_of_a_commit_and_named() {
        let mut made = commit(&member(5)).unwrap();
        let owned = Arc::new([(tp(0), 1), (tp(1), 2)].into());
        let came_back = Standing::Member { identity: me(7), owned };
        assert_eq!(made.turn(&came_back).unwrap(), Turn::Now(Some(me(7))));
        let left = &made.request(9, Some(&me(7))).topics[0].partitions;
        assert_eq!(left.iter().map(|p| p.partition_index).collect::<Vec<_>>(), [0]);
        assert!(matches!(made.answered(&response(&[(0, ErrorCode::NONE)])), Verdict::Done));
        let error = made.end().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAssigned);
        assert!(error.to_string().contains("t[1]") && !error.to_string().contains("t[0]"), "{error}");
    }

    #[test]
    fn what_was_committed_is_not_sent_again() {
        let mut commit = commit(&member(5)).unwrap();
        let verdict = commit.answered(&response(&[(0, ErrorCode::NONE), (1, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)]));
        assert!(matches!(verdict, Verdict::Again { find_coordinator: false, .. }), "{verdict:?}");
        let left = &commit.request(9, None).topics[0].partitions;
        assert_eq!(left.iter().map(|p| p.partition_index).collect::<Vec<_>>(), [1]);
        assert!(matches!(commit.answered(&response(&[(1, ErrorCode::NONE)])), Verdict::Done));
    }

    #[test]
    fn errors_that_may_pass_are_tried_again() {
        for (code, moved) in [
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, false),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false),
            (ErrorCode::UNSTABLE_OFFSET_COMMIT, false),
            (ErrorCode::STALE_MEMBER_EPOCH, false),
            (ErrorCode::NOT_COORDINATOR, true),
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, true),
            (ErrorCode::REQUEST_TIMED_OUT, true),
        ] {
            match commit(&member(5)).unwrap().answered(&both(code)) {
                Verdict::Again { find_coordinator, error } => {
                    assert_eq!((find_coordinator, error.code()), (moved, Some(code)));
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn errors_of_membership_are_told_to_it() {
        for (code, kind) in [
            (ErrorCode::REBALANCE_IN_PROGRESS, ErrorKind::Broker),
            (ErrorCode::ILLEGAL_GENERATION, ErrorKind::NotAssigned),
            (ErrorCode::UNKNOWN_MEMBER_ID, ErrorKind::NotAssigned),
            (ErrorCode::FENCED_INSTANCE_ID, ErrorKind::Fenced),
        ] {
            match commit(&member(5)).unwrap().answered(&both(code)) {
                Verdict::NotOurName { error, said } => {
                    assert_eq!((error.kind(), said.code()), (kind, Some(code)));
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_errors_fail_and_win_over_those_that_may_pass() {
        for code in [
            ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            ErrorCode::GROUP_AUTHORIZATION_FAILED,
            ErrorCode::OFFSET_METADATA_TOO_LARGE,
            ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
            ErrorCode::new(9_999),
        ] {
            let mixed = response(&[(0, ErrorCode::NOT_COORDINATOR), (1, code)]);
            match commit(&member(5)).unwrap().answered(&mixed) {
                Verdict::Failed(error) => {
                    assert_eq!(error.code(), Some(code));
                    assert!(error.to_string().contains("t[1]"), "{error}");
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_answer_that_leaves_a_partition_out_is_no_success() {
        let verdict = commit(&member(5)).unwrap().answered(&response(&[(0, ErrorCode::NONE)]));
        assert!(matches!(&verdict, Verdict::Failed(error) if error.kind() == ErrorKind::Protocol), "{verdict:?}");
    }
}
