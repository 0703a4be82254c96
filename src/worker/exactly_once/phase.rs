//! The phases of a worker's transactions.
//!
//! Sans-IO.

/// The phase of the cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No transaction is open.
    Idle,
    /// A producer is made, and takes over the transactional id.
    Preparing,
    Beginning,
    Open,
    /// No more records are begun, except those that lie before records that were begun already.
    Closing,
    /// None of its records runs: the offsets may be collected.
    Complete,
    Committing,
    /// It is being aborted, or was aborted and some of its records still run.
    Aborting,
    /// Its records are about to be read again.
    Rewinding,
    /// The worker ends because of an error.
    Failed,
}
