//! Sends the requests of transactions to their coordinators, each once.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    messages::{
        OFFSETS_BY_ID, add_offsets, add_partitions, add_partitions_answer, end_txn, end_txn_answer, init_producer_id,
        init_producer_id_answer, txn_offset_commit, txn_offset_commit_answer,
    },
    planted::{self, Bug},
    request::{Answer, AttemptId, Failure, Request},
};
use crate::{
    cluster::{Attempt, Client, ConnectionKind, CoordinatorKind, VersionBounds},
    error::{DeliveryStatus, Error, Result},
    record::GroupMetadata,
};

/// An attempt that has ended.
pub(crate) struct EndedAttempt {
    pub(crate) id: AttemptId,
    /// The broker that was asked; `None` if the coordinator was not found.
    pub(crate) node: Option<i32>,
    /// The group whose coordinator was asked; `None` for the coordinator of the transactional id.
    pub(crate) group: Option<Arc<str>>,
    pub(crate) result: Result<Answer, Failure>,
}

/// Sends requests to the coordinators of one transactional id and of groups.
#[derive(Clone, Debug)]
pub(crate) struct CoordinatorRequests {
    pub(crate) client: Client,
    pub(crate) transactional_id: Arc<str>,
    /// `transaction.timeout.ms`.
    pub(crate) transaction_timeout: Duration,
}

impl CoordinatorRequests {
    /// Finds the coordinator, and sends it the request once, all within `request.timeout.ms`.
    pub(crate) async fn attempt(self, id: AttemptId, request: Request, versions: VersionBounds) -> EndedAttempt {
        let request = with_planted_bugs(request);
        let group: Option<Arc<str>> = match &request {
            Request::TxnOffsetCommit(_, group, _) => Some(group.group_id().into()),
            _ => None,
        };
        let deadline = Instant::now() + self.client.settings().request_timeout;
        let (kind, key) = match &group {
            Some(group) => (CoordinatorKind::Group, group),
            None => (CoordinatorKind::Transaction, &self.transactional_id),
        };
        let node = match self.client.coordinator(kind, key, deadline).await {
            Ok(node) => node,
            Err(error) => return EndedAttempt { id, node: None, group, result: Err(not_found(error)) },
        };
        let timeout = deadline.saturating_duration_since(Instant::now());
        let attempt = Attempt { node, kind: ConnectionKind::Main, timeout, versions };
        let result = self.send(attempt, request).await.map_err(not_answered);
        EndedAttempt { id, node: Some(node), group, result }
    }

    async fn send(&self, attempt: Attempt, request: Request) -> Result<Answer> {
        let (client, id) = (&self.client, &*self.transactional_id);
        match request {
            Request::InitProducerId(producer) => {
                let timeout = self.transaction_timeout;
                let response = client.send(attempt, |_| init_producer_id(id, timeout, producer)).await?;
                Ok(init_producer_id_answer(&response))
            }
            Request::AddPartitions(producer, partitions) => {
                let response = client.send(attempt, |_| add_partitions(id, producer, &partitions)).await?;
                Ok(add_partitions_answer(&response))
            }
            Request::AddOffsets(producer, group) => {
                let response = client.send(attempt, |_| add_offsets(id, producer, &group)).await?;
                Ok(Answer::Code(response.error_code.into()))
            }
            Request::TxnOffsetCommit(producer, group, offsets) => {
                let metadata = client.metadata();
                let id_of = |name: &str| metadata.topic(name).map_or(Uuid::nil(), |topic| topic.id);
                let VersionBounds { min, max } = attempt.versions;
                let has_ids = offsets.iter().all(|(partition, _)| !id_of(&partition.topic).is_nil());
                let max = if has_ids { max } else { max.min(OFFSETS_BY_ID - 1) };
                let mut used = 0;
                let build = |version| {
                    used = version;
                    txn_offset_commit(id, producer, &group, &offsets, id_of, version)
                };
                let response = client.send(Attempt { versions: VersionBounds { min, max }, ..attempt }, build).await?;
                Ok(txn_offset_commit_answer(&response, &offsets, id_of, used))
            }
            Request::EndTxn { producer, commit } => {
                let mut used = 0;
                let build = |version| {
                    used = version;
                    end_txn(id, producer, commit)
                };
                let response = client.send(attempt, build).await?;
                Ok(end_txn_answer(&response, used))
            }
        }
    }
}

/// Returns the request with the bugs that this build was told to have.
fn with_planted_bugs(mut request: Request) -> Request {
    if let Request::TxnOffsetCommit(_, group, offsets) = &mut request {
        if planted::has(Bug::MembershipIsLeftOut) {
            *group = GroupMetadata::without_member(group.group_id());
        }
        if planted::has(Bug::OffsetsAreAhead) {
            offsets.iter_mut().for_each(|(_, at)| at.offset += 1);
        }
    }
    request
}

fn not_found(error: Error) -> Failure {
    match error.code() {
        Some(code) if !error.is_retriable() => Failure::LookUp(code),
        _ => Failure::Unsent(error),
    }
}

fn not_answered(error: Error) -> Failure {
    if error.delivery_status() == Some(DeliveryStatus::NotPersisted) {
        Failure::Unsent(error)
    } else {
        Failure::Lost(error)
    }
}
