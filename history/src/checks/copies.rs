//! A copied topic equals its original, and offsets move together with the copies.
//!
//! Sans-IO.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Copying, History, Place, SentOffset};
use crate::names::Name;
use crate::seen::{Record, Seen};
use crate::verdict::{Kind, Verdict};

pub(super) fn check(history: &History, seen: &Seen, verdict: &mut Verdict) {
    for copying in &history.copies {
        let mut partitions: Vec<i32> = history
            .logs
            .keys()
            .filter(|place| place.topic == copying.from || place.topic == copying.to)
            .map(|place| place.partition)
            .collect();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let pair = Pair::new(history, copying, partition);
            let copied = pair.check_output(history, verdict);
            pair.check_committed(history, verdict, &copied);
            pair.check_transactions(history, seen, verdict);
        }
    }
}

/// A partition and its copy.
struct Pair<'h> {
    line: u64,
    group: Name,
    from: Place,
    to: Place,
    input: &'h [(i64, Name)],
    output: &'h [(i64, Name)],
    /// The index in `input` of each value.
    index: HashMap<Name, usize>,
}

impl<'h> Pair<'h> {
    fn new(history: &'h History, copying: &Copying, partition: i32) -> Self {
        let from = Place { topic: copying.from, partition };
        let to = Place { topic: copying.to, partition };
        let records = |place: &Place| history.logs.get(place).map_or(&[][..], |log| &log.records);
        let input = records(&from);
        let index = input.iter().enumerate().map(|(index, (_, value))| (*value, index)).collect();
        Self { line: copying.line, group: copying.group, from, to, input, output: records(&to), index }
    }

    /// Compares the output with the input, and returns for each record of the input whether it has
    /// a copy.
    fn check_output(&self, history: &History, verdict: &mut Verdict) -> Vec<bool> {
        let mut copied = vec![false; self.input.len()];
        let mut furthest: Option<usize> = None;
        let line = history.logs.get(&self.to).map_or(self.line, |log| log.line);
        let (from, to) = (|| history.describe(self.from), || history.describe(self.to));
        for (offset, value) in self.output {
            let text = || history.names.text(*value);
            let Some(index) = self.index.get(value).copied() else {
                verdict.blame(Kind::ExtraCopy, line, || {
                    format!("{}@{offset} is {}, which is not in {}", to(), text(), from())
                });
                continue;
            };
            if std::mem::replace(&mut copied[index], true) {
                verdict.blame(Kind::ExtraCopy, line, || format!("{}@{offset} is a second copy of {}", to(), text()));
                continue;
            }
            if let Some(before) = furthest.filter(|before| *before > index) {
                verdict.blame(Kind::ReorderedCopy, line, || {
                    let before = history.names.text(self.input[before].1);
                    format!("{}@{offset} is {}, after {before}; in {} it is before", to(), text(), from())
                });
            }
            furthest = furthest.max(Some(index));
        }
        for ((offset, value), _) in self.input.iter().zip(&copied).filter(|(_, copied)| !**copied) {
            verdict.blame(Kind::MissingCopy, line, || {
                format!("{} of {}@{offset} is not in {}", history.names.text(*value), from(), to())
            });
        }
        copied
    }

    /// Compares the group's final offset with the copies.
    fn check_committed(&self, history: &History, verdict: &mut Verdict, copied: &[bool]) {
        let Some((line, committed)) = history.committed.get(&(self.group, self.from)).copied() else { return };
        let records = || self.input.iter().zip(copied);
        let behind = records().filter(|((offset, _), copied)| **copied && *offset >= committed).count();
        let ahead = records().filter(|((offset, _), copied)| !**copied && *offset < committed).count();
        if behind + ahead > 0 {
            verdict.blame(Kind::CommittedOffset, line, || {
                let (group, place) = (history.names.text(self.group), history.describe(self.from));
                format!("{group} is at {committed} of {place}: {behind} copied records are after it, {ahead} records before it have no copy")
            });
        }
    }

    /// Checks that each transaction that moved the group's offset wrote the copies of the records
    /// directly before the new offset.
    fn check_transactions(&self, history: &History, seen: &Seen, verdict: &mut Verdict) {
        // The last offset of a transaction counts.
        let sent = history.offsets.iter().filter(|sent| sent.group == self.group && sent.place == self.from);
        let last: BTreeMap<usize, &SentOffset> = sent.map(|sent| (sent.transaction, sent)).collect();
        let writers = self.writers(history, seen);
        for (index, sent) in last {
            let transaction = &history.transactions[index];
            let mut outputs = self.outputs(history, seen, index);
            if transaction.is_aborted() || (outputs.is_empty() && !transaction.is_committed()) {
                continue;
            }
            outputs.sort_unstable();
            let end = self.input.partition_point(|(offset, _)| *offset < sent.offset);
            let is_run = outputs.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            let is_right = match outputs.last() {
                Some(last) => is_run && last + 1 == end,
                None => end == 0 || writers[end - 1].is_some_and(|writer| writer.is_none_or(|writer| writer < index)),
            };
            if !is_right {
                verdict.blame(Kind::OffsetsWithoutOutputs, sent.line, || {
                    let (name, place) = (history.describe_transaction(index), history.describe(self.from));
                    let range = outputs.first().zip(outputs.last());
                    let wrote = range.map_or("no record".to_owned(), |(first, last)| {
                        let text = |index: usize| history.names.text(self.input[index].1);
                        format!("{} copies from {} to {}", outputs.len(), text(*first), text(*last))
                    });
                    format!("{name} set {} of {place} and wrote {wrote} in {}", sent.offset, history.describe(self.to))
                });
            }
        }
    }

    /// Returns the indices in the input of the copies that a transaction wrote.
    fn outputs(&self, history: &History, seen: &Seen, transaction: usize) -> Vec<usize> {
        let writes = history.transactions[transaction].writes.iter();
        let here = writes.filter(|write| {
            let record = seen.of_write[**write];
            let partition = history.writes[**write].partition.unwrap_or(self.to.partition);
            history.writes[**write].topic == self.to.topic
                && partition == self.to.partition
                && record.is_some_and(|record| record.visible)
        });
        here.filter_map(|write| self.index.get(&history.writes[*write].value).copied()).collect()
    }

    /// Returns for each record of the input the transaction that wrote its copy: `None` if there is
    /// no copy, `Some(None)` if the transaction is not known.
    fn writers(&self, history: &History, seen: &Seen) -> Vec<Option<Option<usize>>> {
        let mut writers = vec![None; self.input.len()];
        for Record { value, write, .. } in seen.records.get(&self.to).into_iter().flatten() {
            if let Some(index) = self.index.get(value) {
                writers[*index] = Some(write.and_then(|write| history.writes[write].transaction));
            }
        }
        writers
    }
}
