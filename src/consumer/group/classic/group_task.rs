//! The loop that turns the membership's actions into requests and events, and their responses into
//! its inputs.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::consumer::group::command::Command;
use crate::consumer::group::{
    GroupEvent,
    assignor::PartitionRacks,
    classic::{Action, AttemptId, JoinOutcome, Membership, SyncAnswer, TopicPartitions, requests},
    coordinator::{ask, heed, request_timeout},
    pending_leaves::PendingLeaves,
    shared::{MembershipShared, bounded},
};
use crate::{
    cluster::{Client, ConnectionKind, Metadata},
    consumer::subscription::topics::Subscription,
    error::{Error, ErrorKind, Result},
    log::event,
};

/// Time in addition to the rebalance timeout for the response to a JoinGroup, because the rebalance
/// itself may take the whole timeout.
const JOIN_MARGIN: Duration = Duration::from_secs(5);
/// Time for which a leader looks up topics that its metadata does not have yet.
const COUNT_WAIT: Duration = Duration::from_secs(5);
/// Number of newer metadata versions that it checks: a topic that is in none of them does not
/// exist.
const COUNT_PICTURES: u32 = 3;

/// A response to an outstanding request.
#[derive(Debug)]
enum RequestOutcome {
    Joined(AttemptId, JoinOutcome),
    Counted(AttemptId, TopicPartitions),
    Synced(AttemptId, Result<SyncAnswer>),
    Heartbeat(AttemptId, Result<()>),
    Revoked(AttemptId),
}

pub(crate) struct GroupTask {
    client: Client,
    shared: Arc<MembershipShared>,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<GroupEvent>,
    membership: Membership,
    /// Outstanding requests; aborted when the task is dropped.
    answers: JoinSet<RequestOutcome>,
    /// Outstanding leaves; a close waits for them.
    leaves: PendingLeaves,
    pictures: watch::Receiver<u64>,
    subscription: Option<Subscription>,
    /// Metadata up to this version may lack topics that the expressions match.
    blind_until: u64,
    /// As the leader: the topics of the group's other members.
    group_topics: BTreeSet<Arc<str>>,
}

impl GroupTask {
    pub(crate) fn new(
        client: Client,
        shared: Arc<MembershipShared>,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        let settings = client.settings();
        let membership = Membership::new(
            shared.settings.clone(),
            (settings.retry_backoff, settings.retry_backoff_max),
            settings.seed.unwrap_or_else(rand::random),
            Instant::now().into_std(),
        );
        Self {
            pictures: client.metadata_changes(),
            leaves: PendingLeaves::new(client.clone(), shared.clone()),
            client,
            shared,
            commands,
            events,
            membership,
            answers: JoinSet::new(),
            subscription: None,
            blind_until: 0,
            group_topics: BTreeSet::new(),
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
                Some(answer) = self.answers.join_next() => match answer {
                    Ok(answer) => self.handle_response(answer),
                    Err(error) => return self.abandon(&error),
                },
                Some(left) = self.leaves.next() => {
                    if let Err(error) = left {
                        warn_unconfirmed_leave(&self.shared, &error);
                    }
                }
                changed = self.pictures.changed() => match changed {
                    Ok(()) => self.handle_metadata(),
                    Err(_) => return self.abandon(&"the client is closed"),
                },
                () = self.shared.poll_activity.resumed() => {}
                () = sleep_until(wake) => {}
            }
            let now = Instant::now();
            if self.shared.poll_activity.take_poll() {
                self.membership.polled(self.shared.poll_activity.last_poll_at(now.into_std()));
            }
            self.membership.tick(now.into_std());
            if now >= renew_at {
                renew_at = now + renewal;
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
                Action::Join { .. } | Action::Count { .. } | Action::Sync { .. } | Action::Heartbeat { .. } => {
                    self.request(action);
                }
                Action::Leave { member_id, reason } => {
                    self.leave_group(member_id, reason, None);
                }
                Action::AwaitPoll => self.shared.poll_activity.await_poll(),
                Action::Assigned { partitions } => {
                    self.send_event(GroupEvent::Assigned { partitions });
                    // The metadata may have changed while the group was joining.
                    self.check_partition_counts();
                    self.publish();
                }
                Action::Revoke { attempt, partitions } => {
                    let (done, answered) = oneshot::channel();
                    self.send_event(GroupEvent::Revoking { partitions, done });
                    self.answers.spawn(async move {
                        // Dropping the other end answers too.
                        let _ = answered.await;
                        RequestOutcome::Revoked(attempt)
                    });
                }
                Action::Lost { partitions } => self.send_event(GroupEvent::Lost { partitions }),
                Action::Error { error, fatal } => self.send_event(GroupEvent::Error { error, fatal }),
            }
        }
    }

    fn publish(&self) {
        self.shared.publish(self.membership.snapshot(), self.subscription.is_some());
    }

    fn send_event(&self, event: GroupEvent) {
        // A consumer that no longer listens is about to drop its handle.
        let _ = self.events.send(event);
    }

    fn request(&mut self, action: Action) {
        let (client, shared) = (self.client.clone(), self.shared.clone());
        let request_timeout = request_timeout(&client);
        let join_timeout = request_timeout.max(shared.settings.max_poll_interval + JOIN_MARGIN);
        match action {
            Action::Join { attempt, member_id, protocols, reason } => {
                self.answers.spawn(async move {
                    let settings = &shared.settings;
                    let build = |version| requests::join(version, settings, &member_id, &protocols, &reason);
                    let answer = ask(&client, &settings.group_id, ConnectionKind::Join, join_timeout, build).await;
                    let joined = match answer {
                        Ok((node, response)) => {
                            heed(&client, &settings.group_id, node, Some(response.error_code.into()));
                            requests::read_join(response, settings)
                        }
                        Err(error) => JoinOutcome::Failed(error),
                    };
                    RequestOutcome::Joined(attempt, joined)
                });
            }
            Action::Count { attempt, topics } => {
                self.group_topics.clone_from(&topics);
                self.answers
                    .spawn(async move { RequestOutcome::Counted(attempt, partition_counts(&client, topics).await) });
            }
            Action::Sync { attempt, identity, protocol, assignments } => {
                self.answers.spawn(async move {
                    let settings = &shared.settings;
                    let build = |version| requests::sync(version, settings, &identity, &protocol, &assignments);
                    let answer = ask(&client, &settings.group_id, ConnectionKind::Join, join_timeout, build).await;
                    let synced = answer.and_then(|(node, response)| {
                        heed(&client, &settings.group_id, node, Some(response.error_code.into()));
                        requests::read_sync(response, settings)
                    });
                    RequestOutcome::Synced(attempt, synced)
                });
            }
            Action::Heartbeat { attempt, identity } => {
                // An attempt without a response must leave time for another within the session.
                let timeout = request_timeout.min(shared.settings.session_timeout / 2);
                self.answers.spawn(async move {
                    let settings = &shared.settings;
                    let build = |version| requests::heartbeat(version, settings, &identity);
                    let answer = ask(&client, &settings.group_id, ConnectionKind::Group, timeout, build).await;
                    let answer = answer.and_then(|(node, response)| {
                        heed(&client, &settings.group_id, node, Some(response.error_code.into()));
                        requests::read_heartbeat(&response, settings)
                    });
                    RequestOutcome::Heartbeat(attempt, answer)
                });
            }
            _ => {}
        }
    }

    fn leave_group(&mut self, member_id: Arc<str>, reason: &'static str, deadline: Option<Instant>) {
        let build = move |version, settings: &_| requests::leave(version, settings, &member_id, reason);
        self.leaves.leave(deadline, build, requests::read_leave);
    }

    fn handle_response(&mut self, answer: RequestOutcome) {
        let now = now();
        match answer {
            RequestOutcome::Joined(attempt, joined) => self.membership.joined(now, attempt, joined),
            RequestOutcome::Counted(attempt, counts) => self.membership.partitions_counted(now, attempt, counts),
            RequestOutcome::Synced(attempt, answer) => self.membership.synced(now, attempt, answer),
            RequestOutcome::Heartbeat(attempt, answer) => self.membership.heartbeat_answered(now, attempt, answer),
            RequestOutcome::Revoked(attempt) => self.membership.revoked(now, attempt),
        }
    }

    fn subscribe(&mut self, subscription: Option<Subscription>) {
        let expressions = subscription.as_ref().is_some_and(Subscription::has_patterns);
        let had_expressions = self.subscription.as_ref().is_some_and(Subscription::has_patterns);
        if expressions != had_expressions {
            self.client.want_all_topics(expressions);
            if expressions {
                self.blind_until = self.client.metadata().version;
                self.client.refresh_metadata();
            }
        }
        self.subscription = subscription;
        self.group_topics.clear();
        self.want_topics();
        self.match_topics();
    }

    fn handle_metadata(&mut self) {
        self.match_topics();
        self.check_partition_counts();
    }

    /// Tells the membership the topics of the subscription. Expressions wait for metadata with all
    /// topics.
    fn match_topics(&mut self) {
        let metadata = self.client.metadata();
        let topics = match &self.subscription {
            Some(subscription) if subscription.has_patterns() && metadata.version <= self.blind_until => return,
            Some(subscription) => Some(subscription.topics(&metadata, self.shared.settings.exclude_internal_topics)),
            None => None,
        };
        self.membership.subscribe(now(), topics);
    }

    fn check_partition_counts(&mut self) {
        let metadata = self.client.metadata();
        self.membership.metadata_changed(now(), |topic| racks(&metadata, topic));
    }

    fn want_topics(&self) {
        let names = self.subscription.iter().flat_map(|subscription| subscription.names());
        let topics: BTreeSet<&str> = names.chain(&self.group_topics).map(|topic| &**topic).collect();
        self.client.want_topics(topics);
    }

    async fn close(&mut self, deadline: Instant) -> Result<()> {
        self.membership.close();
        self.publish();
        self.answers.abort_all();
        if let Some(Action::Leave { member_id, reason }) = self.membership.next_action() {
            self.leave_group(member_id, reason, Some(deadline));
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

/// Logs that a member left without the coordinator's confirmation.
pub(crate) fn warn_unconfirmed_leave(shared: &MembershipShared, error: &Error) {
    let Some(suppressed) = shared.admit_leave_warning(now()) else { return };
    event!(
        WARN, shared.settings.origin, %error, suppressed,
        "the coordinator did not confirm that the member left: others get its partitions when its session has timed out"
    );
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
    for _ in 0..COUNT_PICTURES {
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
