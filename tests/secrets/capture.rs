//! Captures all spans and events of `tracing` of all threads of this process, at every level.

use std::{
    fmt::{self, Write},
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static LOG: Mutex<String> = Mutex::new(String::new());
static STARTED: OnceLock<()> = OnceLock::new();

struct Everything;

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        write!(self.0, " {}={}", field.name(), shown(value)).unwrap();
    }
}

fn told(metadata: &Metadata<'_>, record: impl FnOnce(&mut Line<'_>)) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    write!(log, "{} {} {}", metadata.level(), metadata.target(), metadata.name()).unwrap();
    record(&mut Line(&mut log));
    log.push('\n');
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        told(attributes.metadata(), |line| attributes.record(line));
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        told(event.metadata(), |line| event.record(line));
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        values.record(&mut Line(&mut log));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Starts to capture the log, unless it is captured already.
pub(crate) fn start() {
    STARTED.get_or_init(|| tracing::subscriber::set_global_default(Everything).unwrap());
}

/// Returns the log until now. Other tests of this process write to it, too.
pub(crate) fn log() -> String {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Returns an error in the forms in which a program may print it: by `Display`, by `Debug`, and
/// both forms of every cause.
pub(crate) fn shown(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, " {cause} {cause:?}").unwrap();
        source = cause.source();
    }
    text
}
