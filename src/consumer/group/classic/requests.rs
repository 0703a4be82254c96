//! The requests of the classic group protocol, and their responses in the membership's types.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    consumer::group::{
        GroupSettings,
        classic::{
            actions::{JoinAnswer, JoinOutcome, JoinedMember, PROTOCOL_TYPE, SyncAnswer},
            errors::has_left,
        },
        member_snapshot::Identity,
    },
    error::{Error, ErrorCode, Result},
    wire::{
        byte_string::ByteString,
        messages::{
            HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
            LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse, join_group_request::JoinGroupRequestProtocol,
            leave_group_request::MemberIdentity, sync_group_request::SyncGroupRequestAssignment,
        },
    },
};

pub(crate) fn text(text: &str) -> ByteString {
    ByteString::from(text)
}

/// Brokers before 2.3 do not know static members; for them the member is a dynamic one.
fn instance_id(settings: &GroupSettings, known: bool) -> Option<ByteString> {
    settings.group_instance_id.as_deref().filter(|_| known).map(text)
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

pub(crate) fn join(
    version: i16,
    settings: &GroupSettings,
    member_id: &str,
    protocols: &[(Arc<str>, Bytes)],
    reason: &str,
) -> JoinGroupRequest {
    let protocols = protocols
        .iter()
        .map(|(name, metadata)| JoinGroupRequestProtocol { name: text(name), metadata: metadata.clone() })
        .collect();
    JoinGroupRequest {
        group_id: text(&settings.group_id),
        session_timeout_ms: millis(settings.session_timeout),
        rebalance_timeout_ms: if version >= 1 { millis(settings.max_poll_interval) } else { -1 },
        member_id: text(member_id),
        group_instance_id: instance_id(settings, version >= 5),
        protocol_type: ByteString::from_static(PROTOCOL_TYPE),
        protocols,
        reason: (version >= 8).then(|| text(reason)),
    }
}

pub(crate) fn read_join(response: JoinGroupResponse, settings: &GroupSettings) -> JoinOutcome {
    let code = ErrorCode::from(response.error_code);
    if code == ErrorCode::MEMBER_ID_REQUIRED {
        return JoinOutcome::MemberIdRequired(response.member_id.to_string());
    }
    if !code.is_ok() {
        return JoinOutcome::Failed(Error::broker(code, format_args!("join group {}", settings.group_id)));
    }
    let members = response.members.into_iter().map(|member| JoinedMember {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        metadata: member.metadata,
    });
    JoinOutcome::Member(JoinAnswer {
        generation: response.generation_id,
        leads: response.leader == response.member_id,
        member_id: response.member_id.to_string(),
        protocol_type: response.protocol_type.map(|name| name.to_string()),
        protocol: response.protocol_name.map(|name| name.to_string()),
        skip_assignment: response.skip_assignment,
        members: members.collect(),
    })
}

pub(crate) fn sync(
    version: i16,
    settings: &GroupSettings,
    identity: &Identity,
    protocol: &str,
    assignments: &[(Arc<str>, Bytes)],
) -> SyncGroupRequest {
    let assignments = assignments
        .iter()
        .map(|(member_id, assignment)| SyncGroupRequestAssignment {
            member_id: text(member_id),
            assignment: assignment.clone(),
        })
        .collect();
    SyncGroupRequest {
        group_id: text(&settings.group_id),
        generation_id: identity.generation,
        member_id: text(&identity.member_id),
        group_instance_id: instance_id(settings, version >= 3),
        protocol_type: (version >= 5).then(|| ByteString::from_static(PROTOCOL_TYPE)),
        protocol_name: (version >= 5).then(|| text(protocol)),
        assignments,
    }
}

pub(crate) fn read_sync(response: SyncGroupResponse, settings: &GroupSettings) -> Result<SyncAnswer> {
    ErrorCode::from(response.error_code)
        .ok()
        .map_err(|code| Error::broker(code, format_args!("sync group {}", settings.group_id)))?;
    Ok(SyncAnswer {
        protocol_type: response.protocol_type.map(|name| name.to_string()),
        protocol: response.protocol_name.map(|name| name.to_string()),
        assignment: response.assignment,
    })
}

pub(crate) fn heartbeat(version: i16, settings: &GroupSettings, identity: &Identity) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: text(&settings.group_id),
        generation_id: identity.generation,
        member_id: text(&identity.member_id),
        group_instance_id: instance_id(settings, version >= 3),
    }
}

pub(crate) fn read_heartbeat(response: &HeartbeatResponse, settings: &GroupSettings) -> Result<()> {
    ErrorCode::from(response.error_code)
        .ok()
        .map_err(|code| Error::broker(code, format_args!("heartbeat of group {}", settings.group_id)))
}

/// Builds a LeaveGroup. Only dynamic members leave, so it has no instance id.
pub(crate) fn leave(
    version: i16,
    settings: &GroupSettings,
    member_id: &str,
    reason: &'static str,
) -> LeaveGroupRequest {
    let request = LeaveGroupRequest { group_id: text(&settings.group_id), ..Default::default() };
    if version < 3 {
        return LeaveGroupRequest { member_id: text(member_id), ..request };
    }
    let member = MemberIdentity {
        member_id: text(member_id),
        reason: (version >= 5).then(|| ByteString::from_static(reason)),
        ..Default::default()
    };
    LeaveGroupRequest { members: vec![member], ..request }
}

/// Reads the response to a LeaveGroup.
pub(crate) fn read_leave(response: &LeaveGroupResponse, settings: &GroupSettings) -> Result<()> {
    let codes = std::iter::once(response.error_code).chain(response.members.iter().map(|member| member.error_code));
    match codes.map(ErrorCode::from).find(|&code| !has_left(code)) {
        Some(code) => Err(Error::broker(code, format_args!("leave group {}", settings.group_id))),
        None => Ok(()),
    }
}
