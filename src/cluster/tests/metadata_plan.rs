use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::peer::{brokers, topic};
use crate::{
    cluster::{
        ClientSettings, Metadata,
        metadata_merge::Asked,
        metadata_plan::{Plan, Step},
    },
    error::ErrorCode,
    wire::messages::{MetadataResponse, metadata_response::MetadataResponseTopic},
};

struct Fixture {
    plan: Plan,
    now: Instant,
}

impl Fixture {
    /// A plan whose first question, for brokers only, was answered.
    fn new() -> Self {
        let plan = Plan::new(&ClientSettings::default(), StdRng::seed_from_u64(3));
        let mut it = Self { plan, now: Instant::now() };
        assert_eq!(it.plan.next(it.now), Step::Ask(names(&[])));
        it.plan.succeeded(&names(&[]), &Metadata::default(), true, it.now);
        it
    }

    fn wait(&mut self) -> Duration {
        match self.plan.next(self.now) {
            Step::Wait(until) => until - self.now,
            Step::Ask(asked) => panic!("asks for {asked:?}"),
        }
    }

    fn ask(&mut self) -> Asked {
        match self.plan.next(self.now) {
            Step::Ask(Asked::Topics(mut names)) => {
                names.sort();
                Asked::Topics(names)
            }
            Step::Ask(asked) => asked,
            Step::Wait(until) => panic!("waits {:?}", until - self.now),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
}

fn names(names: &[&str]) -> Asked {
    Asked::Topics(names.iter().map(|name| Arc::from(*name)).collect())
}

fn picture(topics: &[(&str, i32)]) -> Metadata {
    let topics = topics.iter().map(|(name, leader)| topic(name, &[(*leader, 1)])).collect();
    Metadata::default().merged(MetadataResponse { topics, ..brokers(&[1]) }, &Asked::All, |_| true)
}

#[test]
fn a_new_topic_is_asked_for_at_once_and_alone() {
    let mut it = Fixture::new();
    assert_eq!(it.wait(), Duration::from_secs(300));
    assert!(it.plan.want(["a"], it.now));
    assert!(!it.plan.want(["a"], it.now));
    assert_eq!(it.ask(), names(&["a"]));
    it.plan.succeeded(&names(&["a"]), &picture(&[("a", 1)]), true, it.now);
    it.plan.want(["b"], it.now);
    assert_eq!(it.ask(), names(&["b"]));
    it.plan.succeeded(&names(&["b"]), &picture(&[("a", 1), ("b", 1)]), true, it.now);
    it.pass(300_000);
    it.plan.want(["a", "b"], it.now);
    assert_eq!(it.ask(), names(&["a", "b"]), "all of them when the picture is too old");
}

#[test]
fn refreshes_are_paced_and_slow_down_while_they_bring_nothing() {
    let mut it = Fixture::new();
    it.plan.want(["a"], it.now);
    let (asked, known) = (it.ask(), picture(&[("a", 1)]));
    it.plan.succeeded(&asked, &known, true, it.now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert!(it.plan.refresh());
        assert!(!it.plan.refresh(), "once is enough");
        let wait = it.wait();
        waits.push(wait.as_millis());
        it.now += wait;
        assert_eq!(it.ask(), names(&["a"]));
        it.plan.succeeded(&names(&["a"]), &known, false, it.now);
    }
    assert!((80..=120).contains(&waits[0]) && waits[5] >= 800, "{waits:?}");
    it.pass(10_000);
    it.plan.refresh();
    it.ask();
    it.plan.succeeded(&names(&["a"]), &known, false, it.now);
    it.plan.refresh();
    assert!(it.wait().as_millis() <= 120, "after a calm time it starts anew");
}

#[test]
fn what_is_not_settled_is_asked_again_unbidden() {
    let mut it = Fixture::new();
    it.plan.want(["a", "b"], it.now);
    it.ask();
    it.plan.succeeded(&names(&["a", "b"]), &picture(&[("a", 1)]), true, it.now);
    it.pass(200);
    assert_eq!(it.ask(), names(&["a", "b"]), "b is not in the picture");
    it.plan.succeeded(&names(&["a", "b"]), &picture(&[("a", 1), ("b", -1)]), true, it.now);
    it.pass(200);
    assert_eq!(it.ask(), names(&["a", "b"]), "b has no leader");
    let refused = MetadataResponseTopic { error_code: ErrorCode::TOPIC_AUTHORIZATION_FAILED.code(), ..topic("b", &[]) };
    let refused = picture(&[("a", 1)]).merged(
        MetadataResponse { topics: vec![refused], ..brokers(&[1]) },
        &names(&["b"]),
        |_| true,
    );
    it.plan.succeeded(&names(&["a", "b"]), &refused, true, it.now);
    assert_eq!(it.wait(), Duration::from_secs(300), "waiting gives no rights");
}

#[test]
fn a_refresh_that_is_wanted_while_one_is_under_way_is_not_lost() {
    let mut it = Fixture::new();
    it.plan.refresh();
    it.pass(200);
    it.ask();
    it.plan.refresh();
    it.plan.succeeded(&names(&[]), &Metadata::default(), false, it.now);
    it.pass(400);
    it.ask();
}

#[test]
fn topics_that_nobody_uses_are_dropped() {
    let mut it = Fixture::new();
    it.plan.want(["a", "b"], it.now);
    it.ask();
    it.plan.succeeded(&names(&["a", "b"]), &picture(&[("a", 1), ("b", 1)]), true, it.now);
    it.pass(299_999);
    it.plan.want(["a"], it.now);
    it.pass(1);
    assert_eq!(it.ask(), names(&["a"]));
    assert!(it.plan.wants("a") && !it.plan.wants("b"));
}

#[test]
fn a_topic_is_asked_for_by_its_id_until_its_name_is_known() {
    let mut it = Fixture::new();
    let (id, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
    it.plan.want(["a"], it.now);
    it.ask();
    it.plan.succeeded(&names(&["a"]), &picture(&[("a", 1)]), true, it.now);
    assert!(it.plan.want_ids(&[id]));
    assert!(!it.plan.want_ids(&[id]), "it is known to be wanted");
    assert_eq!(it.ask(), Asked::Ids(vec![id]), "at once, and alone");
    it.plan.succeeded(&Asked::Ids(vec![id]), &picture(&[("a", 1)]), false, it.now);
    // The broker does not know it yet: with the rest of the picture, and paced.
    for _ in 0..3 {
        let wait = it.wait();
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
        it.now += wait;
        assert_eq!(it.ask(), names(&["a"]));
        it.plan.succeeded(&names(&["a"]), &picture(&[("a", 1)]), false, it.now);
        assert_eq!(it.ask(), Asked::Ids(vec![id]));
        it.plan.succeeded(&Asked::Ids(vec![id]), &picture(&[("a", 1)]), false, it.now);
    }
    let it_wait = it.wait();
    it.now += it_wait;
    it.ask();
    it.plan.succeeded(&names(&["a"]), &picture(&[("a", 1)]), false, it.now);
    it.ask();
    let found = MetadataResponseTopic { topic_id: id, ..topic("b", &[(1, 1)]) };
    let known = picture(&[("a", 1)]).merged(
        MetadataResponse { topics: vec![found], ..brokers(&[1]) },
        &Asked::Ids(vec![id]),
        |name| name == "a",
    );
    assert_eq!(known.names[&id], Arc::from("b"), "found, though nobody asked for it by name");
    it.plan.succeeded(&Asked::Ids(vec![id]), &known, true, it.now);
    assert!(it.plan.wants("b"), "it is kept until somebody wants it by name");
    assert_eq!(it.wait(), Duration::from_secs(300));
    // One that is no longer looked for is not.
    it.plan.want_ids(&[other]);
    it.plan.want_ids(&[]);
    assert_eq!(it.wait(), Duration::from_secs(300));
}

#[test]
fn all_topics_are_asked_for_until_no_longer() {
    let mut it = Fixture::new();
    it.plan.want(["a"], it.now);
    assert!(it.plan.want_all(true));
    assert!(!it.plan.want_all(true));
    assert_eq!(it.ask(), Asked::All);
    it.plan.succeeded(&Asked::All, &picture(&[("a", 1), ("z", 1)]), true, it.now);
    assert!(it.plan.wants("z"));
    assert_eq!(it.wait(), Duration::from_secs(300));
    assert!(!it.plan.want_all(false));
    assert!(!it.plan.wants("z"));
    it.plan.refresh();
    it.pass(200);
    assert_eq!(it.ask(), names(&["a"]));
}

#[test]
fn failures_back_off_even_for_new_topics_and_lead_back_to_the_bootstrap_addresses() {
    let mut it = Fixture::new();
    let mut failures = 0;
    let began = it.now;
    it.plan.refresh();
    it.pass(200);
    while !it.plan.take_rebootstrap() {
        assert!(it.now < began + Duration::from_secs(302), "not after {failures} failures");
        it.ask();
        it.plan.failed(it.now);
        failures += 1;
        it.plan.want(["new"], it.now);
        let wait = it.wait();
        assert!(wait <= Duration::from_secs(1));
        it.now += wait;
    }
    assert!(it.now >= began + Duration::from_secs(300));
    assert!(!it.plan.take_rebootstrap(), "once, until the trigger's time has passed again");
    assert!((300..500).contains(&failures), "{failures}");
}

#[test]
fn without_the_strategy_there_is_no_way_back() {
    let settings = ClientSettings { metadata_rebootstrap_trigger: None, ..ClientSettings::default() };
    let mut plan = Plan::new(&settings, StdRng::seed_from_u64(3));
    plan.require_rebootstrap();
    assert!(!plan.take_rebootstrap() && !plan.may_rebootstrap());
}

#[test]
fn an_age_of_zero_is_paced_all_the_same() {
    let settings = ClientSettings { metadata_max_age: Duration::ZERO, ..ClientSettings::default() };
    let mut it = Fixture { plan: Plan::new(&settings, StdRng::seed_from_u64(3)), now: Instant::now() };
    for _ in 0..5 {
        it.ask();
        it.plan.succeeded(&names(&[]), &Metadata::default(), false, it.now);
        let wait = it.wait();
        assert!(wait >= Duration::from_millis(80), "{wait:?}");
        it.now += wait;
    }
}
