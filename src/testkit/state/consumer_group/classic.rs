//! Members of the classic protocol in a group of the consumer protocol, and groups that move from
//! one protocol to the other while they run (KIP-848, online migration).
//!
//! Such a member joins, syncs and heartbeats as usual, but there is no leader: the coordinator
//! answers its JoinGroup at once, its SyncGroup with the partitions that the member may have, and
//! its heartbeats with REBALANCE_IN_PROGRESS whenever its assignment has to change.
//!
//! Sans-IO.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{ConsumerGroup, ConsumerGroupSettings, Held, Member, Picture, State, named};
use crate::{
    error::ErrorCode,
    testkit::state::group::MemberIdentity,
    wire::{
        byte_string::ByteString,
        decoder::{Decode, Decoder},
        encoder::{Encode, Encoder},
        messages::{
            ConsumerProtocolAssignment, ConsumerProtocolSubscription,
            consumer_protocol_assignment::TopicPartition as Given,
        },
    },
};

/// The group's state of a member of the classic protocol.
#[derive(Clone, Debug)]
pub(crate) struct ClassicMember {
    pub(crate) session_timeout: Duration,
    /// Protocols in the member's order of preference.
    pub(crate) protocols: Vec<(String, Bytes)>,
}

/// A JoinGroup request.
#[derive(Clone, Debug)]
pub(crate) struct ClassicJoin {
    pub(crate) identity: MemberIdentity,
    pub(crate) client_id: String,
    pub(crate) protocol_type: String,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) id_required: bool,
    pub(crate) new_id: String,
    pub(crate) member: ClassicMember,
}

/// A member's state that is kept when a group moves to the other protocol.
pub(crate) struct Moved {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) expires: Instant,
    pub(crate) member: ClassicMember,
    /// Bytes as in SyncGroup; empty if the member was never given an assignment.
    pub(crate) assignment: Bytes,
}

fn subscription(protocols: &[(String, Bytes)]) -> Option<(i16, ConsumerProtocolSubscription)> {
    let mut bytes = protocols.first()?.1.clone();
    let version = (bytes.len() >= 2).then(|| bytes.get_i16())?.clamp(0, 3);
    Some((version, ConsumerProtocolSubscription::decode(&mut Decoder::new(bytes, version, false)).ok()?))
}

fn held(topics: impl IntoIterator<Item = (String, Vec<i32>)>, metadata: &Picture) -> Held {
    let known = topics.into_iter().filter_map(|(name, all)| Some((metadata.get(name.as_str())?.0, all)));
    known.map(|(id, partitions)| (id, partitions.into_iter().collect())).collect()
}

/// Decodes an assignment from SyncGroup; `None` if it cannot be decoded, or has user data of a
/// custom assignor.
fn decode_assignment(bytes: &Bytes, metadata: &Picture) -> Option<Held> {
    let mut bytes = bytes.clone();
    if bytes.is_empty() {
        return Some(Held::new());
    }
    let version = (bytes.len() >= 2).then(|| bytes.get_i16())?.clamp(0, 3);
    let given = ConsumerProtocolAssignment::decode(&mut Decoder::new(bytes, version, false)).ok()?;
    if given.user_data.is_some_and(|data| !data.is_empty()) {
        return None;
    }
    Some(held(given.assigned_partitions.into_iter().map(|t| (t.topic.to_string(), t.partitions)), metadata))
}

fn encode_assignment(given: &Held, version: i16, metadata: &Picture) -> Bytes {
    let mut topics: Vec<Given> = Vec::new();
    for partition in named(given, metadata) {
        match topics.last_mut().filter(|last| last.topic == *partition.topic) {
            Some(last) => last.partitions.push(partition.partition),
            None => {
                topics.push(Given { topic: ByteString::from(&*partition.topic), partitions: vec![partition.partition] })
            }
        }
    }
    let mut out = BytesMut::new();
    out.put_i16(version);
    let assignment = ConsumerProtocolAssignment { assigned_partitions: topics, user_data: None };
    let written = assignment.encode(&mut Encoder::new(&mut out, version, false));
    if written.is_ok() { out.freeze() } else { Bytes::new() }
}

impl ConsumerGroup {
    /// Lets a member of the classic protocol join or rejoin; returns its id, epoch and protocol. It
    /// does not wait for other members.
    pub(crate) fn classic_join(
        &mut self,
        now: Instant,
        join: ClassicJoin,
        metadata: &Picture,
        settings: &ConsumerGroupSettings,
    ) -> Result<(String, i32, String), (ErrorCode, String)> {
        self.advance(now);
        let unknown = join.identity.member_id.is_empty();
        let id = if unknown { join.new_id.clone() } else { join.identity.member_id.clone() };
        let refuse = |code| Err((code, id.clone()));
        if !settings.migrates || join.protocol_type != "consumer" || !self.agrees_with(&join.member, &id) {
            return refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let Some((_, subscription)) = subscription(&join.member.protocols) else {
            return refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        };
        if self.members.len() >= settings.max_size && !self.members.contains_key(&id) {
            return refuse(ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        if unknown && join.id_required && join.identity.instance.is_none() {
            return refuse(ErrorCode::MEMBER_ID_REQUIRED);
        }
        let mut member = match &join.identity.instance {
            None => self.members.get(&id).cloned().unwrap_or_else(|| Member::new(id.clone(), None, now)),
            Some(instance) => match self.find_static(instance).map(|holder| holder.id.clone()) {
                None if unknown => Member::new(id.clone(), Some(instance.clone()), now),
                None => return refuse(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(holder) if unknown => match self.replace(&holder, id.clone()) {
                    Some(member) => member.clone(),
                    None => return refuse(ErrorCode::UNKNOWN_MEMBER_ID),
                },
                Some(holder) if holder != id => return refuse(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => self.members.get(&id).cloned().unwrap_or_else(|| Member::new(id.clone(), None, now)),
            },
        };
        let names: BTreeSet<String> = subscription.topics.iter().map(ToString::to_string).collect();
        let new = !self.members.contains_key(&id);
        let changed = new || member.names != names || !member.regex.is_empty();
        let owned = subscription.owned_partitions.into_iter().map(|t| (t.topic.to_string(), t.partitions));
        let owned = held(owned, metadata);
        let protocol = join.member.protocols.first().map(|(name, _)| name.clone()).unwrap_or_default();
        member.client_id = join.client_id;
        member.rebalance_timeout = join.rebalance_timeout;
        (member.names, member.regex, member.pattern, member.assignor) = (names, String::new(), None, None);
        member.expires = now + join.member.session_timeout;
        // The member has to sync in time.
        member.late = Some(now + join.rebalance_timeout);
        member.classic = Some(join.member);
        self.members.insert(id.clone(), member);
        self.look_at_topics(metadata, changed);
        self.assign(metadata);
        match self.reconcile(&id, now, Some(&owned), changed, metadata) {
            Ok(member) => Ok((id, member.epoch, protocol)),
            Err(code) => Err((code, id)),
        }
    }

    /// Returns true if all other members of the classic protocol have a strategy in common with
    /// this one.
    fn agrees_with(&self, member: &ClassicMember, id: &str) -> bool {
        let others: Vec<&ClassicMember> =
            self.members.values().filter(|other| other.id != id).filter_map(|other| other.classic.as_ref()).collect();
        let all_have = |name: &str| others.iter().all(|other| other.protocols.iter().any(|(known, _)| known == name));
        member.protocols.iter().any(|(name, _)| all_have(name))
    }

    fn classic_member(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
    ) -> Result<&mut Member, ErrorCode> {
        self.advance(now);
        let id = self.check_identity(identity)?.id.clone();
        let member = self.members.get_mut(&id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        let session = member.classic.as_ref().ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?.session_timeout;
        if member.epoch != generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        member.expires = now + session;
        Ok(member)
    }

    /// Returns the partitions that the member may have, and the protocol.
    pub(crate) fn classic_sync(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
        metadata: &Picture,
    ) -> Result<(Bytes, String), ErrorCode> {
        let target_epoch = self.target_epoch;
        let member = self.classic_member(now, identity, generation)?;
        if target_epoch > member.epoch && member.state != State::Unrevoked {
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        member.late = None;
        let protocols = member.classic.as_ref().map(|classic| classic.protocols.clone()).unwrap_or_default();
        let version = subscription(&protocols).map_or(0, |(version, _)| version);
        let name = protocols.into_iter().next().map(|(name, _)| name).unwrap_or_default();
        Ok((encode_assignment(&member.assigned, version, metadata), name))
    }

    pub(crate) fn classic_heartbeat(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        let member = self.classic_member(now, identity, generation)?.clone();
        let comes = member.epoch < self.target_epoch
            || member.state == State::Unrevoked
            || (member.state == State::Unreleased && !self.waits_for_others(&member));
        if !comes {
            return Ok(());
        }
        if let Some(member) = self.members.get_mut(&member.id) {
            member.late.get_or_insert(now + member.rebalance_timeout);
        }
        Err(ErrorCode::REBALANCE_IN_PROGRESS)
    }

    /// Removes a member. An administrator names only the instance of a static member.
    pub(crate) fn classic_leave(&mut self, now: Instant, identity: &MemberIdentity) -> Result<(), ErrorCode> {
        self.advance(now);
        let found = match &identity.instance {
            Some(instance) if identity.member_id.is_empty() => {
                self.find_static(instance).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)
            }
            _ => self.check_identity(identity),
        };
        let id = found?.id.clone();
        self.remove(&id);
        Ok(())
    }

    /// Returns true if there are members and all of them use the classic protocol: then the group
    /// moves back to it.
    pub(crate) fn is_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.classic.is_some())
    }

    /// Converts a classic group; `None` if its members use a custom assignor, the data of which
    /// would be lost.
    pub(crate) fn from_classic(generation: i32, members: Vec<Moved>, metadata: &Picture) -> Option<Self> {
        let mut group = Self { epoch: generation, target_epoch: generation, ..Self::default() };
        for moved in members {
            let assigned = decode_assignment(&moved.assignment, metadata)?;
            let (_, subscription) = subscription(&moved.member.protocols)?;
            let member = Member {
                client_id: moved.client_id,
                rebalance_timeout: moved.rebalance_timeout,
                names: subscription.topics.iter().map(ToString::to_string).collect(),
                epoch: generation,
                previous_epoch: generation,
                assigned: assigned.clone(),
                expires: moved.expires,
                classic: Some(moved.member),
                ..Member::new(moved.id.clone(), moved.instance, moved.expires)
            };
            group.target.insert(moved.id.clone(), assigned);
            group.members.insert(moved.id, member);
        }
        Some(group)
    }

    /// Converts the members to those of a classic group of this generation, each with its target
    /// assignment.
    pub(crate) fn into_classic(self, metadata: &Picture) -> (i32, Vec<Moved>) {
        let Self { epoch, members, target, .. } = self;
        let moved = members.into_values().filter_map(|member| {
            let classic = member.classic?;
            let version = subscription(&classic.protocols).map_or(0, |(version, _)| version);
            let assignment = target.get(&member.id).map(|held| encode_assignment(held, version, metadata));
            Some(Moved {
                assignment: assignment.unwrap_or_default(),
                id: member.id,
                instance: member.instance,
                client_id: member.client_id,
                rebalance_timeout: member.rebalance_timeout,
                expires: member.expires,
                member: classic,
            })
        });
        (epoch, moved.collect())
    }
}
