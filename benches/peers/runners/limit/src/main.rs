//! The minimum cost of any client, for comparison: one thread, one blocking socket, requests like
//! Ottla's. Each record's bytes are copied once, into the batch in the request that is sent; each
//! batch is checksummed once; each response is read and checked. There is no partitioner (each
//! batch goes to the next partition, with keys too), no table, no retry, and no compression.

mod consume;
mod request;
mod socket;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use peers_common::{Clock, Failure, Mode, Outcome, Work, finish};

use crate::{request::Request, socket::Socket};

/// Default of `batch.size`.
const BATCH_SIZE: usize = 16_384;

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<Outcome, Failure> {
    let work = Work::from_args()?;
    if work.compression != "none" {
        return Err("the limit is without compression only".into());
    }
    if work.ca.is_some() {
        return Err("the limit is without TLS only".into());
    }
    if let Some(api) = &work.api {
        return Err(format!("unknown --api {api}").into());
    }
    let mut socket = Socket::open(&work.bootstrap, &work.topic)?;
    if socket.partitions() != work.partitions {
        return Err(format!("{} has {} partitions", work.topic, socket.partitions()).into());
    }
    if work.mode == Mode::Consume {
        return consume::run(&work, &mut socket);
    }
    let batch_size = work.batch_size.unwrap_or(BATCH_SIZE);
    let mut request = Request::new(socket.topic_id(), socket.producer(), work.partitions, batch_size)?;
    let mut pass = |time: Duration| match work.mode {
        Mode::Produce => produce(&work, time, &mut socket, &mut request).map(|sent| (sent, Vec::new())),
        Mode::Latency => {
            latency(&work, time, &mut socket, &mut request).map(|latencies| (latencies.len() as u64, latencies))
        }
        Mode::Consume | Mode::Transact => Err("the limit has no such work".into()),
    };
    pass(work.warmup)?;
    let clock = Clock::start()?;
    let (sent, latencies) = pass(work.timed)?;
    Ok(clock.stop("limit", env!("CARGO_PKG_VERSION"), sent)?.with_latencies(latencies))
}

/// Sends for that long, and reads all responses.
fn produce(work: &Work, time: Duration, socket: &mut Socket, request: &mut Request) -> Result<u64, Failure> {
    let before = socket.delivered();
    let sent = work.until_done(time, |n| {
        if request.is_full(work.keyed.then(|| work.key(n).as_slice()), work.value(n)) {
            socket.send(request)?;
        }
        request.append(work.keyed.then(|| work.key(n).as_slice()), work.value(n))
    })?;
    socket.send(request)?;
    socket.read_all()?;
    match socket.delivered() - before {
        delivered if delivered == sent => Ok(sent),
        delivered => Err(format!("{sent} sent, {delivered} delivered").into()),
    }
}

/// Sends one record per request, and waits for its response before the next.
fn latency(work: &Work, time: Duration, socket: &mut Socket, request: &mut Request) -> Result<Vec<Duration>, Failure> {
    let (count, before) = (work.scheduled(time), socket.delivered());
    let mut latencies = Vec::with_capacity(count as usize);
    let start = Instant::now();
    for n in 0..count {
        let from = work.wait_until_due(start, n);
        request.append(work.keyed.then(|| work.key(n).as_slice()), work.value(n))?;
        socket.send(request)?;
        socket.read_all()?;
        latencies.push(from.elapsed());
    }
    match socket.delivered() - before {
        delivered if delivered == count => Ok(latencies),
        delivered => Err(format!("{count} sent, {delivered} delivered").into()),
    }
}
