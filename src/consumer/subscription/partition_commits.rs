//! The group's committed offset of a partition, as far as it is known.
//!
//! Sans-IO.

/// The committed offset of one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionCommits {
    /// Last known committed offset.
    offset: Option<i64>,
    certainty: CommitCertainty,
    /// The user's last commit since the partition was positioned; auto-commits do not go below it.
    by_user: Option<i64>,
}

/// Certainty of the group's committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CommitCertainty {
    #[default]
    Certain,
    /// A commit of another offset is outstanding.
    InFlight,
    /// An earlier commit got no response, and may have succeeded.
    Unknown,
}

impl PartitionCommits {
    /// Returns the last known committed offset.
    pub(crate) fn offset(&self) -> Option<i64> {
        self.offset
    }

    /// Records the committed offset that the group returned; `None` if it has none.
    pub(crate) fn fetched(&mut self, offset: Option<i64>) {
        self.offset = offset;
    }

    /// Forgets the committed offset, because it belongs to a deleted topic.
    pub(crate) fn topic_replaced(&mut self) {
        self.offset = None;
    }

    /// Lets auto-commits go below the user's last commit, because the partition was positioned
    /// again.
    pub(crate) fn repositioned(&mut self) {
        self.by_user = None;
    }

    /// Records that a commit was sent.
    pub(crate) fn sent(&mut self) {
        self.certainty = match self.certainty {
            CommitCertainty::Certain => CommitCertainty::InFlight,
            CommitCertainty::InFlight | CommitCertainty::Unknown => CommitCertainty::Unknown,
        };
    }

    /// Records that the commit was refused, so that the offset is the one before.
    pub(crate) fn refused(&mut self) {
        if self.certainty == CommitCertainty::InFlight {
            self.certainty = CommitCertainty::Certain;
        }
    }

    /// Records that the group has that offset now.
    pub(crate) fn committed(&mut self, offset: i64, by_user: bool) {
        (self.offset, self.certainty) = (Some(offset), CommitCertainty::Certain);
        if by_user {
            self.by_user = Some(offset);
        }
    }

    /// Returns true if the user has committed that much since the partition was positioned.
    pub(crate) fn covers_by_user(&self, offset: i64) -> bool {
        self.by_user.is_some_and(|by_user| by_user >= offset)
    }

    /// Returns true if the group is known to have that offset.
    pub(crate) fn is_committed(&self, offset: i64) -> bool {
        self.offset == Some(offset) && self.certainty == CommitCertainty::Certain
    }
}
