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
        metadata_merge::MetadataScope,
        metadata_plan::{MetadataPlan, PlanStep},
    },
    error::ErrorCode,
    wire::messages::{MetadataResponse, metadata_response::MetadataResponseTopic},
};

struct Fixture {
    plan: MetadataPlan,
    now: Instant,
}

impl Fixture {
    /// Creates a plan with an answered first request, which was for brokers only.
    fn new() -> Self {
        let plan = MetadataPlan::new(&ClientSettings::default(), StdRng::seed_from_u64(3));
        let mut it = Self { plan, now: Instant::now() };
        assert_eq!(it.plan.next(it.now), PlanStep::Ask(names(&[])));
        it.plan.succeeded(&names(&[]), &Metadata::default(), true, it.now);
        it
    }

    fn wait(&mut self) -> Duration {
        match self.plan.next(self.now) {
            PlanStep::Wait(until) => until - self.now,
            PlanStep::Ask(asked) => panic!("asks for {asked:?}"),
        }
    }

    fn ask(&mut self) -> MetadataScope {
        match self.plan.next(self.now) {
            PlanStep::Ask(MetadataScope::Topics(mut names)) => {
                names.sort();
                MetadataScope::Topics(names)
            }
            PlanStep::Ask(asked) => asked,
            PlanStep::Wait(until) => panic!("waits {:?}", until - self.now),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
}

fn names(names: &[&str]) -> MetadataScope {
    MetadataScope::Topics(names.iter().map(|name| Arc::from(*name)).collect())
}

fn metadata_with(topics: &[(&str, i32)]) -> Metadata {
    let topics = topics.iter().map(|(name, leader)| topic(name, &[(*leader, 1)])).collect();
    Metadata::default().merged(MetadataResponse { topics, ..brokers(&[1]) }, &MetadataScope::All, |_| true)
}

#[test]
fn requests_new_topic_immediately_and_alone() {
    let mut it = Fixture::new();
    assert_eq!(it.wait(), Duration::from_secs(300));
    assert!(it.plan.want(["a"], it.now));
    assert!(!it.plan.want(["a"], it.now));
    assert_eq!(it.ask(), names(&["a"]));
    it.plan.succeeded(&names(&["a"]), &metadata_with(&[("a", 1)]), true, it.now);
    it.plan.want(["b"], it.now);
    assert_eq!(it.ask(), names(&["b"]));
    it.plan.succeeded(&names(&["b"]), &metadata_with(&[("a", 1), ("b", 1)]), true, it.now);
    it.pass(300_000);
    it.plan.want(["a", "b"], it.now);
    assert_eq!(it.ask(), names(&["a", "b"]), "all of them when the metadata is too old");
}

#[test]
fn unchanged_metadata_slows_down_refreshes() {
    let mut it = Fixture::new();
    it.plan.want(["a"], it.now);
    let (asked, known) = (it.ask(), metadata_with(&[("a", 1)]));
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
    assert!(it.wait().as_millis() <= 120, "the backoff starts again after a quiet time");
}

#[test]
fn retries_topics_without_metadata_or_leader() {
    let mut it = Fixture::new();
    it.plan.want(["a", "b"], it.now);
    it.ask();
    it.plan.succeeded(&names(&["a", "b"]), &metadata_with(&[("a", 1)]), true, it.now);
    it.pass(200);
    assert_eq!(it.ask(), names(&["a", "b"]), "b is not in the metadata");
    it.plan.succeeded(&names(&["a", "b"]), &metadata_with(&[("a", 1), ("b", -1)]), true, it.now);
    it.pass(200);
    assert_eq!(it.ask(), names(&["a", "b"]), "b has no leader");
    let refused = MetadataResponseTopic { error_code: ErrorCode::TOPIC_AUTHORIZATION_FAILED.code(), ..topic("b", &[]) };
    let refused = metadata_with(&[("a", 1)]).merged(
        MetadataResponse { topics: vec![refused], ..brokers(&[1]) },
        &names(&["b"]),
        |_| true,
    );
    it.plan.succeeded(&names(&["a", "b"]), &refused, true, it.now);
    assert_eq!(it.wait(), Duration::from_secs(300), "waiting gives no rights");
}

#[test]
fn refresh_requested_during_refresh_is_not_lost() {
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
fn unused_topics_are_dropped_after_idle_time() {
    let mut it = Fixture::new();
    it.plan.want(["a", "b"], it.now);
    it.ask();
    it.plan.succeeded(&names(&["a", "b"]), &metadata_with(&[("a", 1), ("b", 1)]), true, it.now);
    it.pass(299_999);
    it.plan.want(["a"], it.now);
    it.pass(1);
    assert_eq!(it.ask(), names(&["a"]));
    assert!(it.plan.wants("a") && !it.plan.wants("b"));
}

#[test]
fn requests_unknown_topic_by_its_id() {
    let mut it = Fixture::new();
    let (id, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
    it.plan.want(["a"], it.now);
    it.ask();
    it.plan.succeeded(&names(&["a"]), &metadata_with(&[("a", 1)]), true, it.now);
    assert!(it.plan.want_ids(&[id]));
    assert!(!it.plan.want_ids(&[id]), "it is known to be wanted");
    assert_eq!(it.ask(), MetadataScope::Ids(vec![id]), "at once, and alone");
    it.plan.succeeded(&MetadataScope::Ids(vec![id]), &metadata_with(&[("a", 1)]), false, it.now);
    // The broker does not know the id yet: it is requested again with the other topics, at a
    // limited rate.
    for _ in 0..3 {
        let wait = it.wait();
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
        it.now += wait;
        assert_eq!(it.ask(), names(&["a"]));
        it.plan.succeeded(&names(&["a"]), &metadata_with(&[("a", 1)]), false, it.now);
        assert_eq!(it.ask(), MetadataScope::Ids(vec![id]));
        it.plan.succeeded(&MetadataScope::Ids(vec![id]), &metadata_with(&[("a", 1)]), false, it.now);
    }
    let it_wait = it.wait();
    it.now += it_wait;
    it.ask();
    it.plan.succeeded(&names(&["a"]), &metadata_with(&[("a", 1)]), false, it.now);
    it.ask();
    let found = MetadataResponseTopic { topic_id: id, ..topic("b", &[(1, 1)]) };
    let known = metadata_with(&[("a", 1)]).merged(
        MetadataResponse { topics: vec![found], ..brokers(&[1]) },
        &MetadataScope::Ids(vec![id]),
        |name| name == "a",
    );
    assert_eq!(known.names[&id], Arc::from("b"), "found, though not requested by name");
    it.plan.succeeded(&MetadataScope::Ids(vec![id]), &known, true, it.now);
    assert!(it.plan.wants("b"), "it is kept until it is wanted by name");
    assert_eq!(it.wait(), Duration::from_secs(300));
    // An id that is no longer wanted is not requested.
    it.plan.want_ids(&[other]);
    it.plan.want_ids(&[]);
    assert_eq!(it.wait(), Duration::from_secs(300));
}

#[test]
fn requests_all_topics_while_wanted() {
    let mut it = Fixture::new();
    it.plan.want(["a"], it.now);
    assert!(it.plan.want_all(true));
    assert!(!it.plan.want_all(true));
    assert_eq!(it.ask(), MetadataScope::All);
    it.plan.succeeded(&MetadataScope::All, &metadata_with(&[("a", 1), ("z", 1)]), true, it.now);
    assert!(it.plan.wants("z"));
    assert_eq!(it.wait(), Duration::from_secs(300));
    assert!(!it.plan.want_all(false));
    assert!(!it.plan.wants("z"));
    it.plan.refresh();
    it.pass(200);
    assert_eq!(it.ask(), names(&["a"]));
}

#[test]
fn failures_back_off_and_cause_rebootstrap() {
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
fn never_rebootstraps_when_strategy_is_none() {
    let settings = ClientSettings { metadata_rebootstrap_trigger: None, ..ClientSettings::default() };
    let mut plan = MetadataPlan::new(&settings, StdRng::seed_from_u64(3));
    plan.require_rebootstrap();
    assert!(!plan.take_rebootstrap() && !plan.may_rebootstrap());
}

#[test]
fn zero_max_age_is_still_paced() {
    let settings = ClientSettings { metadata_max_age: Duration::ZERO, ..ClientSettings::default() };
    let mut it = Fixture { plan: MetadataPlan::new(&settings, StdRng::seed_from_u64(3)), now: Instant::now() };
    for _ in 0..5 {
        it.ask();
        it.plan.succeeded(&names(&[]), &Metadata::default(), false, it.now);
        let wait = it.wait();
        assert!(wait >= Duration::from_millis(80), "{wait:?}");
        it.now += wait;
    }
}
