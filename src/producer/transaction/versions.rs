//! The versions of requests that belong to each protocol of transactions.
//!
//! A broker reads the protocol from the version of Produce, TxnOffsetCommit and EndTxn. A request
//! of the second protocol must never fall back to an older version, because the broker would then
//! expect that the partition was added beforehand.
//!
//! Sans-IO.

use super::{protocol::Protocol, request::Request};
use crate::cluster::VersionBounds;

/// Returns the versions in which a request may be sent, of those that the client has
/// (InitProducerId 6 and AddPartitionsToTxn 4 are not among them). A producer id can only be sent
/// back for a higher epoch from InitProducerId 3 on (KIP-360), and the member of a group only
/// from TxnOffsetCommit 3 on (KIP-447).
pub(crate) fn versions(protocol: Protocol, request: &Request) -> VersionBounds {
    match (request, protocol) {
        (Request::InitProducerId(Some(_)), _) => VersionBounds::at_least(3),
        (Request::InitProducerId(None) | Request::AddPartitions(..) | Request::AddOffsets(..), _) => VersionBounds::ANY,
        (Request::TxnOffsetCommit(_, group, _), Protocol::V1) if group.generation() >= 0 => {
            VersionBounds { min: 3, max: 4 }
        }
        (Request::TxnOffsetCommit(..), Protocol::V1) => VersionBounds::at_most(4),
        (Request::TxnOffsetCommit(..), Protocol::V2) => VersionBounds::at_least(5),
        (Request::EndTxn { .. }, Protocol::V1) => VersionBounds::at_most(4),
        (Request::EndTxn { .. }, Protocol::V2) => VersionBounds::exactly(5),
    }
}

/// Returns the versions in which batches of a transaction may be sent.
pub(crate) fn produce_versions(protocol: Protocol) -> VersionBounds {
    match protocol {
        Protocol::V1 => VersionBounds { min: 3, max: 11 },
        Protocol::V2 => VersionBounds::at_least(12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{producer::idempotence::ProducerId, record::GroupMetadata};

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
            assert!(versions(Protocol::V1, &request).max < versions(Protocol::V2, &request).min, "{request:?}");
        }
        assert!(produce_versions(Protocol::V1).max < produce_versions(Protocol::V2).min);
        assert_eq!(versions(Protocol::V1, &Request::InitProducerId(Some(producer))).min, 3);
        assert_eq!(versions(Protocol::V1, &Request::TxnOffsetCommit(producer, member, Vec::new())).min, 3);
    }
}
