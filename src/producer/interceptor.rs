//! What a program hangs into a producer: sees each record before it is sent, and may change it.

use std::{
    any::Any,
    fmt,
    num::NonZeroU64,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::record::{Record, SeenBy};

/// Sees every record on its way out, as Java's `ProducerInterceptor` does (KIP-42): to put trace contexts into headers, to
/// count, to check or to change.
///
/// [`ProducerBuilder::interceptor`](super::ProducerBuilder::interceptor) adds one; several are called in the order in which
/// they were added. One that panics is told of by a `tracing` event of level ERROR, and the record goes on.
///
/// ```
/// use ottla::{Producer, ProducerInterceptor, Record};
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
/// let producer = Producer::builder(cluster.bootstrap()).interceptor(TraceContext).build().await?;
/// producer.send(Record::to("orders").value("shipped")).await?.await?;
///
/// let record = cluster.records("orders", 0)?.remove(0);
/// assert_eq!(record.headers[0].name, "traceparent");
/// # Ok(()) }
/// # #[cfg(not(feature = "testkit"))]
/// # fn main() {}
/// ```
pub trait ProducerInterceptor: fmt::Debug + Send + Sync {
    /// Sees a record that was given to `send`, `try_send` or `send_batch`, and may change anything of it. It is called on the
    /// caller's thread before the record is checked and its partition chosen, so it must not block or take long.
    ///
    /// Once for each record: one that `try_send` gave back is not shown again when this producer gets it again. Being shown
    /// does not mean that the record is sent: it may still be refused.
    fn on_send(&self, record: &mut Record<'_>) {
        let _ = record;
    }
}

/// A shared interceptor, for programs that keep a hold of it.
impl<T: ProducerInterceptor + ?Sized> ProducerInterceptor for Arc<T> {
    fn on_send(&self, record: &mut Record<'_>) {
        (**self).on_send(record);
    }
}

/// The interceptors of one producer.
#[derive(Debug, Default)]
pub(super) struct Interceptors {
    chain: Vec<Arc<dyn ProducerInterceptor>>,
    /// Tells the producers that have some apart.
    mark: Option<NonZeroU64>,
}

impl Interceptors {
    pub(super) fn new(chain: Vec<Arc<dyn ProducerInterceptor>>) -> Self {
        static MARKS: AtomicU64 = AtomicU64::new(1);
        let mark = if chain.is_empty() { None } else { NonZeroU64::new(MARKS.fetch_add(1, Ordering::Relaxed)) };
        Self { chain, mark }
    }

    /// Shows a record to all, unless they have seen it. Costs a record one branch when there is none.
    #[inline]
    pub(super) fn on_send(&self, record: &mut Record<'_>) {
        if self.mark.is_some() && record.seen_by.0 != self.mark {
            self.show(record);
        }
    }

    #[cold]
    fn show(&self, record: &mut Record<'_>) {
        record.seen_by = SeenBy(self.mark);
        for interceptor in &self.chain {
            guarded(interceptor, "on_send", || interceptor.on_send(record));
        }
    }
}

/// Calls an interceptor, and tells of it when it panics: neither the caller of `send` nor the producer's task may fall
/// over what only wanted to look.
fn guarded(interceptor: &dyn fmt::Debug, method: &str, call: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
        tracing::error!(?interceptor, method, panic = text(&*panic), "an interceptor panicked; the record goes on");
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(not a text)")
}
