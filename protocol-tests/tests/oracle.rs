//! Compares the generated messages with those of the crate `kafka-protocol`: three independent
//! encoders (a random body comes straight from Kafka's schema) and two independent decoders have to
//! agree on every byte.

#![cfg(unix)]

#[path = "common/schemas.rs"]
mod schemas;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use generator::random::{Fill, body};
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use ottla::any_message::MESSAGES;
use schemas::jar_is_here;

/// Fills: the smallest and the largest message, some with long arrays, and many with random
/// contents.
fn fills() -> impl Iterator<Item = Fill> {
    let many = (1..=4).map(|depth| Fill::Many { depth, count: 3 });
    let random = (0..24).map(Fill::Seed).chain((0..8).map(Fill::Brief));
    [Fill::Least, Fill::Most].into_iter().chain(many).chain(random)
}

/// A message of `kafka-protocol`.
struct Theirs {
    name: &'static str,
    versions: (i16, i16),
    recode: fn(Bytes, i16) -> Result<Vec<u8>, String>,
    default_body: fn(i16) -> Option<Vec<u8>>,
}

fn theirs<M: Message + Decodable + Encodable + Default>(name: &'static str) -> Theirs {
    let recode = |mut body: Bytes, version: i16| {
        let message = M::decode(&mut body, version).map_err(|error| format!("decoding: {error:#}"))?;
        if !body.is_empty() {
            return Err(format!("{} bytes are left over", body.len()));
        }
        let mut out = BytesMut::new();
        message.encode(&mut out, version).map_err(|error| format!("encoding: {error:#}"))?;
        Ok(out.to_vec())
    };
    let default_body = |version| {
        let mut out = BytesMut::new();
        M::default().encode(&mut out, version).ok().map(|()| out.to_vec())
    };
    Theirs { name, versions: (M::VERSIONS.min, M::VERSIONS.max), recode, default_body }
}

macro_rules! all {
    ($($name:ident),* $(,)?) => { [$(theirs::<kafka_protocol::messages::$name>(stringify!($name))),*] };
}

#[test]
fn ottla_and_kafka_protocol_encode_same_bytes() {
    if !jar_is_here() {
        return;
    }
    let schemas = generator::schemas(generator::VERSION).expect("schemas");
    let theirs = all_of_theirs();
    let by_name: BTreeMap<&str, &Theirs> = theirs.iter().map(|it| (it.name, it)).collect();
    let (mut all, mut pairs, mut bodies, mut defaults) = (0, 0, 0, 0);
    let (mut wrong, mut alone) = (Vec::new(), Vec::new());
    for ours in MESSAGES {
        let (first, last) = ours.versions;
        all += last - first + 1;
        let Some(theirs) = by_name.get(ours.name) else {
            let known = kafka_protocol::messages::ApiKey::try_from(ours.api.code()).is_ok();
            assert!(!known, "kafka-protocol knows {}, which the list here lacks", ours.name);
            alone.push(ours.name);
            continue;
        };
        for version in first.max(theirs.versions.0)..=last.min(theirs.versions.1) {
            pairs += 1;
            if let Some(expected) = (theirs.default_body)(version) {
                defaults += 1;
                assert_eq!(
                    ours.default_body(version).ok(),
                    Some(expected),
                    "{ours:?} version {version}, with defaults"
                );
            }
            for fill in fills() {
                bodies += 1;
                let body = Bytes::from(body(&schemas[ours.name], version, fill));
                let place = format!("{} version {version}, {fill:?}", ours.name);
                match ours.recode(body.clone(), version) {
                    Ok(recoded) if recoded.bytes == body => {}
                    Ok(recoded) => wrong.push(format!("{place}: Ottla writes other bytes of {}", recoded.text)),
                    Err(error) => wrong.push(format!("{place}: Ottla: {error}")),
                }
                match (theirs.recode)(body.clone(), version) {
                    Ok(bytes) if bytes == body => {}
                    Ok(_) => wrong.push(format!("{place}: kafka-protocol writes other bytes")),
                    Err(problem) => wrong.push(format!("{place}: kafka-protocol: {problem}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {bodies} bodies differ:\n{}", wrong.len(), wrong.join("\n"));
    println!("{pairs} of {all} pairs of a message and a version, {bodies} bodies and {defaults} with defaults");
    println!("only Ottla knows {alone:?}");
    assert!(pairs > 500 && defaults > 450, "{pairs}, {defaults}");
}

fn all_of_theirs() -> Vec<Theirs> {
    all![
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
    ]
    .into()
}
