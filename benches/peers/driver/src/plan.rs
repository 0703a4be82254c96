//! The plan of the comparison: the cases, the clients, and the order in which they run.

use std::time::Duration;

/// The work of the clients in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Sends as fast as possible.
    Produce,
    /// Sends that number of records per second.
    Latency(u64),
    /// Reads as fast as possible.
    Consume,
    /// Sends as fast as possible, in transactions of that number of records, which are committed
    /// one after the other.
    Transact(u64),
}

/// One kind of work for every client.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub name: String,
    pub work: Work,
    /// Bytes of a value.
    pub size: usize,
    pub partitions: usize,
    pub keyed: bool,
    pub compression: &'static str,
    /// True if the case uses TLS.
    pub tls: bool,
}

impl Case {
    fn new(name: &str, size: usize, partitions: usize) -> Self {
        Self {
            name: name.to_owned(),
            work: Work::Produce,
            size,
            partitions,
            keyed: false,
            compression: "none",
            tls: false,
        }
    }

    /// Returns the records per second, if the case sets them.
    pub fn rate(&self) -> Option<u64> {
        if let Work::Latency(rate) = self.work { Some(rate) } else { None }
    }

    /// Returns the records of each transaction, if the case sends in transactions.
    pub fn transaction(&self) -> Option<u64> {
        if let Work::Transact(records) = self.work { Some(records) } else { None }
    }

    pub fn is_latency(&self) -> bool {
        self.rate().is_some()
    }

    /// Returns the name of the topic, which contains the number of its partitions, so that cases
    /// can share a broker that keeps its topics.
    pub fn topic(&self) -> String {
        format!("peers-{}", self.partitions)
    }
}

pub const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("produce-100", 100, 4),
        Case::new("produce-1k", 1_000, 4),
        Case::new("produce-100-1p", 100, 1),
        Case::new("produce-100-64p", 100, 64),
        Case { keyed: true, ..Case::new("produce-100-keyed", 100, 4) },
    ];
    for (name, size) in [("produce-100", 100), ("produce-1k", 1_000)] {
        cases.extend(CODECS.map(|codec| Case { compression: codec, ..Case::new(&format!("{name}-{codec}"), size, 4) }));
    }
    cases.push(Case { work: Work::Latency(2_000), ..Case::new("latency-2000", 100, 4) });
    let consume = |name: &str, size, partitions| Case { work: Work::Consume, ..Case::new(name, size, partitions) };
    cases.extend([
        consume("consume-100", 100, 4),
        consume("consume-1k", 1_000, 4),
        consume("consume-100-1p", 100, 1),
        consume("consume-100-64p", 100, 64),
    ]);
    for (name, size) in [("consume-100", 100), ("consume-1k", 1_000)] {
        cases.extend(CODECS.map(|codec| Case { compression: codec, ..consume(&format!("{name}-{codec}"), size, 4) }));
    }
    cases.extend([
        Case { tls: true, ..Case::new("produce-1k-tls", 1_000, 4) },
        Case { tls: true, ..Case::new("produce-100-tls", 100, 4) },
        Case { tls: true, ..consume("consume-1k-tls", 1_000, 4) },
    ]);
    let transact =
        |records| Case { work: Work::Transact(records), ..Case::new(&format!("transact-{records}"), 100, 4) };
    cases.extend([100, 10_000].map(transact));
    cases
}

/// The kind of a client's runner, which decides how it is built and started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Runner {
    /// A package of this workspace, with a binary of that name.
    Rust(&'static str),
    Go,
    Java,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Client {
    pub name: &'static str,
    pub runner: Runner,
    /// Name of the way to send or to read, for a runner with several of them.
    pub api: Option<&'static str>,
    /// True if it sends (`produces`) and if it reads (`consumes`).
    pub produces: bool,
    pub consumes: bool,
    /// True if it sends in transactions.
    pub transacts: bool,
    /// True if its latency at a fixed rate differs from that of another client in the list.
    pub latency: bool,
    /// True if it compresses.
    pub compresses: bool,
    /// True if it takes part in the TLS cases.
    pub tls: bool,
    /// Minimum warm-up before it sends (`warmup`) and before it reads (`warmup_reading`).
    pub warmup: Duration,
    pub warmup_reading: Duration,
}

impl Client {
    const fn new(name: &'static str, runner: Runner) -> Self {
        Self {
            name,
            runner,
            api: None,
            produces: true,
            consumes: true,
            transacts: true,
            latency: true,
            compresses: true,
            tls: true,
            warmup: Duration::ZERO,
            warmup_reading: Duration::ZERO,
        }
    }

    pub fn runs(&self, case: &Case) -> bool {
        let works = match case.work {
            Work::Produce => self.produces,
            Work::Latency(_) => self.produces && self.latency,
            Work::Consume => self.consumes,
            Work::Transact(_) => self.transacts,
        };
        works && (case.compression == "none" || self.compresses) && (!case.tls || self.tls)
    }

    pub fn least_warmup(&self, case: &Case) -> Duration {
        if case.work == Work::Consume { self.warmup_reading } else { self.warmup }
    }

    /// Returns true if the name is neither Ottla's nor the limit's.
    pub fn is_other(name: &str) -> bool {
        !name.starts_with(OTTLA) && name != LIMIT
    }
}

pub const OTTLA: &str = "ottla";
/// Not a client, but the minimum cost of any client: one blocking socket, without compression and
/// without TLS.
pub const LIMIT: &str = "limit";

/// Warm-up after which a JVM has compiled the measured code: timed windows after 1, 3 and 6 s of
/// warm-up give 2.1, 3.1 and 2.9 million records per second for sending, and 4.7, 5.2 and 7.0 for
/// reading.
const COMPILED: Duration = Duration::from_secs(3);
const COMPILED_READING: Duration = Duration::from_secs(8);

pub const CLIENTS: [Client; 8] = [
    Client::new(OTTLA, Runner::Rust("peers-ottla")),
    Client {
        api: Some("recv"),
        produces: false,
        transacts: false,
        ..Client::new("ottla-recv", Runner::Rust("peers-ottla"))
    },
    Client {
        api: Some("batch"),
        latency: false,
        consumes: false,
        transacts: false,
        ..Client::new("ottla-batch", Runner::Rust("peers-ottla"))
    },
    Client::new("rdkafka", Runner::Rust("peers-rdkafka")),
    Client::new("krafka", Runner::Rust("peers-krafka")),
    Client::new("franz-go", Runner::Go),
    Client { warmup: COMPILED, warmup_reading: COMPILED_READING, ..Client::new("java", Runner::Java) },
    Client { compresses: false, tls: false, transacts: false, ..Client::new(LIMIT, Runner::Rust("peers-limit")) },
];

/// Returns the clients of a case in the order of that round: in as many rounds as there are
/// clients, each client has each place once.
pub fn order<'a>(clients: &'a [Client], case: &Case, round: usize) -> Vec<&'a Client> {
    let mut order: Vec<&Client> = clients.iter().filter(|client| client.runs(case)).collect();
    if !order.is_empty() {
        let by = round % order.len();
        order.rotate_left(by);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_client_names_are_unique() {
        let mut names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
        names.extend(CLIENTS.map(|client| client.name.to_owned()));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn each_client_takes_every_position_once() {
        let case = &cases()[0];
        let count = order(&CLIENTS, case, 0).len();
        for place in 0..count {
            let mut names: Vec<&str> = (0..count).map(|round| order(&CLIENTS, case, round)[place].name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn latency_cases_skip_clients_without_latency() {
        let case = cases().into_iter().find(|case| case.is_latency()).unwrap();
        let names: Vec<&str> = order(&CLIENTS, &case, 1).iter().map(|client| client.name).collect();
        assert_eq!(names, ["rdkafka", "krafka", "franz-go", "java", "limit", "ottla"]);
        assert!(order(&CLIENTS[1..3], &case, 3).is_empty());
    }

    #[test]
    fn transact_cases_have_one_row_per_client() {
        let cases: Vec<Case> = cases().into_iter().filter(|case| case.transaction().is_some()).collect();
        assert_eq!(cases.iter().map(|case| &*case.name).collect::<Vec<_>>(), ["transact-100", "transact-10000"]);
        for case in &cases {
            let names: Vec<&str> = order(&CLIENTS, case, 0).iter().map(|client| client.name).collect();
            assert_eq!(names, ["ottla", "rdkafka", "krafka", "franz-go", "java"]);
        }
    }

    #[test]
    fn limit_skips_cases_with_compression() {
        for case in cases().iter().filter(|case| case.compression != "none") {
            assert!(order(&CLIENTS, case, 0).iter().all(|client| client.name != LIMIT), "{}", case.name);
        }
    }

    #[test]
    fn tls_cases_include_clients_but_no_limit() {
        let over_tls: Vec<Case> = cases().into_iter().filter(|case| case.tls).collect();
        let names: Vec<&str> = over_tls.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["produce-1k-tls", "produce-100-tls", "consume-1k-tls"]);
        for case in &over_tls {
            let clients: Vec<&str> = order(&CLIENTS, case, 0).iter().map(|client| client.name).collect();
            assert!(["ottla", "rdkafka", "krafka", "franz-go", "java"].iter().all(|name| clients.contains(name)));
            assert!(!clients.contains(&LIMIT), "{}", case.name);
            // The work is that of the case without TLS, so that the two can be compared.
            let plain = cases().into_iter().find(|one| one.name == case.name.trim_end_matches("-tls")).unwrap();
            assert_eq!(*case, Case { name: case.name.clone(), tls: true, ..plain });
        }
    }

    #[test]
    fn produce_and_consume_variants_stay_separate() {
        for case in cases() {
            let names: Vec<&str> = order(&CLIENTS, &case, 0).iter().map(|client| client.name).collect();
            let consumes = case.work == Work::Consume;
            assert_eq!(names.contains(&"ottla-recv"), consumes, "{}", case.name);
            assert!(!(names.contains(&"ottla-batch") && consumes), "{}", case.name);
            assert!(names.contains(&"ottla"), "{}", case.name);
        }
    }

    #[test]
    fn other_clients_exclude_ottla_and_limit() {
        let others: Vec<&str> =
            CLIENTS.iter().map(|client| client.name).filter(|name| Client::is_other(name)).collect();
        assert_eq!(others, ["rdkafka", "krafka", "franz-go", "java"]);
    }
}
