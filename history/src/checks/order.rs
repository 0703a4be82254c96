//! A producer's records of a partition are in the order in which they were sent.
//!
//! Sans-IO.

use std::collections::HashMap;

use crate::history::{History, Place, Report};
use crate::names::Name;
use crate::seen::Seen;
use crate::verdict::{Kind, Verdict};

pub(super) fn check(history: &History, seen: &Seen, verdict: &mut Verdict) {
    // The last record so far of a producer in a partition.
    let mut last: HashMap<(Name, Place), (i64, usize)> = HashMap::new();
    for (index, write) in history.writes.iter().enumerate() {
        let offset = match (write.report, seen.of_write[index]) {
            (Report::Acknowledged(offset @ 0..), _) => offset,
            (_, Some(record)) => record.offset,
            _ => continue,
        };
        let Some(partition) = write.partition else { continue };
        let place = Place { topic: write.topic, partition };
        let before = last.insert((write.client, place), (offset, index));
        if let Some((earlier, at)) = before.filter(|(earlier, _)| *earlier >= offset) {
            verdict.blame(Kind::Reordered, write.line, || {
                let text = |index: usize| history.names.text(history.writes[index].value);
                let (place, client) = (history.describe(place), history.names.text(write.client));
                format!("{client} sent {} before {}: {place}@{earlier} and @{offset}", text(at), text(index))
            });
        }
    }
}
