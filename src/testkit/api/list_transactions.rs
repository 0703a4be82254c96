//! ListTransactions 0–2: the transactional ids that this broker coordinates, by state, producer id,
//! age (v1) and a pattern of the id (v2).

use std::time::{Duration, Instant};

use regex::Regex;

use super::{Call, Context, Step, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::transaction_coordinator::{TransactionState as State, TransactionView},
    wire::messages::{ListTransactionsRequest, ListTransactionsResponse, list_transactions_response::TransactionState},
};

/// States of Kafka's coordinator that are never shown, but may be asked for.
const NEVER_SHOWN: [&str; 2] = ["Dead", "PrepareEpochFence"];

pub(crate) struct ListTransactions(pub(crate) ListTransactionsRequest);

impl Call for ListTransactions {
    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = ListTransactionsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        let pattern = match self.0.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
            Some(pattern) => Regex::new(&format!("^(?:{pattern})$")).map(Some),
            None => Ok(None),
        };
        let error = match (context.refused(), &pattern) {
            (Some(code), _) => code,
            (None, Err(_)) => ErrorCode::INVALID_REGULAR_EXPRESSION,
            (None, Ok(_)) => ErrorCode::NONE,
        };
        let error = context.spoiled(error);
        response.error_code = error.code();
        let is_known = |name: &str| NEVER_SHOWN.contains(&name) || State::ALL.iter().any(|state| state.name() == name);
        response.unknown_state_filters = self.0.state_filters.iter().filter(|name| !is_known(name)).cloned().collect();
        if let (Ok(pattern), true) = (pattern, error.is_ok()) {
            let transactions = &context.state.transactions;
            let mine = transactions.ids().filter(|id| context.state.coordinator(id) == Some(context.broker));
            let mine = mine.filter(|id| pattern.as_ref().is_none_or(|pattern| pattern.is_match(id)));
            let found = mine.filter_map(|id| Some((id, transactions.view(id)?)));
            let found = found.filter(|(_, transaction)| self.asks_for(transaction, context));
            let states = found.map(|(id, transaction)| TransactionState {
                transactional_id: text(id),
                producer_id: transaction.producer_id,
                transaction_state: text(transaction.state),
            });
            response.transaction_states = states.collect();
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

impl ListTransactions {
    fn asks_for(&self, transaction: &TransactionView, context: &Context<'_>) -> bool {
        let ListTransactionsRequest { state_filters, producer_id_filters, duration_filter, .. } = &self.0;
        let state = state_filters.is_empty() || state_filters.iter().any(|name| **name == *transaction.state);
        let id = producer_id_filters.is_empty() || producer_id_filters.contains(&transaction.producer_id);
        let age = |at: Instant| context.now.saturating_duration_since(at);
        let old = match u64::try_from(*duration_filter) {
            Ok(least) => transaction.started.is_none_or(|at| age(at) > Duration::from_millis(least)),
            Err(_) => true,
        };
        state && id && old
    }
}
