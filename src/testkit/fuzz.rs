//! The decoders of this room, for the fuzzer.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{self, RequestHeader},
    protocol::{Encodable, StrBytes},
};

use super::api::{SERVED, decode_call, decode_head};

/// A request frame, as a broker gets it.
pub(crate) fn request(input: &[u8]) {
    let mut frame = Bytes::copy_from_slice(input);
    if let Ok(head) = decode_head(&mut frame) {
        let _ = decode_call(&head, frame);
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for served in &SERVED {
        let Ok(key) = messages::ApiKey::try_from(served.key.code()) else { continue };
        let versions = key.valid_versions();
        for version in versions.min..=versions.max {
            let mut out = BytesMut::new();
            let header = RequestHeader::default()
                .with_request_api_key(key as i16)
                .with_request_api_version(version)
                .with_correlation_id(7)
                .with_client_id(Some(StrBytes::from_static_str("c")));
            let body = |out: &mut BytesMut| match key {
                messages::ApiKey::Produce => messages::ProduceRequest::default().encode(out, version),
                messages::ApiKey::Fetch => messages::FetchRequest::default().encode(out, version),
                messages::ApiKey::Metadata => messages::MetadataRequest::default().encode(out, version),
                messages::ApiKey::JoinGroup => messages::JoinGroupRequest::default().encode(out, version),
                messages::ApiKey::SyncGroup => messages::SyncGroupRequest::default().encode(out, version),
                messages::ApiKey::OffsetCommit => messages::OffsetCommitRequest::default().encode(out, version),
                messages::ApiKey::OffsetFetch => messages::OffsetFetchRequest::default().encode(out, version),
                messages::ApiKey::ListOffsets => messages::ListOffsetsRequest::default().encode(out, version),
                messages::ApiKey::CreateTopics => messages::CreateTopicsRequest::default().encode(out, version),
                // Of the others the fuzzer has to find out by itself what a body looks like.
                _ => Ok(()),
            };
            if header.encode(&mut out, key.request_header_version(version)).is_ok() && body(&mut out).is_ok() {
                seeds.push(out.to_vec());
            }
        }
    }
    seeds
}
