//! The two protocols of transactions, and the versions of requests that belong to each.
//!
//! A broker reads the protocol from the version of Produce, TxnOffsetCommit and EndTxn. A request of
//! the second protocol must never fall back to an older version, because the broker would then
//! expect that the partition was added beforehand.
//!
//! Sans-IO.

use super::answers::TransactionApi;
use crate::cluster::VersionBounds;

/// The feature whose finalized level decides on the protocol (KIP-584, KIP-890).
pub(crate) const FEATURE: &str = "transaction.version";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The producer adds partitions and groups to the transaction before it writes to them.
    V1,
    /// Brokers add them with the first write, and each EndTxn raises the epoch (KIP-890).
    V2,
}

impl Protocol {
    /// Returns the protocol for a level of [`FEATURE`]. Brokers that do not name the feature use the
    /// first, also those of Kafka 4.
    pub(crate) fn of(level: Option<i16>) -> Self {
        if level.is_some_and(|level| level >= 2) { Self::V2 } else { Self::V1 }
    }

    /// Returns the versions in which a request may be sent to a coordinator, of those that the client
    /// has (InitProducerId 6 and AddPartitionsToTxn 4 are not among them). A producer id can only
    /// be sent back for a higher epoch from InitProducerId 3 on (KIP-360).
    pub(crate) fn versions(self, api: TransactionApi, raises_epoch: bool) -> VersionBounds {
        match (api, self) {
            (TransactionApi::InitProducerId, _) if raises_epoch => VersionBounds::at_least(3),
            (TransactionApi::InitProducerId, _) => VersionBounds::ANY,
            (TransactionApi::AddPartitions | TransactionApi::AddOffsets, _) => VersionBounds::ANY,
            (TransactionApi::TxnOffsetCommit, Self::V1) => VersionBounds::at_most(4),
            (TransactionApi::TxnOffsetCommit, Self::V2) => VersionBounds::at_least(5),
            (TransactionApi::EndTxnCommit | TransactionApi::EndTxnAbort, Self::V1) => VersionBounds::at_most(4),
            (TransactionApi::EndTxnCommit | TransactionApi::EndTxnAbort, Self::V2) => VersionBounds::exactly(5),
            (TransactionApi::FindTransactionCoordinator | TransactionApi::FindGroupCoordinator, _) => {
                VersionBounds::ANY
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_below_two_means_first_protocol() {
        for (level, protocol) in
            [(None, Protocol::V1), (Some(0), Protocol::V1), (Some(1), Protocol::V1), (Some(2), Protocol::V2)]
        {
            assert_eq!(Protocol::of(level), protocol, "{level:?}");
        }
    }

    #[test]
    fn protocols_never_share_version_that_decides() {
        for api in [TransactionApi::TxnOffsetCommit, TransactionApi::EndTxnCommit, TransactionApi::EndTxnAbort] {
            assert!(Protocol::V1.versions(api, false).max < Protocol::V2.versions(api, false).min, "{api:?}");
        }
        assert_eq!(Protocol::V1.versions(TransactionApi::InitProducerId, true).min, 3);
    }
}
