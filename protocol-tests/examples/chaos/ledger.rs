//! Checks the result of every record, independently of the client and the network.
//!
//! Each producer has a book. A record is entered before it is sent; its result and every place
//! where it is found in the log are noted. Once the log was read far enough, the records up to a
//! cut are judged and removed, except those that failed: they may still appear, or must not. So the
//! size of the book depends on a round, not on the run.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use serde::Serialize;

/// A place in the log: a partition and an offset, in eight bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u64);

impl Place {
    const NOWHERE: Self = Self(u64::MAX);
    /// The offset of a place with only the partition known.
    const SOMEWHERE: u64 = (1 << 48) - 1;

    fn new(partition: i32, offset: Option<i64>) -> Self {
        let offset = offset.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(Self::SOMEWHERE);
        Self((u64::from(partition.unsigned_abs()) << 48) | (offset & Self::SOMEWHERE))
    }

    /// Returns true if a record with this result was rightly found at `found`.
    fn holds(self, found: Self) -> bool {
        self == found || (self.0 & Self::SOMEWHERE == Self::SOMEWHERE && self.0 >> 48 == found.0 >> 48)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NOWHERE {
            return f.write_str("nowhere");
        }
        match self.0 & Self::SOMEWHERE {
            Self::SOMEWHERE => write!(f, "[{}]@?", self.0 >> 48),
            offset => write!(f, "[{}]@{offset}", self.0 >> 48),
        }
    }
}

/// The result of a record, as the producer reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The record is in the log at this place.
    Acknowledged { partition: i32, offset: Option<i64> },
    /// The record is not in the log, now or ever.
    NotPersisted,
    /// The record may be in the log, once.
    PossiblyPersisted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Acknowledged,
    NotPersisted,
    PossiblyPersisted,
}

#[derive(Clone, Copy)]
struct Entry {
    state: State,
    said: Place,
    found: Place,
}

/// The kinds of violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// A record is acknowledged and not in the log.
    Lost,
    /// A record is in the log more than once.
    Doubled,
    /// A record is in the log after one that was sent later to the same partition.
    OutOfOrder,
    /// A record was reported as not persisted, and is in the log.
    Revived,
    /// A record is not at the place that its result reports.
    Misplaced,
    /// A record has no result.
    Unanswered,
    /// A record has more than one result, or a record that was not sent has one.
    AnsweredTwice,
    /// A record was reported after one that was sent later to the same partition.
    AnsweredOutOfOrder,
    /// A record failed with an error that does not say whether it may be in the log.
    Vague,
    /// A record in the log differs from the one that was sent.
    Garbled,
    /// The log could not be read, or only with gaps.
    Unread,
    /// There was no acknowledgement for all partitions, or for one of them, for too long.
    StoodStill,
}

impl Wrong {
    pub(crate) const ALL: [Self; 12] = [
        Self::Lost,
        Self::Doubled,
        Self::OutOfOrder,
        Self::Revived,
        Self::Misplaced,
        Self::Unanswered,
        Self::AnsweredTwice,
        Self::AnsweredOutOfOrder,
        Self::Vague,
        Self::Garbled,
        Self::Unread,
        Self::StoodStill,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::OutOfOrder => "out_of_order",
            Self::Revived => "revived",
            Self::Misplaced => "misplaced",
            Self::Unanswered => "unanswered",
            Self::AnsweredTwice => "answered_twice",
            Self::AnsweredOutOfOrder => "answered_out_of_order",
            Self::Vague => "vague",
            Self::Garbled => "garbled",
            Self::Unread => "unread",
            Self::StoodStill => "stood_still",
        }
    }
}

/// All violations: the number of each kind, and descriptions of the first few.
#[derive(Debug, Default)]
pub(crate) struct Wrongs {
    counts: HashMap<&'static str, u64>,
    pub(crate) examples: Vec<String>,
}

impl Wrongs {
    const EXAMPLES: usize = 10;

    pub(crate) fn add(&mut self, wrong: Wrong, what: impl fmt::Display) {
        *self.counts.entry(wrong.name()).or_default() += 1;
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(format!("{}: {what}", wrong.name()));
        }
    }

    pub(crate) fn count(&self, wrong: Wrong) -> u64 {
        self.counts.get(wrong.name()).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Numbers of records by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) not_persisted: u64,
    pub(crate) possibly_persisted: u64,
    /// Number of possibly persisted records that are in the log.
    pub(crate) turned_up: u64,
    /// Number of all records in the log.
    pub(crate) found: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.not_persisted += other.not_persisted;
        self.possibly_persisted += other.possibly_persisted;
        self.turned_up += other.turned_up;
        self.found += other.found;
    }

    /// Returns the difference to an earlier state.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            acknowledged: self.acknowledged - before.acknowledged,
            not_persisted: self.not_persisted - before.not_persisted,
            possibly_persisted: self.possibly_persisted - before.possibly_persisted,
            turned_up: self.turned_up - before.turned_up,
            found: self.found - before.found,
        }
    }
}

/// The book of one producer.
pub(crate) struct Book {
    name: String,
    /// The number of the first entry.
    base: u64,
    entries: VecDeque<Entry>,
    /// All records before this number have their results.
    answered: u64,
    /// Failed records that were judged, in groups of 64: bits of those that may appear once, and of
    /// those that must not.
    failed: HashMap<u64, (u64, u64)>,
    /// The last number that was found, per partition.
    last: Vec<Option<u64>>,
    /// The offset after the last acknowledged one, per partition.
    ends: Vec<i64>,
    pub(crate) counts: Counts,
    pub(crate) wrongs: Wrongs,
}

impl Book {
    pub(crate) fn new(name: impl Into<String>, partitions: usize) -> Self {
        Self {
            name: name.into(),
            base: 0,
            entries: VecDeque::new(),
            answered: 0,
            failed: HashMap::new(),
            last: vec![None; partitions],
            ends: vec![0; partitions],
            counts: Counts::default(),
            wrongs: Wrongs::default(),
        }
    }

    /// Returns the number of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Enters the next record and returns its number.
    pub(crate) fn enter(&mut self) -> u64 {
        let number = self.next();
        self.entries.push_back(Entry { state: State::Pending, said: Place::NOWHERE, found: Place::NOWHERE });
        self.counts.sent += 1;
        number
    }

    /// Notes a record's result.
    pub(crate) fn result(&mut self, number: u64, fate: Fate) {
        let name = &self.name;
        let entry = number.checked_sub(self.base).and_then(|at| self.entries.get_mut(usize::try_from(at).ok()?));
        let Some(entry) = entry.filter(|entry| entry.state == State::Pending) else {
            self.wrongs.add(Wrong::AnsweredTwice, format_args!("{name} {number}: {fate:?}"));
            return;
        };
        match fate {
            Fate::Acknowledged { partition, offset } => {
                entry.state = State::Acknowledged;
                entry.said = Place::new(partition, offset);
                self.counts.acknowledged += 1;
                let end = usize::try_from(partition).ok().and_then(|partition| self.ends.get_mut(partition));
                if let (Some(end), Some(offset)) = (end, offset) {
                    *end = (*end).max(offset + 1);
                }
            }
            Fate::NotPersisted => {
                entry.state = State::NotPersisted;
                self.counts.not_persisted += 1;
            }
            Fate::PossiblyPersisted => {
                entry.state = State::PossiblyPersisted;
                self.counts.possibly_persisted += 1;
            }
        }
    }

    /// Returns the number of records below `cut` without a result.
    pub(crate) fn unanswered(&mut self, cut: u64) -> u64 {
        self.answered = self.answered.max(self.base);
        while self.answered < cut && self.state(self.answered).is_some_and(|state| state != State::Pending) {
            self.answered += 1;
        }
        let from = usize::try_from(self.answered - self.base).unwrap_or(usize::MAX);
        let to = usize::try_from(cut.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let open = self.entries.iter().take(to).skip(from).filter(|entry| entry.state == State::Pending);
        open.count() as u64
    }

    /// Returns the offset after the last acknowledged one of a partition.
    pub(crate) fn end(&self, partition: usize) -> i64 {
        self.ends.get(partition).copied().unwrap_or(0)
    }

    /// Notes that a record is in the log at that place. Records have to be noted in the order of
    /// the log.
    pub(crate) fn found(&mut self, number: u64, partition: i32, offset: i64) {
        let here = Place::new(partition, Some(offset));
        self.counts.found += 1;
        let first_time = match number.checked_sub(self.base) {
            Some(at) => self.found_now(number, at, here),
            None => self.found_late(number, here),
        };
        // A duplicate is usually after later records as well, which is not reported separately.
        if !first_time {
            return;
        }
        let last = usize::try_from(partition).ok().and_then(|partition| self.last.get_mut(partition));
        match last {
            Some(Some(before)) if *before > number => {
                let what = format_args!("{} {number} at {here}, after {before}", self.name);
                self.wrongs.add(Wrong::OutOfOrder, what);
            }
            Some(last) => *last = Some(number),
            None => {
                let what = format_args!("{} {number} at {here}, which is not a partition of the topic", self.name);
                self.wrongs.add(Wrong::Garbled, what);
            }
        }
    }

    /// Notes a record that is not judged yet. Returns true if it was found for the first time.
    fn found_now(&mut self, number: u64, at: u64, here: Place) -> bool {
        let name = &self.name;
        let Some(entry) = usize::try_from(at).ok().and_then(|at| self.entries.get_mut(at)) else {
            self.wrongs.add(Wrong::Garbled, format_args!("{name} {number} at {here}, which was not sent yet"));
            return false;
        };
        if entry.found != Place::NOWHERE {
            self.wrongs.add(Wrong::Doubled, format_args!("{name} {number} at {} and {here}", entry.found));
            return false;
        }
        entry.found = here;
        true
    }

    /// Notes a record that was judged already. Returns true if it was found for the first time.
    fn found_late(&mut self, number: u64, here: Place) -> bool {
        let name = &self.name;
        let bit = 1 << (number % 64);
        match self.failed.get_mut(&(number / 64)) {
            Some((may, _)) if *may & bit != 0 => {
                *may &= !bit;
                self.counts.turned_up += 1;
                true
            }
            Some((_, must_not)) if *must_not & bit != 0 => {
                *must_not &= !bit;
                self.wrongs.add(Wrong::Revived, format_args!("{name} {number} at {here}"));
                true
            }
            _ => {
                self.wrongs.add(Wrong::Doubled, format_args!("{name} {number} at {here}, and in an earlier round"));
                false
            }
        }
    }

    /// Judges all records below `cut`, after the log was read past the last acknowledged of them.
    pub(crate) fn judge(&mut self, cut: u64) {
        while self.base < cut {
            let Some(Entry { state, said, found }) = self.entries.pop_front() else { break };
            let (name, number, there) = (&self.name, self.base, found != Place::NOWHERE);
            self.base += 1;
            let blocks = |failed: &mut HashMap<u64, (u64, u64)>, may: bool| {
                let block = failed.entry(number / 64).or_default();
                *if may { &mut block.0 } else { &mut block.1 } |= 1 << (number % 64);
            };
            match state {
                State::Pending => self.wrongs.add(Wrong::Unanswered, format_args!("{name} {number}, found {found}")),
                State::Acknowledged if !there => {
                    self.wrongs.add(Wrong::Lost, format_args!("{name} {number}, acknowledged at {said}"));
                }
                State::Acknowledged if !said.holds(found) => {
                    self.wrongs
                        .add(Wrong::Misplaced, format_args!("{name} {number}, acknowledged at {said}, found {found}"));
                }
                State::Acknowledged => {}
                State::NotPersisted if there => {
                    self.wrongs.add(Wrong::Revived, format_args!("{name} {number} at {found}"));
                }
                State::NotPersisted => blocks(&mut self.failed, false),
                State::PossiblyPersisted if there => self.counts.turned_up += 1,
                State::PossiblyPersisted => blocks(&mut self.failed, true),
            }
        }
    }

    fn state(&self, number: u64) -> Option<State> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.entries.get(at).map(|entry| entry.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(records: u64) -> Book {
        let mut book = Book::new("p", 2);
        (0..records).for_each(|number| assert_eq!(book.enter(), number));
        book
    }

    fn acknowledged(partition: i32, offset: i64) -> Fate {
        Fate::Acknowledged { partition, offset: Some(offset) }
    }

    /// Returns the kinds of violations in a book, sorted.
    fn wrongs(book: &Book) -> Vec<Wrong> {
        Wrong::ALL.into_iter().filter(|wrong| book.wrongs.count(*wrong) > 0).collect()
    }

    #[test]
    fn reports_no_violation_for_correct_run() {
        let mut book = book(6);
        book.result(0, acknowledged(0, 10));
        book.result(1, acknowledged(1, 5));
        book.result(2, Fate::Acknowledged { partition: 0, offset: None });
        book.result(3, Fate::NotPersisted);
        book.result(4, Fate::PossiblyPersisted);
        book.result(5, Fate::PossiblyPersisted);
        book.found(0, 0, 10);
        book.found(1, 1, 5);
        book.found(2, 0, 11);
        book.found(4, 1, 6);
        assert_eq!((book.end(0), book.end(1)), (11, 6));
        book.judge(6);
        assert_eq!((wrongs(&book), book.wrongs.total()), (vec![], 0), "{:?}", book.wrongs);
        let counts = book.counts;
        assert_eq!((counts.sent, counts.acknowledged, counts.found, counts.turned_up), (6, 3, 4, 1));
        // A possibly persisted record may come out of a frozen broker rounds later.
        book.found(5, 1, 7);
        assert_eq!((book.wrongs.total(), book.counts.turned_up), (0, 2));
    }

    #[test]
    fn missing_acknowledged_record_is_lost() {
        let mut book = book(1);
        book.result(0, acknowledged(0, 10));
        book.judge(1);
        assert_eq!(wrongs(&book), [Wrong::Lost]);
    }

    #[test]
    fn detects_duplicates_within_and_across_rounds() {
        let mut one = book(2);
        one.result(0, acknowledged(0, 10));
        one.found(0, 0, 10);
        one.found(0, 0, 11);
        assert_eq!(wrongs(&one), [Wrong::Doubled]);
        let mut other = book(2);
        other.result(0, acknowledged(0, 10));
        other.found(0, 0, 10);
        other.judge(1);
        other.found(0, 1, 3);
        assert_eq!(wrongs(&other), [Wrong::Doubled]);
        let mut third = book(1);
        third.result(0, Fate::PossiblyPersisted);
        third.judge(1);
        third.found(0, 0, 1);
        assert_eq!(wrongs(&third), []);
        third.found(0, 0, 2);
        assert_eq!(wrongs(&third), [Wrong::Doubled]);
    }

    #[test]
    fn detects_reordering_within_one_partition() {
        let mut book = book(3);
        book.found(1, 0, 0);
        book.found(0, 1, 0);
        assert_eq!(wrongs(&book), []);
        book.found(2, 0, 1);
        assert_eq!(wrongs(&book), []);
        let mut turned = Book::new("p", 1);
        (0..2).for_each(|number| assert_eq!(turned.enter(), number));
        turned.found(1, 0, 0);
        turned.found(0, 0, 1);
        assert_eq!(wrongs(&turned), [Wrong::OutOfOrder]);
    }

    #[test]
    fn record_reported_not_persisted_must_not_appear() {
        let mut early = book(1);
        early.found(0, 0, 4);
        early.result(0, Fate::NotPersisted);
        early.judge(1);
        assert_eq!(wrongs(&early), [Wrong::Revived]);
        let mut late = book(1);
        late.result(0, Fate::NotPersisted);
        late.judge(1);
        late.found(0, 0, 4);
        assert_eq!(wrongs(&late), [Wrong::Revived]);
    }

    #[test]
    fn detects_repeated_missing_and_misplaced_results() {
        let mut book = book(4);
        book.result(0, acknowledged(0, 10));
        book.result(0, Fate::NotPersisted);
        assert_eq!(wrongs(&book), [Wrong::AnsweredTwice]);
        book.result(9, Fate::NotPersisted);
        assert_eq!(book.wrongs.count(Wrong::AnsweredTwice), 2);
        assert_eq!(book.unanswered(4), 3);
        book.result(2, Fate::PossiblyPersisted);
        assert_eq!(book.unanswered(4), 2);
        book.result(1, acknowledged(1, 4));
        assert_eq!(book.unanswered(3), 0);
        book.found(0, 0, 11);
        book.found(1, 1, 4);
        book.judge(4);
        assert_eq!(wrongs(&book), [Wrong::Misplaced, Wrong::Unanswered, Wrong::AnsweredTwice]);
    }

    #[test]
    fn record_numbers_never_sent_are_garbled() {
        let mut book = book(1);
        book.found(7, 0, 0);
        book.found(0, 9, 0);
        assert_eq!(book.wrongs.count(Wrong::Garbled), 2);
    }
}
