//! AddOffsetsToTxn 0–4: adds a consumer group to the transaction of a transactional id.

use super::{Call, Context, Step, Subject, fenced};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{
        State,
        transaction_coordinator::{Participants, ProducerIdAndEpoch},
    },
    wire::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse},
};

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

pub(crate) struct AddOffsetsToTxn(pub(crate) AddOffsetsToTxnRequest);

impl Call for AddOffsetsToTxn {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(&self.0.transactional_id)
    }

    fn transactional_id(&self) -> Option<&str> {
        Some(&self.0.transactional_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let added = match context.refused() {
            Some(code) => Err(code),
            None => self.add(context),
        };
        let error = context.spoiled(added.err().unwrap_or_default());
        let mut response = AddOffsetsToTxnResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.error_code = fenced(error, context.head.version, KNOWS_FENCED).code();
        context.reply(&response)
    }
}

impl AddOffsetsToTxn {
    fn add(&self, context: &mut Context<'_>) -> Result<(), ErrorCode> {
        let id = &*self.0.transactional_id;
        if id.is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        context.state.check_coordinator(id, context.broker)?;
        let producer = ProducerIdAndEpoch { id: self.0.producer_id, epoch: self.0.producer_epoch };
        context.state.transactions.add(id, producer, Participants::of_group(&self.0.group_id), context.now)
    }
}
