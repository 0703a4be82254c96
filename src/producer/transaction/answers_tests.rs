//! The table of [`answers`](super::answers), as a document and against rules that hold for every
//! code.

use std::collections::BTreeMap;

use super::{
    answers::{TransactionApi, Verdict, after_repeats, verdict},
    protocol::Protocol,
};
use crate::error::ErrorCode;

const APIS: [(TransactionApi, &str); 8] = [
    (TransactionApi::FindTransactionCoordinator, "FindCoordinator (transaction)"),
    (TransactionApi::FindGroupCoordinator, "FindCoordinator (group)"),
    (TransactionApi::InitProducerId, "InitProducerId"),
    (TransactionApi::AddPartitions, "AddPartitionsToTxn"),
    (TransactionApi::AddOffsets, "AddOffsetsToTxn"),
    (TransactionApi::TxnOffsetCommit, "TxnOffsetCommit"),
    (TransactionApi::EndTxnCommit, "EndTxn (commit)"),
    (TransactionApi::EndTxnAbort, "EndTxn (abort)"),
];

const LEGEND: &[(Verdict, &str, &str)] = &[
    (Verdict::Done, "done", "the request has succeeded"),
    (Verdict::OtherPartition, "other", "the partition was left out because of another one, whose code counts"),
    (Verdict::Retry, "retry", "the request is repeated after the backoff"),
    (Verdict::RetrySoon, "soon", "like *retry*, but the first repeats come after about 5, 10, 20 ms"),
    (Verdict::FindCoordinator, "find", "the coordinator is looked up again, then the request is repeated"),
    (
        Verdict::RetryWhileTopicMissing,
        "topic",
        "the request is repeated for `delivery.timeout.ms`, then the transaction is aborted",
    ),
    (
        Verdict::RetryLimited,
        "5×",
        "the code is not expected: the request is repeated five times, then the last line of the table holds",
    ),
    (
        Verdict::NothingToEnd,
        "nothing",
        "the end of a transaction to which nothing was added; with something added, the producer fails",
    ),
    (
        Verdict::Abort,
        "abort",
        "the transaction is aborted, and `begin` starts the next one. A commit that was sent more than once has the \
         outcome *unknown*, otherwise *aborted*",
    ),
    (
        Verdict::AbortAfterRebalance,
        "rebalance",
        "like *abort*: the group has rebalanced, so the consumer rejoins and rewinds",
    ),
    (Verdict::AbortAndBump, "bump", "like *abort*, and InitProducerId raises the epoch before the next transaction"),
    (
        Verdict::Reset,
        "reset",
        "the transaction is over for the producer; InitProducerId raises the epoch, and its own answer decides",
    ),
    (Verdict::Refused, "refused", "`init` or `begin` fails with kind `Authorization` and may be called again"),
    (
        Verdict::Configuration,
        "config",
        "the producer fails: a setting, a permission or a version has to be corrected. A commit ends as with *abort*",
    ),
    (Verdict::Fenced, "fenced", "the producer fails with kind `Fenced`: make a new one. A commit ends as with *abort*"),
    (Verdict::Fatal, "fatal", "the producer fails. A commit ends as with *abort*"),
];

fn word(verdict: Verdict) -> &'static str {
    LEGEND.iter().find(|(of, ..)| *of == verdict).expect("the legend has every verdict").1
}

fn codes() -> impl Iterator<Item = ErrorCode> {
    (-1..=1000).map(ErrorCode::new).filter(|code| code.is_known())
}

fn cell(api: TransactionApi, code: ErrorCode) -> String {
    let [first, second] = [Protocol::V1, Protocol::V2].map(|protocol| word(verdict(api, code, protocol)));
    if first == second { first.to_owned() } else { format!("v1 {first}, v2 {second}") }
}

fn row(code: ErrorCode) -> String {
    APIS.iter().map(|(api, _)| cell(*api, code)).collect::<Vec<_>>().join(" | ")
}

/// Returns the document. Codes that are answered alike share a line.
fn document() -> String {
    let mut lines: Vec<(String, Vec<ErrorCode>)> = Vec::new();
    let unexpected = row(ErrorCode::UNKNOWN_SERVER_ERROR);
    for code in codes() {
        let row = row(code);
        match lines.iter_mut().find(|(of, _)| *of == row) {
            Some((_, codes)) => codes.push(code),
            None => lines.push((row, vec![code])),
        }
    }
    let mut text = String::from(
        "# Error codes of transactions\n\n\
         Made from `src/producer/transaction/answers.rs`. After a change there:\n\
         `OTTLA_WRITE_DOCS=1 cargo test --lib answers_tests::document_matches_table`.\n\n\
         Each cell says what the producer does when a coordinator answers the code. *v1* is the protocol before KIP-890, *v2* the one\n\
         with the feature `transaction.version` at 2 or above; a cell without them holds for both.\n\n",
    );
    for (_, word, meaning) in LEGEND {
        text.push_str(&format!("- *{word}*: {meaning}.\n"));
    }
    let heads: Vec<_> = APIS.iter().map(|(_, name)| *name).collect();
    text.push_str(&format!("\n| code | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(APIS.len())));
    for (row, codes) in lines.iter().filter(|(row, _)| *row != unexpected) {
        let names: Vec<_> = codes.iter().map(|code| format!("{} ({})", code.name(), code.code())).collect();
        text.push_str(&format!("| {} | {row} |\n", names.join(", ")));
    }
    text.push_str(&format!("| all others, and codes that the client does not know | {unexpected} |\n"));
    let repeated: Vec<_> = APIS.iter().map(|(api, _)| word(after_repeats(*api))).collect();
    text.push_str(&format!("| one of these once more after five repeats | {} |\n", repeated.join(" | ")));
    text
}

#[test]
fn document_matches_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/transactions.md");
    let made = document();
    if std::env::var_os("OTTLA_WRITE_DOCS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
    assert!(
        stored == made,
        "docs/transactions.md is out of date: \
         run `OTTLA_WRITE_DOCS=1 cargo test --lib answers_tests::document_matches_table`"
    );
}

/// Returns each code of each API under both protocols, also a code that this client does not know.
fn all() -> impl Iterator<Item = (TransactionApi, ErrorCode, Protocol, Verdict)> {
    let codes = codes().chain([ErrorCode::new(9999)]);
    codes.flat_map(|code| {
        APIS.iter().flat_map(move |(api, _)| {
            [Protocol::V1, Protocol::V2].map(|protocol| (*api, code, protocol, verdict(*api, code, protocol)))
        })
    })
}

#[test]
fn every_code_keeps_general_rules() {
    let mut seen = 0;
    for (api, code, protocol, verdict) in all() {
        seen += 1;
        let context = format!("{api:?} {code:?} {protocol:?}: {verdict:?}");
        assert_eq!(verdict == Verdict::Done, code.is_ok(), "only success is success: {context}");
        let ends_producer = matches!(verdict, Verdict::Fatal | Verdict::Configuration | Verdict::Fenced);
        let is_topic = [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID].contains(&code);
        if code.is_retriable() && !is_topic {
            assert!(
                matches!(verdict, Verdict::Retry | Verdict::RetrySoon | Verdict::FindCoordinator),
                "retriable codes are repeated: {context}"
            );
        }
        if matches!(api, TransactionApi::TxnOffsetCommit) && verdict == Verdict::Fenced {
            assert!(code == ErrorCode::PRODUCER_FENCED || protocol == Protocol::V1, "{context}");
        }
        let is_fencing =
            [ErrorCode::PRODUCER_FENCED, ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::INVALID_PRODUCER_ID_MAPPING];
        if verdict == Verdict::Fenced {
            assert!(is_fencing.contains(&code), "{context}");
        }
        if !code.is_known() {
            assert!(!ends_producer && verdict == Verdict::RetryLimited, "{context}");
        }
        if verdict == Verdict::NothingToEnd || verdict == Verdict::Reset {
            assert_eq!(api, TransactionApi::EndTxnAbort, "{context}");
        }
    }
    assert_eq!(seen, (codes().count() + 1) * APIS.len() * 2);
}

#[test]
fn protocols_differ_in_four_cells() {
    let mut verdicts = BTreeMap::new();
    for (api, code, protocol, verdict) in all() {
        verdicts.entry((format!("{api:?}"), code)).or_insert_with(Vec::new).push((protocol, verdict));
    }
    let differing: Vec<_> = verdicts.into_iter().filter(|(_, pair)| pair[0].1 != pair[1].1).map(|(of, _)| of).collect();
    assert_eq!(
        differing,
        [
            ("EndTxnAbort".to_owned(), ErrorCode::INVALID_TXN_STATE),
            ("EndTxnCommit".to_owned(), ErrorCode::INVALID_TXN_STATE),
            ("TxnOffsetCommit".to_owned(), ErrorCode::INVALID_PRODUCER_EPOCH),
            ("TxnOffsetCommit".to_owned(), ErrorCode::INVALID_PRODUCER_ID_MAPPING),
        ]
    );
}

#[test]
fn worst_partition_decides_answer() {
    let order =
        [Verdict::Done, Verdict::OtherPartition, Verdict::Retry, Verdict::Abort, Verdict::Fenced, Verdict::Fatal];
    assert!(order.is_sorted());
}
