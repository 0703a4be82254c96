//! Handlers of an exactly-once worker, in the forms that users write.

use std::sync::Arc;

use super::outputs::Outputs;
use crate::{
    error::{BoxError, Error, ErrorKind},
    record::ConsumerRecord,
    worker::{HandlerResult, handler::Work, schedule::Load},
};

/// A handler of an exactly-once worker as a type of its own, for
/// [`ExactlyOnceBuilder::run_handler`](super::ExactlyOnceBuilder::run_handler). It borrows the
/// record and the outputs, whereas a closure gets clones.
///
/// ```no_run
/// use ottla::{BoxError, ConsumerRecord, Record, TransactionalProducer};
/// use ottla::worker::{ExactlyOnceHandler, Outputs};
///
/// struct Copy { topic: &'static str }
///
/// impl ExactlyOnceHandler for Copy {
///     async fn handle(&self, record: &ConsumerRecord, outputs: &Outputs) -> Result<(), BoxError> {
///         outputs.send(Record::forward(self.topic, record)).await?;
///         Ok(())
///     }
/// }
///
/// # async fn example(consumer: ottla::Consumer) -> ottla::Result<()> {
/// let producer = TransactionalProducer::builder("localhost:9092", "copy-1");
/// consumer.worker().exactly_once(producer).run_handler(Copy { topic: "copies" }).await
/// # }
/// ```
pub trait ExactlyOnceHandler: Send + Sync + 'static {
    /// Handles a record. The record is done when this has returned `Ok` and the transaction has
    /// committed; an error, a panic and a timeout abort the transaction.
    ///
    /// # Cancel safety
    /// The worker drops the future at one of its `.await`s when its transaction cannot commit: the
    /// record is then handled again, by this worker or by the partition's next owner.
    fn handle(&self, record: &ConsumerRecord, outputs: &Outputs) -> impl Future<Output = Result<(), BoxError>> + Send;
}

fn needed(outputs: Option<&Outputs>) -> Result<&Outputs, BoxError> {
    outputs.ok_or_else(|| Error::new(ErrorKind::Internal, "a record was begun without a transaction").into())
}

pub(crate) struct ByRef<H>(pub(crate) H);

impl<H: ExactlyOnceHandler> Work for ByRef<H> {
    const BATCHES: bool = false;

    async fn work(&self, load: &Load, outputs: Option<&Outputs>) -> Result<(), BoxError> {
        let outputs = needed(outputs)?;
        for record in load.records() {
            self.0.handle(record, outputs).await?;
        }
        Ok(())
    }
}

pub(crate) struct Each<F>(pub(crate) F);

impl<F, Fut> Work for Each<F>
where
    F: Fn(ConsumerRecord, Outputs) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: HandlerResult> + Send,
{
    const BATCHES: bool = false;

    async fn work(&self, load: &Load, outputs: Option<&Outputs>) -> Result<(), BoxError> {
        let outputs = needed(outputs)?;
        for record in load.records() {
            (self.0)(record.clone(), outputs.clone()).await.into_result()?;
        }
        Ok(())
    }
}

pub(crate) struct Batches<F>(pub(crate) F);

impl<F, Fut> Work for Batches<F>
where
    F: Fn(Arc<[ConsumerRecord]>, Outputs) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: HandlerResult> + Send,
{
    const BATCHES: bool = true;

    async fn work(&self, load: &Load, outputs: Option<&Outputs>) -> Result<(), BoxError> {
        let records = match load {
            Load::Many(records) => records.clone(),
            Load::One(record) => Arc::new([record.clone()]),
        };
        (self.0)(records, needed(outputs)?.clone()).await.into_result()
    }
}
