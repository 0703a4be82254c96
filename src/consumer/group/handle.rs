use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{GroupEvent, GroupSettings, shared::MembershipShared};
use crate::consumer::group::{
    classic::ClassicDriver,
    command::Command,
    consumer_protocol::ConsumerDriver,
    group_task::GroupTask,
    member_snapshot::MemberSnapshot,
    offsets::committed::{CommittedOffsets, FetchOffsets, fetch_answer, fetch_check},
    protocol_driver::ProtocolDriver,
    retry_wait::RetryWait,
};
use crate::{
    cluster::{Client, ConnectionKind, CoordinatorKind, Route},
    consumer::{GroupProtocol, GroupState, GroupStatus, OffsetAndMetadata, subscription::topics::Subscription},
    error::{Error, ErrorCode, ErrorKind, Result},
    record::{GroupMetadata, TopicPartition},
};

/// Time after which a look-up of committed offsets in a stale epoch is repeated, even if no newer
/// epoch is known.
const NEXT_EPOCH: Duration = Duration::from_secs(5);

/// A consumer's handle to its membership. When the last clone is dropped, the membership's task
/// ends without leaving the group: the session lapses at the broker.
#[derive(Clone, Debug)]
pub(crate) struct GroupHandle {
    pub(super) client: Client,
    pub(super) shared: Arc<MembershipShared>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

/// While it lives, a reader waits for records and the poll timer does not run.
#[derive(Debug)]
pub(crate) struct PollGuard<'a>(&'a GroupHandle);

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        self.0.shared.poll_activity.end_waiting();
    }
}

/// Records polls of readers that may outlive the handle, without keeping the membership alive.
#[derive(Clone, Debug)]
pub(crate) struct PollRecorder(Arc<MembershipShared>);

impl PollRecorder {
    /// Like [`GroupHandle::record_poll`].
    pub(crate) fn record_poll(&self) {
        self.0.poll_activity.polled();
    }

    /// Like [`GroupHandle::begin_poll`].
    pub(crate) fn begin_poll(&self) -> OwnedPollGuard {
        self.0.poll_activity.begin_waiting();
        OwnedPollGuard(self.0.clone())
    }
}

/// Like [`PollGuard`], but for a reader without a handle.
#[derive(Debug)]
pub(crate) struct OwnedPollGuard(Arc<MembershipShared>);

impl Drop for OwnedPollGuard {
    fn drop(&mut self) {
        self.0.poll_activity.end_waiting();
    }
}

impl GroupHandle {
    /// Starts the membership's task on the current tokio runtime. It joins the group at the first
    /// [`subscribe`](Self::subscribe).
    pub(crate) fn start(client: Client, settings: GroupSettings, events: mpsc::UnboundedSender<GroupEvent>) -> Self {
        let shared = Arc::new(MembershipShared::new(settings, GroupProtocol::Classic));
        let driver = ClassicDriver::new(client.clone(), shared.clone());
        Self::start_task(client, shared, driver, events)
    }

    /// Like [`start`](Self::start), but for a group of the consumer protocol (KIP-848), in which
    /// the coordinator assigns the partitions, by `remote_assignor` if it is given.
    pub(crate) fn start_consumer_protocol(
        client: Client,
        settings: GroupSettings,
        remote_assignor: Option<Arc<str>>,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        let shared = Arc::new(MembershipShared::new(settings, GroupProtocol::Consumer));
        let driver = ConsumerDriver::new(client.clone(), shared.clone(), remote_assignor);
        Self::start_task(client, shared, driver, events)
    }

    fn start_task<D: ProtocolDriver>(
        client: Client,
        shared: Arc<MembershipShared>,
        driver: D,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        tokio::spawn(GroupTask::new(client.clone(), shared.clone(), driver, received, events).run());
        Self { client, shared, commands }
    }

    /// Joins the group for that subscription, or changes it; `None` (or an empty one) unsubscribes,
    /// which gives up the owned partitions and leaves the group.
    pub(crate) fn subscribe(&self, subscription: Option<Subscription>) {
        let subscription = subscription.filter(|subscription| !subscription.is_empty());
        // A task that has ended has reported the reason to the consumer.
        let _ = self.commands.send(Command::Subscribe(subscription));
    }

    /// Records that the reader polls and receives records at once. Costs one atomic load.
    pub(crate) fn record_poll(&self) {
        self.shared.poll_activity.polled();
    }

    /// Records that the reader polls: until the guard is dropped it may wait for records, and
    /// `max.poll.interval.ms` counts from the drop. Costs a few atomic operations.
    pub(crate) fn begin_poll(&self) -> PollGuard<'_> {
        self.shared.poll_activity.begin_waiting();
        PollGuard(self)
    }

    /// Sets a callback for a reader that handles many records at once: it returns the time since
    /// which the oldest record has been handled. `max.poll.interval.ms` counts from there, as long
    /// as the reader polls besides.
    pub(crate) fn set_busy_since(&self, busy_since: impl Fn() -> Option<std::time::Instant> + Send + Sync + 'static) {
        self.shared.poll_activity.set_busy_since(busy_since);
    }

    pub(crate) fn poll_recorder(&self) -> PollRecorder {
        PollRecorder(self.shared.clone())
    }

    /// Returns the state of the membership.
    pub(crate) fn status(&self) -> GroupStatus {
        let (member, since) = self.shared.member_since();
        let state = match &*member {
            MemberSnapshot::NoGroup => GroupState::Unsubscribed,
            MemberSnapshot::Rebalancing { .. } => GroupState::Rebalancing,
            MemberSnapshot::Fenced => GroupState::WaitingForReader,
            MemberSnapshot::Member { identity, owned } if owned.is_empty() => {
                GroupState::Standby { member_id: identity.member_id.clone(), generation: identity.generation }
            }
            MemberSnapshot::Member { identity, .. } => {
                GroupState::Stable { member_id: identity.member_id.clone(), generation: identity.generation }
            }
            MemberSnapshot::Ended(error) => GroupState::Ended(error.clone()),
        };
        GroupStatus { group_id: self.shared.settings.group_id.clone(), state, for_how_long: since.elapsed() }
    }

    /// Returns the metadata for offsets of partitions that the program assigns by itself: without a
    /// member.
    pub(crate) fn metadata(&self) -> GroupMetadata {
        let cluster_id = self.client.metadata().cluster_id.as_deref().map(Into::into);
        GroupMetadata::without_member(self.shared.settings.group_id.clone()).with_cluster_id(cluster_id)
    }

    /// Returns the metadata of the present member.
    ///
    /// # Errors
    /// `NotAssigned` while the consumer is no member.
    pub(crate) fn member_metadata(&self) -> Result<GroupMetadata> {
        let group = self.metadata().with_instance_id(self.shared.settings.group_instance_id.clone());
        self.shared.member().add_to(group, self.shared.protocol)
    }

    /// Returns the group's committed offsets of those partitions; `None` if there is none. Offsets
    /// that are part of an open transaction are requested again until the deadline. So are topics
    /// of which the coordinator does not know the id; they are looked up in the metadata.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn committed(
        &self,
        partitions: Vec<TopicPartition>,
        deadline: Instant,
    ) -> Result<HashMap<TopicPartition, Option<OffsetAndMetadata>>> {
        let (mut state, mut left) = (HashMap::new(), partitions);
        let mut pace = RetryWait::new(&self.client);
        loop {
            let seen = self.client.metadata().version;
            let (mut unknown, mut unstable) = (None, None);
            for (partition, offset) in self.committed_each(std::mem::take(&mut left), deadline).await? {
                let error = match offset {
                    Ok(offset) => {
                        state.insert(partition, offset);
                        continue;
                    }
                    Err(error) => error,
                };
                match error.code() {
                    Some(ErrorCode::UNKNOWN_TOPIC_ID) => unknown = Some(error),
                    Some(ErrorCode::UNSTABLE_OFFSET_COMMIT) => unstable = Some(error),
                    _ => return Err(error),
                }
                left.push(partition);
            }
            if left.is_empty() {
                return Ok(state);
            }
            pace.wait(deadline).await;
            if let Some(error) = unknown {
                match self.client.newer_metadata(seen, deadline).await {
                    Ok(_) if Instant::now() < deadline => {}
                    Err(other) if other.kind() != ErrorKind::Timeout => return Err(other),
                    _ => return Err(error),
                }
            }
            if let Some(error) = unstable
                && Instant::now() >= deadline
            {
                return Err(error);
            }
        }
    }

    /// Returns the group's committed offset of each of those partitions, or the error of this
    /// partition alone. After UNKNOWN_TOPIC_ID the metadata is refreshed.
    ///
    /// A member of a group of the consumer protocol asks in its epoch. If that is stale, the
    /// look-up continues in the next epoch, which a heartbeat brings.
    ///
    /// # Errors
    /// The coordinator's error for the group, and the errors of [`Client::call`].
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn committed_each(
        &self,
        partitions: Vec<TopicPartition>,
        deadline: Instant,
    ) -> Result<CommittedOffsets> {
        if partitions.is_empty() {
            return Ok(CommittedOffsets::new());
        }
        let group_id = &self.shared.settings.group_id;
        let mut pace = RetryWait::new(&self.client);
        loop {
            let (member, metadata) = (self.shared.member(), self.client.metadata());
            let identity = member.identity().filter(|_| self.shared.protocol == GroupProtocol::Consumer);
            let ids = self.shared.topic_ids().learn(&metadata, &partitions);
            let asked = FetchOffsets { group_id, partitions: &partitions, ids, identity };
            let route = Route::Coordinator(CoordinatorKind::Group, group_id.clone());
            let (build, check) = (|version| asked.request(version), |response: &_| fetch_check(response, group_id));
            let call =
                self.client.call_up_to(asked.max_version(), route, ConnectionKind::Group, deadline, build, check);
            let error = match fetch_answer(&call.await?, &asked) {
                Ok(state) => {
                    let unknown = |error: &Error| error.code() == Some(ErrorCode::UNKNOWN_TOPIC_ID);
                    if state.values().any(|offset| offset.as_ref().is_err_and(unknown)) {
                        self.client.refresh_metadata();
                    }
                    return Ok(state);
                }
                Err(error) => error,
            };
            let (Some(code @ (ErrorCode::STALE_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID)), Some(identity)) =
                (error.code(), identity)
            else {
                return Err(error);
            };
            // A heartbeat brings the next epoch. Only the heartbeats decide if the member is
            // unknown: a member that rejoined because of this response would join and ask in a loop
            // without a pause.
            if code == ErrorCode::STALE_MEMBER_EPOCH {
                let refused = Command::CommitRefused { identity: identity.clone(), said: error.clone() };
                // A task that has ended has reported the reason to the consumer.
                let _ = self.commands.send(refused);
            }
            pace.wait(deadline).await;
            let soon = deadline.min(Instant::now() + NEXT_EPOCH);
            let _ = timeout_at(soon, self.shared.member_changed(&member)).await;
            if Instant::now() >= deadline {
                return Err(error.with_retriable(true));
            }
        }
    }

    /// Leaves the group (a static member stays, KIP-345) and ends the task, at the latest at the
    /// deadline. The consumer receives no more events, so offsets have to be committed before.
    ///
    /// # Errors
    /// The reason why the coordinator did not confirm the leave; the other members then wait for
    /// the session timeout.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the leave; it continues until the deadline.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<()> {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Close { deadline, done }).is_err() {
            return Ok(());
        }
        match timeout_at(deadline, left).await {
            Ok(Ok(result)) => result,
            // The task had ended, or another call closed it.
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                let message = format!("leave group {}: timed out", self.shared.settings.group_id);
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }
}
