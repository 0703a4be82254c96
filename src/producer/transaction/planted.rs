//! Bugs that a build with `--cfg ottla_planted` can be told to have, each in one decision about
//! transactions. They prove that the checker of histories finds what it is there for
//! (`scripts/planted-bugs`). A build without the flag has none of them.

/// A bug, by its number in `docs/planted-bugs.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A commit without an answer counts as committed.
    LostCommitIsSuccess = 1,
    /// Offsets are sent without the member and its generation.
    MembershipIsLeftOut = 2,
    /// A record that fails does not fail its transaction.
    FailedRecordIsForgotten = 3,
    /// A record that `send` refuses does not fail its transaction.
    RefusedRecordIsForgotten = 4,
    /// A commit does not wait for the results of records.
    CommitOvertakesRecords = 5,
    /// A commit does not wait for the answer to offsets.
    CommitOvertakesOffsets = 6,
    /// An abort does not wait until no batch is in flight.
    AbortOvertakesRecords = 7,
    /// The coordinator is asked to commit a transaction that the program aborts.
    AbortIsCommit = 8,
    /// A refused commit counts as aborted, also after an attempt without an answer.
    UnknownIsAborted = 9,
    /// A dropped transaction is not aborted.
    DroppedTransactionGoesOn = 10,
    /// Each offset is that of the record after the next.
    OffsetsAreAhead = 11,
}

/// Returns true if the environment variable `OTTLA_PLANTED` names this bug.
#[cfg(ottla_planted)]
pub(crate) fn has(bug: Bug) -> bool {
    std::env::var("OTTLA_PLANTED").is_ok_and(|number| number.parse() == Ok(bug as u8))
}

/// Returns false: only a build with `--cfg ottla_planted` has bugs on request.
#[cfg(not(ottla_planted))]
#[inline]
pub(crate) const fn has(_bug: Bug) -> bool {
    false
}
