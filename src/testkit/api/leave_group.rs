//! LeaveGroup 0–5: removes one member, or several (v3); an administrator may name them by instance
//! id alone.

use super::{Call, Context, Step, Subject};
use crate::{
    error::{ErrorCode, Result},
    testkit::{
        fault::Spot,
        state::{State, group::MemberIdentity},
    },
    wire::messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse},
};

pub(crate) struct LeaveGroup(pub(crate) LeaveGroupRequest);

impl Call for LeaveGroup {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(&self.0.group_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = LeaveGroupResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        let of_members = context.head.version >= 3 && context.verdict.spot == Spot::Members;
        let (of_members, refused) = match context.refused() {
            Some(code) if of_members => (Some(code), None),
            refused => (None, refused),
        };
        let refused = refused.map_or_else(|| context.check_group(&self.0.group_id), Err);
        let error = match refused {
            Err(error) => error,
            Ok(()) if context.head.version >= 3 => {
                for member in &self.0.members {
                    let instance = member.group_instance_id.as_ref().map(ToString::to_string);
                    let identity = MemberIdentity { member_id: member.member_id.to_string(), instance };
                    let error = of_members.unwrap_or_else(|| self.leave(context, &identity));
                    response.members.push(MemberResponse {
                        member_id: member.member_id.clone(),
                        group_instance_id: member.group_instance_id.clone(),
                        error_code: error.code(),
                    });
                }
                ErrorCode::NONE
            }
            Ok(()) => {
                let identity = MemberIdentity { member_id: self.0.member_id.to_string(), instance: None };
                self.leave(context, &identity)
            }
        };
        response.error_code = context.spoiled(error).code();
        context.reply(&response)
    }
}

impl LeaveGroup {
    fn leave(&self, context: &mut Context<'_>, identity: &MemberIdentity) -> ErrorCode {
        if let Some((group, ..)) = context.state.consumer_group(&self.0.group_id, context.now) {
            let left = group.classic_leave(context.now, identity);
            context.state.group_mut(&self.0.group_id, context.now);
            return left.err().unwrap_or_default();
        }
        let settings = context.state.group_settings();
        let group = context.state.group_mut(&self.0.group_id, context.now);
        group.classic.leave(context.now, identity, &settings).err().unwrap_or_default()
    }
}
