//! Kafka's own command line clients, run from the same jars as the brokers.
//!
//! Each is a JVM of its own that takes a second or two, so tests use them only to check that Java's
//! client reads records that Ottla wrote, and writes records that Ottla reads.

use std::fs::{self, File};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::{Error, tail};
use crate::jars::Jars;
use crate::kafka::QUICK_JVM;
use crate::leashed::Launch;
use crate::message::{Consumed, Message};
use crate::node::LOGGING;
use crate::places::Scratch;

/// Limit of concurrent JVMs for tools, so that tests in parallel stay within memory.
static FREE: Semaphore = Semaphore::const_new(2);
const TIMEOUT: Duration = Duration::from_secs(90);

// The console clients speak text. These control characters of ASCII, which are meant for it,
// separate its parts.
const FIELD: char = '\u{1f}';
const RECORD: char = '\u{1e}';
const HEADER: char = '\u{1d}';
const NULL: &str = "\u{1a}";

/// Kafka's tools for one cluster. Made by [`crate::Kafka::tools`], or by hand for any address.
#[derive(Clone, Debug)]
pub struct Tools {
    jars: Jars,
    bootstrap: String,
    timeout: Duration,
}

/// Output of a tool that ended successfully.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Returns its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// One partition, as Kafka's topic tool describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its number.
    pub partition: i32,
    /// The leading broker; `None` if there is none.
    pub leader: Option<i32>,
    /// The brokers that keep a copy.
    pub replicas: Vec<i32>,
    /// The brokers with a complete copy.
    pub in_sync: Vec<i32>,
}

impl Tools {
    /// Creates the tools of these jars for a cluster at this address.
    pub fn new(jars: Jars, bootstrap: impl Into<String>) -> Self {
        Self { jars, bootstrap: bootstrap.into(), timeout: TIMEOUT }
    }

    /// Returns the same tools for another address, such as that of another listener.
    #[must_use]
    pub fn at(mut self, bootstrap: impl Into<String>) -> Self {
        self.bootstrap = bootstrap.into();
        self
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub(crate) fn jars(&self) -> &Jars {
        &self.jars
    }

    /// Sets the timeout of a tool; default 90 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs any of Kafka's classes with these arguments and this standard input.
    ///
    /// # Errors
    /// `Ended` when it fails, with its output; `TimedOut` when it had to be killed.
    ///
    /// # Cancel safety
    /// When the future is dropped early, the process is killed.
    pub async fn run(&self, class: &str, args: &[&str], input: &[u8]) -> Result<Output, Error> {
        let deadline = Instant::now() + self.timeout;
        let timed_out = |log| Error::TimedOut { what: class.to_owned(), after: self.timeout, log };
        let Ok(Ok(_seat)) = tokio::time::timeout_at(deadline, FREE.acquire()).await else {
            return Err(timed_out(String::new()));
        };
        let scratch = Scratch::new("tool")?;
        let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| scratch.path().join(name));
        let start = || {
            fs::write(&stdin, input)?;
            Launch::new("java")
                .args(QUICK_JVM)
                .args(LOGGING)
                .args([
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    "-Xmx192m",
                    "-cp",
                    &self.jars.class_path(),
                    class,
                ])
                .args(args)
                .input(&stdin)
                .spawn(File::create(&stdout)?, File::create(&stderr)?)
        };
        let mut process = start().map_err(Error::io(format!("starting {class}")))?;
        let ended = process.wait_until(deadline).await.map_err(Error::io(format!("waiting for {class}")))?;
        let log = || tail(&[stdout.clone(), stderr.clone()]);
        match ended {
            None => Err(timed_out(log())),
            Some(status) if !status.success() => Err(Error::Ended { what: class.to_owned(), status, log: log() }),
            Some(_) => {
                let read = || -> std::io::Result<Output> {
                    Ok(Output { stdout: fs::read(&stdout)?, stderr: fs::read(&stderr)? })
                };
                read().map_err(Error::io(format!("reading what {class} wrote")))
            }
        }
    }

    /// Returns the first of these classes that this version of Kafka has: its tools have moved.
    pub(crate) fn class<'a>(&self, candidates: &[&'a str]) -> Result<&'a str, Error> {
        self.jars.first_class(candidates)
    }

    /// Creates a topic with `TopicCommand`. [`crate::Kafka::create_topic`] is quicker.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn create_topic(&self, name: &str, partitions: u32, replicas: u32) -> Result<(), Error> {
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        let args = ["--create", "--topic", name, "--partitions", &partitions, "--replication-factor", &replicas];
        self.topics(&args).await.map(drop)
    }

    /// Deletes a topic with `TopicCommand`.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.topics(&["--delete", "--topic", name]).await.map(drop)
    }

    /// Returns the names of all topics, by `TopicCommand`.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn list_topics(&self) -> Result<Vec<String>, Error> {
        Ok(self.topics(&["--list"]).await?.text().lines().map(str::to_owned).collect())
    }

    /// Returns a topic's partitions, by `TopicCommand`.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and `Garbled`.
    pub async fn describe_topic(&self, name: &str) -> Result<Vec<Described>, Error> {
        let text = self.topics(&["--describe", "--topic", name]).await?.text();
        text.lines()
            .filter(|line| line.contains("Partition: "))
            .map(|line| {
                described(line).ok_or_else(|| Error::Garbled { what: "TopicCommand".into(), answer: line.to_owned() })
            })
            .collect()
    }

    /// Runs `ConfigCommand` for this cluster with these arguments.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn configs(&self, args: &[&str]) -> Result<Output, Error> {
        let class = self.jars.first_class(&["org.apache.kafka.tools.ConfigCommand", "kafka.admin.ConfigCommand"])?;
        self.run(class, &[&["--bootstrap-server", &self.bootstrap], args].concat(), b"").await
    }

    async fn topics(&self, args: &[&str]) -> Result<Output, Error> {
        let class = self.jars.first_class(&["org.apache.kafka.tools.TopicCommand", "kafka.admin.TopicCommand"])?;
        self.run(class, &[&["--bootstrap-server", &self.bootstrap], args].concat(), b"").await
    }

    /// Produces through Java's client, with these producer settings, such as `("compression.type",
    /// "zstd")`.
    ///
    /// # Errors
    /// `Unfit` for messages with newlines, or with the control characters that separate fields,
    /// because the console's text cannot carry them; otherwise those of [`run`](Self::run).
    pub async fn produce(&self, topic: &str, messages: &[Message], configs: &[(&str, &str)]) -> Result<(), Error> {
        let class =
            self.jars.first_class(&["org.apache.kafka.tools.ConsoleProducer", "kafka.tools.ConsoleProducer"])?;
        let with_headers = messages.iter().any(|message| !message.headers.is_empty());
        let mut lines = Vec::new();
        for message in messages {
            line(message, with_headers, &mut lines)?;
        }
        let (reader, config) = if self.since_4_2() {
            ("--reader-property", "--command-property")
        } else {
            ("--property", "--producer-property")
        };
        let mut properties = vec![
            "parse.key=true".to_owned(),
            format!("parse.headers={with_headers}"),
            format!("key.separator={FIELD}"),
            format!("headers.delimiter={FIELD}"),
            format!("headers.separator={HEADER}"),
            "headers.key.separator=:".to_owned(),
            format!("null.marker={NULL}"),
        ];
        let mut args = vec!["--bootstrap-server", &self.bootstrap, "--topic", topic];
        // Otherwise its reader of lines would send a batch only every 100 ms.
        let configs: Vec<String> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        for property in &mut properties {
            args.extend([reader, property.as_str()]);
        }
        for property in &configs {
            args.extend([config, property.as_str()]);
        }
        // The tool prints "error" and ends successfully when a record could not be delivered.
        let output = self.run(class, &args, &lines).await?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        if complaints.contains("ERROR") {
            return Err(Error::Garbled { what: "ConsoleProducer".into(), answer: complaints.into_owned() });
        }
        Ok(())
    }

    /// Consumes `count` messages from the start of a topic through Java's client, with these
    /// consumer settings, such as `("isolation.level", "read_committed")`.
    ///
    /// # Errors
    /// `TimedOut` when fewer arrived; `Garbled`; otherwise those of [`run`](Self::run).
    pub async fn consume(&self, topic: &str, count: usize, configs: &[(&str, &str)]) -> Result<Vec<Consumed>, Error> {
        let classes = [
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            "org.apache.kafka.tools.ConsoleConsumer",
            "kafka.tools.ConsoleConsumer",
        ];
        let class = self.jars.first_class(&classes)?;
        let (formatter, config) = if self.since_4_2() {
            ("--formatter-property", "--command-property")
        } else {
            ("--property", "--consumer-property")
        };
        let properties = [
            "print.timestamp=true".to_owned(),
            "print.partition=true".to_owned(),
            "print.offset=true".to_owned(),
            "print.headers=true".to_owned(),
            "print.key=true".to_owned(),
            "print.value=true".to_owned(),
            format!("key.separator={FIELD}"),
            format!("line.separator={RECORD}"),
            format!("headers.separator={HEADER}"),
            format!("null.literal={NULL}"),
        ];
        let configs: Vec<String> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let count_text = count.to_string();
        // A little less than the tool's own timeout, so that it ends by itself and prints the
        // records that it has.
        let patience = (self.timeout * 3 / 4).as_millis().to_string();
        let mut args = vec!["--bootstrap-server", &self.bootstrap, "--topic", topic, "--from-beginning"];
        args.extend(["--max-messages", &count_text, "--timeout-ms", &patience]);
        for property in &properties {
            args.extend([formatter, property.as_str()]);
        }
        for property in &configs {
            args.extend([config, property.as_str()]);
        }
        let output = self.run(class, &args, b"").await?;
        let records = output.stdout.strip_suffix(&[RECORD as u8]).unwrap_or(&output.stdout);
        let records = records.split(|byte| *byte == RECORD as u8).filter(|record| !record.is_empty());
        let consumed: Option<Vec<Consumed>> = records.map(consumed).collect();
        match consumed {
            Some(consumed) if consumed.len() == count => Ok(consumed),
            Some(consumed) => Err(Error::TimedOut {
                what: format!("ConsoleConsumer, with {} of {count} messages", consumed.len()),
                after: self.timeout * 3 / 4,
                log: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            None => Err(Error::Garbled { what: "ConsoleConsumer".into(), answer: output.text() }),
        }
    }

    /// Returns true from 4.2 on, in which KIP-1147 renamed the options for properties.
    fn since_4_2(&self) -> bool {
        self.jars.version().number >= (4, 2, 0)
    }
}

/// Writes one line for `ConsoleProducer`: headers, key, value.
fn line(message: &Message, with_headers: bool, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut part = |bytes: Option<&[u8]>, end: char| -> Result<(), Error> {
        let bytes = bytes.unwrap_or(NULL.as_bytes());
        let separators = [b'\n', b'\r', FIELD as u8, RECORD as u8, HEADER as u8];
        if bytes.iter().any(|byte| separators.contains(byte)) || std::str::from_utf8(bytes).is_err() {
            return Err(Error::Unfit(format!("the console producer cannot carry {}", bytes.escape_ascii())));
        }
        out.extend(bytes);
        out.push(end as u8);
        Ok(())
    };
    if with_headers {
        let Some((last, others)) = message.headers.split_last() else {
            part(None, FIELD)?;
            part(message.key.as_deref(), FIELD)?;
            return part(message.value.as_deref(), '\n');
        };
        for (name, value) in others {
            part(Some(name.as_bytes()), ':')?;
            part(value.as_deref(), HEADER)?;
        }
        part(Some(last.0.as_bytes()), ':')?;
        part(last.1.as_deref(), FIELD)?;
    }
    part(message.key.as_deref(), FIELD)?;
    part(message.value.as_deref(), '\n')
}

/// Parses one record of `ConsoleConsumer`, which prints keys, values and headers as raw bytes.
fn consumed(record: &[u8]) -> Option<Consumed> {
    let fields: Vec<&[u8]> = record.split(|byte| *byte == FIELD as u8).collect();
    let (facts, [headers, key, value]) = fields.split_last_chunk::<3>()?;
    let facts: Vec<&str> = facts.iter().map(|fact| std::str::from_utf8(fact)).collect::<Result<_, _>>().ok()?;
    let fact = |name: &str| facts.iter().find_map(|fact| fact.strip_prefix(name));
    let bytes = |bytes: &[u8]| (bytes != NULL.as_bytes()).then(|| bytes.to_vec());
    let headers = match *headers {
        b"NO_HEADERS" => Vec::new(),
        headers => headers
            .split(|byte| *byte == HEADER as u8)
            .map(|header| {
                let colon = header.iter().position(|byte| *byte == b':')?;
                let name = std::str::from_utf8(&header[..colon]).ok()?;
                Some((name.to_owned(), bytes(&header[colon + 1..])))
            })
            .collect::<Option<_>>()?,
    };
    let timestamp = match fact("CreateTime:").or_else(|| fact("LogAppendTime:")) {
        Some(time) => time.parse().ok()?,
        None => -1,
    };
    Some(Consumed {
        partition: fact("Partition:")?.parse().ok()?,
        offset: fact("Offset:")?.parse().ok()?,
        timestamp,
        message: Message { key: bytes(key), value: bytes(value), headers },
    })
}

/// Parses one partition's line: `Topic: t  Partition: 0  Leader: 1  Replicas: 1,2  Isr: 1,2 …`.
fn described(line: &str) -> Option<Described> {
    let fact = |name: &str| line.split('\t').find_map(|fact| fact.trim().strip_prefix(name)).map(str::trim);
    let ids = |text: &str| -> Option<Vec<i32>> {
        text.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().ok()).collect()
    };
    Some(Described {
        partition: fact("Partition: ")?.parse().ok()?,
        leader: fact("Leader:")?.parse().ok(),
        replicas: ids(fact("Replicas:")?)?,
        in_sync: ids(fact("Isr:")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_line_of_topic_description() {
        let line = "\tTopic: t\tPartition: 2\tLeader: none\tReplicas: 2,0,1\tIsr: 0\tElr: \tLastKnownElr: ";
        let expected = Described { partition: 2, leader: None, replicas: vec![2, 0, 1], in_sync: vec![0] };
        assert_eq!(described(line), Some(expected));
        assert_eq!(described("\tTopic: t\tPartitionCount: 3"), None);
    }

    #[test]
    fn rejects_text_unsupported_by_console_producer() {
        let mut out = Vec::new();
        assert!(matches!(line(&Message::value("two\nlines"), false, &mut out), Err(Error::Unfit(_))));
        assert!(matches!(line(&Message::value([0xff]), false, &mut out), Err(Error::Unfit(_))));
    }

    #[test]
    fn reads_record_printed_by_console_consumer() {
        let text = b"CreateTime:12\x1fPartition:1\x1fOffset:7\x1fa:1\x1db:\x1a\x1f\x1a\x1fv\xff";
        let record = consumed(text).expect("a record");
        assert_eq!((record.partition, record.offset, record.timestamp), (1, 7, 12));
        assert_eq!(record.message.headers, [("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)]);
        assert_eq!((record.message.key, record.message.value), (None, Some(b"v\xff".to_vec())));
        assert_eq!(consumed(b"Processed"), None);
    }
}
