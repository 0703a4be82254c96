//! The request and the response of JoinGroup, whatever their version.
//!
//! Sans-IO.

use std::time::Duration;

use bytes::Bytes;

use super::identity::MemberIdentity;
use crate::error::ErrorCode;

/// The request.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    pub(crate) identity: MemberIdentity,
    pub(crate) client_id: String,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// True if the version sends a new dynamic member back once, to rejoin with the id that it is
    /// given (v4, KIP-394).
    pub(crate) id_required: bool,
    /// True if the version lets the coordinator tell a static leader that came back to keep the
    /// assignment (v9, KIP-814).
    pub(crate) may_skip_assignment: bool,
    /// Id for a member that has none yet.
    pub(crate) new_id: String,
}

/// The response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinOutcome {
    pub(crate) error: ErrorCode,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) skip_assignment: bool,
    pub(crate) member_id: String,
    /// For the leader: id, instance and metadata of every member.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

impl JoinOutcome {
    pub(crate) fn error(error: ErrorCode, member_id: impl Into<String>) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.into(),
            members: Vec::new(),
        }
    }
}
