//! The position from which a partition is read, and the requests that find it.
//!
//! ```text
//!  assigned by the group ──► Initializing ──(nothing committed)──► AwaitReset ──┐
//!                                 │                                             │
//!  assigned or sought ────────────┼──(an offset)──► AwaitValidation ◄─(election)┤
//!                                 │                        │           │        │
//!                                 └────────────────────────┴──────► Fetching ◄──┘
//!                                                                      │
//!  damage, out of range, no reset policy ───────────────────────► Stopped, until a seek
//! ```
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::config::settings::OffsetReset;
use crate::record::Offset;

/// The offset that a reset looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetTarget {
    Earliest,
    Latest,
    /// The first record not older than this duration before the time of the request.
    Since(Duration),
    /// The first record not older than this time, in milliseconds since the Unix epoch.
    At(i64),
}

impl ResetTarget {
    /// Returns the target of the reset policy; `None` if the policy is `none`.
    pub(crate) fn of(policy: OffsetReset) -> Option<Self> {
        match policy {
            OffsetReset::Earliest => Some(Self::Earliest),
            OffsetReset::Latest => Some(Self::Latest),
            OffsetReset::ByDuration(duration) => Some(Self::Since(duration)),
            OffsetReset::None => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchState {
    /// The group's committed offset has to be requested.
    Initializing,
    /// An offset has to be looked up.
    AwaitReset(ResetTarget),
    /// The leader has to be asked if its log still has the records read up to this offset
    /// (KIP-320).
    AwaitValidation { offset: i64, epoch: i32 },
    /// Fetched from this offset on; `epoch` is that of the record before it, −1 if it is not known.
    Fetching { offset: i64, epoch: i32 },
    /// Not fetched until the user seeks, or until the reader has received the records before the
    /// error.
    Stopped,
}

impl FetchState {
    /// Returns the state after a seek by the user.
    pub(crate) fn at(offset: Offset) -> Self {
        match offset {
            Offset::Beginning => Self::AwaitReset(ResetTarget::Earliest),
            Offset::End => Self::AwaitReset(ResetTarget::Latest),
            Offset::At(offset) => Self::Fetching { offset, epoch: -1 },
        }
    }

    /// Returns the state for an offset that came with the leader epoch of the record before it.
    pub(crate) fn resume(offset: i64, epoch: Option<i32>) -> Self {
        match epoch {
            Some(epoch) if epoch >= 0 => Self::AwaitValidation { offset, epoch },
            _ => Self::Fetching { offset, epoch: -1 },
        }
    }
}

/// Result of a look-up of an epoch's end (OffsetForLeaderEpoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogValidation {
    /// The log has all records that were read.
    Valid,
    /// The log differs from the records read at this offset, where it has this epoch.
    Truncated { at: i64, epoch: i32 },
    /// The log does not know the epoch, so the offset where it differs is not known.
    Undefined,
}

impl LogValidation {
    pub(crate) fn of(offset: i64, end_epoch: i32, end_offset: i64) -> Self {
        if end_epoch < 0 || end_offset < 0 {
            Self::Undefined
        } else if end_offset < offset {
            Self::Truncated { at: end_offset, epoch: end_epoch }
        } else {
            Self::Valid
        }
    }
}

/// A partition's position, with its outstanding offset request.
#[derive(Debug)]
pub(crate) struct FetchPosition {
    state: FetchState,
    /// Grows each time the partition is positioned, so that older requests are stale.
    seek_epoch: u64,
    /// Leader epoch of the outstanding offset request, if there is one.
    asked: Option<i32>,
    not_before: Option<Instant>,
}

impl FetchPosition {
    pub(crate) fn new(state: FetchState, generation: u64) -> Self {
        Self { state, seek_epoch: generation, asked: None, not_before: None }
    }

    pub(crate) fn state(&self) -> FetchState {
        self.state
    }

    pub(crate) fn seek_epoch(&self) -> u64 {
        self.seek_epoch
    }

    /// Enters another state of the same positioning.
    pub(crate) fn enter(&mut self, state: FetchState) {
        *self = Self::new(state, self.seek_epoch);
    }

    /// Returns true if the state needs an offset request that can be sent now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let open = matches!(
            self.state,
            FetchState::Initializing | FetchState::AwaitReset(_) | FetchState::AwaitValidation { .. }
        );
        open && self.asked.is_none() && self.not_before.is_none_or(|at| at <= now)
    }

    /// Returns the time of the next attempt at the offset request or the fetch, if it has to wait.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.asked.is_none() && self.state != FetchState::Stopped)
    }

    /// Marks the offset request as sent to a leader of that epoch.
    pub(crate) fn mark_asked(&mut self, leader_epoch: i32) {
        (self.asked, self.not_before) = (Some(leader_epoch), None);
    }

    /// Handles a leader of that epoch. A request to another leader about its log is dropped and
    /// sent again.
    pub(crate) fn leader_changed(&mut self, epoch: i32) {
        let of_a_log = matches!(self.state, FetchState::AwaitReset(_) | FetchState::AwaitValidation { .. });
        self.asked = self.asked.filter(|asked| !of_a_log || *asked == epoch);
    }

    /// Delays the next attempt after the request (or the fetch) failed.
    pub(crate) fn retry_at(&mut self, at: Instant) {
        (self.asked, self.not_before) = (None, Some(at));
    }

    /// Ends the wait, because a change may help.
    pub(crate) fn retry_now(&mut self) {
        self.not_before = None;
    }

    /// Returns the offset to fetch from, if the partition is fetched and need not wait.
    pub(crate) fn fetch_offset(&self, now: Instant) -> Option<i64> {
        match self.state {
            FetchState::Fetching { offset, .. } if self.not_before.is_none_or(|at| at <= now) => Some(offset),
            _ => None,
        }
    }

    /// Returns true if a response belongs to the outstanding request: the partition was not
    /// positioned again since, and no other leader was asked.
    pub(crate) fn awaits(&self, generation: u64, leader_epoch: i32) -> bool {
        self.asked == Some(leader_epoch) && self.seek_epoch == generation
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::subscription::fetch_position::*;

    #[test]
    fn asks_once_and_again_after_backoff() {
        let now = Instant::now();
        let mut position = FetchPosition::new(FetchState::Initializing, 4);
        assert!(position.is_due(now) && position.fetch_offset(now).is_none());
        position.mark_asked(2);
        assert!(!position.is_due(now) && position.awaits(4, 2) && !position.awaits(3, 2) && !position.awaits(4, 1));
        position.leader_changed(3);
        assert!(position.awaits(4, 2), "committed offsets do not depend on a leader");
        let later = now + Duration::from_secs(1);
        position.retry_at(later);
        assert!(!position.is_due(now) && position.is_due(later));
        assert_eq!(position.not_before(), Some(later));
        position.retry_now();
        assert!(position.is_due(now));
        position.enter(FetchState::Fetching { offset: 7, epoch: -1 });
        assert_eq!((position.fetch_offset(now), position.seek_epoch()), (Some(7), 4));
        assert!(!position.is_due(now));
        position.retry_at(later);
        assert_eq!((position.fetch_offset(now), position.fetch_offset(later)), (None, Some(7)));
    }

    #[test]
    fn new_leader_causes_repeated_offset_request() {
        let now = Instant::now();
        for state in [FetchState::AwaitReset(ResetTarget::Latest), FetchState::AwaitValidation { offset: 5, epoch: 1 }]
        {
            let mut position = FetchPosition::new(state, 4);
            position.mark_asked(2);
            position.leader_changed(2);
            assert!(!position.is_due(now) && position.awaits(4, 2));
            position.leader_changed(3);
            assert!(position.is_due(now) && !position.awaits(4, 2));
            position.mark_asked(3);
            assert!(!position.awaits(4, 2) && position.awaits(4, 3));
        }
    }

    #[test]
    fn committed_offset_with_epoch_is_validated_first() {
        assert_eq!(FetchState::resume(5, Some(2)), FetchState::AwaitValidation { offset: 5, epoch: 2 });
        assert_eq!(FetchState::resume(5, None), FetchState::Fetching { offset: 5, epoch: -1 });
        assert_eq!(FetchState::resume(5, Some(-1)), FetchState::Fetching { offset: 5, epoch: -1 });
    }

    #[test]
    fn epoch_end_offset_reveals_truncation() {
        assert_eq!(LogValidation::of(10, 3, 10), LogValidation::Valid);
        assert_eq!(LogValidation::of(10, 3, 12), LogValidation::Valid);
        assert_eq!(LogValidation::of(10, 2, 8), LogValidation::Truncated { at: 8, epoch: 2 });
        assert_eq!(LogValidation::of(10, -1, -1), LogValidation::Undefined);
    }
}
