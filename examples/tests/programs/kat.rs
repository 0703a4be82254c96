//! Tests `kat`.

use ottla::{
    Record,
    testkit::{Cluster, Options},
};

use crate::{program, run, text};

#[tokio::test]
async fn produces_and_consumes_each_line_once() {
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
async fn prints_records_and_metadata_as_json() {
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
async fn consumes_every_named_topic_and_partition() {
    let cluster = Cluster::start(Options::new()).await.expect("a cluster");
    for topic in ["a", "b", "c"] {
        cluster.create_topic(topic, 3).expect("a topic");
        for partition in 0..3 {
            let value = format!("{topic}{partition}");
            cluster.append(topic, partition, &[Record::to(topic).with_value(&value)]).expect("a record");
        }
    }
    for (args, expected) in [
        (&["-t", "a", "-t", "b", "-t", "a"][..], &["a0", "a1", "a2", "b0", "b1", "b2"][..]),
        (&["-t", "a", "--topic", "c", "-p", "0", "--partition", "2"], &["a0", "a2", "c0", "c2"]),
        (&["-t", "b", "-t", "c", "--group", "g"], &["b0", "b1", "b2", "c0", "c1", "c2"]),
    ] {
        let mut consume = program("kat");
        consume.args(["consume", "-b", &cluster.bootstrap(), "--exit-at-end"]).args(args);
        let output = run(consume, Vec::new()).await;
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        let out = text(&output.stdout);
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{args:?}");
    }
    let mut metadata = program("kat");
    metadata.args(["metadata", "-b", &cluster.bootstrap(), "-t", "a", "-t", "c"]);
    let out = text(&run(metadata, Vec::new()).await.stdout);
    assert!(out.contains("topic \"a\"") && out.contains("topic \"c\"") && !out.contains("topic \"b\""), "{out}");
}

/// If an option is given twice, the user would not see which of the two values counts.
#[tokio::test]
async fn programs_reject_options_given_twice() {
    for (name, args) in [
        ("kat", &["produce", "-b", "127.0.0.1:1", "-t", "x", "-t", "y"][..]),
        ("kat", &["produce", "-b", "127.0.0.1:1", "-t", "x", "-p", "0", "-p", "1"]),
        ("kat", &["consume", "-b", "127.0.0.1:1", "--bootstrap-server", "127.0.0.1:2", "-t", "x"]),
        ("kat", &["consume", "-b", "127.0.0.1:1", "-t", "x", "--group", "a", "--group", "b"]),
        ("kat", &["consume", "-b", "127.0.0.1:1", "-t", "x", "--group", "a", "-p", "0"]),
        ("perf", &["produce", "--records", "1", "--records", "2"]),
        ("broker", &["--brokers", "1", "--brokers=2"]),
        ("quickstart", &["-b", "127.0.0.1:1", "-b", "127.0.0.1:2"]),
        ("worker", &["--orders", "1", "--orders", "2"]),
        ("exactly_once", &["--orders", "1", "--orders", "2"]),
        ("verifiable_producer", &["--topic", "a", "--topic", "b"]),
        ("verifiable_consumer", &["--broker-list", "a:1", "--bootstrap-server", "a:2"]),
    ] {
        let mut command = program(name);
        command.args(args);
        let output = run(command, Vec::new()).await;
        assert!(!output.status.success(), "{name} {args:?}");
        let error = text(&output.stderr);
        assert!(
            ["given twice", "given once", "leave -p"].iter().any(|part| error.contains(part)),
            "{name} {args:?}: {error}"
        );
    }
}

#[tokio::test]
async fn invalid_arguments_fail_with_error_line() {
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
