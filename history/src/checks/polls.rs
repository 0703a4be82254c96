//! A consumer receives each record of a partition once, in the order of offsets, and passes over
//! none.
//!
//! Sans-IO.

use std::collections::HashMap;

use crate::event::Isolation;
use crate::history::{History, Place, Step, StepKind};
use crate::names::Name;
use crate::seen::Seen;
use crate::verdict::{Kind, Verdict};

/// The lowest offset that a consumer may receive next; `None` if its position is not known.
type Position = Option<i64>;

pub(super) fn check(history: &History, seen: &Seen, verdict: &mut Verdict) {
    let mut positions: HashMap<(Name, Place), Position> = HashMap::new();
    for step in &history.steps {
        let position = positions.entry((step.client, step.place)).or_insert(None);
        match &step.kind {
            StepKind::Seek(offset) => *position = *offset,
            StepKind::Poll { isolation, records, .. } => {
                for (offset, value) in records {
                    check_record(history, seen, verdict, step, *isolation, (*position, *offset, *value));
                    *position = Some(offset + 1);
                }
            }
        }
    }
}

fn check_record(
    history: &History,
    seen: &Seen,
    verdict: &mut Verdict,
    step: &Step,
    isolation: Isolation,
    (position, offset, value): (Position, i64, Name),
) {
    let Some(position) = position else { return };
    let at = || format!("{} in {}", history.names.text(step.client), history.describe(step.place));
    if offset < position {
        verdict.blame(Kind::NonmonotonicPoll, step.line, || {
            let value = history.names.text(value);
            format!("{} received {offset} ({value}) at position {position}", at())
        });
        return;
    }
    let records = seen.records.get(&step.place).map_or(&[][..], |records| records);
    let between = records.partition_point(|record| record.offset < position)
        ..records.partition_point(|record| record.offset < offset);
    let mut skipped =
        records[between].iter().filter(|record| record.visible || isolation == Isolation::ReadUncommitted);
    if let Some(first) = skipped.next() {
        let count = 1 + skipped.count();
        verdict.blame(Kind::SkippedPoll, step.line, || {
            let value = history.names.text(first.value);
            format!("{} passed over {count} records between {position} and {offset}, first {value}", at())
        });
    }
}
