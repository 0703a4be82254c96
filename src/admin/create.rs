use super::{Admin, TopicId, TopicResults, broker_timeout, repeat::repeat, rounds::Rounds};
use crate::{
    error::{ErrorCode, Result},
    record::check_topic_name,
    wire::{
        byte_string::ByteString,
        messages::{
            CreateTopicsRequest, CreateTopicsResponse,
            create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        },
    },
};

/// A topic to be created.
///
/// ```
/// use ottla::admin::NewTopic;
/// let topic = NewTopic::new("orders", 6).replication_factor(3).config("retention.ms", "86400000");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: i32,
    replication_factor: i16,
    assignments: Vec<(i32, Vec<i32>)>,
    configs: Vec<(String, String)>,
}

impl NewTopic {
    /// Describes a topic with this number of partitions, or, for −1, with the brokers'
    /// `num.partitions`. Each partition has the number of replicas that the brokers'
    /// `default.replication.factor` says (KIP-464; brokers before 2.4 accept neither
    /// default and require both numbers).
    pub fn new(name: impl AsRef<str>, partitions: i32) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            partitions,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }

    /// Sets the number of replicas of each partition; −1 stands for the brokers'
    /// `default.replication.factor`.
    #[must_use]
    pub fn replication_factor(mut self, factor: i16) -> Self {
        self.replication_factor = factor;
        self
    }

    /// Sets the replicas of that partition, the preferred leader first. If one partition has an
    /// assignment, all need one, and the assignments determine the number of partitions and of
    /// replicas.
    #[must_use]
    pub fn assignment(mut self, partition: i32, brokers: impl Into<Vec<i32>>) -> Self {
        self.assignments.push((partition, brokers.into()));
        self
    }

    /// Sets one of the topic's own settings, `retention.ms` for example.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }

    fn to_request(&self) -> CreatableTopic {
        let text = |text: &String| ByteString::from(text.clone());
        // With assignments the broker requires −1 for both counts.
        let assigned = !self.assignments.is_empty();
        CreatableTopic {
            name: text(&self.name),
            num_partitions: if assigned { -1 } else { self.partitions },
            replication_factor: if assigned { -1 } else { self.replication_factor },
            assignments: self
                .assignments
                .iter()
                .map(|(partition, brokers)| CreatableReplicaAssignment {
                    partition_index: *partition,
                    broker_ids: brokers.to_vec(),
                })
                .collect(),
            configs: self
                .configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig { name: text(name), value: Some(text(value)) })
                .collect(),
        }
    }
}

/// A topic that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id, if the broker sends one (2.8 and newer).
    pub id: Option<TopicId>,
    /// Its number of partitions, if the broker sends it (2.4 and newer).
    pub partitions: Option<i32>,
    /// Its number of replicas of each partition, if the broker sends it.
    pub replication_factor: Option<i16>,
}

impl Admin {
    /// Creates topics. An error of one topic does not keep the others from being created.
    ///
    /// A topic is created once the controller has accepted it; the other brokers learn of it a
    /// moment later.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::admin::NewTopic;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let admin = cluster.admin().build().await?;
    /// let orders = NewTopic::new("orders", 6).replication_factor(1);
    /// for topic in admin.create_topics([orders, NewTopic::new("audit", 1)]).await? {
    ///     match topic.result {
    ///         Ok(created) => println!("{} has the id {:?}", topic.topic, created.id),
    ///         Err(error) => eprintln!("{}: {error}", topic.topic),
    ///     }
    /// }
    /// # assert_eq!(admin.partitions_for("orders").await?.len(), 6);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The call returns [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a
    /// name that Kafka forbids or that is given twice; in that case nothing was sent. A topic has
    /// the broker's error, or the last error if no response arrives within
    /// `default.api.timeout.ms`.
    ///
    /// The call is repeated when a connection breaks, and the lost attempt may have created the
    /// topic. So `TOPIC_ALREADY_EXISTS` after a lost attempt has the [delivery
    /// status](crate::Error::delivery_status)
    /// [`PossiblyPersisted`](crate::DeliveryStatus::PossiblyPersisted): the topic exists, created
    /// by this call or by another client. Without that status the topic existed before.
    ///
    /// # Cancel safety
    /// If the future is dropped, the result is lost; topics may have been created.
    pub async fn create_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<TopicResults<CreatedTopic>> {
        let topics: Vec<NewTopic> = topics.into_iter().collect();
        for topic in &topics {
            check_topic_name(&topic.name)?;
        }
        let names = topics.iter().map(|topic| topic.name.clone()).collect();
        let rounds = Rounds::new("create topic", ErrorCode::TOPIC_ALREADY_EXISTS, names)?;
        let (deadline, timeout) = (self.deadline(), self.client.settings().request_timeout);
        let results = repeat(
            &self.client,
            deadline,
            rounds,
            |rounds, _version| CreateTopicsRequest {
                topics: topics.iter().filter(|topic| rounds.is_open(&topic.name)).map(NewTopic::to_request).collect(),
                timeout_ms: broker_timeout(deadline, timeout),
                ..Default::default()
            },
            |response: &CreateTopicsResponse| {
                response.topics.iter().map(|topic| ErrorCode::new(topic.error_code)).collect()
            },
            |rounds, response| {
                for topic in response.topics {
                    let created = CreatedTopic {
                        name: topic.name.to_string(),
                        id: TopicId::new(topic.topic_id),
                        partitions: Some(topic.num_partitions).filter(|count| *count >= 0),
                        replication_factor: Some(topic.replication_factor).filter(|factor| *factor >= 0),
                    };
                    let code = ErrorCode::new(topic.error_code);
                    rounds.answer(topic.name.as_str(), code, topic.error_message.as_deref(), created);
                }
            },
        )
        .await;
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_assignment_sends_minus_one_for_counts() {
        let request = NewTopic::new("a", 3).replication_factor(2).config("k", "v").to_request();
        assert_eq!((request.num_partitions, request.replication_factor), (3, 2));
        assert_eq!((request.configs[0].name.as_str(), request.configs[0].value.as_deref()), ("k", Some("v")));
        let request = NewTopic::new("a", 3).assignment(0, [2, 1]).to_request();
        assert_eq!((request.num_partitions, request.replication_factor), (-1, -1));
        assert_eq!(request.assignments[0].broker_ids, [2, 1]);
    }
}
