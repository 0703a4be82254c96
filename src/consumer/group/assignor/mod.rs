//! Who gets which partition: decided by the group's leader, with one of the strategies that all
//! members know.
//!
//! Sans-IO.

mod constrained;
mod general;
#[cfg(test)]
mod golden_tests;
mod range;
mod round_robin;
mod sticky;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;

pub use range::RangeAssignor;
pub use round_robin::RoundRobinAssignor;
pub use sticky::{CooperativeStickyAssignor, StickyAssignor};

use crate::consumer::group::classic::member_metadata;
use crate::{
    error::{BoxError, Error, ErrorKind, Result},
    record::TopicPartition,
};

/// How members behave when their group rebalances.
///
/// The list is complete: the classic protocol knows these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// Everything is given up before a member joins anew.
    Eager,
    /// Members keep what they own and give up only what goes to others, which takes two rounds
    /// (KIP-429).
    Cooperative,
}

/// A strategy of `partition.assignment.strategy`: decides in the group's leader who reads which
/// partition.
///
/// All members of a group need one in common. Beside your own there are [`RangeAssignor`],
/// [`RoundRobinAssignor`], [`StickyAssignor`] and [`CooperativeStickyAssignor`].
///
/// A member rebalances cooperatively where all of its assignors do, else eagerly. So a group is
/// moved from an eager to a cooperative assignor by restarting its members twice: first with both
/// of them, then with the cooperative one alone.
pub trait Assignor: fmt::Debug + Send + Sync + 'static {
    /// Its name in the group protocol, the same in all members.
    fn name(&self) -> &str;

    /// The best protocol that it can do. Default: [`Eager`](RebalanceProtocol::Eager).
    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    /// What this member tells the leader's assignor beside its subscription. Default: nothing.
    fn user_data(&self, topics: &BTreeSet<Arc<str>>, last: &LastAssignment) -> Option<Bytes> {
        let _ = (topics, last);
        None
    }

    /// Shares out the partitions among the members. Members that get nothing may be missing from
    /// the answer. The same input has to give the same answer.
    ///
    /// Where the protocol is cooperative, partitions that another member still owns are withheld by
    /// the library until it has given them up.
    ///
    /// # Errors
    /// The group's leader is told of them, and leads no generation before its reader asks for
    /// records again. So is it of a panic, and of an answer that gives away what does not exist,
    /// what its member is not subscribed to, or the same partition twice.
    fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError>;
}

/// What each member gets, by member id.
pub type Assignments = BTreeMap<Arc<str>, Vec<TopicPartition>>;

/// The racks of the brokers that have a partition's replicas, as far as they are known.
pub type PartitionRacks = BTreeSet<Arc<str>>;

/// The last assignment that a member took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastAssignment {
    /// What it was given, sorted.
    pub partitions: Vec<TopicPartition>,
    /// The generation; −1 where there was none yet.
    pub generation: i32,
}

impl Default for LastAssignment {
    fn default() -> Self {
        Self { partitions: Vec::new(), generation: -1 }
    }
}

/// What an assignor decides about.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GroupSubscription {
    /// The group's members, in the order of their ids.
    pub members: Vec<GroupMember>,
    /// The topics that they are subscribed to and that exist, with the racks of each partition: the
    /// length of the list is how many there are.
    pub topics: BTreeMap<Arc<str>, Vec<PartitionRacks>>,
}

/// A member of a group as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its id, given by the coordinator.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// What it is subscribed to.
    pub topics: Vec<Arc<str>>,
    /// What it still owned when it joined; nothing under the eager protocol.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it owned that (KIP-792), where it says.
    pub generation: Option<i32>,
    /// `client.rack` (KIP-881).
    pub rack: Option<Arc<str>>,
    /// What its assignor added.
    pub user_data: Option<Bytes>,
}

impl GroupMember {
    /// The order in which every leader must arrive at the same assignment: static members first, by
    /// their instance ids, so that they keep their place when they come back with another member id
    /// (KIP-345).
    fn order(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance_id) => (false, instance_id),
            None => (true, &self.member_id),
        }
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics.iter().any(|wanted| &**wanted == topic)
    }
}

impl GroupSubscription {
    pub(crate) fn new(mut members: Vec<GroupMember>, topics: BTreeMap<Arc<str>, Vec<PartitionRacks>>) -> Self {
        members.sort_by(|one, other| one.member_id.cmp(&other.member_id));
        for member in &mut members {
            // A member that names a topic twice wants it once.
            let mut seen = BTreeSet::new();
            member.topics.retain(|topic| seen.insert(topic.clone()));
        }
        Self { members, topics }
    }

    /// Every partition of these topics, in order.
    fn partitions<'a>(&self, topics: impl IntoIterator<Item = &'a Arc<str>>) -> Vec<TopicPartition> {
        let of = |topic: &'a Arc<str>| {
            let count = self.topics.get(topic).map_or(0, Vec::len);
            (0..i32::try_from(count).unwrap_or(i32::MAX))
                .map(move |partition| TopicPartition { topic: topic.clone(), partition })
        };
        topics.into_iter().flat_map(of).collect()
    }

    fn racks(&self, partition: &TopicPartition) -> Option<&PartitionRacks> {
        self.topics.get(&partition.topic)?.get(usize::try_from(partition.partition).ok()?)
    }
}

/// Whether it helps to look at racks: members and replicas have some in common, and not every
/// partition is everywhere.
fn racks_matter<'a>(
    members: impl IntoIterator<Item = &'a Arc<str>>,
    partitions: impl IntoIterator<Item = &'a PartitionRacks> + Clone,
) -> bool {
    let all: BTreeSet<&Arc<str>> = partitions.clone().into_iter().flatten().collect();
    members.into_iter().any(|rack| all.contains(rack)) && partitions.into_iter().any(|racks| racks.len() != all.len())
}

/// Lets the strategy decide and writes down each member's part. Every member is named, with nothing
/// where it gets nothing.
pub(crate) fn share_out(
    assignor: &dyn Assignor,
    members: Vec<GroupMember>,
    topics: BTreeMap<Arc<str>, Vec<PartitionRacks>>,
) -> Result<Vec<(Arc<str>, Bytes)>> {
    let group = GroupSubscription::new(members, topics);
    let name = assignor.name();
    let failed = |what: String| Error::new(ErrorKind::Callback, format!("assignor {name}: {what}"));
    let mut shares = match catch_unwind(AssertUnwindSafe(|| assignor.assign(&group))) {
        Ok(Ok(shares)) => shares,
        Ok(Err(cause)) => return Err(failed(format!("it failed: {cause}")).with_source(cause)),
        Err(_) => return Err(failed("it panicked".to_owned())),
    };
    check(&group, &shares).map_err(failed)?;
    if assignor.protocol() == RebalanceProtocol::Cooperative {
        withhold(&group, &mut shares);
    }
    let encoded = group.members.iter().map(|member| {
        let share = shares.remove(&member.member_id).unwrap_or_default();
        Ok((member.member_id.clone(), member_metadata::encode_assignment(&share)?))
    });
    encoded.collect()
}

/// Refuses an answer that would leave the group's members at odds.
fn check(group: &GroupSubscription, shares: &Assignments) -> Result<(), String> {
    let refuse = |what: fmt::Arguments<'_>| Err(what.to_string());
    let mut given: BTreeSet<&TopicPartition> = BTreeSet::new();
    for (id, share) in shares {
        let Some(member) = group.members.iter().find(|member| member.member_id == *id) else {
            return refuse(format_args!("it gave partitions to {id}, which is no member"));
        };
        for partition in share {
            if group.racks(partition).is_none() {
                return refuse(format_args!("it gave {partition} away, which does not exist"));
            }
            if !member.wants(&partition.topic) {
                return refuse(format_args!("it gave {partition} to {id}, which is not subscribed to it"));
            }
            if !given.insert(partition) {
                return refuse(format_args!("it gave {partition} away twice"));
            }
        }
    }
    Ok(())
}

/// Keeps from its new owner what another member still owns: that one has to give it up first. A
/// claim from an older generation than another member's claim counts for nothing.
fn withhold(group: &GroupSubscription, shares: &mut Assignments) {
    let mut owners: BTreeMap<&TopicPartition, (i32, Vec<&Arc<str>>)> = BTreeMap::new();
    for member in &group.members {
        let generation = member.generation.unwrap_or(-1);
        for partition in &member.owned {
            let (newest, claims) = owners.entry(partition).or_insert((generation, Vec::new()));
            if generation > *newest {
                (*newest, *claims) = (generation, Vec::new());
            }
            if generation == *newest {
                claims.push(&member.member_id);
            }
        }
    }
    for (id, share) in shares {
        share.retain(|partition| owners.get(partition).is_none_or(|(_, claims)| claims == &[id]));
    }
}

/// The assignor of that name: as in the group protocol, or the name of its class in Java.
pub(crate) fn named(name: &str) -> Option<Arc<dyn Assignor>> {
    let short = name.strip_prefix("org.apache.kafka.clients.consumer.").unwrap_or(name);
    match short {
        "range" | "RangeAssignor" => Some(Arc::new(RangeAssignor)),
        "roundrobin" | "RoundRobinAssignor" => Some(Arc::new(RoundRobinAssignor)),
        "sticky" | "StickyAssignor" => Some(Arc::new(StickyAssignor)),
        "cooperative-sticky" | "CooperativeStickyAssignor" => Some(Arc::new(CooperativeStickyAssignor)),
        _ => None,
    }
}

/// Java's default: range, and ready for cooperative-sticky.
pub(crate) fn defaults() -> Vec<Arc<dyn Assignor>> {
    vec![Arc::new(RangeAssignor), Arc::new(CooperativeStickyAssignor)]
}

#[cfg(test)]
mod tests {
    use super::*;

    type Decide = fn(&GroupSubscription) -> Result<Assignments, BoxError>;

    #[derive(Debug)]
    struct Odd(Decide);

    impl Assignor for Odd {
        fn name(&self) -> &str {
            "odd"
        }

        fn protocol(&self) -> RebalanceProtocol {
            RebalanceProtocol::Cooperative
        }

        fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError> {
            (self.0)(group)
        }
    }

    fn member(id: &str, generation: Option<i32>, owned: &[i32]) -> GroupMember {
        GroupMember {
            member_id: id.into(),
            topics: vec!["t".into()],
            owned: owned.iter().map(|&partition| TopicPartition::new("t", partition)).collect(),
            generation,
            ..GroupMember::default()
        }
    }

    fn one(id: &str, topic: &str, partitions: &[i32]) -> Assignments {
        let partitions = partitions.iter().map(|&partition| TopicPartition::new(topic, partition)).collect();
        [(id.into(), partitions)].into()
    }

    fn shared(odd: Odd, members: Vec<GroupMember>) -> Result<Vec<(String, Vec<i32>)>> {
        let topics = [("t".into(), vec![PartitionRacks::new(); 3])].into();
        let decided = share_out(&odd, members, topics)?.into_iter().map(|(id, bytes)| {
            let share = member_metadata::decode_assignment(&bytes).unwrap();
            (id.to_string(), share.iter().map(|partition| partition.partition).collect())
        });
        Ok(decided.collect())
    }

    #[test]
    fn rejects_invalid_assignment_and_names_assignor() {
        let members = || vec![member("a", None, &[]), member("b", None, &[])];
        let broken: [(Decide, &str); 6] = [
            (|_| Ok(one("c", "t", &[0])), "no member"),
            (|_| Ok(one("a", "t", &[3])), "does not exist"),
            (|_| Ok(one("a", "u", &[0])), "does not exist"),
            (|_| Ok(one("a", "t", &[1, 1])), "twice"),
            (|_| panic!("on purpose"), "panicked"),
            (|_| Err("no idea".into()), "no idea"),
        ];
        for (odd, what) in broken {
            let error = shared(Odd(odd), members()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Callback, "{error}");
            assert!(error.to_string().contains(what) && error.to_string().contains("odd"), "{error}");
        }
    }

    #[test]
    fn withholds_partitions_until_owner_revokes_them() {
        let to_a = || Odd(|_| Ok(one("a", "t", &[0, 1, 2])));
        let claims = |a, b| vec![member("a", Some(5), a), member("b", b, &[0, 1])];
        let expected = |given: &[i32]| vec![("a".to_owned(), given.to_vec()), ("b".to_owned(), vec![])];
        assert_eq!(shared(to_a(), claims(&[2], Some(5))).unwrap(), expected(&[2]));
        // A claim from a generation that is over stands as long as nobody has a newer one.
        assert_eq!(shared(to_a(), claims(&[1, 2], Some(4))).unwrap(), expected(&[1, 2]));
        assert_eq!(shared(to_a(), claims(&[1], None)).unwrap(), expected(&[1, 2]));
        // Two that claim the same of the same generation: neither gets it before both have given it
        // up.
        assert_eq!(shared(to_a(), claims(&[0, 1], Some(5))).unwrap(), expected(&[2]));
    }

    #[test]
    fn resolves_assignors_by_kafka_and_java_name() {
        for name in ["range", "roundrobin", "sticky", "cooperative-sticky"] {
            assert_eq!(named(name).unwrap().name(), name);
        }
        let java = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        assert_eq!(named(java).unwrap().name(), "cooperative-sticky");
        assert!(named("org.example.Mine").is_none());
    }
}
