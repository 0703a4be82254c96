//! Makes events.
#![allow(dead_code, reason = "each test uses only a part of this")]

use history::{Event, History, Isolation, Kind, Outcome, Verdict, check};

pub(crate) fn header() -> Event {
    Event::History { version: history::VERSION }
}

/// A record to partition `partition` of topic `t`.
pub(crate) fn send(client: &str, transaction: Option<&str>, partition: i32, value: &str) -> Event {
    send_to("t", client, transaction, partition, value)
}

pub(crate) fn send_to(topic: &str, client: &str, transaction: Option<&str>, partition: i32, value: &str) -> Event {
    Event::Send {
        client: client.to_owned(),
        topic: topic.to_owned(),
        partition: Some(partition),
        value: value.to_owned(),
        key: None,
        transaction: transaction.map(str::to_owned),
    }
}

pub(crate) fn with_key(mut event: Event, name: &str) -> Event {
    if let Event::Send { key, .. } = &mut event {
        *key = Some(name.to_owned());
    }
    event
}

pub(crate) fn acknowledged(client: &str, partition: i32, offset: i64, value: &str) -> Event {
    acknowledged_in("t", client, partition, offset, value)
}

pub(crate) fn acknowledged_in(topic: &str, client: &str, partition: i32, offset: i64, value: &str) -> Event {
    let (client, topic, value) = (client.to_owned(), topic.to_owned(), value.to_owned());
    Event::Acknowledged { client, topic, partition, offset, value }
}

pub(crate) fn failed(client: &str, value: &str) -> Event {
    Event::Failed { client: client.to_owned(), topic: "t".to_owned(), value: value.to_owned() }
}

pub(crate) fn unknown(client: &str, value: &str) -> Event {
    Event::Unknown { client: client.to_owned(), topic: "t".to_owned(), value: value.to_owned() }
}

pub(crate) fn begin(client: &str, transaction: &str) -> Event {
    Event::Begin { client: client.to_owned(), transaction: transaction.to_owned() }
}

pub(crate) fn commit(transaction: &str) -> Event {
    Event::Commit { transaction: transaction.to_owned() }
}

pub(crate) fn outcome(transaction: &str, outcome: Outcome) -> Event {
    Event::Outcome { transaction: transaction.to_owned(), outcome }
}

pub(crate) fn offset(transaction: &str, topic: &str, partition: i32, offset: i64) -> Event {
    let (transaction, group, topic) = (transaction.to_owned(), "g".to_owned(), topic.to_owned());
    Event::Offset { transaction, group, topic, partition, offset }
}

pub(crate) fn seek(client: &str, partition: i32, offset: Option<i64>) -> Event {
    Event::Seek { client: client.to_owned(), topic: "t".to_owned(), partition, offset }
}

fn owned(records: &[(i64, &str)]) -> Vec<(i64, String)> {
    records.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

pub(crate) fn poll(client: &str, partition: i32, records: &[(i64, &str)]) -> Event {
    Event::Poll {
        client: client.to_owned(),
        isolation: Isolation::ReadCommitted,
        topic: "t".to_owned(),
        partition,
        transaction: None,
        records: owned(records),
    }
}

pub(crate) fn uncommitted(mut event: Event) -> Event {
    if let Event::Poll { isolation, .. } = &mut event {
        *isolation = Isolation::ReadUncommitted;
    }
    event
}

/// Makes a poll a part of a transaction.
pub(crate) fn inside(mut event: Event, name: &str) -> Event {
    if let Event::Poll { transaction, .. } = &mut event {
        *transaction = Some(name.to_owned());
    }
    event
}

pub(crate) fn log(topic: &str, partition: i32, records: &[(i64, &str)]) -> Event {
    Event::Log { topic: topic.to_owned(), partition, records: owned(records) }
}

pub(crate) fn log_end(topic: &str, partition: i32, last_stable_offset: i64, high_watermark: i64) -> Event {
    Event::LogEnd { topic: topic.to_owned(), partition, last_stable_offset, high_watermark }
}

pub(crate) fn committed_offset(topic: &str, partition: i32, offset: i64) -> Event {
    Event::CommittedOffset { group: "g".to_owned(), topic: topic.to_owned(), partition, offset }
}

pub(crate) fn copy(from: &str, to: &str) -> Event {
    Event::Copy { from: from.to_owned(), to: to.to_owned(), group: "g".to_owned() }
}

/// A committed transaction of one producer, with its records at these offsets of `t`.
pub(crate) fn committed(client: &str, transaction: &str, records: &[(i32, i64, &str)]) -> Vec<Event> {
    let mut events = open(client, transaction, records);
    events.extend([commit(transaction), outcome(transaction, Outcome::Committed)]);
    events
}

/// A transaction without an end.
pub(crate) fn open(client: &str, transaction: &str, records: &[(i32, i64, &str)]) -> Vec<Event> {
    let mut events = vec![begin(client, transaction)];
    for (partition, offset, value) in records {
        events.push(send(client, Some(transaction), *partition, value));
        events.push(acknowledged(client, *partition, *offset, value));
    }
    events
}

/// Judges events, which follow the header.
pub(crate) fn judge(events: impl IntoIterator<Item = Event>) -> Verdict {
    let mut history = History::default();
    for (line, event) in (1..).zip([header()].into_iter().chain(events)) {
        // Events pass through the format, as those of a program.
        let text = serde_json::to_string(&event).expect("JSON");
        history.add(line, &serde_json::from_str(&text).expect("an event")).expect("an event that fits");
    }
    check(&history)
}

/// Checks that the events have exactly these anomalies.
#[track_caller]
pub(crate) fn expect(events: impl IntoIterator<Item = Event>, kinds: &[(Kind, u64)]) {
    let verdict = judge(events);
    let found: Vec<(Kind, u64)> = verdict.counts.iter().map(|(kind, count)| (*kind, *count)).collect();
    assert_eq!(found, kinds, "{verdict}");
    assert_eq!(verdict.valid, kinds.is_empty());
}
