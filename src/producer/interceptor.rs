//! What a program hangs into a producer: sees each record before it is sent, may change it, and is
//! told of its result.

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

/// Sees every record on its way out and every result, as Java's `ProducerInterceptor` does
/// (KIP-42): to put trace contexts into headers, to count, to check or to change.
///
/// [`ProducerBuilder::interceptor`](super::ProducerBuilder::interceptor) adds one; several are
/// called in the order in which they were added. One that panics is told of by a `tracing` event of
/// level ERROR, and the record goes on.
///
/// ```
/// use ottla::{Record, producer::ProducerInterceptor};
///
/// /// Hands the trace that the sender is in on to whoever reads the record (W3C trace context).
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
    /// Sees a record that was given to `send`, `try_send` or `send_batch`, and may change anything
    /// of it. It is called on the caller's thread before the record is checked and its partition
    /// chosen, so it must not block or take long.
    ///
    /// Once for each record: one that `try_send` gave back is not shown again when this producer
    /// gets it again. Being shown does not mean that the record is sent: it may still be refused.
    fn on_send(&self, record: &mut Record<'_>) {
        let _ = record;
    }

    /// Is told of a record's result, once, as [`on_delivery`](super::ProducerBuilder::on_delivery)
    /// is and before it: in the producer's own task, so it must not block or wait. The report is
    /// lent, and changed from one record to the next.
    ///
    /// It is told of every record that was taken, and of no other: what `send` refused with an
    /// error it has been shown, but the error is the caller's alone.
    /// [`Record::tag`](crate::Record::tag) connects the two.
    fn on_acknowledgement(&self, report: &DeliveryReport) {
        let _ = report;
    }
}

/// A shared interceptor, for programs that keep a hold of it.
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
    /// Tells the producers that have some apart.
    mark: Option<NonZeroU32>,
    lines: Option<Arc<Counters>>,
}

impl Interceptors {
    /// The producer's counters say how many lines about panics may be written.
    pub(super) fn new(chain: Vec<Arc<dyn ProducerInterceptor>>, lines: Arc<Counters>) -> Self {
        static MARKS: AtomicU32 = AtomicU32::new(1);
        let next = || NonZeroU32::new(MARKS.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN);
        let mark = (!chain.is_empty()).then(next);
        Self { chain, mark, lines: Some(lines) }
    }

    /// How each is told of results.
    pub(super) fn callbacks(&self) -> impl Iterator<Item = DeliveryCallback> {
        self.chain.iter().cloned().map(|interceptor| {
            DeliveryCallback::new("an interceptor's on_acknowledgement", move |report| {
                interceptor.on_acknowledgement(report);
            })
        })
    }

    /// Shows a record to all, unless they have seen it. Costs a record one branch when there is
    /// none.
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
            // The caller of `send` must not fall over what only wanted to look.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| interceptor.on_send(record))) {
                let now = tokio::time::Instant::now().into_std();
                let lines = self.lines.as_ref();
                if let Some((lines, suppressed)) = lines.and_then(|to| Some((to, to.admit_line("on_send", now)?))) {
                    event!(
                        ERROR,
                        lines.origin(),
                        ?interceptor,
                        suppressed,
                        "on_send panicked, and the record goes on: {}",
                        said(&*panic)
                    );
                }
            }
        }
    }
}
