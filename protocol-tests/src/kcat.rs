//! librdkafka, through `kcat`, if that is installed.

use std::fs::{self, File};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, tail};
use crate::jars::need;
use crate::leashed::Launch;
use crate::message::{Consumed, Message};
use crate::places::Scratch;

const TIMEOUT: Duration = Duration::from_secs(60);

/// `kcat` for one cluster.
#[derive(Clone, Debug)]
pub struct Kcat {
    bootstrap: String,
    timeout: Duration,
}

impl Kcat {
    /// Finds `kcat` on PATH.
    ///
    /// # Errors
    /// `Unavailable` when it is missing: its Debian package is called kcat.
    pub fn find(bootstrap: impl Into<String>) -> Result<Self, Error> {
        need("kcat")?;
        Ok(Self { bootstrap: bootstrap.into(), timeout: TIMEOUT })
    }

    /// Sets the timeout of one call; default 60 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs `kcat` with these arguments and this standard input, and returns its standard output.
    ///
    /// # Errors
    /// `Ended` when it fails, with its output; `TimedOut` when it had to be killed.
    ///
    /// # Cancel safety
    /// When the future is dropped early, the process is killed.
    pub async fn run(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
        let scratch = Scratch::new("kcat")?;
        let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| scratch.path().join(name));
        let start = || {
            fs::write(&stdin, input)?;
            Launch::new("kcat")
                .args(["-b", &self.bootstrap])
                .args(args)
                .input(&stdin)
                .spawn(File::create(&stdout)?, File::create(&stderr)?)
        };
        let mut process = start().map_err(Error::io("starting kcat"))?;
        let deadline = Instant::now() + self.timeout;
        let log = || tail(std::slice::from_ref(&stderr));
        match process.wait_until(deadline).await.map_err(Error::io("waiting for kcat"))? {
            Some(status) if status.success() => fs::read(&stdout).map_err(Error::io("reading what kcat wrote")),
            Some(status) => Err(Error::Ended { what: "kcat".into(), status, log: log() }),
            None => Err(Error::TimedOut { what: "kcat".into(), after: self.timeout, log: log() }),
        }
    }

    /// Produces each message with a call to librdkafka of its own, with these settings, such as
    /// `("compression.codec", "zstd")`.
    ///
    /// All messages have the headers of the first, because kcat takes them on its command line.
    ///
    /// # Errors
    /// `Unfit` for keys or values with the separators `\x1e` and `\x1f` in them, for a null
    /// together with an empty one, and for differing headers; otherwise those of
    /// [`run`](Self::run).
    pub async fn produce(&self, topic: &str, messages: &[Message], configs: &[(&str, &str)]) -> Result<(), Error> {
        let Some(first) = messages.first() else {
            return Ok(());
        };
        let mut input = Vec::new();
        for message in messages {
            let (key, value) = (message.key.as_deref(), message.value.as_deref());
            let bytes = || key.iter().chain(&value).flat_map(|bytes| bytes.iter());
            if message.headers != first.headers || bytes().any(|byte| matches!(byte, 0x1e | 0x1f)) {
                return Err(Error::Unfit(
                    "kcat takes one set of headers, and no \\x1e or \\x1f in keys and values".into(),
                ));
            }
            // With -Z it treats an empty key or value as null.
            if key.is_some_and(<[u8]>::is_empty) || value.is_some_and(<[u8]>::is_empty) {
                return Err(Error::Unfit("kcat cannot tell an empty key or value from null".into()));
            }
            input.extend(key.unwrap_or_default());
            input.push(0x1f);
            input.extend(value.unwrap_or_default());
            input.push(0x1e);
        }
        let mut args: Vec<String> =
            ["-P", "-t", topic, "-Z", "-K", "\u{1f}", "-D", "\u{1e}"].map(str::to_owned).to_vec();
        for (name, value) in &first.headers {
            let value = match value.as_deref().map(std::str::from_utf8) {
                None => name.clone(),
                Some(Ok(value)) => format!("{name}={value}"),
                Some(Err(_)) => {
                    return Err(Error::Unfit(format!("kcat takes text in headers, not that of {name}")));
                }
            };
            args.extend(["-H".to_owned(), value]);
        }
        push_configs(&mut args, configs);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.run(&args, &input).await.map(drop)
    }

    /// Consumes a topic from its start to its end, as it is now, with these settings. kcat
    /// separates headers by commas and ends them with the line, so these bytes must not be in them,
    /// and it prints a header's value up to its first zero.
    ///
    /// # Errors
    /// `Garbled`; otherwise those of [`run`](Self::run).
    pub async fn consume(&self, topic: &str, configs: &[(&str, &str)]) -> Result<Vec<Consumed>, Error> {
        // Lengths precede the bytes, so that any bytes can be parsed.
        let format = "%p %o %T %K %S %h\n%k%s\n";
        let mut args: Vec<String> =
            ["-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", format].map(str::to_owned).to_vec();
        push_configs(&mut args, configs);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = self.run(&args, b"").await?;
        let mut rest = output.as_slice();
        let mut all = Vec::new();
        while !rest.is_empty() {
            let record = consumed(&mut rest)
                .ok_or_else(|| Error::Garbled { what: "kcat".into(), answer: output.escape_ascii().to_string() })?;
            all.push(record);
        }
        Ok(all)
    }
}

fn push_configs(args: &mut Vec<String>, configs: &[(&str, &str)]) {
    for (key, value) in configs {
        args.extend(["-X".to_owned(), format!("{key}={value}")]);
    }
}

/// Parses one record in the format that `consume` asks for.
fn consumed(rest: &mut &[u8]) -> Option<Consumed> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (head, body) = rest.split_at_checked(end)?;
    let mut body = body.get(1..)?;
    let mut facts = head.splitn(6, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(facts.next()?).ok()?.parse::<i64>().ok();
    let (partition, offset, timestamp) = (number()?, number()?, number()?);
    let (key_len, value_len) = (number()?, number()?);
    let mut bytes = |len: i64| -> Option<Option<Vec<u8>>> {
        let Ok(len) = usize::try_from(len) else {
            return Some(None);
        };
        let (part, after) = body.split_at_checked(len)?;
        body = after;
        Some(Some(part.to_vec()))
    };
    let (key, value) = (bytes(key_len)?, bytes(value_len)?);
    let headers = facts.next()?.split(|byte| *byte == b',').filter(|header| !header.is_empty());
    let headers = headers.map(header).collect::<Option<_>>()?;
    *rest = body.strip_prefix(b"\n")?;
    Some(Consumed {
        partition: i32::try_from(partition).ok()?,
        offset,
        timestamp,
        message: Message { key, value, headers },
    })
}

/// Parses `name=value`, or `name=NULL`, which is taken for a null.
fn header(header: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let equals = header.iter().position(|byte| *byte == b'=');
    let (name, value) = header.split_at(equals.unwrap_or(header.len()));
    let value = value.get(1..).filter(|value| *value != b"NULL");
    Some((String::from_utf8(name.to_vec()).ok()?, value.map(<[u8]>::to_vec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_records_by_their_stated_lengths() {
        let mut rest: &[u8] = b"3 7 12 -1 4 a=1,b=NULL\nx\ny\n\n0 8 -1 1 0 \nk\n";
        let first = consumed(&mut rest).expect("the first");
        assert_eq!((first.partition, first.offset, first.timestamp), (3, 7, 12));
        assert_eq!(first.message.key, None);
        assert_eq!(first.message.value.as_deref(), Some(&b"x\ny\n"[..]));
        assert_eq!(first.message.headers, [("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)]);
        let second = consumed(&mut rest).expect("the second");
        assert_eq!(second.message, Message { key: Some(b"k".to_vec()), value: Some(Vec::new()), headers: Vec::new() });
        assert!(rest.is_empty());
        assert!(consumed(&mut &b"1 2 3 4 99 \nshort"[..]).is_none());
    }
}
