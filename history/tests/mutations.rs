//! A serial execution of transactions has no anomaly, and each damage to its history is found.

mod common;

use std::collections::BTreeMap;

use common::*;
use history::{Event, Isolation, Kind, Outcome};
use proptest::prelude::*;

const PARTITIONS: i32 = 2;

/// One transaction of the execution.
#[derive(Clone, Debug)]
struct Plan {
    client: usize,
    /// The partition of each record.
    records: Vec<i32>,
    outcome: Outcome,
    /// True if a transaction with an unknown outcome, or a client that ended, did commit.
    effective: bool,
    /// The number of records that the consumer receives in each poll after it.
    poll: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let outcome = prop_oneof![4 => Just(Outcome::Committed), 2 => Just(Outcome::Aborted), 1 => Just(Outcome::Unknown)];
    let records = prop::collection::vec(0..PARTITIONS, 1..6);
    (0..3_usize, records, outcome, any::<bool>(), 1..4_usize)
        .prop_map(|(client, records, outcome, effective, poll)| Plan { client, records, outcome, effective, poll })
}

/// The log of a partition, with its end.
#[derive(Clone, Debug, Default)]
struct Partition {
    records: Vec<(i64, String)>,
    end: i64,
    polled: usize,
}

/// Carries out the plans one after the other, then copies topic `t` to `u` in transactions.
fn execute(plans: &[Plan]) -> Vec<Event> {
    let mut events = vec![];
    let mut partitions = BTreeMap::from([(0, Partition::default()), (1, Partition::default())]);
    for (number, plan) in plans.iter().enumerate() {
        let (client, transaction) = (format!("p{}", plan.client), format!("x{number}"));
        events.push(begin(&client, &transaction));
        let is_visible = plan.outcome == Outcome::Committed || (plan.outcome == Outcome::Unknown && plan.effective);
        for (n, partition) in plan.records.iter().enumerate() {
            let value = format!("{number}.{n}");
            let sent = send(&client, Some(&transaction), *partition, &value);
            events.push(with_key(sent, &format!("k{partition}")));
            let log = partitions.get_mut(partition).expect("a partition");
            if plan.outcome != Outcome::Unknown {
                events.push(acknowledged(&client, *partition, log.end, &value));
            }
            if is_visible {
                log.records.push((log.end, value));
            }
            log.end += 1;
        }
        if plan.outcome != Outcome::Aborted {
            events.push(commit(&transaction));
        }
        events.push(outcome(&transaction, plan.outcome));
        for (partition, log) in &mut partitions {
            // The marker.
            log.end += i64::from(plan.records.contains(partition));
            for part in log.records[log.polled..].chunks(plan.poll) {
                let part: Vec<(i64, &str)> = part.iter().map(|(offset, value)| (*offset, value.as_str())).collect();
                events.push(poll("c", *partition, &part));
            }
            log.polled = log.records.len();
        }
    }
    copy_all(&mut events, &partitions);
    events
}

fn copy_all(events: &mut Vec<Event>, partitions: &BTreeMap<i32, Partition>) {
    let mut ends = vec![copy("t", "u")];
    for (partition, log) in partitions {
        let (client, mut out, mut end) = (format!("copier{partition}"), Vec::new(), 0);
        for (n, part) in log.records.chunks(2).enumerate() {
            let transaction = format!("{client}.{n}");
            events.push(begin(&client, &transaction));
            for (_, value) in part {
                events.push(send_to("u", &client, Some(&transaction), *partition, value));
                events.push(acknowledged_in("u", &client, *partition, end, value));
                out.push((end, value.as_str()));
                end += 1;
            }
            end += 1;
            let position = part.last().map_or(0, |(offset, _)| offset + 1);
            events.push(offset(&transaction, "t", *partition, position));
            events.extend([commit(&transaction), outcome(&transaction, Outcome::Committed)]);
        }
        let records: Vec<(i64, &str)> = log.records.iter().map(|(offset, value)| (*offset, value.as_str())).collect();
        ends.extend(
            [history_log("t", *partition, &records, log.end), history_log("u", *partition, &out, end)].concat(),
        );
        let position = log.records.last().map_or(0, |(offset, _)| offset + 1);
        ends.push(committed_offset("t", *partition, position));
    }
    events.extend(ends);
}

fn history_log(topic: &str, partition: i32, records: &[(i64, &str)], end: i64) -> Vec<Event> {
    vec![log(topic, partition, records), log_end(topic, partition, end, end)]
}

/// A damage to a history.
#[derive(Clone, Copy, Debug)]
enum Damage {
    LogLosesRecord,
    LogRepeatsValue,
    LogHasAbortedRecord,
    LogHasForeignRecord,
    LogSwapsValues,
    PollLosesRecord,
    PollRepeatsRecord,
    PollSwapsValues,
    OutcomeBecomesAborted,
    CommitIsForgotten,
    PartOfTransactionIsLost,
    TransactionReadsLaterOne,
    KeysAreCrossed,
    TransactionHangs,
    OutputLosesRecord,
    OutputRepeatsRecord,
    OutputSwapsRecords,
    OutputIsInOtherTransaction,
    OffsetIsBehind,
    OffsetIsAhead,
}

use Damage::*;

const ALL: [Damage; 20] = [
    LogLosesRecord,
    LogRepeatsValue,
    LogHasAbortedRecord,
    LogHasForeignRecord,
    LogSwapsValues,
    PollLosesRecord,
    PollRepeatsRecord,
    PollSwapsValues,
    OutcomeBecomesAborted,
    CommitIsForgotten,
    PartOfTransactionIsLost,
    TransactionReadsLaterOne,
    KeysAreCrossed,
    TransactionHangs,
    OutputLosesRecord,
    OutputRepeatsRecord,
    OutputSwapsRecords,
    OutputIsInOtherTransaction,
    OffsetIsBehind,
    OffsetIsAhead,
];

impl Damage {
    /// The anomalies of which at least one must be found.
    fn kinds(self) -> &'static [Kind] {
        match self {
            LogLosesRecord => &[Kind::Lost, Kind::Unseen],
            LogRepeatsValue | OutputRepeatsRecord => &[Kind::Duplicated],
            LogHasAbortedRecord | OutcomeBecomesAborted | CommitIsForgotten => &[Kind::AbortedRead],
            LogHasForeignRecord => &[Kind::Unwritten],
            LogSwapsValues | PollSwapsValues => &[Kind::TwoValues],
            PollLosesRecord => &[Kind::SkippedPoll],
            PollRepeatsRecord => &[Kind::NonmonotonicPoll],
            PartOfTransactionIsLost => &[Kind::IntermediateRead],
            TransactionReadsLaterOne => &[Kind::ReadCycle],
            KeysAreCrossed => &[Kind::WriteCycle],
            TransactionHangs => &[Kind::Hanging],
            OutputLosesRecord => &[Kind::MissingCopy],
            OutputSwapsRecords => &[Kind::ReorderedCopy],
            OutputIsInOtherTransaction => &[Kind::OffsetsWithoutOutputs],
            OffsetIsBehind | OffsetIsAhead => &[Kind::CommittedOffset],
        }
    }

    /// Damages the history at a place that `at` chooses; `None` if it has no such place.
    fn apply(self, mut events: Vec<Event>, at: usize) -> Option<Vec<Event>> {
        match self {
            LogLosesRecord => drop(log_of(&mut events, "t", at)?.remove(0)),
            LogRepeatsValue => repeat_first(log_of(&mut events, "t", at)?),
            OutputRepeatsRecord => repeat_first(log_of(&mut events, "u", at)?),
            LogHasAbortedRecord => {
                let (topic, partition, offset, value) = aborted_record(&events, at)?;
                let records = exact_log(&mut events, &topic, partition)?;
                let place = records.partition_point(|(other, _)| *other < offset);
                records.insert(place, (offset, value));
            }
            LogHasForeignRecord => log_of(&mut events, "t", at)?.push((1_000_000, "foreign".to_owned())),
            LogSwapsValues => swap_values(log_of(&mut events, "t", at)?)?,
            OutputSwapsRecords => swap_values(log_of(&mut events, "u", at)?)?,
            OutputLosesRecord => drop(log_of(&mut events, "u", at)?.pop()),
            PollLosesRecord => {
                let polls = polls_of_one_partition(&events)?;
                // Neither the first record that it receives nor the last.
                let poll = polls[1 + at % (polls.len().checked_sub(2).filter(|inner| *inner > 0)?)];
                events.remove(poll);
            }
            PollRepeatsRecord => {
                let polls = polls_of_one_partition(&events)?;
                let poll = polls[at % polls.len()];
                events.insert(poll, events[poll].clone());
            }
            PollSwapsValues => {
                let polls = polls_of_one_partition(&events)?;
                let [a, b] = [polls[at % polls.len()], polls[(at + 1) % polls.len()]];
                let first = poll_records(&mut events[a])?.first()?.1.clone();
                let second = std::mem::replace(&mut poll_records(&mut events[b])?.first_mut()?.1, first.clone());
                poll_records(&mut events[a])?.first_mut()?.1 = second.clone();
                (first != second).then_some(())?;
            }
            OutcomeBecomesAborted => {
                let index = pick(&events, at, |event| is_outcome(event, Outcome::Committed))?;
                if let Event::Outcome { outcome, .. } = &mut events[index] {
                    *outcome = Outcome::Aborted;
                }
            }
            CommitIsForgotten => {
                let index = pick(&events, at, |event| is_outcome(event, Outcome::Committed))?;
                let Event::Outcome { transaction, .. } = events.remove(index) else { return None };
                events.retain(|event| !matches!(event, Event::Commit { transaction: of } if *of == transaction));
            }
            PartOfTransactionIsLost => lose_part(&mut events, at)?,
            TransactionReadsLaterOne => read_each_other(&mut events)?,
            KeysAreCrossed => cross_keys(&mut events)?,
            TransactionHangs => {
                let index = pick(&events, at, |event| matches!(event, Event::LogEnd { .. }))?;
                if let Event::LogEnd { last_stable_offset, .. } = &mut events[index] {
                    *last_stable_offset -= 1;
                }
            }
            OutputIsInOtherTransaction => shift_offset(&mut events, at)?,
            OffsetIsBehind => move_committed(&mut events, at, |_| 0)?,
            OffsetIsAhead => {
                log_of(&mut events, "u", at)?.pop()?;
            }
        }
        Some(events)
    }
}

fn pick(events: &[Event], at: usize, wanted: impl Fn(&Event) -> bool) -> Option<usize> {
    let found: Vec<usize> = events.iter().enumerate().filter(|(_, event)| wanted(event)).map(|(at, _)| at).collect();
    found.get(at % found.len().max(1)).copied()
}

fn is_outcome(event: &Event, wanted: Outcome) -> bool {
    matches!(event, Event::Outcome { outcome, .. } if *outcome == wanted)
}

/// Returns a log of that topic that has records.
fn log_of<'e>(events: &'e mut [Event], wanted: &str, at: usize) -> Option<&'e mut Vec<(i64, String)>> {
    let is_log =
        |event: &Event| matches!(event, Event::Log { topic, records, .. } if topic == wanted && !records.is_empty());
    let index = pick(events, at, is_log)?;
    if let Event::Log { records, .. } = &mut events[index] { Some(records) } else { None }
}

fn exact_log<'e>(events: &'e mut [Event], wanted: &str, place: i32) -> Option<&'e mut Vec<(i64, String)>> {
    events.iter_mut().find_map(|event| match event {
        Event::Log { topic, partition, records } if topic == wanted && *partition == place => Some(records),
        _ => None,
    })
}

fn repeat_first(records: &mut Vec<(i64, String)>) {
    let value = records[0].1.clone();
    records.push((1_000_000, value));
}

fn swap_values(records: &mut [(i64, String)]) -> Option<()> {
    let [first, .., last] = records else { return None };
    std::mem::swap(&mut first.1, &mut last.1);
    Some(())
}

fn poll_records(event: &mut Event) -> Option<&mut Vec<(i64, String)>> {
    if let Event::Poll { records, .. } = event { Some(records) } else { None }
}

/// Returns the polls of the partition that has more of them.
fn polls_of_one_partition(events: &[Event]) -> Option<Vec<usize>> {
    let of = |place: i32| {
        let found = events.iter().enumerate();
        let found = found.filter(|(_, event)| matches!(event, Event::Poll { partition, .. } if *partition == place));
        found.map(|(at, _)| at).collect::<Vec<_>>()
    };
    (0..PARTITIONS).map(of).max_by_key(Vec::len).filter(|polls| !polls.is_empty())
}

/// Returns topic, partition, offset and value of a record of an aborted transaction.
fn aborted_record(events: &[Event], at: usize) -> Option<(String, i32, i64, String)> {
    let index = pick(events, at, |event| is_outcome(event, Outcome::Aborted))?;
    let last = events[..index].iter().rev().find(|event| matches!(event, Event::Acknowledged { .. }));
    match last? {
        Event::Acknowledged { topic, partition, offset, value, .. } => {
            Some((topic.clone(), *partition, *offset, value.clone()))
        }
        _ => None,
    }
}

/// Removes one record of a committed transaction of several from the log and the polls.
fn lose_part(events: &mut [Event], at: usize) -> Option<()> {
    let mut sizes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in events.iter() {
        if let Event::Send { topic, transaction: Some(transaction), value, .. } = event
            && topic == "t"
        {
            sizes.entry(transaction).or_default().push(value);
        }
    }
    let committed = |name: &str| {
        events.iter().any(
            |event| matches!(event, Event::Outcome { transaction, outcome: Outcome::Committed } if transaction == name),
        )
    };
    let several: Vec<&str> = sizes
        .iter()
        .filter(|(name, values)| values.len() > 1 && committed(name))
        .map(|(_, values)| values[at % values.len()])
        .collect();
    let lost = (*several.get(at % several.len().max(1))?).to_owned();
    for event in events {
        match event {
            Event::Log { topic, records, .. } | Event::Poll { topic, records, .. } if topic == "t" => {
                records.retain(|(_, value)| *value != lost);
            }
            _ => {}
        }
    }
    Some(())
}

/// The names of committed transactions, with a visible record of each.
fn committed_records(events: &[Event]) -> Vec<(String, i32, i64, String)> {
    let is_committed = |name: &str| {
        events.iter().any(
            |event| matches!(event, Event::Outcome { transaction, outcome: Outcome::Committed } if transaction == name),
        )
    };
    let mut found: Vec<(String, i32, i64, String)> = Vec::new();
    let mut open = String::new();
    for event in events {
        match event {
            Event::Begin { transaction, .. } => open.clone_from(transaction),
            Event::Acknowledged { topic, partition, offset, value, .. }
                if topic == "t" && is_committed(&open) && found.last().is_none_or(|last| last.0 != open) =>
            {
                found.push((open.clone(), *partition, *offset, value.clone()));
            }
            _ => {}
        }
    }
    found
}

/// Lets two transactions read from each other.
fn read_each_other(events: &mut Vec<Event>) -> Option<()> {
    let found = committed_records(events);
    let [first, .., last] = &found[..] else { return None };
    for (reader, (_, partition, offset, value)) in [(&first.0, last), (&last.0, first)] {
        let event = poll(&format!("reader of {reader}"), *partition, &[(*offset, value.as_str())]);
        events.push(inside(event, reader));
    }
    Some(())
}

/// Gives two transactions one key in one partition and another key, in the opposite order, in two
/// more records.
fn cross_keys(events: &mut Vec<Event>) -> Option<()> {
    let found = committed_records(events);
    let [(first, ..), .., (last, ..)] = &found[..] else { return None };
    let client = |name: &str| {
        events.iter().find_map(|event| match event {
            Event::Begin { client, transaction } if transaction == name => Some(client.clone()),
            _ => None,
        })
    };
    let (a, b) = (client(first)?, client(last)?);
    let mut added = Vec::new();
    for (n, (transaction, client, partition, offset, key)) in
        [(first, &a, 7, 0, "m"), (last, &b, 7, 1, "m"), (last, &b, 8, 0, "n"), (first, &a, 8, 1, "n")]
            .iter()
            .enumerate()
    {
        let value = format!("crossed {n}");
        let sent = with_key(send(client, Some(transaction), *partition, &value), key);
        added.push((*transaction, [sent, acknowledged(client, *partition, *offset, &value)]));
    }
    for (transaction, pair) in added {
        let begun = events
            .iter()
            .position(|event| matches!(event, Event::Begin { transaction: of, .. } if of == transaction))?;
        events.splice(begun + 1..=begun, pair);
    }
    events.push(log("t", 7, &[(0, "crossed 0"), (1, "crossed 1")]));
    events.push(log("t", 8, &[(0, "crossed 2"), (1, "crossed 3")]));
    Some(())
}

/// Lets a transaction of a copier send an offset that belongs to other records.
fn shift_offset(events: &mut [Event], at: usize) -> Option<()> {
    let index = pick(events, at, |event| matches!(event, Event::Offset { .. }))?;
    let Event::Offset { partition, offset, .. } = &mut events[index] else { return None };
    let (partition, position) = (*partition, *offset);
    *offset = 0;
    // An earlier offset that is not the one of this transaction.
    (position > 0 && exact_log(events, "t", partition)?.first()?.0 < position).then_some(())
}

fn move_committed(events: &mut [Event], at: usize, to: impl Fn(i64) -> i64) -> Option<()> {
    let index = pick(events, at, |event| matches!(event, Event::CommittedOffset { offset: 1.., .. }))?;
    let Event::CommittedOffset { offset, .. } = &mut events[index] else { return None };
    *offset = to(*offset);
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn serial_execution_has_no_anomaly(plans in prop::collection::vec(plan(), 0..20)) {
        let verdict = judge(execute(&plans));
        prop_assert!(verdict.valid, "{verdict}");
    }

    #[test]
    fn every_damage_to_serial_execution_is_found(
        plans in prop::collection::vec(plan(), 8..20),
        at in any::<prop::sample::Index>(),
    ) {
        let whole = execute(&plans);
        for damage in ALL {
            if let Some(damaged) = damage.apply(whole.clone(), at.index(1 << 16)) {
                let verdict = judge(damaged);
                let found = damage.kinds().iter().any(|kind| verdict.count(*kind) > 0);
                prop_assert!(found, "{damage:?}: {verdict}");
            }
        }
    }
}

/// Without this, a damage that has no place anywhere would count as found.
#[test]
fn every_damage_has_place_in_long_history() {
    let plan = |n: usize| Plan {
        client: n % 3,
        records: vec![0, 1, (n % 2) as i32],
        outcome: [Outcome::Committed, Outcome::Aborted, Outcome::Committed, Outcome::Unknown][n % 4],
        effective: n % 8 == 3,
        poll: 1 + n % 3,
    };
    let plans: Vec<Plan> = (0..40).map(plan).collect();
    for damage in ALL {
        for at in 0..50 {
            let damaged = damage.apply(execute(&plans), at);
            let verdict = judge(damaged.unwrap_or_else(|| panic!("{damage:?} has no place")));
            let found = damage.kinds().iter().any(|kind| verdict.count(*kind) > 0);
            assert!(found, "{damage:?} at {at}: {verdict}");
        }
    }
}

#[test]
fn uncommitted_reader_may_see_every_record() {
    let mut events =
        execute(&[Plan { client: 0, records: vec![0, 0], outcome: Outcome::Aborted, effective: false, poll: 1 }]);
    events.push(uncommitted(poll("d", 0, &[(0, "0.0"), (1, "0.1")])));
    assert!(matches!(events.last(), Some(Event::Poll { isolation: Isolation::ReadUncommitted, .. })));
    expect(events, &[]);
}
