//! The versions of requests that a broker supports, and the cluster's features.
//!
//! Sans-IO.

use std::collections::HashMap;

use crate::{
    cluster::request::VersionBounds,
    error::{Error, ErrorKind, Result},
    wire::{ApiKey, message::client_versions, messages::ApiVersionsResponse},
};

/// Requests that this client sends. A request that is not listed cannot be sent: a new one is
/// listed here first, and gets a row in `testkit/tests/every_error/rows.rs`, which answers it with
/// each error code.
const SENT: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::SyncGroup,
    ApiKey::SaslHandshake,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
    ApiKey::EndTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::SaslAuthenticate,
    ApiKey::ConsumerGroupHeartbeat,
];

/// The version ranges that one broker supports, from its ApiVersions response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    /// Host and port, for messages.
    peer: String,
    ranges: HashMap<i16, (i16, i16)>,
}

impl Versions {
    pub(super) fn new(peer: String, response: &ApiVersionsResponse) -> Self {
        let ranges = response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Self { peer, ranges }
    }

    /// Returns the newest version of a request that both sides support and that is within `bounds`.
    ///
    /// # Errors
    /// `UnsupportedVersion` if there is none; the message names both ranges and the bound.
    pub(super) fn pick(&self, key: ApiKey, bounds: VersionBounds) -> Result<i16> {
        let Some(ours) = client_versions(key).filter(|_| SENT.contains(&key)) else {
            return Err(unsupported(format!("this client does not support {key}")));
        };
        let Some(&theirs) = self.ranges.get(&key.code()) else {
            return Err(unsupported(format!("{}: the broker does not support {key}", self.peer)));
        };
        let newest = ours.1.min(theirs.1).min(bounds.max);
        if newest >= ours.0.max(theirs.0).max(bounds.min) {
            return Ok(newest);
        }
        let mut needs = String::new();
        if bounds.max < ours.1 {
            needs = format!(", and this request needs at most {}", bounds.max);
        }
        if bounds.min > ours.0 {
            needs.push_str(&format!(", and this request needs at least {}", bounds.min));
        }
        Err(unsupported(format!(
            "{}: no common version of {key}: the broker supports {} to {}, this client {} to {}{needs}",
            self.peer, theirs.0, theirs.1, ours.0, ours.1
        )))
    }
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::UnsupportedVersion, message)
}

/// The cluster's finalized features (KIP-584), from the newest ApiVersions response of any broker.
#[derive(Debug)]
pub(super) struct Features {
    epoch: i64,
    levels: HashMap<String, i16>,
}

impl Default for Features {
    fn default() -> Self {
        Self { epoch: -1, levels: HashMap::new() }
    }
}

impl Features {
    /// Stores the features of a response, unless newer ones are known. Brokers before 2.7 send
    /// none.
    pub(super) fn learn(&mut self, response: &ApiVersionsResponse) {
        if response.finalized_features_epoch < self.epoch.max(0) {
            return;
        }
        self.epoch = response.finalized_features_epoch;
        let levels = response.finalized_features.iter();
        self.levels = levels.map(|feature| (feature.name.to_string(), feature.max_version_level)).collect();
    }

    /// Forgets the epoch, because the next broker may belong to another cluster.
    pub(super) fn rebootstrap(&mut self) {
        self.epoch = -1;
    }

    pub(super) fn level(&self, name: &str) -> Option<i16> {
        self.levels.get(name).copied()
    }

    /// Returns a feature's level, and the epoch of the response that named it: 0 or more, or -1
    /// after a rebootstrap, until a broker has answered.
    pub(super) fn level_with_epoch(&self, name: &str) -> Option<(i16, i64)> {
        Some((self.level(name)?, self.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        byte_string::ByteString,
        messages::api_versions_response::{ApiVersion, FinalizedFeatureKey},
    };

    fn versions(key: ApiKey, min: i16, max: i16) -> Versions {
        let api = ApiVersion { api_key: key.code(), min_version: min, max_version: max };
        Versions::new("b:9092".to_owned(), &ApiVersionsResponse { api_keys: vec![api], ..Default::default() })
    }

    #[test]
    fn picks_newest_common_version_below_cap() {
        let (min, max) = client_versions(ApiKey::Metadata).unwrap();
        assert_eq!(versions(ApiKey::Metadata, 0, i16::MAX).pick(ApiKey::Metadata, VersionBounds::ANY).unwrap(), max);
        assert_eq!(versions(ApiKey::Metadata, 0, 7).pick(ApiKey::Metadata, VersionBounds::ANY).unwrap(), 7);
        assert_eq!(versions(ApiKey::Metadata, 0, 7).pick(ApiKey::Metadata, VersionBounds::at_most(5)).unwrap(), 5);
        assert_eq!(versions(ApiKey::Metadata, min, min).pick(ApiKey::Metadata, VersionBounds::ANY).unwrap(), min);
    }

    #[test]
    fn errors_name_the_request_and_both_ranges() {
        let error = versions(ApiKey::Metadata, 100, 101).pick(ApiKey::Metadata, VersionBounds::ANY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        let message = error.to_string();
        assert!(message.contains("Metadata") && message.contains("100 to 101") && message.contains("this client"));
        let error = versions(ApiKey::Metadata, 5, 6).pick(ApiKey::Metadata, VersionBounds::at_most(4)).unwrap_err();
        assert!(error.to_string().contains("at most 4"), "{error}");
        let error = versions(ApiKey::Metadata, 0, 1).pick(ApiKey::ListOffsets, VersionBounds::ANY).unwrap_err();
        assert!(error.to_string().contains("does not support ListOffsets"), "{error}");
    }

    #[test]
    fn never_picks_below_lower_bound() {
        let bounds = VersionBounds::at_least(12);
        assert_eq!(versions(ApiKey::Produce, 3, 12).pick(ApiKey::Produce, bounds).unwrap(), 12);
        let error = versions(ApiKey::Produce, 3, 11).pick(ApiKey::Produce, bounds).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().contains("at least 12"), "{error}");
        let exact = VersionBounds::exactly(9);
        assert_eq!(versions(ApiKey::Produce, 3, 12).pick(ApiKey::Produce, exact).unwrap(), 9);
        versions(ApiKey::Produce, 10, 12).pick(ApiKey::Produce, exact).unwrap_err();
    }

    #[test]
    fn transactional_requests_have_versions_of_clients() {
        for (key, versions) in [
            (ApiKey::InitProducerId, (0, 5)),
            (ApiKey::AddPartitionsToTxn, (0, 3)),
            (ApiKey::AddOffsetsToTxn, (0, 4)),
            (ApiKey::TxnOffsetCommit, (0, 6)),
            (ApiKey::EndTxn, (0, 5)),
        ] {
            assert_eq!(client_versions(key), Some(versions), "{key}");
        }
    }

    #[test]
    fn older_feature_epoch_does_not_replace_newer() {
        let response = |epoch, level| {
            let name = ByteString::from_static("transaction.version");
            let feature = FinalizedFeatureKey { name, max_version_level: level, ..Default::default() };
            ApiVersionsResponse {
                finalized_features_epoch: epoch,
                finalized_features: vec![feature],
                ..Default::default()
            }
        };
        let mut features = Features::default();
        assert_eq!(features.level("transaction.version"), None);
        features.learn(&response(7, 2));
        features.learn(&response(6, 1));
        features.learn(&ApiVersionsResponse::default());
        assert_eq!(features.level_with_epoch("transaction.version"), Some((2, 7)));
        features.rebootstrap();
        assert_eq!(features.level_with_epoch("transaction.version"), Some((2, -1)), "until a broker answers");
        features.learn(&response(1, 1));
        assert_eq!(features.level_with_epoch("transaction.version"), Some((1, 1)));
    }
}
