//! Fetch sessions (KIP-227): the broker remembers the partitions that a consumer reads, and returns
//! only those that changed.
//!
//! Sans-IO.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::error::ErrorCode;

/// A session that was not used for this long may be evicted, and one that is this old may be
/// evicted by a larger one.
const EVICTION: Duration = Duration::from_secs(120);

/// A partition of a session, identified by name before Fetch v13 and by id from then on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) topic: Box<str>,
    pub(crate) id: Uuid,
    pub(crate) partition: i32,
}

/// A consumer's fetch parameters for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) max_bytes: i32,
}

#[derive(Clone, Debug)]
struct Cached {
    key: Key,
    wanted: Wanted,
    /// The value that the consumer was sent last; −1 makes sure that the next response includes the
    /// partition.
    high_watermark: i64,
    log_start: i64,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    created: Instant,
    used: Instant,
    /// In serving order: partitions that had data move to the back, so that none starves.
    partitions: Vec<Cached>,
}

/// The sessions of one broker.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: HashMap<i32, Session>,
    next: i32,
}

/// The mode in which a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// There is no session: all partitions are in the response, and none is remembered.
    Sessionless,
    /// A new session began: all partitions are in the response.
    Full(i32),
    /// Within a session: partitions that did not change are left out.
    Incremental(i32),
}

impl Mode {
    /// Returns the session id for the response.
    pub(crate) fn session_id(self) -> i32 {
        match self {
            Mode::Sessionless => 0,
            Mode::Full(id) | Mode::Incremental(id) => id,
        }
    }
}

/// The session part of a Fetch request.
#[derive(Debug)]
pub(crate) struct SessionRequest {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    /// True if topics are identified by id.
    pub(crate) by_id: bool,
    pub(crate) wanted: Vec<(Key, Wanted)>,
    pub(crate) forgotten: Vec<Key>,
}

/// The partitions to read, in their order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) partitions: Vec<(Key, Wanted)>,
}

impl Sessions {
    /// Applies a request to the sessions, of which `slots` are kept at most. An error is the whole
    /// response.
    pub(crate) fn begin(&mut self, request: SessionRequest, slots: usize, now: Instant) -> Result<Plan, ErrorCode> {
        const FINAL: i32 = -1;
        const INITIAL: i32 = 0;
        if request.epoch == FINAL || request.epoch == INITIAL {
            self.open.remove(&request.id);
            let opens = request.epoch == INITIAL && !request.wanted.is_empty();
            let mode = match opens && self.make_room(request.wanted.len(), slots, now) {
                true => Mode::Full(self.open(&request, now)),
                false => Mode::Sessionless,
            };
            return Ok(Plan { mode, partitions: request.wanted });
        }
        let session = self.open.get_mut(&request.id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != request.epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != request.by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        session.used = now;
        // In Kafka's order: a partition that one request both adds and forgets is forgotten.
        session.take(request.wanted);
        if !request.forgotten.is_empty() {
            session.partitions.retain(|cached| !request.forgotten.contains(&cached.key));
        }
        let partitions: Vec<_> = session.partitions.iter().map(|cached| (cached.key.clone(), cached.wanted)).collect();
        if partitions.is_empty() {
            self.open.remove(&request.id);
            return Ok(Plan { mode: Mode::Sessionless, partitions });
        }
        Ok(Plan { mode: Mode::Incremental(request.id), partitions })
    }

    /// Returns for each partition whether it belongs in the response, given the state in which it
    /// was found; remembers the values that the consumer is sent.
    pub(crate) fn answer(&mut self, mode: Mode, found: &[(&Key, Found)]) -> Vec<bool> {
        let (id, incremental) = match mode {
            Mode::Sessionless => return vec![true; found.len()],
            Mode::Full(id) => (id, false),
            Mode::Incremental(id) => (id, true),
        };
        let Some(session) = self.open.get_mut(&id) else { return vec![true; found.len()] };
        let places = session.places();
        let mut served = vec![false; session.partitions.len()];
        let mut answered = Vec::with_capacity(found.len());
        for (key, found) in found {
            let at = places.get(*key).copied();
            let Some(cached) = at.and_then(|at| session.partitions.get_mut(at)) else {
                answered.push(true);
                continue;
            };
            let changed = cached.high_watermark != found.high_watermark || cached.log_start != found.log_start;
            answered.push(!incremental || changed || found.has_data || found.error);
            cached.log_start = found.log_start;
            cached.high_watermark = if found.error { -1 } else { found.high_watermark };
            if let Some(served) = at.and_then(|at| served.get_mut(at)) {
                *served = found.has_data;
            }
        }
        let (back, front): (Vec<_>, Vec<_>) =
            session.partitions.drain(..).zip(served).partition(|&(_, had_data)| had_data);
        session.partitions.extend(front.into_iter().chain(back).map(|(cached, _)| cached));
        answered
    }

    /// Returns the partitions that a request will read, without changing anything.
    pub(crate) fn peek(&self, id: i32) -> impl Iterator<Item = &Key> {
        self.open.get(&id).into_iter().flat_map(|session| session.partitions.iter().map(|cached| &cached.key))
    }

    /// Drops all sessions, as a broker does when it restarts.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Returns the number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Makes room for a session with that number of partitions, evicting another one if necessary;
    /// returns true if there is room. The rules are those of Kafka's `FetchSessionCache`.
    fn make_room(&mut self, partitions: usize, slots: usize, now: Instant) -> bool {
        if self.open.len() < slots {
            return true;
        }
        let long = |since: Instant| now.saturating_duration_since(since) > EVICTION;
        let unused = self.open.iter().min_by_key(|(id, session)| (session.used, **id));
        let unused = unused.filter(|(_, session)| long(session.used)).map(|(&id, _)| id);
        let smaller = || {
            let old = self.open.iter().filter(|(_, session)| long(session.created));
            let smallest = old.min_by_key(|(id, session)| (session.partitions.len(), **id));
            smallest.filter(|(_, session)| session.partitions.len() < partitions).map(|(&id, _)| id)
        };
        let evicted = unused.or_else(smaller);
        evicted.is_some_and(|id| self.open.remove(&id).is_some())
    }

    fn open(&mut self, request: &SessionRequest, now: Instant) -> i32 {
        self.next = self.next.checked_add(1).unwrap_or(1);
        let mut session = Session { epoch: 1, by_id: request.by_id, created: now, used: now, partitions: Vec::new() };
        session.take(request.wanted.clone());
        self.open.insert(self.next, session);
        self.next
    }
}

/// State of a partition when a broker read it for a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) has_data: bool,
    pub(crate) error: bool,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
}

impl Session {
    fn places(&self) -> HashMap<Key, usize> {
        self.partitions.iter().enumerate().map(|(at, cached)| (cached.key.clone(), at)).collect()
    }

    fn take(&mut self, wanted: Vec<(Key, Wanted)>) {
        let mut places = self.places();
        for (key, wanted) in wanted {
            match places.get(&key).and_then(|&at| self.partitions.get_mut(at)) {
                Some(cached) => cached.wanted = wanted,
                None => {
                    places.insert(key.clone(), self.partitions.len());
                    self.partitions.push(Cached { key, wanted, high_watermark: -1, log_start: -1 });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> Key {
        Key { topic: "t".into(), id: Uuid::nil(), partition }
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted { offset, current_leader_epoch: -1, last_fetched_epoch: -1, max_bytes: 100 }
    }

    fn request(id: i32, epoch: i32, partitions: &[i32], forgotten: &[i32]) -> SessionRequest {
        SessionRequest {
            id,
            epoch,
            by_id: false,
            wanted: partitions.iter().map(|&p| (key(p), wanted(5))).collect(),
            forgotten: forgotten.iter().map(|&p| key(p)).collect(),
        }
    }

    /// Begins with room for a thousand sessions.
    fn begin(sessions: &mut Sessions, request: SessionRequest) -> Result<Plan, ErrorCode> {
        sessions.begin(request, 1000, Instant::now())
    }

    fn order(plan: &Plan) -> Vec<i32> {
        plan.partitions.iter().map(|(key, _)| key.partition).collect()
    }

    fn answer(sessions: &mut Sessions, mode: Mode, found: &[(i32, Found)]) -> Vec<bool> {
        let keys: Vec<Key> = found.iter().map(|&(partition, _)| key(partition)).collect();
        let found: Vec<_> = keys.iter().zip(found.iter().map(|&(_, found)| found)).collect();
        sessions.answer(mode, &found)
    }

    const NOTHING: Found = Found { has_data: false, error: false, high_watermark: 5, log_start: 0 };

    #[test]
    fn incremental_response_contains_only_changed_partitions() {
        let mut sessions = Sessions::default();
        let plan = begin(&mut sessions, request(0, 0, &[0, 1, 2], &[])).unwrap();
        assert_eq!(plan.mode, Mode::Full(1));
        assert_eq!(answer(&mut sessions, plan.mode, &[(0, NOTHING), (1, NOTHING), (2, NOTHING)]), [true; 3]);
        let plan = begin(&mut sessions, request(1, 1, &[], &[])).unwrap();
        assert_eq!((plan.mode, order(&plan)), (Mode::Incremental(1), vec![0, 1, 2]));
        let data = Found { has_data: true, high_watermark: 9, ..NOTHING };
        let error = Found { error: true, ..NOTHING };
        assert_eq!(answer(&mut sessions, plan.mode, &[(0, NOTHING), (1, data), (2, error)]), [false, true, true]);
        let plan = begin(&mut sessions, request(1, 2, &[], &[])).unwrap();
        assert_eq!(order(&plan), [0, 2, 1], "a partition that had data moves behind the others");
        let (read, deleted) = (Found { high_watermark: 9, ..NOTHING }, Found { log_start: 3, ..NOTHING });
        let told = answer(&mut sessions, plan.mode, &[(0, deleted), (2, NOTHING), (1, read)]);
        assert_eq!(told, [true, true, false], "a partition is in the response when its error ends");
    }

    #[test]
    fn adds_changes_and_forgets_session_partitions() {
        let mut sessions = Sessions::default();
        begin(&mut sessions, request(0, 0, &[0, 1], &[])).unwrap();
        let mut change = request(1, 1, &[2], &[0]);
        change.wanted.push((key(1), wanted(8)));
        let plan = begin(&mut sessions, change).unwrap();
        assert_eq!(plan.partitions, [(key(1), wanted(8)), (key(2), wanted(5))]);
        let plan = begin(&mut sessions, request(1, 2, &[1, 3], &[1])).unwrap();
        assert_eq!(order(&plan), [2, 3], "a partition that is both added and forgotten is forgotten");
        let plan = begin(&mut sessions, request(1, 3, &[], &[2, 3])).unwrap();
        assert_eq!((plan.mode, plan.partitions.len()), (Mode::Sessionless, 0));
        assert_eq!(begin(&mut sessions, request(1, 4, &[], &[])).unwrap_err(), ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    }

    #[test]
    fn rejects_wrong_session_ids_and_epochs() {
        let mut sessions = Sessions::default();
        assert_eq!(begin(&mut sessions, request(9, 1, &[], &[])).unwrap_err(), ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        begin(&mut sessions, request(0, 0, &[0], &[])).unwrap();
        assert_eq!(begin(&mut sessions, request(1, 2, &[], &[])).unwrap_err(), ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        let by_id = SessionRequest { by_id: true, ..request(1, 1, &[], &[]) };
        assert_eq!(begin(&mut sessions, by_id).unwrap_err(), ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        let plan = begin(&mut sessions, request(1, -1, &[0], &[])).unwrap();
        assert_eq!((plan.mode, order(&plan)), (Mode::Sessionless, vec![0]));
        assert_eq!(begin(&mut sessions, request(1, 1, &[], &[])).unwrap_err(), ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        let plan = begin(&mut sessions, request(0, 0, &[0], &[])).unwrap();
        assert_eq!(plan.mode, Mode::Full(2));
        let plan = begin(&mut sessions, request(2, 0, &[0], &[])).unwrap();
        assert_eq!(plan.mode, Mode::Full(3), "a new session replaces the old one");
        assert_eq!(begin(&mut sessions, request(2, 1, &[], &[])).unwrap_err(), ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    }

    #[test]
    fn full_cache_evicts_smaller_or_stale_sessions() {
        let mut sessions = Sessions::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let opened = |sessions: &mut Sessions, partitions: &[i32], seconds| {
            sessions.begin(request(0, 0, partitions, &[]), 2, at(seconds)).unwrap().mode
        };
        assert_eq!(opened(&mut sessions, &[0, 1], 0), Mode::Full(1));
        assert_eq!(opened(&mut sessions, &[0, 1, 2], 0), Mode::Full(2));
        assert_eq!(opened(&mut sessions, &[0, 1, 2, 3], 60), Mode::Sessionless, "both sessions are young");
        sessions.begin(request(1, 1, &[], &[]), 2, at(100)).unwrap();
        sessions.begin(request(2, 1, &[], &[]), 2, at(100)).unwrap();
        assert_eq!(opened(&mut sessions, &[0, 1], 130), Mode::Sessionless, "the new session is not larger");
        assert_eq!(opened(&mut sessions, &[0, 1, 2], 130), Mode::Full(3), "the new session replaces the smallest");
        assert_eq!(
            sessions.begin(request(1, 2, &[], &[]), 2, at(130)).unwrap_err(),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
        );
        assert_eq!(opened(&mut sessions, &[0], 221), Mode::Full(4), "the new session replaces the unused one");
        assert_eq!(
            sessions.begin(request(2, 2, &[], &[]), 2, at(221)).unwrap_err(),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
        );
        assert_eq!(sessions.len(), 2);
    }
}
