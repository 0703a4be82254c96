//! Transactions written by Kafka's own client, for which its console tools have no options.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::error::Error;
use crate::jars::{Jars, need};
use crate::kafka::QUICK_JVM;
use crate::places::Scratch;
use crate::tools::Tools;

const SOURCE: &str = include_str!("Transact.java");

/// Writes the program's source to a file, from which it runs; that needs the compiler of a whole
/// JDK.
fn source() -> Result<Scratch, Error> {
    need("java")?;
    need("javac")?;
    let scratch = Scratch::new("transact")?;
    fs::write(scratch.path().join("Transact.java"), SOURCE).map_err(Error::io("writing Transact.java"))?;
    Ok(scratch)
}

impl Tools {
    /// Runs a script of transactions with Java's client, one line after the other; each record is
    /// acknowledged before the next line: `begin ID`, `send ID TOPIC PARTITION VALUE`, `commit ID`,
    /// `abort ID`. `-` for an id is a producer without transactions. A transaction that is open at
    /// the end stays open until the id is used again or its timeout of a minute passes.
    ///
    /// # Errors
    /// `Unavailable` without a JDK; otherwise those of [`run`](Self::run).
    ///
    /// # Cancel safety
    /// When the future is dropped early, the process is killed.
    pub async fn transact(&self, script: &str) -> Result<(), Error> {
        let scratch = source()?;
        let program = scratch.path().join("Transact.java");
        self.run(&program.to_string_lossy(), &[self.bootstrap(), "script"], script.as_bytes()).await.map(drop)
    }

    /// Starts Java producers that commit and abort at random, whatever happens to the brokers.
    ///
    /// # Errors
    /// `Unavailable` without a JDK; `Io`.
    pub fn transactional_load(&self, load: &Load<'_>) -> Result<RunningLoad, Error> {
        RunningLoad::start(self.jars(), self.bootstrap(), load)
    }
}

/// Settings of [`Tools::transactional_load`].
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The topic to write to.
    pub topic: &'a str,
    /// The topic's number of partitions.
    pub partitions: usize,
    /// The number of producers.
    pub producers: usize,
    /// Determines sizes, places and ends of transactions.
    pub seed: u64,
    /// Milliseconds between the transactions of a producer.
    pub pause_ms: u32,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was committed.
    Committed,
    /// It was aborted, or will be.
    Aborted,
    /// Its commit got no response.
    Unknown,
}

/// A transaction of a load that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its end.
    pub ending: Ending,
    /// Its producer, from 0.
    pub producer: usize,
    /// Its number, from 0 for each producer.
    pub number: u64,
    /// The number of its records in each partition. Their values are `producer:number:partition:n`,
    /// n from 0.
    pub counts: Vec<u32>,
}

impl Transaction {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let ending = match parts.next()? {
            "committed" => Ending::Committed,
            "aborted" => Ending::Aborted,
            "unknown" => Ending::Unknown,
            _ => return None,
        };
        let (producer, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let counts = parts.next()?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { ending, producer, number, counts })
    }
}

/// A running load. It ends when this is dropped, because its standard input is closed then.
#[derive(Debug)]
pub struct RunningLoad {
    child: Child,
    /// Open as long as the load has to continue.
    input: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
    log: Scratch,
}

impl RunningLoad {
    fn start(jars: &Jars, bootstrap: &str, load: &Load<'_>) -> Result<Self, Error> {
        let scratch = source()?;
        let numbers = [load.partitions as u64, load.producers as u64, load.seed % (1 << 62), load.pause_ms.into()];
        let start = || -> std::io::Result<(Child, Option<(ChildStdin, _)>)> {
            let mut child = Command::new("java")
                .args(QUICK_JVM)
                .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-Xmx256m", "-cp", &jars.class_path()])
                .arg(scratch.path().join("Transact.java"))
                .args([bootstrap, "load", load.topic])
                .args(numbers.map(|number| number.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(File::create(scratch.path().join("stderr"))?)
                .spawn()?;
            let ends = child.stdin.take().zip(child.stdout.take());
            Ok((child, ends))
        };
        let (child, ends) = start().map_err(Error::io("starting Transact.java"))?;
        let Some((input, output)) = ends else {
            return Err(Error::Io {
                what: "starting Transact.java".into(),
                source: std::io::ErrorKind::BrokenPipe.into(),
            });
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input: Some(input), lines, log: scratch })
    }

    /// Returns the transactions that have ended since the last call.
    ///
    /// # Errors
    /// `Garbled` for any other line; `Io`.
    pub fn ended(&self) -> Result<Vec<Transaction>, Error> {
        self.lines.try_iter().map(read).collect()
    }

    /// Lets every producer finish its transaction, and returns those that were not returned before.
    /// Blocks until the program has ended, which depends on the brokers.
    ///
    /// # Errors
    /// Those of [`ended`](Self::ended); `Ended` when the program failed.
    pub fn finish(mut self) -> Result<Vec<Transaction>, Error> {
        drop(self.input.take());
        let rest = self.lines.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let status = self.child.wait().map_err(Error::io("waiting for Transact.java"))?;
        if status.success() {
            return Ok(rest);
        }
        let log = crate::error::tail(&[self.log.path().join("stderr")]);
        Err(Error::Ended { what: "Transact.java".into(), status, log })
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        // The program may have ended already; either way it must be reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(line: std::io::Result<String>) -> Result<Transaction, Error> {
    let line = line.map_err(Error::io("reading from Transact.java"))?;
    Transaction::parse(&line).ok_or(Error::Garbled { what: "Transact.java".into(), answer: line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_transaction_lines_and_rejects_others() {
        let read = Transaction::parse("unknown 2 17 0,3,1").expect("a transaction");
        let expected = Transaction { ending: Ending::Unknown, producer: 2, number: 17, counts: vec![0, 3, 1] };
        assert_eq!(read, expected);
        for bad in ["", "committed 1", "committed 1 2 x", "started 1 2 3"] {
            assert_eq!(Transaction::parse(bad), None, "{bad}");
        }
    }
}
