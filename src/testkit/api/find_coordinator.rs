//! FindCoordinator 0–6: of groups (type 0) and transactional ids (type 1), one key or several (v4). Other types are
//! refused.

use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator,
};

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::State,
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
        let mut response = FindCoordinatorResponse::default();
        response.throttle_time_ms = context.throttle();
        if version >= 4 {
            let keys = &self.0.coordinator_keys;
            response.coordinators = keys.iter().map(|key| self.find(context, key).with_key(key.clone())).collect();
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
            Some(broker) if error.is_ok() => Coordinator::default()
                .with_node_id(BrokerId(broker.id))
                .with_host(text(broker.host.as_str()))
                .with_port(i32::from(broker.port)),
            _ => {
                let error = if error.is_ok() { ErrorCode::COORDINATOR_NOT_AVAILABLE } else { error };
                Coordinator::default()
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(error.code())
                    .with_error_message(Some(text(error.message())))
            }
        }
    }
}
