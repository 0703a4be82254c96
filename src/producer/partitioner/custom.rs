//! The user's own partitioner: what it sees, and what it says.
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

/// A partitioner of the user's own ([`Partitioner::custom`](crate::producer::Partitioner::custom)).
///
/// It is asked in the call that sends the record, or, for a record whose topic was not known then,
/// on the producer's task: so it must not block, and it should be quick. No lock of the producer is
/// held meanwhile. It is not asked about records that name their partition. It may be asked more
/// than once about a record that could not be put down at once, because the buffer was full or its
/// topic changed.
///
/// A partition that the topic does not have, and a panic, fail the record with
/// [`InvalidArgument`](ErrorKind::InvalidArgument), and no other.
///
/// ```
/// use ottla::{producer::{CustomPartitioner, PartitionChoice, Partitioner, TopicSnapshot}, Producer, Record};
///
/// /// Keys of our largest customer have the last partition to themselves.
/// #[derive(Debug)]
/// struct LargestApart;
///
/// impl CustomPartitioner for LargestApart {
///     fn partition(&self, record: &Record<'_>, topic: &TopicSnapshot<'_>) -> PartitionChoice {
///         let last = topic.partitions() as i32 - 1;
///         match record.key() {
///             Some(b"acme") => PartitionChoice::Partition(last),
///             Some(key) if last > 0 => PartitionChoice::Partition(i32::from(key.len() as u8) % last),
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
    /// The partition for a record.
    fn partition(&self, record: &Record<'_>, topic: &TopicSnapshot<'_>) -> PartitionChoice;
}

/// What a [`CustomPartitioner`] says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionChoice {
    /// It goes to this partition.
    Partition(i32),
    /// It may go to any: the producer chooses, as it does by default for records without a key.
    Any,
}

/// A topic as the producer's metadata shows it at the moment.
#[derive(Clone, Copy, Debug)]
pub struct TopicSnapshot<'a> {
    name: &'a str,
    leaders: &'a [Leader],
}

/// Who leads a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: Option<i32>,
    pub(crate) rack: Option<Arc<str>>,
}

impl<'a> TopicSnapshot<'a> {
    /// `leaders` by partition.
    pub(crate) fn new(name: &'a str, leaders: &'a [Leader]) -> Self {
        Self { name, leaders }
    }

    /// The topic's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// How many partitions it has, at least one; they are numbered from 0.
    pub fn partitions(&self) -> usize {
        self.leaders.len()
    }

    /// The id of the broker that leads a partition. `None` while there is none, and for a partition
    /// that is not there.
    pub fn leader(&self, partition: i32) -> Option<i32> {
        self.of(partition)?.node
    }

    /// The rack (`broker.rack`) of the broker that leads a partition, if it has both.
    pub fn leader_rack(&self, partition: i32) -> Option<&'a str> {
        self.of(partition)?.rack.as_deref()
    }

    /// The partitions that have a leader, in ascending order.
    pub fn available(&self) -> impl Iterator<Item = i32> + use<'a> {
        (0..).zip(self.leaders).filter(|(_, leader)| leader.node.is_some()).map(|(partition, _)| partition)
    }

    fn of(&self, partition: i32) -> Option<&'a Leader> {
        self.leaders.get(usize::try_from(partition).ok()?)
    }
}

/// What the user's partitioner says; `None` for any partition.
pub(super) fn ask(
    partitioner: &dyn CustomPartitioner,
    record: &Record<'_>,
    topic: &TopicSnapshot<'_>,
) -> Result<Option<usize>, Error> {
    let invalid = |message| Error::new(ErrorKind::InvalidArgument, message);
    // What it leaves behind half done is its own; nothing of ours is in its hands.
    let choice = catch_unwind(AssertUnwindSafe(|| partitioner.partition(record, topic))).map_err(|panic| {
        invalid(format!("the partitioner panicked at a record of topic {}: {}", topic.name, said(&*panic)))
    })?;
    match choice {
        PartitionChoice::Any => Ok(None),
        PartitionChoice::Partition(partition) => {
            let index = usize::try_from(partition).ok().filter(|index| *index < topic.partitions());
            index.map(Some).ok_or_else(|| {
                invalid(format!(
                    "the partitioner chose partition {partition} of topic {}, which has {}",
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
