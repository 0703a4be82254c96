//! The builder of a transactional producer.

use std::{sync::Arc, time::Duration};

use super::producer::TransactionalProducer;
use crate::{
    cluster::client_properties,
    error::{Error, ErrorKind, Result},
    producer::{
        builder::ProducerBuilder,
        properties::{PROPERTIES, TRANSACTION_PROPERTIES},
    },
};

/// Configures a [`TransactionalProducer`]:
/// [`ProducerBuilder::transactional_id`](crate::producer::ProducerBuilder::transactional_id)
/// returns it. The settings that every producer has are set before that call.
///
/// ```
/// use ottla::Producer;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// let producer = Producer::builder("localhost:9092")
///     .linger(Duration::from_millis(20))
///     .transactional_id("shop-1")
///     .transaction_timeout(Duration::from_secs(30))
///     .build()
///     .await?; // waits for no broker
///
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TransactionalProducerBuilder {
    producer: ProducerBuilder,
}

impl ProducerBuilder {
    /// Sets `transactional.id`: the name under which the producer sends transactions, the same
    /// after each restart (KIP-98). At most one instance with a name can send; the last one that
    /// starts fences the others.
    ///
    /// A transactional producer needs `acks=all`, idempotence, `retries` and at most 5 requests in
    /// flight, which are the defaults.
    ///
    /// ```
    /// use ottla::Producer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let producer =
    ///     Producer::builder("localhost:9092").transactional_id("shop-1").build().await?;
    /// # Ok(()) }
    /// ```
    pub fn transactional_id(self, id: impl Into<String>) -> TransactionalProducerBuilder {
        let id = Some(id.into()).filter(|id| !id.is_empty());
        TransactionalProducerBuilder { producer: self.set(|s| s.transactional_id = id.map(Into::into)) }
    }
}

impl TransactionalProducerBuilder {
    /// Sets `transaction.timeout.ms`: the time after its first write in which a transaction has to
    /// end; otherwise the coordinator aborts it. Brokers refuse more than their
    /// `transaction.max.timeout.ms` (15 min by default). Default: 60 s.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.producer = self.producer.set(|s| s.transaction_timeout = timeout);
        self
    }

    /// Sets any property by its Java or librdkafka name, like
    /// [`ProducerBuilder::property`](crate::producer::ProducerBuilder::property).
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.producer = self.producer.property(name, value);
        self
    }

    /// Sets several properties by their names.
    pub fn properties<K: AsRef<str>, V: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.producer = self.producer.properties(pairs);
        self
    }

    /// Checks the settings and starts the producer on the current tokio runtime. Needs no network.
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration) for the reasons of
    /// [`ProducerBuilder::build`](crate::producer::ProducerBuilder::build); without a
    /// `transactional.id`; for a `transaction.timeout.ms` below 1 or above 2147483647; and for
    /// settings that transactions rule out: `acks` other than `all`, `enable.idempotence=false`,
    /// `retries=0`, and more than 5 for `max.in.flight.requests.per.connection`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn build(self) -> Result<TransactionalProducer> {
        let settings = self.producer.settings(&[TRANSACTION_PROPERTIES, PROPERTIES, client_properties()])?;
        if settings.transactional_id.is_none() {
            return Err(missing_id());
        }
        TransactionalProducer::of(ProducerBuilder::start(settings).await?)
    }
}

impl TransactionalProducerBuilder {
    /// Returns the transactional id and `transaction.timeout.ms`.
    ///
    /// # Errors
    /// `Configuration` for a property that is unknown or malformed, and without an id.
    pub(crate) fn id_and_timeout(&self) -> Result<(Arc<str>, Duration)> {
        let settings = self.producer.clone().settings(&[TRANSACTION_PROPERTIES, PROPERTIES, client_properties()])?;
        let id = settings.transactional_id.ok_or_else(missing_id)?;
        Ok((id, settings.transaction_timeout))
    }
}

fn missing_id() -> Error {
    Error::new(
        ErrorKind::Configuration,
        "transactional.id is missing: give the producer a name that is the same after each restart",
    )
}

impl TransactionalProducer {
    /// Returns a builder for a transactional producer of the cluster with these bootstrap brokers,
    /// with this `transactional.id`. For other settings begin with
    /// [`Producer::builder`](crate::Producer::builder).
    ///
    /// ```
    /// use ottla::TransactionalProducer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let producer = TransactionalProducer::builder("localhost:9092", "shop-1").build().await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(bootstrap: impl Into<String>, transactional_id: impl Into<String>) -> TransactionalProducerBuilder {
        ProducerBuilder::new(bootstrap.into()).transactional_id(transactional_id)
    }

    /// Builds a transactional producer from properties by their Java or librdkafka names, like
    /// [`Producer::from_properties`](crate::Producer::from_properties).
    ///
    /// ```
    /// use ottla::TransactionalProducer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let producer = TransactionalProducer::from_properties([
    ///     ("bootstrap.servers", "localhost:9092"),
    ///     ("transactional.id", "shop-1"),
    ///     ("transaction.timeout.ms", "30000"),
    /// ])
    /// .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration) for the reasons of
    /// [`TransactionalProducerBuilder::build`], and for a property that is unknown, malformed, or
    /// cannot be ignored without weakening security or delivery.
    ///
    /// # Cancel safety
    /// Safe. Nothing here waits for the network.
    pub async fn from_properties<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        TransactionalProducerBuilder { producer: ProducerBuilder::empty().properties(pairs) }.build().await
    }
}
