//! Sends the requests of a classic member, and looks up the topics that it joins with.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster::{Client, ConnectionKind, Metadata},
    consumer::{
        group::{
            actions::AttemptId,
            assignor::PartitionRacks,
            classic::{
                actions::{ClassicRequest, JoinOutcome, LeaveGroup, SyncAnswer, TopicPartitions},
                classic_membership::ClassicMembership,
                requests,
            },
            coordinator::{ask_and_heed, request_timeout},
            pending_leaves::PendingLeaves,
            protocol_driver::ProtocolDriver,
            shared::MembershipShared,
        },
        subscription::topics::Subscription,
    },
    error::Result,
    log::event,
};

/// Time in addition to the rebalance timeout for the response to a JoinGroup, because the rebalance
/// itself may take the whole timeout.
const JOIN_MARGIN: Duration = Duration::from_secs(5);
/// Time for which a leader looks up topics that its metadata does not have yet.
const COUNT_WAIT: Duration = Duration::from_secs(5);
/// Number of newer metadata versions that it checks: a topic that is in none of them does not
/// exist.
const COUNT_VERSIONS: u32 = 3;

/// The response to a request of the membership.
#[derive(Debug)]
pub(in crate::consumer::group) enum ClassicResponse {
    Joined(JoinOutcome),
    Counted(TopicPartitions),
    Synced(Result<SyncAnswer>),
    Heartbeat(Result<()>),
}

pub(in crate::consumer::group) struct ClassicDriver {
    client: Client,
    shared: Arc<MembershipShared>,
    subscription: Option<Subscription>,
    /// Metadata up to this version may lack topics that the expressions match.
    incomplete_until: u64,
    /// As the leader: the topics of the group's other members.
    group_topics: BTreeSet<Arc<str>>,
}

impl ClassicDriver {
    pub(in crate::consumer::group) fn new(client: Client, shared: Arc<MembershipShared>) -> Self {
        Self { client, shared, subscription: None, incomplete_until: 0, group_topics: BTreeSet::new() }
    }

    /// Tells the membership the topics of the subscription. Expressions wait for metadata with all
    /// topics.
    fn match_topics(&self, membership: &mut ClassicMembership) {
        let metadata = self.client.metadata();
        let topics = match &self.subscription {
            Some(subscription) if subscription.has_patterns() && metadata.version <= self.incomplete_until => return,
            Some(subscription) => Some(subscription.topics(&metadata, self.shared.settings.exclude_internal_topics)),
            None => None,
        };
        membership.subscribe(now(), topics);
    }

    fn check_partition_counts(&self, membership: &mut ClassicMembership) {
        let metadata = self.client.metadata();
        membership.metadata_changed(now(), |topic| racks(&metadata, topic));
    }
}

impl ProtocolDriver for ClassicDriver {
    type Membership = ClassicMembership;
    type Response = ClassicResponse;

    fn new_membership(&self) -> ClassicMembership {
        let settings = self.client.settings();
        ClassicMembership::new(
            self.shared.settings.clone(),
            (settings.retry_backoff, settings.retry_backoff_max),
            settings.seed.unwrap_or_else(rand::random),
            now(),
        )
    }

    fn send(&mut self, request: ClassicRequest) -> impl Future<Output = ClassicResponse> + Send + 'static + use<> {
        if let ClassicRequest::Count { topics } = &request {
            self.group_topics.clone_from(topics);
        }
        respond(self.client.clone(), self.shared.clone(), request)
    }

    fn handle_response(&mut self, membership: &mut ClassicMembership, attempt: AttemptId, response: ClassicResponse) {
        let now = now();
        match response {
            ClassicResponse::Joined(outcome) => membership.joined(now, attempt, outcome),
            ClassicResponse::Counted(counts) => membership.partitions_counted(now, attempt, counts),
            ClassicResponse::Synced(answer) => membership.synced(now, attempt, answer),
            ClassicResponse::Heartbeat(answer) => membership.heartbeat_answered(now, attempt, answer),
        }
    }

    fn leave(&self, leaves: &mut PendingLeaves, leave: LeaveGroup, deadline: Instant) {
        let LeaveGroup { member_id, reason } = leave;
        let build = move |version, settings: &_| requests::leave(version, settings, &member_id, reason);
        leaves.leave(deadline, build, requests::read_leave);
    }

    fn leave_timeout(&self) -> Duration {
        request_timeout(&self.client)
    }

    fn is_subscribed(&self) -> bool {
        self.subscription.is_some()
    }

    fn subscribe(&mut self, membership: &mut ClassicMembership, subscription: Option<Subscription>) {
        let expressions = subscription.as_ref().is_some_and(Subscription::has_patterns);
        let had_expressions = self.subscription.as_ref().is_some_and(Subscription::has_patterns);
        if expressions != had_expressions {
            self.client.want_all_topics(expressions);
            if expressions {
                self.incomplete_until = self.client.metadata().version;
                self.client.refresh_metadata();
            }
        }
        self.subscription = subscription;
        self.group_topics.clear();
        self.want_topics();
        self.match_topics(membership);
    }

    fn want_topics(&self) {
        let names = self.subscription.iter().flat_map(|subscription| subscription.names());
        let topics: BTreeSet<&str> = names.chain(&self.group_topics).map(|topic| &**topic).collect();
        self.client.want_topics(topics);
    }

    fn handle_metadata(&mut self, membership: &mut ClassicMembership) {
        self.match_topics(membership);
        self.check_partition_counts(membership);
    }

    /// Compares the partitions of a leader's topics with the metadata, which may have changed while
    /// the group was joining.
    fn partitions_assigned(&mut self, membership: &mut ClassicMembership) {
        self.check_partition_counts(membership);
    }
}

/// Sends a request of the membership, or looks up partitions, and returns the response.
async fn respond(client: Client, shared: Arc<MembershipShared>, request: ClassicRequest) -> ClassicResponse {
    let settings = &shared.settings;
    let request_timeout = request_timeout(&client);
    let join_timeout = request_timeout.max(settings.max_poll_interval + JOIN_MARGIN);
    let group = &settings.group_id;
    match request {
        ClassicRequest::Join { member_id, protocols, reason } => {
            let build = |version| requests::join(version, settings, &member_id, &protocols, &reason);
            let answer =
                ask_and_heed(&client, group, ConnectionKind::Join, join_timeout, build, |response| response.error_code);
            ClassicResponse::Joined(match answer.await {
                Ok((_, response)) => requests::read_join(response, settings),
                Err(error) => JoinOutcome::Failed(error),
            })
        }
        ClassicRequest::Count { topics } => ClassicResponse::Counted(partition_counts(&client, topics).await),
        ClassicRequest::Sync { identity, protocol, assignments } => {
            let build = |version| requests::sync(version, settings, &identity, &protocol, &assignments);
            let answer =
                ask_and_heed(&client, group, ConnectionKind::Join, join_timeout, build, |response| response.error_code);
            ClassicResponse::Synced(answer.await.and_then(|(_, response)| requests::read_sync(response, settings)))
        }
        ClassicRequest::Heartbeat { identity } => {
            // An attempt without a response must leave time for another within the session.
            let timeout = request_timeout.min(settings.session_timeout / 2);
            let build = |version| requests::heartbeat(version, settings, &identity);
            let answer =
                ask_and_heed(&client, group, ConnectionKind::Group, timeout, build, |response| response.error_code);
            let answer = answer.await.and_then(|(_, response)| requests::read_heartbeat(&response, settings));
            ClassicResponse::Heartbeat(answer)
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Returns the partitions of the topics, by the newest metadata; waits a little for topics that it
/// does not have.
async fn partition_counts(client: &Client, topics: BTreeSet<Arc<str>>) -> TopicPartitions {
    client.want_topics(topics.iter().map(|topic| &**topic));
    let deadline = Instant::now() + COUNT_WAIT;
    let mut metadata = client.metadata();
    for _ in 0..COUNT_VERSIONS {
        if topics.iter().all(|topic| metadata.topic(topic).is_some()) {
            break;
        }
        match client.newer_metadata(metadata.version, deadline).await {
            Ok(newer) => metadata = newer,
            Err(error) => {
                event!(DEBUG, client.origin(), %error, "newer metadata did not arrive in time; the leader assigns without the topics that are missing in its metadata");
                break;
            }
        }
    }
    let known = topics.into_iter().filter_map(|topic| {
        let partitions = racks(&metadata, &topic)?;
        Some((topic, partitions))
    });
    known.collect()
}

/// Returns the partitions of a topic, each with the racks of its replicas; `None` if the topic does
/// not exist.
fn racks(metadata: &Metadata, topic: &str) -> Option<Vec<PartitionRacks>> {
    let topic = metadata.topic(topic).filter(|topic| topic.error.is_ok())?;
    let rack = |replica: &i32| metadata.brokers.get(replica)?.rack.clone();
    Some(topic.partitions.iter().map(|partition| partition.replicas.iter().filter_map(rack).collect()).collect())
}
