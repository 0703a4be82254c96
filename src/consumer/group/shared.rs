//! What the handles and the task of one membership have in common.

use std::{
    mem::discriminant,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::GroupSettings;
use crate::consumer::group::{
    classic::{Identity, MemberSnapshot},
    offsets::{commit_order::CommitOrder, committed::TopicIds},
    poll_activity::PollActivity,
};
use crate::{
    consumer::GroupProtocol,
    error::Error,
    log::{Lasting, Limiter, Outage, event},
};

/// Refused commits are logged once they have been refused for so long: a coordinator that moves is
/// found again sooner.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct MembershipShared {
    pub(super) settings: GroupSettings,
    pub(super) protocol: GroupProtocol,
    pub(super) poll_activity: PollActivity,
    /// One attempt at a commit at a time, so that none arrives behind one that follows it.
    pub(super) attempt: tokio::sync::Mutex<()>,
    /// Held for a moment only.
    order: Mutex<CommitOrder>,
    /// Of the topics whose offsets were looked up; held for a moment only.
    topic_ids: Mutex<TopicIds>,
    /// Commits that are refused and tried again, as the log is told of them.
    commit_outage: Mutex<Outage>,
    /// Lines about members that left without the coordinator's knowledge.
    leave_warnings: Mutex<Limiter<()>>,
    /// With since when it is of this kind.
    member: watch::Sender<(Arc<MemberSnapshot>, Instant)>,
}

impl MembershipShared {
    pub(super) fn new(settings: GroupSettings, protocol: GroupProtocol) -> Self {
        let settings = GroupSettings {
            session_timeout: bounded(settings.session_timeout),
            heartbeat_interval: bounded(settings.heartbeat_interval),
            max_poll_interval: bounded(settings.max_poll_interval),
            ..settings
        };
        Self {
            settings,
            protocol,
            poll_activity: PollActivity::default(),
            attempt: tokio::sync::Mutex::new(()),
            order: Mutex::default(),
            topic_ids: Mutex::default(),
            commit_outage: Mutex::new(Outage::after(COMMIT_PATIENCE)),
            leave_warnings: Mutex::default(),
            member: watch::Sender::new((Arc::new(MemberSnapshot::NoGroup), Instant::now())),
        }
    }

    pub(super) fn order(&self) -> MutexGuard<'_, CommitOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn topic_ids(&self) -> MutexGuard<'_, TopicIds> {
        self.topic_ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit was refused, or got no answer, and may be tried again.
    pub(super) fn commit_refused(&self, error: &Error) {
        let lasting = self.commit_outage().failed(Instant::now().into_std());
        if let Some(Lasting { duration, attempts }) = lasting {
            event!(
                WARN, self.settings.origin, %error, outage_s = duration.as_secs(), attempts,
                "offsets cannot be committed; commits are tried again, and records may be read twice after a restart"
            );
        }
    }

    /// The coordinator took a commit.
    pub(super) fn commit_succeeded(&self) {
        let lasting = self.commit_outage().ended(Instant::now().into_std());
        if let Some(Lasting { duration, attempts }) = lasting {
            let outage_s = duration.as_secs();
            event!(INFO, self.settings.origin, outage_s, attempts, "offsets can be committed again");
        }
    }

    /// Returns how many lines about unheard goodbyes were suppressed, if one may be written.
    pub(super) fn admit_leave_warning(&self, now: std::time::Instant) -> Option<u64> {
        self.leave_warnings.lock().unwrap_or_else(PoisonError::into_inner).admit((), now)
    }

    fn commit_outage(&self) -> MutexGuard<'_, Outage> {
        self.commit_outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn member(&self) -> Arc<MemberSnapshot> {
        self.member_since().0
    }

    pub(super) fn member_since(&self) -> (Arc<MemberSnapshot>, Instant) {
        self.member.borrow().clone()
    }

    /// Tells the handles. Who is `subscribed` and has not begun to join waits for the first picture
    /// that expressions can be held against.
    pub(super) fn publish(&self, member: MemberSnapshot, subscribed: bool) {
        self.set_member(match member {
            MemberSnapshot::NoGroup if subscribed => MemberSnapshot::Rebalancing {
                identity: Identity { generation: -1, member_id: "".into() },
                owned: Arc::default(),
            },
            member => member,
        });
    }

    fn set_member(&self, member: MemberSnapshot) {
        self.member.send_if_modified(|(known, since)| {
            if known.is_same(&member) {
                return false;
            }
            if discriminant(&**known) != discriminant(&member) {
                *since = Instant::now();
            }
            *known = Arc::new(member);
            true
        });
    }

    /// Waits until the membership stands differently from then.
    pub(super) async fn member_changed(&self, from: &Arc<MemberSnapshot>) {
        // The sender lives as long as this, so that the wait cannot end early.
        let _ = self.member.subscribe().wait_for(|(now, _)| !Arc::ptr_eq(now, from)).await;
    }
}

/// No longer than the protocol can say (24 days), so that adding it to a time cannot overflow
/// either.
pub(super) fn bounded(time: Duration) -> Duration {
    time.min(Duration::from_millis(i32::MAX.unsigned_abs().into()))
}
