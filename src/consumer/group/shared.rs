//! What the handles and the task of one membership have in common.

use std::{
    mem::discriminant,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::{GroupSettings, membership::Standing, reader::Reader};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: GroupSettings,
    pub(super) reader: Reader,
    /// One commit at a time, in the order in which they were asked for, so that a retry of an earlier one cannot undo a
    /// later one.
    pub(super) commits: Semaphore,
    /// With since when it is of this kind.
    standing: Mutex<(Arc<Standing>, Instant)>,
}

impl Shared {
    pub(super) fn new(settings: GroupSettings) -> Self {
        let settings = GroupSettings {
            session_timeout: bounded(settings.session_timeout),
            heartbeat_interval: bounded(settings.heartbeat_interval),
            max_poll_interval: bounded(settings.max_poll_interval),
            ..settings
        };
        Self {
            settings,
            reader: Reader::default(),
            commits: Semaphore::new(1),
            standing: Mutex::new((Arc::new(Standing::Alone), Instant::now())),
        }
    }

    pub(super) fn standing(&self) -> Arc<Standing> {
        self.standing_since().0
    }

    pub(super) fn standing_since(&self) -> (Arc<Standing>, Instant) {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        let mut known = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let same = discriminant(&*known.0) == discriminant(&standing);
        *known = (Arc::new(standing), if same { known.1 } else { Instant::now() });
    }
}

/// No longer than the protocol can say (24 days), so that adding it to a time cannot overflow either.
pub(super) fn bounded(time: Duration) -> Duration {
    time.min(Duration::from_millis(i32::MAX.unsigned_abs().into()))
}
