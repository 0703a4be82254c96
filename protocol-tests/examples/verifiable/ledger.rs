//! Compares the events of members with the acknowledged records, without access to processes or
//! brokers.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, Place};

/// The events so far of a member, which is one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) started: bool,
    pub(crate) ended: bool,
    /// True if it was killed or frozen: then its assignment no longer counts.
    pub(crate) hurt: bool,
    pub(crate) assigned: BTreeSet<i32>,
    /// The partitions that it had when it was frozen, until its next assignment: the response to an
    /// earlier commit may arrive after the member has learned that it lost them. The group refuses
    /// later commits.
    had: BTreeSet<i32>,
    /// The next offset of each partition that it has.
    positions: BTreeMap<i32, i64>,
    /// Number of assignments, including empty ones, and (`revocations`) of revocations.
    pub(crate) assignments: u32,
    pub(crate) revocations: u32,
    pub(crate) commits: u64,
    pub(crate) commits_failed: u64,
}

/// The time for which a member has a partition, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Tenure {
    member: usize,
    from: i64,
    until: Option<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeMap<Place, String>,
    pub(crate) sends_failed: u64,
    /// The value, and the member that consumed it first.
    consumed: BTreeMap<Place, (String, usize)>,
    /// Number of records that were consumed again, by the member that was first.
    again: BTreeMap<usize, u64>,
    members: Vec<Member>,
    tenures: BTreeMap<i32, Vec<Tenure>>,
    wrong: Vec<String>,
}

/// Maximum number of complaints.
const MANY: usize = 10;
/// Maximum number of failed commits of a member that are printed.
const FEW: u64 = 3;

impl Ledger {
    pub(crate) fn new_member(&mut self) -> usize {
        self.members.push(Member::default());
        self.members.len() - 1
    }

    pub(crate) fn member(&self, id: usize) -> &Member {
        &self.members[id]
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// Notes that a member was hurt: nothing is expected of it from now on.
    pub(crate) fn hurt(&mut self, id: usize) {
        self.members[id].hurt = true;
        for tenures in self.tenures.values_mut() {
            tenures.retain(|tenure| tenure.member != id || tenure.until.is_some());
        }
    }

    /// Notes that a frozen member continues. Until it learns that it was removed from the group it
    /// treats its former partitions as its own.
    pub(crate) fn woke_up(&mut self, id: usize) {
        let member = &mut self.members[id];
        member.hurt = false;
        member.had.clone_from(&member.assigned);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn consumed(&self) -> usize {
        self.consumed.len()
    }

    pub(crate) fn produced(&mut self, event: Event) {
        match event {
            Event::Sent { value, at } => {
                if let Some(before) = self.acknowledged.insert(at, value.clone()) {
                    self.complain(format!("{before} and {value} were both acknowledged at {at:?}"));
                }
            }
            Event::SendFailed { message } => {
                self.sends_failed += 1;
                eprintln!("  the producer could not send: {message}");
            }
            _ => {}
        }
    }

    /// Handles a member's event; `now` is its time by the clock that all share.
    pub(crate) fn heard(&mut self, id: usize, name: &str, now: i64, event: Event) {
        let member = &mut self.members[id];
        match event {
            Event::Started => member.started = true,
            Event::Ended => {
                member.ended = true;
                let all: Vec<i32> = self.tenures.keys().copied().collect();
                self.give_up(id, now, &all);
            }
            Event::Assigned(partitions) => {
                member.assignments += 1;
                member.had.clear();
                member.positions.retain(|partition, _| !partitions.contains(partition));
                member.assigned.extend(&partitions);
                for partition in partitions.iter().filter(|_| !member.hurt) {
                    self.tenures.entry(*partition).or_default().push(Tenure { member: id, from: now, until: None });
                }
            }
            Event::Revoked(partitions) => {
                member.revocations += 1;
                member.assigned.retain(|partition| !partitions.contains(partition));
                self.give_up(id, now, &partitions);
            }
            Event::Record { value, at: (partition, offset) } => {
                let expected = member.positions.insert(partition, offset + 1);
                let is_assigned = member.assigned.contains(&partition);
                let hurt = member.hurt;
                if !is_assigned && !hurt {
                    self.complain(format!("{name} consumed of partition {partition}, which is not assigned to it"));
                }
                if let Some(expected) = expected.filter(|expected| *expected != offset) {
                    self.complain(format!("{name} consumed {offset} of partition {partition} instead of {expected}"));
                }
                let first = self.consumed.entry((partition, offset)).or_insert_with(|| (value.clone(), usize::MAX));
                if first.1 == usize::MAX {
                    first.1 = id;
                } else {
                    *self.again.entry(first.1).or_default() += 1;
                    if first.0 != value {
                        let complaint = format!("{partition}@{offset} was {} and later {value}", first.0);
                        self.complain(complaint);
                    }
                }
            }
            Event::Committed { offsets, error: None } => {
                member.commits += 1;
                let mut wrong = Vec::new();
                for (partition, offset) in offsets {
                    if !member.assigned.contains(&partition) && !member.had.contains(&partition) {
                        wrong.push(format!(
                            "{name} committed {offset} of partition {partition}, which is not assigned to it"
                        ));
                    }
                    if member.positions.get(&partition).is_none_or(|position| offset > *position) {
                        wrong.push(format!("{name} committed {offset} of partition {partition}, past its position"));
                    }
                }
                wrong.into_iter().for_each(|wrong| self.complain(wrong));
            }
            Event::Committed { error: Some(error), .. } => {
                member.commits_failed += 1;
                if member.commits_failed <= FEW {
                    eprintln!("  {name} could not commit: {error}");
                }
            }
            Event::Sent { .. } | Event::SendFailed { .. } | Event::Other => {}
        }
    }

    fn give_up(&mut self, id: usize, now: i64, partitions: &[i32]) {
        for partition in partitions {
            let tenures = self.tenures.get_mut(partition).into_iter().flatten();
            tenures.filter(|tenure| tenure.member == id && tenure.until.is_none()).for_each(|tenure| {
                tenure.until = Some(now);
            });
        }
    }

    /// Returns complaints about partitions that two members had at once.
    fn owned_twice(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (partition, tenures) in &self.tenures {
            let mut tenures = tenures.clone();
            tenures.sort_by_key(|tenure| tenure.from);
            for pair in tenures.windows(2) {
                let [first, second] = pair else { continue };
                if first.member != second.member && first.until.is_none_or(|until| until > second.from) {
                    wrong.push(format!("partition {partition} had two owners: {first:?} and {second:?}"));
                }
            }
        }
        wrong.truncate(MANY);
        wrong
    }

    /// Returns true if the members that are not hurt share all partitions.
    pub(crate) fn is_shared_out(&self, partitions: usize, members: usize) -> bool {
        let well: Vec<_> =
            self.members.iter().filter(|member| member.started && !member.ended && !member.hurt).collect();
        let all: BTreeSet<i32> = well.iter().flat_map(|member| member.assigned.iter().copied()).collect();
        let sum: usize = well.iter().map(|member| member.assigned.len()).sum();
        well.len() == members
            && all.len() == partitions
            && sum == partitions
            && (members > partitions || well.iter().all(|member| !member.assigned.is_empty()))
    }

    /// Returns true if all acknowledged records were consumed.
    pub(crate) fn is_complete(&self) -> bool {
        self.acknowledged.keys().all(|at| self.consumed.contains_key(at))
    }

    fn complain(&mut self, wrong: String) {
        if self.wrong.len() < MANY {
            self.wrong.push(wrong);
        }
    }

    pub(crate) fn consumed_again(&self) -> u64 {
        self.again.values().sum()
    }

    /// Returns the complaints at the end; empty if there are none. `may_repeat` returns true if
    /// records that a member consumed may be consumed again.
    pub(crate) fn judge(&self, may_repeat: impl Fn(usize) -> bool) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        wrong.extend(self.owned_twice());
        let missing: Vec<_> = self.acknowledged.keys().filter(|at| !self.consumed.contains_key(at)).collect();
        if let Some(first) = missing.first() {
            wrong.push(format!("{} acknowledged records were not consumed, the first at {first:?}", missing.len()));
        }
        let other =
            self.acknowledged.iter().find(|(at, value)| self.consumed.get(at).is_some_and(|(seen, _)| seen != *value));
        if let Some((at, value)) = other {
            wrong.push(format!("the record acknowledged as {value} at {at:?} was consumed with another value"));
        }
        let again: u64 = self.again.iter().filter(|(id, _)| !may_repeat(**id)).map(|(_, count)| count).sum();
        if again > 0 {
            wrong.push(format!("{again} records were consumed again though all members stopped cleanly"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(partition: i32, offset: i64) -> Event {
        Event::Sent { value: format!("{partition}-{offset}"), at: (partition, offset) }
    }

    fn record(partition: i32, offset: i64) -> Event {
        Event::Record { value: format!("{partition}-{offset}"), at: (partition, offset) }
    }

    fn commit(partition: i32, offset: i64) -> Event {
        Event::Committed { offsets: vec![(partition, offset)], error: None }
    }

    /// Returns a ledger of two members with a partition each, and their events.
    fn ledger(events: &[(usize, Event)]) -> Ledger {
        let mut ledger = Ledger::default();
        for id in 0..2 {
            assert_eq!(ledger.new_member(), id);
            ledger.heard(id, "m", 0, Event::Started);
            ledger.heard(id, "m", 0, Event::Assigned(vec![id as i32]));
        }
        for partition in 0..2 {
            (0..3).for_each(|offset| ledger.produced(sent(partition, offset)));
        }
        let timed = events.iter().cloned().zip((1..).map(|second| second * 1000));
        timed.for_each(|((id, event), now)| ledger.heard(id, "m", now, event));
        ledger
    }

    fn all() -> Vec<(usize, Event)> {
        (0..2).flat_map(|id| (0..3).map(move |offset| (id, record(id as i32, offset)))).collect()
    }

    #[test]
    fn reports_no_violation_for_correct_events() {
        let mut events = all();
        events.push((0, commit(0, 3)));
        let ledger = ledger(&events);
        assert!(ledger.is_shared_out(2, 2) && !ledger.is_shared_out(3, 2) && !ledger.is_shared_out(2, 1));
        assert!(ledger.is_complete() && ledger.judge(|_| false).is_empty(), "{:?}", ledger.judge(|_| false));
    }

    #[test]
    fn reports_every_kind_of_violation() {
        let missing = ledger(&all()[1..]);
        assert!(
            !missing.is_complete() && missing.judge(|_| true)[0].starts_with("1 acknowledged"),
            "{:?}",
            missing.judge(|_| true)
        );
        let with = |event: (usize, Event)| {
            let mut events = all();
            events.push(event);
            ledger(&events).judge(|_| true)
        };
        for (event, complaint) in [
            ((0, record(0, 4)), "m consumed 4 of partition 0 instead of 3"),
            ((0, record(1, 3)), "m consumed of partition 1, which is not assigned to it"),
            ((0, commit(1, 1)), "m committed 1 of partition 1, which is not assigned to it"),
            ((0, commit(0, 4)), "m committed 4 of partition 0, past its position"),
            ((0, Event::Assigned(vec![1])), "partition 1 had two owners"),
        ] {
            let wrong = with(event);
            assert!(wrong.iter().any(|wrong| wrong.starts_with(complaint)), "{complaint}: {wrong:?}");
        }
        let mut again = all();
        again.push((1, Event::Revoked(vec![1])));
        again.push((0, Event::Assigned(vec![1])));
        again.push((0, record(1, 2)));
        let again = ledger(&again);
        assert!(again.judge(|_| true).is_empty());
        assert_eq!((again.consumed_again(), again.judge(|_| false).len()), (1, 1));
        assert!(again.judge(|id| id == 1).is_empty(), "the second member was first");
        assert_eq!(again.judge(|id| id == 0).len(), 1);
    }

    #[test]
    fn resumed_member_counts_after_revocation_and_assignment() {
        let mut ledger = ledger(&all());
        ledger.hurt(1);
        ledger.heard(0, "m", 99_000, Event::Assigned(vec![1]));
        ledger.woke_up(1);
        assert!(!ledger.is_shared_out(2, 2));
        ledger.heard(1, "m", 99_100, Event::Revoked(vec![1]));
        // The response to an earlier commit.
        ledger.heard(1, "m", 99_150, commit(1, 3));
        ledger.heard(0, "m", 99_200, Event::Revoked(vec![1]));
        ledger.heard(1, "m", 99_300, Event::Assigned(vec![1]));
        assert!(ledger.is_shared_out(2, 2) && ledger.judge(|_| false).is_empty(), "{:?}", ledger.judge(|_| false));
    }

    #[test]
    fn killed_member_needs_no_revocation() {
        let mut ledger = ledger(&all());
        ledger.hurt(1);
        ledger.heard(0, "m", 99_000, Event::Assigned(vec![1]));
        assert!(ledger.judge(|_| false).is_empty() && ledger.is_shared_out(2, 1));
    }
}
