//! Several members and a coordinator on one clock, with random faults; equal seeds give equal runs.
//!
//! Checked all the time: no partition has two owners; eager members give up all partitions before
//! any is assigned, cooperative ones are assigned only partitions that they do not have; revoked or
//! lost partitions were owned; heartbeats of a stable member are never later than their interval.
//! Once the faults stop, the group becomes stable, and every partition has an owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    consumer::group::{
        GroupSettings,
        actions::AttemptId,
        assignor::{Assignor, CooperativeStickyAssignor, PartitionRacks, RangeAssignor},
        classic::{
            actions::{Action, ClassicRequest, JoinOutcome, LeaveGroup},
            classic_membership::ClassicMembership,
            member_state::MemberState,
            model::{Coordinator, Reply},
            tests::{error, settings, topics},
        },
        member_snapshot::Identity,
        membership::Membership,
    },
    error::{Error, ErrorCode, ErrorKind},
    record::TopicPartition,
};

#[derive(Debug)]
enum Request {
    Join { member_id: Arc<str>, metadata: bytes::Bytes },
    Sync { identity: Identity, assignments: Vec<(Arc<str>, bytes::Bytes)> },
    Heartbeat { identity: Identity },
    Leave { member_id: Arc<str> },
}

#[derive(Debug)]
enum Happening {
    Arrives { from: usize, attempt: AttemptId, request: Request },
    Answered { to: usize, attempt: AttemptId, reply: Reply },
    Counted { to: usize, attempt: AttemptId, topics: BTreeSet<Arc<str>> },
    Revoked { by: usize, attempt: AttemptId },
    Polls { by: usize },
    Mischief,
}

struct Peer {
    member: ClassicMembership,
    owned: BTreeSet<TopicPartition>,
    last_heartbeat: Instant,
    heartbeat_in_flight: Option<AttemptId>,
    fatal: bool,
}

/// The way in which the members of a group rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Eager,
    Cooperative,
    /// During the move from one to the other: half of the members still have both assignors, and
    /// are eager.
    Mixed,
}

impl Kind {
    fn protocol(self) -> &'static str {
        if self == Self::Eager { "range" } else { "cooperative-sticky" }
    }
}

struct World {
    kind: Kind,
    seed: u64,
    now: Instant,
    rng: StdRng,
    calm: bool,
    peers: Vec<Option<Peer>>,
    coordinator: Coordinator,
    /// By time, then by order of arrival.
    agenda: BTreeMap<(Instant, u64), Happening>,
    happenings: u64,
    counts: BTreeMap<Arc<str>, usize>,
    unanswered: Vec<(usize, AttemptId)>,
    assignments: usize,
}

impl World {
    fn new(kind: Kind, seed: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            kind,
            seed,
            now,
            rng: StdRng::seed_from_u64(seed),
            calm: false,
            peers: Vec::new(),
            coordinator: Coordinator::new(&settings(None), kind.protocol()),
            agenda: BTreeMap::new(),
            happenings: 0,
            counts: [("t".into(), 4), ("u".into(), 3)].into(),
            unanswered: Vec::new(),
            assignments: 0,
        };
        for _ in 0..world.rng.random_range(1..=4) {
            world.new_peer();
        }
        world.later(1_000, Happening::Mischief);
        world
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.calm && self.rng.random_range(0..100) < percent
    }

    fn later(&mut self, millis: u64, happening: Happening) {
        self.happenings += 1;
        self.agenda.insert((self.now + Duration::from_millis(millis), self.happenings), happening);
    }

    fn latency(&mut self) -> u64 {
        if self.chance(5) { self.rng.random_range(1..10_000) } else { self.rng.random_range(1..50) }
    }

    fn new_peer(&mut self) {
        let backoff = (Duration::from_millis(100), Duration::from_secs(1));
        let seed = self.rng.random();
        let by = self.peers.len();
        let assignors: Vec<Arc<dyn Assignor>> = match self.kind {
            Kind::Eager => vec![Arc::new(RangeAssignor)],
            Kind::Mixed if by.is_multiple_of(2) => vec![Arc::new(RangeAssignor), Arc::new(CooperativeStickyAssignor)],
            Kind::Cooperative | Kind::Mixed => vec![Arc::new(CooperativeStickyAssignor)],
        };
        let mut member = ClassicMembership::new(GroupSettings { assignors, ..settings(None) }, backoff, seed, self.now);
        member.subscribe(self.now, Some(topics(&["t"])));
        self.peers.push(Some(Peer {
            member,
            owned: BTreeSet::new(),
            last_heartbeat: self.now,
            heartbeat_in_flight: None,
            fatal: false,
        }));
        self.later(1_000, Happening::Polls { by });
        self.drain(by);
    }

    fn send(&mut self, from: usize, attempt: AttemptId, request: Request) {
        let latency = self.latency();
        // Requests without a response time out, as in the task.
        let timeout = if matches!(request, Request::Heartbeat { .. }) { 22_500 } else { 305_000 };
        if let Some(reply) = Self::failure(&request, Error::new(ErrorKind::Timeout, "no answer")) {
            self.later(timeout, Happening::Answered { to: from, attempt, reply });
        }
        if self.chance(8) {
            // Lost on the way to the broker, or on the way back.
            let pause = self.rng.random_range(1..20_000);
            let reply = Self::failure(&request, Error::new(ErrorKind::Network, "lost"));
            if self.chance(50) {
                self.unanswered.push((from, attempt));
                self.later(latency, Happening::Arrives { from, attempt, request });
            }
            if let Some(reply) = reply {
                self.later(pause, Happening::Answered { to: from, attempt, reply });
            }
        } else if self.chance(8) {
            let codes = [
                ErrorCode::NOT_COORDINATOR,
                ErrorCode::COORDINATOR_NOT_AVAILABLE,
                ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
                ErrorCode::UNKNOWN_MEMBER_ID,
                ErrorCode::ILLEGAL_GENERATION,
                ErrorCode::REBALANCE_IN_PROGRESS,
                ErrorCode::GROUP_AUTHORIZATION_FAILED,
                ErrorCode::UNKNOWN_SERVER_ERROR,
            ];
            let code = codes[self.rng.random_range(0..codes.len())];
            if let Some(reply) = Self::failure(&request, error(code)) {
                self.later(latency, Happening::Answered { to: from, attempt, reply });
            }
        } else {
            self.later(latency, Happening::Arrives { from, attempt, request });
        }
    }

    fn failure(request: &Request, error: Error) -> Option<Reply> {
        match request {
            Request::Join { .. } => Some(Reply::Joined(JoinOutcome::Failed(error))),
            Request::Sync { .. } => Some(Reply::Synced(Err(error))),
            Request::Heartbeat { .. } => Some(Reply::Heartbeat(Err(error))),
            Request::Leave { .. } => None,
        }
    }

    /// Carries out a member's actions, and checks them against the rules.
    fn drain(&mut self, i: usize) {
        loop {
            let Some(peer) = &mut self.peers[i] else { return };
            let Some(action) = peer.member.next_action() else { return };
            match action {
                Action::Send { attempt, request: ClassicRequest::Join { member_id, protocols, .. } } => {
                    assert!(
                        peer.member.cooperative || peer.owned.is_empty(),
                        "seed {}: joins while it owns partitions",
                        self.seed
                    );
                    peer.heartbeat_in_flight = None;
                    let chosen = self.kind.protocol();
                    let metadata = protocols.into_iter().find(|(name, _)| &**name == chosen).unwrap().1;
                    self.send(i, attempt, Request::Join { member_id, metadata });
                }
                Action::Send { attempt, request: ClassicRequest::Count { topics } } => {
                    let pause = self.latency();
                    self.later(pause, Happening::Counted { to: i, attempt, topics });
                }
                Action::Send { attempt, request: ClassicRequest::Sync { identity, assignments, .. } } => {
                    peer.last_heartbeat = self.now;
                    self.send(i, attempt, Request::Sync { identity, assignments });
                }
                Action::Send { attempt, request: ClassicRequest::Heartbeat { identity } } => {
                    peer.last_heartbeat = self.now;
                    peer.heartbeat_in_flight = Some(attempt);
                    self.send(i, attempt, Request::Heartbeat { identity });
                }
                Action::Leave(LeaveGroup { member_id, .. }) => self.send(i, AttemptId(0), Request::Leave { member_id }),
                Action::Assigned { partitions } => {
                    let eager = !peer.member.cooperative;
                    assert!(!eager || peer.owned.is_empty(), "seed {}: assigned before giving up", self.seed);
                    for partition in partitions {
                        assert!(peer.owned.insert(partition), "seed {}: assigned twice", self.seed);
                    }
                    let counts = &self.counts;
                    peer.member.metadata_changed(self.now, |topic| {
                        counts.get(topic).map(|&count| vec![PartitionRacks::new(); count])
                    });
                    self.assignments += 1;
                    self.one_owner_each();
                }
                Action::Revoke { attempt, partitions } => {
                    let asked: BTreeSet<_> = partitions.into_iter().collect();
                    assert!(asked.is_subset(&peer.owned) && !asked.is_empty(), "seed {}: {asked:?}", self.seed);
                    assert!(peer.member.cooperative || asked == peer.owned, "seed {}: {asked:?}", self.seed);
                    let pause = if self.chance(3) { 400_000 } else { self.rng.random_range(1..20_000) };
                    self.later(pause, Happening::Revoked { by: i, attempt });
                }
                Action::Lost { partitions } => {
                    let lost: BTreeSet<_> = partitions.into_iter().collect();
                    assert!(lost.is_subset(&peer.owned), "seed {}: lost partitions that it did not own", self.seed);
                    peer.owned.retain(|partition| !lost.contains(partition));
                }
                Action::Error { fatal, .. } => peer.fatal |= fatal,
                Action::AwaitPoll => {}
            }
        }
    }

    fn one_owner_each(&self) {
        let mut owners = BTreeMap::new();
        for (i, peer) in self.peers.iter().enumerate() {
            for partition in peer.iter().flat_map(|peer| &peer.owned) {
                let other = owners.insert(partition, i);
                assert_eq!(other, None, "seed {}: {partition} has another owner than {i}", self.seed);
            }
        }
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
            Happening::Arrives { from, attempt, request } => {
                let (now, address) = (self.now, (from, attempt));
                match request {
                    Request::Join { member_id, metadata } => self.coordinator.join(now, address, &member_id, metadata),
                    Request::Sync { identity, assignments } => {
                        self.coordinator.sync(now, address, &identity, assignments);
                    }
                    Request::Heartbeat { identity } => self.coordinator.heartbeat(now, address, &identity),
                    Request::Leave { member_id } => self.coordinator.leave(now, &member_id),
                }
            }
            Happening::Answered { to, attempt, reply } => self.with(to, |peer, now| match reply {
                Reply::Joined(joined) => peer.member.joined(now, attempt, joined),
                Reply::Synced(answer) => peer.member.synced(now, attempt, answer),
                Reply::Heartbeat(answer) => {
                    if peer.heartbeat_in_flight == Some(attempt) {
                        peer.heartbeat_in_flight = None;
                        if answer.is_err() {
                            // It is repeated after a backoff that starts now, whatever time the
                            // failure took.
                            peer.last_heartbeat = now;
                        }
                    }
                    peer.member.heartbeat_answered(now, attempt, answer);
                }
            }),
            Happening::Counted { to, attempt, topics } => {
                let known = topics
                    .into_iter()
                    .filter_map(|topic| Some((topic.clone(), vec![PartitionRacks::new(); *self.counts.get(&topic)?])));
                let known = known.collect();
                self.with(to, |peer, now| peer.member.partitions_counted(now, attempt, known));
            }
            Happening::Revoked { by, attempt } => self.with(by, |peer, now| {
                // The consumer answers only for partitions that it was not told to be lost.
                if let MemberState::Revoking { attempt: awaited, partitions, .. } = &peer.member.state
                    && *awaited == attempt
                {
                    peer.owned.retain(|partition| !partitions.contains(partition));
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
            Happening::Mischief => self.mischief(),
        }
    }

    fn mischief(&mut self) {
        if self.calm {
            return;
        }
        let i = self.rng.random_range(0..self.peers.len());
        match self.rng.random_range(0..7) {
            0 if self.peers.len() < 8 => self.new_peer(),
            1 => self.peers[i] = None,
            2 => self.with(i, |peer, now| peer.member.subscribe(now, None)),
            3 => self.with(i, |peer, now| peer.member.subscribe(now, Some(topics(&["t", "u"])))),
            4 => self.with(i, |peer, now| peer.member.subscribe(now, Some(topics(&["t"])))),
            5 => self.coordinator.moved(self.now),
            _ => {
                let count = self.rng.random_range(0..6);
                self.counts.insert("t".into(), count);
                (0..self.peers.len()).for_each(|i| self.show_counts(i));
            }
        }
        let pause = self.rng.random_range(1..60_000);
        self.later(pause, Happening::Mischief);
    }

    fn show_counts(&mut self, i: usize) {
        let counts = self.counts.clone();
        self.with(i, |peer, now| {
            peer.member
                .metadata_changed(now, |topic| counts.get(topic).map(|&count| vec![PartitionRacks::new(); count]))
        });
    }

    /// Runs until that time.
    fn run_to(&mut self, end: Instant) {
        let mut steps = 0_u32;
        loop {
            steps += 1;
            assert!(steps < 1_000_000, "seed {}: the run does not end", self.seed);
            let agenda = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let members = self.peers.iter().flatten().filter_map(|peer| peer.member.next_wake()).min();
            let next = [agenda, members, self.coordinator.next_wake()].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = next.max(self.now);
            for i in 0..self.peers.len() {
                self.with(i, |peer, now| peer.member.tick(now));
            }
            self.coordinator.expire(self.now);
            while self.agenda.first_key_value().is_some_and(|(&(at, _), _)| at <= self.now) {
                let Some((_, happening)) = self.agenda.pop_first() else { break };
                self.happen(happening);
            }
            for ((to, attempt), reply) in std::mem::take(&mut self.coordinator.replies) {
                if !self.unanswered.contains(&(to, attempt)) {
                    let latency = self.latency();
                    self.later(latency, Happening::Answered { to, attempt, reply });
                }
            }
            self.heartbeats_in_time();
        }
    }

    fn heartbeats_in_time(&self) {
        for peer in self.peers.iter().flatten() {
            assert!(!peer.fatal, "seed {}: nothing fatal happened", self.seed);
            if matches!(peer.member.state, MemberState::Stable | MemberState::Revoking { .. })
                && peer.heartbeat_in_flight.is_none()
            {
                let silence = self.now - peer.last_heartbeat;
                assert!(silence <= settings(None).heartbeat_interval, "seed {}: silent for {silence:?}", self.seed);
            }
        }
    }

    /// All subscribed members are in one generation, and every partition has its owner.
    fn settled(&mut self) {
        assert!(self.coordinator.is_stable(), "seed {}", self.seed);
        let mut wanted = BTreeSet::new();
        for peer in self.peers.iter().flatten() {
            if let Some(topics) = &peer.member.topics {
                assert!(
                    matches!(peer.member.state, MemberState::Stable),
                    "seed {}: {:?}",
                    self.seed,
                    peer.member.state
                );
                assert_eq!(peer.member.identity.generation, self.coordinator.generation, "seed {}", self.seed);
                assert_eq!(*topics, peer.member.joined_topics, "seed {}", self.seed);
                wanted.extend(topics.iter().cloned());
            } else {
                assert!(
                    matches!(peer.member.state, MemberState::Unsubscribed),
                    "seed {}: {:?}",
                    self.seed,
                    peer.member.state
                );
            }
        }
        let all: BTreeSet<TopicPartition> = self
            .counts
            .iter()
            .filter(|(topic, _)| wanted.contains(*topic))
            .flat_map(|(topic, &count)| (0..count).map(|n| TopicPartition::new(topic.clone(), n as i32)))
            .collect();
        let owned: BTreeSet<TopicPartition> =
            self.peers.iter().flatten().flat_map(|peer| peer.owned.iter().cloned()).collect();
        self.one_owner_each();
        assert_eq!(owned, all, "seed {}", self.seed);
    }
}

fn goes_wrong_and_settles(kind: Kind) {
    let mut assignments = 0;
    for seed in 0..60 {
        let mut world = World::new(kind, seed);
        let start = world.now;
        world.run_to(start + Duration::from_secs(1_800));
        world.calm = true;
        // A reader may be in its longest pause and a join in its longest wait, and then all members
        // join again.
        world.run_to(start + Duration::from_secs(1_800 + 1_500));
        world.settled();
        assignments += world.assignments;
    }
    assert!(assignments > 2_000, "too few assignments: {assignments}");
}

#[test]
fn eager_members_settle_with_one_owner() {
    goes_wrong_and_settles(Kind::Eager);
}

#[test]
fn cooperative_members_settle_with_one_owner() {
    goes_wrong_and_settles(Kind::Cooperative);
}

#[test]
fn mixed_members_settle_with_one_owner() {
    goes_wrong_and_settles(Kind::Mixed);
}
