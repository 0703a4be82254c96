//! Reconciles a member's partitions with its target assignment: it revokes first, and then gets the
//! partitions that no other member has any more.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use uuid::Uuid;

use super::{ConsumerGroup, Held, Member, Picture, State};
use crate::error::ErrorCode;

fn overlaps(held: &Held, other: &Held) -> bool {
    let in_other =
        |(id, partitions): (&Uuid, &BTreeSet<i32>)| other.get(id).is_some_and(|others| !partitions.is_disjoint(others));
    held.iter().any(in_other)
}

/// Splits `held` into the partitions that are in `others` and those that are not.
fn split(held: &Held, others: &Held) -> (Held, Held) {
    let (mut inside, mut outside) = (Held::new(), Held::new());
    for (id, partitions) in held {
        for &partition in partitions {
            let known = others.get(id).is_some_and(|others| others.contains(&partition));
            let half = if known { &mut inside } else { &mut outside };
            half.entry(*id).or_default().insert(partition);
        }
    }
    (inside, outside)
}

fn merge(held: &mut Held, more: Held) {
    for (id, mut partitions) in more {
        held.entry(id).or_default().append(&mut partitions);
    }
}

impl ConsumerGroup {
    /// Moves a member as close to its target assignment as possible; `owned` are the partitions
    /// that it reports, if it reports any.
    pub(super) fn reconcile(
        &mut self,
        id: &str,
        now: Instant,
        owned: Option<&Held>,
        changed: bool,
        metadata: &Picture,
    ) -> Result<&Member, ErrorCode> {
        let mut member = self.members.get(id).cloned().ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        let before = (member.epoch, member.assigned.clone(), member.revoking.clone());
        // A member that reports nothing still has all of its partitions.
        let has = |part: &Held| owned.is_none_or(|owned| overlaps(owned, part));
        match member.state {
            State::Stable if member.epoch != self.target_epoch => self.go_on(&mut member, has, metadata),
            State::Unrevoked if !has(&member.revoking) => self.go_on(&mut member, has, metadata),
            State::Unreleased => self.go_on(&mut member, has, metadata),
            State::Stable | State::Unrevoked if changed => drop_unsubscribed(&mut member, has, metadata),
            State::Stable | State::Unrevoked => {}
        }
        if member.classic.is_none() {
            if member.state != State::Unrevoked {
                member.late = None;
            } else if before != (member.epoch, member.assigned.clone(), member.revoking.clone()) {
                member.late = Some(now + member.rebalance_timeout);
            }
        }
        let place = self.members.get_mut(id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        *place = member;
        Ok(place)
    }

    fn go_on(&self, member: &mut Member, has: impl Fn(&Held) -> bool, metadata: &Picture) {
        let subscribed = member.subscribed(metadata);
        let target = self.target.get(&member.id).cloned().unwrap_or_default();
        let target: Held = target.into_iter().filter(|(id, _)| subscribed.contains(id)).collect();
        let (kept, gone) = split(&member.assigned, &target);
        if has(&gone) && !gone.is_empty() {
            member.state = State::Unrevoked;
            member.assigned = kept;
            member.revoking = gone;
            member.previous_epoch = member.epoch;
            return;
        }
        let (_, missing) = split(&target, &kept);
        let (unreleased, free) = split(&missing, &self.held_by_others(&member.id));
        member.assigned = kept;
        merge(&mut member.assigned, free);
        member.revoking.clear();
        member.state = if unreleased.is_empty() { State::Stable } else { State::Unreleased };
        member.previous_epoch = member.epoch;
        member.epoch = self.target_epoch;
    }

    fn held_by_others(&self, id: &str) -> Held {
        let mut held = Held::new();
        for other in self.members.values().filter(|other| other.id != id) {
            merge(&mut held, other.assigned.clone());
            merge(&mut held, other.revoking.clone());
        }
        held
    }

    /// Returns true if other members still have partitions of the member's target assignment.
    pub(super) fn waits_for_others(&self, member: &Member) -> bool {
        let target = self.target.get(&member.id).cloned().unwrap_or_default();
        let (_, missing) = split(&target, &member.assigned);
        overlaps(&missing, &self.held_by_others(&member.id))
    }

    /// Returns true if no partition belongs to two members.
    #[cfg(test)]
    pub(crate) fn one_owner_each(&self) -> bool {
        let mut seen = BTreeSet::new();
        let held = self.members.values().flat_map(|member| member.assigned.iter().chain(&member.revoking));
        held.flat_map(|(id, partitions)| partitions.iter().map(move |partition| (*id, *partition)))
            .all(|partition| seen.insert(partition))
    }
}

/// Revokes the partitions of topics to which the member is no longer subscribed, before its new
/// target assignment is computed.
fn drop_unsubscribed(member: &mut Member, has: impl Fn(&Held) -> bool, metadata: &Picture) {
    let subscribed = member.subscribed(metadata);
    let all: BTreeMap<_, _> = std::mem::take(&mut member.assigned);
    let (kept, gone): (Held, Held) = all.into_iter().partition(|(id, _)| subscribed.contains(id));
    member.assigned = kept;
    if gone.is_empty() {
        return;
    }
    let mut revoking = member.revoking.clone();
    merge(&mut revoking, gone);
    if has(&revoking) {
        member.state = State::Unrevoked;
        member.revoking = revoking;
        member.previous_epoch = member.epoch;
    }
}
