//! A group of the classic protocol: its generations, and the phases between them.
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
//! Sans-IO.

use std::time::{Duration, Instant};

use super::{
    join::JoinOutcome,
    members::{Member, Members},
    view::{GroupView, MemberView},
    waits::Waits,
};
use crate::error::ErrorCode;

/// The settings of a group, from its broker's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupSettings {
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) min_session_timeout: Duration,
    pub(crate) max_session_timeout: Duration,
    pub(crate) max_size: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
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

/// The state of a group while it is one of the classic protocol.
#[derive(Debug, Default)]
pub(crate) struct ClassicGroup {
    pub(super) phase: Phase,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) members: Members,
    pub(super) waits: Waits,
    /// True if a member came during the initial delay, which is then waited out once more.
    pub(super) came: bool,
    /// True once offsets were committed without a member, which creates the group.
    pub(super) is_simple: bool,
}

impl ClassicGroup {
    /// Takes over the members of a group of the consumer protocol, which rebalance.
    pub(super) fn take_over(&mut self, now: Instant, generation: i32, members: Vec<Member>, settings: &GroupSettings) {
        self.generation = generation;
        self.protocol_type = Some("consumer".to_owned());
        self.members = Members::led_by_first(members);
        self.protocol = self.members.select_protocol();
        self.phase = Phase::Stable { until: None };
        self.rebalance(now, settings);
    }

    /// Returns the group's present state.
    pub(crate) fn view(&self) -> GroupView {
        let protocol = self.protocol.as_deref();
        let members = self.members.iter().map(|member| MemberView {
            member_id: member.id.clone(),
            instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            metadata: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
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
            leader: self.members.leader().map(str::to_owned),
            members: members.collect(),
        }
    }

    /// Returns true if no member ever joined, and no offset was committed without one: the group is
    /// answered like one that does not exist.
    pub(crate) fn is_unknown(&self) -> bool {
        self.members.is_empty() && self.generation == 0 && !self.is_simple
    }

    /// Returns the time of the group's next change if there are no requests.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Empty => None,
            Phase::Preparing { until, .. } | Phase::Completing { until } => Some(until),
            Phase::Stable { until } => until,
        };
        phase.into_iter().chain(self.members.next_expiry()).min()
    }

    /// Applies everything that was due by now, each change at its own time.
    pub(crate) fn advance(&mut self, now: Instant, settings: &GroupSettings) {
        while let Some(at) = self.deadline().filter(|&at| at <= now) {
            for id in self.members.expire(at) {
                self.remove(&id, at, settings);
            }
            match self.phase {
                Phase::Preparing { until, first } if until <= at => self.time_is_up(at, first, settings),
                Phase::Completing { until } | Phase::Stable { until: Some(until) } if until <= at => {
                    self.drop_unsynced(at, settings);
                }
                _ => {}
            }
            self.try_complete(at, settings);
        }
    }

    /// Begins a rebalance, unless one is being prepared already.
    pub(super) fn rebalance(&mut self, now: Instant, settings: &GroupSettings) {
        let longest = self.members.longest_rebalance_timeout();
        match self.phase {
            Phase::Preparing { .. } => return,
            Phase::Empty => {
                let until = now + settings.initial_rebalance_delay.min(longest);
                self.phase = Phase::Preparing { until, first: Some(now + longest) };
                self.came = false;
                return;
            }
            Phase::Completing { .. } => self.fail_syncs(ErrorCode::REBALANCE_IN_PROGRESS),
            Phase::Stable { .. } => {}
        }
        self.phase = Phase::Preparing { until: now + longest, first: None };
    }

    /// Moves to the next generation once all members have joined.
    pub(super) fn try_complete(&mut self, now: Instant, settings: &GroupSettings) {
        let Phase::Preparing { until, first } = self.phase else { return };
        if self.members.is_empty() {
            self.next_generation(now);
        } else if first.is_some() {
            if until <= now {
                self.time_is_up(now, first, settings);
            }
        } else if self.members.all_joined() {
            self.next_generation(now);
        }
    }

    /// Ends the time for joining: dynamic members that did not join are removed, static ones are
    /// kept.
    fn time_is_up(&mut self, now: Instant, first: Option<Instant>, settings: &GroupSettings) {
        if let Some(latest) = first
            && std::mem::take(&mut self.came)
            && now < latest
            && !settings.initial_rebalance_delay.is_zero()
        {
            let until = (now + settings.initial_rebalance_delay).min(latest);
            self.phase = Phase::Preparing { until, first };
            return;
        }
        self.members.drop_unjoined();
        if !self.members.is_empty() && self.members.iter().all(|member| member.joining.is_none()) {
            // Only static members that are away: they stay until their sessions end.
            let longest = self.members.longest_rebalance_timeout();
            self.phase = Phase::Preparing { until: now + longest.max(Duration::from_millis(1)), first: None };
            return;
        }
        self.next_generation(now);
    }

    fn next_generation(&mut self, now: Instant) {
        self.generation += 1;
        self.members.elect();
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.protocol = None;
            return;
        }
        self.protocol = self.members.select_protocol();
        self.phase = Phase::Completing { until: now + self.members.longest_rebalance_timeout() };
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at) else { continue };
            member.synced = false;
            let Some(ticket) = member.joining.take() else { continue };
            let id = member.id.clone();
            let outcome = self.current(&id, now);
            self.waits.end_join(ticket, outcome);
        }
    }

    /// Returns the present generation as it is sent to a member.
    pub(super) fn current(&mut self, member_id: &str, now: Instant) -> JoinOutcome {
        if let Some(member) = self.members.find_mut(member_id) {
            member.heard(now);
        }
        let protocol = self.protocol.as_deref();
        let members = if self.members.is_leader(member_id) {
            self.members.iter().map(|m| (m.id.clone(), m.instance.clone(), m.metadata(protocol))).collect()
        } else {
            Vec::new()
        };
        JoinOutcome {
            error: ErrorCode::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.members.leader().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members,
        }
    }

    /// Removes a member and lets the others share its partitions.
    pub(super) fn remove(&mut self, member_id: &str, now: Instant, settings: &GroupSettings) {
        let Some(at) = self.members.index(member_id) else { return };
        let mut member = self.members.remove(at);
        self.waits.fail_sync(&mut member, ErrorCode::UNKNOWN_MEMBER_ID);
        self.waits.fail_join(&mut member, ErrorCode::UNKNOWN_MEMBER_ID);
        self.rebalance(now, settings);
    }

    /// Removes members that did not sync within the rebalance timeout since the generation began.
    fn drop_unsynced(&mut self, now: Instant, settings: &GroupSettings) {
        let late: Vec<String> =
            self.members.iter().filter(|member| !member.synced).map(|member| member.id.clone()).collect();
        if late.is_empty() {
            // All asked, but the leader brought nothing: only a new rebalance can help.
            self.rebalance(now, settings);
        }
        for id in late {
            self.remove(&id, now, settings);
        }
    }

    /// Removes all members and ends their waits, so that they come again.
    pub(super) fn dismiss(&mut self, error: ErrorCode) {
        self.fail_waits(error);
        self.members.clear();
        self.phase = Phase::Empty;
        self.protocol = None;
    }

    /// Forgets all members, and that there were any.
    pub(crate) fn forget_members(&mut self) {
        self.dismiss(ErrorCode::UNKNOWN_MEMBER_ID);
        self.generation = 0;
        self.protocol_type = None;
        self.is_simple = false;
    }

    /// Ends the waits of all members. The generation and its assignment stay.
    pub(super) fn fail_waits(&mut self, error: ErrorCode) {
        self.fail_syncs(error);
        for member in self.members.iter_mut() {
            self.waits.fail_join(member, error);
        }
    }

    fn fail_syncs(&mut self, error: ErrorCode) {
        for member in self.members.iter_mut() {
            self.waits.fail_sync(member, error);
        }
    }
}
