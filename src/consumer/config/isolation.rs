//! The isolation level of a running consumer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::settings::IsolationLevel;

/// The isolation level, shared by everything that reads. An exactly-once worker raises it after the
/// consumer was built; the change and the fetches that are planned by it are under the consumer's
/// lock.
#[derive(Clone, Debug)]
pub(crate) struct Isolation(Arc<AtomicBool>);

impl Isolation {
    pub(crate) fn new(level: IsolationLevel) -> Self {
        Self(Arc::new((level == IsolationLevel::ReadCommitted).into()))
    }

    pub(crate) fn level(&self) -> IsolationLevel {
        if self.is_read_committed() { IsolationLevel::ReadCommitted } else { IsolationLevel::ReadUncommitted }
    }

    pub(crate) fn is_read_committed(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Reads only committed records from now on.
    pub(crate) fn raise(&self) {
        self.0.store(true, Relaxed);
    }
}
