//! Small histories of each anomaly, and the nearest ones without it.

mod common;

use common::*;
use history::{Event, Kind, Outcome};

fn all(parts: impl IntoIterator<Item = Vec<Event>>) -> Vec<Event> {
    parts.into_iter().flatten().collect()
}

/// Records `a` and `b` that were acknowledged, without a transaction.
fn plain() -> Vec<Event> {
    ["a", "b"]
        .iter()
        .zip(0..)
        .flat_map(|(value, at)| [send("p", None, 0, value), acknowledged("p", 0, at, value)])
        .collect()
}

#[test]
fn acknowledged_record_before_seen_offset_is_lost() {
    expect(all([plain(), vec![log("t", 0, &[(0, "a"), (1, "b")])]]), &[]);
    expect(all([plain(), vec![poll("c", 0, &[(0, "a"), (1, "b")])]]), &[]);
    expect(all([plain(), vec![log("t", 0, &[(1, "b")])]]), &[(Kind::Lost, 1)]);
    expect(all([plain(), vec![poll("c", 0, &[(1, "b")])]]), &[(Kind::Lost, 1)]);
    // Received once, and gone at the end.
    let received = vec![poll("c", 0, &[(0, "a")]), log("t", 0, &[(1, "b")])];
    expect(all([plain(), received]), &[(Kind::Lost, 1)]);
    let unacknowledged = vec![send("p", None, 0, "a"), unknown("p", "a"), log("t", 0, &[])];
    expect(unacknowledged, &[]);
    expect(vec![send("p", None, 0, "a"), log("t", 0, &[])], &[]);
}

#[test]
fn acknowledged_record_at_end_is_unseen() {
    expect(all([plain(), vec![log("t", 0, &[(0, "a")])]]), &[(Kind::Unseen, 1)]);
    expect(plain(), &[(Kind::Unseen, 2)]);
    let transaction = committed("p", "x", &[(0, 0, "a")]);
    expect(all([transaction, vec![log("t", 0, &[])]]), &[(Kind::Unseen, 1)]);
}

#[test]
fn value_at_two_offsets_is_duplicated() {
    let twice = vec![log("t", 0, &[(0, "a"), (1, "b"), (2, "a")])];
    expect(all([plain(), twice]), &[(Kind::Duplicated, 1), (Kind::Unwritten, 1)]);
    // The value of an aborted transaction may be sent again.
    let again = all([
        open("p", "x", &[(0, 0, "a")]),
        vec![outcome("x", Outcome::Aborted)],
        committed("p", "y", &[(0, 2, "a")]),
        vec![uncommitted(poll("c", 0, &[(0, "a"), (2, "a")])), log("t", 0, &[(2, "a")])],
    ]);
    expect(again, &[]);
    let both = all([
        committed("p", "x", &[(0, 0, "a")]),
        committed("p", "y", &[(0, 2, "a")]),
        vec![log("t", 0, &[(0, "a"), (2, "a")])],
    ]);
    expect(both, &[(Kind::Duplicated, 1)]);
}

#[test]
fn value_sent_twice_before_report_is_duplicated() {
    let mut events = vec![send("p", None, 0, "a"), send("p", None, 0, "a")];
    events.extend([acknowledged("p", 0, 0, "a"), acknowledged("p", 0, 1, "a"), log("t", 0, &[(0, "a"), (1, "a")])]);
    expect(events, &[(Kind::Duplicated, 1)]);
}

#[test]
fn record_that_was_not_sent_is_unwritten() {
    let other = vec![log("t", 0, &[(0, "a"), (1, "b"), (2, "c")])];
    expect(all([plain(), other]), &[(Kind::Unwritten, 1)]);
    // Without events of producers, nothing is known about writes.
    expect(vec![log("t", 0, &[(0, "a")])], &[]);
}

#[test]
fn offset_with_two_values_is_anomaly() {
    let polled = vec![poll("c", 0, &[(0, "a")]), poll("d", 0, &[(0, "b")])];
    expect(polled, &[(Kind::TwoValues, 1)]);
    let mut acknowledged_twice = plain();
    acknowledged_twice.extend([send("q", None, 0, "c"), acknowledged("q", 0, 1, "c")]);
    acknowledged_twice.push(log("t", 0, &[(0, "a"), (1, "b")]));
    expect(acknowledged_twice, &[(Kind::Unseen, 1), (Kind::TwoValues, 1)]);
}

#[test]
fn visible_record_of_aborted_transaction_is_g1a() {
    let aborted = all([open("p", "x", &[(0, 0, "a")]), vec![commit("x"), outcome("x", Outcome::Aborted)]]);
    expect(all([aborted.clone(), vec![poll("c", 0, &[(0, "a")])]]), &[(Kind::AbortedRead, 1)]);
    expect(all([aborted.clone(), vec![log("t", 0, &[(0, "a")])]]), &[(Kind::AbortedRead, 1)]);
    expect(all([aborted.clone(), vec![uncommitted(poll("c", 0, &[(0, "a")]))]]), &[]);
    expect(all([aborted, vec![log("t", 0, &[])]]), &[]);
    // A transaction of a client that ended before its commit.
    let never = open("p", "x", &[(0, 0, "a")]);
    expect(all([never, vec![log("t", 0, &[(0, "a")])]]), &[(Kind::AbortedRead, 1)]);
    let unknown = all([open("p", "x", &[(0, 0, "a")]), vec![commit("x")]]);
    expect(all([unknown.clone(), vec![log("t", 0, &[(0, "a")])]]), &[]);
    expect(all([unknown, vec![log("t", 0, &[])]]), &[]);
}

#[test]
fn visible_record_that_failed_is_g1a() {
    let events = |value| vec![send("p", None, 0, "a"), failed("p", "a"), log("t", 0, value)];
    expect(events(&[(0, "a")]), &[(Kind::AbortedRead, 1)]);
    expect(events(&[]), &[]);
}

#[test]
fn partly_visible_transaction_is_g1b() {
    let transaction = committed("p", "x", &[(0, 0, "a"), (1, 0, "b")]);
    let whole = vec![log("t", 0, &[(0, "a")]), log("t", 1, &[(0, "b")])];
    expect(all([transaction.clone(), whole]), &[]);
    let part = vec![log("t", 0, &[(0, "a")]), log("t", 1, &[])];
    expect(all([transaction, part.clone()]), &[(Kind::Unseen, 1), (Kind::IntermediateRead, 1)]);
    let unknown = all([open("p", "x", &[(0, 0, "a"), (1, 0, "b")]), vec![commit("x"), outcome("x", Outcome::Unknown)]]);
    expect(all([unknown.clone(), part]), &[(Kind::IntermediateRead, 1)]);
    expect(all([unknown, vec![log("t", 0, &[]), log("t", 1, &[])]]), &[]);
}

#[test]
fn committed_transaction_with_failed_record_is_found() {
    let mut events = vec![begin("p", "x"), send("p", Some("x"), 0, "a"), failed("p", "a")];
    events.extend([commit("x"), outcome("x", Outcome::Committed), log("t", 0, &[])]);
    expect(events, &[(Kind::Lost, 1)]);
}

#[test]
fn producers_records_in_other_order_are_reordered() {
    let events = |offsets: [i64; 2]| {
        let mut events = vec![send("p", None, 0, "a"), send("p", None, 0, "b")];
        events.extend([acknowledged("p", 0, offsets[0], "a"), acknowledged("p", 0, offsets[1], "b")]);
        let mut records = [(offsets[0], "a"), (offsets[1], "b")];
        records.sort_unstable();
        events.push(log("t", 0, &records));
        events
    };
    expect(events([0, 1]), &[]);
    expect(events([1, 0]), &[(Kind::Reordered, 1)]);
}

#[test]
fn poll_over_visible_record_is_skip() {
    let whole = log("t", 0, &[(0, "a"), (1, "b"), (5, "c")]);
    expect(vec![poll("c", 0, &[(0, "a"), (1, "b")]), poll("c", 0, &[(5, "c")]), whole.clone()], &[]);
    expect(vec![poll("c", 0, &[(0, "a")]), poll("c", 0, &[(5, "c")]), whole.clone()], &[(Kind::SkippedPoll, 1)]);
    expect(vec![seek("c", 0, Some(0)), poll("c", 0, &[(1, "b")]), whole.clone()], &[(Kind::SkippedPoll, 1)]);
    expect(vec![poll("c", 0, &[(1, "b")]), whole.clone()], &[]);
    expect(vec![poll("c", 0, &[(0, "a")]), seek("c", 0, None), poll("c", 0, &[(5, "c")]), whole], &[]);
}

#[test]
fn poll_of_earlier_offset_is_nonmonotonic() {
    let again = vec![poll("c", 0, &[(0, "a"), (1, "b")]), poll("c", 0, &[(1, "b")])];
    expect(again, &[(Kind::NonmonotonicPoll, 1)]);
    let sought = vec![poll("c", 0, &[(0, "a"), (1, "b")]), seek("c", 0, Some(1)), poll("c", 0, &[(1, "b")])];
    expect(sought, &[]);
    let others = vec![poll("c", 0, &[(0, "a"), (1, "b")]), poll("d", 0, &[(0, "a")])];
    expect(others, &[]);
}

/// Two transactions that write keys `k` and `l`, in opposite orders if `crossed`.
fn keys(crossed: bool) -> Vec<Event> {
    let mut events = vec![begin("p", "x"), begin("q", "y")];
    let order = if crossed { [2, 0] } else { [0, 2] };
    let writes =
        [("p", "x", "a", 0, 0), ("q", "y", "b", 0, 2), ("p", "x", "c", 1, order[0]), ("q", "y", "d", 1, order[1])];
    for (client, transaction, value, partition, offset) in writes {
        let key = if partition == 0 { "k" } else { "l" };
        events.push(with_key(send(client, Some(transaction), partition, value), key));
        events.push(acknowledged(client, partition, offset, value));
    }
    for transaction in ["x", "y"] {
        events.extend([commit(transaction), outcome(transaction, Outcome::Committed)]);
    }
    let mut second = [(order[0], "c"), (order[1], "d")];
    second.sort_unstable();
    events.extend([log("t", 0, &[(0, "a"), (2, "b")]), log("t", 1, &second)]);
    events
}

#[test]
fn keys_written_in_opposite_orders_are_g0() {
    expect(keys(false), &[]);
    expect(keys(true), &[(Kind::WriteCycle, 1)]);
    // Without keys, Kafka interleaves transactions.
    let mut without = keys(true);
    for event in &mut without {
        if let Event::Send { key, .. } = event {
            *key = None;
        }
    }
    expect(without, &[]);
}

#[test]
fn transactions_that_read_each_other_are_g1c() {
    let events = |back: bool| {
        let mut events = all([open("p", "x", &[(0, 0, "a")]), open("q", "y", &[(1, 0, "b")])]);
        events.push(inside(poll("c", 0, &[(0, "a")]), "y"));
        if back {
            events.push(inside(poll("d", 1, &[(0, "b")]), "x"));
        }
        for transaction in ["x", "y"] {
            events.extend([commit(transaction), outcome(transaction, Outcome::Committed)]);
        }
        events.extend([log("t", 0, &[(0, "a")]), log("t", 1, &[(0, "b")])]);
        events
    };
    expect(events(false), &[]);
    expect(events(true), &[(Kind::ReadCycle, 1)]);
}

#[test]
fn read_before_earlier_version_of_key_is_g1c() {
    // `y` reads from `x`, and writes the version before the one of `x`.
    let mut events = vec![begin("p", "x"), begin("q", "y")];
    for (client, transaction, value, offset) in [("p", "x", "a", 2), ("q", "y", "b", 0)] {
        events.push(with_key(send(client, Some(transaction), 0, value), "k"));
        events.push(acknowledged(client, 0, offset, value));
    }
    events.push(inside(poll("c", 0, &[(2, "a")]), "y"));
    for transaction in ["x", "y"] {
        events.extend([commit(transaction), outcome(transaction, Outcome::Committed)]);
    }
    events.push(log("t", 0, &[(0, "b"), (2, "a")]));
    let verdict = judge(events.clone());
    assert!(verdict.to_string().contains("x wrote a that was read by y wrote k before x"), "{verdict}");
    expect(events, &[(Kind::ReadCycle, 1)]);
}

#[test]
fn stable_offset_before_end_is_hanging() {
    expect(vec![log_end("t", 0, 5, 5)], &[]);
    expect(vec![log_end("t", 0, 4, 5)], &[(Kind::Hanging, 1)]);
}

/// A copier that copied `a` and `b` of topic `i` to `t` in one transaction, then `c` in another.
fn copier(first: i64, second: i64) -> Vec<Event> {
    let mut events = vec![begin("p", "x")];
    for (value, at) in [("a", 0), ("b", 1)] {
        events.extend([send("p", Some("x"), 0, value), acknowledged("p", 0, at, value)]);
    }
    events.extend([offset("x", "i", 0, first), commit("x"), outcome("x", Outcome::Committed), begin("p", "y")]);
    events.extend([send("p", Some("y"), 0, "c"), acknowledged("p", 0, 3, "c")]);
    events.extend([offset("y", "i", 0, second), commit("y"), outcome("y", Outcome::Committed), copy("i", "t")]);
    events.extend([log("i", 0, &[(0, "a"), (1, "b"), (2, "c")]), log("t", 0, &[(0, "a"), (1, "b"), (3, "c")])]);
    events
}

#[test]
fn offsets_without_their_outputs_are_found() {
    expect(copier(2, 3), &[]);
    expect(copier(1, 3), &[(Kind::OffsetsWithoutOutputs, 1)]);
    expect(copier(3, 3), &[(Kind::OffsetsWithoutOutputs, 1)]);
    expect(copier(2, 2), &[(Kind::OffsetsWithoutOutputs, 1)]);
    // A transaction of offsets alone moves them only over records that were copied before.
    let mut empty = copier(2, 3);
    empty.splice(0..0, [begin("q", "w"), offset("w", "i", 0, 2), commit("w"), outcome("w", Outcome::Committed)]);
    expect(empty, &[(Kind::OffsetsWithoutOutputs, 1)]);
    let mut empty = copier(2, 3);
    empty.extend([begin("q", "w"), offset("w", "i", 0, 3), commit("w"), outcome("w", Outcome::Committed)]);
    expect(empty, &[]);
}

#[test]
fn committed_offset_must_match_copies() {
    let events = |offset| all([copier(2, 3), vec![committed_offset("i", 0, offset)]]);
    expect(events(3), &[]);
    expect(events(2), &[(Kind::CommittedOffset, 1)]);
    let ahead = vec![copy("i", "t"), log("i", 0, &[(0, "a")]), log("t", 0, &[]), committed_offset("i", 0, 1)];
    expect(ahead, &[(Kind::MissingCopy, 1), (Kind::CommittedOffset, 1)]);
}

#[test]
fn output_must_equal_input() {
    let events = |output: &[(i64, &str)]| vec![copy("i", "t"), log("i", 0, &[(0, "a"), (1, "b")]), log("t", 0, output)];
    expect(events(&[(0, "a"), (4, "b")]), &[]);
    expect(events(&[(0, "a")]), &[(Kind::MissingCopy, 1)]);
    expect(events(&[(0, "a"), (1, "b"), (2, "c")]), &[(Kind::ExtraCopy, 1)]);
    expect(events(&[(0, "a"), (1, "b"), (2, "b")]), &[(Kind::Duplicated, 1), (Kind::ExtraCopy, 1)]);
    expect(events(&[(0, "b"), (1, "a")]), &[(Kind::ReorderedCopy, 1)]);
}
