//! When to ask for metadata, and for what.
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

/// How long the first broker that is asked may take, before another one is.
const PATIENCE: Duration = Duration::from_secs(5);

/// The least time between two lines about starts from the bootstrap addresses.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// Topics that are wanted, and how old and how sure what is known of them is.
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
    /// Topics that are wanted and whose names are not known yet, and whether a broker has answered
    /// about them since the wanted topics were last asked for.
    ids: HashMap<Uuid, bool>,
    all: bool,
    /// The picture is known to be wrong, or there is none yet.
    stale: bool,
    /// The whole picture is asked for no earlier than this: after an answer that was not the last
    /// word.
    paced_until: Option<Instant>,
    /// Nothing is asked earlier than this: after an attempt that failed.
    failed_until: Option<Instant>,
    last_success: Option<Instant>,
    failing_since: Option<Instant>,
    rebootstrap: bool,
    rebootstrap_logged_at: Option<Instant>,
}

#[derive(Debug)]
struct WantedTopic {
    used: Instant,
    /// Whether a broker has answered about it at all.
    answered: bool,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlanStep {
    Ask(MetadataScope),
    Wait(Instant),
}

impl MetadataPlan {
    /// When a broker last answered.
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
            attempt_timeouts: Backoff::new(PATIENCE.min(settings.request_timeout), settings.request_timeout),
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

    /// Keeps topics in the picture; true if one of them is new, so that it is time to ask.
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

    /// Looks for these topics until their names are known, and no longer for those that were named
    /// before; true if one of them is new, so that it is time to ask.
    pub(super) fn want_ids(&mut self, ids: &[Uuid]) -> bool {
        self.ids.retain(|id, _| ids.contains(id));
        let before = self.ids.len();
        for id in ids {
            self.ids.entry(*id).or_insert(false);
        }
        self.ids.len() > before
    }

    /// Keeps all topics in the picture, or no longer; true if it is time to ask.
    pub(super) fn want_all(&mut self, all: bool) -> bool {
        let news = all && !self.all;
        self.all = all;
        if news {
            self.stale = true;
            self.paced_until = None;
        }
        news
    }

    /// Whether the picture says of every wanted topic all that can be said of it.
    pub(super) fn is_satisfied_by(&self, metadata: &Metadata) -> bool {
        let wanted = self.wanted.iter().filter(|(_, want)| want.answered).map(|(name, _)| metadata.topics.get(name));
        let others = self.all.then(|| metadata.topics.values().map(Some));
        wanted.chain(others.into_iter().flatten()).all(|topic| topic.is_some_and(|topic| topic.is_settled()))
    }

    pub(super) fn wants(&self, topic: &str) -> bool {
        self.all || self.wanted.contains_key(topic)
    }

    /// The picture is wrong; true if that was not known.
    pub(super) fn refresh(&mut self) -> bool {
        !std::mem::replace(&mut self.stale, true)
    }

    /// What is to be done now. A question that it gives is as good as asked: `succeeded` or
    /// `failed` has to follow.
    pub(super) fn next(&mut self, now: Instant) -> PlanStep {
        if let Some(until) = self.failed_until.filter(|until| now < *until) {
            return PlanStep::Wait(until);
        }
        let (max_idle, all) = (self.max_idle, self.all);
        self.wanted.retain(|_, want| !want.answered || now < saturating_deadline(want.used, max_idle));
        let expiry = self.last_success.map_or(now, |at| saturating_deadline(at, self.max_age));
        // What a broker did not know by its id is looked for again, with all the rest.
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

    /// How long to wait for an answer before asking somewhere else: longer with every failure, up
    /// to the request timeout, so that a cluster that is slow as a whole is not asked for ever
    /// without being heard.
    pub(super) fn attempt_timeout(&mut self) -> Duration {
        self.attempt_timeouts.next(&mut self.rng)
    }

    /// An answer came, which made this picture; `changed`: it brought news.
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
                // What was found stays in the picture, until whoever asked says whether it wants it
                // by its name.
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

    /// No broker answered, or none with something that can be used.
    pub(super) fn failed(&mut self, now: Instant) {
        self.stale = true;
        let since = *self.failing_since.get_or_insert(now);
        self.failed_until = Some(saturating_deadline(now, self.backoff.next(&mut self.rng)));
        if self.trigger.is_some_and(|trigger| now >= saturating_deadline(since, trigger)) {
            self.rebootstrap = true;
            self.failing_since = Some(now);
        }
    }

    /// A broker said that this client has to start from its bootstrap addresses again
    /// (REBOOTSTRAP_REQUIRED). Whether the task has to wake up for it.
    pub(super) fn require_rebootstrap(&mut self) -> bool {
        self.rebootstrap |= self.trigger.is_some();
        self.refresh()
    }

    /// Whether it is time to start from the bootstrap addresses again (KIP-899, KIP-1102); asked
    /// once.
    pub(super) fn take_rebootstrap(&mut self) -> bool {
        std::mem::take(&mut self.rebootstrap)
    }

    /// Whether the log may be told of another start from the bootstrap addresses: brokers may ask
    /// for one in each answer.
    pub(super) fn may_log_rebootstrap(&mut self, now: Instant) -> bool {
        let may = self.rebootstrap_logged_at.is_none_or(|at| now >= saturating_deadline(at, BETWEEN_LINES));
        if may {
            self.rebootstrap_logged_at = Some(now);
        }
        may
    }

    /// Whether going back to the bootstrap addresses is allowed.
    pub(super) fn may_rebootstrap(&self) -> bool {
        self.trigger.is_some()
    }
}
