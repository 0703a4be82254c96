//! Tests the transactional copier.

use ottla::{
    Record,
    testkit::{Cluster, Options},
};

use crate::{program, run, text};

/// A cluster with 100 records in partition 1 of topic `in`.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(Options::new()).await.expect("a cluster");
    for topic in ["in", "out"] {
        cluster.create_topic(topic, 2).expect("a topic");
    }
    for n in 0..100 {
        let (key, value) = (n.to_string(), format!("value {n}"));
        cluster.append("in", 1, &[Record::to("in").with_key(&key).with_value(&value)]).expect("a record");
    }
    cluster
}

async fn copy(cluster: &Cluster, more: &[&str]) -> String {
    let mut copier = program("transactional_message_copier");
    copier.args(["--broker-list", &cluster.bootstrap(), "--input-topic", "in", "--input-partition", "1"]);
    copier.args(["--output-topic", "out", "--consumer-group", "g", "--transactional-id", "copier"]);
    copier.args(["--transaction-size", "10"]).args(more);
    let output = run(copier, Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns the committed values of the output.
async fn output(cluster: &Cluster) -> Vec<String> {
    let mut consume = program("kat");
    consume.args(["consume", "-b", &cluster.bootstrap(), "-t", "out", "-p", "1", "--exit-at-end"]);
    consume.args(["-X", "isolation.level=read_committed"]);
    text(&run(consume, Vec::new()).await.stdout).lines().map(str::to_owned).collect()
}

fn values(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| format!("value {n}")).collect()
}

#[tokio::test]
async fn copies_partition_once_and_ends() {
    let cluster = cluster().await;
    let out = copy(&cluster, &["--max-messages", "30"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with(r#"{"transactionalId":"copier","stage":"ProcessLoop","time":"20"#), "{out}");
    assert!(lines[0].ends_with(r#","totalProcessed":0,"consumed":0,"remaining":30}"#), "{out}");
    let last = lines[lines.len() - 1];
    assert!(last.contains(r#""stage":"ShutdownComplete","#), "{out}");
    assert!(last.ends_with(r#""totalProcessed":30,"consumed":30,"remaining":0}"#), "{out}");
    assert_eq!(cluster.committed("g", "in", 1), Some(30));
    // It goes on where it ended.
    let out = copy(&cluster, &["--enable-random-aborts"]).await;
    assert!(out.trim_end().ends_with(r#""totalProcessed":70,"consumed":70,"remaining":0}"#), "{out}");
    assert_eq!(output(&cluster).await, values(0..100));
    assert_eq!(cluster.committed("g", "in", 1), Some(100));
}

#[tokio::test]
async fn members_of_group_copy_whole_topic() {
    let cluster = cluster().await;
    let out = copy(&cluster, &["--group-mode", "--use-group-metadata"]).await;
    let first = out.lines().next().expect("a line");
    assert!(first.contains(r#""stage":"RebalanceComplete","#), "{out}");
    assert_eq!(output(&cluster).await, values(0..100));
    assert_eq!(cluster.committed("g", "in", 1), Some(100));
}

#[tokio::test]
async fn history_has_every_event_of_copies() {
    let cluster = cluster().await;
    let file = std::env::temp_dir().join(format!("ottla-copier-{}.jsonl", std::process::id()));
    copy(&cluster, &["--history", &file.display().to_string()]).await;
    let history = std::fs::read_to_string(&file).expect("the history");
    std::fs::remove_file(&file).expect("the file is there");
    let count = |kind: &str| history.lines().filter(|line| line.contains(&format!(r#""type":"{kind}""#))).count();
    let counts = ["history", "seek", "begin", "poll", "send", "acknowledged", "offset", "commit", "outcome"].map(count);
    assert_eq!(counts, [1, 1, 10, 10, 100, 100, 10, 10, 10], "{history}");
    assert!(history.contains(r#","topic":"out","value":"value 99","partition":1,"offset":"#), "{history}");
    assert!(history.lines().last().is_some_and(|line| line.ends_with(r#""outcome":"committed"}"#)), "{history}");
}

#[tokio::test]
async fn missing_option_is_error_with_help() {
    let mut copier = program("transactional_message_copier");
    copier.args(["--input-topic", "in", "--input-partition", "0", "--output-topic", "out", "--transactional-id", "x"]);
    let output = run(copier, Vec::new()).await;
    assert!(!output.status.success());
    assert!(text(&output.stderr).starts_with("error: --broker-list is missing"), "{}", text(&output.stderr));
}
