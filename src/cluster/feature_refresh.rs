//! Asks a broker for the cluster's features again, on a connection that is open.

use std::{sync::Arc, time::Duration};

use crate::{
    cluster::{Attempt, ConnectionKind, VersionBounds, core::Core, handshake::api_versions_request},
    error::{Error, ErrorCode, Result},
    log::event,
    wire::messages::{ApiVersionsRequest, ApiVersionsResponse},
};

/// Asks a broker once, and stores the features if they are newer than those that are known.
pub(super) async fn refresh(core: &Arc<Core>, node: i32, kind: ConnectionKind) {
    match ask(core, node, kind, core.settings.request_timeout).await {
        Ok(response) => core.features().learn(&response),
        Err(error) => {
            event!(DEBUG, core.settings.origin, node, %error, "the broker did not tell the cluster's features");
        }
    }
}

async fn ask(core: &Arc<Core>, node: i32, kind: ConnectionKind, timeout: Duration) -> Result<ApiVersionsResponse> {
    let attempt = Attempt { node, kind, timeout, versions: VersionBounds::at_least(FEATURES) };
    let response = core.send::<ApiVersionsRequest>(attempt, |_| api_versions_request(None)).await?;
    match ErrorCode::new(response.error_code).ok() {
        Ok(()) => Ok(response),
        Err(code) => Err(Error::broker(code, "ApiVersions")),
    }
}

/// The first version of ApiVersions that names the cluster's features (KIP-584).
const FEATURES: i16 = 3;
