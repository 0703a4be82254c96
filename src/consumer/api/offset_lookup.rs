//! A look-up of offsets by timestamp, in rounds: each round asks the leaders of the partitions that
//! are still open.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::consumer::background::list_offsets::{ListedOffset, QueryRow};
use crate::{
    cluster::Metadata,
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
};

/// The answer of one leader: the offset or error of each partition.
pub(super) type LeaderAnswer = HashMap<TopicPartition, Result<ListedOffset, ErrorCode>>;

/// The partitions that are left to look up, and the offsets that were found.
#[derive(Debug)]
pub(super) struct OffsetLookup {
    open: Vec<(TopicPartition, i64)>,
    found: HashMap<TopicPartition, ListedOffset>,
    /// An error of the current round after which partitions are asked for again.
    last_error: Option<Error>,
}

impl OffsetLookup {
    /// Looks up the first offset at or after each timestamp.
    pub(super) fn new(wanted: Vec<(TopicPartition, i64)>) -> Self {
        Self { open: wanted, found: HashMap::new(), last_error: None }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn into_offsets(self) -> HashMap<TopicPartition, ListedOffset> {
        self.found
    }

    /// Returns the topics that the metadata must have before a round begins.
    pub(super) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.open.iter().map(|(partition, _)| partition.topic.clone()).collect()
    }

    /// Begins a round: returns the rows of the request to each leader. Partitions without a leader
    /// wait for the next round.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition` if a topic does not have a partition.
    pub(super) fn begin_round(&mut self, metadata: &Metadata) -> Result<BTreeMap<i32, Vec<QueryRow<i64>>>> {
        self.last_error = None;
        let mut requests: BTreeMap<i32, Vec<QueryRow<i64>>> = BTreeMap::new();
        for (partition, timestamp) in &self.open {
            let (topic, number) = (&partition.topic, partition.partition);
            if let Some((node, leader_epoch)) = metadata.leader(topic, number) {
                requests.entry(node).or_default().push((partition.clone(), leader_epoch, *timestamp));
            } else if metadata.partition(topic, number).is_some() {
                self.last_error = Some(Error::broker(ErrorCode::LEADER_NOT_AVAILABLE, partition));
            } else {
                let message = format!("{partition} does not exist");
                return Err(Error::new(ErrorKind::UnknownTopicOrPartition, message));
            }
        }
        Ok(requests)
    }

    /// Handles the answer of one leader. Partitions with a retriable error, or all of them if there
    /// was no answer, are asked for again in the next round.
    ///
    /// # Errors
    /// An error that a retry does not help.
    pub(super) fn answered(&mut self, answer: Result<LeaderAnswer>) -> Result<()> {
        let offsets = match answer {
            Ok(offsets) => offsets,
            Err(error) => return self.retry_after(error),
        };
        for (partition, offset) in offsets {
            match offset {
                Ok(offset) => self.found.extend([(partition, offset)]),
                Err(code) => {
                    let context = format_args!("look-up of an offset of {partition}");
                    self.retry_after(Error::broker(code, context))?;
                }
            }
        }
        Ok(())
    }

    fn retry_after(&mut self, error: Error) -> Result<()> {
        if !error.is_retriable() {
            return Err(error);
        }
        self.last_error = Some(error);
        Ok(())
    }

    /// Ends a round. The partitions that were not found stay open.
    pub(super) fn end_round(&mut self) {
        self.open.retain(|(partition, _)| !self.found.contains_key(partition));
    }

    /// Returns the error of a look-up that is not complete at its deadline.
    pub(super) fn timed_out(self) -> Error {
        let error = Error::new(ErrorKind::Timeout, "look-up of offsets: default.api.timeout.ms passed");
        match self.last_error {
            Some(last) => error.context(&last).with_source(last),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::{PartitionMetadata, TopicMetadata};
    use crate::consumer::api::offset_lookup::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    /// Metadata of topic `t` with these leaders; `None` for a partition without one.
    fn metadata(leaders: &[Option<i32>]) -> Metadata {
        let partitions = leaders.iter().zip(0..).map(|(leader, partition)| PartitionMetadata {
            partition,
            leader: *leader,
            leader_epoch: 4,
            replicas: Vec::new(),
            isr: Vec::new(),
            error: ErrorCode::NONE,
        });
        let topic = TopicMetadata { name: "t".into(), partitions: partitions.collect(), ..TopicMetadata::default() };
        Metadata { topics: [("t".into(), Arc::new(topic))].into(), ..Metadata::default() }
    }

    fn offset(offset: i64) -> ListedOffset {
        ListedOffset { offset, timestamp: -1, leader_epoch: 4 }
    }

    fn lookup(partitions: &[i32]) -> OffsetLookup {
        OffsetLookup::new(partitions.iter().map(|partition| (tp(*partition), -2)).collect())
    }

    #[test]
    fn round_asks_each_leader_for_open_partitions() {
        let mut lookup = lookup(&[0, 1, 2, 3]);
        let metadata = metadata(&[Some(1), Some(2), Some(1), None]);
        let requests = lookup.begin_round(&metadata).unwrap();
        let rows = |partitions: &[i32]| partitions.iter().map(|it| (tp(*it), 4, -2)).collect::<Vec<_>>();
        assert_eq!(requests, [(1, rows(&[0, 2])), (2, rows(&[1]))].into());
        lookup.answered(Ok([(tp(0), Ok(offset(5))), (tp(2), Ok(offset(6)))].into())).unwrap();
        lookup.answered(Ok([(tp(1), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))].into())).unwrap();
        lookup.end_round();
        assert!(!lookup.is_complete());

        let moved = self::metadata(&[Some(1), Some(3), Some(1), Some(3)]);
        assert_eq!(lookup.begin_round(&moved).unwrap(), [(3, rows(&[1, 3]))].into());
        lookup.answered(Ok([(tp(1), Ok(offset(7))), (tp(3), Ok(offset(8)))].into())).unwrap();
        lookup.end_round();
        assert!(lookup.is_complete());
        assert_eq!(lookup.into_offsets().len(), 4);
    }

    #[test]
    fn permanent_error_ends_lookup() {
        let mut lookup = lookup(&[0]);
        assert_eq!(
            lookup.begin_round(&metadata(&[])).unwrap_err().kind(),
            ErrorKind::UnknownTopicOrPartition,
            "the topic has no such partition"
        );
        let refused = [(tp(0), Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED))].into();
        assert_eq!(lookup.answered(Ok(refused)).unwrap_err().kind(), ErrorKind::Authorization);
        let unsent = Error::new(ErrorKind::Authentication, "test");
        assert_eq!(lookup.answered(Err(unsent)).unwrap_err().kind(), ErrorKind::Authentication);
    }

    #[test]
    fn timeout_error_names_error_of_last_round() {
        let error_after = |answer: Result<LeaderAnswer>| {
            let mut lookup = lookup(&[0]);
            lookup.begin_round(&metadata(&[Some(1)])).unwrap();
            lookup.answered(answer).unwrap();
            lookup.end_round();
            lookup.timed_out()
        };
        let loading = error_after(Ok([(tp(0), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))].into()));
        assert!(loading.to_string().contains("NOT_LEADER_OR_FOLLOWER"), "{loading}");
        let lost = error_after(Err(Error::new(ErrorKind::Network, "the broker is gone")));
        assert!(lost.to_string().contains("the broker is gone"), "{lost}");
        let left_out = error_after(Ok(HashMap::new()));
        assert_eq!(left_out.kind(), ErrorKind::Timeout);

        let mut lookup = lookup(&[0]);
        lookup.answered(Err(Error::new(ErrorKind::Network, "the broker is gone"))).unwrap();
        assert!(lookup.begin_round(&metadata(&[None])).unwrap().is_empty());
        let error = lookup.timed_out().to_string();
        assert!(error.contains("LEADER_NOT_AVAILABLE") && !error.contains("gone"), "{error}");
    }
}
