//! Heartbeat 0–4 of classic groups.

use super::{Call, Context, Step, Subject};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{State, group::MemberIdentity},
    wire::messages::{HeartbeatRequest, HeartbeatResponse},
};

pub(crate) struct Heartbeat(pub(crate) HeartbeatRequest);

impl Heartbeat {
    fn beat(&self, context: &mut Context<'_>) -> Result<(), ErrorCode> {
        if let Some(code) = context.refused() {
            return Err(code);
        }
        context.check_group(&self.0.group_id)?;
        let instance = self.0.group_instance_id.as_ref().filter(|_| context.head.version >= 3);
        let identity =
            MemberIdentity { member_id: self.0.member_id.to_string(), instance: instance.map(ToString::to_string) };
        if let Some((group, ..)) = context.state.consumer_group(&self.0.group_id, context.now) {
            return group.classic_heartbeat(context.now, &identity, self.0.generation_id);
        }
        let settings = context.state.group_settings();
        let group = context.state.group_mut(&self.0.group_id, context.now);
        group.classic.heartbeat(context.now, &identity, self.0.generation_id, &settings)
    }
}

impl Call for Heartbeat {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(&self.0.group_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let error = self.beat(context).err().unwrap_or_default();
        let mut response = HeartbeatResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.error_code = context.spoiled(error).code();
        context.reply(&response)
    }
}
