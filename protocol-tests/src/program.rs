//! Programs that run beside a test: they are read line by line, and can be stopped, killed, frozen
//! and thawed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, tail};
use crate::jars::Jars;
use crate::kafka::QUICK_JVM;
use crate::leashed::{Launch, Leashed, Signal};
use crate::node::LOGGING;
use crate::places::Scratch;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    // Before the directory, because fields are dropped in this order.
    process: Leashed,
    name: String,
    output: File,
    partial: Vec<u8>,
    errors: PathBuf,
    _scratch: Scratch,
}

impl Program {
    /// Starts a program with these arguments; `name` is its name in errors.
    ///
    /// # Errors
    /// `Io` when it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(
        name: &str,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        Self::launch(name, Launch::new(program).args(args))
    }

    /// Starts one of Kafka's classes.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn).
    pub fn java<S: AsRef<OsStr>>(
        name: &str,
        jars: &Jars,
        class: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let java = Launch::new("java").args(QUICK_JVM).args(LOGGING);
        let java = java.args(["-Xmx128m", "-cp", &jars.class_path(), class]).args(args);
        Self::launch(name, java)
    }

    fn launch(name: &str, launch: Launch) -> Result<Self, Error> {
        let scratch = Scratch::new("program")?;
        let [out, errors] = ["out", "err"].map(|name| scratch.path().join(name));
        let start = || Ok((launch.spawn(File::create(&out)?, File::create(&errors)?)?, File::open(&out)?));
        let (process, output) = start().map_err(Error::io(format!("starting {name}")))?;
        Ok(Self { process, name: name.to_owned(), output, partial: Vec::new(), errors, _scratch: scratch })
    }

    /// Returns the program's name in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the lines that the program wrote to standard output since the last call. An
    /// incomplete line is returned once it is complete.
    ///
    /// # Errors
    /// `Io`.
    pub fn lines(&mut self) -> Result<Vec<String>, Error> {
        let what = || format!("reading what {} wrote", self.name);
        self.output.read_to_end(&mut self.partial).map_err(Error::io(what()))?;
        let complete = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.partial.split_off(complete);
        let lines = std::mem::replace(&mut self.partial, rest);
        Ok(String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect())
    }

    /// Returns the end of its standard error output.
    pub fn errors(&self) -> String {
        tail(std::slice::from_ref(&self.errors))
    }

    /// Returns true if the program still runs, frozen or not.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_running(&mut self) -> Result<bool, Error> {
        Ok(self.status()?.is_none())
    }

    /// Returns the status with which the program has ended; `None` while it runs.
    ///
    /// # Errors
    /// `Io`.
    pub fn status(&mut self) -> Result<Option<ExitStatus>, Error> {
        let what = format!("looking at {}", self.name);
        self.process.ended().map_err(Error::io(what))
    }

    /// Asks the program to end, with SIGTERM.
    ///
    /// # Errors
    /// `Io` when it has ended.
    pub fn terminate(&mut self) -> Result<(), Error> {
        self.signal(Signal::Term)
    }

    /// Freezes the program, with SIGSTOP.
    ///
    /// # Errors
    /// `Io` when it has ended.
    pub fn freeze(&mut self) -> Result<(), Error> {
        self.signal(Signal::Stop)
    }

    /// Resumes the program.
    ///
    /// # Errors
    /// `Io` when it has ended.
    pub fn thaw(&mut self) -> Result<(), Error> {
        self.signal(Signal::Cont)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        let what = format!("sending {signal:?} to {}", self.name);
        self.process.signal(signal).map_err(Error::io(what))
    }

    /// Kills the program with SIGKILL. When this returns, its process is gone.
    ///
    /// # Errors
    /// `Io` when the system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        let what = format!("killing {}", self.name);
        self.process.kill().map(drop).map_err(Error::io(what))
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// `TimedOut`, with its standard error output.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        let what = format!("waiting for {}", self.name);
        let ended = self.process.wait_until(Instant::now() + within).await.map_err(Error::io(what))?;
        ended.ok_or_else(|| Error::TimedOut {
            what: format!("the end of {}", self.name),
            after: within,
            log: self.errors(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_whole_lines_and_ends_on_signal() {
        let script = "printf 'one\\ntw'; sleep 0.2; echo o; trap 'echo bye; exit 3' TERM; while :; do sleep 0.02; done";
        let mut program = Program::spawn("a shell", "sh", ["-c", script]).expect("a program");
        let mut lines = Vec::new();
        while lines.len() < 2 {
            lines.extend(program.lines().expect("lines"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(lines, ["one", "two"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        program.terminate().expect("a signal");
        assert_eq!(program.ended(Duration::from_secs(30)).await.expect("an end").code(), Some(3));
        assert_eq!(program.lines().expect("lines"), ["bye"]);
        assert!(!program.is_running().expect("a look"));
    }
}
