//! The code that the two programs for Kafka's system tests share: events as lines of JSON, files of
//! properties, SIGTERM.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Args, Failure, json::text};

/// An event: a line of JSON on standard output, like those of Kafka's own programs.
pub struct Event(String);

impl Event {
    pub fn new(name: &str) -> Self {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self(format!(r#"{{"timestamp":{millis},"name":{}"#, text(name)))
    }

    /// Adds a field with a value that is JSON already.
    pub fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        // Writing to a string cannot fail.
        let _ = write!(self.0, ",{}:{value}", text(name));
        self
    }

    pub fn text(self, name: &str, value: Option<&str>) -> Self {
        let value = value.map_or_else(|| "null".to_owned(), text);
        self.raw(name, value)
    }

    pub fn bytes(self, name: &str, value: Option<&[u8]>) -> Self {
        self.text(name, value.map(String::from_utf8_lossy).as_deref())
    }

    pub fn print(mut self) -> io::Result<()> {
        self.0.push_str("}\n");
        let mut out = io::stdout().lock();
        out.write_all(self.0.as_bytes())?;
        out.flush()
    }
}

/// Runs such a program. `parse` returns `None` if the arguments only ask for the help.
pub async fn main<O, R: Future<Output = Result<(), Failure>>>(
    help: &str,
    parse: impl FnOnce(&mut Args) -> Result<Option<O>, Failure>,
    run: impl FnOnce(O) -> R,
) -> ExitCode {
    match parse(&mut Args::from_env()) {
        Ok(Some(options)) => super::exit(run(options).await),
        Ok(None) => {
            println!("{help}");
            ExitCode::SUCCESS
        }
        Err(error) => super::exit(Err(error)),
    }
}

/// Reads a file of properties: `name=value` or `name: value`, with comments after `#` or `!`.
pub fn properties(path: &str) -> Result<Vec<(String, String)>, Failure> {
    let content = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    lines
        .map(|line| {
            let (name, value) =
                line.split_once(['=', ':']).ok_or_else(|| format!("{path}: {line:?} is not a property"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// Waits for SIGTERM, or Ctrl-C.
pub async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (term, int) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        match (term, int) {
            (Ok(mut term), Ok(mut int)) => {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("signals cannot be received: {error}");
                std::future::pending().await
            }
        }
    }
    #[cfg(not(unix))]
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("Ctrl-C cannot be received: {error}");
        std::future::pending().await
    }
}
