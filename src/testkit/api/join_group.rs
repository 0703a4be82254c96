//! JoinGroup 0–9 of classic groups: waits until the rebalance completes. From v4 on a new dynamic
//! member first gets an id to come back with (KIP-394); static members (v5, KIP-345) take over
//! their own place; v9 may skip the assignment (KIP-814).

use bytes::Bytes;

use super::{Call, Context, Progress, Step, Subject, millis, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{
        State,
        consumer_group::{ClassicJoin, ClassicMember, ConsumerGroup, ConsumerGroupSettings, Picture},
        group::{JoinOutcome, JoinRequest, MemberIdentity, Outcome},
    },
    wire::messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
};

pub(crate) struct JoinGroup {
    request: JoinGroupRequest,
    progress: Progress,
}

impl JoinGroup {
    pub(crate) fn new(request: JoinGroupRequest) -> Self {
        Self { request, progress: Progress::New }
    }

    fn join(&self, context: &mut Context<'_>) -> Outcome<JoinOutcome> {
        let (version, asked) = (context.head.version, &self.request);
        let refused = context.refused().map_or_else(|| context.check_group(&asked.group_id), Err);
        if let Err(error) = refused {
            return Outcome::Done(JoinOutcome::error(error, asked.member_id.as_str()));
        }
        let instance = asked.group_instance_id.as_ref().filter(|_| version >= 5).map(ToString::to_string);
        let prefix = instance.clone().unwrap_or_else(|| context.head.client_id.to_string());
        let session_timeout = millis(asked.session_timeout_ms);
        let request = JoinRequest {
            new_id: context.state.new_member_id(&prefix),
            identity: MemberIdentity { member_id: asked.member_id.to_string(), instance },
            client_id: context.head.client_id.to_string(),
            protocol_type: asked.protocol_type.to_string(),
            // Copied, so that a member does not keep the buffer that it came in.
            protocols: asked
                .protocols
                .iter()
                .map(|protocol| (protocol.name.to_string(), Bytes::copy_from_slice(&protocol.metadata)))
                .collect(),
            session_timeout,
            rebalance_timeout: if version >= 1 { millis(asked.rebalance_timeout_ms) } else { session_timeout },
            id_required: version >= 4,
            may_skip_assignment: version >= 9,
        };
        if let Some((group, metadata, settings)) = context.state.consumer_group_to_join(&asked.group_id, context.now) {
            return Outcome::Done(join_consumer(context.now, group, request, &metadata, &settings));
        }
        let settings = context.state.group_settings();
        context.state.group_mut(&asked.group_id, context.now).classic.join(context.now, request, &settings)
    }
}

impl Call for JoinGroup {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(&self.request.group_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let outcome = match self.progress {
            Progress::New => self.join(context),
            Progress::Waiting(ticket) => {
                let group = context.state.group_mut(&self.request.group_id, context.now);
                group.classic.take_join(ticket).map_or(Outcome::Wait(ticket), Outcome::Done)
            }
        };
        match outcome {
            Outcome::Done(outcome) => {
                let spoiled = context.spoiled(outcome.error);
                let outcome = match spoiled == outcome.error {
                    true => outcome,
                    false => JoinOutcome::error(spoiled, outcome.member_id),
                };
                context.reply(&response(outcome, context))
            }
            Outcome::Wait(ticket) => {
                self.progress = Progress::Waiting(ticket);
                Ok(Step::Wait(context.state.group_mut(&self.request.group_id, context.now).deadline()))
            }
        }
    }
}

/// Joins a group of the consumer protocol: the response is sent at once, and there is no leader.
fn join_consumer(
    now: std::time::Instant,
    group: &mut ConsumerGroup,
    request: JoinRequest,
    metadata: &Picture,
    settings: &ConsumerGroupSettings,
) -> JoinOutcome {
    let join = ClassicJoin {
        identity: request.identity,
        client_id: request.client_id,
        protocol_type: request.protocol_type,
        rebalance_timeout: request.rebalance_timeout,
        id_required: request.id_required,
        new_id: request.new_id,
        member: ClassicMember { session_timeout: request.session_timeout, protocols: request.protocols },
    };
    match group.classic_join(now, join, metadata, settings) {
        Ok((member_id, generation, protocol)) => JoinOutcome {
            generation,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some(protocol),
            ..JoinOutcome::error(ErrorCode::NONE, member_id)
        },
        Err((code, member_id)) => JoinOutcome::error(code, member_id),
    }
}

fn response(outcome: JoinOutcome, context: &Context<'_>) -> JoinGroupResponse {
    let version = context.head.version;
    let mut response = JoinGroupResponse { throttle_time_ms: context.throttle(), ..Default::default() };
    response.error_code = outcome.error.code();
    response.generation_id = outcome.generation;
    if version >= 7 {
        response.protocol_type = outcome.protocol_type.map(text);
        response.protocol_name = outcome.protocol.map(text);
    } else {
        response.protocol_name = Some(text(outcome.protocol.unwrap_or_default()));
    }
    response.leader = text(outcome.leader);
    response.skip_assignment = outcome.skip_assignment;
    response.member_id = text(outcome.member_id);
    let members = outcome.members.into_iter().map(|(id, instance, metadata)| {
        let instance = instance.filter(|_| version >= 5).map(text);
        JoinGroupResponseMember { member_id: text(id), group_instance_id: instance, metadata }
    });
    response.members = members.collect();
    response
}
