//! Each record that was acknowledged and committed is there once, and no other is.
//!
//! Sans-IO.

use std::collections::HashSet;

use crate::event::Outcome;
use crate::history::{History, Place, Report, Write};
use crate::names::Name;
use crate::seen::{Record, Seen};
use crate::verdict::{Kind, Verdict};

pub(super) fn check(history: &History, seen: &Seen, verdict: &mut Verdict) {
    for (index, write) in history.writes.iter().enumerate() {
        if is_expected(history, write) {
            check_presence(history, seen, verdict, index);
        }
    }
    // Copies have a rule of their own, because not every program that copies tells its events.
    let copied: HashSet<Name> = history.copies.iter().map(|copying| copying.to).collect();
    for (place, records) in &seen.records {
        for record in records {
            check_remains(history, verdict, *place, record);
            match record.write {
                Some(write) => check_right(history, verdict, *place, record, &history.writes[write]),
                None if seen.has_writes(place.topic) && !copied.contains(&place.topic) => {
                    verdict.blame(Kind::Unwritten, record.line, || {
                        format!("{} was not written there", describe(history, *place, record))
                    });
                }
                None => {}
            }
        }
    }
    check_duplicates(history, seen, verdict);
}

fn describe(history: &History, place: Place, record: &Record) -> String {
    format!("{} of {}@{}", history.names.text(record.value), history.describe(place), record.offset)
}

/// Returns true if the record must be there at the end.
fn is_expected(history: &History, write: &Write) -> bool {
    match write.transaction {
        Some(transaction) => history.transactions[transaction].is_committed(),
        None => matches!(write.report, Report::Acknowledged(_)),
    }
}

fn check_presence(history: &History, seen: &Seen, verdict: &mut Verdict, index: usize) {
    let write = &history.writes[index];
    let place = write.partition.map(|partition| Place { topic: write.topic, partition });
    let value = history.names.text(write.value);
    if seen.of_write[index].is_some() {
        return;
    }
    let last = place.and_then(|place| seen.last(place));
    let (kind, how) = match (write.report, last) {
        (Report::Acknowledged(offset), Some(last)) if last > offset => {
            (Kind::Lost, format!("was acknowledged at {offset}, and {last} was seen"))
        }
        (Report::Acknowledged(offset), _) => (Kind::Unseen, format!("was acknowledged at {offset}")),
        (Report::Failed, _) => (Kind::Lost, "failed, and its transaction was committed".to_owned()),
        (_, Some(_)) => (Kind::Lost, "is not there, and its transaction was committed".to_owned()),
        (_, None) => (Kind::Unseen, "is not there, and its transaction was committed".to_owned()),
    };
    verdict.blame(kind, write.line, || {
        let place = place.map_or_else(|| history.names.text(write.topic).to_owned(), |place| history.describe(place));
        format!("{value} of {place} {how}")
    });
}

/// Checks that a record that a committed read saw is in the final log.
fn check_remains(history: &History, verdict: &mut Verdict, place: Place, record: &Record) {
    let Some(log) = history.logs.get(&place).filter(|_| record.visible && !record.logged) else { return };
    // Records that must not be visible are another anomaly, and so are other values at the offset.
    let is_wrong = record.write.is_some_and(|write| must_be_absent(history, &history.writes[write]));
    if !is_wrong && log.records.binary_search_by_key(&record.offset, |(offset, _)| *offset).is_err() {
        verdict.blame(Kind::Lost, log.line, || {
            let received = record.line;
            format!("{} was received (line {received}), and is not in the log", describe(history, place, record))
        });
    }
}

fn must_be_absent(history: &History, write: &Write) -> bool {
    write.report == Report::Failed || write.transaction.is_some_and(|of| history.transactions[of].is_aborted())
}

/// Checks that a record that was seen may be seen.
fn check_right(history: &History, verdict: &mut Verdict, place: Place, record: &Record, write: &Write) {
    let transaction = write.transaction.map(|index| (index, &history.transactions[index]));
    let reason = match transaction {
        _ if write.report == Report::Failed && (record.visible || transaction.is_none()) => {
            "although it failed for certain".to_owned()
        }
        Some((index, of)) if record.visible && of.is_aborted() => {
            let how = if of.outcome == Some(Outcome::Aborted) { "was aborted" } else { "was never committed" };
            format!("although its transaction {} {how}", history.describe_transaction(index))
        }
        _ => return,
    };
    verdict.blame(Kind::AbortedRead, record.line, || {
        format!("{} was read, {reason} (line {})", describe(history, place, record), write.line)
    });
}

fn check_duplicates(history: &History, seen: &Seen, verdict: &mut Verdict) {
    let mut all: Vec<(Name, Name, Place, Record)> = Vec::new();
    for (place, records) in &seen.records {
        // Uncommitted reads see records of aborted transactions, whose values may be sent again.
        let plain = |record: &Record| record.write.is_none_or(|write| history.writes[write].transaction.is_none());
        let counted = records.iter().filter(|record| record.visible || plain(record));
        all.extend(counted.map(|record| (place.topic, record.value, *place, *record)));
    }
    all.sort_unstable_by_key(|(topic, value, place, record)| (*topic, *value, *place, record.offset));
    for same in all.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).filter(|same| same.len() > 1) {
        let line = same.iter().map(|(.., record)| record.line).max().unwrap_or(0);
        verdict.blame(Kind::Duplicated, line, || {
            let value = history.names.text(same[0].1);
            let places: Vec<String> = same
                .iter()
                .map(|(_, _, place, record)| format!("{}@{}", history.describe(*place), record.offset))
                .collect();
            format!("{value} is at {}", places.join(" and "))
        });
    }
}
