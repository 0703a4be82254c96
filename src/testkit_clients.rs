//! Builders of clients for a cluster of `testkit`.
//!
//! They are in a room of their own, above the clients and the testkit, because neither may use the
//! other: the testkit must not depend on the client that it tests.

use crate::{
    admin::{Admin, AdminBuilder},
    consumer::{Consumer, ConsumerBuilder},
    producer::{Producer, ProducerBuilder},
    testkit::Cluster,
};

impl Cluster {
    /// Returns a builder for a producer of this cluster, with its [addresses](Self::bootstrap) and
    /// its [network](Self::network), TCP or in memory.
    ///
    /// The test sets the security: a cluster with TLS or SASL needs [`ProducerBuilder::security`].
    ///
    /// ```
    /// use ottla::{
    ///     Record,
    ///     testkit::{Cluster, Options},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// let producer = cluster.producer().build().await?;
    /// let at = producer.send(Record::to("orders").with_value("shipped")).await?.await?;
    /// assert_eq!(at.offset, Some(0));
    /// # Ok(()) }
    /// ```
    pub fn producer(&self) -> ProducerBuilder {
        Producer::builder(self.bootstrap()).network(self.network())
    }

    /// Returns a builder for a consumer of this cluster, like [`producer`](Self::producer).
    ///
    /// ```
    /// use ottla::{
    ///     Record,
    ///     consumer::OffsetReset,
    ///     testkit::{Cluster, Options},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// cluster.create_topic("orders", 1)?;
    /// cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// let consumer = cluster
    ///     .consumer()
    ///     .group("billing")
    ///     .auto_offset_reset(OffsetReset::Earliest)
    ///     .build()
    ///     .await?;
    /// consumer.subscribe(["orders"])?;
    /// let record = consumer.recv().await.transpose()?.expect("a record");
    /// assert_eq!(record.value.as_deref(), Some(&b"shipped"[..]));
    /// # Ok(()) }
    /// ```
    pub fn consumer(&self) -> ConsumerBuilder {
        Consumer::builder(self.bootstrap()).network(self.network())
    }

    /// Returns a builder for an admin client of this cluster, like [`producer`](Self::producer).
    ///
    /// ```
    /// use ottla::{
    ///     admin::NewTopic,
    ///     testkit::{Cluster, Options},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// let admin = cluster.admin().build().await?;
    /// admin.create_topics([NewTopic::new("orders", 6)]).await?.into_result()?;
    /// assert_eq!(admin.partitions_for("orders").await?.len(), 6);
    /// # Ok(()) }
    /// ```
    pub fn admin(&self) -> AdminBuilder {
        Admin::builder(self.bootstrap()).network(self.network())
    }
}
