//! Builds the runners and the brokers, and makes their command lines.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    child,
    plan::{CLIENTS, Case, Client, Runner, Work},
    tuning,
};

/// The broker's package and binary in this workspace.
const SINK: (&str, &str) = ("peers-ottla", "broker");
/// The program that serves batches without end, in the same package.
const SOURCE: &str = "source";
/// The binary that is built from `go/`.
const GO_BINARY: &str = "peers-franz-go";
const JAVA_BUILD: &[&str] = &["-q", "-B", "package"];
/// The classpath below `java/`.
const JAVA_CLASSPATH: [&str; 2] = ["target/*", "target/dependency/*"];
const JAVA_CLASS: &str = "Peers";
/// The authority of the sink's certificate, below the main workspace.
const AUTHORITY: &str = "src/testkit/certificates/authority.pem";
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Time limit for filling a topic.
pub const FILL_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Bytes of values in a batch that is read, from the source as from a real Kafka.
const SOURCE_BATCH: usize = 64 * 1024;

/// The directories of the comparison.
pub struct Places {
    /// This workspace.
    peers: PathBuf,
    /// The directory of this program, in which cargo puts the runners too.
    binaries: PathBuf,
}

impl Places {
    pub fn look() -> Result<Self, String> {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR"));
        let peers = driver.parent().ok_or("the driver is in no workspace")?.to_owned();
        let me = env::current_exe().map_err(|error| error.to_string())?;
        let binaries = me.parent().ok_or("this program has no directory")?.to_owned();
        Ok(Self { peers, binaries })
    }

    pub fn default_out(&self) -> PathBuf {
        self.binaries.parent().unwrap_or(&self.binaries).join("peers")
    }

    pub fn build_sink(&self) -> Result<(), String> {
        self.cargo(&self.peers, &["--release", "-p", SINK.0])
    }

    /// Returns the command of the broker for a case: the sink, or for reading the source, which
    /// makes its batches of the same values.
    pub fn sink(&self, case: &Case, values: &Path) -> Command {
        if case.work == Work::Consume {
            let mut command = Command::new(self.binaries.join(SOURCE));
            command.args(["--topic", &case.topic(), "--partitions", &case.partitions.to_string()]);
            command.args(["--size", &case.size.to_string(), "--compression", case.compression]);
            command.arg("--values").arg(values);
            if case.tls {
                command.args(["--tls", "true"]);
            }
            return command;
        }
        let mut command = Command::new(self.binaries.join(SINK.1));
        command.args(["--sink", "--topic", &format!("{}:{}", case.topic(), case.partitions)]);
        if case.transaction().is_some() {
            // That of a real Kafka: clients that know transactions v2 use them.
            command.args(["--feature", "transaction.version=2"]);
        }
        if case.tls {
            command.arg("--tls");
        }
        command
    }

    /// Builds the launcher of a real Kafka in the main workspace.
    pub fn build_launcher(&self) -> Result<(), String> {
        self.cargo(&self.root(), &["-p", "protocol-tests", "--bin", "kafka"])
    }

    /// Returns the launcher's command. Topics are created on their first use, with the case's
    /// number of partitions.
    pub fn launcher(&self, case: &Case) -> Command {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root().join("target"), PathBuf::from);
        let mut command = Command::new(target.join("debug/kafka"));
        command.current_dir(self.root());
        command.args(["--config", &format!("num.partitions={}", case.partitions)]);
        if case.work != Work::Consume {
            // The records of such a case are not read, so that they need not fill the disk.
            command.args(["--config", "log.retention.bytes=268435456"]);
            command.args(["--config", "log.retention.check.interval.ms=5000"]);
        }
        command
    }

    /// Builds all that the client needs.
    pub fn build(&self, client: &Client) -> Result<(), String> {
        match client.runner {
            Runner::Rust(package) => {
                let name = package.strip_prefix("peers-").unwrap_or(package);
                self.source(&format!("runners/{name}"))?;
                self.cargo(&self.peers, &["--release", "-p", package])
            }
            Runner::Go => {
                let source = self.source("go")?;
                let mut go = Command::new("go");
                go.args(["build", "-o"]).arg(self.binaries.join(GO_BINARY)).arg(".").current_dir(source);
                child::output(&mut go, BUILD_LIMIT).map(drop)
            }
            Runner::Java => {
                let source = self.source("java")?;
                child::output(Command::new("mvn").args(JAVA_BUILD).current_dir(source), BUILD_LIMIT).map(drop)
            }
        }
    }

    /// Returns the command that fills the topic of a reading case with `records` records: through
    /// Ottla, in batches of the source's size.
    pub fn fill(&self, case: &Case, bootstrap: &str, values: &Path, records: u64) -> Command {
        let writing = Case { work: Work::Produce, ..case.clone() };
        let given = Given { bootstrap, values, warmup: Duration::ZERO, timed: FILL_LIMIT, records: Some(records) };
        let mut command = self.run(&CLIENTS[0], &writing, &given);
        command.args(["--batch-size", &SOURCE_BATCH.to_string()]);
        command
    }

    /// Returns the command line of one run, which is the same for every client.
    pub fn run(&self, client: &Client, case: &Case, given: &Given) -> Command {
        let mut command = match client.runner {
            Runner::Rust(binary) => Command::new(self.binaries.join(binary)),
            Runner::Go => Command::new(self.binaries.join(GO_BINARY)),
            Runner::Java => {
                let mut java = Command::new("java");
                let path = JAVA_CLASSPATH.map(|part| self.peers.join("java").join(part).display().to_string());
                java.args(["-cp", &path.join(":"), JAVA_CLASS]);
                java
            }
        };
        command.args(arguments(client, case, given)).arg("--values").arg(given.values);
        if case.tls {
            command.arg("--ca").arg(self.root().join(AUTHORITY));
        }
        command
    }

    fn source(&self, below: &str) -> Result<PathBuf, String> {
        let source = self.peers.join(below);
        if source.is_dir() { Ok(source) } else { Err(format!("there is no {below}/")) }
    }

    fn root(&self) -> PathBuf {
        self.peers.join("../..")
    }

    fn cargo(&self, workspace: &Path, args: &[&str]) -> Result<(), String> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "-q", "--locked"]).args(args).current_dir(workspace);
        child::output(&mut cargo, BUILD_LIMIT).map(drop)
    }
}

/// The arguments of a run besides client and case.
pub struct Given<'a> {
    pub bootstrap: &'a str,
    pub values: &'a Path,
    pub warmup: Duration,
    pub timed: Duration,
    /// Maximum number of records, if the time does not end the run before.
    pub records: Option<u64>,
}

fn arguments(client: &Client, case: &Case, given: &Given) -> Vec<String> {
    let mode = match case.work {
        Work::Produce => "produce",
        Work::Latency(_) => "latency",
        Work::Consume => "consume",
        Work::Transact(_) => "transact",
    };
    let mut args = vec![mode.to_owned()];
    let mut add = |name: &str, value: String| args.extend([name.to_owned(), value]);
    add("--bootstrap-server", given.bootstrap.to_owned());
    add("--topic", case.topic());
    add("--partitions", case.partitions.to_string());
    add("--size", case.size.to_string());
    add("--compression", case.compression.to_owned());
    add("--keyed", case.keyed.to_string());
    add("--warmup", given.warmup.as_secs_f64().to_string());
    add("--seconds", given.timed.as_secs_f64().to_string());
    if case.work != Work::Consume {
        let level = tuning::level(client.name, case.compression);
        level.into_iter().for_each(|level| add("--level", level.to_string()));
        let bytes = tuning::batch_size(client.name, case.compression);
        bytes.into_iter().for_each(|bytes| add("--batch-size", bytes.to_string()));
    }
    if let Some(records) = given.records {
        add("--records", records.to_string());
    }
    if let Some(rate) = case.rate() {
        add("--rate", rate.to_string());
    }
    if let Some(records) = case.transaction() {
        add("--transaction", records.to_string());
    }
    if let Some(api) = client.api {
        add("--api", api.to_owned());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;

    fn line(client: usize, case: &str) -> String {
        let case = plan::cases().into_iter().find(|one| one.name == case).unwrap();
        let given = Given {
            bootstrap: "b:1",
            values: Path::new("v"),
            warmup: Duration::from_millis(300),
            timed: Duration::from_millis(1_500),
            records: None,
        };
        arguments(&plan::CLIENTS[client], &case, &given).join(" ")
    }

    #[test]
    fn command_line_contains_case_and_settings() {
        assert_eq!(
            line(0, "produce-100"),
            "produce --bootstrap-server b:1 --topic peers-4 --partitions 4 --size 100 --compression none --keyed false \
             --warmup 0.3 --seconds 1.5 --batch-size 262144"
        );
        assert!(line(5, "latency-2000").starts_with("latency ") && line(5, "latency-2000").contains("--rate 2000"));
        assert!(line(6, "produce-1k-zstd").contains("--size 1000 --compression zstd"));
        assert!(line(6, "produce-1k-zstd").ends_with("--level 3 --batch-size 262144"));
        assert!(line(1, "consume-100").starts_with("consume ") && line(1, "consume-100").ends_with("--api recv"));
        assert!(line(0, "transact-10000").starts_with("transact "));
        assert!(line(0, "transact-10000").ends_with("--batch-size 262144 --transaction 10000"));
        assert!(line(3, "produce-100-keyed").contains("--keyed true"));
    }

    #[test]
    fn fills_topic_before_consume_case() {
        let case = plan::cases().into_iter().find(|one| one.name == "consume-1k-zstd").unwrap();
        let command = Places::look().unwrap().fill(&case, "b:1", Path::new("v"), 3_000);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = words.join(" ");
        assert!(
            line.starts_with("produce --bootstrap-server b:1 --topic peers-4 --partitions 4 --size 1000"),
            "{line}"
        );
        assert!(line.contains("--compression zstd") && line.contains("--records 3000"), "{line}");
        assert!(line.ends_with("--values v --batch-size 65536"), "{line}");
    }

    #[test]
    fn transact_cases_enable_transactions_v2() {
        let places = Places::look().unwrap();
        for case in plan::cases() {
            let sink = places.sink(&case, Path::new("v"));
            let enabled = sink.get_args().any(|word| word == "transaction.version=2");
            assert_eq!(enabled, case.transaction().is_some(), "{}", case.name);
        }
    }

    #[test]
    fn tls_cases_configure_sink_and_client() {
        let places = Places::look().unwrap();
        let words = |command: Command| -> Vec<String> {
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        let given = Given {
            bootstrap: "b:1",
            values: Path::new("v"),
            warmup: Duration::ZERO,
            timed: Duration::ZERO,
            records: None,
        };
        for case in plan::cases() {
            let sink = words(places.sink(&case, Path::new("v")));
            assert_eq!(sink.iter().any(|word| word == "--tls"), case.tls, "{}", case.name);
            for client in plan::CLIENTS.iter().filter(|client| client.runs(&case)) {
                let run = words(places.run(client, &case, &given));
                let authority = run.iter().skip_while(|word| *word != "--ca").nth(1);
                assert_eq!(authority.is_some(), case.tls, "{} in {}", client.name, case.name);
                assert!(authority.is_none_or(|file| Path::new(file).is_file()), "{authority:?}");
            }
        }
    }
}
