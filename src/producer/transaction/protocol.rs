//! The two protocols of transactions, and the versions of requests that belong to each.
//!
//! A broker reads the protocol from the version of Produce, TxnOffsetCommit and EndTxn. A request of
//! the second protocol must never fall back to an older version, because the broker would then
//! expect that the partition was added beforehand.
//!
//! Sans-IO.

use super::request::Request;
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

    /// Returns the versions in which a request may be sent, of those that the client has
    /// (InitProducerId 6 and AddPartitionsToTxn 4 are not among them). A producer id can only be sent
    /// back for a higher epoch from InitProducerId 3 on (KIP-360), and the member of a group only
    /// from TxnOffsetCommit 3 on (KIP-447).
    pub(crate) fn versions(self, request: &Request) -> VersionBounds {
        match (request, self) {
            (Request::InitProducerId(Some(_)), _) => VersionBounds::at_least(3),
            (Request::InitProducerId(None) | Request::AddPartitions(..) | Request::AddOffsets(..), _) => {
                VersionBounds::ANY
            }
            (Request::TxnOffsetCommit(_, group, _), Self::V1) if group.generation() >= 0 => {
                VersionBounds { min: 3, max: 4 }
            }
            (Request::TxnOffsetCommit(..), Self::V1) => VersionBounds::at_most(4),
            (Request::TxnOffsetCommit(..), Self::V2) => VersionBounds::at_least(5),
            (Request::EndTxn { .. }, Self::V1) => VersionBounds::at_most(4),
            (Request::EndTxn { .. }, Self::V2) => VersionBounds::exactly(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{producer::idempotence::ProducerId, record::GroupMetadata};

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
        let producer = ProducerId { id: 7, epoch: 1 };
        let group = GroupMetadata::without_member("g");
        let member = group.clone().with_generation("m", 2);
        let decides = [
            Request::TxnOffsetCommit(producer, group, Vec::new()),
            Request::TxnOffsetCommit(producer, member.clone(), Vec::new()),
            Request::EndTxn { producer, commit: true },
            Request::EndTxn { producer, commit: false },
        ];
        for request in decides {
            assert!(Protocol::V1.versions(&request).max < Protocol::V2.versions(&request).min, "{request:?}");
        }
        assert_eq!(Protocol::V1.versions(&Request::InitProducerId(Some(producer))).min, 3);
        assert_eq!(Protocol::V1.versions(&Request::TxnOffsetCommit(producer, member, Vec::new())).min, 3);
    }
}
