//! Builds the three clients from a file of properties, and captures the warnings that they log.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use crate::{Admin, Consumer, Producer, Result, net::MemoryNetwork};

/// The clients of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Producer,
    Consumer,
    Admin,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Producer, Kind::Consumer, Kind::Admin];

/// Builds a client from properties alone, on a network without brokers.
pub(super) async fn build(kind: Kind, pairs: &[(&str, &str)]) -> Result<()> {
    let network = Arc::new(MemoryNetwork::new());
    let pairs = pairs.iter().copied();
    match kind {
        Kind::Producer => Producer::builder("").properties(pairs).network(network).build().await.map(drop),
        Kind::Consumer => Consumer::builder("").properties(pairs).network(network).build().await.map(drop),
        Kind::Admin => Admin::builder("").properties(pairs).network(network).build().await.map(drop),
    }
}

/// The warnings of the room `config`, one line each.
#[derive(Clone, Default)]
pub(super) struct Warnings(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Warnings {
    /// Collects the warnings of this thread while the guards live. With a single subscriber
    /// `tracing` assumes that all threads use it, so that a test without one would disable the
    /// event: hence the second dispatcher.
    pub(super) fn collect(&self) -> (DefaultGuard, Dispatch) {
        let second = Dispatch::new(self.clone());
        (tracing::subscriber::set_default(self.clone()), second)
    }

    /// Returns the lines so far, and forgets them.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ottla::config") && *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
