//! Custom partitioners: the trait, the topic that they see, and their choice.
//!
//! Sans-IO.

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    error::{Error, ErrorKind, said},
    record::Record,
};

/// A custom partitioner, to be set with
/// [`Partitioner::custom`](crate::producer::Partitioner::custom).
///
/// It is called in the call that sends the record, or on the producer's task if the record's topic
/// was not known then. So it must not block, and it should be quick. No lock of the producer is
/// held meanwhile. It is not called for records that name their partition. It may be called more
/// than once for a record that could not be placed at once, because the buffer was full or its
/// topic changed.
///
/// A partition that the topic does not have, or a panic, fails that record with
/// [`InvalidArgument`](ErrorKind::InvalidArgument), and no other record.
///
/// ```
/// use ottla::{
///     Producer, Record,
///     producer::{CustomPartitioner, PartitionChoice, Partitioner, TopicSnapshot},
/// };
///
/// /// Keys of our largest customer have the last partition to themselves.
/// #[derive(Debug)]
/// struct LargestApart;
///
/// impl CustomPartitioner for LargestApart {
///     fn partition(
///         &self,
///         record: &Record<'_>,
///         topic: &TopicSnapshot<'_>,
///     ) -> PartitionChoice {
///         let last = topic.partitions() as i32 - 1;
///         match record.key() {
///             Some(b"acme") => PartitionChoice::Partition(last),
///             Some(key) if last > 0 => {
///                 PartitionChoice::Partition(i32::from(key.len() as u8) % last)
///             }
///             _ => PartitionChoice::Any,
///         }
///     }
/// }
///
/// # let _ =
/// Producer::builder("localhost:9092").partitioner(Partitioner::custom(LargestApart))
/// # ;
/// ```
pub trait CustomPartitioner: Send + Sync + Debug {
    /// Returns the partition for a record.
    fn partition(&self, record: &Record<'_>, topic: &TopicSnapshot<'_>) -> PartitionChoice;
}

/// The choice of a [`CustomPartitioner`] for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionChoice {
    /// The record goes to this partition.
    Partition(i32),
    /// The record may go to any partition: the producer chooses, as it does by default for records
    /// without a key.
    Any,
}

/// A topic in the producer's current metadata.
#[derive(Clone, Copy, Debug)]
pub struct TopicSnapshot<'a> {
    name: &'a str,
    leaders: &'a [Leader],
}

/// The leader of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: Option<i32>,
    pub(crate) rack: Option<Arc<str>>,
}

impl<'a> TopicSnapshot<'a> {
    /// Creates a snapshot; `leaders` are in the order of the partitions.
    pub(crate) fn new(name: &'a str, leaders: &'a [Leader]) -> Self {
        Self { name, leaders }
    }

    /// Returns the topic's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the number of partitions, at least one. They are numbered from 0.
    pub fn partitions(&self) -> usize {
        self.leaders.len()
    }

    /// Returns the id of the broker that leads a partition; `None` if the partition has no leader
    /// or does not exist.
    pub fn leader(&self, partition: i32) -> Option<i32> {
        self.of(partition)?.node
    }

    /// Returns the rack (`broker.rack`) of the broker that leads a partition; `None` if it has no
    /// leader or the leader has no rack.
    pub fn leader_rack(&self, partition: i32) -> Option<&'a str> {
        self.of(partition)?.rack.as_deref()
    }

    /// Returns the partitions that have a leader, in ascending order.
    pub fn available(&self) -> impl Iterator<Item = i32> + use<'a> {
        (0..).zip(self.leaders).filter(|(_, leader)| leader.node.is_some()).map(|(partition, _)| partition)
    }

    fn of(&self, partition: i32) -> Option<&'a Leader> {
        self.leaders.get(usize::try_from(partition).ok()?)
    }
}

/// Returns the choice of the custom partitioner; `None` for any partition.
pub(super) fn ask(
    partitioner: &dyn CustomPartitioner,
    record: &Record<'_>,
    topic: &TopicSnapshot<'_>,
) -> Result<Option<usize>, Error> {
    let invalid = |message| Error::new(ErrorKind::InvalidArgument, message);
    // A panic can only leave state of the partitioner itself inconsistent: it holds nothing of the
    // producer's.
    let choice = catch_unwind(AssertUnwindSafe(|| partitioner.partition(record, topic))).map_err(|panic| {
        invalid(format!("the partitioner panicked for a record of topic {}: {}", topic.name, said(&*panic)))
    })?;
    match choice {
        PartitionChoice::Any => Ok(None),
        PartitionChoice::Partition(partition) => {
            let index = usize::try_from(partition).ok().filter(|index| *index < topic.partitions());
            index.map(Some).ok_or_else(|| {
                invalid(format!(
                    "the partitioner chose partition {partition} of topic {}, which has {} partitions",
                    topic.name,
                    topic.partitions()
                ))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Says(fn(&TopicSnapshot<'_>) -> PartitionChoice);

    impl CustomPartitioner for Says {
        fn partition(&self, _: &Record<'_>, topic: &TopicSnapshot<'_>) -> PartitionChoice {
            (self.0)(topic)
        }
    }

    fn asked(says: fn(&TopicSnapshot<'_>) -> PartitionChoice) -> Result<Option<usize>, Error> {
        let leader = |node, rack: &str| Leader { node: Some(node), rack: Some(rack.into()) };
        let leaders = [leader(1, "a"), Leader::default(), leader(2, "b")];
        ask(&Says(says), &Record::to("t"), &TopicSnapshot::new("t", &leaders))
    }

    #[test]
    fn partitioner_reads_topic_leaders_and_racks() {
        let last = asked(|topic| {
            assert_eq!((topic.name(), topic.partitions()), ("t", 3));
            assert_eq!(
                (topic.leader(0), topic.leader(1), topic.leader(7), topic.leader(-1)),
                (Some(1), None, None, None)
            );
            assert_eq!((topic.leader_rack(2), topic.leader_rack(1)), (Some("b"), None));
            PartitionChoice::Partition(topic.available().last().unwrap())
        });
        assert_eq!(last.unwrap(), Some(2));
        assert_eq!(asked(|_| PartitionChoice::Any).unwrap(), None);
    }

    #[test]
    fn invalid_choice_or_panic_returns_invalid_argument() {
        for error in [asked(|_| PartitionChoice::Partition(3)), asked(|_| PartitionChoice::Partition(-1))] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("of topic t, which has 3"), "{error}");
        }
        for (error, part) in [
            (asked(|_| panic!("no idea")), "t: no idea"),
            (asked(|topic| panic!("{} is odd", topic.name())), "t: t is odd"),
        ] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
