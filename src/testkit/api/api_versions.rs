//! ApiVersions 0–5: the served versions, and the finalized features (KIP-584). From version 3 on
//! the client has to send a valid name of its software; a version that is not served is answered in
//! version 0 (KIP-511). A client that expects another cluster or another node (v5) is told to
//! rebootstrap (KIP-1242).

use super::{Call, Context, SERVED, Step, text, versions};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{FIRST_EPOCH, markers::TRANSACTION_VERSION},
    wire::{
        ApiKey,
        byte_string::ByteString,
        messages::{
            ApiVersionsRequest, ApiVersionsResponse,
            api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
        },
    },
};

pub(crate) struct ApiVersions(pub(crate) ApiVersionsRequest);

impl Call for ApiVersions {
    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let decent = context.head.version < 3
            || (is_decent(&self.0.client_software_name) && is_decent(&self.0.client_software_version));
        let error = match context.refused() {
            _ if !decent => ErrorCode::INVALID_REQUEST,
            None if self.is_misrouted(context) => ErrorCode::REBOOTSTRAP_REQUIRED,
            refused => refused.unwrap_or_default(),
        };
        let mut response = ApiVersionsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        if error.is_ok() {
            response.api_keys = SERVED.iter().filter_map(|known| served(known.key, context)).collect();
        }
        response.error_code = context.spoiled(error).code();
        if context.head.version >= 3 && error.is_ok() {
            let features = &context.state.options.features;
            let is_known = !features.is_empty() || context.state.features_epoch > FIRST_EPOCH;
            response.finalized_features_epoch = if is_known { context.state.features_epoch } else { -1 };
            for (name, &level) in features {
                let newest = if name == TRANSACTION_VERSION { 2 } else { 0 };
                let (min_version, max_version) = (0, level.max(newest));
                let name = text(name.as_str());
                let supported = SupportedFeatureKey { name: name.clone(), min_version, max_version };
                response.supported_features.push(supported);
                response.finalized_features.push(FinalizedFeatureKey {
                    name,
                    min_version_level: level,
                    max_version_level: level,
                });
            }
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

impl ApiVersions {
    fn is_misrouted(&self, context: &Context<'_>) -> bool {
        let ApiVersionsRequest { cluster_id, node_id, .. } = &self.0;
        let elsewhere = |id: &ByteString| *id != *context.state.options.cluster_id || *node_id != context.broker;
        cluster_id.as_ref().is_some_and(elsewhere)
    }
}

pub(super) fn refuse(context: &Context<'_>) -> Result<Step> {
    let mut response = ApiVersionsResponse { error_code: ErrorCode::UNSUPPORTED_VERSION.code(), ..Default::default() };
    response.api_keys = served(ApiKey::ApiVersions, context).into_iter().collect();
    context.reply_in(&response, 0)
}

fn served(key: ApiKey, context: &Context<'_>) -> Option<ApiVersion> {
    let (min, max) = versions(key, &context.state.options)?;
    Some(ApiVersion { api_key: key.code(), min_version: min, max_version: max })
}

/// Returns true for names that begin and end with letters or digits, and contain besides them only
/// `-` and `.`.
fn is_decent(name: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}
