//! The task of a membership, for both group protocols: it turns the membership's actions into
//! requests and events, and their responses into its inputs.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    cluster::Client,
    consumer::group::{
        GroupEvent,
        actions::{Action, AttemptId},
        command::Command,
        membership::Membership,
        pending_leaves::PendingLeaves,
        protocol_driver::ProtocolDriver,
        shared::{MembershipShared, bounded},
    },
    error::{Error, ErrorKind, Result},
    log::event,
};

/// The end of a request or a revocation.
enum Outcome<R> {
    Response(AttemptId, R),
    Revoked(AttemptId),
}

pub(super) struct GroupTask<D: ProtocolDriver> {
    client: Client,
    shared: Arc<MembershipShared>,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<GroupEvent>,
    membership: D::Membership,
    driver: D,
    /// Outstanding requests and revocations; aborted when the task is dropped.
    outstanding: JoinSet<Outcome<D::Response>>,
    /// Outstanding leaves; a close waits for them.
    leaves: PendingLeaves,
    metadata_versions: watch::Receiver<u64>,
}

impl<D: ProtocolDriver> GroupTask<D> {
    pub(super) fn new(
        client: Client,
        shared: Arc<MembershipShared>,
        driver: D,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        Self {
            metadata_versions: client.metadata_changes(),
            leaves: PendingLeaves::new(client.clone(), shared.clone()),
            membership: driver.new_membership(),
            client,
            shared,
            commands,
            events,
            driver,
            outstanding: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let renewal = bounded(self.client.settings().metadata_max_idle / 3).max(Duration::from_secs(1));
        let mut renew_at = Instant::now() + renewal;
        loop {
            self.carry_out_actions();
            let wake = self.membership.next_wake().map_or(renew_at, |wake| renew_at.min(Instant::from_std(wake)));
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Subscribe(subscription)) => self.driver.subscribe(&mut self.membership, subscription),
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
                Some(outcome) = self.outstanding.join_next() => match outcome {
                    Ok(Outcome::Response(attempt, response)) => {
                        self.driver.handle_response(&mut self.membership, attempt, response);
                    }
                    Ok(Outcome::Revoked(attempt)) => self.membership.revoked(now(), attempt),
                    Err(error) => return self.abandon(&error),
                },
                Some(left) = self.leaves.next() => {
                    if let Err(error) = left {
                        self.warn_unconfirmed_leave(&error);
                    }
                    self.membership.leave_ended(now());
                }
                changed = self.metadata_versions.changed() => match changed {
                    Ok(()) => self.driver.handle_metadata(&mut self.membership),
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
                self.driver.want_topics();
            }
        }
    }

    /// Carries out the membership's actions. The handles learn of the member before the consumer
    /// receives an event.
    fn carry_out_actions(&mut self) {
        self.publish();
        while let Some(action) = self.membership.next_action() {
            match action {
                Action::Send { attempt, request } => {
                    let response = self.driver.send(request);
                    self.outstanding.spawn(async move { Outcome::Response(attempt, response.await) });
                }
                Action::Leave(leave) => {
                    let deadline = Instant::now() + self.driver.leave_timeout();
                    self.driver.leave(&mut self.leaves, leave, deadline);
                }
                Action::AwaitPoll => self.shared.poll_activity.await_poll(),
                Action::Assigned { partitions } => {
                    self.send_event(GroupEvent::Assigned { partitions });
                    self.driver.partitions_assigned(&mut self.membership);
                    self.publish();
                }
                Action::Revoke { attempt, partitions } => {
                    let (done, answered) = oneshot::channel();
                    self.send_event(GroupEvent::Revoking { partitions, done });
                    self.outstanding.spawn(async move {
                        // Dropping the other end answers too.
                        let _ = answered.await;
                        Outcome::Revoked(attempt)
                    });
                }
                Action::Lost { partitions } => self.send_event(GroupEvent::Lost { partitions }),
                Action::Error { error, fatal } => self.send_event(GroupEvent::Error { error, fatal }),
            }
        }
        self.driver.actions_carried_out(&self.membership);
    }

    fn publish(&self) {
        self.shared.publish(self.membership.snapshot(), self.driver.is_subscribed());
    }

    fn send_event(&self, event: GroupEvent) {
        // A consumer that no longer listens is about to drop its handle.
        let _ = self.events.send(event);
    }

    async fn close(&mut self, deadline: Instant) -> Result<()> {
        self.membership.close();
        self.publish();
        self.outstanding.abort_all();
        if let Some(Action::Leave(leave)) = self.membership.next_action() {
            self.driver.leave(&mut self.leaves, leave, deadline);
        }
        self.driver.actions_carried_out(&self.membership);
        self.leaves.all(deadline).await
    }

    /// Ends the membership because its client is closed, or its runtime ends.
    fn abandon(&mut self, reason: &dyn std::fmt::Display) {
        self.membership.close();
        self.publish();
        let error = Error::new(ErrorKind::Closed, format!("group membership ended: {reason}"));
        self.send_event(GroupEvent::Error { error, fatal: true });
    }

    /// Logs that a member left without the coordinator's confirmation.
    fn warn_unconfirmed_leave(&self, error: &Error) {
        let Some(suppressed) = self.shared.admit_leave_warning(now()) else { return };
        event!(
            WARN, self.shared.settings.origin, %error, suppressed,
            "the coordinator did not confirm that the member left: others get its partitions when its session has timed out"
        );
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
