//! Tests of the `tracing` spans and events, and of their names.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tracing::{Event, Level, Metadata, Subscriber, span};

use super::*;
use crate::{error::ErrorCode, log::capture::FieldText, testkit::on, wire::ApiKey};

/// One line for each span and event of the producer.
#[derive(Clone, Default)]
struct Lines {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
    spans: Arc<AtomicU64>,
}

impl Lines {
    fn push(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut FieldText)) {
        let mut line = FieldText(if metadata.is_span() { metadata.name().to_owned() } else { String::new() });
        record(&mut line);
        self.lines.lock().unwrap().push((*metadata.level(), line.0));
    }

    /// Returns the lines with all of these words.
    fn with(&self, words: &[&str]) -> Vec<(Level, String)> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|(_, line)| words.iter().all(|word| line.contains(word))).cloned().collect()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ottla::producer")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        self.push(attributes.metadata(), |line| attributes.record(line));
        span::Id::from_u64(1 + self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn event(&self, event: &Event<'_>) {
        self.push(event.metadata(), |line| event.record(line));
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Collects the events of this thread. If there is a single subscriber `tracing` assumes that all
/// threads have it, so that a test in another thread, which has none, would switch an event off for
/// all: hence a second one.
fn listen(lines: &Lines) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
    let second = tracing::Dispatch::new(lines.clone());
    (tracing::subscriber::set_default(lines.clone()), second)
}

#[tokio::test(start_paused = true)]
async fn logs_each_retry_and_produce_request_span() {
    let lines = Lines::default();
    let _guard = listen(&lines);
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).times(2).error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..500).await).await;
    let retries = lines.with(&["a batch is sent again", "topic=orders", "partition=0", "node=1", "records=500"]);
    assert_eq!(retries.len(), 2, "{lines:?}", lines = lines.with(&[]));
    for (attempt, (level, line)) in retries.iter().enumerate() {
        assert_eq!(*level, Level::DEBUG);
        assert!(line.contains(&format!("attempt={} ", attempt + 1)), "{line}");
        assert!(line.contains("code=NOT_LEADER_OR_FOLLOWER") && line.contains("backoff_ms="), "{line}");
    }
    for attempt in 1..=3 {
        let attempt = format!("attempt={attempt}");
        let spans = lines.with(&["produce ", "node=1", "request=", "partitions=1", "records=500", "bytes=", &attempt]);
        assert_eq!(spans.len(), 1, "{spans:?}");
    }
    assert_eq!(lines.with(&["got a producer id", "producer_id=", "epoch=0"])[0].0, Level::INFO);
    let all = lines.with(&[]).len();
    assert!(all < 20, "{all} lines for 500 records");
}

#[tokio::test(start_paused = true)]
async fn logs_lost_records_and_epoch_bump() {
    let lines = Lines::default();
    let _guard = listen(&lines);
    let cluster = cluster(1).await;
    let producer = builder(&cluster).request_timeout(ms(500)).delivery_timeout(ms(2000)).build().await.unwrap();
    delivered(send_numbers(&producer, 0..1).await).await;
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    send_numbers(&producer, 1..2).await.pop().unwrap().await.unwrap_err();
    hang.clear();
    delivered(send_numbers(&producer, 2..3).await).await;
    let lost = lines.with(&["records failed", "topic=orders", "partition=0", "records=1", "status=PossiblyPersisted"]);
    assert_eq!(lost.len(), 1, "{:?}", lines.with(&[]));
    assert_eq!(lost[0].0, Level::WARN);
    let raised = lines.with(&["the epoch was raised", "topic=orders", "partition=0", "producer_id=", "epoch=1"]);
    assert_eq!(raised.len(), 1, "{:?}", lines.with(&[]));
    assert!(!lines.with(&["a request got no answer", "node=1", "request="]).is_empty());
}
