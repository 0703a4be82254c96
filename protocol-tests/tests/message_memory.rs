//! Measures the memory that decoding a body takes, for every message and version, relative to the
//! size of the body.
//!
//! This is a single test, because all allocations of the process are counted.

#![cfg(unix)]

#[allow(dead_code, reason = "memory is counted without the content as JSON")]
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

/// Bytes of memory for each byte of a body: all that are allocated, even if they are freed
/// meanwhile.
const EACH: usize = 43;
/// Bytes of memory beyond that, for an error and the path to the field that is decoded.
const BASE: usize = 2048;

/// Decodes a body, and asserts that the memory it took is within the limit. Returns the number of
/// bytes that were allocated, if the body is a message.
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
fn decoding_allocates_bounded_multiple_of_body() {
    many_elements();
    claimed_elements();
    nested_claims();
}

/// Decodes messages with as many elements as a body can hold, at any depth.
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

/// Number of bytes after a count that is put into a message.
const BEHIND: usize = 1000;

/// Encodes a count, compact or in four bytes.
fn count_of(elements: usize, flexible: bool) -> Vec<u8> {
    let [high, low] = (elements as u16).to_be_bytes();
    if flexible { vec![(elements % 128) as u8 | 0x80, (elements / 128) as u8] } else { vec![0, 0, high, low] }
}

/// Decodes messages with a count, at any position, of elements that the bytes after it can just
/// hold, or cannot hold.
fn claimed_elements() {
    let mut tries = 0;
    for Golden { message, version, body, .. } in goldens().into_iter().filter(|it| it.body.len() < 100) {
        for at in 0..body.len() {
            for filler in [[0; BEHIND], [1; BEHIND]] {
                for elements in [BEHIND, BEHIND / 3] {
                    let count = count_of(elements, version >= message.first_flexible);
                    let _ = allocated(message, version, &[&body[..at], &count, &filler].concat());
                    tries += 1;
                }
            }
        }
    }
    println!("{tries} bodies that claim many elements");
}

/// Decodes messages with an outer array and an inner one that both claim all bytes after them.
fn nested_claims() {
    let mut tries = 0;
    for Golden { message, version, body, .. } in goldens().into_iter().filter(|it| it.body.len() < 100) {
        if version < message.versions.1 {
            continue;
        }
        let flexible = version >= message.first_flexible;
        let outer = count_of(BEHIND / 3, flexible);
        let width = if flexible { 1 } else { outer.len() };
        for first in 0..body.len() {
            for second in first + width..body.len() {
                let between = &body[first + width..second];
                for inner in [BEHIND, BEHIND / 3] {
                    let inner = count_of(inner, flexible);
                    let claims = [&body[..first], &outer, between, &inner, &[1; BEHIND]].concat();
                    let _ = allocated(message, version, &claims);
                    tries += 1;
                }
            }
        }
    }
    println!("{tries} bodies with two counts that claim many elements");
}
