//! Several members and the testkit's coordinator on one clock, with random faults; equal seeds give
//! equal runs.
//!
//! Checked all the time: no partition has two owners; assigned partitions were not owned, and
//! revoked or lost ones were; a member is never silent for longer than its interval. Once the
//! faults stop, the group becomes stable, and every partition has an owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::{
    actions::{Action, HeartbeatFields, HeartbeatResponse, LeavingHeartbeat, TopicsToSubscribe},
    consumer_membership::{ConsumerMembership, MemberState},
    tests::{POLL, settings},
};
use crate::{
    consumer::group::{actions::AttemptId, member_snapshot::MemberSnapshot, membership::Membership},
    error::{Error, ErrorCode, ErrorKind},
    record::TopicPartition,
    testkit::state::{
        consumer_group::{self, ConsumerGroup, ConsumerGroupSettings, Picture},
        group::MemberIdentity,
    },
};

const INTERVAL: Duration = Duration::from_secs(5);
const BROKER: ConsumerGroupSettings = ConsumerGroupSettings {
    heartbeat_interval: INTERVAL,
    session_timeout: Duration::from_secs(45),
    max_size: usize::MAX,
    migrates: true,
};

#[derive(Debug)]
enum Request {
    Beat(HeartbeatFields),
    Leave { member_id: Arc<str>, epoch: i32 },
}

/// Number of attempts at a leave.
const ATTEMPTS: u32 = 3;

#[derive(Debug)]
enum Happening {
    /// The response may get lost on its way back.
    Arrives {
        from: usize,
        attempt: Option<AttemptId>,
        request: Request,
        heard: bool,
    },
    /// A leave that was refused, or that got no response, arrives again; at last it has ended.
    Goodbye {
        by: usize,
        member_id: Arc<str>,
        epoch: i32,
        left: u32,
    },
    Answered {
        to: usize,
        attempt: AttemptId,
        answer: Result<HeartbeatResponse, Error>,
    },
    Revoked {
        by: usize,
        attempt: AttemptId,
        partitions: Vec<TopicPartition>,
    },
    Polls {
        by: usize,
    },
    Looks {
        by: usize,
    },
    Mischief,
}

struct Peer {
    member: ConsumerMembership,
    instance: Option<String>,
    /// With the topic id, so that a topic that is created again is another one.
    owned: BTreeMap<TopicPartition, Uuid>,
    last_beat: Instant,
    in_flight: Option<AttemptId>,
    /// Requests of one member arrive in order.
    arrives: Instant,
    /// The topics in its metadata.
    metadata: Picture,
}

struct World {
    seed: u64,
    now: Instant,
    rng: StdRng,
    calm: bool,
    peers: Vec<Option<Peer>>,
    group: ConsumerGroup,
    node: i32,
    /// By time, then by order of arrival.
    agenda: BTreeMap<(Instant, u64), Happening>,
    happenings: u64,
    metadata: Picture,
    topics: u128,
    assignments: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            calm: false,
            peers: Vec::new(),
            group: ConsumerGroup::default(),
            node: 1,
            agenda: BTreeMap::new(),
            happenings: 0,
            metadata: Picture::new(),
            topics: 0,
            assignments: 0,
        };
        world.create("t", 4);
        world.create("u", 3);
        for _ in 0..world.rng.random_range(1..=4) {
            world.new_peer(None);
        }
        world.later(1_000, Happening::Mischief);
        world
    }

    fn create(&mut self, name: &str, partitions: i32) {
        self.topics += 1;
        self.metadata.insert(name.into(), (Uuid::from_u128(self.topics), partitions));
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.calm && self.rng.random_range(0..100) < percent
    }

    fn at(&mut self, time: Instant, happening: Happening) {
        self.happenings += 1;
        self.agenda.insert((time, self.happenings), happening);
    }

    fn later(&mut self, millis: u64, happening: Happening) {
        self.at(self.now + Duration::from_millis(millis), happening);
    }

    fn latency(&mut self) -> u64 {
        if self.chance(5) { self.rng.random_range(1..10_000) } else { self.rng.random_range(1..50) }
    }

    fn new_peer(&mut self, instance: Option<String>) {
        let backoff = (Duration::from_millis(100), Duration::from_secs(1));
        let (seed, by) = (self.rng.random(), self.peers.len());
        let settings = settings(instance.as_deref());
        let mut member = ConsumerMembership::new(settings, format!("m{by}").into(), backoff, seed, self.now);
        member.subscribe(self.now, Some(wanted(&["t"], None)));
        self.peers.push(Some(Peer {
            member,
            instance,
            owned: BTreeMap::new(),
            last_beat: self.now,
            in_flight: None,
            arrives: self.now,
            metadata: Picture::new(),
        }));
        self.later(1_000, Happening::Polls { by });
        self.later(10, Happening::Looks { by });
        self.drain(by);
    }

    fn send(&mut self, from: usize, attempt: Option<AttemptId>, request: Request) {
        let latency = Duration::from_millis(self.latency());
        let Some(peer) = self.peers[from].as_mut() else { return };
        peer.arrives = peer.arrives.max(self.now + latency);
        let arrives = peer.arrives;
        let answered = |attempt, answer| Happening::Answered { to: from, attempt, answer };
        if let Some(attempt) = attempt {
            // Requests without a response time out, as in the task.
            let error = Error::new(ErrorKind::Timeout, "no answer");
            self.at(self.now + Duration::from_secs(20), answered(attempt, Err(error)));
            if self.chance(8) {
                let codes = [
                    ErrorCode::NOT_COORDINATOR,
                    ErrorCode::COORDINATOR_NOT_AVAILABLE,
                    ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
                    ErrorCode::UNKNOWN_MEMBER_ID,
                    ErrorCode::FENCED_MEMBER_EPOCH,
                    ErrorCode::GROUP_AUTHORIZATION_FAILED,
                    ErrorCode::UNKNOWN_SERVER_ERROR,
                ];
                let code = codes[self.rng.random_range(0..codes.len())];
                return self.at(arrives, answered(attempt, Err(Error::broker(code, "test"))));
            }
        }
        let (lost_there, lost_back) = (self.chance(4), self.chance(4));
        if let Some(attempt) = attempt.filter(|_| lost_there || lost_back) {
            let pause = self.rng.random_range(1..20_000);
            self.later(pause, answered(attempt, Err(Error::new(ErrorKind::Network, "lost"))));
        }
        if !lost_there {
            self.at(arrives, Happening::Arrives { from, attempt, request, heard: !lost_back });
        }
    }

    /// Carries out a member's actions, and checks them against the rules.
    fn drain(&mut self, i: usize) {
        let seed = self.seed;
        loop {
            let Some(peer) = &mut self.peers[i] else { return };
            let Some(action) = peer.member.next_action() else { return };
            match action {
                Action::Send { attempt, request: beat } => {
                    assert!(beat.epoch != 0 || peer.owned.is_empty(), "seed {seed}: joins while it owns partitions");
                    peer.last_beat = self.now;
                    peer.in_flight = Some(attempt);
                    self.send(i, Some(attempt), Request::Beat(beat));
                }
                Action::Leave(LeavingHeartbeat { member_id, epoch }) => {
                    let left = if self.chance(50) { self.rng.random_range(1..ATTEMPTS) } else { 0 };
                    // Independent of the success of the first attempts.
                    let pause = self.latency();
                    self.later(pause, Happening::Goodbye { by: i, member_id, epoch, left });
                }
                Action::Assigned { partitions } => {
                    for partition in partitions {
                        // It may have been lost in the meantime.
                        let id = peer
                            .member
                            .reconciliation
                            .owned()
                            .get(&partition)
                            .map_or_else(Uuid::nil, |owned| owned.topic_id);
                        let before = peer.owned.insert(partition.clone(), id);
                        assert_eq!(before, None, "seed {seed}: {partition} is assigned twice");
                    }
                    self.assignments += 1;
                    self.one_owner_each();
                }
                Action::Revoke { attempt, partitions } => {
                    let owns = |partition| peer.owned.contains_key(partition);
                    assert!(partitions.iter().all(owns), "seed {seed}: revokes partitions that are not owned");
                    let pause = if self.chance(3) { 400_000 } else { self.rng.random_range(1..20_000) };
                    self.later(pause, Happening::Revoked { by: i, attempt, partitions });
                }
                Action::Lost { partitions } => {
                    for partition in partitions {
                        assert!(
                            peer.owned.remove(&partition).is_some(),
                            "seed {seed}: loses partitions that are not owned"
                        );
                    }
                }
                Action::Error { fatal, .. } => assert!(!fatal, "seed {seed}: nothing fatal happened"),
                Action::AwaitPoll => {}
            }
        }
    }

    fn one_owner_each(&self) {
        let mut owners = BTreeMap::new();
        for (i, peer) in self.peers.iter().enumerate() {
            for (partition, id) in peer.iter().flat_map(|peer| &peer.owned) {
                let other = owners.insert((id, partition), i);
                assert_eq!(other, None, "seed {}: {partition} has another owner than {i}", self.seed);
            }
        }
        assert!(self.group.one_owner_each(), "seed {}", self.seed);
    }

    fn with(&mut self, i: usize, act: impl FnOnce(&mut Peer, Instant)) {
        let now = self.now;
        if let Some(peer) = &mut self.peers[i] {
            act(peer, now);
        }
        self.drain(i);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives { from, attempt, request, heard } => {
                let answer = self.serve(from, request);
                if let (Some(attempt), true) = (attempt, heard) {
                    let latency = self.latency();
                    self.later(latency, Happening::Answered { to: from, attempt, answer });
                }
            }
            Happening::Answered { to, attempt, answer } => self.with(to, |peer, now| {
                if peer.in_flight == Some(attempt) {
                    peer.in_flight = None;
                    // It is repeated after a backoff that starts now, whatever time the failure
                    // took.
                    peer.last_beat = now;
                    peer.member.handle_response(now, attempt, answer);
                    look(peer, now);
                }
            }),
            Happening::Goodbye { by, member_id, epoch, left } => {
                let Some(peer) = &self.peers[by] else { return };
                let joins = peer.in_flight.is_some() && matches!(peer.member.state, MemberState::Joining);
                let is_in = matches!(peer.member.state, MemberState::Member);
                assert!(!is_in && !joins, "seed {}: a late leave removes the next membership", self.seed);
                let arrives = left == 0 || self.chance(50);
                if arrives {
                    // It may arrive twice.
                    drop(self.serve(by, Request::Leave { member_id: member_id.clone(), epoch }));
                }
                if left > 0 {
                    let pause = self.rng.random_range(100..8_000);
                    self.later(pause, Happening::Goodbye { by, member_id, epoch, left: left - 1 });
                } else {
                    self.with(by, |peer, now| peer.member.leave_ended(now));
                }
            }
            Happening::Revoked { by, attempt, partitions } => self.with(by, |peer, now| {
                // The consumer answers only for partitions that it was not told to be lost.
                if peer.member.reconciliation.revoking.as_ref().is_some_and(|giving_up| giving_up.attempt == attempt) {
                    partitions.iter().for_each(|partition| _ = peer.owned.remove(partition));
                }
                peer.member.revoked(now, attempt);
            }),
            Happening::Polls { by } => {
                self.with(by, |peer, now| peer.member.polled(now));
                let pause = if self.chance(1) { 400_000 } else { self.rng.random_range(100..5_000) };
                if self.peers[by].is_some() {
                    self.later(pause, Happening::Polls { by });
                }
            }
            Happening::Looks { by } => {
                let metadata = self.metadata.clone();
                self.with(by, |peer, now| {
                    peer.metadata = metadata;
                    look(peer, now);
                });
                let pause = if self.chance(10) { 60_000 } else { self.rng.random_range(100..3_000) };
                if self.peers[by].is_some() {
                    self.later(pause, Happening::Looks { by });
                }
            }
            Happening::Mischief => self.mischief(),
        }
    }

    fn serve(&mut self, from: usize, request: Request) -> Result<HeartbeatResponse, Error> {
        let instance = self.peers[from].as_ref().and_then(|peer| peer.instance.clone());
        let identity = |id: &Arc<str>| MemberIdentity { member_id: id.to_string(), instance: instance.clone() };
        let served = match request {
            Request::Leave { member_id, epoch } => self.group.leave(self.now, &identity(&member_id), epoch),
            Request::Beat(beat) => {
                let asked = consumer_group::Beat {
                    identity: identity(&beat.member_id),
                    epoch: beat.epoch,
                    rebalance_timeout: beat.full.then_some(POLL),
                    names: beat.names.map(|names| names.iter().map(ToString::to_string).collect()),
                    regex: beat.regex.map(|regex| regex.to_string()),
                    owned: beat.owned,
                    id_required: true,
                    ..consumer_group::Beat::default()
                };
                let checked = consumer_group::check(&asked);
                assert_eq!(checked, Ok(()), "seed {}: {asked:?}", self.seed);
                self.group.heartbeat(self.now, asked, &self.metadata, &BROKER)
            }
        };
        served.map_err(|code| Error::broker(code, "test")).map(|reply| HeartbeatResponse {
            node: self.node,
            member_id: Some(reply.member_id),
            epoch: reply.epoch,
            interval: Some(INTERVAL),
            assignment: reply.assignment,
        })
    }

    fn mischief(&mut self) {
        if self.calm {
            return;
        }
        let i = self.rng.random_range(0..self.peers.len());
        match self.rng.random_range(0..10) {
            0 if self.peers.len() < 8 => self.new_peer(None),
            1 if self.peers.len() < 8 => {
                let instance = format!("i{}", self.peers.len());
                self.new_peer(Some(instance));
            }
            2 => {
                // A static member that dies is started again.
                if let Some(peer) = self.peers[i].take()
                    && let Some(instance) = peer.instance
                {
                    self.new_peer(Some(instance));
                }
            }
            3 => self.with(i, |peer, now| peer.member.subscribe(now, None)),
            4 => self.with(i, |peer, now| peer.member.subscribe(now, Some(wanted(&["t", "u"], None)))),
            5 => self.with(i, |peer, now| peer.member.subscribe(now, Some(wanted(&["t"], None)))),
            6 => self.with(i, |peer, now| peer.member.subscribe(now, Some(wanted(&[], Some(".*(?:^[tv]).*"))))),
            7 => self.node += 1,
            8 => {
                let (name, count) = (["t", "u", "v"][self.rng.random_range(0..3)], self.rng.random_range(1..6));
                self.create(name, count);
            }
            _ => _ = self.metadata.remove(["u", "v"][self.rng.random_range(0..2)]),
        }
        let pause = self.rng.random_range(1..60_000);
        self.later(pause, Happening::Mischief);
    }

    /// Runs until that time.
    fn run_to(&mut self, end: Instant) {
        let mut steps = 0_u32;
        loop {
            steps += 1;
            assert!(steps < 1_000_000, "seed {}: the run does not end", self.seed);
            let agenda = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let members = self.peers.iter().flatten().filter_map(|peer| peer.member.next_wake()).min();
            let next = [agenda, members, self.group.deadline()].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = next.max(self.now);
            for i in 0..self.peers.len() {
                self.with(i, |peer, now| peer.member.tick(now));
            }
            self.group.advance(self.now);
            while self.agenda.first_key_value().is_some_and(|(&(at, _), _)| at <= self.now) {
                let Some((_, happening)) = self.agenda.pop_first() else { break };
                self.happen(happening);
            }
            self.heartbeats_in_time();
        }
    }

    fn heartbeats_in_time(&self) {
        for peer in self.peers.iter().flatten().filter(|peer| matches!(peer.member.state, MemberState::Member)) {
            if peer.in_flight.is_none() {
                let silence = self.now - peer.last_beat;
                assert!(silence <= INTERVAL, "seed {}: silent for {silence:?}", self.seed);
            }
        }
    }

    /// All subscribed members are in the group's epoch, and every partition has its owner.
    fn settled(&mut self) {
        let seed = self.seed;
        let view = self.group.view(&self.metadata);
        assert!(matches!(view.state, "Stable" | "Empty"), "seed {seed}: {view:?}");
        let mut topics = BTreeSet::new();
        for peer in self.peers.iter().flatten() {
            match peer.member.snapshot() {
                MemberSnapshot::NoGroup => assert!(peer.owned.is_empty(), "seed {seed}"),
                MemberSnapshot::Member { identity, .. } => {
                    assert_eq!(identity.generation, view.epoch, "seed {seed}");
                    let member = view.members.iter().find(|member| *member.member_id == *identity.member_id).unwrap();
                    let (names, regex) = (&member.names, member.regex.contains("tv"));
                    let meant = |name: &&Arc<str>| {
                        names.iter().any(|known| **known == ***name) || (regex && matches!(&***name, "t" | "v"))
                    };
                    topics.extend(self.metadata.keys().filter(meant).cloned());
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let all =
            topics.iter().flat_map(|topic| (0..self.metadata[topic].1).map(|n| TopicPartition::new(topic.clone(), n)));
        let all: BTreeSet<TopicPartition> = all.collect();
        let owned: BTreeSet<_> = self.peers.iter().flatten().flat_map(|peer| peer.owned.keys().cloned()).collect();
        self.one_owner_each();
        assert_eq!(owned, all, "seed {seed}");
    }
}

fn wanted(names: &[&str], regex: Option<&str>) -> TopicsToSubscribe {
    TopicsToSubscribe { names: names.iter().map(|&name| name.into()).collect(), regex: regex.map(Arc::from) }
}

/// Passes topic names in the member's own metadata to it.
fn look(peer: &mut Peer, now: Instant) {
    let Peer { member, metadata, .. } = peer;
    let name_of = |id| metadata.iter().find(|(_, (known, _))| *known == id).map(|(name, _)| name.clone());
    member.names_known(now, name_of);
}

#[test]
fn settles_with_one_owner_under_random_faults() {
    let mut assignments = 0;
    for seed in 0..30 {
        let mut world = World::new(seed);
        let start = world.now;
        world.run_to(start + Duration::from_secs(1_800));
        world.calm = true;
        // A reader may be in its longest pause, and then all members join again.
        world.run_to(start + Duration::from_secs(1_800 + 1_000));
        world.settled();
        assignments += world.assignments;
    }
    assert!(assignments > 1_000, "too few assignments: {assignments}");
}
