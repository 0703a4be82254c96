//! An offset holds one value.
//!
//! Sans-IO.

use std::collections::HashMap;

use crate::history::{History, Place, Report};
use crate::names::Name;
use crate::seen::Seen;
use crate::verdict::{Kind, Verdict};

pub(super) fn check(history: &History, seen: &Seen, verdict: &mut Verdict) {
    for (place, records) in &seen.records {
        for pair in records.windows(2).filter(|pair| pair[0].offset == pair[1].offset) {
            let line = pair[0].line.max(pair[1].line);
            blame(history, verdict, *place, pair[0].offset, line, [pair[0].value, pair[1].value]);
        }
    }
    let mut acknowledged: HashMap<(Place, i64), Name> = HashMap::new();
    for write in &history.writes {
        let (Some(partition), Report::Acknowledged(offset @ 0..)) = (write.partition, write.report) else { continue };
        let place = Place { topic: write.topic, partition };
        let other = acknowledged.insert((place, offset), write.value).filter(|other| *other != write.value);
        let other = other.or_else(|| {
            let records = seen.records.get(&place)?;
            let start = records.partition_point(|record| record.offset < offset);
            let mut at = records[start..].iter().take_while(|record| record.offset == offset);
            at.find(|record| record.value != write.value).map(|record| record.value)
        });
        if let Some(other) = other {
            blame(history, verdict, place, offset, write.line, [write.value, other]);
        }
    }
}

fn blame(history: &History, verdict: &mut Verdict, place: Place, offset: i64, line: u64, values: [Name; 2]) {
    verdict.blame(Kind::TwoValues, line, || {
        let [a, b] = values.map(|value| history.names.text(value));
        format!("{}@{offset} is both {a} and {b}", history.describe(place))
    });
}
