//! A group of the consumer protocol (KIP-848), as its coordinator keeps it.
//!
//! Three epochs rise one after the other: the *group's* with every change of members, subscriptions
//! or topics; that of the *target*, once the target assignment has been computed; and each
//! *member's*, when it reaches its target assignment:
//!
//! ```text
//!              partitions have to be revoked             they were revoked
//!   Stable ─────────────────────────────────────► Unrevoked ───────┐
//!     ▲ ▲                                                          │
//!     │ └──────── all partitions are assigned ─────────────────────┤
//!     │                                                            ▼ others have not revoked yet
//!     └─────────────────────────────────────────────────────── Unreleased
//! ```
//!
//! A partition is given to a member only when no other member has it any more. Members of the
//! classic protocol take part (see `classic`), so that a group can be moved from one protocol to
//! the other while it runs.
//!
//! Sans-IO.

mod assign;
mod classic;
mod reconcile;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use regex::Regex;
use uuid::Uuid;

pub(crate) use classic::{ClassicJoin, ClassicMember, Moved};

use super::group::MemberIdentity;
use crate::{error::ErrorCode, record::TopicPartition};

/// Assignors of the coordinator; the first is its default.
const ASSIGNORS: [&str; 2] = ["uniform", "range"];
/// The member epoch with which a member leaves.
const LEAVE: i32 = -1;
/// The member epoch with which a static member leaves temporarily, so that its next incarnation
/// takes its place.
const LEAVE_FOR_A_WHILE: i32 = -2;

/// Partitions by their topics' ids.
pub(crate) type Held = BTreeMap<Uuid, BTreeSet<i32>>;

/// The existing topics: id and number of partitions.
pub(crate) type Picture = BTreeMap<Arc<str>, (Uuid, i32)>;

/// The settings of a group, from its broker's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsumerGroupSettings {
    pub(crate) heartbeat_interval: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) max_size: usize,
    pub(crate) migrates: bool,
}

/// A ConsumerGroupHeartbeat. A field that is `None` has not changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beat {
    pub(crate) identity: MemberIdentity,
    pub(crate) client_id: String,
    pub(crate) epoch: i32,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) names: Option<BTreeSet<String>>,
    pub(crate) regex: Option<String>,
    pub(crate) assignor: Option<String>,
    pub(crate) owned: Option<Held>,
    /// True if the version requires that the member brings its id (v1, KIP-1082).
    pub(crate) id_required: bool,
    /// Id for a member that brings none.
    pub(crate) new_id: String,
}

/// The response to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) member_id: String,
    pub(crate) epoch: i32,
    pub(crate) assignment: Option<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stable,
    Unrevoked,
    Unreleased,
}

#[derive(Clone, Debug)]
struct Member {
    id: String,
    instance: Option<String>,
    client_id: String,
    rebalance_timeout: Duration,
    assignor: Option<String>,
    names: BTreeSet<String>,
    /// Empty if the member subscribes to no expression.
    regex: String,
    /// `regex`, compiled.
    pattern: Option<Regex>,
    epoch: i32,
    previous_epoch: i32,
    state: State,
    assigned: Held,
    revoking: Held,
    expires: Instant,
    /// Time at which the member is removed unless it has revoked its partitions, or rejoined, or
    /// synced.
    late: Option<Instant>,
    classic: Option<ClassicMember>,
}

impl Member {
    fn new(id: String, instance: Option<String>, now: Instant) -> Self {
        Self {
            id,
            instance,
            client_id: String::new(),
            rebalance_timeout: Duration::ZERO,
            assignor: None,
            names: BTreeSet::new(),
            regex: String::new(),
            pattern: None,
            epoch: 0,
            previous_epoch: 0,
            state: State::Stable,
            assigned: Held::new(),
            revoking: Held::new(),
            expires: now,
            late: None,
            classic: None,
        }
    }

    /// Returns those of the existing topics to which the member is subscribed.
    fn subscribed(&self, metadata: &Picture) -> BTreeSet<Uuid> {
        let matches = |name: &str| self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name));
        let wanted = metadata.iter().filter(|(name, _)| self.names.contains(&***name) || matches(name));
        wanted.map(|(_, (id, _))| *id).collect()
    }
}

/// Brokers match an expression against the whole name.
fn whole(regex: &str) -> Result<Regex, ErrorCode> {
    Regex::new(&format!("^(?:{regex})$")).map_err(|_| ErrorCode::INVALID_REGULAR_EXPRESSION)
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConsumerGroup {
    epoch: i32,
    target_epoch: i32,
    members: BTreeMap<String, Member>,
    /// Target assignment, by member.
    target: BTreeMap<String, Held>,
    /// The subscribed topics when the group's epoch last rose.
    seen: BTreeMap<Uuid, i32>,
}

/// A group of the consumer protocol as a test or an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerGroupView {
    /// Kafka's name for the group's state: `Empty`, `Assigning`, `Reconciling` or `Stable`.
    pub state: &'static str,
    /// Rises with every change of members, subscriptions or topics.
    pub epoch: i32,
    /// The group epoch that the target assignment was made for.
    pub assignment_epoch: i32,
    /// The assignor that the coordinator uses.
    pub assignor: String,
    /// The members, by their ids.
    pub members: Vec<ConsumerMemberView>,
}

/// A member of a [`ConsumerGroupView`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerMemberView {
    /// The id that the member brought.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// The member's epoch; −2 while a static member is away.
    pub epoch: i32,
    /// True if the member uses the classic protocol.
    pub classic: bool,
    /// The topics that it subscribes to by name.
    pub names: Vec<String>,
    /// The expression that it subscribes to; empty if there is none.
    pub regex: String,
    /// The partitions that it may have, and those that it has not revoked yet.
    pub assigned: Vec<TopicPartition>,
    /// The member's target assignment.
    pub target: Vec<TopicPartition>,
}

impl ConsumerGroup {
    pub(crate) fn view(&self, metadata: &Picture) -> ConsumerGroupView {
        let members = self.members.values().map(|member| ConsumerMemberView {
            member_id: member.id.clone(),
            instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            epoch: member.epoch,
            classic: member.classic.is_some(),
            names: member.names.iter().cloned().collect(),
            regex: member.regex.clone(),
            assigned: named(&member.assigned, metadata).chain(named(&member.revoking, metadata)).collect(),
            target: self.target.get(&member.id).into_iter().flat_map(|held| named(held, metadata)).collect(),
        });
        ConsumerGroupView {
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: self.assignor().to_owned(),
            members: members.collect(),
        }
    }

    pub(crate) fn state(&self) -> &'static str {
        let settled = |member: &Member| member.state == State::Stable && member.epoch == self.target_epoch;
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(settled) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns id, instance and client id of each member.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, Option<&str>, &str)> {
        self.members.values().map(|member| (&*member.id, member.instance.as_deref(), &*member.client_id))
    }

    /// Returns the time at which the next member is removed if there are no requests.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.members.values().flat_map(|member| [Some(member.expires), member.late]).flatten().min()
    }

    /// Removes the members that were due by now.
    pub(crate) fn advance(&mut self, now: Instant) {
        let late = |member: &Member| member.expires <= now || member.late.is_some_and(|late| late <= now);
        let late: Vec<String> = self.members.values().filter(|member| late(member)).map(|m| m.id.clone()).collect();
        for id in late {
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &str) {
        self.target.remove(id);
        if self.members.remove(id).is_some() {
            self.epoch += 1;
        }
    }

    fn find_static(&self, instance: &str) -> Option<&Member> {
        self.members.values().find(|member| member.instance.as_deref() == Some(instance))
    }

    /// Returns the member, unless it is unknown or another one has taken over its instance id.
    fn check_identity(&self, identity: &MemberIdentity) -> Result<&Member, ErrorCode> {
        match &identity.instance {
            Some(instance) => {
                let member = self.find_static(instance).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
                if member.id == identity.member_id { Ok(member) } else { Err(ErrorCode::FENCED_INSTANCE_ID) }
            }
            None => self.members.get(&identity.member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID),
        }
    }

    /// Handles a heartbeat: the member joins (epoch 0) or continues.
    pub(crate) fn heartbeat(
        &mut self,
        now: Instant,
        beat: Beat,
        metadata: &Picture,
        settings: &ConsumerGroupSettings,
    ) -> Result<Reply, ErrorCode> {
        self.advance(now);
        let joins = beat.epoch == 0;
        let id = if beat.identity.member_id.is_empty() { &beat.new_id } else { &beat.identity.member_id }.clone();
        if self.members.len() >= settings.max_size && !self.members.contains_key(&id) {
            return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        let pattern = beat.regex.as_ref().filter(|regex| !regex.is_empty()).map(|regex| whole(regex)).transpose()?;
        let mut member = if joins { self.joining(now, id, &beat)? } else { self.going_on(&beat)? };
        let before = member.assigned.clone();
        let full =
            beat.rebalance_timeout.is_some() && (beat.names.is_some() || beat.regex.is_some()) && beat.owned.is_some();
        let wanted_before = (member.names.clone(), member.regex.clone());
        member.client_id.clone_from(&beat.client_id);
        member.rebalance_timeout = beat.rebalance_timeout.unwrap_or(member.rebalance_timeout);
        member.names = beat.names.unwrap_or(member.names);
        if let Some(regex) = beat.regex {
            (member.regex, member.pattern) = (regex, pattern);
        }
        member.assignor = beat.assignor.or(member.assignor);
        member.expires = now + settings.session_timeout;
        // A member that used the classic protocol until now has no deadline for joining or syncing.
        if member.classic.take().is_some() {
            member.late = None;
        }
        let id = member.id.clone();
        let new = !self.members.contains_key(&id);
        let changed = new || wanted_before != (member.names.clone(), member.regex.clone());
        self.members.insert(id.clone(), member);
        self.look_at_topics(metadata, changed);
        self.assign(metadata);
        let member = self.reconcile(&id, now, beat.owned.as_ref(), changed, metadata)?;
        let news = joins || full || member.assigned != before;
        Ok(Reply { member_id: id, epoch: member.epoch, assignment: news.then(|| member.assigned.clone()) })
    }

    fn joining(&mut self, now: Instant, id: String, beat: &Beat) -> Result<Member, ErrorCode> {
        let Some(instance) = &beat.identity.instance else {
            // A member that joins again under its id continues as the same member.
            return Ok(self.members.get(&id).cloned().unwrap_or_else(|| Member::new(id, None, now)));
        };
        let Some(holder) = self.find_static(instance) else {
            return Ok(Member::new(id, Some(instance.clone()), now));
        };
        if holder.classic.is_none() && holder.epoch != LEAVE_FOR_A_WHILE {
            return Err(ErrorCode::UNRELEASED_INSTANCE_ID);
        }
        let former = holder.id.clone();
        Ok(self.replace(&former, id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?.clone())
    }

    /// Gives a static member's place to its next incarnation.
    fn replace(&mut self, former: &str, id: String) -> Option<&mut Member> {
        let mut member = self.members.remove(former)?;
        let target = self.target.remove(former).unwrap_or_default();
        self.target.insert(id.clone(), target);
        member.id.clone_from(&id);
        (member.epoch, member.previous_epoch) = (0, 0);
        Some(self.members.entry(id).or_insert(member))
    }

    fn going_on(&self, beat: &Beat) -> Result<Member, ErrorCode> {
        let member = self.check_identity(&beat.identity)?;
        let is_part = |owned: &Held| {
            let has = |id: &Uuid, partition: &i32| member.assigned.get(id).is_some_and(|has| has.contains(partition));
            owned.iter().all(|(id, partitions)| partitions.iter().all(|partition| has(id, partition)))
        };
        // The response with a new epoch may have been lost.
        let lost = beat.epoch == member.previous_epoch && beat.owned.as_ref().is_some_and(is_part);
        if beat.epoch == member.epoch || (beat.epoch < member.epoch && lost) {
            Ok(member.clone())
        } else {
            Err(ErrorCode::FENCED_MEMBER_EPOCH)
        }
    }

    /// Lets a member leave or, if it is static, be away for a while.
    pub(crate) fn leave(&mut self, now: Instant, identity: &MemberIdentity, epoch: i32) -> Result<Reply, ErrorCode> {
        self.advance(now);
        let id = self.check_identity(identity)?.id.clone();
        if epoch == LEAVE_FOR_A_WHILE && identity.instance.is_some() {
            if let Some(member) = self.members.get_mut(&id) {
                member.epoch = LEAVE_FOR_A_WHILE;
                member.revoking.clear();
            }
        } else {
            self.remove(&id);
        }
        Ok(Reply { member_id: id, epoch, assignment: None })
    }

    /// Checks whether a member in that epoch may commit now; a consumer without membership may if
    /// the group has no members.
    pub(crate) fn may_commit(
        &mut self,
        now: Instant,
        member_id: &str,
        epoch: i32,
        version: i16,
    ) -> Result<(), ErrorCode> {
        self.advance(now);
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        match &member.classic {
            Some(_) if epoch != member.epoch => Err(ErrorCode::ILLEGAL_GENERATION),
            None if version < 9 => Err(ErrorCode::UNSUPPORTED_VERSION),
            // Kafka 4.3 checks the epoch at which each partition was assigned (KIP-1251); earlier
            // versions require the exact epoch.
            None if epoch != member.epoch => Err(ErrorCode::STALE_MEMBER_EPOCH),
            _ => Ok(()),
        }
    }

    /// Checks whether a member in that epoch may commit offsets in a transaction (KIP-447). A
    /// request that names neither a member nor an epoch may do so at any time.
    pub(crate) fn may_commit_in_transaction(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        epoch: i32,
    ) -> Result<(), ErrorCode> {
        self.advance(now);
        if !identity.names_member(epoch) || (epoch < 0 && self.members.is_empty()) {
            return Ok(());
        }
        let member = self.members.get(&identity.member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        match &member.classic {
            _ if epoch == member.epoch => Ok(()),
            Some(_) if epoch > member.epoch => Err(ErrorCode::ILLEGAL_GENERATION),
            _ => Err(ErrorCode::STALE_MEMBER_EPOCH),
        }
    }

    /// Checks whether a member in that epoch may fetch offsets; any request without a member id
    /// may.
    pub(crate) fn may_fetch(&mut self, now: Instant, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        self.advance(now);
        let Some(member_id) = member_id.filter(|_| epoch >= 0) else { return Ok(()) };
        let member = self.members.get(member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if member.epoch == epoch { Ok(()) } else { Err(ErrorCode::STALE_MEMBER_EPOCH) }
    }

    /// Raises the group's epoch if the subscriptions or the subscribed topics have changed.
    fn look_at_topics(&mut self, metadata: &Picture, changed: bool) {
        let mut subscribed = BTreeSet::new();
        self.members.values().for_each(|member| subscribed.append(&mut member.subscribed(metadata)));
        let counts = metadata.values().filter(|(id, _)| subscribed.contains(id));
        let counts: BTreeMap<Uuid, i32> = counts.copied().collect();
        if changed || counts != self.seen {
            self.seen = counts;
            self.epoch += 1;
        }
    }

    /// Returns the assignor that most members ask for.
    fn assignor(&self) -> &'static str {
        let votes = |name: &str| self.members.values().filter(|m| m.assignor.as_deref() == Some(name)).count();
        let [uniform, range] = ASSIGNORS;
        if votes(range) > votes(uniform) { range } else { uniform }
    }

    /// Computes the target assignment, if it is not known for the group's epoch.
    fn assign(&mut self, metadata: &Picture) {
        if self.target_epoch == self.epoch {
            return;
        }
        let members: BTreeMap<String, BTreeSet<Uuid>> =
            self.members.values().map(|member| (member.id.clone(), member.subscribed(metadata))).collect();
        let counts = metadata.values().copied().collect();
        self.target = match self.assignor() {
            "range" => assign::range(&members, &counts),
            _ => assign::uniform(&members, &counts, &self.target),
        };
        self.target_epoch = self.epoch;
    }
}

/// Refuses the requests that Kafka refuses as invalid.
pub(crate) fn check(beat: &Beat) -> Result<(), ErrorCode> {
    let nameless = beat.identity.member_id.is_empty() && (beat.id_required || beat.epoch > 0 || beat.epoch == LEAVE);
    let blank = beat.identity.instance.as_deref() == Some("");
    let bad = match beat.epoch {
        0 => {
            beat.rebalance_timeout.is_none()
                || beat.owned.as_ref().is_none_or(|owned| !owned.is_empty())
                || (beat.names.is_none() && beat.regex.is_none())
        }
        LEAVE_FOR_A_WHILE => beat.identity.instance.is_none(),
        epoch => epoch < LEAVE_FOR_A_WHILE,
    };
    if nameless || blank || bad {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    match &beat.assignor {
        Some(name) if !ASSIGNORS.contains(&name.as_str()) => Err(ErrorCode::UNSUPPORTED_ASSIGNOR),
        _ => Ok(()),
    }
}

/// Returns partitions with their topics' names; those of deleted topics are left out.
pub(crate) fn named<'a>(held: &'a Held, metadata: &'a Picture) -> impl Iterator<Item = TopicPartition> + 'a {
    let name_of = |id: &Uuid| metadata.iter().find(|(_, (known, _))| known == id).map(|(name, _)| name.clone());
    held.iter()
        .filter_map(move |(id, partitions)| Some((name_of(id)?, partitions)))
        .flat_map(|(name, partitions)| partitions.iter().map(move |&number| TopicPartition::new(name.clone(), number)))
}
