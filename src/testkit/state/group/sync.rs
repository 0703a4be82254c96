//! The request and the response of SyncGroup, whatever their version.
//!
//! Sans-IO.

use bytes::Bytes;

use super::identity::MemberIdentity;
use crate::error::ErrorCode;

/// The request.
#[derive(Clone, Debug)]
pub(crate) struct SyncRequest {
    pub(crate) identity: MemberIdentity,
    pub(crate) generation: i32,
    /// The protocol that the member believes was selected (v5, KIP-559).
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// The leader's assignment for each member.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// The response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncOutcome {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl SyncOutcome {
    pub(crate) fn error(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}
