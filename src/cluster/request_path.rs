//! Sends one request over a connection and returns the response.

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout_at;

use crate::{
    cluster::{
        ConnectionKind,
        connection::Connection,
        connection_life::lookup,
        core::Core,
        deadline::{now, saturating_deadline},
        pool::ConnectionLookup,
        request::{Attempt, RawRequest, RawResponse, VersionBounds},
    },
    error::{DeliveryStatus, Error, ErrorKind, Result},
    wire::{
        ApiKey,
        message::{decode_response, encode_body},
        protocol::Request,
    },
};

impl Core {
    /// Waits for a connection to a node, or for the error of the attempt.
    pub(super) async fn connect(self: &Arc<Self>, node: i32, kind: ConnectionKind) -> Result<Arc<Connection>> {
        match lookup(self, node, kind) {
            ConnectionLookup::Open(connection) => Ok(connection),
            ConnectionLookup::Connecting(flight) => flight.wait().await,
        }
    }

    /// Like [`connect`](Self::connect), but gives up at the deadline. Errors have the status
    /// `NotPersisted`, because without a connection no request was sent.
    pub(super) async fn connection(
        self: &Arc<Self>,
        node: i32,
        kind: ConnectionKind,
        deadline: Instant,
    ) -> Result<Arc<Connection>> {
        let flight = match lookup(self, node, kind) {
            ConnectionLookup::Open(connection) => return Ok(connection),
            ConnectionLookup::Connecting(flight) => flight,
        };
        let error = match timeout_at(deadline.into(), flight.wait()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => {
                let cause = self.pool.last_failure(node);
                let cause = cause.map_or_else(String::new, |cause| format!("; the last attempt failed: {cause}"));
                let message = format!("no connection to broker {node} within the request timeout{cause}");
                Error::new(ErrorKind::Timeout, message)
            }
        };
        // The broker may have moved, or left the cluster.
        self.metadata.refresh();
        Err(error.with_status(DeliveryStatus::NotPersisted))
    }

    pub(super) async fn send<R: Request>(
        self: &Arc<Self>,
        attempt: Attempt,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response> {
        let deadline = saturating_deadline(now(), attempt.timeout);
        let connection = self.connection(attempt.node, attempt.kind, deadline).await?;
        self.send_on(&connection, deadline, attempt.versions, build).await
    }

    pub(super) async fn send_on<R: Request>(
        &self,
        connection: &Connection,
        deadline: Instant,
        versions: VersionBounds,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response> {
        let key = R::API;
        let version = connection.versions().pick(key, versions).map_err(unsent)?;
        let body = connection.request(key, version, deadline, |head| {
            encode_body(head, &build(version), version)?;
            Ok(RawRequest::whole())
        });
        let body = self.refresh_metadata_on_error(body.await)?;
        decode_response::<R>(body, version)
            .map_err(|error| error.context(key).with_status(DeliveryStatus::PossiblyPersisted))
    }

    pub(super) async fn send_raw(
        self: &Arc<Self>,
        attempt: Attempt,
        key: ApiKey,
        write: impl FnOnce(i16, &mut BytesMut) -> Result<RawRequest>,
    ) -> Result<RawResponse> {
        let deadline = saturating_deadline(now(), attempt.timeout);
        let connection = self.connection(attempt.node, attempt.kind, deadline).await?;
        let version = connection.versions().pick(key, attempt.versions).map_err(unsent)?;
        let answer = connection.request(key, version, deadline, |head| write(version, head)).await;
        let body: Bytes = self.refresh_metadata_on_error(answer)?;
        Ok(RawResponse { version, body })
    }
}

fn unsent(error: Error) -> Error {
    error.with_status(DeliveryStatus::NotPersisted)
}
