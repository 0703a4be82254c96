//! The topics that a consumer asks for, and their states: for its status, its reader and its log.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::consumer::subscription::topics::Subscription;
use crate::{
    cluster::Metadata,
    error::{Error, ErrorCode, ErrorKind},
    log::{Origin, event, several},
};

/// State of a topic that a consumer asks for, from [`TopicStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TopicState {
    /// Not known yet, because no broker has answered about the topic.
    Unknown,
    /// The topic exists, and the consumer may see it.
    Present,
    /// The topic does not exist (`UNKNOWN_TOPIC_OR_PARTITION`). Metadata is asked for it again; it
    /// is read as soon as it is created.
    Missing,
    /// The consumer has no right to the topic (`TOPIC_AUTHORIZATION_FAILED`). Metadata is asked for
    /// it again; it is read as soon as the right is granted.
    Forbidden,
    /// Brokers answer with another error than these. Metadata is asked for the topic again; it is
    /// read as soon as they name its partitions.
    Unavailable(ErrorCode),
}

impl TopicState {
    /// Returns the name of the state, for logs and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Present => "present",
            Self::Missing => "missing",
            Self::Forbidden => "forbidden",
            Self::Unavailable(_) => "unavailable",
        }
    }

    fn is_absent(self) -> bool {
        matches!(self, Self::Missing | Self::Forbidden)
    }

    /// Returns true if nothing can be consumed of the topic, which is reported to the reader if it
    /// lasts.
    fn is_in_the_way(self) -> bool {
        self.is_absent() || matches!(self, Self::Unavailable(_))
    }

    /// Returns the state that metadata gives a topic; `None` if it does not have the topic.
    fn of(metadata: &Metadata, topic: &str) -> Option<Self> {
        Some(match metadata.topic(topic)?.error {
            ErrorCode::NONE => Self::Present,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Self::Missing,
            ErrorCode::TOPIC_AUTHORIZATION_FAILED => Self::Forbidden,
            code => Self::Unavailable(code),
        })
    }
}

/// A topic that is subscribed to by name, or of which partitions are assigned, in
/// [`ConsumerStatus::topics`](crate::consumer::ConsumerStatus::topics).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicStatus {
    /// State of the topic.
    pub state: TopicState,
    /// Time for which the state has lasted.
    pub for_how_long: Duration,
}

/// State of a topic or a regular expression, and if it was reported.
#[derive(Debug)]
struct Tracked<T> {
    state: T,
    since: Instant,
    reported: bool,
}

impl<T: PartialEq> Tracked<T> {
    fn new(state: T, since: Instant) -> Self {
        Self { state, since, reported: false }
    }

    /// Sets a new state; if it differs, returns the one before and how long it lasted.
    fn change(&mut self, state: T, now: Instant) -> Option<(T, Duration)> {
        if self.state == state {
            return None;
        }
        let before = std::mem::replace(self, Self::new(state, now));
        Some((before.state, now.saturating_duration_since(before.since)))
    }
}

/// The topics that are asked for.
///
/// A topic that is missing, forbidden or unavailable is reported to the reader once that has lasted
/// for `topic.metadata.propagation.max.ms`, and again after every change of its state.
#[derive(Debug)]
pub(crate) struct WantedTopics {
    propagation: Duration,
    origin: Origin,
    subscription: Subscription,
    exclude_internal: bool,
    topics: BTreeMap<Arc<str>, Tracked<TopicState>>,
    /// True for each regular expression that matches a topic.
    patterns: BTreeMap<String, Tracked<bool>>,
}

/// State of the subscribed topics, for a member without partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// A topic exists, so other members have its partitions.
    Some,
    /// None of the topics exists.
    None,
    /// Not known yet, because no broker has answered about all of them.
    Unknown,
}

impl WantedTopics {
    pub(crate) fn new(propagation: Duration, origin: Origin) -> Self {
        Self {
            propagation,
            origin,
            subscription: Subscription::default(),
            exclude_internal: true,
            topics: BTreeMap::new(),
            patterns: BTreeMap::new(),
        }
    }

    /// Sets the subscription; an empty one means that nothing is subscribed to.
    pub(crate) fn subscribe(&mut self, subscription: Subscription, exclude_internal: bool) {
        self.subscription = subscription;
        self.exclude_internal = exclude_internal;
    }

    /// Updates the states of the subscribed topics, and of the topics with assigned partitions,
    /// from the metadata.
    pub(crate) fn update(&mut self, metadata: &Metadata, assigned: BTreeSet<Arc<str>>, now: Instant) {
        self.topics.retain(|name, _| self.subscription.names().contains(name) || assigned.contains(name));
        let mut appeared = Vec::new();
        for name in self.subscription.names().iter().chain(&assigned) {
            let known = self.topics.entry(name.clone()).or_insert_with(|| Tracked::new(TopicState::Unknown, now));
            let Some(state) = TopicState::of(metadata, name) else { continue };
            // A topic that is being created has no leader for a moment; until it has one, it counts
            // as missing.
            if known.state.is_absent() && matches!(state, TopicState::Unavailable(_)) {
                continue;
            }
            if let Some((before, lasted)) = known.change(state, now)
                && before.is_absent()
                && state == TopicState::Present
            {
                appeared.push((name.clone(), lasted));
            }
        }
        if let Some(absent) = appeared.iter().map(|(_, lasted)| *lasted).max() {
            let topics: Vec<_> = appeared.into_iter().map(|(name, _)| name).collect();
            let absent_s = absent.as_secs();
            event!(
                INFO, self.origin, topics = %several(&topics), count = topics.len(), absent_s,
                "topics exist or are visible now; they are consumed from now on"
            );
        }
        self.update_patterns(metadata, now);
    }

    fn update_patterns(&mut self, metadata: &Metadata, now: Instant) {
        if !self.subscription.has_patterns() {
            return self.patterns.clear();
        }
        let unmatched = self.subscription.unmatched(metadata, self.exclude_internal);
        self.patterns.retain(|pattern, _| self.subscription.patterns().any(|one| one == pattern));
        for pattern in self.subscription.patterns() {
            let matched = !unmatched.contains(&pattern);
            let known = self.patterns.entry(pattern.to_owned()).or_insert_with(|| Tracked::new(matched, now));
            let told = known.reported;
            if let Some((false, lasted)) = known.change(matched, now)
                && told
            {
                let unmatched_s = lasted.as_secs();
                event!(INFO, self.origin, pattern, unmatched_s, "a topic matches the regular expression now");
            }
        }
    }

    /// Logs conditions that have lasted for long enough, once, and returns the errors for the
    /// reader, each with its topics.
    pub(crate) fn report_missing(&mut self, now: Instant) -> Vec<(Error, Vec<Arc<str>>)> {
        let propagation = self.propagation;
        let due = |since: Instant| now.saturating_duration_since(since) >= propagation;
        let mut errors = Vec::new();
        let mut untold: Vec<(TopicState, Vec<Arc<str>>)> = Vec::new();
        for (name, known) in &mut self.topics {
            if !known.state.is_in_the_way() || known.reported || !due(known.since) {
                continue;
            }
            known.reported = true;
            match untold.iter_mut().find(|(state, _)| *state == known.state) {
                Some((_, topics)) => topics.push(name.clone()),
                None => untold.push((known.state, vec![name.clone()])),
            }
        }
        for (state, topics) in untold {
            let error = absence(state, &topics, propagation);
            event!(
                WARN, self.origin, topics = %several(&topics), count = topics.len(), %error,
                "topics cannot be consumed; they are consumed as soon as they are available"
            );
            errors.push((error, topics));
        }
        let mut patterns: Vec<&String> = Vec::new();
        for (pattern, known) in &mut self.patterns {
            if !known.state && !known.reported && due(known.since) {
                known.reported = true;
                patterns.push(pattern);
            }
        }
        if !patterns.is_empty() {
            event!(
                INFO, self.origin, patterns = %several(&patterns), count = patterns.len(),
                "no topic matches these regular expressions; topics that match are consumed as soon as they exist"
            );
        }
        errors
    }

    /// Returns the time at which [`report_missing`](Self::report_missing) has something to report,
    /// if nothing changes before.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let topics = self.topics.values().filter(|known| known.state.is_in_the_way() && !known.reported);
        let patterns = self.patterns.values().filter(|known| !known.state && !known.reported);
        let since = topics.map(|known| known.since).chain(patterns.map(|known| known.since));
        since.min().and_then(|since| since.checked_add(self.propagation))
    }

    /// Returns true if a topic is known to be missing or forbidden.
    pub(crate) fn is_absent(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|known| known.state.is_absent())
    }

    /// Returns true if any topic is known to be missing or forbidden.
    pub(crate) fn any_absent(&self) -> bool {
        self.topics.values().any(|known| known.state.is_absent())
    }

    /// Returns the state of the subscribed topics taken together.
    pub(crate) fn presence(&self) -> Presence {
        let names = self.subscription.names().iter();
        let mut names = names.map(|name| self.topics.get(name).map_or(TopicState::Unknown, |known| known.state));
        let any = names.clone().any(|state| state == TopicState::Present);
        if any || self.patterns.values().any(|known| known.state) {
            return Presence::Some;
        }
        if names.all(TopicState::is_absent) && self.patterns.len() == self.subscription.patterns().count() {
            return Presence::None;
        }
        Presence::Unknown
    }

    pub(crate) fn status(&self, now: Instant) -> BTreeMap<Arc<str>, TopicStatus> {
        let status = |(name, known): (&Arc<str>, &Tracked<TopicState>)| {
            let for_how_long = now.saturating_duration_since(known.since);
            (name.clone(), TopicStatus { state: known.state, for_how_long })
        };
        self.topics.iter().map(status).collect()
    }

    /// Returns the regular expressions that match no topic.
    pub(crate) fn unmatched(&self) -> Vec<String> {
        let unmatched = self.patterns.iter().filter(|(_, known)| !known.state);
        unmatched.map(|(pattern, _)| pattern.clone()).collect()
    }
}

fn absence(state: TopicState, topics: &[Arc<str>], propagation: Duration) -> Error {
    let (topics, ms) = (several(topics), propagation.as_millis());
    if state == TopicState::Forbidden {
        let what = format_args!(
            "the consumer has lacked rights to topics for {ms} ms (topic.metadata.propagation.max.ms), \
             which are read as soon as it may Describe and Read them: {topics}"
        );
        return Error::broker(ErrorCode::TOPIC_AUTHORIZATION_FAILED, what);
    }
    if let TopicState::Unavailable(code) = state {
        let what = format_args!(
            "metadata requests for topics have failed for {ms} ms (topic.metadata.propagation.max.ms); the topics are \
             read as soon as the brokers name their partitions: {topics}"
        );
        return Error::broker(code, what);
    }
    Error::new(
        ErrorKind::UnknownTopicOrPartition,
        format!(
            "topics have been missing for {ms} ms (topic.metadata.propagation.max.ms), and are \
             read as soon as they are created: {topics}: {}",
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        ),
    )
}

#[cfg(test)]
mod tests {
    use crate::cluster::TopicMetadata;
    use crate::consumer::subscription::wanted_topics::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn metadata_with(topics: &[(&str, ErrorCode)]) -> Metadata {
        let mut metadata = Metadata::default();
        for &(name, error) in topics {
            let name: Arc<str> = name.into();
            let topic = TopicMetadata { name: name.clone(), error, ..TopicMetadata::default() };
            metadata.topics.insert(name, Arc::new(topic));
        }
        metadata
    }

    fn wanted(topics: &[&str]) -> WantedTopics {
        let mut wanted = WantedTopics::new(30 * SECOND, Origin::default());
        wanted.subscribe(Subscription::parse(topics).unwrap(), true);
        wanted
    }

    const MISSING: ErrorCode = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    const FORBIDDEN: ErrorCode = ErrorCode::TOPIC_AUTHORIZATION_FAILED;

    #[test]
    fn missing_topics_are_reported_once_after_grace() {
        let (mut wanted, start) = (wanted(&["a", "b"]), Instant::now());
        assert_eq!((wanted.presence(), wanted.next_due()), (Presence::Unknown, None));
        let both = metadata_with(&[("a", MISSING), ("b", MISSING)]);
        wanted.update(&both, BTreeSet::new(), start);
        assert_eq!((wanted.presence(), wanted.next_due()), (Presence::None, Some(start + 30 * SECOND)));
        assert!(wanted.report_missing(start + 29 * SECOND).is_empty());
        wanted.update(&both, BTreeSet::new(), start + 29 * SECOND);
        let told = wanted.report_missing(start + 30 * SECOND);
        assert_eq!(told.len(), 1, "one error for both topics");
        assert_eq!((told[0].0.kind(), told[0].1.len()), (ErrorKind::UnknownTopicOrPartition, 2));
        assert!(wanted.report_missing(start + 999 * SECOND).is_empty() && wanted.next_due().is_none());
    }

    #[test]
    fn refused_topic_is_reported_with_error_code() {
        let (mut wanted, start) = (wanted(&["a", "b"]), Instant::now());
        let code = ErrorCode::LEADER_NOT_AVAILABLE;
        wanted.update(&metadata_with(&[("a", code), ("b", ErrorCode::NONE)]), BTreeSet::new(), start);
        assert_eq!((wanted.presence(), wanted.next_due()), (Presence::Some, Some(start + 30 * SECOND)));
        assert!(!wanted.is_absent("a"), "the topic may be available in a moment");
        let told = wanted.report_missing(start + 30 * SECOND);
        assert_eq!((told.len(), told[0].0.code(), told[0].1.len()), (1, Some(code), 1));
        assert!(wanted.report_missing(start + 99 * SECOND).is_empty());
    }

    #[test]
    fn created_topic_without_leader_stays_missing() {
        let (mut wanted, start) = (wanted(&["a"]), Instant::now());
        wanted.update(&metadata_with(&[("a", MISSING)]), BTreeSet::new(), start);
        wanted.update(&metadata_with(&[("a", ErrorCode::LEADER_NOT_AVAILABLE)]), BTreeSet::new(), start + SECOND);
        assert_eq!(wanted.presence(), Presence::None);
        wanted.update(&metadata_with(&[("a", ErrorCode::NONE)]), BTreeSet::new(), start + 2 * SECOND);
        assert_eq!(wanted.presence(), Presence::Some);
    }

    #[test]
    fn every_state_change_is_reported_again() {
        let (mut wanted, start) = (wanted(&["a"]), Instant::now());
        let states = [FORBIDDEN, MISSING, ErrorCode::NONE, MISSING, FORBIDDEN];
        let mut told = Vec::new();
        for (at, code) in (0..).step_by(100).zip(states) {
            let now = start + at * SECOND;
            wanted.update(&metadata_with(&[("a", code)]), BTreeSet::new(), now);
            assert!(wanted.report_missing(now).is_empty(), "the grace period begins again");
            told.extend(wanted.report_missing(now + 50 * SECOND).into_iter().map(|(error, _)| error.kind()));
        }
        let (missing, forbidden) = (ErrorKind::UnknownTopicOrPartition, ErrorKind::Authorization);
        assert_eq!(told, [forbidden, missing, missing, forbidden]);
    }

    #[test]
    fn transient_errors_do_not_change_state() {
        let (mut wanted, start) = (wanted(&["a"]), Instant::now());
        wanted.update(&metadata_with(&[("a", MISSING)]), BTreeSet::new(), start);
        wanted.update(&metadata_with(&[("a", ErrorCode::LEADER_NOT_AVAILABLE)]), BTreeSet::new(), start + SECOND);
        wanted.update(&metadata_with(&[]), BTreeSet::new(), start + 2 * SECOND);
        assert_eq!(wanted.status(start + 3 * SECOND)["a"].state, TopicState::Missing);
        assert_eq!(wanted.status(start + 3 * SECOND)["a"].for_how_long, 3 * SECOND);
    }

    #[test]
    fn watches_topics_only_while_assigned() {
        let (mut wanted, start) = (wanted(&[]), Instant::now());
        let gone = metadata_with(&[("a", MISSING)]);
        wanted.update(&gone, BTreeSet::from(["a".into()]), start);
        assert!(wanted.is_absent("a") && wanted.any_absent());
        wanted.update(&gone, BTreeSet::new(), start + SECOND);
        assert!(!wanted.is_absent("a") && wanted.report_missing(start + 60 * SECOND).is_empty());
    }

    #[test]
    fn unmatched_pattern_is_status_not_error() {
        let (mut wanted, start) = (wanted(&["^audit", "^x"]), Instant::now());
        assert_eq!(wanted.presence(), Presence::Unknown);
        wanted.update(&metadata_with(&[("orders", ErrorCode::NONE)]), BTreeSet::new(), start);
        assert_eq!((wanted.presence(), wanted.unmatched().len()), (Presence::None, 2));
        assert!(wanted.report_missing(start + 60 * SECOND).is_empty());
        wanted.update(&metadata_with(&[("audit-1", ErrorCode::NONE)]), BTreeSet::new(), start + 61 * SECOND);
        assert_eq!((wanted.presence(), wanted.unmatched()), (Presence::Some, vec!["^x".to_owned()]));
    }
}
