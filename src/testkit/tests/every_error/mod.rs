//! Each API that the client sends is answered with each error code, for ever, in every scenario in
//! which it is sent: no pair may spin, flood the log, or leave the user uninformed.
//!
//! The rows are in [`ROWS`]. An API that the client sends and that has no row fails
//! `every_sent_api_has_scenario_row`.
//!
//! Codes that the client's source does not name are told apart by the table of codes alone: one
//! code of each kind is played for all of the kind, and a pair is cut short once it has passed.
//! `OTTLA_EVERY_ERROR=all` plays every code, each for its whole minute.
//!
//! `scripts/every-error` writes the outcomes to `docs/every-error.md`.
//!
//! `OTTLA_EVERY_ERROR=Fetch:1 cargo test --lib every_error -- --nocapture` shows all that the user
//! saw of one pair.

mod codes;
mod ear;
mod excused;
mod hostile;
mod rows;
mod scenarios;
mod stage;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use crate::ErrorCode;
use ear::Ear;
use excused::{EXCUSED, FLOODS};
use hostile::HOSTILITIES;
use rows::{ROWS, Row};
use stage::{HEARD_WITHIN, Outcome, Setting};

/// Returns true if all codes are played, each for its whole minute, and not only those that the
/// client can tell apart.
fn plays_all() -> bool {
    std::env::var("OTTLA_EVERY_ERROR").is_ok_and(|what| what == "all")
}

/// Describes in a few words the rule that an outcome breaks, if any.
fn complaint(outcome: &Outcome) -> Option<String> {
    if outcome.hits == 0 {
        return Some("is not sent in this scenario".to_owned());
    }
    if outcome.spins() {
        return Some("spins".to_owned());
    }
    if outcome.floods() {
        return Some(format!("floods the log: {}", outcome.lines.1));
    }
    match outcome.heard_after() {
        None if outcome.works => None,
        None => Some("is silent".to_owned()),
        Some(after) if after > HEARD_WITHIN => Some("is silent for more than a minute".to_owned()),
        Some(_) => None,
    }
}

/// Plays all pairs of a scenario, and panics with a list of those that break a rule.
fn check(scenario: &str) {
    let ear = Ear::default();
    // If there is a single subscriber `tracing` assumes that all threads have it, so that a test in
    // another thread, which has none, would switch an event off for all: hence a second one.
    let _second = tracing::Dispatch::new(ear.clone());
    let _told = tracing::subscriber::set_default(ear.clone());
    let wanted = std::env::var("OTTLA_EVERY_ERROR").ok();
    let mut met = BTreeSet::new();
    let mut complaints: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in ROWS.iter().filter(|row| row.scenario == scenario) {
        let mut told = BTreeMap::<String, Vec<String>>::new();
        let mut outcomes = Vec::new();
        for code in codes::played(wanted.is_some()) {
            let pair = format!("{}:{}", row.api, code.code());
            if wanted.as_ref().is_some_and(|wanted| *wanted != pair && wanted != "all") {
                continue;
            }
            let mut outcome = play(row, code, &ear);
            // Clients choose their backoffs at random: a pair fails only if it does so twice.
            if complaint(&outcome).is_some() {
                outcome = play(row, code, &ear);
            }
            let complaint = complaint(&outcome);
            if wanted.as_ref().is_some_and(|wanted| wanted != "all") {
                eprintln!("{scenario}, {row:?} {code:?}: {complaint:?}\n{outcome:#?}\n{}", outcome.transcript);
            }
            if let Some(complaint) = &complaint
                && let Some(excused) = EXCUSED.iter().find(|excused| excused.covers(row, complaint))
            {
                met.insert(excused.why);
            } else if let Some(complaint) = complaint {
                let what = format!("{} {}: {complaint}", row.name(), row.place.name());
                told.entry(what).or_default().push(code.to_string());
            }
            outcomes.push((code, outcome));
        }
        if std::env::var_os("OTTLA_EVERY_ERROR_TABLE").is_some() {
            print!("{}", table::lines(row, &outcomes));
        }
        complaints.extend(told);
    }
    let idle = EXCUSED.iter().filter(|excused| excused.scenarios.contains(&scenario) && !met.contains(excused.why));
    let idle: Vec<_> = idle.map(|excused| excused.why).collect();
    if !idle.is_empty() && wanted.is_none() {
        eprintln!("{scenario}: no pair needs this excuse any more, remove it from the list: {idle:?}");
    }
    let count: usize = complaints.values().map(Vec::len).sum();
    let told: String = complaints
        .iter()
        .map(|(what, codes)| format!("\n  {what}\n    ({}) {}", codes.len(), codes.join(" ")))
        .collect();
    assert!(complaints.is_empty(), "{scenario}: {count} pairs break a rule:{told}");
}

fn play(row: &'static Row, code: ErrorCode, ear: &Ear) -> Outcome {
    let setting = Setting {
        options: (row.options)(),
        fault: Box::new(move |cluster| (Some(row.fault(code)), cluster.network())),
        play: row.play,
        words: codes::words(code),
        work_counts: row.work_counts(),
        whole: plays_all(),
    };
    stage::play(&setting, ear)
}

/// Compares the client's own list of the APIs that it sends with the rows, and checks that each API
/// of the list is sent in a scenario without a fault.
#[test]
fn every_sent_api_has_scenario_row() {
    let source = include_str!("../../../cluster/versions.rs");
    let list = source.split("const SENT: &[ApiKey] = &[").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let sent: BTreeSet<String> =
        list.split("ApiKey::").skip(1).map(|rest| rest.chars().take_while(|c| c.is_alphanumeric()).collect()).collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.api.to_string()).collect();
    assert_eq!(sent, rows, "cluster/versions.rs lists what is sent, and rows.rs plays it");
    let ear = Ear::default();
    let mut seen = BTreeSet::new();
    let scenarios: BTreeMap<_, _> = ROWS.iter().map(|row| (row.scenario, row)).collect();
    for row in scenarios.values() {
        let setting = Setting {
            options: (row.options)(),
            fault: Box::new(|cluster| (None, cluster.network())),
            play: row.play,
            words: Vec::new(),
            work_counts: false,
            whole: true,
        };
        let outcome = stage::play(&setting, &ear);
        assert!(!outcome.spins(), "{}: {} requests in a minute without a fault", row.scenario, outcome.requests);
        seen.extend(outcome.by_api.keys().map(ToString::to_string));
    }
    assert_eq!(seen, sent, "APIs that were sent without a fault");
}

/// Plays the brokers that misbehave in other ways.
#[test]
fn hostile_brokers_neither_spin_nor_silence() {
    let ear = Ear::default();
    let _second = tracing::Dispatch::new(ear.clone());
    let _told = tracing::subscriber::set_default(ear.clone());
    let wanted = std::env::var("OTTLA_HOSTILE").ok();
    let mut complaints = Vec::new();
    for hostility in HOSTILITIES {
        if wanted.as_ref().is_some_and(|wanted| wanted != hostility.name) {
            continue;
        }
        let setting = Setting {
            options: crate::testkit::Options::new(),
            fault: Box::new(hostility.make),
            play: hostility.play,
            words: hostility.word.iter().map(|word| (*word).to_owned()).collect(),
            work_counts: hostility.word.is_none(),
            whole: true,
        };
        let mut outcome = stage::play(&setting, &ear);
        if wanted.is_some() {
            eprintln!("{}: {outcome:#?}\n{}", hostility.name, outcome.transcript);
        }
        // A network that changes responses does not count them.
        outcome.hits = outcome.hits.max(1);
        let complaint = complaint(&outcome);
        let is_silence = outcome.heard_after().is_none_or(|after| after > HEARD_WITHIN);
        let is_loud = outcome.spins() || outcome.floods();
        let excused = FLOODS.contains(&hostility.name) && outcome.floods() && !outcome.spins();
        let keeps_quiet = hostility.word.is_none() && is_silence && !is_loud;
        if let Some(complaint) = complaint
            && !excused
            && !keeps_quiet
        {
            complaints.push(format!("{}: {complaint} ({} requests)", hostility.name, outcome.requests));
        }
    }
    assert!(complaints.is_empty(), "\n  {}", complaints.join("\n  "));
}

macro_rules! scenarios {
    ($($scenario:ident),* $(,)?) => {
        $(
            #[test]
            fn $scenario() {
                check(stringify!($scenario));
            }
        )*

        #[test]
        fn every_scenario_of_the_rows_is_played() {
            let played = [$(stringify!($scenario)),*];
            let missing: Vec<_> = ROWS.iter().filter(|row| !played.contains(&row.scenario)).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    };
}

scenarios!(
    idempotent_producer,
    transactional_producer,
    transactional_producer_of_first_protocol,
    plain_producer,
    producer_without_acks,
    authenticated_producer,
    assigned_consumer,
    consumer_behind_elections,
    assigned_consumer_with_group,
    classic_member,
    static_classic_member,
    consumer_protocol_member,
    static_consumer_protocol_member,
    calls_of_consumer,
    admin,
);
