//! The members of a classic group: their identities, their sessions, their leader and the assignor
//! that they agree on.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{identity::MemberIdentity, ticket::Ticket};
use crate::error::ErrorCode;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// Protocols in the member's order of preference.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Time at which the member is removed unless it sends a request; not applied while the member
    /// waits.
    pub(super) expires: Instant,
    pub(super) joining: Option<Ticket>,
    pub(super) syncing: Option<Ticket>,
    pub(super) synced: bool,
}

impl Member {
    fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.expires = now + self.session_timeout;
    }

    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(known, _)| known == protocol)
    }

    /// Returns the member's metadata for that protocol.
    pub(super) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }
}

/// The members, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: Vec<Member>,
    leader: Option<String>,
    /// Ids that were given out and not used yet (KIP-394), with the time at which they expire.
    pending: BTreeMap<String, Instant>,
}

impl Members {
    /// Creates the members of a group that was converted: the first one leads.
    pub(super) fn led_by_first(all: Vec<Member>) -> Self {
        let leader = all.first().map(|member| member.id.clone());
        Self { all, leader, pending: BTreeMap::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Member> {
        self.all.get(at)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Member> {
        self.all.get_mut(at)
    }

    pub(super) fn find_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.all.iter_mut().find(|member| member.id == id)
    }

    pub(super) fn index(&self, id: &str) -> Option<usize> {
        self.all.iter().position(|member| member.id == id)
    }

    /// Returns the place of the static member with that instance id.
    pub(super) fn index_of_instance(&self, instance: &str) -> Option<usize> {
        self.all.iter().position(|member| member.instance.as_deref() == Some(instance))
    }

    /// Finds the member, unless it is unknown or another one has taken over its instance id.
    pub(super) fn check_identity(&self, identity: &MemberIdentity) -> Result<usize, ErrorCode> {
        if let Some(instance) = &identity.instance {
            let at = self.index_of_instance(instance).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
            let same = self.get(at).is_some_and(|member| member.id == identity.member_id);
            return if same { Ok(at) } else { Err(ErrorCode::FENCED_INSTANCE_ID) };
        }
        self.index(&identity.member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)
    }

    /// Adds a member, which leads if it is the first.
    pub(super) fn add(&mut self, member: Member) {
        self.leader.get_or_insert_with(|| member.id.clone());
        self.all.push(member);
    }

    /// Removes a member; the first of the others leads after the leader.
    pub(super) fn remove(&mut self, at: usize) -> Member {
        let member = self.all.remove(at);
        if self.is_leader(&member.id) {
            self.leader = self.all.first().map(|member| member.id.clone());
        }
        member
    }

    /// Removes all members and all ids that were given out.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes dynamic members that did not join.
    pub(super) fn drop_unjoined(&mut self) {
        self.all.retain(|member| member.joining.is_some() || member.instance.is_some());
    }

    pub(super) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub(super) fn is_leader(&self, id: &str) -> bool {
        self.leader() == Some(id)
    }

    /// Gives a static member that came back its new id, and the lead if it had it. Returns the
    /// former id and true if it leads.
    pub(super) fn rename(&mut self, at: usize, id: &str) -> Option<(String, bool)> {
        let former = std::mem::replace(&mut self.all.get_mut(at)?.id, id.to_owned());
        let leads = self.is_leader(&former);
        if leads {
            self.leader = Some(id.to_owned());
        }
        Some((former, leads))
    }

    /// Keeps the leader if it takes part; otherwise the first member that takes part leads.
    pub(super) fn elect(&mut self) {
        let takes_part = |member: &&Member| member.joining.is_some();
        let leader = self.all.iter().filter(takes_part).find(|member| self.is_leader(&member.id));
        let next = leader.or_else(|| self.all.iter().find(takes_part)).or(self.all.first());
        self.leader = next.map(|member| member.id.clone());
    }

    /// Returns true if every member but that one supports the protocol.
    pub(super) fn others_support(&self, id: &str, protocol: &str) -> bool {
        self.all.iter().filter(|member| member.id != id).all(|member| member.supports(protocol))
    }

    /// Selects the protocol by vote: every member votes for the first of its protocols that all of
    /// them have.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = |name: &str| self.all.iter().all(|member| member.supports(name));
        let mut votes: Vec<(&str, usize)> = Vec::new();
        for member in &self.all {
            let Some((choice, _)) = member.protocols.iter().find(|(name, _)| common(name)) else { continue };
            match votes.iter_mut().find(|(name, _)| name == choice) {
                Some((_, count)) => *count += 1,
                None => votes.push((choice, 1)),
            }
        }
        let most = votes.iter().map(|&(_, count)| count).max()?;
        votes.iter().find(|&&(_, count)| count == most).map(|&(name, _)| name.to_owned())
    }

    pub(super) fn longest_rebalance_timeout(&self) -> Duration {
        self.all.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// Returns true if all have joined, and no id that was given out is still to be used.
    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.all.iter().all(|member| member.joining.is_some())
    }

    /// Gives out an id, with which its member has to join until then.
    pub(super) fn reserve(&mut self, id: String, until: Instant) {
        self.pending.insert(id, until);
    }

    pub(super) fn is_reserved(&self, id: &str) -> bool {
        self.pending.contains_key(id)
    }

    /// Takes an id back that was given out; returns false if there is no such id.
    pub(super) fn release(&mut self, id: &str) -> bool {
        self.pending.remove(id).is_some()
    }

    /// Returns the time at which the next session or id expires if there are no requests.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let sessions = self.all.iter().filter(|member| !member.waits()).map(|member| member.expires);
        sessions.chain(self.pending.values().copied()).min()
    }

    /// Takes back the ids that have expired. Returns the members with expired sessions.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        self.pending.retain(|_, expires| *expires > now);
        let expired = self.all.iter().filter(|member| !member.waits() && member.expires <= now);
        expired.map(|member| member.id.clone()).collect()
    }
}
