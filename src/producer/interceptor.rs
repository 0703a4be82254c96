//! The interceptors of a producer: they see each record before it is sent, may change it, and
//! receive its result.

use std::{
    fmt,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{callback::DeliveryCallback, counters::Counters};
use crate::producer::delivery_report::DeliveryReport;
use crate::{error::said, log::event, record::Record};

/// Sees every record before it is sent and every result, like Java's `ProducerInterceptor`
/// (KIP-42): to put trace contexts into headers, to count, to check or to change records.
///
/// [`ProducerBuilder::interceptor`](super::ProducerBuilder::interceptor) adds one; several are
/// called in the order in which they were added. A panic of an interceptor is logged as a `tracing`
/// event of level ERROR, and the record is still processed.
///
/// ```
/// use ottla::{Record, producer::ProducerInterceptor};
///
/// /// Passes the sender's trace on to the reader of the record (W3C trace context).
/// #[derive(Debug)]
/// struct TraceContext;
///
/// impl ProducerInterceptor for TraceContext {
///     fn on_send(&self, record: &mut Record<'_>) {
///         record.remove_headers("traceparent");
///         record.add_header("traceparent", current_traceparent());
///     }
/// }
/// # fn current_traceparent() -> String {
/// #     "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()
/// # }
///
/// # #[cfg(feature = "testkit")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// # let cluster = ottla::testkit::Cluster::start(ottla::testkit::Options::new()).await?;
/// # cluster.create_topic("orders", 1)?;
/// let producer = cluster.producer().interceptor(TraceContext).build().await?;
/// producer.send(Record::to("orders").with_value("shipped")).await?.await?;
///
/// let record = cluster.records("orders", 0)?.remove(0);
/// assert_eq!(record.headers[0].name, "traceparent");
/// # Ok(()) }
/// # #[cfg(not(feature = "testkit"))]
/// # fn main() {}
/// ```
pub trait ProducerInterceptor: fmt::Debug + Send + Sync {
    /// Receives a record that was given to `send`, `try_send` or `send_batch`, and may change any
    /// part of it. It is called on the caller's thread before the record is checked and its
    /// partition chosen, so it must not block or take long.
    ///
    /// It is called once for each record: a record that `try_send` returned is not shown again when
    /// the same producer gets it again. A record that was shown may still be refused.
    fn on_send(&self, record: &mut Record<'_>) {
        let _ = record;
    }

    /// Receives a record's result, once, before
    /// [`on_delivery`](super::ProducerBuilder::on_delivery) does. It is called in the producer's
    /// own task, so it must not block or wait. The report is borrowed and is changed from one
    /// record to the next.
    ///
    /// It is called for every record that was taken, and for no other: a record that `send` refused
    /// with an error was shown to `on_send`, but only the caller gets the error.
    /// [`Record::tag`](crate::Record::tag) connects the two calls.
    fn on_acknowledgement(&self, report: &DeliveryReport) {
        let _ = report;
    }
}

/// A shared interceptor, for programs that keep a reference to it.
impl<T: ProducerInterceptor + ?Sized> ProducerInterceptor for Arc<T> {
    fn on_send(&self, record: &mut Record<'_>) {
        (**self).on_send(record);
    }

    fn on_acknowledgement(&self, report: &DeliveryReport) {
        (**self).on_acknowledgement(report);
    }
}

/// The interceptors of one producer.
#[derive(Debug, Default)]
pub(super) struct Interceptors {
    chain: Vec<Arc<dyn ProducerInterceptor>>,
    /// Identifies the producer; `None` without interceptors.
    mark: Option<NonZeroU32>,
    lines: Option<Arc<Counters>>,
}

impl Interceptors {
    /// Creates the interceptors. `lines` limits the number of log lines about panics.
    pub(super) fn new(chain: Vec<Arc<dyn ProducerInterceptor>>, lines: Arc<Counters>) -> Self {
        static MARKS: AtomicU32 = AtomicU32::new(1);
        let next = || NonZeroU32::new(MARKS.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN);
        let mark = (!chain.is_empty()).then(next);
        Self { chain, mark, lines: Some(lines) }
    }

    /// Returns the callbacks that pass results to each interceptor.
    pub(super) fn callbacks(&self) -> impl Iterator<Item = DeliveryCallback> {
        self.chain.iter().cloned().map(|interceptor| {
            DeliveryCallback::new("an interceptor's on_acknowledgement", move |report| {
                interceptor.on_acknowledgement(report);
            })
        })
    }

    /// Shows a record to all interceptors, unless they have seen it. Without interceptors this
    /// costs one branch for each record.
    #[inline]
    pub(super) fn on_send(&self, record: &mut Record<'_>) {
        if self.mark.is_some() && record.marks.seen_by() != self.mark {
            self.show(record);
        }
    }

    #[cold]
    fn show(&self, record: &mut Record<'_>) {
        record.marks.set_seen_by(self.mark);
        for interceptor in &self.chain {
            // A panic of an interceptor must not reach the caller of `send`.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| interceptor.on_send(record))) {
                let now = tokio::time::Instant::now().into_std();
                let lines = self.lines.as_ref();
                if let Some((lines, suppressed)) = lines.and_then(|to| Some((to, to.admit_line("on_send", now)?))) {
                    event!(
                        ERROR,
                        lines.origin(),
                        ?interceptor,
                        suppressed,
                        "on_send panicked; the producer goes on with the record: {}",
                        said(&*panic)
                    );
                }
            }
        }
    }
}
