//! Batches of a partition's log, read by Kafka's `DumpLogSegments`, which checks each checksum and
//! decompresses each batch with Java's codecs.

use crate::error::Error;
use crate::node::Node;
use crate::tools::Tools;

/// One batch in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpedBatch {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The number of records in its header.
    pub count: i64,
    /// The producer's id; −1 without idempotence.
    pub producer_id: i64,
    /// The sequence number of its first record; −1 without idempotence.
    pub base_sequence: i64,
    /// The codec: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub codec: String,
    /// True if its timestamps are the broker's (`LogAppendTime`).
    pub append_time: bool,
    /// True if its checksum is right.
    pub is_valid: bool,
    /// Its records.
    pub records: Vec<DumpedRecord>,
}

/// One record of a [`DumpedBatch`]. Keys and values are printed as text, so only their sizes are
/// reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpedRecord {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Size of the key in bytes; −1 for null.
    pub key_size: i64,
    /// Size of the value in bytes; −1 for null.
    pub value_size: i64,
    /// The names of its headers, separated by commas.
    pub header_names: String,
}

/// Reads the first segment of some partitions' logs on a node, in one process. Returns the batches
/// of each.
///
/// # Errors
/// `Garbled`; otherwise those of [`Tools::run`].
///
/// # Cancel safety
/// When the future is dropped early, the process is killed.
pub async fn dump(tools: &Tools, node: &Node, partitions: &[(&str, i32)]) -> Result<Vec<Vec<DumpedBatch>>, Error> {
    let file = |(topic, partition): &(&str, i32)| {
        let log = node.data().join(format!("{topic}-{partition}")).join("00000000000000000000.log");
        log.display().to_string()
    };
    let files: Vec<String> = partitions.iter().map(file).collect();
    let class = tools.class(&["org.apache.kafka.tools.DumpLogSegments", "kafka.tools.DumpLogSegments"])?;
    let output = tools.run(class, &["--deep-iteration", "--print-data-log", "--files", &files.join(",")], b"").await?;
    let text = output.text();
    let mut logs: Vec<Vec<DumpedBatch>> = Vec::new();
    for line in text.lines() {
        let garbled = || Error::Garbled { what: "DumpLogSegments".into(), answer: line.chars().take(500).collect() };
        // Any other line is the rest of a value that contains line ends.
        if line.starts_with("Dumping ") {
            logs.push(Vec::new());
        } else if line.starts_with("baseOffset: ") {
            logs.last_mut().ok_or_else(garbled)?.push(batch(line).ok_or_else(garbled)?);
        } else if line.starts_with("| offset: ") {
            let batch = logs.last_mut().and_then(|log| log.last_mut()).ok_or_else(garbled)?;
            batch.records.push(record(line).ok_or_else(garbled)?);
        }
    }
    if logs.len() == partitions.len() {
        return Ok(logs);
    }
    Err(Error::Garbled { what: "DumpLogSegments".into(), answer: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// Returns the word after `name: `.
fn fact<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{name}: "))?;
    rest.split(' ').next()
}

fn number(line: &str, name: &str) -> Option<i64> {
    fact(line, name)?.parse().ok()
}

fn batch(line: &str) -> Option<DumpedBatch> {
    Some(DumpedBatch {
        base_offset: number(line, "baseOffset")?,
        count: number(line, "count")?,
        producer_id: number(line, "producerId")?,
        base_sequence: number(line, "baseSequence")?,
        codec: fact(line, "compresscodec")?.to_lowercase(),
        append_time: line.contains(" LogAppendTime: "),
        is_valid: fact(line, "isvalid")? == "true",
        records: Vec::new(),
    })
}

fn record(line: &str) -> Option<DumpedRecord> {
    let (_, names) = line.split_once("headerKeys: [")?;
    Some(DumpedRecord {
        offset: number(line, "| offset")?,
        timestamp: number(line, "CreateTime").or_else(|| number(line, "LogAppendTime"))?,
        key_size: number(line, "keySize")?,
        value_size: number(line, "valueSize")?,
        header_names: names.split_once(']')?.0.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_batch_and_record_lines() {
        let line = "baseOffset: 3 lastOffset: 4 count: 2 baseSequence: 0 lastSequence: 1 producerId: 1000 producerEpoch: 0 \
            partitionLeaderEpoch: 0 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty position: 0 \
            LogAppendTime: 12 size: 90 magic: 2 compresscodec: lz4 crc: 17 isvalid: true";
        let expected = DumpedBatch {
            base_offset: 3,
            count: 2,
            producer_id: 1000,
            codec: "lz4".to_owned(),
            append_time: true,
            is_valid: true,
            ..DumpedBatch::default()
        };
        assert_eq!(batch(line), Some(expected));
        let line =
            "| offset: 4 CreateTime: 7 keySize: -1 valueSize: 5 sequence: 0 headerKeys: [a,b] payload: x keySize: 9";
        let expected =
            DumpedRecord { offset: 4, timestamp: 7, key_size: -1, value_size: 5, header_names: "a,b".to_owned() };
        assert_eq!(record(line), Some(expected));
        assert_eq!(batch("baseOffset: x"), None);
    }
}
