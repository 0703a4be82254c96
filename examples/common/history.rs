//! Writes the events of a copier as a history for `history-checker`, whose README documents the
//! format.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
};

use ottla::{DeliveryStatus, Error, RecordMetadata, TopicPartition};

use super::json::text;

/// The file of a history. Each event is in the file when its method returns, so that a process that
/// is killed leaves a history of all that it did.
pub struct History {
    file: Option<File>,
    client: String,
    /// The lines that one call writes together.
    lines: String,
}

/// The end of a transaction, as the program learned it.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Committed,
    Aborted,
    Unknown,
}

impl History {
    /// Appends to the file at `path`; without one, nothing is written. `client` names this process.
    pub fn open(path: Option<&str>, client: String) -> io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        let mut history = Self { file, client, lines: String::new() };
        history.line(r#"{"type":"history","version":1}"#.to_owned());
        history.write()?;
        Ok(history)
    }

    /// Returns the name of the transaction with that number.
    fn transaction(&self, number: u64) -> String {
        text(&format!("{}/{number}", self.client))
    }

    pub fn seek(&mut self, partition: &TopicPartition) -> io::Result<()> {
        self.line(format!(r#"{{"type":"seek",{}}}"#, self.place(partition)));
        self.write()
    }

    fn place(&self, TopicPartition { topic, partition }: &TopicPartition) -> String {
        format!(r#""client":{},"topic":{},"partition":{partition}"#, text(&self.client), text(topic))
    }

    /// Notes the beginning of a transaction, and the records that it copies.
    pub fn begin<'r>(
        &mut self,
        number: u64,
        polled: impl IntoIterator<Item = (&'r TopicPartition, Vec<(i64, &'r [u8])>)>,
    ) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let transaction = self.transaction(number);
        self.line(format!(r#"{{"type":"begin","client":{},"transaction":{transaction}}}"#, text(&self.client)));
        for (partition, records) in polled {
            let records: Vec<String> = records.iter().map(|(at, value)| format!("[{at},{}]", id(value))).collect();
            let (place, records) = (self.place(partition), records.join(","));
            self.line(format!(
                r#"{{"type":"poll","isolation":"read_committed",{place},"transaction":{transaction},"records":[{records}]}}"#
            ));
        }
        self.write()
    }

    pub fn send(&mut self, number: u64, to: &TopicPartition, value: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let (place, transaction) = (self.place(to), self.transaction(number));
        self.line(format!(r#"{{"type":"send",{place},"value":{},"transaction":{transaction}}}"#, id(value)));
        self.write()
    }

    pub fn report(&mut self, topic: &str, value: &[u8], result: &Result<RecordMetadata, Error>) {
        let record = format!(r#""client":{},"topic":{},"value":{}"#, text(&self.client), text(topic), id(value));
        self.line(match result {
            Ok(at) => {
                let (partition, offset) = (at.partition, at.offset.unwrap_or(-1));
                format!(r#"{{"type":"acknowledged",{record},"partition":{partition},"offset":{offset}}}"#)
            }
            Err(error) if error.delivery_status() == Some(DeliveryStatus::NotPersisted) => {
                format!(r#"{{"type":"failed",{record}}}"#)
            }
            Err(_) => format!(r#"{{"type":"unknown",{record}}}"#),
        });
    }

    pub fn offset(&mut self, number: u64, group: &str, of: &TopicPartition, offset: i64) -> io::Result<()> {
        let (transaction, group, TopicPartition { topic, partition }) = (self.transaction(number), text(group), of);
        let topic = text(topic);
        self.line(format!(
            r#"{{"type":"offset","transaction":{transaction},"group":{group},"topic":{topic},"partition":{partition},"offset":{offset}}}"#
        ));
        self.write()
    }

    /// Notes that the commit is about to be requested.
    pub fn commit(&mut self, number: u64) -> io::Result<()> {
        self.line(format!(r#"{{"type":"commit","transaction":{}}}"#, self.transaction(number)));
        self.write()
    }

    /// Notes the end of a transaction, after the reports of its records.
    pub fn outcome(&mut self, number: u64, ending: Ending) -> io::Result<()> {
        let (transaction, outcome) = (self.transaction(number), format!("{ending:?}").to_lowercase());
        self.line(format!(r#"{{"type":"outcome","transaction":{transaction},"outcome":"{outcome}"}}"#));
        self.write()
    }

    fn line(&mut self, line: String) {
        self.lines.push_str(&line);
        self.lines.push('\n');
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(self.lines.as_bytes())?;
        }
        self.lines.clear();
        Ok(())
    }
}

/// Returns a record's id: its value as text.
fn id(value: &[u8]) -> String {
    text(&String::from_utf8_lossy(value))
}
