//! A broker in a process of its own, so that only the client's allocations and memory are counted.
#![allow(dead_code, unreachable_pub, reason = "each test uses only a part of this")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Partitions of the topic that [`Broker::source`] serves.
pub const PARTITIONS: i32 = 4;
/// Records of a batch in that topic.
pub const BATCH: usize = 140;

/// A broker process, which ends with its standard input.
pub struct Broker {
    process: Child,
    pub address: String,
}

impl Broker {
    /// Starts a broker that keeps no records, with these arguments.
    pub fn start(args: [&str; 2]) -> Self {
        let mut path: PathBuf = std::env::current_exe().expect("this test's own path");
        path.pop();
        path.pop();
        let path = path.join("examples").join(format!("broker{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(path);
        command.arg("--sink").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("`cargo test` (or `cargo build --examples`) builds the broker");
        let mut address = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut address).expect("an address");
        Self { process, address: address.trim().to_owned() }
    }

    /// Starts a broker with a topic `orders` that serves batches of 100-byte records without end.
    pub fn source() -> Self {
        Self::start(["--serve", &format!("orders:{PARTITIONS}:{BATCH}:100")])
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
