//! The log lines of transactions.

use std::{sync::Arc, time::Duration};

use std::time::Instant;

use super::{action::Notice, exchange::Exchange, protocol::Protocol};
use crate::log::{Lasting, Limiter, Origin, Outage, event};

/// Time for which requests may be repeated before this is logged.
const REPORTED_AFTER: Duration = Duration::from_secs(10);

/// Writes the log lines of one transactional producer.
pub(crate) struct TransactionLog {
    origin: Origin,
    transactional_id: Arc<str>,
    outage: Outage,
    limiter: Limiter<&'static str>,
}

impl TransactionLog {
    pub(crate) fn new(origin: Origin, transactional_id: Arc<str>) -> Self {
        Self { origin, transactional_id, outage: Outage::after(REPORTED_AFTER), limiter: Limiter::default() }
    }

    /// Logs a request that is being repeated for long, and the end of that.
    pub(crate) fn repeated(&mut self, exchange: Option<&Exchange>, now: Instant) {
        let Some((exchange, error)) = exchange.and_then(|exchange| Some((exchange, exchange.last_error()?))) else {
            if let Some(Lasting { duration, attempts }) = self.outage.ended(now) {
                let outage_s = duration.as_secs();
                event!(
                    INFO,
                    self.origin,
                    transactional_id = &*self.transactional_id,
                    outage_s,
                    attempts,
                    "the coordinator answers the requests of transactions again"
                );
            }
            return;
        };
        if let Some(Lasting { duration, attempts }) = self.outage.failed(now) {
            let outage_s = duration.as_secs();
            event!(
                WARN, self.origin, transactional_id = &*self.transactional_id, request = ?exchange.request.api(),
                %error, outage_s, attempts,
                "a request of a transaction is not answered as it should be; the producer repeats it: if this goes on, \
                 check the coordinator and the topic __transaction_state"
            );
        }
    }

    /// Writes the line of a notice.
    pub(crate) fn write(&mut self, notice: &Notice, now: Instant) {
        let (origin, transactional_id) = (&self.origin, &*self.transactional_id);
        let mut admitted = |cause| self.limiter.admit(cause, now);
        match notice {
            Notice::Initialized(producer) => {
                if let Some(suppressed) = admitted("initialized") {
                    event!(
                        INFO,
                        origin,
                        transactional_id,
                        producer_id = producer.id,
                        epoch = producer.epoch,
                        suppressed,
                        "the transactional producer is initialized: older producers of this id are fenced"
                    );
                }
            }
            Notice::Failed { number, cause } => {
                if let Some(suppressed) = admitted("failed") {
                    event!(
                        WARN, origin, transactional_id, transaction = number, error = %cause, suppressed,
                        "the transaction failed and will be aborted"
                    );
                }
            }
            Notice::OutcomeUnknown { number, cause } => {
                if let Some(suppressed) = admitted("unknown") {
                    event!(
                        ERROR, origin, transactional_id, transaction = number, error = %cause, suppressed,
                        "the outcome of a transaction is unknown: read its output, or the group's committed offsets, \
                         before its work is done again"
                    );
                }
            }
            Notice::UnexpectedIdentity { sent } => {
                if let Some(suppressed) = admitted("identity") {
                    event!(
                        WARN,
                        origin,
                        transactional_id,
                        producer_id = sent.id,
                        epoch = sent.epoch,
                        suppressed,
                        "the coordinator ended a transaction and answered an epoch that cannot follow: the producer is \
                         initialized again before the next transaction"
                    );
                }
            }
            Notice::ProtocolChanged(protocol) => {
                let version = match protocol {
                    Protocol::V1 => 1,
                    Protocol::V2 => 2,
                };
                event!(
                    INFO,
                    origin,
                    transactional_id,
                    version,
                    "the cluster's transaction.version has changed: the next transaction uses the other protocol"
                );
            }
            Notice::Overdue { number } => {
                if let Some(suppressed) = admitted("overdue") {
                    event!(
                        WARN,
                        origin,
                        transactional_id,
                        transaction = number,
                        suppressed,
                        "the transaction is older than transaction.timeout.ms: the coordinator aborts it; commit sooner, \
                         or raise the timeout"
                    );
                }
            }
            Notice::ProducerFailed(error) => {
                event!(
                    ERROR, origin, transactional_id, %error,
                    "the transactional producer has failed: {}", error.advice()
                );
            }
        }
    }
}
