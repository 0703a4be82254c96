use super::{Admin, TopicResults, broker_timeout, repeat::repeat, rounds::Rounds};
use crate::{
    error::{ErrorCode, Result},
    record::check_topic_name,
    wire::{
        byte_string::ByteString,
        messages::{DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_request::DeleteTopicState},
    },
};

/// First version in which the request names topics by structures that may also hold an id.
const TOPICS_AS_STATES: i16 = 6;

impl Admin {
    /// Deletes topics with all their records. An error of one topic does not keep the others from
    /// being deleted.
    ///
    /// A topic is deleted once the controller has accepted it; the other brokers learn of it a
    /// moment later.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let admin = cluster.admin().build().await?;
    /// # cluster.create_topic("orders", 1)?;
    /// admin.delete_topics(["orders"]).await?.into_result()?;
    /// # assert!(cluster.log_end("orders", 0).is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Like [`create_topics`](Self::create_topics). `UNKNOWN_TOPIC_OR_PARTITION` after a lost
    /// attempt has the [delivery status](crate::Error::delivery_status)
    /// [`PossiblyPersisted`](crate::DeliveryStatus::PossiblyPersisted): the topic does not exist,
    /// deleted by this call or by another client. Without that status the topic did not exist
    /// before either.
    ///
    /// # Cancel safety
    /// If the future is dropped, the result is lost; topics may have been deleted.
    pub async fn delete_topics(&self, topics: impl IntoIterator<Item = impl AsRef<str>>) -> Result<TopicResults<()>> {
        let names: Vec<String> = topics.into_iter().map(|name| name.as_ref().to_owned()).collect();
        for name in &names {
            check_topic_name(name)?;
        }
        let rounds = Rounds::new("delete topic", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, names.clone())?;
        let (deadline, timeout) = (self.deadline(), self.client.settings().request_timeout);
        let results = repeat(
            &self.client,
            deadline,
            rounds,
            |rounds, version| {
                let open = names.iter().filter(|name| rounds.is_open(name)).map(|name| ByteString::from(name.as_str()));
                let request =
                    DeleteTopicsRequest { timeout_ms: broker_timeout(deadline, timeout), ..Default::default() };
                if version >= TOPICS_AS_STATES {
                    DeleteTopicsRequest {
                        topics: open.map(|name| DeleteTopicState { name: Some(name), ..Default::default() }).collect(),
                        ..request
                    }
                } else {
                    DeleteTopicsRequest { topic_names: open.collect(), ..request }
                }
            },
            |response: &DeleteTopicsResponse| {
                response.responses.iter().map(|topic| ErrorCode::new(topic.error_code)).collect()
            },
            |rounds, response| {
                for topic in response.responses {
                    let name = topic.name.unwrap_or_default();
                    let code = ErrorCode::new(topic.error_code);
                    rounds.answer(name.as_str(), code, topic.error_message.as_deref(), ());
                }
            },
        )
        .await;
        Ok(results)
    }
}
