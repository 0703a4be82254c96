use crate::wire::ApiKey;

/// How long the broker asks this client to be silent (KIP-219), read off the front of a response's body.
///
/// Nearly every response starts with `throttle_time_ms`. The versions below are the first ones after which the broker
/// relies on the client for its part of the waiting; with older ones it has waited itself before it answered. Produce has
/// the field at its end, so it is read with the rest of that response; ApiVersions, too, and it is only asked at connect.
pub(super) fn throttle_time_ms(key: ApiKey, version: i16, body: &[u8]) -> i32 {
    if first_version(key).is_none_or(|first| version < first) {
        return 0;
    }
    body.first_chunk().map_or(0, |field| i32::from_be_bytes(*field).max(0))
}

fn first_version(key: ApiKey) -> Option<i16> {
    Some(match key {
        ApiKey::Fetch => 8,
        ApiKey::Metadata => 6,
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => 4,
        ApiKey::ListOffsets | ApiKey::JoinGroup | ApiKey::CreateTopics => 3,
        ApiKey::FindCoordinator
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteTopics
        | ApiKey::OffsetForLeaderEpoch
        | ApiKey::DescribeConfigs => 2,
        ApiKey::DeleteRecords
        | ApiKey::InitProducerId
        | ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::TxnOffsetCommit
        | ApiKey::DescribeAcls
        | ApiKey::CreateAcls
        | ApiKey::DeleteAcls
        | ApiKey::AlterConfigs
        | ApiKey::AlterReplicaLogDirs
        | ApiKey::DescribeLogDirs
        | ApiKey::CreatePartitions
        | ApiKey::DeleteGroups => 1,
        ApiKey::ElectLeaders
        | ApiKey::IncrementalAlterConfigs
        | ApiKey::AlterPartitionReassignments
        | ApiKey::ListPartitionReassignments
        | ApiKey::DescribeClientQuotas
        | ApiKey::AlterClientQuotas
        | ApiKey::DescribeUserScramCredentials
        | ApiKey::AlterUserScramCredentials
        | ApiKey::UpdateFeatures
        | ApiKey::DescribeCluster
        | ApiKey::DescribeProducers
        | ApiKey::UnregisterBroker
        | ApiKey::DescribeTransactions
        | ApiKey::ListTransactions
        | ApiKey::ConsumerGroupHeartbeat
        | ApiKey::ConsumerGroupDescribe
        | ApiKey::GetTelemetrySubscriptions
        | ApiKey::PushTelemetry
        | ApiKey::ListConfigResources
        | ApiKey::DescribeTopicPartitions
        | ApiKey::ShareGroupHeartbeat
        | ApiKey::ShareGroupDescribe
        | ApiKey::ShareFetch
        | ApiKey::ShareAcknowledge => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::*,
        protocol::{Encodable, Message, Request},
    };

    use super::*;
    use crate::wire::ApiKey;

    macro_rules! start_with_the_throttle_time {
        ($($request:ident $response:ident),*) => {$(
            let key = ApiKey::from_code(<$request as Request>::KEY).unwrap();
            let first = first_version(key).unwrap();
            for version in first..=$response::VERSIONS.max {
                let response = $response::default().with_throttle_time_ms(1234);
                let mut body = BytesMut::new();
                if response.encode(&mut body, version).is_err() { continue }
                assert_eq!(throttle_time_ms(key, version, &body), 1234, "{key} v{version}");
            }
            assert_eq!(throttle_time_ms(key, first - 1, &[0, 0, 0, 9]), 0, "{key}");
            assert_eq!(throttle_time_ms(key, first, &[0, 0]), 0, "{key}, cut off");
        )*};
    }

    #[test]
    fn responses_start_with_the_throttle_time_from_the_listed_version_on() {
        start_with_the_throttle_time!(
            FetchRequest FetchResponse, MetadataRequest MetadataResponse, OffsetCommitRequest OffsetCommitResponse,
            OffsetFetchRequest OffsetFetchResponse, ListOffsetsRequest ListOffsetsResponse,
            JoinGroupRequest JoinGroupResponse, CreateTopicsRequest CreateTopicsResponse,
            FindCoordinatorRequest FindCoordinatorResponse, HeartbeatRequest HeartbeatResponse,
            LeaveGroupRequest LeaveGroupResponse, SyncGroupRequest SyncGroupResponse,
            DescribeGroupsRequest DescribeGroupsResponse, ListGroupsRequest ListGroupsResponse,
            DeleteTopicsRequest DeleteTopicsResponse, OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
            DescribeConfigsRequest DescribeConfigsResponse, DeleteRecordsRequest DeleteRecordsResponse,
            InitProducerIdRequest InitProducerIdResponse, AddPartitionsToTxnRequest AddPartitionsToTxnResponse,
            AddOffsetsToTxnRequest AddOffsetsToTxnResponse, EndTxnRequest EndTxnResponse,
            TxnOffsetCommitRequest TxnOffsetCommitResponse, DescribeAclsRequest DescribeAclsResponse,
            CreateAclsRequest CreateAclsResponse, DeleteAclsRequest DeleteAclsResponse,
            AlterConfigsRequest AlterConfigsResponse, AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse,
            DescribeLogDirsRequest DescribeLogDirsResponse, CreatePartitionsRequest CreatePartitionsResponse,
            DeleteGroupsRequest DeleteGroupsResponse, ElectLeadersRequest ElectLeadersResponse,
            IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
            AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
            ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
            DescribeClientQuotasRequest DescribeClientQuotasResponse,
            AlterClientQuotasRequest AlterClientQuotasResponse,
            DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse,
            AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse,
            UpdateFeaturesRequest UpdateFeaturesResponse, DescribeClusterRequest DescribeClusterResponse,
            DescribeProducersRequest DescribeProducersResponse, UnregisterBrokerRequest UnregisterBrokerResponse,
            DescribeTransactionsRequest DescribeTransactionsResponse, ListTransactionsRequest ListTransactionsResponse,
            ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
            ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
            GetTelemetrySubscriptionsRequest GetTelemetrySubscriptionsResponse,
            PushTelemetryRequest PushTelemetryResponse, DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
            ShareGroupHeartbeatRequest ShareGroupHeartbeatResponse,
            ShareGroupDescribeRequest ShareGroupDescribeResponse, ShareFetchRequest ShareFetchResponse,
            ShareAcknowledgeRequest ShareAcknowledgeResponse
        );
    }
}
