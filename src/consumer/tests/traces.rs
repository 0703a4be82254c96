//! What `tracing` is told of partitions that wait.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::*;
use crate::{ApiKey, ErrorCode, testkit::on};

/// One line for each event of the consumer's status.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }
}

impl Lines {
    /// The reasons, and what else was said, at that level.
    fn at(&self, level: Level) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|(at, _)| *at == level).map(|(_, line)| line.clone()).collect()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ottla::consumer::status"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push((*event.metadata().level(), line.0));
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_gets_no_further_is_warned_of_once_with_its_reason() {
    let lines = Lines::default();
    // Of a single subscriber `tracing` believes that all threads have it, so that a test beside this one, which has none,
    // would switch an event off for all: hence a second one.
    let _second = tracing::Dispatch::new(lines.clone());
    let _told = tracing::subscriber::set_default(lines.clone());
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    assert_eq!(numbers(&consumer, 5).await.len(), 5);
    // Idle, paused, and waiting for its reader: nobody is warned of those, however long they last.
    tokio::time::sleep(100 * SECOND).await;
    consumer.pause([&tp("t", 0)]).unwrap();
    tokio::time::sleep(100 * SECOND).await;
    consumer.resume([&tp("t", 0)]).unwrap();
    append(&cluster, "t", 0, 5..6);
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(lines.at(Level::WARN), [""; 0]);
    let told = lines.at(Level::DEBUG).join("\n");
    for reason in ["reason=records", "reason=paused", "reason=reader"] {
        assert!(told.contains(reason), "{told}");
    }
    let refused = cluster.fault(on(ApiKey::ListOffsets).error(ErrorCode::LEADER_NOT_AVAILABLE).forever());
    consumer.seek_to_beginning([&tp("t", 0)]).unwrap();
    tokio::time::sleep(300 * SECOND).await;
    let warned = lines.at(Level::WARN);
    assert!(warned.len() == 1 && warned[0].contains("partition=t[0]"), "{warned:#?}");
    let told = lines.at(Level::DEBUG).join("\n");
    assert!(told.contains("reason=backing_off error=") && told.contains("LEADER_NOT_AVAILABLE"), "{told}");
    refused.clear();
    assert_eq!(numbers(&consumer, 6).await.len(), 6);
    tokio::time::sleep(2 * SECOND).await;
    assert!(lines.at(Level::INFO).iter().any(|line| line.contains("goes on")), "{:#?}", lines.at(Level::INFO));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_falls_silent_behind_the_last_record_is_warned_of() {
    let lines = Lines::default();
    let _second = tracing::Dispatch::new(lines.clone());
    let _told = tracing::subscriber::set_default(lines.clone());
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    assert_eq!(numbers(&consumer, 5).await.len(), 5);
    let silent = cluster.fault(on(ApiKey::Fetch).hang().forever());
    tokio::time::sleep(200 * SECOND).await;
    let status = consumer.status().partitions.remove(&tp("t", 0)).unwrap();
    assert!(["fetching", "backing_off"].contains(&status.waiting.name()), "{status:?}");
    assert_eq!(lines.at(Level::WARN).len(), 1, "{:#?}", lines.at(Level::WARN));
    silent.clear();
    append(&cluster, "t", 0, 5..6);
    assert_eq!(number(&next(&consumer).await), 5);
}
