//! InitProducerId 0–5: a new producer id at epoch 0, or, for a transactional id, the same id at the
//! next epoch (KIP-98, KIP-360); a producer that names an epoch which is no longer its own is
//! fenced. Only its coordinator serves a transactional id.

use super::{Call, Context, Step, Subject};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{State, Transactional},
    wire::messages::{InitProducerIdRequest, InitProducerIdResponse},
};

pub(crate) struct InitProducerId(pub(crate) InitProducerIdRequest);

impl Call for InitProducerId {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        self.0.transactional_id.as_ref().map_or_else(Subject::default, |id| Subject::of_group(id.as_str()))
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let given = match context.refused() {
            Some(code) => Err(code),
            None => match &self.0.transactional_id {
                None => Ok(Transactional { producer_id: context.state.next_producer_id(), epoch: 0 }),
                Some(id) => self.next_epoch(context, id.as_str()),
            },
        };
        let error = context.spoiled(given.err().unwrap_or_default());
        let given = given.ok().filter(|_| error.is_ok());
        let mut response = InitProducerIdResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.error_code = error.code();
        response.producer_id = given.map_or(-1, |given| given.producer_id);
        response.producer_epoch = given.map_or(-1, |given| given.epoch);
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

impl InitProducerId {
    fn next_epoch(&self, context: &mut Context<'_>, id: &str) -> Result<Transactional, ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        context.state.check_coordinator(id, context.broker)?;
        let (producer_id, epoch) = match context.head.version {
            3.. => (self.0.producer_id, self.0.producer_epoch),
            _ => (-1, -1),
        };
        let next = match context.state.transactional.get(id).copied() {
            Some(known) if producer_id >= 0 && (known.producer_id, known.epoch) != (producer_id, epoch) => {
                let fenced = context.head.version >= 4;
                return Err(if fenced { ErrorCode::PRODUCER_FENCED } else { ErrorCode::INVALID_PRODUCER_EPOCH });
            }
            // The last epoch is never assigned.
            Some(known) if known.epoch < i16::MAX - 1 => Transactional { epoch: known.epoch + 1, ..known },
            _ => Transactional { producer_id: context.state.next_producer_id(), epoch: 0 },
        };
        context.state.transactional.insert(id.to_owned(), next);
        Ok(next)
    }
}
