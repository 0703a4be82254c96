//! EndTxn 0–5: ends the transaction of a transactional id. The answer comes before the markers are
//! written ([`Options::marker_delay`](crate::testkit::Options::marker_delay)). Version 5 is that of
//! transactions v2 (KIP-890): it raises the epoch, returns the id and epoch of the next
//! transaction, and recognizes its own repetition by the epoch before.

use super::{Call, Context, Step, Subject, fenced};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{
        State, markers,
        transaction_coordinator::{ProducerIdAndEpoch, TransactionVersion},
    },
    wire::messages::{EndTxnRequest, EndTxnResponse},
};

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

pub(crate) struct EndTxn(pub(crate) EndTxnRequest);

impl Call for EndTxn {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(&self.0.transactional_id)
    }

    fn transactional_id(&self) -> Option<&str> {
        Some(&self.0.transactional_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let ended = match context.refused() {
            Some(code) => Err(code),
            None => self.end(context),
        };
        let error = context.spoiled(ended.err().unwrap_or_default());
        let next = ended.ok().flatten().filter(|_| error.is_ok());
        let mut response = EndTxnResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.error_code = fenced(error, context.head.version, KNOWS_FENCED).code();
        if let Some(next) = next {
            response.producer_id = next.id;
            response.producer_epoch = next.epoch;
        }
        context.reply(&response)
    }
}

impl EndTxn {
    fn end(&self, context: &mut Context<'_>) -> Result<Option<ProducerIdAndEpoch>, ErrorCode> {
        let id = &*self.0.transactional_id;
        if id.is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        context.state.check_coordinator(id, context.broker)?;
        let producer = ProducerIdAndEpoch { id: self.0.producer_id, epoch: self.0.producer_epoch };
        let version = if context.head.version >= 5 { TransactionVersion::V2 } else { TransactionVersion::V1 };
        let now = context.now;
        if context.state.sink.is_some() {
            context.state.transactions.assume_ongoing(id, now);
        }
        let ended = markers::transition(context.state, now, |transactions, transition| {
            transactions.end(id, producer, self.0.committed, version, transition)
        });
        markers::advance(context.state, now);
        ended
    }
}
