//! Where a partition is read from, and how that is found out.
//!
//! ```text
//!   assigned by the group ──► Committed ──(nothing committed)──► Reset ──┐
//!                                 │                                      │
//!   assigned or sought ───────────┼──(an offset)──► Validate ◄─(election)┤
//!                                 │                    │        │        │
//!                                 └────────────────────┴──► Fetch ◄──────┘
//!                                                                │
//!   damage, out of range, no policy ──────────────────────► Stopped, until a seek
//! ```

use std::time::{Duration, Instant};

use super::settings::OffsetReset;
use crate::record::Offset;

/// The offset to find out for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    Latest,
    /// The first record that is not older than this, counted back from when it is asked for.
    Since(Duration),
    /// The first record that is not older than these milliseconds since the Unix epoch.
    At(i64),
}

impl Start {
    /// Where the policy starts; `None` where it says that there is no such place.
    pub(super) fn of(policy: OffsetReset) -> Option<Self> {
        match policy {
            OffsetReset::Earliest => Some(Self::Earliest),
            OffsetReset::Latest => Some(Self::Latest),
            OffsetReset::ByDuration(duration) => Some(Self::Since(duration)),
            OffsetReset::None => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// What the group has committed is to be asked for.
    Committed,
    /// An offset is to be asked for.
    Reset(Start),
    /// Whether the log still has what was read up to this offset is to be asked for (KIP-320).
    Validate { offset: i64, epoch: i32 },
    /// Fetched from this offset on; `epoch` is that of the record before it, −1 where not known.
    Fetch { offset: i64, epoch: i32 },
    /// Not fetched until the user seeks, or until the reader has come to where it broke.
    Stopped,
}

impl State {
    /// Where to begin when the user says it.
    pub(super) fn at(offset: Offset) -> Self {
        match offset {
            Offset::Beginning => Self::Reset(Start::Earliest),
            Offset::End => Self::Reset(Start::Latest),
            Offset::At(offset) => Self::Fetch { offset, epoch: -1 },
        }
    }

    /// Where to begin at an offset that came with the epoch of the record before it.
    pub(super) fn resume(offset: i64, epoch: Option<i32>) -> Self {
        match epoch {
            Some(epoch) if epoch >= 0 => Self::Validate { offset, epoch },
            _ => Self::Fetch { offset, epoch: -1 },
        }
    }
}

/// What a broker said of the end of an epoch (OffsetForLeaderEpoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// The log has all that was read.
    Sound,
    /// The log parts from what was read at this offset, where it has this epoch.
    Truncated { at: i64, epoch: i32 },
    /// The log does not know the epoch: where they part cannot be said.
    Undefined,
}

impl Validity {
    pub(super) fn of(offset: i64, end_epoch: i32, end_offset: i64) -> Self {
        if end_epoch < 0 || end_offset < 0 {
            Self::Undefined
        } else if end_offset < offset {
            Self::Truncated { at: end_offset, epoch: end_epoch }
        } else {
            Self::Sound
        }
    }
}

/// A position with the question that is open about it.
#[derive(Debug)]
pub(super) struct Position {
    state: State,
    /// Grows each time the partition is positioned: what was asked before is stale.
    generation: u64,
    /// The question is under way, to a leader of that epoch.
    asked: Option<i32>,
    not_before: Option<Instant>,
}

impl Position {
    pub(super) fn new(state: State, generation: u64) -> Self {
        Self { state, generation, asked: None, not_before: None }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Goes on to another state of the same positioning.
    pub(super) fn enter(&mut self, state: State) {
        *self = Self::new(state, self.generation);
    }

    /// Whether the question that the state is about can be asked now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let open = matches!(self.state, State::Committed | State::Reset(_) | State::Validate { .. });
        open && self.asked.is_none() && self.not_before.is_none_or(|at| at <= now)
    }

    /// When the question, or the next fetch, is to be tried, if that is to be waited for.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.asked.is_none() && self.state != State::Stopped)
    }

    /// The question is under way, and is answered as of that leader epoch.
    pub(super) fn ask(&mut self, leader_epoch: i32) {
        (self.asked, self.not_before) = (Some(leader_epoch), None);
    }

    /// A leader of that epoch leads. What another one is being asked about its log counts no more:
    /// it is asked anew.
    pub(super) fn led_under(&mut self, epoch: i32) {
        let of_a_log = matches!(self.state, State::Reset(_) | State::Validate { .. });
        self.asked = self.asked.filter(|asked| !of_a_log || *asked == epoch);
    }

    /// The question (or the fetch) failed: not again before then.
    pub(super) fn retry_at(&mut self, at: Instant) {
        (self.asked, self.not_before) = (None, Some(at));
    }

    /// Something changed that may help: no need to wait.
    pub(super) fn retry_now(&mut self) {
        self.not_before = None;
    }

    /// Where it is fetched from, if it is and need not wait.
    pub(super) fn fetching(&self, now: Instant) -> Option<i64> {
        match self.state {
            State::Fetch { offset, .. } if self.not_before.is_none_or(|at| at <= now) => Some(offset),
            _ => None,
        }
    }

    /// An answer to this very question is welcome: the partition was not positioned anew since, and
    /// no other leader was asked.
    pub(super) fn awaits(&self, generation: u64, leader_epoch: i32) -> bool {
        self.asked == Some(leader_epoch) && self.generation == generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_asked_once_and_again_after_a_wait() {
        let now = Instant::now();
        let mut position = Position::new(State::Committed, 4);
        assert!(position.is_due(now) && position.fetching(now).is_none());
        position.ask(2);
        assert!(!position.is_due(now) && position.awaits(4, 2) && !position.awaits(3, 2) && !position.awaits(4, 1));
        position.led_under(3);
        assert!(position.awaits(4, 2), "what a group has committed hangs on no leader");
        let later = now + Duration::from_secs(1);
        position.retry_at(later);
        assert!(!position.is_due(now) && position.is_due(later));
        assert_eq!(position.not_before(), Some(later));
        position.retry_now();
        assert!(position.is_due(now));
        position.enter(State::Fetch { offset: 7, epoch: -1 });
        assert_eq!((position.fetching(now), position.generation()), (Some(7), 4));
        assert!(!position.is_due(now));
        position.retry_at(later);
        assert_eq!((position.fetching(now), position.fetching(later)), (None, Some(7)));
    }

    #[test]
    fn a_question_about_a_log_is_asked_anew_of_the_next_leader() {
        let now = Instant::now();
        for state in [State::Reset(Start::Latest), State::Validate { offset: 5, epoch: 1 }] {
            let mut position = Position::new(state, 4);
            position.ask(2);
            position.led_under(2);
            assert!(!position.is_due(now) && position.awaits(4, 2));
            position.led_under(3);
            assert!(position.is_due(now) && !position.awaits(4, 2));
            position.ask(3);
            assert!(!position.awaits(4, 2) && position.awaits(4, 3));
        }
    }

    #[test]
    fn what_was_committed_with_an_epoch_is_validated_first() {
        assert_eq!(State::resume(5, Some(2)), State::Validate { offset: 5, epoch: 2 });
        assert_eq!(State::resume(5, None), State::Fetch { offset: 5, epoch: -1 });
        assert_eq!(State::resume(5, Some(-1)), State::Fetch { offset: 5, epoch: -1 });
    }

    #[test]
    fn truncation_is_told_from_the_end_of_the_epoch() {
        assert_eq!(Validity::of(10, 3, 10), Validity::Sound);
        assert_eq!(Validity::of(10, 3, 12), Validity::Sound);
        assert_eq!(Validity::of(10, 2, 8), Validity::Truncated { at: 8, epoch: 2 });
        assert_eq!(Validity::of(10, -1, -1), Validity::Undefined);
    }
}
