//! The memory that decoding a body takes, for every message and version, against the size of the body.
//!
//! One test, because all that the process allocates is counted.

#![cfg(unix)]

#[path = "common/goldens.rs"]
mod goldens;
#[path = "common/schemas.rs"]
mod schemas;

use std::alloc::System;

use bytes::Bytes;
use generator::random::{Fill, body};
use goldens::{Golden, goldens};
use ottla::any_message::{AnyMessage, MESSAGES};
use schemas::jar_is_here;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes of memory for each byte of a body: all that is allocated, whether or not it is freed meanwhile.
const EACH: usize = 43;
/// Bytes of memory beyond that, for an error and the path to the field that is read.
const BASE: usize = 2048;

/// Decodes a body, and asserts that the memory it took is within the bound. Returns the bytes that were allocated, if the
/// body is a message.
fn allocated(message: &AnyMessage, version: i16, body: &[u8]) -> Option<usize> {
    let shared = Bytes::copy_from_slice(body);
    let region = Region::new(ALLOCATOR);
    let is_decoded = message.decode(shared, version).is_ok();
    let allocated = region.change().bytes_allocated;
    let size = body.len();
    let bound = EACH * size + BASE;
    assert!(allocated <= bound, "{message:?} version {version}: {allocated} bytes for {size}: {body:?}");
    is_decoded.then_some(allocated)
}

#[test]
fn decoding_takes_memory_within_a_multiple_of_the_body() {
    many_elements();
    claimed_elements();
}

/// As many elements as a body can hold, at any depth.
fn many_elements() {
    if !jar_is_here() {
        return;
    }
    let schemas = generator::schemas(generator::VERSION).expect("schemas");
    let mut most = (0.0, String::new());
    for message in MESSAGES {
        for version in message.versions.0..=message.versions.1 {
            for (depth, count) in (1..=4).flat_map(|depth| [(depth, 100), (depth, 1025)]) {
                let body = body(&schemas[message.name], version, Fill::Many { depth, count });
                let allocated = allocated(message, version, &body).expect("a message");
                let each = allocated as f64 / body.len().max(1000) as f64;
                if each > most.0 {
                    most = (each, format!("{message:?} version {version}, {} bytes", body.len()));
                }
            }
        }
    }
    println!("at most {:.1} bytes for each byte of a message ({})", most.0, most.1);
}

/// Counts that the bytes behind them can just hold, or cannot, in any place of a message.
fn claimed_elements() {
    const BEHIND: usize = 1000;
    let mut tries = 0;
    for Golden { message, version, body, .. } in goldens().into_iter().filter(|it| it.body.len() < 100) {
        for at in 0..body.len() {
            for filler in [0, 1] {
                let behind = [filler; BEHIND];
                for count in [BEHIND, BEHIND / 3] {
                    let compact = [(count % 128) as u8 | 0x80, (count / 128) as u8];
                    let length = if version >= message.first_flexible { &compact[..] } else { &[0, 0, 3, 0] };
                    let _ = allocated(message, version, &[&body[..at], length, &behind].concat());
                    tries += 1;
                }
            }
        }
    }
    println!("{tries} bodies that claim many elements");
}
