//! Runs other programs with a time limit; none outlives this one.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// Interval at which a child is checked for its end.
const ASK: Duration = Duration::from_millis(5);

/// Kills the child, by its id, when dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if the child has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guard {
    fn wait(&mut self, until: Instant) -> Result<ExitStatus, String> {
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < until => thread::sleep(ASK),
                Ok(None) => return Err("took too long and was killed".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Returns the standard output of the command, if it succeeded within that time; otherwise the
/// reason, with the end of its standard error.
pub fn output(command: &mut Command, limit: Duration) -> Result<String, String> {
    let until = Instant::now() + limit;
    let mut guard = start(command.stdin(Stdio::null()).stderr(Stdio::piped()))?;
    let errors = all(guard.0.stderr.take());
    let out = all(guard.0.stdout.take());
    let ended = guard.wait(until);
    drop(guard);
    // A grandchild may still hold the pipes of a child that was killed.
    let said = |pipe: Receiver<String>| pipe.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
    match ended {
        Ok(status) if status.success() => Ok(said(out)),
        Ok(status) => Err(format!("{status}: {}", tail(&said(errors)))),
        Err(why) => Err(format!("{why}: {}", tail(&said(errors)))),
    }
}

/// A server that prints its address on its first line and ends when its input does.
pub struct Server {
    guard: Guard,
    /// Held open as long as the server is to run.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    address: String,
}

impl Server {
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self, String> {
        let mut guard = start(command.stdin(Stdio::piped()).stderr(Stdio::inherit()))?;
        let input = guard.0.stdin.take();
        let lines = lines(guard.0.stdout.take());
        let first = lines.recv_timeout(limit).map_err(|_| format!("{command:?} printed no address"))?;
        let address = first.strip_prefix("bootstrap.servers=").unwrap_or(&first).to_owned();
        Ok(Self { guard, input, lines, address })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends the server; returns the line that it prints at its end, if any.
    pub fn end(mut self, limit: Duration) -> Result<Option<String>, String> {
        let until = Instant::now() + limit;
        drop(self.input.take());
        let last = self.lines.recv_timeout(limit).ok();
        let status = self.guard.wait(until)?;
        if status.success() { Ok(last) } else { Err(format!("the broker ended with {status}")) }
    }
}

fn start(command: &mut Command) -> Result<Guard, String> {
    let child = command.stdout(Stdio::piped()).spawn();
    child.map(Guard).map_err(|error| format!("{}: {error}", command.get_program().display()))
}

/// Reads to the end, so that the child never waits for its reader.
fn all(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (done, text) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // After an error the bytes that were read so far count.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = done.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}

fn lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (next, lines) = mpsc::channel();
    thread::spawn(move || {
        let Some(pipe) = pipe else { return };
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if next.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn returns_output_or_reason_for_failure() {
        assert_eq!(output(&mut sh("echo a; echo b >&2"), LONG).unwrap(), "a\n");
        let failed = output(&mut sh("echo a; echo why >&2; exit 3"), LONG).unwrap_err();
        assert!(failed.contains('3') && failed.contains("why"), "{failed}");
        assert!(output(&mut Command::new("/nothing/here"), LONG).unwrap_err().contains("/nothing/here"));
    }

    #[test]
    fn kills_process_after_time_limit() {
        let late = output(&mut sh("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("killed"), "{late}");
    }

    #[test]
    fn server_reports_address_and_final_line() {
        let server = Server::start(&mut sh("echo bootstrap.servers=here:1; cat >/dev/null; echo total"), LONG).unwrap();
        assert_eq!(server.address(), "here:1");
        assert_eq!(server.end(LONG).unwrap().as_deref(), Some("total"));
    }

    #[test]
    fn dropping_server_kills_its_process() {
        let server = Server::start(&mut sh("echo here; exec sleep 60"), LONG).unwrap();
        let id = server.guard.0.id();
        drop(server);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn server_without_output_fails_to_start() {
        assert!(Server::start(&mut sh("exit 0"), LONG).is_err());
    }

    #[test]
    fn keeps_last_four_lines_of_errors() {
        assert_eq!(tail("1\n2\n\n3\n4\n5\n"), "2 | 3 | 4 | 5");
        assert_eq!(tail(""), "");
    }
}
