//! SyncGroup 0–5: hands out the leader's assignment; the others wait for it. From v5 on the
//! protocol is compared.

use bytes::Bytes;

use super::{Call, Context, Progress, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{
        State,
        group::{MemberIdentity, Outcome, SyncOutcome, SyncRequest},
    },
    wire::messages::{SyncGroupRequest, SyncGroupResponse},
};

pub(crate) struct SyncGroup {
    request: SyncGroupRequest,
    progress: Progress,
}

impl SyncGroup {
    pub(crate) fn new(request: SyncGroupRequest) -> Self {
        Self { request, progress: Progress::New }
    }

    fn sync(&self, context: &mut Context<'_>) -> Outcome<SyncOutcome> {
        let (version, asked) = (context.head.version, &self.request);
        let refused = context.refused().map_or_else(|| context.check_group(&asked.group_id), Err);
        if let Err(error) = refused {
            return Outcome::Done(SyncOutcome::error(error));
        }
        let request = SyncRequest {
            identity: MemberIdentity {
                member_id: asked.member_id.to_string(),
                instance: asked.group_instance_id.as_ref().filter(|_| version >= 3).map(ToString::to_string),
            },
            generation: asked.generation_id,
            protocol_type: asked.protocol_type.as_ref().map(ToString::to_string),
            protocol: asked.protocol_name.as_ref().map(ToString::to_string),
            assignments: asked
                .assignments
                .iter()
                .map(|given| (given.member_id.to_string(), Bytes::copy_from_slice(&given.assignment)))
                .collect(),
        };
        if let Some((group, metadata, _)) = context.state.consumer_group(&asked.group_id, context.now) {
            let synced = group.classic_sync(context.now, &request.identity, request.generation, &metadata);
            return Outcome::Done(synced.map_or_else(SyncOutcome::error, |(assignment, protocol)| SyncOutcome {
                protocol_type: Some("consumer".to_owned()),
                protocol: Some(protocol),
                assignment,
                ..SyncOutcome::error(ErrorCode::NONE)
            }));
        }
        let settings = context.state.group_settings();
        context.state.group_mut(&asked.group_id, context.now).classic.sync(context.now, request, &settings)
    }
}

impl Call for SyncGroup {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(&self.request.group_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let outcome = match self.progress {
            Progress::New => self.sync(context),
            Progress::Waiting(ticket) => {
                let group = context.state.group_mut(&self.request.group_id, context.now);
                group.classic.take_sync(ticket).map_or(Outcome::Wait(ticket), Outcome::Done)
            }
        };
        let outcome = match outcome {
            Outcome::Done(outcome) => outcome,
            Outcome::Wait(ticket) => {
                self.progress = Progress::Waiting(ticket);
                let group = context.state.group_mut(&self.request.group_id, context.now);
                return Ok(Step::Wait(group.deadline()));
            }
        };
        let spoiled = context.spoiled(outcome.error);
        let outcome = if spoiled == outcome.error { outcome } else { SyncOutcome::error(spoiled) };
        let mut response = SyncGroupResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.error_code = outcome.error.code();
        if context.head.version >= 5 {
            response.protocol_type = outcome.protocol_type.map(text);
            response.protocol_name = outcome.protocol.map(text);
        }
        response.assignment = outcome.assignment;
        context.reply(&response)
    }
}
