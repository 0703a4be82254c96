//! The administration of a cluster, one file per subject.
//!
//! Every call is repeated until its deadline (`default.api.timeout.ms`) on lost connections and on
//! errors that pass. What changes the cluster may then have been carried out by an attempt whose
//! answer was lost: `rounds` keeps count of that, and the error says so.

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
/// Cheap to clone; clones share their connections. When the last one is dropped, the connections
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
    /// Starts the settings of an admin client; `bootstrap` is the address of at least one broker,
    /// `host:port`, several with commas between them.
    pub fn builder(bootstrap: impl AsRef<str>) -> AdminBuilder {
        AdminBuilder::new(bootstrap.as_ref())
    }

    /// Builds an admin client from properties by their Java or librdkafka names. The same
    /// properties may build a producer and a consumer: those that mean nothing to an admin client
    /// are named in one warning.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a name that is not known
    /// (with the nearest that is), for one whose loss would weaken security or delivery (with the
    /// reason), for a value that is not allowed (with what is), and for a property given twice with
    /// different values.
    ///
    /// # Cancel safety
    /// Safe: nothing is started before the future is ready.
    pub async fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        AdminBuilder::new("").properties(properties).build().await
    }

    /// Closes all connections; calls under way end with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), for all clones.
    pub fn close(&self) {
        self.client.close();
    }

    /// Returns the partitions of a topic by their numbers. Takes at most `default.api.timeout.ms`,
    /// for a topic that does not exist (yet); creates none.
    /// [`Producer::partitions_for`](crate::Producer::partitions_for) and
    /// [`Consumer::partitions_for`](crate::Consumer::partitions_for) are the same call;
    /// [`describe_topics`](Self::describe_topics) does not wait, and tells of many topics at once.
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

/// What is left until the deadline, in milliseconds, as a request carries it for the broker's own
/// wait: at most what the answer is waited for.
fn broker_timeout(deadline: Instant, request_timeout: Duration) -> i32 {
    let left = deadline.saturating_duration_since(Instant::now()).min(request_timeout);
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
}
