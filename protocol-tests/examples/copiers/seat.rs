//! The place of one copier, which one process after the other takes.

use std::path::{Path, PathBuf};

use protocol_tests::{Jars, Program};

use crate::Failure;
use crate::args::Args;

/// Everything that a copier needs to start.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) bootstrap: String,
    /// The topics, in the order of the chain.
    pub(crate) topics: Vec<String>,
    /// The group of each stage.
    pub(crate) groups: Vec<String>,
    pub(crate) jars: Jars,
    /// The directory of the histories of each process.
    pub(crate) histories: PathBuf,
    pub(crate) args: Args,
}

/// The place of one copier.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) stage: usize,
    pub(crate) partition: usize,
    pub(crate) java: bool,
    /// Number of processes so far.
    pub(crate) starts: u64,
}

impl Seat {
    pub(crate) fn name(&self) -> String {
        format!("copier {}.{} ({})", self.stage, self.partition, if self.java { "java" } else { "ottla" })
    }

    /// Starts another process, with the transactional id of those before it.
    pub(crate) fn start(&mut self, orders: &Orders) -> Result<Program, Failure> {
        self.starts += 1;
        let (stage, partition) = (self.stage, self.partition);
        let mut options: Vec<String> = [
            ("--broker-list", orders.bootstrap.clone()),
            ("--input-topic", orders.topics[stage].clone()),
            ("--input-partition", partition.to_string()),
            ("--output-topic", orders.topics[stage + 1].clone()),
            ("--consumer-group", orders.groups[stage].clone()),
            ("--transactional-id", format!("{}-{partition}", orders.topics[stage + 1])),
            ("--transaction-size", orders.args.transaction_size.to_string()),
            // Short, so that the coordinator aborts transactions of processes that are frozen.
            ("--transaction-timeout", "10000".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        options.push("--enable-random-aborts".to_owned());
        if orders.args.group_mode {
            options.extend(["--group-mode", "--use-group-metadata"].map(str::to_owned));
        }
        if self.java {
            let class = "org.apache.kafka.tools.TransactionalMessageCopier";
            return Ok(Program::java(&self.name(), &orders.jars, class, &options)?);
        }
        let file = orders.histories.join(format!("{stage}.{partition}.{:04}.jsonl", self.starts));
        options.extend(["--history".to_owned(), file.display().to_string()]);
        Ok(Program::spawn(&self.name(), ottla_copier()?, &options)?)
    }
}

fn ottla_copier() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name("transactional_message_copier");
    if Path::is_file(&path) {
        return Ok(path);
    }
    Err(format!("{} is missing: run `cargo build --examples`, in the same profile", path.display()).into())
}
