//! The loop that turns the membership's actions into requests and events, and their responses into
//! its inputs.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Action, AttemptId, ConsumerMembership, HeartbeatFields, HeartbeatResponse, TopicsToSubscribe, requests};
use crate::{
    cluster::{Client, ConnectionKind},
    consumer::{
        group::{
            GroupEvent,
            classic::group_task::warn_unconfirmed_leave,
            command::Command,
            coordinator::{ask, heed, request_timeout},
            pending_leaves::PendingLeaves,
            shared::{MembershipShared, bounded},
        },
        subscription::topics::Subscription,
    },
    error::{Error, ErrorKind, Result},
    log::event,
};

/// Timeout of a heartbeat, so that an attempt without a response leaves time for another within the
/// session. A leave that the next membership waits for has the same limit.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(20);

/// A response to an outstanding request.
#[derive(Debug)]
enum RequestOutcome {
    Answer {
        attempt: AttemptId,
        /// False if the request's version could not carry the regular expression.
        says_all: bool,
        answer: Result<HeartbeatResponse>,
    },
    Revoked(AttemptId),
}

pub(crate) struct ConsumerProtocolTask {
    client: Client,
    shared: Arc<MembershipShared>,
    remote_assignor: Option<Arc<str>>,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<GroupEvent>,
    membership: ConsumerMembership,
    /// Outstanding requests; aborted when the task is dropped.
    under_way: JoinSet<RequestOutcome>,
    /// Outstanding leaves; a close waits for them.
    leaves: PendingLeaves,
    pictures: watch::Receiver<u64>,
    subscription: Option<Subscription>,
    /// True if all topics of the cluster are requested.
    sees_all: bool,
    /// False if the brokers (before Kafka 4.0) match no regular expressions.
    brokers_match: bool,
    /// Metadata up to this version may lack topics that the expressions match.
    blind_until: u64,
}

impl ConsumerProtocolTask {
    pub(crate) fn new(
        client: Client,
        shared: Arc<MembershipShared>,
        remote_assignor: Option<Arc<str>>,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        let settings = client.settings();
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let membership = ConsumerMembership::new(
            shared.settings.clone(),
            id.hyphenated().to_string().into(),
            (settings.retry_backoff, settings.retry_backoff_max),
            settings.seed.unwrap_or_else(rand::random),
            now(),
        );
        Self {
            pictures: client.metadata_changes(),
            leaves: PendingLeaves::new(client.clone(), shared.clone()),
            client,
            shared,
            remote_assignor,
            commands,
            events,
            membership,
            under_way: JoinSet::new(),
            subscription: None,
            sees_all: false,
            brokers_match: true,
            blind_until: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        // Topics that are not requested for a while are dropped from the metadata; those of a
        // member must stay.
        let renewal = bounded(self.client.settings().metadata_max_idle / 3).max(Duration::from_secs(1));
        let mut renew_at = Instant::now() + renewal;
        loop {
            self.carry_out_actions();
            let wake = self.membership.next_wake().map_or(renew_at, |wake| renew_at.min(Instant::from_std(wake)));
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Subscribe(subscription)) => self.subscribe(subscription),
                    Some(Command::CommitRefused { identity, said }) => {
                        self.membership.commit_refused(now(), &identity, &said);
                    }
                    Some(Command::Close { deadline, done }) => {
                        let result = self.close(deadline).await;
                        let _ = done.send(result);
                        return;
                    }
                    // The last handle was dropped, so there is no reader any more.
                    None => return,
                },
                Some(heard) = self.under_way.join_next() => match heard {
                    Ok(heard) => self.handle_response(heard),
                    Err(error) => return self.abandon(&error),
                },
                Some(left) = self.leaves.next() => {
                    if let Err(error) = left {
                        warn_unconfirmed_leave(&self.shared, &error);
                    }
                    self.membership.leave_ended(now());
                }
                changed = self.pictures.changed() => match changed {
                    Ok(()) => self.handle_metadata(),
                    Err(_) => return self.abandon(&"the client is closed"),
                },
                () = self.shared.poll_activity.resumed() => {}
                () = sleep_until(wake) => {}
            }
            if self.shared.poll_activity.take_poll() {
                self.membership.polled(self.shared.poll_activity.last_poll_at(now()));
            }
            self.membership.tick(now());
            if Instant::now() >= renew_at {
                renew_at = Instant::now() + renewal;
                self.want_topics();
            }
        }
    }

    /// Carries out the membership's actions. The handles learn of the member before the consumer
    /// receives an event.
    fn carry_out_actions(&mut self) {
        self.publish();
        while let Some(action) = self.membership.next_action() {
            match action {
                Action::Heartbeat { attempt, beat } => self.heartbeat(attempt, beat),
                Action::Leave { member_id, epoch } => {
                    let deadline = Instant::now() + request_timeout(&self.client).min(HEARTBEAT_TIMEOUT);
                    self.leave_group(member_id, epoch, deadline);
                }
                Action::AwaitPoll => self.shared.poll_activity.await_poll(),
                Action::Assigned { partitions } => self.send_event(GroupEvent::Assigned { partitions }),
                Action::Revoke { attempt, partitions } => {
                    let (done, answered) = oneshot::channel();
                    self.send_event(GroupEvent::Revoking { partitions, done });
                    self.under_way.spawn(async move {
                        // Dropping the other end answers too.
                        let _ = answered.await;
                        RequestOutcome::Revoked(attempt)
                    });
                }
                Action::Lost { partitions } => self.send_event(GroupEvent::Lost { partitions }),
                Action::Error { error, fatal } => self.send_event(GroupEvent::Error { error, fatal }),
            }
        }
        self.resolve_topic_names();
    }

    /// Requests metadata of assigned topics without a known name.
    fn resolve_topic_names(&mut self) {
        let unresolved: Vec<_> = self.membership.unresolved().collect();
        self.client.want_topic_ids(&unresolved);
        if !unresolved.is_empty() {
            event!(DEBUG, self.shared.settings.origin, ?unresolved, "names of assigned topics are not known yet");
        }
    }

    fn publish(&self) {
        self.shared.publish(self.membership.snapshot(), self.subscription.is_some());
    }

    fn send_event(&self, event: GroupEvent) {
        // A consumer that no longer listens is about to drop its handle.
        let _ = self.events.send(event);
    }

    fn heartbeat(&mut self, attempt: AttemptId, beat: HeartbeatFields) {
        let (client, shared) = (self.client.clone(), self.shared.clone());
        let remote_assignor = self.remote_assignor.clone();
        let timeout = request_timeout(&client).min(HEARTBEAT_TIMEOUT);
        self.under_way.spawn(async move {
            let settings = &shared.settings;
            let mut says_all = true;
            let build = |version| {
                says_all = requests::supports(version, &beat);
                requests::heartbeat(version, settings, remote_assignor.as_deref(), &beat)
            };
            let answer = ask(&client, &settings.group_id, ConnectionKind::Group, timeout, build).await;
            let answer = answer.and_then(|(node, response)| {
                heed(&client, &settings.group_id, node, Some(response.error_code.into()));
                requests::read_heartbeat(response, node, settings)
            });
            RequestOutcome::Answer { attempt, says_all, answer }
        });
    }

    fn leave_group(&mut self, member_id: Arc<str>, epoch: i32, deadline: Instant) {
        let build = move |_, settings: &_| requests::leave(settings, &member_id, epoch);
        self.leaves.leave(Some(deadline), build, requests::read_leave);
    }

    fn handle_response(&mut self, heard: RequestOutcome) {
        match heard {
            RequestOutcome::Answer { attempt, says_all, answer } => {
                self.membership.handle_response(now(), attempt, answer);
                if !says_all && std::mem::replace(&mut self.brokers_match, false) {
                    self.subscribe(self.subscription.clone());
                }
                self.look_up_names();
            }
            RequestOutcome::Revoked(attempt) => self.membership.revoked(now(), attempt),
        }
    }

    fn subscribe(&mut self, subscription: Option<Subscription>) {
        let expressions = subscription.as_ref().is_some_and(|subscription| self.matches_locally(subscription));
        if expressions {
            self.blind_until = self.client.metadata().version;
            self.client.refresh_metadata();
        }
        self.subscription = subscription;
        self.want_all_topics_if_needed();
        self.want_topics();
        self.match_topics();
    }

    /// Returns true if there are expressions that are matched locally: the coordinator then
    /// receives topic names.
    fn matches_locally(&self, subscription: &Subscription) -> bool {
        let same = subscription.means_the_same_to_brokers(self.shared.settings.exclude_internal_topics);
        subscription.has_patterns() && !(self.brokers_match && same)
    }

    /// Requests all topics if expressions are matched locally; and if an expression that brokers
    /// match finds none of the known topics, so that the consumer can report that there are none.
    fn want_all_topics_if_needed(&mut self) {
        let exclude_internal = self.shared.settings.exclude_internal_topics;
        let needed = self.subscription.as_ref().is_some_and(|subscription| {
            let finds_nothing = || !subscription.unmatched(&self.client.metadata(), exclude_internal).is_empty();
            self.matches_locally(subscription) || (subscription.has_patterns() && finds_nothing())
        });
        if std::mem::replace(&mut self.sees_all, needed) != needed {
            self.client.want_all_topics(needed);
        }
    }

    fn handle_metadata(&mut self) {
        self.want_all_topics_if_needed();
        self.match_topics();
        self.look_up_names();
    }

    fn look_up_names(&mut self) {
        let metadata = self.client.metadata();
        self.membership.names_known(now(), |id| metadata.names.get(&id).cloned());
    }

    /// Tells the membership the subscription. Expressions that are matched locally wait for
    /// metadata with all topics.
    fn match_topics(&mut self) {
        let metadata = self.client.metadata();
        let wanted = match &self.subscription {
            None => None,
            Some(subscription) if !self.matches_locally(subscription) => Some(TopicsToSubscribe {
                names: subscription.names().clone(),
                regex: subscription.broker_regex().map(Arc::from),
            }),
            Some(_) if metadata.version <= self.blind_until => return,
            Some(subscription) => {
                let names = subscription.topics(&metadata, self.shared.settings.exclude_internal_topics);
                Some(TopicsToSubscribe { names, regex: None })
            }
        };
        self.membership.subscribe(now(), wanted);
    }

    fn want_topics(&self) {
        let names = self.subscription.iter().flat_map(|subscription| subscription.names());
        self.client.want_topics(names.map(|topic| &**topic));
    }

    async fn close(&mut self, deadline: Instant) -> Result<()> {
        self.membership.close();
        self.publish();
        self.under_way.abort_all();
        self.client.want_topic_ids(&[]);
        if let Some(Action::Leave { member_id, epoch }) = self.membership.next_action() {
            self.leave_group(member_id, epoch, deadline);
        }
        self.leaves.all(deadline).await
    }

    /// Ends the membership because its client is closed, or its runtime ends.
    fn abandon(&mut self, reason: &dyn std::fmt::Display) {
        self.membership.close();
        self.publish();
        let error = Error::new(ErrorKind::Closed, format!("group membership ended: {reason}"));
        self.send_event(GroupEvent::Error { error, fatal: true });
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
