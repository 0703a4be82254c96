//! Handlers, in the forms that users write.

use std::sync::Arc;

use super::{exactly_once::outputs::Outputs, schedule::Load};
use crate::{error::BoxError, record::ConsumerRecord};

/// The result of a handler: nothing, or a `Result<(), E>` with an error that converts into a
/// [`BoxError`].
pub trait HandlerResult: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), BoxError>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
}

impl HandlerResult for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> HandlerResult for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A handler as a type of its own, for
/// [`WorkerBuilder::run_handler`](super::WorkerBuilder::run_handler). It borrows the record,
/// whereas a closure gets a clone for each attempt. The clone copies references and no key or value
/// bytes; if the record has headers, it also copies their list and their names.
///
/// ```no_run
/// use ottla::{BoxError, ConsumerRecord, record::KafkaFormats, worker::Handler};
///
/// struct Billing { rate: i64 }
///
/// impl Handler for Billing {
///     async fn handle(&self, record: &ConsumerRecord) -> Result<(), BoxError> {
///         let cents: Option<i64> = record.value_as(&KafkaFormats)?;
///         println!("{:?} owes {}", record.key, cents.unwrap_or(0) * self.rate);
///         Ok(())
///     }
/// }
///
/// # async fn example(consumer: ottla::Consumer) -> ottla::Result<()> {
/// consumer.worker().run_handler(Billing { rate: 3 }).await
/// # }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Handles a record. The record is done when this returns `Ok`; an error, a panic and a timeout
    /// are failed attempts.
    ///
    /// # Cancel safety
    /// The worker drops the future at one of its `.await`s when the record no longer belongs to
    /// this worker: its partition was lost, or the time to drain is over. The record is then not
    /// done, and the partition's next owner handles it again.
    fn handle(&self, record: &ConsumerRecord) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Any of the forms.
pub(super) trait Work: Send + Sync + 'static {
    /// True if it takes several records at a time.
    const BATCHES: bool;

    /// `outputs` are those of the open transaction, if there is one.
    fn work(&self, load: &Load, outputs: Option<&Outputs>) -> impl Future<Output = Result<(), BoxError>> + Send;
}

pub(super) struct ByRef<H>(pub(super) H);

impl<H: Handler> Work for ByRef<H> {
    const BATCHES: bool = false;

    async fn work(&self, load: &Load, _: Option<&Outputs>) -> Result<(), BoxError> {
        for record in load.records() {
            self.0.handle(record).await?;
        }
        Ok(())
    }
}

pub(super) struct Each<F>(pub(super) F);

impl<F, Fut> Work for Each<F>
where
    F: Fn(ConsumerRecord) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: HandlerResult> + Send,
{
    const BATCHES: bool = false;

    async fn work(&self, load: &Load, _: Option<&Outputs>) -> Result<(), BoxError> {
        for record in load.records() {
            (self.0)(record.clone()).await.into_result()?;
        }
        Ok(())
    }
}

pub(super) struct Batches<F>(pub(super) F);

impl<F, Fut> Work for Batches<F>
where
    F: Fn(Arc<[ConsumerRecord]>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: HandlerResult> + Send,
{
    const BATCHES: bool = true;

    async fn work(&self, load: &Load, _: Option<&Outputs>) -> Result<(), BoxError> {
        let records = match load {
            Load::Many(records) => records.clone(),
            Load::One(record) => Arc::new([record.clone()]),
        };
        (self.0)(records).await.into_result()
    }
}
