//! Tests the programs for Kafka's system tests.

use ottla::{
    ApiKey, ErrorCode,
    testkit::{Cluster, Options, on},
};

use crate::{program, run, text};

/// Returns the lines of JSON with that name; each must have a time too.
fn events<'o>(out: &'o str, name: &str) -> Vec<&'o str> {
    let named = format!(r#","name":"{name}""#);
    assert!(out.lines().all(|line| line.starts_with(r#"{"timestamp":"#) && line.ends_with('}')), "{out}");
    out.lines().filter(|line| line.contains(&named)).collect()
}

#[tokio::test]
async fn events_match_those_of_kafka_programs() {
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
    assert_eq!(committed, 200, "the close commits");
}

#[tokio::test]
async fn failures_are_events_and_misuse_is_error() {
    let cluster = Cluster::start(Options::new()).await.expect("a cluster");
    cluster.create_topic("numbers", 1).expect("a topic");
    cluster.fault(on(ApiKey::Produce).error(ErrorCode::TOPIC_AUTHORIZATION_FAILED).times(1));
    let mut produce = program("verifiable_producer");
    produce.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers", "--max-messages", "5"]);
    // The throughput is low, so that each record has a request of its own.
    produce.args(["--throughput", "10", "--acks", "1", "--message-create-time", "1000000"]);
    let output = run(produce, Vec::new()).await;
    let out = text(&output.stdout);
    let failed = events(&out, "producer_send_error");
    assert_eq!((failed.len(), events(&out, "producer_send_success").len()), (1, 4), "{out}");
    let expected = r#""key":null,"value":"0","topic":"numbers","exception":"TOPIC_AUTHORIZATION_FAILED","message":""#;
    assert!(failed[0].contains(expected), "{out}");
    assert!(events(&out, "tool_data")[0].contains(r#""sent":5,"acked":4,"#), "{out}");
    let first = cluster.records("numbers", 0).expect("records")[0].timestamp_millis;
    assert!((1_000_000..1_060_000).contains(&first), "{first}");

    cluster.fault(on(ApiKey::OffsetCommit).error(ErrorCode::INVALID_COMMIT_OFFSET_SIZE).times(1));
    let mut consume = program("verifiable_consumer");
    consume.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers", "--group-id", "g"]);
    consume.args(["--max-messages", "4", "--reset-policy", "earliest", "--session-timeout", "6000"]);
    let output = run(consume, Vec::new()).await;
    let out = text(&output.stdout);
    let committed = events(&out, "offsets_committed");
    assert!(committed[0].contains(r#""error":""#) && committed[0].ends_with(r#","success":false}"#), "{out}");
    assert_eq!(events(&out, "shutdown_complete").len(), 1, "{out}");

    for (name, args) in [
        ("verifiable_consumer", &["--topic", "numbers", "--group-id", "g"][..]),
        ("verifiable_consumer", &["--bootstrap-server", "127.0.0.1:1", "--group-id", "g"]),
        ("verifiable_consumer", &["--bootstrap-server", "127.0.0.1:1", "--group-id", "g", "--topic", "t", "--shout"]),
        (
            "verifiable_consumer",
            &["--bootstrap-server", "127.0.0.1:1", "--group-id", "g", "--topic", "t", "--assignment-strategy", "x"],
        ),
        (
            "verifiable_consumer",
            &["--bootstrap-server", "127.0.0.1:1", "--group-id", "g", "--topic", "t", "--group-protocol", "x"],
        ),
        ("verifiable_producer", &["--bootstrap-server", "127.0.0.1:1"]),
        ("verifiable_producer", &["--bootstrap-server", "127.0.0.1:1", "--topic", "t", "--acks", "2"]),
        (
            "verifiable_producer",
            &["--bootstrap-server", "127.0.0.1:1", "--topic", "t", "--command-config", "no such file"],
        ),
    ] {
        let mut command = program(name);
        command.args(args);
        let output = run(command, Vec::new()).await;
        assert!(!output.status.success() && output.stdout.is_empty(), "{name} {args:?}: {}", text(&output.stdout));
        assert!(text(&output.stderr).starts_with("error: "), "{name} {args:?}: {}", text(&output.stderr));
    }
}

/// Runs a program until it has printed `count` events of that name, asks it to end, and returns all
/// its output.
#[cfg(unix)]
async fn run_until(mut command: std::process::Command, name: &'static str, count: usize) -> String {
    use std::io::{BufRead, BufReader, Read};
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

    tokio::task::spawn_blocking(move || {
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            while events(&text, name).len() < count {
                let read = out.read_line(&mut text).expect("a line");
                assert!(read > 0, "it ended by itself: {text}");
            }
            tell.send(()).expect("the receiver waits");
            out.read_to_string(&mut text).expect("the rest");
            text
        });
        if told.recv_timeout(PATIENCE).is_err() {
            child.kill().expect("it can be killed");
            child.wait().expect("it has ended");
            panic!("it did not print {name} {count} times: {:?}", reader.join());
        }
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("a signal").success());
        let text = reader.join().expect("no panic");
        assert!(child.wait().expect("it ends").success(), "{text}");
        text
    })
    .await
    .expect("no panic")
}

#[cfg(unix)]
#[tokio::test]
async fn ends_cleanly_on_signal_and_reads_properties() {
    let cluster = Cluster::start(Options::new()).await.expect("a cluster");
    cluster.create_topic("numbers", 2).expect("a topic");
    let mut produce = program("verifiable_producer");
    produce.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers", "--throughput", "500"]);
    let out = run_until(produce, "producer_send_success", 50).await;
    let sent = events(&out, "producer_send_success").len();
    assert!(events(&out, "producer_send_error").is_empty(), "{out}");
    assert!(events(&out, "tool_data")[0].contains(&format!(r#""sent":{sent},"acked":{sent},"#)), "{out}");
    let ends: i64 = (0..2).map(|partition| cluster.log_end("numbers", partition).expect("an end")).sum();
    assert_eq!(usize::try_from(ends).expect("not negative"), sent);

    let file = std::env::temp_dir().join(format!("verifiable-{}.properties", std::process::id()));
    std::fs::write(&file, "# a comment\nclient.id = from-the-file\nmax.poll.records: 7\ngroup.id=not-this-one\n")
        .expect("a file");
    let mut consume = program("verifiable_consumer");
    consume.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers", "--group-id", "g", "--verbose"]);
    consume.args(["--group-protocol", "consumer", "--group-remote-assignor", "range", "--group-instance-id", "one"]);
    consume.args(["--command-config".as_ref(), file.as_os_str()]);
    let out = run_until(consume, "record_data", 20).await;
    std::fs::remove_file(&file).expect("the file existed");
    assert_eq!(events(&out, "partitions_assigned").len(), 1, "{out}");
    let largest = |line: &&str| (8..=500).any(|count| line.contains(&format!(r#","count":{count},"partitions""#)));
    assert!(!events(&out, "records_consumed").iter().any(largest), "{out}");
    assert_eq!(events(&out, "shutdown_complete").len(), 1, "{out}");
    let consumed = i64::try_from(events(&out, "record_data").len()).expect("a number");
    let committed: i64 = (0..2).map(|partition| cluster.committed("g", "numbers", partition).unwrap_or(0)).sum();
    assert_eq!(committed, consumed);
    let group = cluster.consumer_group("g").expect("a group of the consumer protocol");
    let members: Vec<_> = group
        .members
        .iter()
        .map(|member| (member.instance_id.as_deref(), member.client_id.as_str(), member.epoch))
        .collect();
    assert_eq!(
        (group.assignor.as_str(), members),
        ("range", vec![(Some("one"), "from-the-file", -2)]),
        "its membership is kept"
    );
    assert!(cluster.group("not-this-one").is_none());
}

#[tokio::test]
async fn producer_tells_end_of_each_transaction() {
    let cluster = Cluster::start(Options::new()).await.expect("a cluster");
    cluster.create_topic("numbers", 2).expect("a topic");
    let mut produce = program("verifiable_producer");
    produce.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers", "--max-messages", "25"]);
    produce.args(["--transactional-id", "numbers-1", "--transaction-size", "10"]);
    let output = run(produce, Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert_eq!(events(&out, "producer_send_success").len(), 25, "{out}");
    let ended = events(&out, "transaction_ended");
    let expected = [(1, 10), (2, 10), (3, 5)]
        .map(|(number, records)| format!(r#""transaction":{number},"records":{records},"outcome":"committed"}}"#));
    assert_eq!(ended.len(), 3, "{out}");
    assert!(ended.iter().zip(&expected).all(|(line, end)| line.ends_with(end)), "{out}");
}
