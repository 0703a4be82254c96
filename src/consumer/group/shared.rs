//! State shared by the handles and the task of one membership.

use std::{
    mem::discriminant,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::GroupSettings;
use crate::consumer::group::{
    member_snapshot::{Identity, MemberSnapshot},
    offsets::{commit_order::CommitOrder, committed::TopicIds},
    poll_activity::PollActivity,
};
use crate::{
    consumer::GroupProtocol,
    error::Error,
    log::{Lasting, Limiter, Outage, event},
};

/// Time for which commits fail before it is logged, because a coordinator that moves is found again
/// sooner.
const COMMIT_REPORTED_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct MembershipShared {
    pub(super) settings: GroupSettings,
    pub(super) protocol: GroupProtocol,
    pub(super) poll_activity: PollActivity,
    /// Held during one attempt at a commit, so that no attempt arrives after a later one.
    pub(super) attempt: tokio::sync::Mutex<()>,
    /// Held only briefly.
    order: Mutex<CommitOrder>,
    /// Ids of the topics with requested offsets; held only briefly.
    topic_ids: Mutex<TopicIds>,
    /// Commits that are refused and retried, for the log.
    commit_outage: Mutex<Outage>,
    /// Limits the log lines about leaves that did not reach the coordinator.
    leave_warnings: Mutex<Limiter<()>>,
    /// The member, and the time since which it has been in this kind of state.
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
            commit_outage: Mutex::new(Outage::after(COMMIT_REPORTED_AFTER)),
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

    /// Records a commit that was refused or got no response, and may be retried.
    pub(super) fn commit_refused(&self, error: &Error) {
        let lasting = self.commit_outage().failed(Instant::now().into_std());
        if let Some(Lasting { duration, attempts }) = lasting {
            event!(
                WARN, self.settings.origin, %error, outage_s = duration.as_secs(), attempts,
                "offsets cannot be committed; commits are retried, and records may be read again after a restart"
            );
        }
    }

    /// Records a commit that the coordinator accepted.
    pub(super) fn commit_succeeded(&self) {
        let lasting = self.commit_outage().ended(Instant::now().into_std());
        if let Some(Lasting { duration, attempts }) = lasting {
            let outage_s = duration.as_secs();
            event!(INFO, self.settings.origin, outage_s, attempts, "offsets can be committed again");
        }
    }

    /// Returns the number of suppressed lines about failed leaves if a line may be written.
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

    /// Publishes the member to the handles. A `subscribed` member that has not begun to join waits
    /// for the first metadata, which its regular expressions need.
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

    /// Waits until the membership differs from `from`.
    pub(super) async fn member_changed(&self, from: &Arc<MemberSnapshot>) {
        // The sender lives as long as `self`, so the wait cannot end early.
        let _ = self.member.subscribe().wait_for(|(now, _)| !Arc::ptr_eq(now, from)).await;
    }
}

/// Limits a time to what the protocol can carry (24 days), which also keeps sums of times from
/// overflowing.
pub(super) fn bounded(time: Duration) -> Duration {
    time.min(Duration::from_millis(i32::MAX.unsigned_abs().into()))
}
