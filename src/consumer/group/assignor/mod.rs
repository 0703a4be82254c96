//! Partition assignment by the group's leader, with one of the strategies that all members support.
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

/// Behavior of members when their group rebalances.
///
/// The list is complete: the classic protocol knows these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// A member gives up all partitions before it joins again.
    Eager,
    /// Members keep what they own and give up only partitions that move to other members, which
    /// takes two rounds (KIP-429).
    Cooperative,
}

/// A strategy of `partition.assignment.strategy`: in the group's leader, assigns the partitions to
/// the members.
///
/// All members of a group need one strategy in common. Besides your own there are
/// [`RangeAssignor`], [`RoundRobinAssignor`], [`StickyAssignor`] and [`CooperativeStickyAssignor`].
///
/// A member rebalances cooperatively if all of its assignors do, otherwise eagerly. So a group is
/// moved from an eager to a cooperative assignor by restarting its members twice: first with both
/// of them, then with the cooperative one alone.
pub trait Assignor: fmt::Debug + Send + Sync + 'static {
    /// Returns the assignor's name in the group protocol, which is equal in all members.
    fn name(&self) -> &str;

    /// Returns the best protocol that the assignor supports. Default:
    /// [`Eager`](RebalanceProtocol::Eager).
    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    /// Returns data for the leader's assignor, sent beside the member's subscription. Default:
    /// none.
    fn user_data(&self, topics: &BTreeSet<Arc<str>>, last: &LastAssignment) -> Option<Bytes> {
        let _ = (topics, last);
        None
    }

    /// Assigns the partitions to the members. Members without partitions may be missing from the
    /// result. Equal input must give equal results.
    ///
    /// If the protocol is cooperative, the library withholds partitions that another member still
    /// owns until that member has given them up.
    ///
    /// # Errors
    /// An error is reported to the reader of the group's leader, which leads no generation before
    /// its reader polls again. Panics are handled alike, and so are results that assign a partition
    /// that does not exist, one that its member is not subscribed to, or one partition twice.
    fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError>;
}

/// The partitions of each member, by member id.
pub type Assignments = BTreeMap<Arc<str>, Vec<TopicPartition>>;

/// The racks of the brokers with a partition's replicas, as far as they are known.
pub type PartitionRacks = BTreeSet<Arc<str>>;

/// The last assignment that a member accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastAssignment {
    /// The assigned partitions, sorted.
    pub partitions: Vec<TopicPartition>,
    /// The generation; −1 if there was none yet.
    pub generation: i32,
}

impl Default for LastAssignment {
    fn default() -> Self {
        Self { partitions: Vec::new(), generation: -1 }
    }
}

/// The input of an assignor.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GroupSubscription {
    /// The group's members, ordered by id.
    pub members: Vec<GroupMember>,
    /// The existing topics that they are subscribed to, with the racks of each partition: the
    /// length of the list is the number of partitions.
    pub topics: BTreeMap<Arc<str>, Vec<PartitionRacks>>,
}

/// A member of a group as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// The member's id, given by the coordinator.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The topics that it is subscribed to.
    pub topics: Vec<Arc<str>>,
    /// The partitions that it still owned when it joined; empty under the eager protocol.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it owned them (KIP-792), if it is known.
    pub generation: Option<i32>,
    /// `client.rack` (KIP-881).
    pub rack: Option<Arc<str>>,
    /// Data added by its assignor.
    pub user_data: Option<Bytes>,
}

impl GroupMember {
    /// Returns the key of the order in which every leader arrives at one assignment: static members
    /// first, by their instance ids, so that they keep their place when they return with another
    /// member id (KIP-345).
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
            // A topic that a member names twice counts once.
            let mut seen = BTreeSet::new();
            member.topics.retain(|topic| seen.insert(topic.clone()));
        }
        Self { members, topics }
    }

    /// Returns every partition of these topics, in order.
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

/// Returns true if racks can improve the assignment: members and replicas have some in common, and
/// not every partition has replicas in all of them.
fn racks_matter<'a>(
    members: impl IntoIterator<Item = &'a Arc<str>>,
    partitions: impl IntoIterator<Item = &'a PartitionRacks> + Clone,
) -> bool {
    let all: BTreeSet<&Arc<str>> = partitions.clone().into_iter().flatten().collect();
    members.into_iter().any(|rack| all.contains(rack)) && partitions.into_iter().any(|racks| racks.len() != all.len())
}

/// Runs the strategy and encodes each member's part. Every member has an entry, which is empty if
/// it gets no partitions.
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
        Ok(Err(cause)) => return Err(failed(format!("{cause}")).with_source(cause)),
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

/// Rejects a result that the members could not carry out.
fn check(group: &GroupSubscription, shares: &Assignments) -> Result<(), String> {
    let refuse = |what: fmt::Arguments<'_>| Err(what.to_string());
    let mut given: BTreeSet<&TopicPartition> = BTreeSet::new();
    for (id, share) in shares {
        let Some(member) = group.members.iter().find(|member| member.member_id == *id) else {
            return refuse(format_args!("it assigned partitions to {id}, which is no member"));
        };
        for partition in share {
            if group.racks(partition).is_none() {
                return refuse(format_args!("it assigned {partition}, which does not exist"));
            }
            if !member.wants(&partition.topic) {
                return refuse(format_args!("it assigned {partition} to {id}, which is not subscribed to the topic"));
            }
            if !given.insert(partition) {
                return refuse(format_args!("it assigned {partition} twice"));
            }
        }
    }
    Ok(())
}

/// Withholds from its new owner a partition that another member still owns, because that member has
/// to give it up first. A claim counts only if no member has one from a newer generation.
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

/// Returns the assignor of that name: as in the group protocol, or the name of its class in Java.
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

/// Returns Java's default: range, with support for cooperative-sticky.
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
        // A claim from an earlier generation counts as long as no member has a newer one.
        assert_eq!(shared(to_a(), claims(&[1, 2], Some(4))).unwrap(), expected(&[1, 2]));
        assert_eq!(shared(to_a(), claims(&[1], None)).unwrap(), expected(&[1, 2]));
        // Two members with equal claims from one generation: neither gets the partition before both
        // have given it up.
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
