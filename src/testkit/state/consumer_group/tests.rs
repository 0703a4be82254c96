use std::time::{Duration, Instant};

use uuid::Uuid;

use super::*;

const SESSION: Duration = Duration::from_secs(45);
const REBALANCE: Duration = Duration::from_secs(60);
const SETTINGS: ConsumerGroupSettings = ConsumerGroupSettings {
    heartbeat_interval: Duration::from_secs(5),
    session_timeout: SESSION,
    max_size: 4,
    migrates: true,
};
const T: Uuid = Uuid::from_u128(1);

struct World {
    group: ConsumerGroup,
    metadata: Picture,
    now: Instant,
}

fn identity(id: &str) -> MemberIdentity {
    MemberIdentity { member_id: id.to_owned(), instance: None }
}

fn all(partitions: impl IntoIterator<Item = i32>) -> Held {
    let partitions: BTreeSet<i32> = partitions.into_iter().collect();
    if partitions.is_empty() { Held::new() } else { Held::from([(T, partitions)]) }
}

impl World {
    fn new() -> Self {
        let metadata = Picture::from([("t".into(), (T, 4))]);
        Self { group: ConsumerGroup::default(), metadata, now: Instant::now() }
    }

    fn beat(&mut self, beat: Beat) -> Result<Reply, ErrorCode> {
        check(&beat)?;
        self.group.heartbeat(self.now, beat, &self.metadata, &SETTINGS)
    }

    fn join_as(&mut self, identity: MemberIdentity) -> Result<Reply, ErrorCode> {
        self.beat(Beat {
            identity,
            rebalance_timeout: Some(REBALANCE),
            names: Some(["t".to_owned()].into()),
            owned: Some(Held::new()),
            id_required: true,
            ..Beat::default()
        })
    }

    fn join(&mut self, id: &str) -> Reply {
        self.join_as(identity(id)).unwrap()
    }

    fn go_on(&mut self, id: &str, epoch: i32, owned: Option<Held>) -> Result<Reply, ErrorCode> {
        self.beat(Beat { identity: identity(id), epoch, owned, id_required: true, ..Beat::default() })
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.advance(self.now);
    }
}

#[test]
fn single_member_receives_all_partitions_once() {
    let mut world = World::new();
    let reply = world.join("a");
    assert_eq!((reply.epoch, reply.assignment), (1, Some(all(0..4))));
    let reply = world.go_on("a", 1, Some(all(0..4))).unwrap();
    assert_eq!((reply.epoch, reply.assignment), (1, None));
    assert_eq!(world.group.view(&world.metadata).state, "Stable");
}

#[test]
fn partitions_move_after_previous_owner_revokes_them() {
    let mut world = World::new();
    world.join("a");
    let reply = world.join("b");
    assert_eq!((reply.epoch, reply.assignment), (2, Some(Held::new())));
    // The heartbeat reports no owned partitions: nothing was revoked.
    let kept = world.go_on("a", 1, None).unwrap();
    let kept = kept.assignment.unwrap();
    assert_eq!(kept[&T].len(), 2);
    assert_eq!(world.go_on("a", 1, Some(all(0..4))).unwrap().epoch, 1);
    assert_eq!(world.go_on("b", 2, None).unwrap().assignment, None);
    assert_eq!(world.group.view(&world.metadata).state, "Reconciling");

    let reply = world.go_on("a", 1, Some(kept.clone())).unwrap();
    assert_eq!((reply.epoch, reply.assignment), (2, None));
    let gained = world.go_on("b", 2, None).unwrap().assignment.unwrap();
    assert!(gained[&T].is_disjoint(&kept[&T]) && gained[&T].len() == 2);
    assert_eq!(world.group.view(&world.metadata).state, "Stable");
    assert!(world.group.one_owner_each());
}

#[test]
fn mismatched_epochs_are_fenced_except_previous_one() {
    let mut world = World::new();
    world.join("a");
    world.join("b");
    let kept = world.go_on("a", 1, None).unwrap().assignment.unwrap();
    world.go_on("a", 1, Some(kept.clone())).unwrap();
    assert_eq!(world.go_on("a", 9, None), Err(ErrorCode::FENCED_MEMBER_EPOCH));
    // The response with epoch 2 was lost.
    assert_eq!(world.go_on("a", 1, Some(kept)).unwrap().epoch, 2);
    assert_eq!(world.go_on("a", 1, Some(all(0..4))), Err(ErrorCode::FENCED_MEMBER_EPOCH));
    assert_eq!(world.go_on("a", 1, None), Err(ErrorCode::FENCED_MEMBER_EPOCH));
    assert_eq!(world.go_on("x", 1, None), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    // A member that joins again under its id continues.
    let again = world.join("a");
    assert_eq!(again.assignment.unwrap()[&T].len(), 2);
    assert_eq!(world.group.members.len(), 2);
}

#[test]
fn silent_or_unrevoking_members_are_removed() {
    let mut world = World::new();
    world.join("a");
    world.pass(SESSION - Duration::from_secs(1));
    world.go_on("a", 1, None).unwrap();
    world.pass(SESSION);
    assert!(world.group.is_empty());

    let mut world = World::new();
    world.join("a");
    world.join("b");
    for _ in 0..12 {
        world.go_on("a", 1, None).unwrap();
        world.go_on("b", 2, None).unwrap();
        world.pass(Duration::from_secs(5));
    }
    assert_eq!(world.go_on("a", 1, None), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(world.go_on("b", 2, None).unwrap().assignment, Some(all(0..4)));
}

#[test]
fn static_member_rejoins_without_rebalance_after_leaving() {
    let fixed = |id: &str| MemberIdentity { member_id: id.to_owned(), instance: Some("i".to_owned()) };
    let mut world = World::new();
    world.join_as(fixed("a")).unwrap();
    let epoch = world.group.epoch;
    assert_eq!(world.join_as(fixed("b")), Err(ErrorCode::UNRELEASED_INSTANCE_ID));
    assert_eq!(world.join_as(fixed("a")), Err(ErrorCode::UNRELEASED_INSTANCE_ID), "as with Kafka");
    let now = world.now;
    assert_eq!(world.group.leave(now, &fixed("b"), -2), Err(ErrorCode::FENCED_INSTANCE_ID));
    assert_eq!(world.group.leave(now, &fixed("a"), -2).unwrap().epoch, -2);
    let reply = world.join_as(fixed("b")).unwrap();
    assert_eq!((reply.epoch, reply.assignment), (epoch, Some(all(0..4))), "without a rebalance");
    let old = world.beat(Beat { identity: fixed("a"), epoch, ..Beat::default() });
    assert_eq!(old, Err(ErrorCode::FENCED_INSTANCE_ID));
    // A static member may be away for a session timeout.
    world.group.leave(now, &fixed("b"), -2).unwrap();
    world.pass(SESSION);
    assert!(world.group.is_empty());
}

#[test]
fn topic_changes_raise_group_epoch() {
    let mut world = World::new();
    world.join("a");
    world.metadata.insert("t".into(), (T, 6));
    let reply = world.go_on("a", 1, None).unwrap();
    assert_eq!((reply.epoch, reply.assignment), (2, Some(all(0..6))));
    world.metadata.clear();
    let reply = world.go_on("a", 2, None).unwrap();
    assert_eq!((reply.epoch, reply.assignment), (2, Some(Held::new())));
    assert_eq!(world.go_on("a", 2, Some(Held::new())).unwrap().epoch, 3);
}

#[test]
fn regex_subscription_matches_whole_topic_names() {
    let mut world = World::new();
    let mut join = |regex: &str| {
        world.beat(Beat {
            identity: identity("a"),
            rebalance_timeout: Some(REBALANCE),
            regex: Some(regex.to_owned()),
            owned: Some(Held::new()),
            ..Beat::default()
        })
    };
    assert_eq!(join("("), Err(ErrorCode::INVALID_REGULAR_EXPRESSION));
    assert_eq!(join("x*").unwrap().assignment, Some(Held::new()));
    assert_eq!(join("t|topic").unwrap().assignment, Some(all(0..4)));
}

#[test]
fn commits_require_current_member_epoch() {
    let mut world = World::new();
    let now = world.now;
    assert_eq!(world.group.may_commit(now, "", -1, 9), Ok(()));
    world.join("a");
    let mut may = |id: &str, epoch, version| world.group.may_commit(now, id, epoch, version);
    assert_eq!(may("a", 1, 9), Ok(()));
    assert_eq!(may("a", 0, 9), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(may("a", 1, 8), Err(ErrorCode::UNSUPPORTED_VERSION));
    assert_eq!(may("", -1, 9), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(world.group.may_fetch(now, None, -1), Ok(()));
    assert_eq!(world.group.may_fetch(now, Some("a"), 1), Ok(()));
    assert_eq!(world.group.may_fetch(now, Some("a"), 2), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(world.group.may_fetch(now, Some("b"), 1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
}

#[test]
fn rejects_invalid_heartbeats_and_full_group() {
    let fine = Beat {
        identity: identity("a"),
        rebalance_timeout: Some(REBALANCE),
        names: Some(BTreeSet::new()),
        owned: Some(Held::new()),
        id_required: true,
        ..Beat::default()
    };
    assert_eq!(check(&fine), Ok(()));
    let bad = [
        Beat { identity: identity(""), ..fine.clone() },
        Beat { rebalance_timeout: None, ..fine.clone() },
        Beat { owned: None, ..fine.clone() },
        Beat { owned: Some(all(0..1)), ..fine.clone() },
        Beat { names: None, ..fine.clone() },
        Beat { epoch: -2, ..fine.clone() },
        Beat { epoch: -3, ..fine.clone() },
    ];
    for beat in bad {
        assert_eq!(check(&beat), Err(ErrorCode::INVALID_REQUEST), "{beat:?}");
    }
    let assignor = Some("sticky".to_owned());
    assert_eq!(check(&Beat { assignor, ..fine.clone() }), Err(ErrorCode::UNSUPPORTED_ASSIGNOR));
    let mut world = World::new();
    for id in ["a", "b", "c", "d"] {
        world.join(id);
    }
    assert_eq!(world.join_as(identity("e")), Err(ErrorCode::GROUP_MAX_SIZE_REACHED));
    world.join("a");
}
