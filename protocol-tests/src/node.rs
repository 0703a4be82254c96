//! One node of a cluster: a broker that is its own controller too.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, tail};
use crate::jars::Jars;
use crate::leashed::{Launch, Leashed, Signal};

/// Timeout of an orderly stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A node that can be started, killed, frozen and started again on the same data and ports.
#[derive(Debug)]
pub struct Node {
    pub(crate) id: i32,
    /// The client listener first, then those that the builder added, by name.
    pub(crate) listeners: Vec<(String, u16)>,
    pub(crate) dir: PathBuf,
    pub(crate) jars: Jars,
    pub(crate) jvm_args: Vec<String>,
    pub(crate) process: Mutex<Option<Leashed>>,
}

impl Node {
    /// Returns its broker id, which is its position in the cluster.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Returns the address of its plain-text listener for clients.
    pub fn address(&self) -> SocketAddr {
        let port = self.listeners.first().map_or(0, |(_, port)| *port);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Returns the address of a listener that was added with [`crate::Builder::listener`]; `None`
    /// for other names.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        let (_, port) = self.listeners.iter().find(|(known, _)| known == name)?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))
    }

    /// Returns the file with all of its output.
    pub fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Returns the directory with its logs, one directory for each partition: `orders-0` and so on.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Returns true if its process exists (frozen or not).
    pub fn is_up(&self) -> bool {
        matches!(self.process().as_mut().map(Leashed::ended), Some(Ok(None)))
    }

    /// Kills the node with SIGKILL. When this returns, its process is gone. A node that is down
    /// stays down.
    ///
    /// # Errors
    /// `Io` when the system refuses.
    pub fn kill(&self) -> Result<(), Error> {
        match self.process().take() {
            Some(mut process) => process.kill().map(drop).map_err(Error::io(format!("killing node {}", self.id))),
            None => Ok(()),
        }
    }

    /// Freezes the node with SIGSTOP: its connections stay open, and it does not answer.
    ///
    /// # Errors
    /// `Io` when it is not up.
    pub fn freeze(&self) -> Result<(), Error> {
        self.signal(Signal::Stop)
    }

    /// Resumes a frozen node.
    ///
    /// # Errors
    /// `Io` when it is not up.
    pub fn thaw(&self) -> Result<(), Error> {
        self.signal(Signal::Cont)
    }

    /// Stops the node in an orderly way, with SIGTERM, and waits until it is gone: it moves its
    /// partitions to other nodes first.
    ///
    /// # Errors
    /// `Io` when it is not up; `TimedOut` when it had to be killed after a minute.
    ///
    /// # Cancel safety
    /// When the future is dropped early, the node continues to stop.
    pub async fn stop(&self) -> Result<(), Error> {
        self.signal(Signal::Term)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.is_up() {
            if Instant::now() >= deadline {
                self.kill()?;
                return Err(Error::TimedOut {
                    what: format!("stopping node {}", self.id),
                    after: STOP_TIMEOUT,
                    log: tail(&[self.log()]),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process().take();
        Ok(())
    }

    /// Starts the node, or starts it again on its data. Returns at once; [`crate::Kafka::ready`]
    /// waits.
    ///
    /// # Errors
    /// `Io` when it is up already or the process cannot be created.
    pub fn start(&self) -> Result<(), Error> {
        let mut process = self.process();
        let what = || format!("starting node {}", self.id);
        if matches!(process.as_mut().map(Leashed::ended), Some(Ok(None))) {
            return Err(Error::Io { what: what(), source: io::Error::from(io::ErrorKind::AlreadyExists) });
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let start = || -> io::Result<Leashed> {
            let out = log?;
            let err = out.try_clone()?;
            Launch::new("java")
                .args(&self.jvm_args)
                .args(LOGGING)
                .args(["-cp", &self.jars.class_path(), "kafka.Kafka"])
                .args([self.properties()])
                .wipe(&self.data())
                .spawn(out, err)
        };
        *process = Some(start().map_err(Error::io(what()))?);
        Ok(())
    }

    /// Formats its empty data directory. This needs a JVM, so several nodes do it side by side: the
    /// running process is returned.
    pub(crate) fn format(&self, cluster_id: &str, extra: &[String]) -> Result<Leashed, Error> {
        let start = || -> io::Result<Leashed> {
            let out = OpenOptions::new().create(true).append(true).open(self.log())?;
            let err = out.try_clone()?;
            Launch::new("java")
                .args(crate::kafka::QUICK_JVM)
                .args(["-Xmx256m", "-cp", &self.jars.class_path(), "kafka.tools.StorageTool", "format"])
                .args(["-t", cluster_id, "-c"])
                .args([self.properties()])
                .args(extra)
                .spawn(out, err)
        };
        start().map_err(Error::io(format!("formatting the data of node {}", self.id)))
    }

    pub(crate) fn properties(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    /// Returns an error if the process has ended.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let ended = match self.process().as_mut().map(Leashed::ended) {
            None | Some(Ok(None)) => return Ok(()),
            Some(ended) => ended.map_err(Error::io(format!("looking at node {}", self.id)))?,
        };
        match ended {
            Some(status) => Err(Error::Ended { what: format!("node {}", self.id), status, log: tail(&[self.log()]) }),
            None => Ok(()),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let what = format!("sending {signal:?} to node {}", self.id);
        match self.process().as_mut() {
            Some(process) => process.signal(signal).map_err(Error::io(what)),
            None => Err(Error::Io { what, source: io::Error::new(io::ErrorKind::NotFound, "it is down") }),
        }
    }

    /// A panic of another test while it held the lock leaves no inconsistent state.
    fn process(&self) -> MutexGuard<'_, Option<Leashed>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs everything to standard error, with the time.
pub(crate) const LOGGING: [&str; 3] = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
];

/// Writes a file of properties, and escapes characters that Java's reader would take for syntax or
/// in Latin-1.
pub(crate) fn write_properties(path: &Path, properties: &[(String, String)]) -> io::Result<()> {
    let text: String = properties.iter().map(|(key, value)| format!("{key}={}\n", escaped(value))).collect();
    std::fs::write(path, text)
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for unit in value.encode_utf16() {
        match u8::try_from(unit).map(char::from) {
            Ok('\\') => out.push_str("\\\\"),
            Ok('\n') => out.push_str("\\n"),
            Ok(char) if char.is_ascii() => out.push(char),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn escapes_values_for_java_properties() {
        assert_eq!(escaped("a=b, c"), "a=b, c");
        assert_eq!(escaped("1\n2\\3"), "1\\n2\\\\3");
        assert_eq!(escaped("wönder 🦀"), "w\\u00f6nder \\ud83e\\udd80");
    }
}
