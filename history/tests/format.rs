//! The format: which lines are read, and which are refused.

use history::{Event, Isolation, Outcome, ReadError, check, read};

#[test]
fn lines_of_readme_are_read() {
    let readme = include_str!("../README.md");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("{\"type\"")).collect();
    assert!(lines.len() >= 15, "one example for each type of event");
    let history = read(lines.join("\n").as_bytes()).expect("the example of the README");
    let verdict = check(&history);
    assert!(verdict.valid, "{verdict}");
}

#[test]
fn events_keep_their_form() {
    for (event, text) in [
        (Event::History { version: 1 }, r#"{"type":"history","version":1}"#),
        (
            Event::Poll {
                client: "c".to_owned(),
                isolation: Isolation::ReadCommitted,
                topic: "t".to_owned(),
                partition: 0,
                transaction: None,
                records: vec![(3, "a".to_owned())],
            },
            r#"{"type":"poll","client":"c","isolation":"read_committed","topic":"t","partition":0,"records":[[3,"a"]]}"#,
        ),
        (
            Event::Outcome { transaction: "x".to_owned(), outcome: Outcome::Unknown },
            r#"{"type":"outcome","transaction":"x","outcome":"unknown"}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&event).expect("JSON"), text);
        assert_eq!(serde_json::from_str::<Event>(text).expect("an event"), event);
    }
}

#[test]
fn malformed_lines_are_refused_with_their_number() {
    let first = r#"{"type":"history","version":1}"#;
    let begin = r#"{"type":"begin","client":"p","transaction":"x"}"#;
    let send = r#"{"type":"send","client":"p","topic":"t","value":"a"}"#;
    let failed = r#"{"type":"failed","client":"p","topic":"t","value":"a"}"#;
    for (lines, number, reason) in [
        (vec![], 1, "empty"),
        (vec![begin], 1, "begins with"),
        (vec![r#"{"type":"history","version":2}"#], 1, "version 2"),
        (vec![first, "", "no JSON"], 3, "expected"),
        (vec![first, r#"{"type":"share_acknowledge"}"#], 2, "unknown variant"),
        (vec![first, r#"{"type":"note","text":"x","more":1}"#], 2, "unknown field"),
        (vec![first, begin, begin], 3, "second transaction"),
        (vec![first, r#"{"type":"commit","transaction":"x"}"#], 2, "has not begun"),
        (vec![first, begin, r#"{"type":"outcome","transaction":"x","outcome":"committed"}"#], 3, "without a commit"),
        (vec![first, send, failed, failed], 4, "it has a report"),
        (vec![first, failed], 2, "not sent"),
        (vec![first, r#"{"type":"log","topic":"t","partition":0,"records":[[1,"a"],[1,"b"]]}"#], 2, "increase"),
    ] {
        match read(lines.join("\n").as_bytes()) {
            Err(ReadError::Malformed(malformed)) => {
                assert_eq!(malformed.line, number, "{malformed}");
                assert!(malformed.reason.contains(reason), "{malformed}, expected {reason}");
            }
            other => panic!("{lines:?}: {other:?}"),
        }
    }
}
