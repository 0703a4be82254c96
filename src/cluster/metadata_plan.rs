//! Decides when to ask for metadata, and for which topics.
//!
//! Sans-IO.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;
use uuid::Uuid;

use super::{Backoff, ClientSettings, Metadata, metadata_merge::MetadataScope};
use crate::cluster::deadline::saturating_deadline;

/// Longest wait for the first broker that is asked, before another one is asked.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// Shortest time between two log lines about rebootstraps.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// The topics that are wanted, and the age and reliability of the metadata.
#[derive(Debug)]
pub(super) struct MetadataPlan {
    max_age: Duration,
    max_idle: Duration,
    retry_backoff_max: Duration,
    trigger: Option<Duration>,
    backoff: Backoff,
    attempt_timeouts: Backoff,
    rng: StdRng,
    wanted: HashMap<Arc<str>, WantedTopic>,
    /// Ids of topics with names that are wanted and not known yet; true once a broker has answered
    /// about the id since the wanted topics were last asked for.
    ids: HashMap<Uuid, bool>,
    all: bool,
    /// True if the metadata is known to be wrong, or there is none yet.
    stale: bool,
    /// Earliest time at which all wanted topics are asked for again: one backoff after the last
    /// response.
    paced_until: Option<Instant>,
    /// Earliest time of any request, after a failed attempt.
    failed_until: Option<Instant>,
    last_success: Option<Instant>,
    failing_since: Option<Instant>,
    rebootstrap: bool,
    rebootstrap_logged_at: Option<Instant>,
}

#[derive(Debug)]
struct WantedTopic {
    used: Instant,
    /// True once a broker has answered about the topic.
    answered: bool,
}

/// The next step of the metadata task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlanStep {
    Ask(MetadataScope),
    Wait(Instant),
}

impl MetadataPlan {
    /// Returns the time of the last response.
    pub(super) fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    pub(super) fn new(settings: &ClientSettings, rng: StdRng) -> Self {
        Self {
            max_age: settings.metadata_max_age,
            max_idle: settings.metadata_max_idle,
            retry_backoff_max: settings.retry_backoff_max,
            trigger: settings.metadata_rebootstrap_trigger,
            backoff: Backoff::new(settings.retry_backoff, settings.retry_backoff_max),
            attempt_timeouts: Backoff::new(FIRST_ATTEMPT.min(settings.request_timeout), settings.request_timeout),
            rng,
            wanted: HashMap::new(),
            ids: HashMap::new(),
            all: false,
            stale: true,
            paced_until: None,
            failed_until: None,
            last_success: None,
            failing_since: None,
            rebootstrap: false,
            rebootstrap_logged_at: None,
        }
    }

    /// Keeps topics in the metadata. Returns true if one of them is new, so that it is time to ask.
    pub(super) fn want<'a>(&mut self, topics: impl IntoIterator<Item = &'a str>, now: Instant) -> bool {
        let mut news = false;
        for topic in topics {
            if let Some(want) = self.wanted.get_mut(topic) {
                want.used = now;
            } else {
                self.wanted.insert(Arc::from(topic), WantedTopic { used: now, answered: false });
                news = true;
            }
        }
        news
    }

    /// Looks for the topics with these ids until their names are known, and stops looking for those
    /// of earlier calls. Returns true if one of the ids is new, so that it is time to ask.
    pub(super) fn want_ids(&mut self, ids: &[Uuid]) -> bool {
        self.ids.retain(|id, _| ids.contains(id));
        let before = self.ids.len();
        for id in ids {
            self.ids.entry(*id).or_insert(false);
        }
        self.ids.len() > before
    }

    /// Keeps all topics in the metadata, or stops doing so. Returns true if it is time to ask.
    pub(super) fn want_all(&mut self, all: bool) -> bool {
        let news = all && !self.all;
        self.all = all;
        if news {
            self.stale = true;
            self.paced_until = None;
        }
        news
    }

    /// Returns true if the metadata has every wanted topic that a broker has answered about, and
    /// these topics are settled.
    pub(super) fn is_satisfied_by(&self, metadata: &Metadata) -> bool {
        let wanted = self.wanted.iter().filter(|(_, want)| want.answered).map(|(name, _)| metadata.topics.get(name));
        let others = self.all.then(|| metadata.topics.values().map(Some));
        wanted.chain(others.into_iter().flatten()).all(|topic| topic.is_some_and(|topic| topic.is_settled()))
    }

    pub(super) fn wants(&self, topic: &str) -> bool {
        self.all || self.wanted.contains_key(topic)
    }

    /// Marks the metadata as wrong. Returns true if it was not marked yet.
    pub(super) fn refresh(&mut self) -> bool {
        !std::mem::replace(&mut self.stale, true)
    }

    /// Returns the next step. A returned [`Ask`](PlanStep::Ask) counts as carried out:
    /// [`succeeded`](Self::succeeded) or [`failed`](Self::failed) has to follow.
    pub(super) fn next(&mut self, now: Instant) -> PlanStep {
        if let Some(until) = self.failed_until.filter(|until| now < *until) {
            return PlanStep::Wait(until);
        }
        let (max_idle, all) = (self.max_idle, self.all);
        self.wanted.retain(|_, want| !want.answered || now < saturating_deadline(want.used, max_idle));
        let expiry = self.last_success.map_or(now, |at| saturating_deadline(at, self.max_age));
        // An id that a broker did not know is looked up again, together with all wanted topics.
        let unknown = self.ids.values().any(|answered| *answered);
        let due = if self.stale || unknown { now } else { expiry };
        let due = self.paced_until.map_or(due, |paced| due.max(paced));
        if now >= due {
            self.stale = false;
            self.ids.values_mut().for_each(|answered| *answered = false);
            return PlanStep::Ask(if all {
                MetadataScope::All
            } else {
                MetadataScope::Topics(self.wanted.keys().cloned().collect())
            });
        }
        let unanswered = self.wanted.iter().filter(|(_, want)| !want.answered);
        let unanswered = unanswered.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>();
        if !unanswered.is_empty() {
            return PlanStep::Ask(MetadataScope::Topics(unanswered));
        }
        let ids = self.ids.iter().filter(|(_, answered)| !**answered).map(|(id, _)| *id).collect::<Vec<_>>();
        if !ids.is_empty() {
            return PlanStep::Ask(MetadataScope::Ids(ids));
        }
        PlanStep::Wait(due)
    }

    /// Returns the time to wait for a response before asking another broker: longer with every
    /// failure, up to the request timeout, otherwise a cluster that is slow as a whole would be
    /// asked for ever and never heard.
    pub(super) fn attempt_timeout(&mut self) -> Duration {
        self.attempt_timeouts.next(&mut self.rng)
    }

    /// Records a response and the metadata made from it; `changed` is true if the metadata differs
    /// from the last.
    pub(super) fn succeeded(&mut self, asked: &MetadataScope, metadata: &Metadata, changed: bool, now: Instant) {
        match asked {
            MetadataScope::All => self.wanted.values_mut().for_each(|want| want.answered = true),
            MetadataScope::Topics(names) => {
                for name in names {
                    if let Some(want) = self.wanted.get_mut(name) {
                        want.answered = true;
                    }
                }
            }
            MetadataScope::Ids(ids) => {
                // A topic that was found stays in the metadata until the caller wants it by its
                // name or lets it become idle.
                for name in ids.iter().filter_map(|id| metadata.names.get(id)) {
                    let found = WantedTopic { used: now, answered: true };
                    self.wanted.entry(Arc::clone(name)).or_insert(found).answered = true;
                }
                for id in ids {
                    self.ids.entry(*id).and_modify(|answered| *answered = true);
                }
            }
        }
        self.ids.retain(|id, _| !metadata.names.contains_key(id));
        let calm = self
            .last_success
            .is_none_or(|last| now > saturating_deadline(last, self.retry_backoff_max.saturating_mul(2)));
        if changed || calm {
            self.backoff.reset();
        }
        self.stale |= !self.is_satisfied_by(metadata);
        self.attempt_timeouts.reset();
        self.last_success = Some(now);
        self.failing_since = None;
        self.failed_until = None;
        self.paced_until = Some(saturating_deadline(now, self.backoff.next(&mut self.rng)));
    }

    /// Records that no broker answered, or none with a usable response.
    pub(super) fn failed(&mut self, now: Instant) {
        self.stale = true;
        let since = *self.failing_since.get_or_insert(now);
        self.failed_until = Some(saturating_deadline(now, self.backoff.next(&mut self.rng)));
        if self.trigger.is_some_and(|trigger| now >= saturating_deadline(since, trigger)) {
            self.rebootstrap = true;
            self.failing_since = Some(now);
        }
    }

    /// Records that a broker asked for a rebootstrap (REBOOTSTRAP_REQUIRED). Returns true if the
    /// task has to be woken.
    pub(super) fn require_rebootstrap(&mut self) -> bool {
        self.rebootstrap |= self.trigger.is_some();
        self.refresh()
    }

    /// Returns true once if it is time to rebootstrap (KIP-899, KIP-1102).
    pub(super) fn take_rebootstrap(&mut self) -> bool {
        std::mem::take(&mut self.rebootstrap)
    }

    /// Returns true if a further rebootstrap may be logged: brokers may ask for one in each
    /// response.
    pub(super) fn may_log_rebootstrap(&mut self, now: Instant) -> bool {
        let may = self.rebootstrap_logged_at.is_none_or(|at| now >= saturating_deadline(at, BETWEEN_LINES));
        if may {
            self.rebootstrap_logged_at = Some(now);
        }
        may
    }

    /// Returns true if rebootstrapping is allowed.
    pub(super) fn may_rebootstrap(&self) -> bool {
        self.trigger.is_some()
    }
}
