use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};

use super::{
    GroupEvent, GroupSettings,
    commit::{Commit, Turn, Verdict},
    committed::{fetch_answer, fetch_check, fetch_request},
    consumer_protocol::ConsumerProtocolTask,
    coordinator::{ask, request_timeout},
    group_task::{Command, GroupTask},
    membership::{Identity, Standing},
    shared::Shared,
};
use crate::{
    cluster::{Backoff, Client, CoordinatorKind, Lane, Route},
    consumer::{GroupState, GroupStatus, OffsetAndMetadata, subscription::Subscription},
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
};

/// A consumer's hold on its membership. When the last clone is dropped, the membership's task ends without leaving the
/// group: the session lapses at the broker.
#[derive(Clone, Debug)]
pub(crate) struct GroupHandle {
    client: Client,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

/// As long as it lives, a reader waits for records: the poll interval does not run.
#[derive(Debug)]
pub(crate) struct Reading<'a>(&'a GroupHandle);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.shared.reader.end_waiting();
    }
}

/// Signs of life from readers that may outlive the handle, and do not keep the membership alive.
#[derive(Clone, Debug)]
pub(crate) struct Signs(Arc<Shared>);

impl Signs {
    /// As [`GroupHandle::come`].
    pub(crate) fn come(&self) {
        self.0.reader.polled();
    }

    /// As [`GroupHandle::reading`].
    pub(crate) fn reading(&self) -> Alive {
        self.0.reader.begin_waiting();
        Alive(self.0.clone())
    }
}

/// As [`Reading`], of a reader that has no handle.
#[derive(Debug)]
pub(crate) struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.reader.end_waiting();
    }
}

impl GroupHandle {
    /// Starts the membership's task on the current tokio runtime. It joins nothing before [`subscribe`](Self::subscribe).
    pub(crate) fn start(client: Client, settings: GroupSettings, events: mpsc::UnboundedSender<GroupEvent>) -> Self {
        let shared = Arc::new(Shared::new(settings));
        let (commands, received) = mpsc::unbounded_channel();
        let task = GroupTask::new(client.clone(), shared.clone(), received, events);
        tokio::spawn(task.run());
        Self { client, shared, commands }
    }

    /// The same for a group of the consumer protocol (KIP-848), whose coordinator assigns; by that assignor, where one is
    /// named.
    pub(crate) fn start_consumer_protocol(
        client: Client,
        settings: GroupSettings,
        remote_assignor: Option<Arc<str>>,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Self {
        let shared = Arc::new(Shared::new(settings));
        let (commands, received) = mpsc::unbounded_channel();
        let task = ConsumerProtocolTask::new(client.clone(), shared.clone(), remote_assignor, received, events);
        tokio::spawn(task.run());
        Self { client, shared, commands }
    }

    /// Joins the group for that subscription, or changes it; `None` (or an empty one) unsubscribes, which gives up what is
    /// owned and leaves.
    pub(crate) fn subscribe(&self, subscription: Option<Subscription>) {
        let subscription = subscription.filter(|subscription| !subscription.is_empty());
        // A task that has ended has told the consumer why.
        let _ = self.commands.send(Command::Subscribe(subscription));
    }

    /// The reader asks for records and gets some at once. Costs one look at an atomic.
    pub(crate) fn come(&self) {
        self.shared.reader.polled();
    }

    /// The reader asks for records: until the guard is dropped it may wait for them, and `max.poll.interval.ms` counts
    /// from there. Costs a few atomic operations.
    pub(crate) fn reading(&self) -> Reading<'_> {
        self.shared.reader.begin_waiting();
        Reading(self)
    }

    /// For a reader that works on many records at once: since when it has been at the one that it has been at for longest.
    /// `max.poll.interval.ms` counts from there, as long as it gives signs of life besides.
    pub(crate) fn set_busy_since(&self, busy_since: impl Fn() -> Option<std::time::Instant> + Send + Sync + 'static) {
        self.shared.reader.set_busy_since(busy_since);
    }

    pub(crate) fn signs(&self) -> Signs {
        Signs(self.shared.clone())
    }

    /// Where the membership stands.
    pub(crate) fn status(&self) -> GroupStatus {
        let (standing, since) = self.shared.standing_since();
        let state = match &*standing {
            Standing::Alone => GroupState::Unsubscribed,
            Standing::Rebalancing { .. } => GroupState::Rebalancing,
            Standing::Out => GroupState::WaitingForReader,
            Standing::Member { identity, .. } => {
                GroupState::Stable { member_id: identity.member_id.clone(), generation: identity.generation }
            }
            Standing::Ended(error) => GroupState::Ended(error.clone()),
        };
        GroupStatus { group_id: self.shared.settings.group_id.clone(), state, for_how_long: since.elapsed() }
    }

    /// Commits offsets for the assignment that is current now; for a consumer that is not subscribed, as no member.
    /// Commits go one after the other, in the order in which they were first polled. Partitions that are kept over a
    /// rebalance are committed when it is through.
    ///
    /// # Errors
    /// `NotAssigned` where a partition is not owned or was taken away meanwhile (all others are committed all the same),
    /// and other kinds as the broker answers. `REBALANCE_IN_PROGRESS` (as [`Error::code`](crate::Error::code)) where the
    /// group is rebalancing.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up: the offsets may or may not be committed.
    pub(crate) async fn commit(
        &self,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        deadline: Instant,
    ) -> Result<()> {
        let Shared { settings, commits, .. } = &*self.shared;
        let (group_id, instance_id) = (settings.group_id.clone(), settings.group_instance_id.clone());
        let mut commit = Commit::new(group_id, instance_id, &self.shared.standing(), offsets)?;
        if commit.is_empty() {
            return Ok(());
        }
        let Ok(turn) = timeout_at(deadline, commits.acquire()).await else {
            return Err(self.commit_timed_out(None));
        };
        let _turn = turn.map_err(|_| Error::new(ErrorKind::Closed, "the consumer is closed"))?;
        let mut pace = Pace::new(&self.client);
        let mut last = None;
        while Instant::now() < deadline {
            let standing = self.shared.standing();
            let identity = match commit.turn(&standing)? {
                Turn::Now(identity) => identity,
                Turn::Later => {
                    // An incremental rebalance keeps the partitions and will be through in a while.
                    let _ = timeout_at(deadline, self.shared.standing_changes(&standing)).await;
                    continue;
                }
            };
            last = Some(match self.try_commit(&mut commit, identity.as_ref(), deadline).await {
                Ok(Verdict::Done) => return commit.end(),
                Ok(Verdict::Again { error, .. }) => {
                    if let (Some(ErrorCode::STALE_MEMBER_EPOCH), Some(identity)) = (error.code(), identity) {
                        // The next heartbeat brings the epoch in which this can be committed.
                        let _ = self.commands.send(Command::CommitRefused { identity, said: error.clone() });
                    }
                    error
                }
                Ok(Verdict::NotOurName { error, said }) => {
                    let Some(identity) = identity else { return Err(error) };
                    let _ = self.commands.send(Command::CommitRefused { identity: identity.clone(), said });
                    match &*self.shared.standing() {
                        Standing::Member { identity: current, .. } if *current != identity => {}
                        // It came too late for this generation; the next one will be told soon.
                        Standing::Rebalancing { .. } => {
                            let _ = timeout_at(deadline, self.shared.standing_changes(&standing)).await;
                        }
                        _ => return Err(error),
                    }
                    error
                }
                Ok(Verdict::Failed(error)) => return Err(error),
                Err(error) if error.is_retriable() => error,
                Err(error) => return Err(error),
            });
            pace.wait(deadline).await;
        }
        Err(self.commit_timed_out(last))
    }

    async fn try_commit(&self, commit: &mut Commit, identity: Option<&Identity>, deadline: Instant) -> Result<Verdict> {
        let group_id = &self.shared.settings.group_id;
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = request_timeout(&self.client).min(left);
        let build = |version| commit.request(version, identity);
        let (node, response) = ask(&self.client, group_id, Lane::Group, timeout, build).await?;
        let verdict = commit.answered(&response);
        if matches!(verdict, Verdict::Again { find_coordinator: true, .. }) {
            self.client.forget_coordinator(CoordinatorKind::Group, group_id, node);
        }
        Ok(verdict)
    }

    fn commit_timed_out(&self, last: Option<Error>) -> Error {
        let group_id = &self.shared.settings.group_id;
        let cause = last.as_ref().map_or_else(|| "it was not its turn yet".to_owned(), Error::to_string);
        let error = Error::new(ErrorKind::Timeout, format!("commit for group {group_id}: time is up; last: {cause}"));
        match last {
            Some(last) => error.with_source(last),
            None => error,
        }
    }

    /// What the group has committed for those partitions; `None` where it has nothing.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn committed(
        &self,
        partitions: Vec<TopicPartition>,
        deadline: Instant,
    ) -> Result<HashMap<TopicPartition, Option<OffsetAndMetadata>>> {
        if partitions.is_empty() {
            return Ok(HashMap::new());
        }
        let group_id = &self.shared.settings.group_id;
        let route = Route::Coordinator(CoordinatorKind::Group, group_id.clone());
        let build = |version| fetch_request(version, group_id, &partitions);
        let check = |response: &_| fetch_check(response, group_id);
        let response = self.client.call(route, Lane::Group, deadline, build, check).await?;
        fetch_answer(&response, group_id, &partitions)
    }

    /// Leaves the group (a static member stays, KIP-345) and ends the task. Tells nothing more to the consumer, so what is
    /// to be committed is committed before. Done at the deadline at the latest.
    ///
    /// # Errors
    /// Why the coordinator could not be told; its other members then wait for the session timeout.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the leaving; it goes on until the deadline.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<()> {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Close { deadline, done }).is_err() {
            return Ok(());
        }
        match timeout_at(deadline, left).await {
            Ok(Ok(result)) => result,
            // The task had ended, or was closed by another.
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                let message = format!("leave group {}: time is up", self.shared.settings.group_id);
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }
}

/// The waits between attempts of one call.
pub(super) struct Pace {
    backoff: Backoff,
    rng: StdRng,
}

impl Pace {
    pub(super) fn new(client: &Client) -> Self {
        let settings = client.settings();
        Self {
            backoff: Backoff::new(settings.retry_backoff, settings.retry_backoff_max),
            rng: StdRng::seed_from_u64(settings.seed.unwrap_or_else(rand::random)),
        }
    }

    pub(super) async fn wait(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        sleep(self.backoff.next(&mut self.rng).min(left).max(Duration::from_millis(1))).await;
    }
}
