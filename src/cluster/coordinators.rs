//! The coordinators of groups and transactional ids.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Backoff, CoordinatorKind};
use crate::cluster::{
    deadline::saturating_deadline,
    single_flight::{Promise, SingleFlight},
};

pub(crate) type Key = (CoordinatorKind, Arc<str>);

#[derive(Debug)]
pub(super) struct Coordinators(Mutex<HashMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    state: LookupState,
    backoff: Backoff,
    found_at: Option<Instant>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
enum LookupState {
    Unknown,
    Known(i32),
    LookingUp(SingleFlight<i32>),
}

pub(crate) enum CoordinatorLookup {
    Known(i32),
    Shared(SingleFlight<i32>),
    Begin { landing: Promise<i32>, flight: SingleFlight<i32>, not_before: Option<Instant> },
}

impl Coordinators {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the known coordinator, or the look-up under way, or a new look-up that the caller
    /// has to start.
    pub(crate) fn look_up(&self, key: &Key, backoff: impl FnOnce() -> Backoff) -> CoordinatorLookup {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
            state: LookupState::Unknown,
            backoff: backoff(),
            found_at: None,
            not_before: None,
        });
        match &entry.state {
            LookupState::Known(node) => return CoordinatorLookup::Known(*node),
            LookupState::LookingUp(flight) if !flight.is_over() => return CoordinatorLookup::Shared(flight.clone()),
            _ => {}
        }
        let (landing, flight) = SingleFlight::new();
        entry.state = LookupState::LookingUp(flight.clone());
        CoordinatorLookup::Begin { landing, flight, not_before: entry.not_before }
    }

    pub(crate) fn found(&self, key: &Key, node: i32, now: Instant) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.state = LookupState::Known(node);
            entry.found_at = Some(now);
            entry.not_before = None;
        }
    }

    pub(crate) fn failed(&self, key: &Key, now: Instant, pause: impl FnOnce(&mut Backoff) -> Duration) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.state = LookupState::Unknown;
            entry.not_before = Some(saturating_deadline(now, pause(&mut entry.backoff)));
        }
    }

    /// Drops a node that answered that it is not the coordinator, or cannot be reached; a different
    /// node that is known by now stays. The next look-up is immediate, unless the last one ended
    /// less than `settled` ago, because brokers go on naming a node for a while that has lost the
    /// role, or does not have it yet.
    pub(crate) fn forget(
        &self,
        key: &Key,
        node: i32,
        now: Instant,
        settled: Duration,
        pause: impl FnOnce(&mut Backoff) -> Duration,
    ) {
        if let Some(entry) = self.lock().get_mut(key)
            && matches!(entry.state, LookupState::Known(known) if known == node)
        {
            entry.state = LookupState::Unknown;
            if entry.found_at.is_some_and(|at| now < saturating_deadline(at, settled)) {
                entry.not_before = Some(saturating_deadline(now, pause(&mut entry.backoff)));
            } else {
                entry.backoff.reset();
            }
        }
    }
}
