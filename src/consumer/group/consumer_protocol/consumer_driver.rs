//! Sends the heartbeats of a member, and looks up the topics that it subscribes to and is assigned.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster::{Client, ConnectionKind},
    consumer::{
        group::{
            actions::AttemptId,
            consumer_protocol::{
                actions::{HeartbeatFields, HeartbeatResponse, LeavingHeartbeat, TopicsToSubscribe},
                consumer_membership::ConsumerMembership,
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

/// Timeout of a heartbeat, so that an attempt without a response leaves time for another within the
/// session. A leave that the next membership waits for has the same limit.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(20);

/// The response to a heartbeat.
#[derive(Debug)]
pub(in crate::consumer::group) struct HeartbeatOutcome {
    /// False if the request's version could not carry the regular expression.
    has_all_fields: bool,
    answer: Result<HeartbeatResponse>,
}

pub(in crate::consumer::group) struct ConsumerDriver {
    client: Client,
    shared: Arc<MembershipShared>,
    remote_assignor: Option<Arc<str>>,
    subscription: Option<Subscription>,
    /// True if all topics of the cluster are requested.
    requests_all_topics: bool,
    /// False if the brokers (before Kafka 4.0) match no regular expressions.
    brokers_match_patterns: bool,
    /// Metadata up to this version may lack topics that the expressions match.
    incomplete_until: u64,
}

impl ConsumerDriver {
    pub(in crate::consumer::group) fn new(
        client: Client,
        shared: Arc<MembershipShared>,
        remote_assignor: Option<Arc<str>>,
    ) -> Self {
        Self {
            client,
            shared,
            remote_assignor,
            subscription: None,
            requests_all_topics: false,
            brokers_match_patterns: true,
            incomplete_until: 0,
        }
    }

    fn request_timeout(&self) -> Duration {
        request_timeout(&self.client).min(HEARTBEAT_TIMEOUT)
    }

    /// Returns true if there are expressions that are matched locally: the coordinator then
    /// receives topic names.
    fn matches_locally(&self, subscription: &Subscription) -> bool {
        let same = subscription.means_the_same_to_brokers(self.shared.settings.exclude_internal_topics);
        subscription.has_patterns() && !(self.brokers_match_patterns && same)
    }

    /// Requests all topics if expressions are matched locally; and if an expression that brokers
    /// match finds none of the known topics, so that the consumer can report that there are none.
    fn want_all_topics_if_needed(&mut self) {
        let exclude_internal = self.shared.settings.exclude_internal_topics;
        let needed = self.subscription.as_ref().is_some_and(|subscription| {
            let finds_nothing = || !subscription.unmatched(&self.client.metadata(), exclude_internal).is_empty();
            self.matches_locally(subscription) || (subscription.has_patterns() && finds_nothing())
        });
        if mem::replace(&mut self.requests_all_topics, needed) != needed {
            self.client.want_all_topics(needed);
        }
    }

    /// Tells the membership the subscription. Expressions that are matched locally wait for
    /// metadata with all topics.
    fn match_topics(&self, membership: &mut ConsumerMembership) {
        let metadata = self.client.metadata();
        let wanted = match &self.subscription {
            None => None,
            Some(subscription) if !self.matches_locally(subscription) => Some(TopicsToSubscribe {
                names: subscription.names().clone(),
                regex: subscription.broker_regex().map(Arc::from),
            }),
            Some(_) if metadata.version <= self.incomplete_until => return,
            Some(subscription) => {
                let names = subscription.topics(&metadata, self.shared.settings.exclude_internal_topics);
                Some(TopicsToSubscribe { names, regex: None })
            }
        };
        membership.subscribe(now(), wanted);
    }

    fn look_up_names(&self, membership: &mut ConsumerMembership) {
        let metadata = self.client.metadata();
        membership.names_known(now(), |id| metadata.names.get(&id).cloned());
    }
}

impl ProtocolDriver for ConsumerDriver {
    type Membership = ConsumerMembership;
    type Response = HeartbeatOutcome;

    fn new_membership(&self) -> ConsumerMembership {
        let settings = self.client.settings();
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        ConsumerMembership::new(
            self.shared.settings.clone(),
            id.hyphenated().to_string().into(),
            (settings.retry_backoff, settings.retry_backoff_max),
            settings.seed.unwrap_or_else(rand::random),
            now(),
        )
    }

    fn send(&mut self, heartbeat: HeartbeatFields) -> impl Future<Output = HeartbeatOutcome> + Send + 'static + use<> {
        let (client, shared) = (self.client.clone(), self.shared.clone());
        let (remote_assignor, timeout) = (self.remote_assignor.clone(), self.request_timeout());
        async move {
            let settings = &shared.settings;
            let mut has_all_fields = true;
            let build = |version| {
                has_all_fields = requests::supports(version, &heartbeat);
                requests::heartbeat(version, settings, remote_assignor.as_deref(), &heartbeat)
            };
            let (group, kind) = (&settings.group_id, ConnectionKind::Group);
            let answer = ask_and_heed(&client, group, kind, timeout, build, |response| response.error_code).await;
            let answer = answer.and_then(|(node, response)| requests::read_heartbeat(response, node, settings));
            HeartbeatOutcome { has_all_fields, answer }
        }
    }

    fn handle_response(&mut self, membership: &mut ConsumerMembership, attempt: AttemptId, outcome: HeartbeatOutcome) {
        membership.handle_response(now(), attempt, outcome.answer);
        if !outcome.has_all_fields && mem::replace(&mut self.brokers_match_patterns, false) {
            self.subscribe(membership, self.subscription.clone());
        }
        self.look_up_names(membership);
    }

    fn leave(&self, leaves: &mut PendingLeaves, leave: LeavingHeartbeat, deadline: Instant) {
        let LeavingHeartbeat { member_id, epoch } = leave;
        let build = move |_, settings: &_| requests::leave(settings, &member_id, epoch);
        leaves.leave(deadline, build, requests::read_leave);
    }

    fn leave_timeout(&self) -> Duration {
        self.request_timeout()
    }

    fn is_subscribed(&self) -> bool {
        self.subscription.is_some()
    }

    fn subscribe(&mut self, membership: &mut ConsumerMembership, subscription: Option<Subscription>) {
        if subscription.as_ref().is_some_and(|subscription| self.matches_locally(subscription)) {
            self.incomplete_until = self.client.metadata().version;
            self.client.refresh_metadata();
        }
        self.subscription = subscription;
        self.want_all_topics_if_needed();
        self.want_topics();
        self.match_topics(membership);
    }

    fn want_topics(&self) {
        let names = self.subscription.iter().flat_map(|subscription| subscription.names());
        self.client.want_topics(names.map(|topic| &**topic));
    }

    fn handle_metadata(&mut self, membership: &mut ConsumerMembership) {
        self.want_all_topics_if_needed();
        self.match_topics(membership);
        self.look_up_names(membership);
    }

    /// Requests metadata of assigned topics without a known name.
    fn actions_carried_out(&mut self, membership: &ConsumerMembership) {
        let unresolved: Vec<_> = membership.unresolved().collect();
        self.client.want_topic_ids(&unresolved);
        if !unresolved.is_empty() {
            event!(DEBUG, self.shared.settings.origin, ?unresolved, "names of assigned topics are not known yet");
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
