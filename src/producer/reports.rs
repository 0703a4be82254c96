//! The stream of delivery reports: the result of every record, for programs that do not hold a `Delivery` for each.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_core::Stream;

use super::{
    batch::Ledger,
    cell::Outcome,
    credits::Charge,
    delivery::{DeliveryId, result},
};
use crate::{error::Result, record::RecordMetadata};

/// The result of one record, as [`DeliveryReports`] gives it out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// The same as [`Delivery::id`](super::Delivery::id) of the record.
    pub id: DeliveryId,
    /// The topic that the record was sent to.
    pub topic: Arc<str>,
    /// The partition, unless the record failed before it had one.
    pub partition: Option<i32>,
    /// Where the record stands in the log, or why it failed and how far it got.
    pub result: Result<RecordMetadata>,
}

/// The reports of a producer's records, each once, from
/// [`Producer::delivery_reports`](super::Producer::delivery_reports).
///
/// A record whose report was not read yet still takes its bytes of `buffer.memory`, so a program that asks for reports
/// has to read them. Dropping the stream ends that. It ends by itself when the producer is closed and all was read.
#[derive(Debug)]
pub struct DeliveryReports {
    ledger: Arc<Ledger>,
    reader: usize,
}

/// Reports that are ready to be read, a run of records at a time.
#[derive(Debug, Default)]
pub(super) struct ReportQueue {
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: VecDeque<ReportRun>,
    readers: Vec<Option<Reader>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Reader {
    waker: Option<Waker>,
}

/// Records next to each other that share an outcome.
#[derive(Debug)]
pub(super) struct ReportRun {
    pub(super) cell: u64,
    pub(super) first: u32,
    pub(super) topic: Arc<str>,
    pub(super) partition: Option<i32>,
    pub(super) outcome: Outcome,
    /// One for each record.
    pub(super) timestamps: Vec<i64>,
    /// How many of them were read.
    pub(super) read: u32,
    pub(super) charge: Charge,
}

impl ReportQueue {
    /// Whether records that are appended now will be reported.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Adds a run; thrown away when nobody reads.
    pub(super) fn push(&self, run: ReportRun) {
        let mut state = self.lock();
        if run.timestamps.is_empty() || state.readers.iter().all(Option::is_none) {
            return;
        }
        state.runs.push_back(run);
        state.wake_all();
    }

    /// No more reports will come.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_all(&mut self) {
        for reader in self.readers.iter_mut().flatten() {
            if let Some(waker) = reader.waker.take() {
                waker.wake();
            }
        }
    }

    fn next(&mut self) -> Option<DeliveryReport> {
        loop {
            let run = self.runs.front_mut()?;
            let Some(timestamp) = run.timestamps.get(run.read as usize) else {
                self.runs.pop_front();
                continue;
            };
            let report = DeliveryReport {
                id: DeliveryId { cell: run.cell, index: run.first + run.read },
                topic: run.topic.clone(),
                partition: run.partition,
                result: result(run.outcome.clone(), run.read, *timestamp),
            };
            let unread = run.timestamps.len().saturating_sub(run.read as usize).max(1);
            drop(run.charge.split(run.charge.bytes() / unread));
            run.read += 1;
            if run.read as usize == run.timestamps.len() {
                self.runs.pop_front();
            }
            return Some(report);
        }
    }
}

impl DeliveryReports {
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        let mut state = ledger.reports.lock();
        let reader = state.readers.iter().position(Option::is_none).unwrap_or(state.readers.len());
        match state.readers.get_mut(reader) {
            Some(place) => *place = Some(Reader::default()),
            None => state.readers.push(Some(Reader::default())),
        }
        ledger.reports.on.store(true, Ordering::Relaxed);
        drop(state);
        Self { ledger, reader }
    }

    /// The next report; `None` once the producer is closed and all reports were read.
    ///
    /// # Cancel safety
    /// Safe: no report is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<DeliveryReport> {
        poll_fn(|cx| self.poll_report(cx)).await
    }

    /// A report that is there already.
    pub fn try_next(&mut self) -> Option<DeliveryReport> {
        self.ledger.reports.lock().next()
    }

    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Option<DeliveryReport>> {
        let mut state = self.ledger.reports.lock();
        if let Some(report) = state.next() {
            return Poll::Ready(Some(report));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        if let Some(Some(reader)) = state.readers.get_mut(self.reader) {
            reader.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Stream for DeliveryReports {
    type Item = DeliveryReport;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_report(cx)
    }
}

impl Drop for DeliveryReports {
    fn drop(&mut self) {
        let mut state = self.ledger.reports.lock();
        if let Some(place) = state.readers.get_mut(self.reader) {
            *place = None;
        }
        if state.readers.iter().all(Option::is_none) {
            let unread = std::mem::take(&mut state.runs);
            // Records that are sent from now on need not be noted down.
            self.ledger.reports.on.store(false, Ordering::Relaxed);
            drop(state);
            drop(unread);
        }
    }
}
