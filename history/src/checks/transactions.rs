//! A transaction is visible as a whole or not at all, and it ends.
//!
//! Sans-IO.

use crate::history::{History, Report};
use crate::seen::Seen;
use crate::verdict::{Kind, Verdict};

pub(super) fn check(history: &History, seen: &Seen, verdict: &mut Verdict) {
    for (index, transaction) in history.transactions.iter().enumerate() {
        // Visible records of aborted transactions are another anomaly.
        if transaction.is_aborted() {
            continue;
        }
        let is_there = |write: &usize| seen.of_write[*write].is_some_and(|record| record.visible);
        let there = transaction.writes.iter().filter(|write| is_there(write)).count();
        let failed = transaction.writes.iter().filter(|write| history.writes[**write].report == Report::Failed).count();
        if there > 0 && there < transaction.writes.len() {
            verdict.blame(Kind::IntermediateRead, transaction.line, || {
                let of = transaction.writes.len();
                let name = history.describe_transaction(index);
                format!("{there} of {of} records of {name} are visible; {failed} had failed")
            });
        }
    }
    for end in history.log_ends.iter().filter(|end| end.last_stable_offset < end.high_watermark) {
        verdict.blame(Kind::Hanging, end.line, || {
            let (stable, high) = (end.last_stable_offset, end.high_watermark);
            format!("the last stable offset of {} is {stable} of {high}", history.describe(end.place))
        });
    }
}
