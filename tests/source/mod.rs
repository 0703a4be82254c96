//! A broker that is a process of its own, so that only the client's allocations are counted.
#![allow(unreachable_pub, reason = "shared by tests")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

pub const PARTITIONS: i32 = 4;
/// Records of a batch.
pub const BATCH: usize = 140;

/// A broker whose partitions give batches of 100-byte records for ever; ends with its standard input.
pub struct Source {
    process: Child,
    pub address: String,
}

impl Source {
    pub fn start() -> Self {
        let mut path: PathBuf = std::env::current_exe().expect("this test's own path");
        path.pop();
        path.pop();
        let path = path.join("examples").join(format!("broker{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(path);
        let topic = format!("orders:{PARTITIONS}:{BATCH}:100");
        command.args(["--sink", "--serve", &topic]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("`cargo test` (or `cargo build --examples`) builds the broker");
        let mut address = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut address).expect("an address");
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
