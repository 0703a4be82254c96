//! A classic consumer group, as its coordinator keeps it: members, generations, rebalances,
//! committed offsets.
//!
//! ```text
//!             first member joins              all have joined, or time is up
//!   Empty ───────────────────────► Preparing ──────────────────────────────► Completing
//!     ▲                              ▲   ▲                                       │
//!     │ the last member leaves       │   └──── a member joins or leaves ─────────┤
//!     └──────────────────────────────┤                                           │ leader assigns
//!                                    └──── a member joins or leaves ── Stable ◄──┘
//! ```
//!
//! Time is passed in as `now`. A request that waits (a JoinGroup until all members have joined, a
//! SyncGroup until the leader has assigned) holds a [`Ticket`] and asks for its outcome again
//! whenever the group changed or [`Group::deadline`] has passed.
//!
//! Sans-IO.

mod committed;
pub(super) mod identity;
mod join;
mod membership;
mod migration;
mod offsets;
mod pending_offsets;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::consumer_group::ConsumerGroup;

pub(crate) use crate::testkit::state::group::identity::MemberIdentity;
pub(crate) use committed::Committed;
pub(crate) use join::{JoinOutcome, JoinRequest};
pub(crate) use pending_offsets::PendingOffsets;
pub(crate) use sync::{SyncOutcome, SyncRequest};

/// The settings of a group, from its broker's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupSettings {
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) min_session_timeout: Duration,
    pub(crate) max_session_timeout: Duration,
    pub(crate) max_size: usize,
}

/// Identifies a wait for the outcome of a JoinGroup or SyncGroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Either the response, or the ticket to wait with.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Done(T),
    Wait(Ticket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Preparing {
        /// Time at which members that did not join are removed.
        until: Instant,
        /// Set if the group was empty before: then `initial_rebalance_delay` is waited out even if
        /// all members have joined, and is extended as members come, up to this time.
        first: Option<Instant>,
    },
    Completing {
        /// Time at which members that did not sync are removed.
        until: Instant,
    },
    Stable {
        /// Time at which members that did not fetch their assignment are removed; `None` once all
        /// have.
        until: Option<Instant>,
    },
}

#[derive(Debug)]
struct Member {
    id: String,
    instance: Option<String>,
    client_id: String,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    /// Protocols in the member's order of preference.
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    /// Time at which the member is removed unless it sends a request; not applied while the member
    /// waits.
    expires: Instant,
    joining: Option<Ticket>,
    syncing: Option<Ticket>,
    synced: bool,
}

impl Member {
    fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    fn heard(&mut self, now: Instant) {
        self.expires = now + self.session_timeout;
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: Vec<Member>,
    /// Ids that were given out and not used yet (KIP-394), with the time at which they expire.
    pending: BTreeMap<String, Instant>,
    /// True if a member came during the initial delay, which is then waited out once more.
    came: bool,
    joins: HashMap<Ticket, JoinOutcome>,
    syncs: HashMap<Ticket, SyncOutcome>,
    tickets: u64,
    offsets: BTreeMap<(String, i32), committed::Written>,
    /// Offsets of transactions that have not ended.
    pending_offsets: PendingOffsets,
    /// Number of commits of partitions so far.
    commits: u64,
    /// The group's state if it is one of the consumer protocol; then it has no classic members of
    /// its own.
    consumer: Option<Box<ConsumerGroup>>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Vec::new(),
            pending: BTreeMap::new(),
            came: false,
            joins: HashMap::new(),
            syncs: HashMap::new(),
            tickets: 0,
            offsets: BTreeMap::new(),
            pending_offsets: PendingOffsets::default(),
            commits: 0,
            consumer: None,
        }
    }
}

/// A group, as a test or an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupView {
    /// Kafka's name for the group's state: `Empty`, `PreparingRebalance`, `CompletingRebalance` or
    /// `Stable`; for a group of the consumer protocol, of which this shows only a part, the name in
    /// [`ConsumerGroupView`](super::super::ConsumerGroupView).
    pub state: &'static str,
    /// Rises with every rebalance.
    pub generation: i32,
    /// `consumer` for consumer groups; empty if no member has joined yet.
    pub protocol_type: String,
    /// The assignor that the members agreed on.
    pub protocol: Option<String>,
    /// The member that assigns.
    pub leader: Option<String>,
    /// The members, in the order in which they came.
    pub members: Vec<MemberView>,
}

/// A member of a [`GroupView`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberView {
    /// The id that the coordinator gave the member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// The member's metadata for the group's protocol (a serialized subscription).
    pub metadata: Bytes,
    /// The assignment from the leader (a serialized assignment).
    pub assignment: Bytes,
}

/// Shows a group of the consumer protocol in the form of a classic one, as far as possible.
fn consumer_view(consumer: &ConsumerGroup) -> GroupView {
    let members = consumer.members().map(|(id, instance, client_id)| MemberView {
        member_id: id.to_owned(),
        instance_id: instance.map(str::to_owned),
        client_id: client_id.to_owned(),
        metadata: Bytes::new(),
        assignment: Bytes::new(),
    });
    GroupView {
        state: consumer.state(),
        generation: consumer.epoch(),
        protocol_type: "consumer".to_owned(),
        protocol: None,
        leader: None,
        members: members.collect(),
    }
}

impl Group {
    /// Returns the group's present state.
    pub(crate) fn view(&self) -> GroupView {
        if let Some(consumer) = &self.consumer {
            return consumer_view(consumer);
        }
        GroupView {
            state: match self.phase {
                Phase::Empty => "Empty",
                Phase::Preparing { .. } => "PreparingRebalance",
                Phase::Completing { .. } => "CompletingRebalance",
                Phase::Stable { .. } => "Stable",
            },
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self
                .members
                .iter()
                .map(|member| MemberView {
                    member_id: member.id.clone(),
                    instance_id: member.instance.clone(),
                    client_id: member.client_id.clone(),
                    metadata: self.metadata_of(member),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        }
    }

    /// Returns the time of the group's next change if there are no requests.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Empty => None,
            Phase::Preparing { until, .. } | Phase::Completing { until } => Some(until),
            Phase::Stable { until } => until,
        };
        let sessions = self.members.iter().filter(|member| !member.waits()).map(|member| member.expires);
        let consumer = self.consumer.as_ref().and_then(|consumer| consumer.deadline());
        phase.into_iter().chain(sessions).chain(self.pending.values().copied()).chain(consumer).min()
    }

    /// Applies everything that was due by now, each change at its own time.
    pub(crate) fn advance(&mut self, now: Instant, settings: &GroupSettings) {
        if let Some(consumer) = &mut self.consumer {
            return consumer.advance(now);
        }
        while let Some(at) = self.deadline().filter(|&at| at <= now) {
            self.pending.retain(|_, lapses| *lapses > at);
            let dead: Vec<String> = self
                .members
                .iter()
                .filter(|member| !member.waits() && member.expires <= at)
                .map(|member| member.id.clone())
                .collect();
            for id in dead {
                self.remove(&id, at, settings);
            }
            match self.phase {
                Phase::Preparing { until, first } if until <= at => self.time_is_up(at, first, settings),
                Phase::Completing { until } | Phase::Stable { until: Some(until) } if until <= at => {
                    self.drop_those_who_did_not_sync(at, settings);
                }
                _ => {}
            }
            self.try_complete(at, settings);
        }
    }

    /// Returns the outcome of a join that had to wait, once there is one.
    pub(crate) fn take_join(&mut self, ticket: Ticket) -> Option<JoinOutcome> {
        self.joins.remove(&ticket)
    }

    /// Returns the outcome of a sync that had to wait, once there is one.
    pub(crate) fn take_sync(&mut self, ticket: Ticket) -> Option<SyncOutcome> {
        self.syncs.remove(&ticket)
    }

    /// Returns true if the group has no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.consumer.as_ref().is_none_or(|consumer| consumer.is_empty())
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn index(&self, member_id: &str) -> Option<usize> {
        self.members.iter().position(|member| member.id == member_id)
    }

    fn member_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == member_id)
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    fn metadata_of(&self, member: &Member) -> Bytes {
        let chosen = self.protocol.as_deref();
        let found = member.protocols.iter().find(|(name, _)| Some(name.as_str()) == chosen);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }
}
