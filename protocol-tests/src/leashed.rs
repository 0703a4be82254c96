//! A process that cannot outlive this one.
//!
//! Drop runs when a test panics, but not when the test process itself is killed, and a JVM left
//! over from that would occupy its half gigabyte for ever. So each process is started by a small
//! `sh` that first leaves a watcher behind, which reads from a pipe, and then becomes the program
//! (`exec`, so the child's pid is the program's). The other end of the pipe belongs to this process
//! alone: when this process ends, in whatever way, the kernel closes the pipe and the watcher kills
//! the program.
//!
//! The process is in a group of its own, so that Ctrl-C in a terminal reaches only this process,
//! which decides how the program ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// The watcher reads a line when this process is done with the program, and end of file when this
/// process is gone. `$1` is a directory to remove in the latter case (or empty), `$2` the file that
/// becomes the program's standard input.
const SCRIPT: &str = r#"
wipe=$1 input=$2
shift 2
exec 3<&0
(
    if ! read -r over <&3; then
        kill -9 $$
        if [ -n "$wipe" ]; then sleep 1; rm -rf "$wipe"; fi
    fi
) </dev/null >/dev/null 2>&1 &
exec "$@" <"$input" 3<&-
"#;

/// Interval at which a process is checked while a caller waits for it to end.
const LOOK: Duration = Duration::from_millis(20);

/// A signal that a test sends to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Asks the program to end.
    Term,
    /// Freezes the program.
    Stop,
    /// Resumes a frozen program.
    Cont,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        }
    }
}

/// The program to start, and the files for its output.
pub(crate) struct Launch {
    program: OsString,
    args: Vec<OsString>,
    input: PathBuf,
    wipe: Option<PathBuf>,
    dir: Option<PathBuf>,
}

impl Launch {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().into(),
            args: Vec::new(),
            input: PathBuf::from("/dev/null"),
            wipe: None,
            dir: None,
        }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a file to read as standard input.
    pub(crate) fn input(mut self, path: &Path) -> Self {
        self.input = path.to_owned();
        self
    }

    /// Sets a directory that is removed if this process is killed before it could do so itself.
    pub(crate) fn wipe(mut self, path: &Path) -> Self {
        self.wipe = Some(path.to_owned());
        self
    }

    /// Sets the working directory.
    pub(crate) fn dir(mut self, path: &Path) -> Self {
        self.dir = Some(path.to_owned());
        self
    }

    /// Starts the program, with standard output and standard error written to files.
    pub(crate) fn spawn(self, stdout: File, stderr: File) -> io::Result<Leashed> {
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "leash"])
            .arg(self.wipe.unwrap_or_default())
            .arg(self.input)
            .arg(self.program)
            .args(self.args)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            // Java decodes its arguments by this locale.
            .env("LC_ALL", "C.UTF-8")
            .process_group(0);
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn()?;
        let leash = child.stdin.take();
        Ok(Leashed { child, leash, ended: None })
    }
}

/// A process that runs, or has ended and is not reaped yet. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Leashed {
    child: Child,
    leash: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

impl Leashed {
    /// Returns the exit status if the process has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            if self.ended.is_some() {
                self.release();
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal. The process is not reaped yet, so its pid cannot be another's.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if let Some(status) = self.ended()? {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("the process has ended ({status})")));
        }
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "kill", signal.name(), &self.child.id().to_string()])
            .stdin(Stdio::null())
            .output()?;
        if sent.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&sent.stderr).trim().to_owned()))
    }

    /// Kills the process (SIGKILL) and reaps it: when this returns, its sockets are closed.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.child.kill()?;
        // Before reaping: until then the pid is reserved, so that a watcher that wakes late cannot
        // kill another process.
        self.release();
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Waits until the process ends; `None` when the deadline comes first.
    ///
    /// # Cancel safety
    /// Safe: the process does not change when the future is dropped.
    pub(crate) async fn wait_until(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells the watcher that it has nothing to do. An error is ignored, because then the watcher
    /// is gone already.
    fn release(&mut self) {
        if let Some(mut leash) = self.leash.take() {
            let _ = leash.write_all(b"over\n");
        }
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            crate::say(&format!("a process could not be ended: pid {}: {error}", self.child.id()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const SIGKILL: i32 = 9;
    const SIGTERM: i32 = 15;

    fn sleeper() -> Leashed {
        let null = || File::options().write(true).open("/dev/null").expect("the null device");
        Launch::new("sleep").args(["600"]).spawn(null(), null()).expect("a process")
    }

    /// Freezes the process and waits until it is frozen: two signals that are both pending may be
    /// delivered in either order.
    async fn freeze(process: &mut Leashed) {
        process.signal(Signal::Stop).expect("stopping");
        loop {
            let pid = process.child.id().to_string();
            let state = Command::new("ps").args(["-o", "state=", "-p", &pid]).output().expect("its state");
            if state.stdout.trim_ascii().starts_with(b"T") {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn end(process: &mut Leashed) -> Option<ExitStatus> {
        process.wait_until(Instant::now() + Duration::from_secs(30)).await.expect("waiting")
    }

    #[tokio::test]
    async fn process_dies_when_owner_closes_pipe() {
        let mut process = sleeper();
        assert_eq!(process.ended().expect("a look"), None);
        // The kernel does the same when the owner is gone.
        drop(process.leash.take());
        assert_eq!(end(&mut process).await.and_then(|status| status.signal()), Some(SIGKILL));
    }

    #[tokio::test]
    async fn frozen_process_dies_when_pipe_closes() {
        let scratch = crate::places::Scratch::new("frozen").expect("a directory");
        let output = scratch.path().join("out");
        let (out, err) = (File::create(&output).expect("output"), File::create("/dev/null").expect("the null device"));
        let mut process = Launch::new("sh").args(["-c", "echo up; exec sleep 600"]).spawn(out, err).expect("a process");
        // Once the program runs its watcher runs too, and must not be frozen with it.
        while std::fs::read(&output).expect("output").is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        freeze(&mut process).await;
        drop(process.leash.take());
        assert_eq!(end(&mut process).await.and_then(|status| status.signal()), Some(SIGKILL));
    }

    #[tokio::test]
    async fn delivers_signals_to_program_itself() {
        let mut process = sleeper();
        freeze(&mut process).await;
        process.signal(Signal::Term).expect("asking it to end");
        process.signal(Signal::Cont).expect("letting it go on");
        assert_eq!(end(&mut process).await.and_then(|status| status.signal()), Some(SIGTERM));
        assert!(process.signal(Signal::Stop).is_err(), "there is nobody to stop");
    }

    #[test]
    fn kill_reaps_process_and_is_repeatable() {
        let mut process = sleeper();
        process.signal(Signal::Stop).expect("stopping");
        assert_eq!(process.kill().expect("killing").signal(), Some(SIGKILL));
        assert_eq!(process.kill().expect("again").signal(), Some(SIGKILL));
    }

    #[tokio::test]
    async fn redirects_input_and_output_of_process() {
        let scratch = crate::places::Scratch::new("leashed").expect("a directory");
        let [input, output, errors] = ["in", "out", "err"].map(|name| scratch.path().join(name));
        std::fs::write(&input, "some words").expect("input");
        let (out, err) = (File::create(&output).expect("output"), File::create(errors).expect("errors"));
        let mut process = Launch::new("cat").input(&input).spawn(out, err).expect("a process");
        assert!(end(&mut process).await.is_some_and(|status| status.success()));
        assert_eq!(std::fs::read_to_string(output).expect("output"), "some words");
    }
}
