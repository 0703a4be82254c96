//! Messages through `kafka-protocol`: headers, versions, and the check that no length reserves more than a frame holds.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::Request;

use super::ApiKey;
use crate::error::Result;

/// The versions of a request that this client speaks: what `kafka-protocol` (or, for Produce and Fetch, `wire`) can write.
pub(crate) fn client_versions(key: ApiKey) -> Option<(i16, i16)> {
    let _ = key;
    unimplemented!()
}

/// Appends the request header (v0, v1 or v2 as `key` and `version` ask for) — without the frame's length.
pub(crate) fn encode_request_header(
    out: &mut BytesMut,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) {
    let _ = (out, key, version, correlation_id, client_id);
    unimplemented!()
}

/// Appends the body of a request.
pub(crate) fn encode_request<R: Request>(out: &mut BytesMut, request: &R, version: i16) -> Result<()> {
    let _ = (out, request, version);
    unimplemented!()
}

/// Reads the response header off the front of a frame: gives the correlation id and leaves the body.
pub(crate) fn decode_response_header(frame: &mut Bytes, key: ApiKey, version: i16) -> Result<i32> {
    let _ = (frame, key, version);
    unimplemented!()
}

/// Reads the body of a response, having first walked its shape so that no array length can reserve more than the frame
/// holds. Bytes left over behind the body are an error.
pub(crate) fn decode_response<R: Request>(body: Bytes, version: i16) -> Result<R::Response> {
    let _ = (body, version);
    unimplemented!()
}
