//! A kcat of its own.

use ottla::testkit::{Cluster, Options};

use crate::{program, run, text};

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
