//! What the handles and the task of one membership have in common.

use std::{
    mem::discriminant,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    GroupSettings,
    membership::{Identity, Standing},
    order::Order,
    reader::Reader,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: GroupSettings,
    pub(super) reader: Reader,
    /// One attempt at a commit at a time, so that none arrives behind one that follows it.
    pub(super) attempt: tokio::sync::Mutex<()>,
    /// Held for a moment only.
    order: Mutex<Order>,
    /// With since when it is of this kind.
    standing: watch::Sender<(Arc<Standing>, Instant)>,
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
            attempt: tokio::sync::Mutex::new(()),
            order: Mutex::default(),
            standing: watch::Sender::new((Arc::new(Standing::Alone), Instant::now())),
        }
    }

    pub(super) fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Arc<Standing> {
        self.standing_since().0
    }

    pub(super) fn standing_since(&self) -> (Arc<Standing>, Instant) {
        self.standing.borrow().clone()
    }

    /// Tells the handles. Who is `subscribed` and has not begun to join waits for the first picture that expressions can be
    /// held against.
    pub(super) fn publish(&self, standing: Standing, subscribed: bool) {
        self.set_standing(match standing {
            Standing::Alone if subscribed => Standing::Rebalancing {
                identity: Identity { generation: -1, member_id: "".into() },
                owned: Arc::default(),
            },
            standing => standing,
        });
    }

    fn set_standing(&self, standing: Standing) {
        self.standing.send_if_modified(|(known, since)| {
            if known.is_same(&standing) {
                return false;
            }
            if discriminant(&**known) != discriminant(&standing) {
                *since = Instant::now();
            }
            *known = Arc::new(standing);
            true
        });
    }

    /// Waits until the membership stands differently from then.
    pub(super) async fn standing_changes(&self, from: &Arc<Standing>) {
        // The sender lives as long as this, so that the wait cannot end early.
        let _ = self.standing.subscribe().wait_for(|(now, _)| !Arc::ptr_eq(now, from)).await;
    }
}

/// No longer than the protocol can say (24 days), so that adding it to a time cannot overflow either.
pub(super) fn bounded(time: Duration) -> Duration {
    time.min(Duration::from_millis(i32::MAX.unsigned_abs().into()))
}
