//! Delivery reports: the result of every record, for programs that do not hold a `Delivery` for
//! each. They are told to the callbacks (interceptors' among them), and given out by the stream.

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

/// The reports of a producer's records, each once, from
/// [`Producer::delivery_reports`](super::Producer::delivery_reports).
///
/// The reports of a partition come in the order of its results, which is the order of sending (see
/// [`Delivery`](super::Delivery)). Several streams share the reports a batch at a time: what one
/// has begun to read comes from it alone, so that between two streams there is no order.
///
/// A record whose report waits to be read still takes its bytes of `buffer.memory`, so a program
/// that asks for reports has to read them. Dropping the stream ends that; what it has not given out
/// goes to the other streams. It ends by itself when the producer is closed and all was read.
#[derive(Debug)]
pub struct DeliveryReports {
    batch_shared: Arc<BatchShared>,
    reader: usize,
    /// What it took from the queue and has not given out yet, so that it need not ask for each
    /// report.
    run: Option<ReportRun>,
}

/// Whom to tell of results, a run of records at a time.
#[derive(Debug, Default)]
pub(super) struct Reports {
    on: AtomicBool,
    callbacks: Vec<DeliveryCallback>,
    state: Mutex<State>,
}

/// What the streams share.
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
    /// Also tells these, in their order.
    pub(super) fn with_callbacks(callbacks: Vec<DeliveryCallback>) -> Self {
        Self { on: AtomicBool::new(!callbacks.is_empty()), callbacks, ..Self::default() }
    }

    /// Whether records that are appended now will be reported.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Tells of a run: the callbacks at once, the streams when they ask. What nobody asks for is
    /// thrown away.
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

    /// The next report; `None` once the producer is closed and all reports were read.
    ///
    /// # Cancel safety
    /// Safe: no report is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<DeliveryReport> {
        poll_fn(|cx| self.poll_report(cx)).await
    }

    /// A report that is there already.
    pub fn try_next(&mut self) -> Option<DeliveryReport> {
        if self.run.is_none() {
            let next = self.batch_shared.reports.lock().runs.pop_front();
            self.begin(next?);
        }
        self.give_out()
    }

    /// Takes a run over, which ends what it takes of the buffer: the records are gone, their
    /// reports are all there is.
    fn begin(&mut self, mut run: ReportRun) {
        drop(run.reserved.split(usize::MAX));
        self.run = Some(run);
    }

    /// The next report of the run in hand.
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
            // It may have been woken for what it will not read any more.
            if !state.runs.is_empty() {
                state.wake_all();
            }
            return;
        }
        let unread = std::mem::take(&mut state.runs);
        // Records that are sent from now on need not be noted down.
        reports.on.store(!reports.callbacks.is_empty(), Ordering::Relaxed);
        drop(state);
        drop(unread);
    }
}
