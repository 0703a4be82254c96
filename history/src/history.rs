//! A history: its events, joined by record and transaction.
//!
//! Sans-IO.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use crate::event::{Event, Isolation, Outcome, VERSION};
use crate::names::{Name, Names};

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) topic: Name,
    pub(crate) partition: i32,
}

/// A record that a producer sent, as often as it sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) line: u64,
    pub(crate) client: Name,
    pub(crate) topic: Name,
    /// The partition that it was sent to, or that acknowledged it.
    pub(crate) partition: Option<i32>,
    pub(crate) value: Name,
    pub(crate) key: Option<Name>,
    /// Index of the transaction.
    pub(crate) transaction: Option<usize>,
    pub(crate) report: Report,
}

/// The report of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// None so far.
    Waiting,
    /// Acknowledged at this offset.
    Acknowledged(i64),
    Failed,
    Unknown,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) line: u64,
    pub(crate) name: Name,
    pub(crate) client: Name,
    pub(crate) commit_requested: bool,
    pub(crate) outcome: Option<Outcome>,
    /// Indices of its records.
    pub(crate) writes: Vec<usize>,
}

impl Transaction {
    /// Returns true if the commit was confirmed.
    pub(crate) fn is_committed(&self) -> bool {
        self.outcome == Some(Outcome::Committed)
    }

    /// Returns true if it certainly did not commit.
    pub(crate) fn is_aborted(&self) -> bool {
        self.outcome == Some(Outcome::Aborted) || (!self.commit_requested && !self.is_committed())
    }
}

/// An offset that a transaction sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentOffset {
    pub(crate) line: u64,
    pub(crate) transaction: usize,
    pub(crate) group: Name,
    pub(crate) place: Place,
    pub(crate) offset: i64,
}

/// A step of a consumer in a partition.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) line: u64,
    pub(crate) client: Name,
    pub(crate) place: Place,
    pub(crate) kind: StepKind,
}

/// The kind of a step.
#[derive(Clone, Debug)]
pub(crate) enum StepKind {
    Seek(Option<i64>),
    Poll { isolation: Isolation, transaction: Option<usize>, records: Vec<(i64, Name)> },
}

/// The final log of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) line: u64,
    pub(crate) records: Vec<(i64, Name)>,
}

/// The ends of a partition's final log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogEnd {
    pub(crate) line: u64,
    pub(crate) place: Place,
    pub(crate) last_stable_offset: i64,
    pub(crate) high_watermark: i64,
}

/// A copy of one topic to another by a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copying {
    pub(crate) line: u64,
    pub(crate) from: Name,
    pub(crate) to: Name,
    pub(crate) group: Name,
}

/// A line that cannot be a part of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line's number, from 1.
    pub line: u64,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Malformed {}

/// All events of a history. Events are added in their order, and [`check`](crate::check) judges
/// them.
#[derive(Debug, Default)]
pub struct History {
    pub(crate) events: u64,
    /// The line of the event that is being added.
    line: u64,
    pub(crate) names: Names,
    pub(crate) writes: Vec<Write>,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) offsets: Vec<SentOffset>,
    pub(crate) steps: Vec<Step>,
    pub(crate) logs: HashMap<Place, Log>,
    pub(crate) log_ends: Vec<LogEnd>,
    pub(crate) copies: Vec<Copying>,
    /// By group and partition: the line and the offset.
    pub(crate) committed: HashMap<(Name, Place), (u64, i64)>,
    by_name: HashMap<Name, usize>,
    /// Records without a report, by client, topic and value.
    waiting: HashMap<(Name, Name, Name), usize>,
    /// Records that were sent before an equal one had its report, in order.
    waiting_again: HashMap<(Name, Name, Name), VecDeque<usize>>,
}

impl History {
    /// Adds the next event, which is on that line.
    ///
    /// # Errors
    /// The event cannot follow those before it: the first one is not `history`, the version is
    /// later than [`VERSION`], a transaction or record is unknown or has ended.
    pub fn add(&mut self, line: u64, event: &Event) -> Result<(), Malformed> {
        if self.is_empty() && !matches!(event, Event::History { .. }) {
            let reason = "a history begins with {\"type\":\"history\",\"version\":1}".to_owned();
            return Err(Malformed { line, reason });
        }
        self.events += 1;
        self.line = line;
        self.add_event(event).map_err(|reason| Malformed { line, reason })
    }

    /// Returns true if no event was added.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    fn add_event(&mut self, event: &Event) -> Result<(), String> {
        match event {
            // Several files may be put together, each of which begins with its version.
            Event::History { version } if (1..=VERSION).contains(version) => Ok(()),
            Event::History { version } => {
                Err(format!("version {version} is not known; this checker reads versions up to {VERSION}"))
            }
            Event::Note { .. } => Ok(()),
            Event::Send { .. } => self.add_write(event),
            Event::Acknowledged { client, topic, partition, offset, value } => {
                let write = self.take_waiting(client, topic, value)?;
                if write.partition.is_some_and(|sent| sent != *partition) {
                    return Err(format!("{value} was sent to another partition than {partition}"));
                }
                write.partition = Some(*partition);
                write.report = Report::Acknowledged(*offset);
                Ok(())
            }
            Event::Failed { client, topic, value } => {
                self.take_waiting(client, topic, value)?.report = Report::Failed;
                Ok(())
            }
            Event::Unknown { client, topic, value } => {
                self.take_waiting(client, topic, value)?.report = Report::Unknown;
                Ok(())
            }
            Event::Begin { .. } | Event::Offset { .. } | Event::Commit { .. } | Event::Outcome { .. } => {
                self.add_to_transaction(event)
            }
            Event::Seek { .. } | Event::Poll { .. } => self.add_step(event),
            _ => self.add_final(event),
        }
    }

    fn add_write(&mut self, event: &Event) -> Result<(), String> {
        let Event::Send { client, topic, partition, value, key, transaction } = event else { return Ok(()) };
        let transaction = transaction.as_deref().map(|name| self.open_transaction(name)).transpose()?;
        let write = Write {
            line: self.line,
            client: self.name(client)?,
            topic: self.name(topic)?,
            partition: *partition,
            value: self.name(value)?,
            key: key.as_deref().map(|key| self.name(key)).transpose()?,
            transaction,
            report: Report::Waiting,
        };
        let index = self.writes.len();
        self.add_waiting(write, index);
        if let Some(transaction) = transaction {
            let transaction = &mut self.transactions[transaction];
            if transaction.client != write.client {
                return Err(format!("{client} sends in the transaction of another producer"));
            }
            transaction.writes.push(index);
        }
        self.writes.push(write);
        Ok(())
    }

    fn add_to_transaction(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Begin { client, transaction } => {
                let (name, client) = (self.name(transaction)?, self.name(client)?);
                if self.by_name.insert(name, self.transactions.len()).is_some() {
                    return Err(format!("a second transaction has the name {transaction}"));
                }
                self.transactions.push(Transaction {
                    line: self.line,
                    name,
                    client,
                    commit_requested: false,
                    outcome: None,
                    writes: Vec::new(),
                });
            }
            Event::Offset { transaction, group, topic, partition, offset } => {
                let sent = SentOffset {
                    line: self.line,
                    transaction: self.open_transaction(transaction)?,
                    group: self.name(group)?,
                    place: self.place(topic, *partition)?,
                    offset: *offset,
                };
                self.offsets.push(sent);
            }
            Event::Commit { transaction } => {
                let index = self.open_transaction(transaction)?;
                self.transactions[index].commit_requested = true;
            }
            Event::Outcome { transaction, outcome } => {
                let index = self.transaction(transaction)?;
                let known = &mut self.transactions[index];
                if known.outcome.is_some() {
                    return Err(format!("{transaction} has two outcomes"));
                }
                if *outcome == Outcome::Committed && !known.commit_requested {
                    return Err(format!("{transaction} is committed without a commit"));
                }
                known.outcome = Some(*outcome);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_step(&mut self, event: &Event) -> Result<(), String> {
        let (client, topic, partition, kind) = match event {
            Event::Seek { client, topic, partition, offset } => (client, topic, partition, StepKind::Seek(*offset)),
            Event::Poll { client, isolation, topic, partition, transaction, records } => {
                let transaction = transaction.as_deref().map(|name| self.transaction(name)).transpose()?;
                let records = self.records(records)?;
                (client, topic, partition, StepKind::Poll { isolation: *isolation, transaction, records })
            }
            _ => return Ok(()),
        };
        let (client, place) = (self.name(client)?, self.place(topic, *partition)?);
        self.steps.push(Step { line: self.line, client, place, kind });
        Ok(())
    }

    /// Adds an event of the end: the content of logs and the committed offsets of groups.
    fn add_final(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Log { topic, partition, records } => {
                let (place, records, line) = (self.place(topic, *partition)?, self.records(records)?, self.line);
                let log = self.logs.entry(place).or_insert(Log { line, records: Vec::new() });
                let last = log.records.last().map_or(-1, |(offset, _)| *offset);
                let offsets: Vec<i64> = [last].into_iter().chain(records.iter().map(|(offset, _)| *offset)).collect();
                if offsets.windows(2).any(|pair| pair[0] >= pair[1]) {
                    return Err(format!("the offsets of the log of {topic}[{partition}] do not increase"));
                }
                log.records.extend(records);
            }
            Event::LogEnd { topic, partition, last_stable_offset, high_watermark } => {
                let place = self.place(topic, *partition)?;
                // An empty partition has an end and no records.
                self.logs.entry(place).or_insert(Log { line: self.line, records: Vec::new() });
                let (last_stable_offset, high_watermark) = (*last_stable_offset, *high_watermark);
                self.log_ends.push(LogEnd { line: self.line, place, last_stable_offset, high_watermark });
            }
            Event::CommittedOffset { group, topic, partition, offset } => {
                let key = (self.name(group)?, self.place(topic, *partition)?);
                if self.committed.insert(key, (self.line, *offset)).is_some() {
                    return Err(format!("{group} has two committed offsets for {topic}[{partition}]"));
                }
            }
            Event::Copy { from, to, group } => {
                let (from, to, group) = (self.name(from)?, self.name(to)?, self.name(group)?);
                self.copies.push(Copying { line: self.line, from, to, group });
            }
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, text: &str) -> Result<Name, String> {
        self.names.add(text).ok_or_else(|| "more than 4 billion names".to_owned())
    }

    fn place(&mut self, topic: &str, partition: i32) -> Result<Place, String> {
        Ok(Place { topic: self.name(topic)?, partition })
    }

    fn records(&mut self, records: &[(i64, String)]) -> Result<Vec<(i64, Name)>, String> {
        records.iter().map(|(offset, value)| Ok((*offset, self.name(value)?))).collect()
    }

    fn transaction(&mut self, name: &str) -> Result<usize, String> {
        let known = self.name(name)?;
        self.by_name.get(&known).copied().ok_or_else(|| format!("transaction {name} has not begun"))
    }

    fn open_transaction(&mut self, name: &str) -> Result<usize, String> {
        let index = self.transaction(name)?;
        let known = &self.transactions[index];
        if known.commit_requested || known.outcome.is_some() {
            return Err(format!("transaction {name} is ending or has ended"));
        }
        Ok(index)
    }

    fn add_waiting(&mut self, write: Write, index: usize) {
        let key = (write.client, write.topic, write.value);
        if let Some(earlier) = self.waiting.get(&key).copied() {
            let transaction = self.writes[earlier].transaction;
            // After the outcome, records of a transaction may have no report.
            if transaction.is_none_or(|of| self.transactions[of].outcome.is_none()) {
                self.waiting_again.entry(key).or_default().push_back(index);
                return;
            }
        }
        self.waiting.insert(key, index);
    }

    /// Returns the record that a report belongs to: the first of equal ones.
    fn take_waiting(&mut self, client: &str, topic: &str, value: &str) -> Result<&mut Write, String> {
        let key = (self.name(client)?, self.name(topic)?, self.name(value)?);
        let index = self.waiting.remove(&key);
        let index = index.ok_or_else(|| format!("{client} has not sent {value} to {topic}, or it has a report"))?;
        if let Some(next) = self.waiting_again.get_mut(&key).and_then(VecDeque::pop_front) {
            self.waiting.insert(key, next);
        }
        Ok(&mut self.writes[index])
    }
}
