//! The records that were seen in logs and by consumers, and the writes that they come from.
//!
//! Sans-IO.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::event::Isolation;
use crate::history::{History, Place, Report, StepKind, Write};
use crate::names::Name;

/// A record that was seen at an offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) value: Name,
    /// The first line that shows it.
    pub(crate) line: u64,
    /// True if the final log has it.
    pub(crate) logged: bool,
    /// True if the log has it or a `read_committed` consumer received it.
    pub(crate) visible: bool,
    /// The index of the write that it comes from; `None` if there is none.
    pub(crate) write: Option<usize>,
}

/// All records that were seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By partition, in the order of offsets. An offset that has two values is there twice.
    pub(crate) records: HashMap<Place, Vec<Record>>,
    /// By write: its record.
    pub(crate) of_write: Vec<Option<Record>>,
    writes: WritesByValue,
}

impl Seen {
    pub(crate) fn new(history: &History) -> Self {
        let writes = WritesByValue::new(&history.writes);
        let mut seen = Self { of_write: vec![None; history.writes.len()], writes, ..Self::default() };
        seen.collect(history);
        let mut records = std::mem::take(&mut seen.records);
        for (place, records) in &mut records {
            merge(records);
            for record in records {
                record.write = seen.attribute(history, *place, record);
                if let Some(write) = record.write
                    && seen.of_write[write].is_none_or(|known| !known.visible)
                {
                    seen.of_write[write] = Some(*record);
                }
            }
        }
        seen.records = records;
        seen
    }

    fn collect(&mut self, history: &History) {
        let record =
            |offset, value, line, logged, visible| Record { offset, value, line, logged, visible, write: None };
        for (place, log) in &history.logs {
            let all = self.records.entry(*place).or_default();
            all.extend(log.records.iter().map(|(offset, value)| record(*offset, *value, log.line, true, true)));
        }
        for step in &history.steps {
            if let StepKind::Poll { isolation, records, .. } = &step.kind {
                let visible = *isolation == Isolation::ReadCommitted;
                let all = self.records.entry(step.place).or_default();
                all.extend(records.iter().map(|(offset, value)| record(*offset, *value, step.line, false, visible)));
            }
        }
    }

    /// Finds the write that a record comes from: the one that was acknowledged there, otherwise one
    /// that may be there, as far as its report and transaction say.
    fn attribute(&self, history: &History, place: Place, record: &Record) -> Option<usize> {
        let candidates = self.writes.of(place.topic, record.value);
        let there = |write: &Write| write.partition.is_none_or(|partition| partition == place.partition);
        let rank = |index: &usize| {
            let write = &history.writes[*index];
            let ended = write.transaction.map(|of| &history.transactions[of]);
            match write.report {
                Report::Acknowledged(offset) => {
                    (there(write) && offset == record.offset).then_some(0).or(
                        // Without acknowledgements of brokers, the offset is not known.
                        (there(write) && offset < 0).then_some(1),
                    )
                }
                _ if !there(write) => None,
                Report::Failed => Some(4),
                _ if ended.is_some_and(crate::history::Transaction::is_aborted) => Some(3),
                Report::Waiting | Report::Unknown => Some(if self.of_write[*index].is_some() { 2 } else { 1 }),
            }
        };
        candidates.iter().filter_map(|index| Some((rank(index)?, *index))).min().map(|(_, index)| index)
    }

    /// Returns true if any write of that topic is known, so that a record without one is wrong.
    pub(crate) fn has_writes(&self, topic: Name) -> bool {
        self.writes.topics.contains(&topic)
    }

    /// Returns the last offset of a partition that was seen.
    pub(crate) fn last(&self, place: Place) -> Option<i64> {
        Some(self.records.get(&place)?.last()?.offset)
    }
}

/// Joins what was seen several times; values that differ at one offset remain.
fn merge(records: &mut Vec<Record>) {
    records.sort_unstable_by_key(|record| (record.offset, record.value, record.line));
    records.dedup_by(|next, kept| {
        let same = next.offset == kept.offset && next.value == kept.value;
        kept.logged |= same && next.logged;
        kept.visible |= same && next.visible;
        same
    });
}

/// The writes of each topic and value.
#[derive(Debug, Default)]
struct WritesByValue {
    sorted: Vec<usize>,
    ranges: HashMap<(Name, Name), Range<usize>>,
    topics: HashSet<Name>,
}

impl WritesByValue {
    fn new(writes: &[Write]) -> Self {
        let mut sorted: Vec<usize> = (0..writes.len()).collect();
        let key = |index: &usize| (writes[*index].topic, writes[*index].value);
        sorted.sort_by_key(key);
        let mut ranges = HashMap::new();
        let mut start = 0;
        for group in sorted.chunk_by(|a, b| key(a) == key(b)) {
            ranges.insert(key(&group[0]), start..start + group.len());
            start += group.len();
        }
        let topics = writes.iter().map(|write| write.topic).collect();
        Self { sorted, ranges, topics }
    }

    fn of(&self, topic: Name, value: Name) -> &[usize] {
        self.ranges.get(&(topic, value)).map_or(&[], |range| &self.sorted[range.clone()])
    }
}
