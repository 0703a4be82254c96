//! FindCoordinator 0–6: of groups (type 0) and transactional ids (type 1), one key or several (v4).
//! Other types are refused.

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::State,
    wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) struct FindCoordinator(pub(crate) FindCoordinatorRequest);

impl Call for FindCoordinator {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(self.0.coordinator_keys.first().unwrap_or(&self.0.key))
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let mut response = FindCoordinatorResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        if version >= 4 {
            let keys = &self.0.coordinator_keys;
            response.coordinators =
                keys.iter().map(|key| Coordinator { key: key.clone(), ..self.find(context, key) }).collect();
        } else {
            let found = self.find(context, &self.0.key);
            response.error_code = found.error_code;
            if version >= 1 {
                response.error_message = found.error_message;
            }
            response.node_id = found.node_id;
            response.host = found.host;
            response.port = found.port;
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

impl FindCoordinator {
    fn find(&self, context: &Context<'_>, key: &str) -> Coordinator {
        let error = match context.refused() {
            Some(code) => code,
            None if key.is_empty() && self.0.key_type == GROUP => ErrorCode::INVALID_GROUP_ID,
            None if !matches!(self.0.key_type, GROUP | TRANSACTION) => ErrorCode::INVALID_REQUEST,
            None => ErrorCode::NONE,
        };
        let error = context.spoiled(error);
        let broker = context.state.coordinator(key).and_then(|id| context.state.broker(id));
        match broker {
            Some(broker) if error.is_ok() => Coordinator {
                node_id: broker.id,
                host: text(broker.host.as_str()),
                port: i32::from(broker.port),
                ..Default::default()
            },
            _ => {
                let error = if error.is_ok() { ErrorCode::COORDINATOR_NOT_AVAILABLE } else { error };
                Coordinator {
                    node_id: -1,
                    port: -1,
                    error_code: error.code(),
                    error_message: Some(text(error.message())),
                    ..Default::default()
                }
            }
        }
    }
}
