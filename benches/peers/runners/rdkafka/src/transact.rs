//! Sends in transactions through librdkafka; the delivery callbacks are served by a
//! `ThreadedProducer`'s thread.

use std::{
    ffi::CStr,
    time::{Duration, Instant},
};

use peers_common::{Clock, Failure, Outcome, Transactions, Work};
use rdkafka::{
    bindings::{rd_kafka_commit_transaction, rd_kafka_error_destroy, rd_kafka_error_string},
    config::FromClientConfigAndContext,
    producer::{Producer, ThreadedProducer},
    util::get_rdkafka_version,
};

use crate::{Results, check_topic, config, record, send};

/// Waits for ever, as librdkafka recommends for commits.
const INFINITE: i32 = -1;

pub fn run(work: &Work) -> Result<Outcome, Failure> {
    if let Some(other) = work.api.as_deref().filter(|api| *api != "threaded") {
        return Err(format!("transactions are sent with --api threaded only, not {other}").into());
    }
    let mut config = config(work);
    config.set("transactional.id", "peers-rdkafka");
    let results = Results::default();
    let producer = ThreadedProducer::from_config_and_context(&config, results.clone())?;
    check_topic(work, &producer)?;
    producer.init_transactions(Duration::from_secs(30))?;
    pass(work, work.warmup, &producer, &results)?;
    let clock = Clock::start()?;
    let (sent, latencies) = pass(work, work.timed, &producer, &results)?.finish();
    Ok(clock.stop("rdkafka", &get_rdkafka_version().1, sent)?.with_latencies(latencies))
}

fn pass(
    work: &Work,
    time: Duration,
    producer: &ThreadedProducer<Results>,
    results: &Results,
) -> Result<Transactions, Failure> {
    let mut transactions = Transactions::start(work, time);
    while let Some(records) = transactions.next_records() {
        let (before, count) = (results.delivered(), records.end - records.start);
        producer.begin_transaction()?;
        for n in records {
            send(producer, record(work, n))?;
        }
        let since = Instant::now();
        commit(producer)?;
        transactions.committed(since);
        if results.delivered() - before != count {
            return Err(format!("committed, but not all of {count} records delivered{}", results.first_error()).into());
        }
    }
    Ok(transactions)
}

/// Commits by librdkafka's own call, which sends the waiting records at once and waits for their
/// results. If records are outstanding, the crate's method polls for 100 ms before it, though
/// another thread does so already, and the commit would take at least that long.
fn commit(producer: &ThreadedProducer<Results>) -> Result<(), Failure> {
    // SAFETY: the client is the producer's, which outlives the call.
    let error = unsafe { rd_kafka_commit_transaction(producer.client().native_ptr(), INFINITE) };
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is not null, its text is a C string that lives as long as it does, and the
    // caller of the commit has to destroy it.
    let text = unsafe {
        let text = CStr::from_ptr(rd_kafka_error_string(error)).to_string_lossy().into_owned();
        rd_kafka_error_destroy(error);
        text
    };
    Err(format!("the commit failed: {text}").into())
}
