//! The programs in `examples/`, run as a user runs them, on a cluster in this process.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use ottla::testkit::{Cluster, Options};

/// The built example; cargo builds all of them before it runs this.
fn program(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test's own path");
    path.pop();
    path.pop();
    let path = path.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is built by `cargo test` (or `cargo build --examples`)", path.display());
    Command::new(path)
}

/// Runs a program to its end in a thread of its own, so that the cluster's tasks go on.
async fn run(mut command: Command, input: Vec<u8>) -> Output {
    tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || {
            // The program may end before it has read everything; what it made of that is in its output.
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
async fn the_quickstart_runs_by_itself_and_against_a_broker() {
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
async fn the_worker_bills_what_it_can_and_buries_the_rest() {
    let output = run(program("worker"), Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("990 orders billed (") && last.contains("10 dead letters, 10 attempts failed"), "{out}");
}

#[tokio::test]
async fn kat_carries_lines_both_ways() {
    let cluster = Cluster::start(Options::new().brokers(3)).await.expect("a cluster");
    cluster.create_topic("numbers", 3).expect("a topic");
    let lines: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let mut produce = program("kat");
    produce.args(["produce", "-b", &cluster.bootstrap(), "-t", "numbers", "-X", "compression.type=lz4"]);
    let output = run(produce, lines.into_bytes()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));

    let mut all = Vec::new();
    for partition in ["0", "1", "2"] {
        let mut consume = program("kat");
        consume.args(["consume", "-b", &cluster.bootstrap(), "-t", "numbers", "-p", partition, "--exit-at-end"]);
        let output = run(consume, Vec::new()).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let numbers: Vec<u32> = text(&output.stdout).lines().map(|line| line.parse().expect("a number")).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order within partition {partition}");
        all.extend(numbers);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=100_000), "each line once");
}

#[tokio::test]
async fn kat_shows_keys_headers_and_metadata_as_json() {
    let cluster = Cluster::start(Options::new().brokers(2)).await.expect("a cluster");
    cluster.create_topic("pairs", 1).expect("a topic");
    let mut produce = program("kat");
    produce.args(["produce", "-b", &cluster.bootstrap(), "-t", "pairs", "--key-delimiter", ":"]);
    assert!(run(produce, b"a:1\nb:say \"hi\"\nno key\n".to_vec()).await.status.success());
    let mut consume = program("kat");
    consume.args(["consume", "-b", &cluster.bootstrap(), "-t", "pairs", "--exit-at-end", "--json", "--group", "g"]);
    let output = run(consume, Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[0].starts_with(r#"{"topic":"pairs","partition":0,"offset":0,"timestamp":"#), "{out}");
    assert!(lines[0].ends_with(r#""key":"a","value":"1","headers":[]}"#), "{out}");
    assert!(lines[1].contains(r#""value":"say \"hi\"""#), "{out}");
    assert!(lines[2].contains(r#""key":null,"value":"no key""#), "{out}");

    let mut metadata = program("kat");
    metadata.args(["metadata", "-b", &cluster.bootstrap(), "--json"]);
    let output = run(metadata, Vec::new()).await;
    assert!(text(&output.stdout).contains(r#""topic":"pairs","partitions":[{"partition":0,"leader":"#));
}

#[tokio::test]
async fn kat_says_what_is_wrong_and_fails() {
    for args in [
        &["consume", "-t", "x"][..],
        &["produce", "-b", "127.0.0.1:1", "-t", "x", "-X", "linger.mss=5"],
        &["produce", "-b", "127.0.0.1:1", "-t", "not allowed", "-X", "max.block.ms=100"],
        &["consume", "-b", "127.0.0.1:1", "-t", "x", "-X", "default.api.timeout.ms=1000"],
        &["shout"],
    ] {
        let mut command = program("kat");
        command.args(args);
        let output = run(command, b"line\n".to_vec()).await;
        assert!(!output.status.success(), "{args:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
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

/// Lines of JSON, each of which has a time and a name.
fn events<'o>(out: &'o str, name: &str) -> Vec<&'o str> {
    let named = format!(r#","name":"{name}""#);
    assert!(out.lines().all(|line| line.starts_with(r#"{"timestamp":"#) && line.ends_with('}')), "{out}");
    out.lines().filter(|line| line.contains(&named)).collect()
}

#[tokio::test]
async fn the_verifiable_programs_tell_their_story_as_kafkas_own_do() {
    let cluster = Cluster::start(Options::new()).await.expect("a cluster");
    cluster.create_topic("numbers", 2).expect("a topic");
    let mut produce = program("verifiable_producer");
    produce.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers", "--max-messages", "200"]);
    produce.args(["--repeating-keys", "7", "--value-prefix", "3", "--throughput", "2000"]);
    let output = run(produce, Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert_eq!(events(&out, "startup_complete").len(), 1, "{out}");
    let sent = events(&out, "producer_send_success");
    assert_eq!(sent.len(), 200);
    let eighth = sent.iter().find(|line| line.contains(r#""value":"3.8","#)).expect("the ninth record");
    assert!(eighth.contains(r#""key":"1","value":"3.8","offset":"#), "{eighth}");
    assert!(
        events(&out, "tool_data")[0].contains(r#""sent":200,"acked":200,"target_throughput":2000,"avg_throughput":"#)
    );
    assert_eq!(events(&out, "shutdown_complete").len(), 1);

    let consume = |extra: &[&str]| {
        let mut consume = program("verifiable_consumer");
        consume.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers", "--group-id", "g"]);
        consume.args(["--assignment-strategy", "org.apache.kafka.clients.consumer.RangeAssignor"]);
        consume.args(extra);
        consume
    };
    let output = run(consume(&["--max-messages", "150", "--verbose"]), Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let assigned = events(&out, "partitions_assigned");
    assert!(
        assigned[0].ends_with(r#""partitions":[{"topic":"numbers","partition":0},{"topic":"numbers","partition":1}]}"#)
    );
    assert_eq!(events(&out, "record_data").len(), 150);
    assert!(events(&out, "offsets_committed").last().expect("a commit").ends_with(r#","success":true}"#), "{out}");
    assert!(events(&out, "records_consumed")[0].contains(r#""minOffset":0,"maxOffset":"#));
    assert_eq!(events(&out, "shutdown_complete").len(), 1);
    let committed: i64 = (0..2).map(|partition| cluster.committed("g", "numbers", partition).unwrap_or(0)).sum();
    assert_eq!(committed, 150);
    let output = run(consume(&["--max-messages", "50", "--enable-autocommit"]), Vec::new()).await;
    let out = text(&output.stdout);
    assert!(output.status.success() && events(&out, "record_data").is_empty(), "{out}");
    assert!(events(&out, "offsets_committed").is_empty(), "{out}");
    let committed: i64 = (0..2).map(|partition| cluster.committed("g", "numbers", partition).unwrap_or(0)).sum();
    assert_eq!(committed, 200, "by the close");
}
