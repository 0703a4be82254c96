//! Formats the outcomes of a row as lines of a table: codes that reach the user in the same ways
//! share a line.

use std::{collections::BTreeMap, fmt::Write};

use crate::ErrorCode;

use super::{
    rows::Row,
    stage::{MINUTE, Outcome},
};

/// Returns the lines of one row, in Markdown.
pub(super) fn lines(row: &Row, outcomes: &[(ErrorCode, Outcome)]) -> String {
    let mut groups: BTreeMap<String, Vec<&(ErrorCode, Outcome)>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(ways(&outcome.1)).or_default().push(outcome);
    }
    let largest = groups.values().map(Vec::len).max().unwrap_or(0);
    let mut out = String::new();
    for (ways, group) in &groups {
        let codes = match group.len() {
            len if len == largest => format!("{}{len}", if groups.len() > 1 { "all others: " } else { "all: " }),
            _ => group.iter().map(|(code, _)| code.to_string()).collect::<Vec<_>>().join(" "),
        };
        let requests = group.iter().map(|(_, outcome)| outcome.requests).max().unwrap_or(0);
        let after = group.iter().filter_map(|(_, outcome)| outcome.heard_after()).max();
        let after = after.map_or_else(|| "–".to_owned(), |after| format!("{} s", after.as_secs()));
        let rate = requests as f64 / MINUTE.as_secs_f64();
        let (scenario, api, place) = (row.scenario, row.name(), row.place.name());
        writeln!(out, "| {scenario} | {api} ({place}) | {codes} | {rate:.1} | {ways} | {after} |").unwrap();
    }
    out
}

fn ways(outcome: &Outcome) -> String {
    let ways = outcome.heard.keys().map(|way| format!("{way:?}").to_lowercase()).collect::<Vec<_>>().join(", ");
    match (ways.is_empty(), outcome.works) {
        (false, _) => ways,
        (true, true) => "nothing: the work goes on".to_owned(),
        (true, false) => "nothing".to_owned(),
    }
}
