//! Headers and bodies of requests and responses, around the generated messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    ApiKey,
    decoder::{Decode, Decoder},
    encoder::{Encode, Encoder},
    fetch::FETCH_VERSIONS,
    messages,
    produce::PRODUCE_VERSIONS,
    protocol::{Message, Request},
    read::Reader,
    write::{put_no_tags, put_string},
};
use crate::error::{Error, ErrorCode, ErrorKind, Result};

/// Returns the versions of a request that this client can send, or `None` for requests that clients
/// do not send.
pub(crate) fn client_versions(key: ApiKey) -> Option<(i16, i16)> {
    let (min, max, _) = messages::versions(key)?;
    Some(match key {
        ApiKey::Produce => PRODUCE_VERSIONS,
        ApiKey::Fetch => FETCH_VERSIONS,
        // Versions from 4 on are for requests between brokers (KIP-890).
        ApiKey::AddPartitionsToTxn => (min, 3),
        _ => (min, max),
    })
}

/// Returns true if the request's header ends with tagged fields (version 2 of the header).
///
/// # Errors
/// `Internal` for an API without generated messages.
pub(crate) fn request_header_is_flexible(key: ApiKey, version: i16) -> Result<bool> {
    match messages::versions(key) {
        Some((_, _, flexible)) => Ok(version >= flexible),
        None => Err(Error::new(ErrorKind::Internal, format!("{key} is not a request that can be sent"))),
    }
}

/// Returns true if the response's header ends with tagged fields (version 1 of the header).
/// ApiVersions never has them, because its response has to be readable before the version is
/// negotiated (KIP-511).
///
/// # Errors
/// `Internal` for an API without generated messages.
pub(crate) fn response_header_is_flexible(key: ApiKey, version: i16) -> Result<bool> {
    Ok(request_header_is_flexible(key, version)? && key != ApiKey::ApiVersions)
}

/// Appends the request header, version 1 or 2 as `key` and `version` require, without the frame's
/// length.
///
/// # Errors
/// `InvalidArgument` for a `client.id` of more than 32,767 bytes; `Internal` for an API without
/// generated messages.
pub(crate) fn encode_request_header(
    out: &mut BytesMut,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<()> {
    let flexible = request_header_is_flexible(key, version)?;
    out.put_i16(key.code());
    out.put_i16(version);
    out.put_i32(correlation_id);
    // The client id is not compact even in a flexible header, so that a broker can read it in any
    // version.
    put_string(out, Some(client_id), false).map_err(|error| error.context("client.id"))?;
    put_no_tags(out, flexible);
    Ok(())
}

/// Appends the body of a message.
///
/// # Errors
/// `UnsupportedVersion` if a field is set that the version does not have, `InvalidArgument` for a
/// value that is too long. In both cases nothing is appended.
pub(crate) fn encode_body<M: Message + Encode>(out: &mut BytesMut, message: &M, version: i16) -> Result<()> {
    let before = out.len();
    message.encode(&mut Encoder::new(out, version, version >= M::FLEXIBLE)).map_err(|error| {
        out.truncate(before);
        error.context(M::API)
    })
}

/// Decodes the body of a message. Bytes that are left over after it are an error.
///
/// # Errors
/// `Protocol` for bytes that are not such a message; `Internal` for a version that the message does
/// not have.
pub(crate) fn decode_body<M: Message + Decode>(body: Bytes, version: i16) -> Result<M> {
    let (first, last) = M::VERSIONS;
    if !(first..=last).contains(&version) {
        return Err(Error::new(ErrorKind::Internal, format!("{} version {version} cannot be read here", M::API)));
    }
    let mut decoder = Decoder::new(body, version, version >= M::FLEXIBLE);
    let message = M::decode(&mut decoder)?;
    decoder.finish()?;
    Ok(message)
}

/// Reads the request header at the front of a frame. Returns the API, version, correlation id and
/// client id, and leaves the body.
///
/// # Errors
/// `Protocol` for bytes that are not such a header, or an API without generated messages.
#[cfg(feature = "testkit")]
pub(crate) fn decode_request_header(frame: &mut Bytes) -> Result<(ApiKey, i16, i32, String)> {
    let mut reader = Reader::new(frame);
    let mut read = || {
        let (code, version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
        let known = ApiKey::from_code(code).and_then(|key| Some((key, messages::versions(key)?.2)));
        let Some((key, flexible)) = known else {
            return Err(Error::new(ErrorKind::Protocol, format!("API key {code} is not known")));
        };
        let client_id = reader.string(false)?.unwrap_or_default().to_owned();
        reader.skip_tagged(version >= flexible)?;
        Ok((key, version, correlation_id, client_id))
    };
    let header = read().map_err(|error| error.context("header of a request"))?;
    let size = reader.position();
    frame.advance(size);
    Ok(header)
}

/// Reads the response header at the front of a frame. Returns the correlation id and leaves the
/// body.
///
/// # Errors
/// `Protocol` if the frame is too short.
pub(crate) fn decode_response_header(frame: &mut Bytes, key: ApiKey, version: i16) -> Result<i32> {
    let flexible = response_header_is_flexible(key, version)?;
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

/// Decodes the body of a response.
///
/// A broker that does not know the version of an ApiVersions request answers in version 0 with
/// UNSUPPORTED_VERSION (KIP-511): such a response is decoded in version 0.
///
/// # Errors
/// Like [`decode_body`].
pub(crate) fn decode_response<R: Request>(body: Bytes, version: i16) -> Result<R::Response> {
    let unsupported = ErrorCode::UNSUPPORTED_VERSION.code().to_be_bytes();
    let version = if R::API == ApiKey::ApiVersions && body.starts_with(&unsupported) { 0 } else { version };
    decode_body(body, version).map_err(|error| error.context(format_args!("{} response", R::API)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::messages::{ApiVersionsRequest, MetadataRequest},
        *,
    };

    #[test]
    fn api_versions_request_has_expected_bytes() {
        let mut out = BytesMut::new();
        encode_request_header(&mut out, ApiKey::ApiVersions, 3, 7, "cli").unwrap();
        let request = ApiVersionsRequest {
            client_software_name: "x".into(),
            client_software_version: "1".into(),
            ..Default::default()
        };
        encode_body(&mut out, &request, 3).unwrap();
        let golden = [0, 0x12, 0, 3, 0, 0, 0, 7, 0, 3, b'c', b'l', b'i', 0, 2, b'x', 2, b'1', 0];
        assert_eq!(out[..], golden);
    }

    #[test]
    fn reads_response_header_with_tagged_fields() {
        let mut frame = Bytes::from_static(&[0xff, 0xff, 0xff, 0xfc, 1, 5, 3, b't', b'a', b'g', b'b', b'o']);
        assert_eq!(decode_response_header(&mut frame, ApiKey::Metadata, 9).unwrap(), -4);
        assert_eq!(frame, "bo");
        let mut frame = Bytes::from_static(&[0, 0, 0, 1]);
        assert_eq!(decode_response_header(&mut frame.clone(), ApiKey::Metadata, 8).unwrap(), 1);
        assert_eq!(decode_response_header(&mut frame.clone(), ApiKey::ApiVersions, 3).unwrap(), 1, "never flexible");
        let error = decode_response_header(&mut frame, ApiKey::Metadata, 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert_eq!(frame.len(), 4, "unchanged");
    }

    #[test]
    fn failed_encoding_leaves_buffer_unchanged() {
        let mut out = BytesMut::from(&b"before"[..]);
        let request = MetadataRequest { allow_auto_topic_creation: false, ..Default::default() };
        let error = encode_body(&mut out, &request, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert_eq!(error.to_string(), "Metadata: version 1 has no field `allow_auto_topic_creation`");
        assert_eq!(out, "before");

        let error = encode_request_header(&mut out, ApiKey::Metadata, 9, 0, &"x".repeat(40_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn rejects_leftover_bytes_after_response() {
        let error = decode_response::<MetadataRequest>(Bytes::from_static(&[0; 15]), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert_eq!(error.to_string(), "Metadata response: version 1, byte 12 of 15: 3 bytes are left over");
    }

    #[test]
    fn client_versions_exclude_broker_and_unstable() {
        assert_eq!(client_versions(ApiKey::Produce), Some(PRODUCE_VERSIONS));
        assert_eq!(client_versions(ApiKey::Metadata), Some((0, 13)));
        assert_eq!(client_versions(ApiKey::AddPartitionsToTxn), Some((0, 3)));
        assert_eq!(client_versions(ApiKey::InitProducerId), Some((0, 5)), "version 6 is unstable");
        assert_eq!(client_versions(ApiKey::LeaderAndIsr), None);
    }
}
