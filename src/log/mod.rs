//! Log lines: the client that a line is about, the rate of a line, and lists of many objects in one
//! line.
//!
//! Every event of the rooms above goes through [`event`], so that `client_id`, `role` and `group`
//! are on every line, also on a line that the user's own thread writes. The fields are part of the
//! event and not of a span, because a filter by target drops a span of another target together with
//! its fields.

mod limiter;
mod outage;
mod several;

use std::sync::Arc;

pub(crate) use limiter::Limiter;
pub(crate) use outage::{Lasting, Outage};
pub(crate) use several::several;

tokio::task_local! {
    static CURRENT: Origin;
}

/// The client that a log line is about. Clones share one allocation; the default names no client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin(Option<Arc<Named>>);

#[derive(Debug)]
struct Named {
    client_id: String,
    role: &'static str,
    group: Option<Arc<str>>,
}

impl Origin {
    /// Makes the origin for a client with that `client.id`. `role` is `producer`, `consumer` or
    /// `admin`, and `group` its `group.id`.
    pub(crate) fn new(client_id: &str, role: &'static str, group: Option<Arc<str>>) -> Self {
        Self(Some(Arc::new(Named { client_id: client_id.to_owned(), role, group })))
    }

    /// Returns the client that this task works for, if the task runs within [`scope`](Self::scope).
    /// Code that several clients share (token caches) has no other way to find it.
    pub(crate) fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Runs a future for this client.
    pub(crate) async fn scope<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    pub(crate) fn client_id(&self) -> Option<&str> {
        Some(&self.0.as_ref()?.client_id)
    }

    pub(crate) fn role(&self) -> Option<&str> {
        Some(self.0.as_ref()?.role)
    }

    pub(crate) fn group(&self) -> Option<&str> {
        self.0.as_ref()?.group.as_deref()
    }
}

/// Writes an event of that level about that client. The other arguments are those of
/// `tracing::event!`. Arguments after the client are not evaluated if the level is off.
macro_rules! event {
    ($level:ident, $origin:expr, $($rest:tt)+) => {{
        let origin: &$crate::log::Origin = &$origin;
        tracing::event!(
            tracing::Level::$level,
            client_id = origin.client_id(),
            role = origin.role(),
            group = origin.group(),
            $($rest)+
        )
    }};
}
pub(crate) use event;

/// Captures the lines that a test's clients write.
#[cfg(test)]
pub(crate) mod capture;
