//! The fuzz targets: every decoder of bytes and text from outside, by name, with its memory limit.
//!
//! The fuzzer (`fuzz/`, which builds with `--cfg fuzzing`) runs them, and so do tests: every target
//! decodes its seeds and the inputs that once found a bug (`fuzz/kept`).

use crate::{consumer, testkit, wire};

/// A decoder under test. It must not panic, whatever the bytes are.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The target's name.
    pub name: &'static str,
    /// Decodes the input.
    pub run: fn(&[u8]),
    /// Initial inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Maximum memory that an input may allocate: (fixed bytes, additional bytes for each byte of
    /// the input).
    pub memory: (usize, usize),
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "batch",
        run: wire::fuzz::batch,
        seeds: wire::fuzz::batch_seeds,
        memory: (8 * wire::fuzz::LIMIT, 64),
    },
    Target {
        name: "codec",
        run: wire::fuzz::codec,
        seeds: wire::fuzz::codec_seeds,
        memory: (8 * wire::fuzz::LIMIT, 64),
    },
    Target { name: "fetch", run: wire::fuzz::fetch, seeds: wire::fuzz::fetch_seeds, memory: (64 << 10, 200) },
    Target { name: "produce", run: wire::fuzz::produce, seeds: wire::fuzz::produce_seeds, memory: (64 << 10, 200) },
    Target {
        name: "message",
        run: wire::fuzz_messages::message,
        seeds: wire::fuzz_messages::message_seeds,
        memory: (8 << 10, 44),
    },
    Target {
        name: "recoded-message",
        run: wire::fuzz_messages::recoded_message,
        seeds: wire::fuzz_messages::message_seeds,
        memory: (64 << 10, 400),
    },
    Target { name: "walk", run: consumer::fuzz::walk, seeds: consumer::fuzz::walk_seeds, memory: (8 << 20, 64) },
    Target { name: "group", run: consumer::fuzz::group, seeds: consumer::fuzz::group_seeds, memory: (64 << 10, 100) },
    Target {
        name: "request",
        run: testkit::fuzz::request,
        seeds: testkit::fuzz::request_seeds,
        memory: (64 << 10, 400),
    },
    Target { name: "config", run: config, seeds: config_seeds, memory: (256 << 10, 64) },
];

/// Reads lines of `name=value` as properties of all clients. It opens no connection: without a
/// runtime a client cannot be built, but all its properties are checked before that.
fn config(input: &[u8]) {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };
    let text = String::from_utf8_lossy(input);
    let pairs: Vec<(&str, &str)> = text.lines().map(|line| line.split_once('=').unwrap_or((line, ""))).collect();
    let cx = &mut Context::from_waker(Waker::noop());
    let producer = pin!(crate::producer::Producer::from_properties(pairs.iter().copied())).poll(cx);
    assert!(matches!(producer, Poll::Ready(Err(_))), "without a runtime");
    let consumer = pin!(consumer::Consumer::from_properties(pairs.iter().copied())).poll(cx);
    assert!(matches!(consumer, Poll::Ready(Err(_))), "without a runtime");
    let admin = pin!(crate::admin::Admin::from_properties(pairs)).poll(cx);
    assert!(matches!(admin, Poll::Ready(Err(_))), "without a runtime");
}

fn config_seeds() -> Vec<Vec<u8>> {
    let texts: [&str; 6] = [
        "bootstrap.servers=localhost:9092,[::1]:9093\nclient.id=x\nacks=all\nlinger.ms=5\ncompression.type=zstd",
        "bootstrap.servers=b:1\ncompression.type=gzip\ncompression.gzip.level=9\nbatch.size=100\nenable.idempotence=false",
        "bootstrap.servers=b:1\ngroup.id=g\nauto.offset.reset=by_duration:P1DT2H3M4.5S\nisolation.level=read_committed",
        "bootstrap.servers=b:1\nsession.timeout.ms=1000\nheartbeat.interval.ms=300\nqueued.max.messages.kbytes=10",
        "metadata.broker.list=b:1\nqueue.buffering.max.ms=5\nmessage.timeout.ms=1000\npartitioner=murmur2_random",
        "bootstrap.servers=b:1\npartitioner.class=x\nclient.dns.lookup=use_all_dns_ips\nmetadata.max.age.ms=-1",
    ];
    texts.into_iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn targets_accept_truncated_and_altered_seeds() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            for seed in seeds {
                for cut in 0..=seed.len().min(300) {
                    (target.run)(&seed[..cut]);
                    let mut bent = seed.clone();
                    if let Some(byte) = bent.get_mut(cut) {
                        *byte = !*byte;
                    }
                    (target.run)(&bent);
                }
            }
        }
    }

    #[test]
    fn kept_regression_inputs_no_longer_fail() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/kept");
        for target in TARGETS {
            let Ok(inputs) = fs::read_dir(kept.join(target.name)) else { continue };
            for input in inputs {
                let path = input.expect("an entry").path();
                (target.run)(&fs::read(&path).expect("a file"));
            }
        }
        for folder in fs::read_dir(kept).expect("fuzz/kept is there").map(|entry| entry.expect("an entry").file_name())
        {
            let known = TARGETS.iter().any(|target| folder == target.name) || folder == "README.md";
            assert!(known, "{folder:?} is not a target");
        }
    }
}
