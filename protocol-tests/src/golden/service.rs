//! The Java program that encodes and decodes, and the cache of its answers.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::VERSION;
use crate::error::Error;
use crate::jars::{Jars, Version, need};
use crate::kafka::QUICK_JVM;
use crate::places;
use crate::shared::unique;

const SOURCE: &str = include_str!("Golden.java");
/// Timeout of one answer. The first one waits for the JVM and for its compiler.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Returns the answer to a question, from the cache if this process or an earlier one asked it
/// before.
pub(super) fn ask_once(question: &str) -> Result<Vec<String>, Error> {
    // Checked even if the answer is cached, so that a test is skipped as a whole and not at its
    // first new question.
    available()?;
    let path = remembered(question);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut lines = text.lines();
            // Two questions could have the same file name.
            if lines.next() == Some(question) {
                return Ok(lines.map(str::to_owned).collect());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
    }
    let answer = ask(question)?;
    remember(&path, question, &answer).map_err(Error::io(format!("writing {}", path.display())))?;
    Ok(answer)
}

/// Asks the program, starting it if it does not run yet.
pub(super) fn ask(question: &str) -> Result<Vec<String>, Error> {
    static SERVICE: Mutex<Option<Service>> = Mutex::new(None);
    let mut running = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let service = match running.take() {
        Some(service) => running.insert(service),
        None => running.insert(Service::start()?),
    };
    let answer = service.ask(question);
    // A program that gave an invalid answer is out of step: the next question goes to another one.
    if !matches!(answer, Ok(_) | Err(Error::Rejected { .. })) {
        running.take();
    }
    answer
}

/// Checks for the compiler of a whole JDK, because the program runs from source.
fn available() -> Result<(), Error> {
    need("java")?;
    need("javac")
}

/// Returns the cache directory: one for each version of Kafka and of the program.
fn dir() -> PathBuf {
    places::root().join("golden").join(format!("{VERSION}-{}", hash(SOURCE)))
}

/// Returns the file of a question.
fn remembered(question: &str) -> PathBuf {
    dir().join(hash(question))
}

fn hash(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn remember(path: &Path, question: &str, answer: &[String]) -> std::io::Result<()> {
    let mut text = question.to_owned();
    for line in answer {
        text.push('\n');
        text.push_str(line);
    }
    put(path, &text)
}

/// Writes a temporary file and moves it, so that no other thread or process reads half of it.
fn put(path: &Path, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(dir())?;
    let aside = dir().join(unique("part"));
    fs::write(&aside, text)?;
    fs::rename(&aside, path)
}

/// The running program. It ends when its standard input does, so it cannot outlive this process.
struct Service {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<std::io::Result<String>>,
}

impl Service {
    fn start() -> Result<Self, Error> {
        available()?;
        let jars = jars()?;
        let source = dir().join("Golden.java");
        let start = || -> std::io::Result<(Child, Option<(ChildStdin, _)>)> {
            put(&source, SOURCE)?;
            let mut child = Command::new("java")
                .args(QUICK_JVM)
                .args(["-Xmx256m", "-cp", &jars.class_path()])
                .arg(&source)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()?;
            let ends = child.stdin.take().zip(child.stdout.take());
            Ok((child, ends))
        };
        let (child, ends) = start().map_err(Error::io("starting Golden.java"))?;
        let Some((questions, stdout)) = ends else {
            return Err(Error::Io { what: "starting Golden.java".into(), source: ErrorKind::BrokenPipe.into() });
        };
        let (sender, answers) = channel();
        // A pipe cannot be read with a deadline, but a channel can.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, questions, answers })
    }

    fn ask(&mut self, question: &str) -> Result<Vec<String>, Error> {
        let what = || question.split('\t').take(3).collect::<Vec<_>>().join(" ");
        writeln!(self.questions, "{question}")
            .and_then(|()| self.questions.flush())
            .map_err(Error::io("asking Golden.java, which wrote to standard error why it ended"))?;
        let head = self.line()?;
        if let Some(why) = head.strip_prefix("error ") {
            return Err(Error::Rejected { what: what(), why: why.to_owned() });
        }
        let Some(count) = head.strip_prefix("ok ").and_then(|count| count.parse::<usize>().ok()) else {
            return Err(Error::Garbled { what: what(), answer: head });
        };
        (0..count).map(|_| self.line()).collect()
    }

    fn line(&self) -> Result<String, Error> {
        match self.answers.recv_timeout(ANSWER_TIMEOUT) {
            Ok(line) => line.map_err(Error::io("reading Golden.java's answer")),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::TimedOut { what: "Golden.java's answer".into(), after: ANSWER_TIMEOUT, log: String::new() })
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::Io {
                what: "reading from Golden.java, which wrote to standard error why it ended".into(),
                source: ErrorKind::UnexpectedEof.into(),
            }),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The program may have ended already; either way it must be reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fetches the jars on a separate thread: the caller may be inside a runtime, which must not be
/// blocked by another runtime.
fn jars() -> Result<Jars, Error> {
    let fetch = || -> Result<Jars, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("making a runtime"))?;
        runtime.block_on(Jars::get(Version::parse(VERSION)?))
    };
    match std::thread::spawn(fetch).join() {
        Ok(jars) => jars,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
