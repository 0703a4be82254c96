//! The user's side of a pair: log lines, errors from calls, and the errors in a status.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::{
    Consumer, Error,
    consumer::{GroupState, WaitReason},
    log::capture::FieldText,
};

/// The way in which the user learns of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// A call or a delivery returns it.
    Call,
    /// A line at WARN or ERROR.
    Log,
    /// `Consumer::status`.
    Status,
}

/// All that the user learns while a pair runs.
#[derive(Clone, Default)]
pub(super) struct Ear(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    news: Vec<(Instant, Way, String)>,
    /// Log lines at INFO and above: time, place in the code, and text.
    lines: Vec<(Instant, String, String)>,
    /// Time at which a record was last received or delivered.
    worked: Option<Instant>,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        *self.lock() = Heard::default();
    }

    pub(super) fn hear(&self, way: Way, text: impl Into<String>) {
        self.lock().news.push((Instant::now(), way, text.into()));
    }

    pub(super) fn works(&self) {
        self.lock().worked = Some(Instant::now());
    }

    /// Returns true if the client still works.
    pub(super) fn worked_since(&self, at: Instant) -> bool {
        self.lock().worked.is_some_and(|worked| worked >= at)
    }

    /// Notes an error that a call returned.
    pub(super) fn error(&self, error: &Error) {
        self.hear(Way::Call, error.to_string());
    }

    /// Notes a call's error, if any, and returns its value.
    pub(super) fn result<T>(&self, result: Result<T, Error>) -> Option<T> {
        result.inspect_err(|error| self.error(error)).ok()
    }

    /// Notes the errors in a consumer's status.
    pub(super) fn look_at(&self, consumer: &Consumer) {
        let status = consumer.status();
        for partition in status.partitions.values() {
            if let WaitReason::BackingOff(error) = &partition.waiting {
                self.hear(Way::Status, error.to_string());
            }
        }
        if let Some(GroupState::Ended(error)) = status.group.map(|group| group.state) {
            self.hear(Way::Status, error.to_string());
        }
        if let Some(error) = status.metadata_failure {
            self.hear(Way::Status, error.to_string());
        }
    }

    /// Returns for each way the time at which the user first saw one of `words`, counted from
    /// `since`.
    pub(super) fn first_of(&self, words: &[String], since: Instant) -> BTreeMap<Way, Duration> {
        let mut first = BTreeMap::new();
        for (at, way, text) in &self.lock().news {
            if *at >= since && words.iter().any(|word| text.contains(word)) {
                first.entry(*way).or_insert(at.duration_since(since));
            }
        }
        first
    }

    /// Returns the place in the code that writes most log lines, and their number.
    pub(super) fn loudest(&self) -> (usize, String) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (_, place, _) in &self.lock().lines {
            *counts.entry(place.clone()).or_default() += 1;
        }
        let loudest = counts.into_iter().max_by_key(|(_, count)| *count);
        loudest.map(|(place, count)| (count, place)).unwrap_or_default()
    }

    /// Returns all texts, for a pair that fails.
    pub(super) fn transcript(&self, since: Instant) -> String {
        let heard = self.lock();
        let mut all: Vec<(Instant, String)> = Vec::new();
        all.extend(heard.news.iter().map(|(at, way, text)| (*at, format!("{way:?}: {text}"))));
        all.extend(heard.lines.iter().map(|(at, _, text)| (*at, format!("line: {text}"))));
        all.sort();
        let mut out = String::new();
        let mut last = String::new();
        for (at, text) in all {
            if text != last {
                writeln!(out, "      {:7.2}s {text}", at.saturating_duration_since(since).as_secs_f64()).unwrap();
            }
            last = text;
        }
        out
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ottla") && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = FieldText(String::new());
        event.record(&mut line);
        let place = format!("{}:{}", metadata.file().unwrap_or(""), metadata.line().unwrap_or(0));
        let text = format!("{} {}:{}", metadata.level(), place, line.0);
        let mut heard = self.lock();
        if *metadata.level() <= Level::WARN {
            heard.news.push((Instant::now(), Way::Log, line.0));
        }
        heard.lines.push((Instant::now(), place, text));
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
