//! Runs the programs of this package as a user runs them, on a cluster in this process.

mod copier;
mod kat;
mod verifiable;

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use ottla::testkit::{Cluster, Options};

/// Returns the built example; cargo builds all examples before it runs this test.
fn program(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test's own path");
    path.pop();
    path.pop();
    let path = path.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is built by `cargo test` (or `cargo build --examples`)", path.display());
    Command::new(path)
}

/// Runs a program to its end in a thread of its own, so that the cluster's tasks can run.
async fn run(mut command: Command, input: Vec<u8>) -> Output {
    tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || {
            // The program may end before it has read everything; its output shows the result.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("the program ends");
        writer.join().expect("the writer ends");
        output
    })
    .await
    .expect("no panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn quickstart_runs_with_and_without_broker() {
    let alone = run(program("quickstart"), Vec::new()).await;
    assert!(alone.status.success(), "{}", text(&alone.stderr));
    let cluster = Cluster::start(Options::new().brokers(3)).await.expect("a cluster");
    let mut command = program("quickstart");
    command.args(["--bootstrap-server", &cluster.bootstrap()]);
    let output = run(command, Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.contains("Delivered message to myTopic[0]@6"), "{out}");
    assert!(out.contains("Message on myTopic[0]@0: Welcome"), "{out}");
}

#[tokio::test]
async fn worker_sends_failed_orders_to_dead_letters() {
    let output = run(program("worker"), Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("990 orders billed (") && last.contains("10 dead letters, 10 attempts failed"), "{out}");
}

#[tokio::test]
async fn exactly_once_ends_with_one_result_each() {
    let output = run(program("exactly_once"), Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("10000 orders: 9990 invoices and 10 dead letters, each once"), "{out}");
}

#[tokio::test]
async fn perf_ends_with_one_line_of_json() {
    for mode in ["produce", "consume", "latency"] {
        let mut command = program("perf");
        command.args([mode, "--records", "2000", "--partitions", "2", "--rate", "5000", "--compression", "zstd"]);
        let output = run(command, Vec::new()).await;
        assert!(output.status.success(), "{mode}: {}", text(&output.stderr));
        let out = text(&output.stdout);
        let last = out.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!(r#"{{"mode":"{mode}","records":2000,"size":100,"#)), "{last}");
        assert_eq!(last.contains("p999_us"), mode == "latency", "{last}");
    }
}

#[tokio::test]
async fn perf_measures_commits_of_transactions() {
    let mut perf = program("perf");
    perf.args(["transactions", "--records", "250", "--transaction-size", "100", "--partitions", "2"]);
    let output = run(perf, Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(
        out.contains(r#""records":250,"#) && out.contains(r#""transaction_size":100,"transactions":3,"p50_us":"#),
        "{out}"
    );
}
