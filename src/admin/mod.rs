//! The administration of a cluster, one file per subject.
//!
//! Every call is repeated until its deadline (`default.api.timeout.ms`) after lost connections and
//! retriable errors. An attempt that lost its response may have changed the cluster: `rounds`
//! records that, and the error says so.

mod builder;
mod cluster;
mod create;
mod delete;
mod describe;
mod repeat;
mod results;
mod rounds;
#[cfg(all(test, feature = "testkit"))]
mod tests;
mod topic_id;

use std::time::Duration;

pub use builder::AdminBuilder;
pub use cluster::{BrokerDescription, ClusterDescription};
pub use create::{CreatedTopic, NewTopic};
pub use describe::{PartitionDescription, TopicDescription, TopicListing};
pub use results::{TopicResult, TopicResults};
use tokio::time::Instant;
pub use topic_id::TopicId;

use crate::{
    cluster::{Client, PartitionInfo},
    config::parse::FOREVER,
    error::Result,
};

/// Creates, deletes, lists and describes topics.
///
/// Cheap to clone; clones share their connections. When the last clone is dropped, the connections
/// close.
///
/// ```no_run
/// use ottla::{Admin, admin::NewTopic};
///
/// # async fn example() -> ottla::Result<()> {
/// let admin = Admin::builder("localhost:9092").build().await?;
/// admin.create_topics([NewTopic::new("orders", 6)]).await?.into_result()?;
/// for topic in admin.list_topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// Returns a builder for an admin client. `bootstrap` is the address of at least one broker,
    /// `host:port`; commas separate several addresses.
    pub fn builder(bootstrap: impl AsRef<str>) -> AdminBuilder {
        AdminBuilder::new(bootstrap.as_ref())
    }

    /// Builds an admin client from properties by their Java or librdkafka names. The same
    /// properties may build a producer and a consumer: one warning names those that have no effect
    /// on an admin client.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for an unknown name (with the
    /// nearest known one), for a name that cannot be ignored without weakening security or delivery
    /// (with the reason), for a value that is not allowed (with the allowed values), and for a
    /// property given twice with different values.
    ///
    /// # Cancel safety
    /// Safe: nothing is started before the future is ready.
    pub async fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        AdminBuilder::new("").properties(properties).build().await
    }

    /// Closes all connections, for all clones. Calls under way end with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn close(&self) {
        self.client.close();
    }

    /// Returns the partitions of a topic by their numbers. It waits for a topic that does not exist
    /// (yet), for at most `default.api.timeout.ms`, and creates none.
    /// [`Producer::partitions_for`](crate::Producer::partitions_for) and
    /// [`Consumer::partitions_for`](crate::Consumer::partitions_for) are the same call.
    /// [`describe_topics`](Self::describe_topics) does not wait, and describes many topics at once.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that Kafka forbids; `UnknownTopicOrPartition`; `Authorization`;
    /// `Network` or `Timeout`, naming the last cause; `Closed`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>> {
        self.client.partitions_for(topic, self.deadline()).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.client.settings().default_api_timeout.min(FOREVER)
    }
}

/// Returns the time until the deadline in milliseconds, for the request's own timeout on the
/// broker; at most `request_timeout`, the time for which the client waits for the response.
fn broker_timeout(deadline: Instant, request_timeout: Duration) -> i32 {
    let left = deadline.saturating_duration_since(Instant::now()).min(request_timeout);
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
}
