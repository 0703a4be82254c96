use super::Admin;
use crate::error::Result;

/// The brokers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// The cluster's id, if the brokers send it.
    pub id: Option<String>,
    /// The controller, or a broker that forwards requests to it, if one is known.
    pub controller: Option<i32>,
    /// The brokers that are up, by their ids.
    pub brokers: Vec<BrokerDescription>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Its id.
    pub id: i32,
    /// The host at which clients reach it.
    pub host: String,
    /// The port at which clients reach it.
    pub port: u16,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

impl Admin {
    /// Returns the cluster's brokers and its id.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let admin = cluster.admin().build().await?;
    /// let description = admin.describe_cluster().await?;
    /// for broker in &description.brokers {
    ///     println!("broker {} at {}:{}", broker.id, broker.host, broker.port);
    /// }
    /// # assert_eq!(description.brokers.len(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The last error if no broker answers within `default.api.timeout.ms`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        let response = self.metadata(Some(&[])).await.map_err(|error| error.context("describe cluster"))?;
        let mut brokers: Vec<BrokerDescription> = response
            .brokers
            .into_iter()
            .map(|broker| BrokerDescription {
                id: broker.node_id,
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).unwrap_or_default(),
                rack: broker.rack.map(|rack| rack.to_string()),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            id: response.cluster_id.map(|id| id.to_string()),
            controller: Some(response.controller_id).filter(|controller| *controller >= 0),
            brokers,
        })
    }
}
