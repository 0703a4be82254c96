//! Bytes are made up from each shape, for every version and with every field filled, and go through `kafka-protocol`'s
//! reader and writer: a shape that differs from its schema anywhere cannot come back as the same bytes.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages as km,
    protocol::{Decodable, Encodable, Message, Request},
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    error::ErrorKind,
    wire::{
        message::{client_versions, decode_response},
        write::{put_length, put_string, put_unsigned},
    },
};

struct Filler {
    version: i16,
    flexible: bool,
    random: StdRng,
}

impl Filler {
    fn fill(shape: &Shape, version: i16, seed: u64) -> Vec<u8> {
        let mut filler = Self { version, flexible: version >= shape.flexible, random: StdRng::seed_from_u64(seed) };
        let mut out = BytesMut::new();
        filler.fields(shape.fields, &mut out);
        out.to_vec()
    }

    fn fields(&mut self, fields: &[Field], out: &mut BytesMut) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.value(&field.kind, out);
        }
        if self.flexible {
            let tagged: Vec<_> = fields.iter().filter(|field| field.tag.is_some() && field.is_in(version)).collect();
            put_unsigned(out, tagged.len() as u32 + 1);
            for field in tagged {
                let mut part = BytesMut::new();
                self.value(&field.kind, &mut part);
                put_unsigned(out, field.tag.unwrap());
                put_unsigned(out, part.len() as u32);
                out.put_slice(&part);
            }
            // One more, which nobody knows.
            put_unsigned(out, 1000);
            put_unsigned(out, 3);
            out.put_slice(b"new");
        }
    }

    fn value(&mut self, kind: &Kind, out: &mut BytesMut) {
        match *kind {
            // A flag or a small number that is not any field's default.
            Kind::Fixed(1) => out.put_u8(1),
            Kind::Fixed(size) => {
                // Never 0 or −1, which stand for "not there" and would not be written as tagged fields.
                out.put_bytes(0x11, size - 1);
                out.put_u8(self.random.random_range(1..100));
            }
            Kind::String => {
                let text = ["ab", "zürich", "x"][self.random.random_range(0..3)];
                put_string(out, Some(text), self.flexible).unwrap();
            }
            Kind::Bytes => {
                let bytes = [7; 200];
                let size = self.random.random_range(1..200);
                put_length(out, size, self.flexible).unwrap();
                out.put_slice(&bytes[..size]);
            }
            Kind::Array(of) => {
                let count = self.random.random_range(1..4);
                put_length(out, count, self.flexible).unwrap();
                for _ in 0..count {
                    self.value(of, out);
                }
            }
            Kind::Struct(fields) => self.fields(fields, out),
            Kind::Optional(fields) => {
                out.put_u8(1);
                self.fields(fields, out);
            }
        }
    }
}

fn check<R: Request>(key: ApiKey)
where
    R::Response: std::fmt::Debug,
{
    assert_eq!(R::KEY, key.code());
    let shape = Shape::of(key).unwrap();
    let versions = R::Response::VERSIONS;
    for version in versions.min..=versions.max {
        let body = Bytes::from(Filler::fill(shape, version, u64::from(version as u16)));
        shape.check(&body, version).unwrap_or_else(|error| panic!("{key} {version}: {error}"));
        let mut rest = body.clone();
        let response =
            R::Response::decode(&mut rest, version).unwrap_or_else(|error| panic!("{key} {version}: {error}"));
        assert!(rest.is_empty(), "{key} {version}: {} bytes left over", rest.len());
        let mut again = BytesMut::new();
        response.encode(&mut again, version).unwrap_or_else(|error| panic!("{key} {version}: {error}"));
        assert_eq!(again, body, "{key} {version}: {response:?}");
        decode_response::<R>(body.clone(), version).unwrap();

        // A body that is cut anywhere, or longer, is refused and never read.
        for cut in 0..body.len() {
            let error = shape.check(&body[..cut], version).expect_err("a cut body");
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(decode_response::<R>(longer.into(), version).unwrap_err().kind(), ErrorKind::Protocol);
    }
}

macro_rules! responses {
    ($($name:ident = $request:ident,)*) => {
        /// Every response that has a shape.
        const KEYS: &[ApiKey] = &[$(ApiKey::$name,)*];

        #[test]
        fn every_shape_is_its_responses() {
            $(check::<km::$request>(ApiKey::$name);)*
        }

        fn decode_any(key: ApiKey, body: Bytes, version: i16) -> bool {
            match key {
                $(ApiKey::$name => decode_response::<km::$request>(body, version).is_ok(),)*
                _ => unreachable!(),
            }
        }
    };
}

responses! {
    ApiVersions = ApiVersionsRequest,
    Metadata = MetadataRequest,
    DescribeCluster = DescribeClusterRequest,
    FindCoordinator = FindCoordinatorRequest,
    DescribeQuorum = DescribeQuorumRequest,
    UpdateFeatures = UpdateFeaturesRequest,
    UnregisterBroker = UnregisterBrokerRequest,
    AddRaftVoter = AddRaftVoterRequest,
    RemoveRaftVoter = RemoveRaftVoterRequest,
    DescribeTopicPartitions = DescribeTopicPartitionsRequest,
    ListOffsets = ListOffsetsRequest,
    OffsetForLeaderEpoch = OffsetForLeaderEpochRequest,
    OffsetCommit = OffsetCommitRequest,
    OffsetFetch = OffsetFetchRequest,
    OffsetDelete = OffsetDeleteRequest,
    DeleteRecords = DeleteRecordsRequest,
    JoinGroup = JoinGroupRequest,
    SyncGroup = SyncGroupRequest,
    Heartbeat = HeartbeatRequest,
    LeaveGroup = LeaveGroupRequest,
    DescribeGroups = DescribeGroupsRequest,
    ListGroups = ListGroupsRequest,
    DeleteGroups = DeleteGroupsRequest,
    ConsumerGroupHeartbeat = ConsumerGroupHeartbeatRequest,
    ConsumerGroupDescribe = ConsumerGroupDescribeRequest,
    InitProducerId = InitProducerIdRequest,
    AddPartitionsToTxn = AddPartitionsToTxnRequest,
    AddOffsetsToTxn = AddOffsetsToTxnRequest,
    EndTxn = EndTxnRequest,
    TxnOffsetCommit = TxnOffsetCommitRequest,
    WriteTxnMarkers = WriteTxnMarkersRequest,
    DescribeProducers = DescribeProducersRequest,
    DescribeTransactions = DescribeTransactionsRequest,
    ListTransactions = ListTransactionsRequest,
    CreateTopics = CreateTopicsRequest,
    DeleteTopics = DeleteTopicsRequest,
    CreatePartitions = CreatePartitionsRequest,
    ElectLeaders = ElectLeadersRequest,
    AlterPartitionReassignments = AlterPartitionReassignmentsRequest,
    ListPartitionReassignments = ListPartitionReassignmentsRequest,
    AlterReplicaLogDirs = AlterReplicaLogDirsRequest,
    DescribeLogDirs = DescribeLogDirsRequest,
    DescribeConfigs = DescribeConfigsRequest,
    AlterConfigs = AlterConfigsRequest,
    IncrementalAlterConfigs = IncrementalAlterConfigsRequest,
    ListConfigResources = ListConfigResourcesRequest,
    DescribeClientQuotas = DescribeClientQuotasRequest,
    AlterClientQuotas = AlterClientQuotasRequest,
    GetTelemetrySubscriptions = GetTelemetrySubscriptionsRequest,
    PushTelemetry = PushTelemetryRequest,
    SaslHandshake = SaslHandshakeRequest,
    SaslAuthenticate = SaslAuthenticateRequest,
    DescribeAcls = DescribeAclsRequest,
    CreateAcls = CreateAclsRequest,
    DeleteAcls = DeleteAclsRequest,
    CreateDelegationToken = CreateDelegationTokenRequest,
    RenewDelegationToken = RenewDelegationTokenRequest,
    ExpireDelegationToken = ExpireDelegationTokenRequest,
    DescribeDelegationToken = DescribeDelegationTokenRequest,
    DescribeUserScramCredentials = DescribeUserScramCredentialsRequest,
    AlterUserScramCredentials = AlterUserScramCredentialsRequest,
    ShareGroupHeartbeat = ShareGroupHeartbeatRequest,
    ShareGroupDescribe = ShareGroupDescribeRequest,
    ShareFetch = ShareFetchRequest,
    ShareAcknowledge = ShareAcknowledgeRequest,
    DescribeShareGroupOffsets = DescribeShareGroupOffsetsRequest,
    AlterShareGroupOffsets = AlterShareGroupOffsetsRequest,
    DeleteShareGroupOffsets = DeleteShareGroupOffsetsRequest,
}

#[test]
fn what_a_client_asks_has_a_shape_and_is_tested() {
    for code in 0..200 {
        let Some(key) = ApiKey::from_code(code) else { continue };
        assert_eq!(Shape::of(key).is_some(), KEYS.contains(&key), "{key}");
        let own = matches!(key, ApiKey::Produce | ApiKey::Fetch);
        assert_eq!(client_versions(key).is_some(), KEYS.contains(&key) || own, "{key}");
    }
    let error = decode_response::<km::FetchRequest>(Bytes::new(), 12).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "no shape: not read without the check");
    let error = decode_response::<km::HeartbeatRequest>(Bytes::new(), 99).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn hostile_lengths_are_refused_before_anything_is_reserved() {
    // Metadata v9: throttle time, then brokers by the billion.
    let compact = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    // Metadata v1: the same with a length of four bytes; and one that is negative.
    let classic = [0x7f, 0xff, 0xff, 0xff, 0, 0];
    let negative = [0xff, 0xff, 0xff, 0xfe, 0, 0];
    for (body, version) in [(&compact[..], 9), (&classic, 1), (&negative, 1)] {
        let error = decode_response::<km::MetadataRequest>(Bytes::copy_from_slice(body), version).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().starts_with(&format!("Metadata version {version} response: brokers: ")), "{error}");
    }
    // ApiVersions v3: the features stand among the tagged fields, where kafka-protocol believes lengths as well.
    let tagged = [0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let error = decode_response::<km::ApiVersionsRequest>(Bytes::copy_from_slice(&tagged), 3).unwrap_err();
    assert!(error.to_string().contains("supported_features"), "{error}");
}

#[test]
fn a_broker_that_does_not_know_the_version_is_understood() {
    // Version 0: error 35, then one key with its versions (KIP-511).
    let body = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3];
    let response = decode_response::<km::ApiVersionsRequest>(Bytes::copy_from_slice(&body), 4).unwrap();
    assert_eq!((response.error_code, response.api_keys[0].max_version), (35, 3));
}

proptest! {
    #[test]
    fn random_bodies_never_panic(
        key in proptest::sample::select(KEYS),
        version in 0i16..13,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        decode_any(key, body.into(), version);
    }

    #[test]
    fn mutated_bodies_never_panic(
        key in proptest::sample::select(KEYS),
        version: proptest::sample::Index,
        seed: u64,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (min, max) = client_versions(key).unwrap();
        let version = min + version.index((max - min + 1) as usize) as i16;
        let mut body = Filler::fill(Shape::of(key).unwrap(), version, seed);
        prop_assert!(decode_any(key, body.clone().into(), version));
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        decode_any(key, body.into(), version);
    }
}
