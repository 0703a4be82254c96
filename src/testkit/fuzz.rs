//! Fuzz targets for the testkit's decoders.

use bytes::{Bytes, BytesMut};

use super::api::{SERVED, decode_call, decode_head};
use crate::wire::{
    message::{encode_body, encode_request_header},
    messages,
    protocol::Request,
};

/// A request frame, as a broker receives it.
pub(crate) fn request(input: &[u8]) {
    let mut frame = Bytes::copy_from_slice(input);
    if let Ok(head) = decode_head(&mut frame) {
        let _ = decode_call(&head, frame);
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds_of::<messages::ProduceRequest>();
    seeds.extend(seeds_of::<messages::FetchRequest>());
    seeds.extend(seeds_of::<messages::MetadataRequest>());
    seeds.extend(seeds_of::<messages::JoinGroupRequest>());
    seeds.extend(seeds_of::<messages::SyncGroupRequest>());
    seeds.extend(seeds_of::<messages::OffsetCommitRequest>());
    seeds.extend(seeds_of::<messages::OffsetFetchRequest>());
    seeds.extend(seeds_of::<messages::ListOffsetsRequest>());
    seeds.extend(seeds_of::<messages::CreateTopicsRequest>());
    // For the others the fuzzer has to discover the form of a body by itself.
    for served in &SERVED {
        let mut out = BytesMut::new();
        if encode_request_header(&mut out, served.key, 0, 7, "c").is_ok() {
            seeds.push(out.to_vec());
        }
    }
    seeds
}

/// Returns an empty request in every version.
fn seeds_of<R: Request + Default>() -> Vec<Vec<u8>> {
    let (min, max) = R::VERSIONS;
    let seed = |version| {
        let mut out = BytesMut::new();
        encode_request_header(&mut out, R::API, version, 7, "c").ok()?;
        encode_body(&mut out, &R::default(), version).ok()?;
        Some(out.to_vec())
    };
    (min..=max).filter_map(seed).collect()
}
