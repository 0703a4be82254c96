//! Messages through `kafka-protocol`: headers, versions, and the check that no length reserves more than a frame holds.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::ApiKey as Key,
    protocol::{Decodable, Message, Request},
};

use super::{
    ApiKey,
    fetch::FETCH_VERSIONS,
    produce::PRODUCE_VERSIONS,
    read::Reader,
    shape::Shape,
    write::{put_no_tags, put_string},
};
use crate::error::{Error, ErrorCode, ErrorKind, Result};

/// The versions of a request that this client speaks: what `kafka-protocol` (or, for Produce and Fetch, `wire`) can write.
/// None for requests that are not a client's.
pub(crate) fn client_versions(key: ApiKey) -> Option<(i16, i16)> {
    match key {
        ApiKey::Produce => return Some(PRODUCE_VERSIONS),
        ApiKey::Fetch => return Some(FETCH_VERSIONS),
        _ => Shape::of(key)?,
    };
    let known = Key::try_from(key.code()).ok()?.valid_versions();
    let max = match key {
        // From version 4 on brokers speak it among themselves (KIP-890).
        ApiKey::AddPartitionsToTxn => 3,
        // No release of Kafka has made version 6 stable (KIP-939).
        ApiKey::InitProducerId => 5,
        // Version 10 names topics by their ids; `kafka-protocol` reads its answers but cannot write its requests.
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => 9,
        _ => known.max,
    };
    Some((known.min, max.min(known.max)))
}

fn known(key: ApiKey) -> Result<Key> {
    Key::try_from(key.code())
        .map_err(|()| Error::new(ErrorKind::Internal, format!("{key} is not a request that can be sent")))
}

/// Appends the request header (v0, v1 or v2 as `key` and `version` ask for) — without the frame's length.
///
/// # Errors
/// `InvalidArgument` for a `client.id` of more than 32,767 bytes; `Internal` for a key that nothing here can write.
pub(crate) fn encode_request_header(
    out: &mut BytesMut,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<()> {
    let header_version = known(key)?.request_header_version(version);
    out.put_i16(key.code());
    out.put_i16(version);
    out.put_i32(correlation_id);
    if header_version >= 1 {
        // Not compact even in a flexible header, so that a broker can read it whatever the version.
        put_string(out, Some(client_id), false).map_err(|error| error.context("client.id"))?;
    }
    put_no_tags(out, header_version >= 2);
    Ok(())
}

/// Appends the body of a request.
///
/// # Errors
/// `UnsupportedVersion` when the request says something that this version has no field for; nothing is appended then.
pub(crate) fn encode_request<R: Request>(out: &mut BytesMut, request: &R, version: i16) -> Result<()> {
    let before = out.len();
    request.encode(out, version).map_err(|cause| {
        out.truncate(before);
        let key = name(R::KEY);
        Error::new(ErrorKind::UnsupportedVersion, format!("{key} version {version} cannot say what is asked: {cause}"))
    })
}

/// Reads the response header off the front of a frame: gives the correlation id and leaves the body.
///
/// # Errors
/// `Protocol` when the frame is too short.
pub(crate) fn decode_response_header(frame: &mut Bytes, key: ApiKey, version: i16) -> Result<i32> {
    let flexible = known(key)?.response_header_version(version) >= 1;
    let mut reader = Reader::new(frame);
    let read = |reader: &mut Reader<'_>| {
        let correlation_id = reader.i32()?;
        reader.skip_tagged(flexible)?;
        Ok((correlation_id, reader.position()))
    };
    let (correlation_id, size) =
        read(&mut reader).map_err(|error: Error| error.context(format_args!("header of the {key} response")))?;
    frame.advance(size);
    Ok(correlation_id)
}

/// Reads the body of a response, having first walked its shape so that no array length can reserve more than the frame
/// holds. Bytes left over behind the body are an error.
///
/// A broker that does not know the version of an ApiVersions request answers in version 0 with UNSUPPORTED_VERSION
/// (KIP-511): that is read as such.
///
/// # Errors
/// `Protocol` for bytes that are not such a response; `Internal` for a version or response that is not known here.
pub(crate) fn decode_response<R: Request>(mut body: Bytes, mut version: i16) -> Result<R::Response> {
    let key = name(R::KEY);
    let Some(shape) = ApiKey::from_code(R::KEY).and_then(Shape::of) else {
        return Err(Error::new(ErrorKind::Internal, format!("the shape of the {key} response is not known")));
    };
    let known = R::Response::VERSIONS;
    if !(known.min..=known.max).contains(&version) {
        return Err(Error::new(ErrorKind::Internal, format!("{key} version {version} cannot be read here")));
    }
    if R::KEY == ApiKey::ApiVersions.code() && body.starts_with(&ErrorCode::UNSUPPORTED_VERSION.code().to_be_bytes()) {
        version = 0;
    }
    let context = format_args!("{key} version {version} response");
    shape.check(&body, version).map_err(|error| error.context(context))?;
    let response = R::Response::decode(&mut body, version)
        .map_err(|cause| Error::new(ErrorKind::Protocol, format!("{context}: {cause}")))?;
    if body.is_empty() {
        return Ok(response);
    }
    Err(Error::new(ErrorKind::Protocol, format!("{context}: {} bytes left over", body.len())))
}

fn name(key: i16) -> String {
    ApiKey::from_code(key).map_or_else(|| format!("request {key}"), |key| key.to_string())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{ApiVersionsRequest, MetadataRequest, RequestHeader, ResponseHeader},
        protocol::{Encodable, StrBytes, encode_request_header_into_buffer},
    };

    use super::*;

    #[test]
    fn the_first_request_is_the_bytes_that_kafka_expects() {
        let mut out = BytesMut::new();
        encode_request_header(&mut out, ApiKey::ApiVersions, 3, 7, "cli").unwrap();
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("x"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        encode_request(&mut out, &request, 3).unwrap();
        let golden = [0, 0x12, 0, 3, 0, 0, 0, 7, 0, 3, b'c', b'l', b'i', 0, 2, b'x', 2, b'1', 0];
        assert_eq!(out[..], golden);
    }

    #[test]
    fn headers_are_as_kafka_protocol_has_them() {
        for code in 0..100 {
            let Some((key, (min, max))) =
                ApiKey::from_code(code).and_then(|key| client_versions(key).map(|versions| (key, versions)))
            else {
                continue;
            };
            for version in min..=max {
                let mut out = BytesMut::new();
                encode_request_header(&mut out, key, version, 1 << 20, "me").unwrap();
                let header = RequestHeader::default()
                    .with_request_api_key(code)
                    .with_request_api_version(version)
                    .with_correlation_id(1 << 20)
                    .with_client_id(Some(StrBytes::from_static_str("me")));
                let mut theirs = BytesMut::new();
                encode_request_header_into_buffer(&mut theirs, &header).unwrap();
                assert_eq!(out, theirs, "{key} {version}");

                let mut frame = BytesMut::new();
                let header_version = known(key).unwrap().response_header_version(version);
                let tag = if header_version >= 1 { vec![(5, Bytes::from_static(b"tag"))] } else { vec![] };
                ResponseHeader::default()
                    .with_correlation_id(-4)
                    .with_unknown_tagged_fields(tag.into_iter().collect())
                    .encode(&mut frame, header_version)
                    .unwrap();
                frame.put_slice(b"body");
                let mut frame = frame.freeze();
                assert_eq!(decode_response_header(&mut frame, key, version).unwrap(), -4);
                assert_eq!(frame, "body");
            }
        }
        let mut frame = Bytes::from_static(&[0, 0, 0, 1]);
        assert_eq!(decode_response_header(&mut frame.clone(), ApiKey::ApiVersions, 3).unwrap(), 1, "always v0");
        let error = decode_response_header(&mut frame, ApiKey::Metadata, 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert_eq!(frame.len(), 4, "left as it was");
    }

    #[test]
    fn what_cannot_be_said_is_an_error_and_leaves_nothing_behind() {
        let mut out = BytesMut::from(&b"before"[..]);
        let request = MetadataRequest::default().with_allow_auto_topic_creation(false);
        let error = encode_request(&mut out, &request, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().starts_with("Metadata version 1 "), "{error}");
        assert_eq!(out, "before");

        let error = encode_request_header(&mut out, ApiKey::Metadata, 9, 0, &"x".repeat(40_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn versions_are_a_clients() {
        assert_eq!(client_versions(ApiKey::Produce), Some(PRODUCE_VERSIONS));
        assert_eq!(client_versions(ApiKey::Metadata), Some((0, 13)));
        assert_eq!(client_versions(ApiKey::AddPartitionsToTxn), Some((0, 3)));
        assert_eq!(client_versions(ApiKey::InitProducerId), Some((0, 5)));
        assert_eq!(client_versions(ApiKey::LeaderAndIsr), None);
        assert_eq!(client_versions(ApiKey::StreamsGroupHeartbeat), None);
    }
}
