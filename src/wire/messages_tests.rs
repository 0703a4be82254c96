//! The generated messages beside `kafka-protocol`'s: two independent writers that have to agree.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage};

use super::{
    decoder::{Decode, Decoder},
    encoder::{Encode, Encoder},
    messages,
    protocol::Message,
};

/// The number of versions of a message that both know and can write with the defaults.
fn agree<Ours, Theirs>(name: &str) -> usize
where
    Ours: Message + Encode + Decode + Default + PartialEq + std::fmt::Debug,
    Theirs: TheirMessage + Encodable + Decodable + Default,
{
    let ((first, last), known) = (Ours::VERSIONS, Theirs::VERSIONS);
    assert!(name.starts_with(&Ours::API.to_string()), "{name}");
    let mut agreed = 0;
    for version in first.max(known.min)..=last.min(known.max) {
        let flexible = version >= Ours::FLEXIBLE;
        let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
        let written = Ours::default().encode(&mut Encoder::new(&mut ours, version, flexible));
        let expected = Theirs::default().encode(&mut theirs, version);
        if expected.is_err() {
            continue;
        }
        assert!(written.is_ok(), "{name} version {version}: {written:?}");
        assert_eq!(ours, theirs, "{name} version {version}");
        let mut decoder = Decoder::new(Bytes::from(theirs), version, flexible);
        let read = Ours::decode(&mut decoder).unwrap_or_else(|error| panic!("{name} version {version}: {error}"));
        decoder.finish().unwrap();
        let mut again = BytesMut::new();
        read.encode(&mut Encoder::new(&mut again, version, flexible)).unwrap();
        assert_eq!(again, ours, "{name} version {version}, read and written again");
        agreed += 1;
    }
    agreed
}

macro_rules! all {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), agree::<messages::$name, kafka_protocol::messages::$name>(stringify!($name)))),*]
    };
}

#[test]
fn defaults_are_written_as_kafka_protocol_does() {
    let agreed = all![
        AddOffsetsToTxnRequest,
        AddOffsetsToTxnResponse,
        AddPartitionsToTxnRequest,
        AddPartitionsToTxnResponse,
        AddRaftVoterRequest,
        AddRaftVoterResponse,
        AlterClientQuotasRequest,
        AlterClientQuotasResponse,
        AlterConfigsRequest,
        AlterConfigsResponse,
        AlterPartitionReassignmentsRequest,
        AlterPartitionReassignmentsResponse,
        AlterReplicaLogDirsRequest,
        AlterReplicaLogDirsResponse,
        AlterShareGroupOffsetsRequest,
        AlterShareGroupOffsetsResponse,
        AlterUserScramCredentialsRequest,
        AlterUserScramCredentialsResponse,
        ApiVersionsRequest,
        ApiVersionsResponse,
        ConsumerGroupDescribeRequest,
        ConsumerGroupDescribeResponse,
        ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatResponse,
        CreateAclsRequest,
        CreateAclsResponse,
        CreateDelegationTokenRequest,
        CreateDelegationTokenResponse,
        CreatePartitionsRequest,
        CreatePartitionsResponse,
        CreateTopicsRequest,
        CreateTopicsResponse,
        DeleteAclsRequest,
        DeleteAclsResponse,
        DeleteGroupsRequest,
        DeleteGroupsResponse,
        DeleteRecordsRequest,
        DeleteRecordsResponse,
        DeleteShareGroupOffsetsRequest,
        DeleteShareGroupOffsetsResponse,
        DeleteTopicsRequest,
        DeleteTopicsResponse,
        DescribeAclsRequest,
        DescribeAclsResponse,
        DescribeClientQuotasRequest,
        DescribeClientQuotasResponse,
        DescribeClusterRequest,
        DescribeClusterResponse,
        DescribeConfigsRequest,
        DescribeConfigsResponse,
        DescribeDelegationTokenRequest,
        DescribeDelegationTokenResponse,
        DescribeGroupsRequest,
        DescribeGroupsResponse,
        DescribeLogDirsRequest,
        DescribeLogDirsResponse,
        DescribeProducersRequest,
        DescribeProducersResponse,
        DescribeQuorumRequest,
        DescribeQuorumResponse,
        DescribeShareGroupOffsetsRequest,
        DescribeShareGroupOffsetsResponse,
        DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse,
        DescribeTransactionsRequest,
        DescribeTransactionsResponse,
        DescribeUserScramCredentialsRequest,
        DescribeUserScramCredentialsResponse,
        ElectLeadersRequest,
        ElectLeadersResponse,
        EndTxnRequest,
        EndTxnResponse,
        ExpireDelegationTokenRequest,
        ExpireDelegationTokenResponse,
        FetchRequest,
        FetchResponse,
        FindCoordinatorRequest,
        FindCoordinatorResponse,
        GetTelemetrySubscriptionsRequest,
        GetTelemetrySubscriptionsResponse,
        HeartbeatRequest,
        HeartbeatResponse,
        IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse,
        InitProducerIdRequest,
        InitProducerIdResponse,
        JoinGroupRequest,
        JoinGroupResponse,
        LeaveGroupRequest,
        LeaveGroupResponse,
        ListConfigResourcesRequest,
        ListConfigResourcesResponse,
        ListGroupsRequest,
        ListGroupsResponse,
        ListOffsetsRequest,
        ListOffsetsResponse,
        ListPartitionReassignmentsRequest,
        ListPartitionReassignmentsResponse,
        ListTransactionsRequest,
        ListTransactionsResponse,
        MetadataRequest,
        MetadataResponse,
        OffsetCommitRequest,
        OffsetCommitResponse,
        OffsetDeleteRequest,
        OffsetDeleteResponse,
        OffsetFetchRequest,
        OffsetFetchResponse,
        OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse,
        ProduceRequest,
        ProduceResponse,
        PushTelemetryRequest,
        PushTelemetryResponse,
        RemoveRaftVoterRequest,
        RemoveRaftVoterResponse,
        RenewDelegationTokenRequest,
        RenewDelegationTokenResponse,
        SaslAuthenticateRequest,
        SaslAuthenticateResponse,
        SaslHandshakeRequest,
        SaslHandshakeResponse,
        ShareAcknowledgeRequest,
        ShareAcknowledgeResponse,
        ShareFetchRequest,
        ShareFetchResponse,
        ShareGroupDescribeRequest,
        ShareGroupDescribeResponse,
        ShareGroupHeartbeatRequest,
        ShareGroupHeartbeatResponse,
        SyncGroupRequest,
        SyncGroupResponse,
        TxnOffsetCommitRequest,
        TxnOffsetCommitResponse,
        UnregisterBrokerRequest,
        UnregisterBrokerResponse,
        UpdateFeaturesRequest,
        UpdateFeaturesResponse,
        WriteTxnMarkersRequest,
        WriteTxnMarkersResponse,
    ];
    let pairs: usize = agreed.iter().map(|(_, versions)| versions).sum();
    println!("{} messages, {pairs} versions", agreed.len());
    assert!(pairs > 450, "{pairs}");
}
