//! InitProducerId 0–5: a new producer id at epoch 0, or, for a transactional id, the same id at the
//! next epoch (KIP-98). A producer that names its id and epoch (v3, KIP-360) goes on with them and
//! is fenced if they are no longer its own; one that names none fences all others. An open
//! transaction is aborted first, and the client has to ask again (CONCURRENT_TRANSACTIONS). Only
//! its coordinator serves a transactional id.

use super::{Call, Context, Step, Subject, fenced, millis};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{State, markers, transaction_coordinator::ProducerIdAndEpoch},
    wire::messages::{InitProducerIdRequest, InitProducerIdResponse},
};

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 4;

pub(crate) struct InitProducerId(pub(crate) InitProducerIdRequest);

impl Call for InitProducerId {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        self.0.transactional_id.as_ref().map_or_else(Subject::default, |id| Subject::of_group(id.as_str()))
    }

    fn transactional_id(&self) -> Option<&str> {
        self.0.transactional_id.as_deref()
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let given = match context.refused() {
            Some(code) => Err(code),
            None => self.init(context),
        };
        let error = context.spoiled(given.err().unwrap_or_default());
        let given = given.ok().filter(|_| error.is_ok());
        let mut response = InitProducerIdResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.error_code = fenced(error, context.head.version, KNOWS_FENCED).code();
        response.producer_id = given.map_or(-1, |given| given.id);
        response.producer_epoch = given.map_or(-1, |given| given.epoch);
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        // It may abort a transaction whose end others wait for.
        self.0.transactional_id.is_some()
    }
}

impl InitProducerId {
    fn init(&self, context: &mut Context<'_>) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let expected = match (self.0.producer_id, self.0.producer_epoch) {
            (-1, -1) => None,
            (-1, _) | (_, -1) => return Err(ErrorCode::INVALID_REQUEST),
            (id, epoch) => Some(ProducerIdAndEpoch { id, epoch }),
        };
        let Some(id) = self.transactional_id() else {
            return Ok(ProducerIdAndEpoch { id: context.state.next_producer_id(), epoch: 0 });
        };
        if id.is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let timeout = millis(self.0.transaction_timeout_ms);
        if timeout.is_zero() || timeout > context.state.options.max_transaction_timeout {
            return Err(ErrorCode::INVALID_TRANSACTION_TIMEOUT);
        }
        context.state.check_coordinator(id, context.broker)?;
        let now = context.now;
        let given = markers::transition(context.state, now, |transactions, transition| {
            transactions.init(id, expected, timeout, transition)
        });
        markers::advance(context.state, now);
        given
    }
}
