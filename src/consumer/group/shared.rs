//! What the handles and the task of one membership have in common.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::{GroupSettings, membership::Standing, reader::Reader};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: GroupSettings,
    pub(super) reader: Reader,
    /// One commit at a time, in the order in which they were asked for, so that a retry of an earlier one cannot undo a
    /// later one.
    pub(super) commits: Semaphore,
    standing: Mutex<Arc<Standing>>,
}

impl Shared {
    pub(super) fn new(settings: GroupSettings) -> Self {
        Self {
            settings,
            reader: Reader::default(),
            commits: Semaphore::new(1),
            standing: Mutex::new(Arc::new(Standing::Alone)),
        }
    }

    pub(super) fn standing(&self) -> Arc<Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(standing);
    }
}
