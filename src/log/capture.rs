//! Captures log lines in tests.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

/// Captures the lines of this thread's clients until it is dropped.
pub(crate) struct Lines {
    seen: Seen,
    /// A second subscriber, which never receives an event. With a single subscriber `tracing`
    /// assumes that all threads use it, so a concurrent test without one would disable the event
    /// everywhere.
    _second: Dispatch,
    _default: DefaultGuard,
}

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// The message, then ` name=value` for each field.
    pub(crate) text: String,
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Line>>>);

impl Lines {
    pub(crate) fn capture() -> Self {
        let seen = Seen::default();
        let second = Dispatch::new(seen.clone());
        let default = tracing::subscriber::set_default(seen.clone());
        Self { seen, _second: second, _default: default }
    }

    pub(crate) fn all(&self) -> Vec<Line> {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn clear(&self) {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the texts of this level that contain `part`.
    pub(crate) fn with(&self, level: Level, part: &str) -> Vec<String> {
        let mut all = self.all();
        all.retain(|line| line.level == level && line.text.contains(part));
        all.into_iter().map(|line| line.text).collect()
    }

    /// Asserts that every line of INFO and above names its client.
    pub(crate) fn assert_origin(&self, fields: &str) {
        for line in self.all().iter().filter(|line| line.level <= Level::INFO) {
            assert!(line.text.contains(fields), "{fields:?} is missing in {line:?}");
        }
    }
}

impl Subscriber for Seen {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("ottla") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = Line { level: *event.metadata().level(), text: text.message + &text.fields };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("writing to a string succeeds");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Writes ` name=value` for each field, the message included.
pub(crate) struct FieldText(pub(crate) String);

impl Visit for FieldText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("writing to a string succeeds");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
