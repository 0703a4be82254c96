//! Delivery reports: the result of every record, for programs that do not hold a `Delivery` for
//! each. Callbacks (interceptors' included) receive them at once, streams when they are read.

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

use super::callback::DeliveryCallback;
use crate::producer::batch_shared::BatchShared;
use crate::producer::delivery_report::{DeliveryReport, ReportRun};

/// A stream of a producer's delivery reports, from
/// [`Producer::delivery_reports`](super::Producer::delivery_reports).
///
/// The reports of a partition come in the order of its results, which is the order of sending (see
/// [`Delivery`](super::Delivery)). Several streams share the reports, each report goes to one of
/// them, and a stream takes a run of records of one batch at a time. So there is no order between
/// two streams.
///
/// A record takes its bytes of `buffer.memory` until its report is read, so a program that asks for
/// reports has to read them. Dropping the stream ends that; reports that it has not returned go to
/// the other streams. The stream ends when the producer is closed and all reports were read.
#[derive(Debug)]
pub struct DeliveryReports {
    batch_shared: Arc<BatchShared>,
    reader: usize,
    /// Run that was taken from the queue and is not fully read, so that the lock is not taken for
    /// each report.
    run: Option<ReportRun>,
}

/// Distributes results, a run of records at a time.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    on: AtomicBool,
    callbacks: Vec<DeliveryCallback>,
    state: Mutex<State>,
}

/// State shared by the streams.
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

impl Reports {
    /// Creates reports for these callbacks, which are called in order.
    pub(super) fn with_callbacks(callbacks: Vec<DeliveryCallback>) -> Self {
        Self { on: AtomicBool::new(!callbacks.is_empty()), callbacks, ..Self::default() }
    }

    /// Returns true if records that are appended now will be reported.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Reports a run: calls the callbacks at once, and queues the run for the streams. Without a
    /// stream it is dropped.
    pub(super) fn report(&self, run: ReportRun) {
        self.callbacks.iter().for_each(|callback| callback.tell(&run));
        let mut state = self.lock();
        if run.notes.is_empty() || !state.is_read() {
            drop(state);
            return;
        }
        state.runs.push_back(run);
        state.wake_all();
    }

    /// Marks the end of the reports and wakes the streams.
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
    fn is_read(&self) -> bool {
        self.readers.iter().any(Option::is_some)
    }

    fn wake_all(&mut self) {
        for reader in self.readers.iter_mut().flatten() {
            if let Some(waker) = reader.waker.take() {
                waker.wake();
            }
        }
    }
}

impl DeliveryReports {
    pub(super) fn new(batch_shared: Arc<BatchShared>) -> Self {
        let mut state = batch_shared.reports.lock();
        let reader = state.readers.iter().position(Option::is_none).unwrap_or(state.readers.len());
        match state.readers.get_mut(reader) {
            Some(place) => *place = Some(Reader::default()),
            None => state.readers.push(Some(Reader::default())),
        }
        batch_shared.reports.on.store(true, Ordering::Relaxed);
        drop(state);
        Self { batch_shared, reader, run: None }
    }

    /// Waits for the next report; returns `None` once the producer is closed and all reports were
    /// read.
    ///
    /// # Cancel safety
    /// Safe: no report is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<DeliveryReport> {
        poll_fn(|cx| self.poll_report(cx)).await
    }

    /// Returns a report if one is available now.
    pub fn try_next(&mut self) -> Option<DeliveryReport> {
        if self.run.is_none() {
            let next = self.batch_shared.reports.lock().runs.pop_front();
            self.begin(next?);
        }
        self.give_out()
    }

    /// Takes over a run and releases its share of the buffer: the records are gone, and only their
    /// reports are left.
    fn begin(&mut self, mut run: ReportRun) {
        drop(run.reserved.split(usize::MAX));
        self.run = Some(run);
    }

    /// Returns the next report of the current run.
    fn give_out(&mut self) -> Option<DeliveryReport> {
        let run = self.run.as_mut()?;
        let report = run.report(run.read);
        run.read += 1;
        if run.read >= run.notes.len() {
            self.run = None;
        }
        report
    }

    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Option<DeliveryReport>> {
        if self.run.is_none() {
            let mut state = self.batch_shared.reports.lock();
            match state.runs.pop_front() {
                Some(run) => {
                    drop(state);
                    self.begin(run);
                }
                None if state.closed => return Poll::Ready(None),
                None => {
                    if let Some(Some(reader)) = state.readers.get_mut(self.reader) {
                        reader.waker = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(self.give_out())
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
        let reports = &self.batch_shared.reports;
        let mut state = reports.lock();
        if let Some(place) = state.readers.get_mut(self.reader) {
            *place = None;
        }
        if state.is_read() {
            if let Some(run) = self.run.take() {
                state.runs.push_front(run);
            }
            // This stream may have been woken for a report that it will not read any more, so
            // another one is woken.
            if !state.runs.is_empty() {
                state.wake_all();
            }
            return;
        }
        let unread = std::mem::take(&mut state.runs);
        // Records that are sent from now on need no notes.
        reports.on.store(!reports.callbacks.is_empty(), Ordering::Relaxed);
        drop(state);
        drop(unread);
    }
}
