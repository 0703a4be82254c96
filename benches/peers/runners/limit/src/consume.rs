//! The minimum cost of reading: Fetch v13 over one blocking socket, with the next request sent
//! before the records of a response are read; every batch is checksummed, and its records are
//! scanned up to their values.

use std::time::{Duration, Instant};

use peers_common::{Clock, Failure, Outcome, Tally, Work};

use crate::socket::{Fields, Socket};

const FETCH: (i16, i16) = (1, 13);
/// `fetch.max.bytes` and `max.partition.fetch.bytes` of the other clients.
const MAX_BYTES: i32 = 50 << 20;
const MAX_PARTITION_BYTES: i32 = 1 << 20;
const HEADER: usize = 61;

pub fn run(work: &Work, socket: &mut Socket) -> Result<Outcome, Failure> {
    let mut offsets = vec![0; work.partitions];
    pass(work.warmup, socket, &mut offsets)?;
    let clock = Clock::start()?;
    let tally = pass(work.timed, socket, &mut offsets)?;
    clock.stop_reading("limit", env!("CARGO_PKG_VERSION"), tally)
}

fn pass(time: Duration, socket: &mut Socket, offsets: &mut [i64]) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    let mut answer = Vec::new();
    socket.begin(FETCH, &request(socket.topic_id(), offsets)?)?;
    loop {
        socket.end(&mut answer)?;
        let slices = slices(&answer, socket.topic_id())?;
        // The headers give the next offsets, so that the next request is sent before the records
        // are read.
        for &(partition, records) in &slices {
            let offset = offsets.get_mut(partition).ok_or("a response for a partition that was not requested")?;
            for batch in batches(records) {
                *offset = i64::from_be_bytes(array(batch, 0)?) + i64::from(i32::from_be_bytes(array(batch, 23)?)) + 1;
            }
        }
        let goes_on = Instant::now() < end;
        if goes_on {
            socket.begin(FETCH, &request(socket.topic_id(), offsets)?)?;
        }
        for (_, records) in slices {
            for batch in batches(records) {
                look_at(batch, &mut tally)?;
            }
        }
        if !goes_on {
            return Ok(tally);
        }
    }
}

fn request(topic: [u8; 16], offsets: &[i64]) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::with_capacity(64 + 40 * offsets.len());
    body.extend((-1_i32).to_be_bytes()); // no replica
    body.extend(500_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(MAX_BYTES.to_be_bytes());
    body.push(0); // read uncommitted
    body.extend(0_i32.to_be_bytes()); // without a session
    body.extend((-1_i32).to_be_bytes());
    body.push(2);
    body.extend(topic);
    body.push(u8::try_from(offsets.len() + 1).ok().filter(|count| *count < 0x80).ok_or("too many partitions")?);
    for (partition, offset) in (0_i32..).zip(offsets) {
        body.extend(partition.to_be_bytes());
        body.extend((-1_i32).to_be_bytes()); // no leader epoch
        body.extend(offset.to_be_bytes());
        body.extend((-1_i32).to_be_bytes()); // no last epoch
        body.extend((-1_i64).to_be_bytes()); // no follower
        body.extend(MAX_PARTITION_BYTES.to_be_bytes());
        body.push(0);
    }
    body.extend([0, 1, 1, 0]); // end of the topic; nothing forgotten, no rack; no tagged fields
    Ok(body)
}

/// Returns each partition's records in the response.
fn slices(answer: &[u8], topic: [u8; 16]) -> Result<Vec<(usize, &[u8])>, Failure> {
    let mut fields = Fields(answer);
    fields.take(4)?;
    fields.tags()?;
    fields.take(4)?; // throttling
    fields.no_error("Fetch")?;
    fields.take(4)?; // session
    let mut slices = Vec::new();
    for _ in 0..fields.count()? {
        if fields.take(16)? != topic {
            return Err("a response for another topic".into());
        }
        for _ in 0..fields.count()? {
            let partition = usize::try_from(i32::from_be_bytes(fields.array()?))?;
            fields.no_error("Fetch")?;
            fields.take(8 + 8 + 8)?; // high watermark, last stable offset, start of the log
            if fields.count()? != 0 {
                return Err("aborted transactions".into());
            }
            fields.take(4)?; // preferred replica
            slices.push((partition, fields.text()?));
            fields.tags()?;
        }
        fields.tags()?;
    }
    Ok(slices)
}

/// Returns the complete batches; the last one may be truncated.
fn batches(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = i32::from_be_bytes(array(rest, 8).ok()?);
        let (batch, behind) = rest.split_at_checked(usize::try_from(length).ok()? + 12)?;
        rest = behind;
        Some(batch)
    })
}

fn look_at(batch: &[u8], tally: &mut Tally) -> Result<(), Failure> {
    let checked = batch.get(21..).ok_or("a batch without a header")?;
    if crc_fast::crc32_iscsi(checked) != u32::from_be_bytes(array(batch, 17)?) {
        return Err("a batch is corrupt".into());
    }
    let mut rest = batch.get(HEADER..).ok_or("a batch without a header")?;
    for _ in 0..i32::from_be_bytes(array(batch, 57)?) {
        let length = varint(&mut rest)?;
        let (record, behind) = rest.split_at_checked(length).ok_or("a record ends too late")?;
        rest = behind;
        let mut fields = record.get(1..).ok_or("an empty record")?;
        skip(&mut fields)?; // time
        skip(&mut fields)?; // offset
        if varint(&mut fields)? != usize::MAX {
            return Err("a record with a key".into());
        }
        let length = varint(&mut fields)?;
        tally.look_at(fields.get(..length));
    }
    Ok(())
}

/// Reads a varint in zigzag form; −1 becomes the highest number.
#[inline]
fn varint(bytes: &mut &[u8]) -> Result<usize, Failure> {
    let (mut value, mut shift) = (0_u32, 0);
    loop {
        let (&byte, rest) = bytes.split_first().ok_or("a varint does not end")?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return Ok(if value & 1 == 0 { (value >> 1) as usize } else { usize::MAX });
        }
        if shift > 28 {
            return Err("a varint is too long".into());
        }
    }
}

#[inline]
fn skip(bytes: &mut &[u8]) -> Result<(), Failure> {
    let end = bytes.iter().position(|byte| *byte < 0x80).ok_or("a varint does not end")?;
    *bytes = &bytes[end + 1..];
    Ok(())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Failure> {
    Ok(bytes.get(at..at + N).ok_or("a batch without a header")?.try_into()?)
}
