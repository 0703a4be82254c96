//! Encodes requests (length, header and body) into memory that requests share.

use bytes::{Bytes, BytesMut};

use crate::cluster::request::RawRequest;
use crate::cluster::revocable_parts::RevocableParts;
use crate::{
    error::{Error, ErrorKind, Result},
    wire::{ApiKey, frame::Chunks, message::encode_request_header},
};

/// Space that is reserved for a request's head: enough for a Produce request of some partitions.
const USUAL: usize = 512;
/// Size of the pieces of memory that requests share.
const MEMORY: usize = 4096;

/// An encoded request: the head, and then the chunks, if it has inserts.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) head: Bytes,
    pub(super) chunks: Chunks,
    pub(super) answered: bool,
    pub(super) expects: usize,
    pub(super) departure: RevocableParts,
}

/// Encodes a frame: its length (inserts included), the header, and the body that `write` appends.
/// `memory` is empty again afterwards; its remaining capacity serves the next request, and all of
/// it once the earlier requests are dropped.
///
/// # Errors
/// Those of `write`; `InvalidArgument` for more than 2 GiB.
pub(super) fn encode_frame(
    memory: &mut BytesMut,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
    write: impl FnOnce(&mut BytesMut) -> Result<RawRequest>,
) -> Result<Encoded> {
    if memory.capacity() == 0 {
        *memory = BytesMut::with_capacity(MEMORY);
    }
    memory.clear();
    memory.reserve(USUAL);
    memory.extend_from_slice(&[0; 4]);
    encode_request_header(memory, key, version, correlation_id, client_id)?;
    let RawRequest { inserts, answered, expects, departure } = write(memory)?;
    let length = memory.len() - 4 + inserts.iter().map(|(_, insert)| insert.len()).sum::<usize>();
    let Ok(length) = i32::try_from(length) else {
        let message = format!("{key}: a request of {length} bytes is larger than Kafka's protocol allows");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    };
    if let Some(front) = memory.first_chunk_mut() {
        *front = length.to_be_bytes();
    }
    let mut rest = memory.split().freeze();
    let whole = rest.len();
    if whole > MEMORY {
        // A large request keeps its memory for itself.
        *memory = BytesMut::new();
    }
    let before = |rest: &mut Bytes, at: usize| {
        let from = whole - rest.len();
        rest.split_to(at.saturating_sub(from).min(rest.len()))
    };
    let mut chunks = Chunks::new();
    let mut inserts = inserts.into_iter();
    let Some((at, first)) = inserts.next() else {
        return Ok(Encoded { head: rest, chunks, answered, expects, departure });
    };
    let head = before(&mut rest, at);
    chunks.push(first);
    for (at, insert) in inserts {
        chunks.push(before(&mut rest, at));
        chunks.push(insert);
    }
    chunks.push(rest);
    Ok(Encoded { head, chunks, answered, expects, departure })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(memory: &mut BytesMut, body: &[u8], inserts: &[(usize, &'static [u8])]) -> Encoded {
        encode_frame(memory, ApiKey::Produce, 9, 1, "me", |out| {
            let front = out.len();
            out.extend_from_slice(body);
            let inserts = inserts.iter().map(|(at, insert)| (front + at, Bytes::from_static(insert))).collect();
            Ok(RawRequest { inserts, ..RawRequest::whole() })
        })
        .unwrap()
    }

    fn bytes(frame: &Encoded) -> Vec<u8> {
        std::iter::once(&frame.head).chain(&frame.chunks).flatten().copied().collect()
    }

    #[test]
    fn inserts_are_written_at_their_positions() {
        let mut memory = BytesMut::new();
        let plain = bytes(&frame(&mut memory, b"onetwothree", &[]));
        let woven = frame(&mut memory, b"onethree", &[(3, b"two"), (8, b"")]);
        assert_eq!(bytes(&woven), plain);
        assert_eq!(plain[..4], (plain.len() as i32 - 4).to_be_bytes());
        // Inserts past the end are appended.
        assert_eq!(bytes(&frame(&mut memory, b"onetwo", &[(6, b""), (2, b"thr"), (99, b"ee")])), plain);
    }

    #[test]
    fn requests_share_buffer_unless_they_are_large() {
        let mut memory = BytesMut::new();
        let first = frame(&mut memory, b"first", &[]);
        let second = frame(&mut memory, b"second", &[]);
        assert_eq!(first.head.as_ptr_range().end, second.head.as_ptr_range().start);
        let large = frame(&mut memory, &[7; 2 * MEMORY], &[]);
        assert_eq!(memory.capacity(), 0);
        assert!(bytes(&large).ends_with(&[7; 2 * MEMORY]));
        let third = frame(&mut memory, b"third", &[]);
        assert!(bytes(&third).ends_with(b"third"));
    }

    #[test]
    fn failed_encoding_leaves_buffer_clean() {
        let mut memory = BytesMut::new();
        let refused = encode_frame(&mut memory, ApiKey::Produce, 9, 1, "me", |out| {
            out.extend_from_slice(b"half of it");
            Err(Error::new(ErrorKind::InvalidArgument, "no"))
        });
        assert!(refused.is_err());
        let next = bytes(&frame(&mut memory, b"next", &[]));
        assert_eq!(next, bytes(&frame(&mut BytesMut::new(), b"next", &[])));
    }
}
