//! Leaves that are sent to the coordinator, for which a close waits.

use std::sync::Arc;

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::consumer::group::{
    GroupSettings,
    coordinator::{ask, heed, request_timeout},
    retry_wait::RetryWait,
    shared::MembershipShared,
};
use crate::{
    cluster::{Client, ConnectionKind},
    error::{Error, ErrorKind, Result},
    wire::protocol::Request,
};

/// Number of attempts at a leave.
const ATTEMPTS: u32 = 3;

/// Leaves under way; they are aborted when this is dropped.
pub(super) struct PendingLeaves {
    client: Client,
    shared: Arc<MembershipShared>,
    under_way: JoinSet<Result<()>>,
}

impl PendingLeaves {
    pub(super) fn new(client: Client, shared: Arc<MembershipShared>) -> Self {
        Self { client, shared, under_way: JoinSet::new() }
    }

    /// Tells the coordinator that a member has left; retried if that may help, until the deadline.
    pub(super) fn leave<R>(
        &mut self,
        deadline: Instant,
        build: impl Fn(i16, &GroupSettings) -> R + Send + Sync + 'static,
        read: fn(&R::Response, &GroupSettings) -> Result<()>,
    ) where
        R: Request + Send + 'static,
        R::Response: Send,
    {
        let (client, shared) = (self.client.clone(), self.shared.clone());
        self.under_way.spawn(async move {
            let settings = &shared.settings;
            let mut pace = RetryWait::new(&client);
            let mut last = None;
            for _ in 0..ATTEMPTS {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let timeout = request_timeout(&client).min(left);
                let build = |version| build(version, settings);
                let answer = ask(&client, &settings.group_id, ConnectionKind::Group, timeout, build).await;
                let left = answer.and_then(|(node, response)| {
                    let left = read(&response, settings);
                    heed(&client, &settings.group_id, node, left.as_ref().err().and_then(Error::code));
                    left
                });
                match left {
                    Ok(()) => return Ok(()),
                    Err(error) if error.is_retriable() => last = Some(error),
                    Err(error) => return Err(error),
                }
                pace.wait(deadline).await;
            }
            Err(last.unwrap_or_else(|| timed_out(settings)))
        });
    }

    /// Returns the result of the next leave that ends; `None` if none is under way.
    ///
    /// # Cancel safety
    /// Safe: the leaves continue.
    pub(super) async fn next(&mut self) -> Option<Result<()>> {
        let ended = self.under_way.join_next().await?;
        Some(
            ended.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Closed, format!("leaving the group ended: {error}")))
            }),
        )
    }

    /// Waits for all of them, until the deadline; returns the first error.
    pub(super) async fn all(&mut self, deadline: Instant) -> Result<()> {
        let all = async {
            let mut result = Ok(());
            while let Some(left) = self.next().await {
                result = result.and(left);
            }
            result
        };
        let ended = timeout_at(deadline, all).await;
        ended.unwrap_or_else(|_| Err(timed_out(&self.shared.settings)))
    }
}

fn timed_out(settings: &GroupSettings) -> Error {
    Error::new(ErrorKind::Timeout, format!("leave group {}: timed out", settings.group_id))
}
