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

/// The program's source in a file of its own; it runs from there, which needs the compiler of a
/// whole JDK.
fn source() -> Result<Scratch, Error> {
    need("java")?;
    need("javac")?;
    let scratch = Scratch::new("transact")?;
    fs::write(scratch.path().join("Transact.java"), SOURCE).map_err(Error::io("writing Transact.java"))?;
    Ok(scratch)
}

impl Tools {
    /// Carries out a script of transactions through Java's client, a line after the other, each
    /// record acknowledged before the next line: `begin ID`, `send ID TOPIC PARTITION VALUE`,
    /// `commit ID`, `abort ID`. `-` for an id is a producer without transactions. What is open at
    /// the end stays open, until the id is used again or its timeout of a minute passes.
    ///
    /// # Errors
    /// `Unavailable` without a JDK; otherwise as [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn transact(&self, script: &str) -> Result<(), Error> {
        let scratch = source()?;
        let program = scratch.path().join("Transact.java");
        self.run(&program.to_string_lossy(), &[self.bootstrap(), "script"], script.as_bytes()).await.map(drop)
    }

    /// Starts producers of Java's that commit and abort at random, whatever happens to the brokers.
    ///
    /// # Errors
    /// `Unavailable` without a JDK; `Io`.
    pub fn transactional_load(&self, load: &Load<'_>) -> Result<RunningLoad, Error> {
        RunningLoad::start(self.jars(), self.bootstrap(), load)
    }
}

/// What [`Tools::transactional_load`] is to write.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Where to.
    pub topic: &'a str,
    /// How many partitions that has.
    pub partitions: usize,
    /// How many producers.
    pub producers: usize,
    /// Decides over sizes, places and ends of transactions.
    pub seed: u64,
    /// Milliseconds between the transactions of a producer.
    pub pause_ms: u32,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was committed.
    Committed,
    /// It was aborted, or will be.
    Aborted,
    /// Its commit got no answer.
    Unknown,
}

/// A transaction of a load, when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// How it ended.
    pub ending: Ending,
    /// Its producer, from 0.
    pub producer: usize,
    /// Its number, from 0 for each producer.
    pub number: u64,
    /// How many records it has in each partition. Their values are `producer:number:partition:n`, n
    /// from 0.
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

/// A load that runs. It ends when this is dropped, since its standard input does then.
#[derive(Debug)]
pub struct RunningLoad {
    child: Child,
    /// Open for as long as it is to go on.
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

    /// The transactions that have ended since this was asked last.
    ///
    /// # Errors
    /// `Garbled` for a line that says something else; `Io`.
    pub fn ended(&self) -> Result<Vec<Transaction>, Error> {
        self.lines.try_iter().map(read).collect()
    }

    /// Lets every producer finish its transaction, and gives those that had not been told. Blocks
    /// until the program has ended, which takes as long as the brokers keep it waiting.
    ///
    /// # Errors
    /// As [`ended`](Self::ended); `Ended` when the program failed.
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
        // It may have ended by itself; either way it must be reaped.
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
