//! Runs the clients of a case, one at a time.

use std::{path::Path, time::Duration};

use crate::{
    args::{Args, Broker},
    child::{self, Server},
    data,
    plan::{self, Case, Client, Work},
    results::{CaseResults, Fields, Row, Run},
    runner::{FILL_LIMIT, Given, Places},
};

/// Limits for the start of a broker: a sink starts at once; a JVM and its disk take longer, and a
/// Kafka may have to be downloaded.
const SINK_START: Duration = Duration::from_secs(20);
const KAFKA_START: Duration = Duration::from_secs(300);
const BROKER_END: Duration = Duration::from_secs(60);
/// Time that a run may take beyond its own: for connecting, and for the last results.
const GRACE: Duration = Duration::from_secs(75);

/// Bytes of values that a topic of a real Kafka is filled with before it is read: the fastest
/// client takes some seconds for them, and they fit in the page cache.
const FILLED: u64 = 3_000_000_000;

/// Number of failures after which a client is not tried again in a case, because every failure may
/// take its whole time limit.
const FAILURES: usize = 2;

pub struct Bench<'a> {
    pub places: &'a Places,
    pub args: &'a Args,
    pub out: &'a Path,
}

impl Bench<'_> {
    /// Runs all rounds of one case.
    pub fn case(&self, case: &Case) -> Result<CaseResults, String> {
        let values = data::write(self.out, case.size).map_err(|error| format!("{}: {error}", self.out.display()))?;
        let reads_a_log = case.work == Work::Consume && self.args.broker != Broker::Sink;
        // The limit reads the source only; it does not know the end of a log.
        let takes_part = |client: &&Client| client.runs(case) && !(reads_a_log && client.name == plan::LIMIT);
        let clients: Vec<&Client> = self.args.clients.iter().filter(takes_part).collect();
        let mut rows: Vec<Row> =
            clients.iter().map(|client| Row { client: client.name, runs: Vec::new(), failures: Vec::new() }).collect();
        let launched = match self.args.broker {
            Broker::Launched => Some(Server::start(&mut self.places.launcher(case), KAFKA_START)?),
            Broker::Sink | Broker::At(_) => None,
        };
        let real = match (&launched, &self.args.broker) {
            (Some(kafka), _) => Some(kafka.address()),
            (None, Broker::At(address)) => Some(address.as_str()),
            (None, _) => None,
        };
        if let Some(address) = real {
            self.create_topic(case, address, &values)?;
        }
        let records = reads_a_log.then(|| FILLED / case.size as u64);
        if let (Some(address), Some(records)) = (real, records) {
            eprintln!("{}: filling its topic with {records} records", case.name);
            child::output(&mut self.places.fill(case, address, &values, records), FILL_LIMIT)?;
        }
        for round in 0..self.args.rounds {
            eprint!("{}, round {} of {}:", case.name, round + 1, self.args.rounds);
            for client in plan::order(&self.args.clients, case, round) {
                let Some(row) = rows.iter_mut().find(|row| row.client == client.name) else { continue };
                if row.failures.len() == FAILURES {
                    continue;
                }
                eprint!(" {}", client.name);
                let run = match real {
                    Some(address) => {
                        let found = self.run(client, case, address, &values, records);
                        found.and_then(|found| {
                            check_read(case, &found)?;
                            Ok(Run { found, ..Run::default() })
                        })
                    }
                    None => self.run_on_sink(client, case, &values)?,
                };
                match run {
                    Ok(run) => row.runs.push(run),
                    Err(why) => row.failures.push(why),
                }
            }
            eprintln!();
        }
        if let Some(kafka) = launched {
            kafka.end(BROKER_END)?;
        }
        Ok(CaseResults { case: case.clone(), rows })
    }

    /// Runs a client on a sink of its own, so that earlier runs do not affect it. The outer error
    /// is the sink's.
    fn run_on_sink(&self, client: &Client, case: &Case, values: &Path) -> Result<Result<Run, String>, String> {
        let sink = Server::start(&mut self.places.sink(case, values), SINK_START)?;
        let found = self.run(client, case, sink.address(), values, None);
        let total = sink.end(BROKER_END)?.ok_or("the sink printed no totals")?;
        let total = Fields::read(&total)?;
        let wire_bytes = bytes_per_record(&total);
        Ok(found.and_then(|found| {
            check_read(case, &found)?;
            if case.work == Work::Consume {
                return Ok(Run { found, wire_bytes, protocol: None });
            }
            // Results for records that never arrived do not count.
            let (sent, arrived) = (found.number("records"), total.number("records"));
            if sent > arrived {
                return Err(format!("says it sent {sent:?} records, of which {arrived:?} arrived"));
            }
            Ok(Run { found, wire_bytes, protocol: protocol(case, &total) })
        }))
    }

    /// Runs a client once. `records` is the number of records in the log, if it has an end.
    fn run(
        &self,
        client: &Client,
        case: &Case,
        bootstrap: &str,
        values: &Path,
        records: Option<u64>,
    ) -> Result<Fields, String> {
        let (warmup, timed) = (self.args.warmup().max(client.least_warmup(case)), self.args.timed);
        let given = Given { bootstrap, values, warmup, timed, records };
        let printed = child::output(&mut self.places.run(client, case, &given), warmup + timed + GRACE)?;
        let line = printed.lines().rfind(|line| line.starts_with('{')).ok_or("its runner printed no result")?;
        let found = Fields::read(line)?;
        match found.number("records_per_s") {
            Some(rate) if rate > 0.0 => Ok(found),
            _ => Err(format!("no records_per_s in {line}")),
        }
    }

    /// Creates the topic by using it, so that no client's first request fails because the topic
    /// does not exist yet.
    fn create_topic(&self, case: &Case, bootstrap: &str, values: &Path) -> Result<(), String> {
        let given =
            Given { bootstrap, values, warmup: Duration::ZERO, timed: Duration::from_millis(10), records: None };
        // The topic is always created by writing, because a reader would find nothing to read.
        let writing = Case { work: Work::Produce, ..case.clone() };
        let mut command = self.places.run(&plan::CLIENTS[0], &writing, &given);
        child::output(&mut command, GRACE).map(drop).map_err(|why| format!("no topic {}: {why}", case.topic()))
    }
}

/// Checks that a reader has read every value: each has the case's size, and begins with the same
/// byte.
fn check_read(case: &Case, found: &Fields) -> Result<(), String> {
    if case.work != Work::Consume {
        return Ok(());
    }
    let [records, bytes, firsts] = ["records", "bytes", "firsts"].map(|name| found.number(name).unwrap_or(-1.0));
    if records < 1.0 || bytes != records * case.size as f64 || firsts != records * f64::from(data::FIRST) {
        return Err(format!("read {records} records, but {bytes} bytes, and first bytes that add up to {firsts}"));
    }
    Ok(())
}

/// Returns the protocol of the transactions: only v1 adds partitions by requests of their own.
fn protocol(case: &Case, total: &Fields) -> Option<u8> {
    let added = total.number("add_partitions_to_txn")?;
    case.transaction().map(|_| if added > 0.0 { 1 } else { 2 })
}

fn bytes_per_record(total: &Fields) -> Option<f64> {
    let (bytes, records) = (total.number("bytes")?, total.number("records")?);
    (records > 0.0).then(|| bytes / records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_runner_that_skips_values() {
        let case = plan::cases().into_iter().find(|case| case.work == Work::Consume).unwrap();
        let found = |line: &str| check_read(&case, &Fields::read(line).unwrap());
        assert!(found("{\"records\":10,\"bytes\":1000,\"firsts\":1230}").is_ok());
        assert!(found("{\"records\":10,\"bytes\":900,\"firsts\":1230}").is_err());
        assert!(found("{\"records\":10,\"bytes\":1000,\"firsts\":1229}").is_err());
        assert!(found("{\"records\":10}").is_err());
        assert!(found("{\"records\":0,\"bytes\":0,\"firsts\":0}").is_err());
    }

    #[test]
    fn added_partitions_identify_transactions_v1() {
        let found = |case: &str, line: &str| {
            let case = plan::cases().into_iter().find(|one| one.name == case).unwrap();
            protocol(&case, &Fields::read(line).unwrap())
        };
        assert_eq!(found("transact-100", "{\"add_partitions_to_txn\":3}"), Some(1));
        assert_eq!(found("transact-100", "{\"add_partitions_to_txn\":0}"), Some(2));
        assert_eq!(found("produce-100", "{\"add_partitions_to_txn\":0}"), None);
        assert_eq!(found("transact-100", "{}"), None);
    }

    #[test]
    fn computes_request_bytes_per_record() {
        let total = Fields::read("{\"requests\":1,\"records\":4,\"record_bytes\":400,\"bytes\":500}").unwrap();
        assert_eq!(bytes_per_record(&total), Some(125.0));
        assert_eq!(bytes_per_record(&Fields::read("{\"records\":0,\"bytes\":0}").unwrap()), None);
        assert_eq!(bytes_per_record(&Fields::default()), None);
    }
}
