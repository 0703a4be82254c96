//! The callback form of delivery reports: a function that is called with the result of every
//! record.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::counters::Counters;
use crate::producer::delivery_report::{DeliveryReport, ReportRun};
use crate::{error::said, log::event};

/// The function that was given to
/// [`ProducerBuilder::on_delivery`](super::ProducerBuilder::on_delivery), or that of an
/// interceptor.
#[derive(Clone)]
pub(crate) struct DeliveryCallback {
    name: &'static str,
    callback: Arc<dyn Fn(&DeliveryReport) + Send + Sync>,
    panics: Arc<AtomicU64>,
    lines: Option<Arc<Counters>>,
}

impl DeliveryCallback {
    /// Creates a callback; `name` is its name in the log.
    pub(super) fn new(name: &'static str, callback: impl Fn(&DeliveryReport) + Send + Sync + 'static) -> Self {
        Self { name, callback: Arc::new(callback), panics: Arc::default(), lines: None }
    }

    /// Sets the counters of the producer, which limit the number of log lines about panics.
    pub(super) fn with_lines(self, lines: Arc<Counters>) -> Self {
        Self { lines: Some(lines), ..self }
    }

    /// Calls the function for every record of a run, with one report that is changed from record to
    /// record. A panic is counted and logged, and the function is called for the remaining records
    /// all the same.
    pub(super) fn tell(&self, run: &ReportRun) {
        let Some(mut report) = run.report(0) else { return };
        let (first, offset) = (report.id.index, report.result.as_ref().ok().and_then(|at| at.offset));
        let log_append_millis = run.outcome.log_append_millis();
        let mut notes = run.notes.from(0);
        loop {
            let told = catch_unwind(AssertUnwindSafe(|| {
                for (place, note) in notes.by_ref() {
                    report.id.index = first + place;
                    report.tag = note.tag;
                    if let Ok(at) = &mut report.result {
                        at.offset = offset.map(|offset| offset + i64::from(place));
                        at.timestamp_millis = log_append_millis.unwrap_or(note.timestamp);
                    }
                    (self.callback)(&report);
                }
            }));
            let Err(panic) = told else { return };
            let panics = self.panics.fetch_add(1, Ordering::Relaxed) + 1;
            let (topic, partition) = (&*report.topic, report.partition);
            let now = tokio::time::Instant::now().into_std();
            let lines = self.lines.as_ref();
            if let Some((lines, suppressed)) = lines.and_then(|to| Some((to, to.admit_line(self.name, now)?))) {
                event!(
                    ERROR,
                    lines.origin(),
                    topic,
                    partition,
                    panics,
                    suppressed,
                    "{} panicked; it is still called for the remaining records: {}",
                    self.name,
                    said(&*panic)
                );
            }
        }
    }
}

impl fmt::Debug for DeliveryCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryCallback")
    }
}
