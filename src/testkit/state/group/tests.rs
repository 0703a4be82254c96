use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;

const SETTINGS: GroupSettings = GroupSettings {
    initial_rebalance_delay: Duration::ZERO,
    min_session_timeout: Duration::from_secs(6),
    max_session_timeout: Duration::from_secs(1800),
    max_size: 4,
};
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

/// A group, the time, and the responses that members got.
struct World {
    group: ClassicGroup,
    now: Instant,
    settings: GroupSettings,
    ids: u32,
}

impl World {
    fn new() -> Self {
        Self { group: ClassicGroup::default(), now: Instant::now(), settings: SETTINGS, ids: 0 }
    }

    fn request(&mut self, member_id: &str) -> JoinRequest {
        self.ids += u32::from(member_id.is_empty());
        JoinRequest {
            identity: identity(member_id),
            client_id: "c".into(),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"meta"))],
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            id_required: false,
            may_skip_assignment: true,
            new_id: format!("m{}", self.ids),
        }
    }

    fn join(&mut self, request: JoinRequest) -> Outcome<JoinOutcome> {
        self.group.join(self.now, request, &self.settings)
    }

    /// Joins with an id, or with none, and waits.
    fn waiting(&mut self, member_id: &str) -> Ticket {
        let request = self.request(member_id);
        match self.join(request) {
            Outcome::Wait(ticket) => ticket,
            Outcome::Done(outcome) => panic!("{outcome:?}"),
        }
    }

    fn joined(&mut self, member_id: &str) -> JoinOutcome {
        let request = self.request(member_id);
        match self.join(request) {
            Outcome::Done(outcome) => outcome,
            Outcome::Wait(_) => panic!("{member_id:?} has to wait"),
        }
    }

    fn sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Outcome<SyncOutcome> {
        let assignments = assignments.iter().map(|&(id, to)| (id.to_owned(), Bytes::from_static(to.as_bytes())));
        let request = SyncRequest {
            identity: identity(id),
            generation,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignments: assignments.collect(),
        };
        self.group.sync(self.now, request, &self.settings)
    }

    fn synced(&mut self, id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> (ErrorCode, Bytes) {
        match self.sync(id, generation, assignments) {
            Outcome::Done(outcome) => (outcome.error, outcome.assignment),
            Outcome::Wait(_) => panic!("{id} has to wait"),
        }
    }

    fn beat(&mut self, id: &str, generation: i32) -> Result<(), ErrorCode> {
        self.group.heartbeat(self.now, &identity(id), generation, &self.settings)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.advance(self.now, &self.settings);
    }

    fn state(&self) -> &'static str {
        self.group.view().state
    }

    /// Two members in generation 2, the first one leading, all synced.
    fn two_members() -> Self {
        let mut world = Self::new();
        let first = world.joined("");
        assert_eq!((first.member_id.as_str(), first.generation, first.leader.as_str()), ("m1", 1, "m1"));
        assert_eq!(world.synced("m1", 1, &[("m1", "all")]).1, "all");
        let second = world.waiting("");
        assert_eq!(world.beat("m1", 1), Err(ErrorCode::REBALANCE_IN_PROGRESS));
        let first = world.joined("m1");
        assert_eq!((first.generation, first.members.len()), (2, 2));
        let second = world.group.take_join(second).unwrap();
        assert_eq!((second.member_id.as_str(), second.generation, second.members.len()), ("m2", 2, 0));
        let Outcome::Wait(waiting) = world.sync("m2", 2, &[]) else { panic!("the leader has not assigned yet") };
        assert_eq!(world.group.take_sync(waiting), None);
        assert_eq!(world.synced("m1", 2, &[("m1", "a"), ("m2", "b")]).1, "a");
        assert_eq!(world.group.take_sync(waiting).unwrap().assignment, "b");
        assert_eq!(world.state(), "Stable");
        world
    }
}

fn identity(member_id: &str) -> MemberIdentity {
    MemberIdentity { member_id: member_id.into(), instance: None }
}

fn fixed(member_id: &str, instance: &str) -> MemberIdentity {
    MemberIdentity { member_id: member_id.into(), instance: Some(instance.into()) }
}

#[test]
fn members_join_sync_and_heartbeat() {
    let mut world = World::two_members();
    assert_eq!(world.beat("m1", 2), Ok(()));
    assert_eq!(world.beat("m1", 1), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(world.beat("m9", 2), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(world.synced("m2", 2, &[]).1, "b", "a repeated SyncGroup gets the assignment again");
    assert_eq!(world.synced("m2", 1, &[]).0, ErrorCode::ILLEGAL_GENERATION);
    let again = world.joined("m2");
    assert_eq!((again.generation, again.leader.as_str()), (2, "m1"), "nothing changed, so no member rejoins");
}

#[test]
fn leaving_member_triggers_rebalance_for_others() {
    let mut world = World::two_members();
    assert_eq!(world.group.leave(world.now, &identity("m1"), &SETTINGS), Ok(()));
    assert_eq!(world.group.leave(world.now, &identity("m1"), &SETTINGS), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(world.beat("m2", 2), Err(ErrorCode::REBALANCE_IN_PROGRESS));
    let alone = world.joined("m2");
    assert_eq!((alone.generation, alone.leader.as_str(), alone.members.len()), (3, "m2", 1));
    assert_eq!(world.group.leave(world.now, &identity("m2"), &SETTINGS), Ok(()));
    assert_eq!((world.state(), world.group.view().generation), ("Empty", 4));
}

#[test]
fn silent_member_is_removed_after_session_timeout() {
    let mut world = World::two_members();
    world.pass(SESSION - Duration::from_millis(1));
    assert_eq!(world.beat("m1", 2), Ok(()));
    assert_eq!(world.group.deadline(), Some(world.now + Duration::from_millis(1)));
    world.pass(Duration::from_millis(1));
    assert_eq!((world.state(), world.group.view().members.len()), ("PreparingRebalance", 1));
    assert_eq!(world.joined("m1").generation, 3);
    assert_eq!(world.beat("m2", 2), Err(ErrorCode::UNKNOWN_MEMBER_ID));
}

#[test]
fn member_not_rejoining_in_time_is_removed() {
    let mut world = World::two_members();
    let third = world.waiting("");
    let first = world.waiting("m1");
    for _ in 0..11 {
        world.pass(Duration::from_secs(5));
        assert_eq!(world.beat("m2", 2), Err(ErrorCode::REBALANCE_IN_PROGRESS), "it only sends heartbeats");
    }
    assert_eq!(world.group.take_join(first), None);
    world.pass(Duration::from_secs(5));
    let (first, third) = (world.group.take_join(first).unwrap(), world.group.take_join(third).unwrap());
    assert_eq!((first.generation, first.members.len(), third.member_id.as_str()), (3, 2, "m3"));
    assert_eq!(world.beat("m2", 3), Err(ErrorCode::UNKNOWN_MEMBER_ID));
}

#[test]
fn leader_not_assigning_in_time_is_removed() {
    let mut world = World::new();
    world.joined("");
    assert_eq!(world.state(), "CompletingRebalance");
    for _ in 0..11 {
        world.pass(Duration::from_secs(5));
        assert_eq!(world.beat("m1", 1), Ok(()), "it only sends heartbeats");
    }
    world.pass(Duration::from_secs(5));
    assert_eq!(world.state(), "Empty");
}

#[test]
fn new_rebalance_ends_pending_sync_requests() {
    let mut world = World::two_members();
    let third = world.waiting("");
    world.waiting("m1");
    world.joined("m2");
    assert!(world.group.take_join(third).is_some());
    let Outcome::Wait(waiting) = world.sync("m2", 3, &[]) else { panic!("the leader has not assigned yet") };
    world.group.leave(world.now, &identity("m3"), &SETTINGS).unwrap();
    assert_eq!(world.group.take_sync(waiting).unwrap().error, ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(world.synced("m1", 3, &[]).0, ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn new_member_first_receives_member_id() {
    let mut world = World::two_members();
    let request = JoinRequest { id_required: true, ..world.request("") };
    let Outcome::Done(outcome) = world.join(request) else { panic!("it has no id yet") };
    assert_eq!(outcome.error, ErrorCode::MEMBER_ID_REQUIRED);
    assert_eq!(world.state(), "Stable", "the group does not change before the member comes back");
    let third = world.waiting(&outcome.member_id);
    world.waiting("m1");
    assert_eq!(world.joined("m2").generation, 3);
    assert_eq!(world.group.take_join(third).unwrap().member_id, outcome.member_id);

    let request = JoinRequest { id_required: true, ..world.request("") };
    let Outcome::Done(lapsing) = world.join(request) else { panic!("it has no id yet") };
    world.pass(SESSION);
    assert_eq!(world.joined(&lapsing.member_id).error, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn rejects_invalid_joins_and_full_group() {
    let mut world = World::two_members();
    assert_eq!(world.joined("stranger").error, ErrorCode::UNKNOWN_MEMBER_ID);
    let other_type = JoinRequest { protocol_type: "connect".into(), ..world.request("") };
    let no_protocols = JoinRequest { protocols: Vec::new(), ..world.request("") };
    let nothing_common = JoinRequest { protocols: vec![("x".into(), Bytes::new())], ..world.request("") };
    let hasty = JoinRequest { session_timeout: Duration::from_secs(1), ..world.request("") };
    for (request, error) in [
        (other_type, ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        (no_protocols, ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        (nothing_common, ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        (hasty, ErrorCode::INVALID_SESSION_TIMEOUT),
    ] {
        let Outcome::Done(outcome) = world.join(request) else { panic!("{error} was expected") };
        assert_eq!(outcome.error, error);
    }
    assert_eq!(world.state(), "Stable");
    world.waiting("");
    world.waiting("");
    assert_eq!(world.joined("").error, ErrorCode::GROUP_MAX_SIZE_REACHED);
}

#[test]
fn selects_protocol_supported_and_preferred_by_members() {
    let mut world = World::new();
    let with = |world: &mut World, id: &str, names: &[&str]| JoinRequest {
        protocols: names.iter().map(|name| (name.to_string(), Bytes::copy_from_slice(name.as_bytes()))).collect(),
        ..world.request(id)
    };
    let request = with(&mut world, "", &["sticky", "range", "roundrobin"]);
    world.join(request);
    for names in [["range", "roundrobin"], ["roundrobin", "range"]] {
        let request = with(&mut world, "", &names);
        world.join(request);
    }
    let request = with(&mut world, "m1", &["sticky", "range", "roundrobin"]);
    let Outcome::Done(leader) = world.join(request) else { panic!("all have joined") };
    assert_eq!(leader.protocol.as_deref(), Some("range"));
    assert!(leader.members.iter().all(|(_, _, metadata)| metadata == "range"));
    let request = SyncRequest {
        identity: identity("m1"),
        generation: leader.generation,
        protocol_type: None,
        protocol: Some("sticky".into()),
        assignments: Vec::new(),
    };
    let Outcome::Done(outcome) = world.group.sync(world.now, request, &SETTINGS) else {
        panic!("a wrong protocol cannot wait")
    };
    assert_eq!(outcome.error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn initial_rebalance_waits_for_more_members() {
    let mut world = World::new();
    world.settings.initial_rebalance_delay = Duration::from_secs(3);
    let first = world.waiting("");
    world.pass(Duration::from_secs(2));
    let second = world.waiting("");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.group.take_join(first), None, "a member joined, so the group waits once more");
    world.pass(Duration::from_secs(2));
    let (first, second) = (world.group.take_join(first).unwrap(), world.group.take_join(second).unwrap());
    assert_eq!((first.generation, second.generation, first.members.len()), (1, 1, 2));
}

#[test]
fn static_member_replaces_itself_without_rebalance() {
    let mut world = World::new();
    let request = JoinRequest { identity: fixed("", "i"), ..world.request("") };
    world.join(request);
    let request = SyncRequest {
        identity: fixed("m1", "i"),
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: vec![("m1".into(), Bytes::from_static(b"all"))],
    };
    world.group.sync(world.now, request.clone(), &SETTINGS);
    for (may_skip_assignment, id, leader) in [(true, "m2", "m2"), (false, "m3", "m2")] {
        let request = JoinRequest { identity: fixed("", "i"), may_skip_assignment, ..world.request("") };
        let Outcome::Done(outcome) = world.join(request) else { panic!("the group does not have to wait") };
        assert_eq!((outcome.member_id.as_str(), outcome.generation), (id, 1));
        assert_eq!((outcome.skip_assignment, outcome.leader.as_str()), (may_skip_assignment, leader));
        assert_eq!(outcome.members.len(), usize::from(may_skip_assignment));
    }
    let heartbeat = world.group.heartbeat(world.now, &fixed("m1", "i"), 1, &SETTINGS);
    assert_eq!(heartbeat, Err(ErrorCode::FENCED_INSTANCE_ID));
    let Outcome::Done(outcome) = world.group.sync(world.now, request, &SETTINGS) else {
        panic!("a fenced member cannot wait")
    };
    assert_eq!(outcome.error, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(world.synced("m3", 1, &[]).1, "all");
    assert_eq!(world.group.leave(world.now, &fixed("", "i"), &SETTINGS), Ok(()), "an administrator may remove it");
    assert_eq!(world.state(), "Empty");
}

#[test]
fn absent_static_member_survives_rebalance() {
    let mut world = World::new();
    let request = JoinRequest { identity: fixed("", "i"), session_timeout: 30 * SESSION, ..world.request("") };
    world.join(request);
    let dynamic = world.waiting("");
    world.pass(REBALANCE);
    let outcome = world.group.take_join(dynamic).unwrap();
    assert_eq!((outcome.leader.as_str(), outcome.members.len()), ("m2", 2), "the absent member counts");
    assert!(world.group.view().members.iter().any(|member| member.instance_id.as_deref() == Some("i")));
}

#[test]
fn commits_require_current_generation_or_empty_group() {
    let mut world = World::new();
    let may = |world: &mut World, id: &str, generation| {
        world.group.may_commit(world.now, &identity(id), generation, &SETTINGS)
    };
    assert_eq!(may(&mut world, "", -1), Ok(()));
    let mut world = World::two_members();
    assert_eq!(may(&mut world, "m1", 2), Ok(()));
    assert_eq!(may(&mut world, "m1", 1), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(may(&mut world, "", -1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    world.waiting("");
    assert_eq!(may(&mut world, "m1", 2), Ok(()), "records read before the rebalance may be committed");
    world.waiting("m1");
    world.joined("m2");
    assert_eq!(may(&mut world, "m1", 3), Err(ErrorCode::REBALANCE_IN_PROGRESS));
}

#[test]
fn first_commit_without_member_creates_group() {
    for transactional in [false, true] {
        let mut world = World::new();
        let mut may = |id: &str, generation| {
            let (group, identity) = (&mut world.group, identity(id));
            match transactional {
                true => group.may_commit_in_transaction(world.now, &identity, generation, &SETTINGS),
                false => group.may_commit(world.now, &identity, generation, &SETTINGS),
            }
        };
        assert_eq!(may("m1", 1), Err(ErrorCode::ILLEGAL_GENERATION), "the group does not exist");
        assert_eq!(may("", -1), Ok(()));
        assert_eq!(may("m1", 1), Err(ErrorCode::UNKNOWN_MEMBER_ID), "the group has no members");
        assert_eq!(may("", 1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
        world.group.forget_members();
        assert!(world.group.is_unknown());
    }
}

#[test]
fn coordinator_move_ends_waits_and_keeps_members() {
    let mut world = World::two_members();
    let third = world.waiting("");
    world.group.fail_waits(ErrorCode::NOT_COORDINATOR);
    assert_eq!(world.group.take_join(third).unwrap().error, ErrorCode::NOT_COORDINATOR);
    assert_eq!(world.group.view().members.len(), 3);
    world.waiting("m1");
    world.waiting("m3");
    assert_eq!(world.joined("m2").generation, 3);
}

/// The next request of a well-behaved member.
#[derive(Clone, Debug)]
enum Act {
    Join(String),
    Joining(Ticket),
    Sync(JoinOutcome),
    Syncing(Ticket, String, i32),
    Stable(String, i32),
}

impl World {
    /// Takes one step of a member's life; after an error the member begins again where Kafka's
    /// clients do.
    fn step(&mut self, act: Act) -> Act {
        match act {
            Act::Join(id) => {
                let request = JoinRequest { id_required: true, ..self.request(&id) };
                match self.join(request) {
                    Outcome::Wait(ticket) => Act::Joining(ticket),
                    Outcome::Done(outcome) => Self::after_join(outcome),
                }
            }
            Act::Joining(ticket) => self.group.take_join(ticket).map_or(act, Self::after_join),
            Act::Sync(outcome) => {
                let id = outcome.member_id.clone();
                let given: Vec<_> = outcome.members.iter().map(|(id, ..)| (id.as_str(), "share")).collect();
                match self.sync(&id, outcome.generation, &given) {
                    Outcome::Wait(ticket) => Act::Syncing(ticket, id, outcome.generation),
                    Outcome::Done(synced) => Self::after_sync(synced, id, outcome.generation),
                }
            }
            Act::Syncing(ticket, ref id, generation) => match self.group.take_sync(ticket) {
                Some(synced) => Self::after_sync(synced, id.clone(), generation),
                None => act,
            },
            Act::Stable(id, generation) => match self.beat(&id, generation) {
                Ok(()) => Act::Stable(id, generation),
                Err(ErrorCode::REBALANCE_IN_PROGRESS) => Act::Join(id),
                Err(_) => Act::Join(String::new()),
            },
        }
    }

    fn after_join(outcome: JoinOutcome) -> Act {
        match outcome.error {
            ErrorCode::NONE => Act::Sync(outcome),
            ErrorCode::MEMBER_ID_REQUIRED | ErrorCode::NOT_COORDINATOR => Act::Join(outcome.member_id),
            ErrorCode::UNKNOWN_MEMBER_ID => Act::Join(String::new()),
            error => panic!("{error}"),
        }
    }

    fn after_sync(synced: SyncOutcome, id: String, generation: i32) -> Act {
        match synced.error {
            ErrorCode::NONE => {
                assert_eq!(synced.assignment, "share", "the leader knew every member");
                Act::Stable(id, generation)
            }
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION => Act::Join(String::new()),
            _ => Act::Join(id),
        }
    }
}

/// Members join, go silent for a while, leave and lose their coordinator in any order: once they
/// are left alone, they all end up in one generation, and none waits for ever.
#[test]
fn any_interleaving_settles() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        world.settings.initial_rebalance_delay = Duration::from_secs(rng.random_range(0..3));
        let mut members = vec![Act::Join(String::new()); 3];
        for _ in 0..rng.random_range(0..120) {
            let at = rng.random_range(0..members.len());
            match rng.random_range(0..20) {
                0 => world.group.fail_waits(ErrorCode::NOT_COORDINATOR),
                1 => world.pass(Duration::from_millis(rng.random_range(0..15_000))),
                2 => {
                    if let Act::Stable(id, _) = &members[at] {
                        let _ = world.group.leave(world.now, &identity(id), &SETTINGS);
                    }
                }
                _ => members[at] = world.step(members[at].clone()),
            }
        }
        for _ in 0..200 {
            world.pass(Duration::from_secs(1));
            members = members.into_iter().map(|member| world.step(member)).collect();
        }
        let view = world.group.view();
        assert_eq!((view.state, view.members.len()), ("Stable", 3), "seed {seed}: {members:?} in {:?}", world.group);
        for member in &members {
            assert!(matches!(member, Act::Stable(_, generation) if *generation == view.generation), "seed {seed}");
        }
    }
}

#[test]
fn forgotten_group_starts_at_first_generation() {
    let mut world = World::two_members();
    let waiting = world.waiting("");
    world.group.forget_members();
    assert_eq!(world.group.take_join(waiting).unwrap().error, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(world.beat("m1", 2), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!((world.state(), world.group.view().generation), ("Empty", 0));
    assert_eq!(world.joined("").generation, 1);
}
