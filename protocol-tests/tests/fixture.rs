//! Tests of the fixture itself, on which the other tests depend.
#![cfg(unix)]

use std::time::{Duration, Instant};

use protocol_tests::kcat::Kcat;
use protocol_tests::{Consumed, Error, Kafka, Message, needs, or_skip, shared, unique};

const SOON: Duration = Duration::from_secs(120);

fn messages() -> Vec<Message> {
    vec![
        Message::value("plain"),
        Message::value("keyed").key("k"),
        Message { key: Some(b"gone".to_vec()), ..Message::default() },
        Message::value("Ōttla ✓").key("k").header("a", "1").header("a", "2"),
        Message { headers: vec![("null".to_owned(), None)], ..Message::value("last") },
    ]
}

fn offsets(consumed: &[Consumed]) -> Vec<i64> {
    consumed.iter().map(|record| record.offset).collect()
}

fn contents(consumed: Vec<Consumed>) -> Vec<Message> {
    consumed.into_iter().map(|record| record.message).collect()
}

#[tokio::test]
async fn console_consumer_reads_console_producer_records() -> Result<(), Error> {
    if !needs("3.2", "headers and nulls in the console producer (KIP-798, KIP-810)") {
        return Ok(());
    }
    let Some(kafka) = shared().await else {
        return Ok(());
    };
    let topic = unique("console");
    kafka.create_topic(&topic, 1, 1, &[]).await?;
    let before = std::time::SystemTime::now();
    kafka.tools().produce(&topic, &messages(), &[("compression.type", "zstd")]).await?;
    let consumed = kafka.tools().consume(&topic, 5, &[("check.crcs", "true")]).await?;
    assert_eq!(offsets(&consumed), [0, 1, 2, 3, 4]);
    let since = before.duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    assert!(consumed.iter().all(|record| u128::try_from(record.timestamp).is_ok_and(|time| time >= since)));
    assert_eq!(contents(consumed), messages());
    Ok(())
}

#[tokio::test]
async fn kcat_and_java_read_each_others_records() -> Result<(), Error> {
    if !needs("3.2", "null keys in the console producer (KIP-810)") {
        return Ok(());
    }
    let Some(kafka) = shared().await else {
        return Ok(());
    };
    let Some(kcat) = or_skip(Kcat::find(kafka.bootstrap())) else {
        return Ok(());
    };
    let sent = [
        Message::value("one").key("k").header("h", "1"),
        Message { headers: vec![("h".to_owned(), Some(b"1".to_vec()))], key: Some(b"gone".to_vec()), value: None },
        Message::value("three").header("h", "1"),
    ];
    let topic = unique("kcat");
    kafka.create_topic(&topic, 1, 1, &[]).await?;
    kcat.produce(&topic, &sent, &[("compression.codec", "lz4")]).await?;
    assert_eq!(contents(kafka.tools().consume(&topic, 3, &[]).await?), sent);
    assert_eq!(contents(kcat.consume(&topic, &[]).await?), sent);

    let topic = unique("java");
    kafka.create_topic(&topic, 1, 1, &[]).await?;
    let sent = [Message::value("one").key("k"), Message::value("two"), Message::value("")];
    kafka.tools().produce(&topic, &sent, &[("compression.type", "gzip")]).await?;
    assert_eq!(contents(kcat.consume(&topic, &[("check.crcs", "true")]).await?), sent);
    Ok(())
}

#[tokio::test]
async fn topic_tool_and_fixture_see_same_topics() -> Result<(), Error> {
    let Some(kafka) = shared().await else {
        return Ok(());
    };
    let topic = unique("topic");
    kafka.create_topic(&topic, 3, 1, &[("retention.ms", "123456")]).await?;
    let described = kafka.tools().describe_topic(&topic).await?;
    assert_eq!(described.iter().map(|partition| partition.partition).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(
        described
            .iter()
            .all(|partition| { partition.leader == Some(0) && partition.replicas == [0] && partition.in_sync == [0] })
    );
    let again = kafka.create_topic(&topic, 3, 1, &[]).await;
    assert!(matches!(again, Err(Error::Refused { code: 36, .. })), "TOPIC_ALREADY_EXISTS, not {again:?}");

    let topic = unique("tool");
    kafka.tools().create_topic(&topic, 2, 1).await?;
    let seen = kafka.until_topic(&topic, SOON, |topic| topic.partitions.len() == 2).await?;
    assert!(seen.partitions.iter().all(|partition| partition.leader == 0));
    assert!(kafka.tools().list_topics().await?.contains(&topic));
    kafka.tools().delete_topic(&topic).await?;
    // UNKNOWN_TOPIC_OR_PARTITION
    kafka.until_topic(&topic, SOON, |topic| topic.error == 3).await?;
    Ok(())
}

#[tokio::test]
async fn three_nodes_survive_loss_of_leader() -> Result<(), Error> {
    if !needs("3.0", "a quorum of several controllers, which 2.8's preview of KRaft cannot keep up") {
        return Ok(());
    }
    let Some(kafka) = or_skip(Kafka::builder().nodes(3).start().await) else {
        return Ok(());
    };
    let topic = unique("three");
    kafka.create_topic(&topic, 3, 3, &[("min.insync.replicas", "2")]).await?;
    let whole = |copies: usize| {
        move |topic: &protocol_tests::TopicView| {
            topic.partitions.len() == 3
                && topic.partitions.iter().all(|partition| partition.leader >= 0 && partition.in_sync.len() == copies)
        }
    };
    kafka.until_topic(&topic, SOON, whole(3)).await?;

    let leader = kafka.view(0, &[&topic]).await?.topics[0].partitions[0].leader;
    let victim = usize::try_from(leader).expect("a leader's id");
    kafka.node(victim).kill()?;
    assert!(!kafka.node(victim).is_up());
    kafka.ready().await?;
    let seen = kafka.until_topic(&topic, SOON, whole(2)).await?;
    assert!(seen.partitions.iter().all(|partition| partition.leader != leader && !partition.in_sync.contains(&leader)));

    // Acknowledged by both remaining replicas, and read through any node.
    kafka.tools().produce(&topic, &[Message::value("while one is dead")], &[("acks", "all")]).await?;
    kafka.node(victim).start()?;
    kafka.ready().await?;
    kafka.until_topic(&topic, SOON, whole(3)).await?;
    assert_eq!(contents(kafka.tools().consume(&topic, 1, &[]).await?), [Message::value("while one is dead")]);

    // An orderly stop moves the partitions to other nodes, and the node can come back as well.
    kafka.node(victim).stop().await?;
    kafka.ready().await?;
    kafka.node(victim).start()?;
    kafka.ready().await?;
    kafka.until_topic(&topic, SOON, whole(3)).await?;
    Ok(())
}

#[tokio::test]
async fn frozen_node_responds_again_after_thaw() -> Result<(), Error> {
    let Some(kafka) = or_skip(Kafka::builder().start().await) else {
        return Ok(());
    };
    kafka.node(0).freeze()?;
    assert!(kafka.node(0).is_up());
    let silent = kafka.view(0, &[]).await;
    assert!(matches!(silent, Err(Error::TimedOut { .. })), "{silent:?}");
    kafka.node(0).thaw()?;
    kafka.ready().await?;
    assert_eq!(kafka.view(0, &[]).await?.brokers, [0]);
    Ok(())
}

#[tokio::test]
async fn startup_failure_names_invalid_setting() -> Result<(), Error> {
    let started = Kafka::builder().config("log.retention.hours", "for ever").start().await;
    match started {
        Ok(kafka) => panic!("it started at {}", kafka.bootstrap()),
        Err(error) if error.is_unavailable() => drop(or_skip::<Kafka>(Err(error))),
        Err(error) => assert!(error.to_string().contains("log.retention.hours"), "{error}"),
    }
    Ok(())
}

/// Returns true once no process listens on a port any more; tries repeatedly.
fn falls_silent(address: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_ok() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

/// Runs the launcher and waits for its line.
fn launch() -> Option<(std::process::Child, String)> {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    let mut launcher = Command::new(env!("CARGO_BIN_EXE_kafka"))
        .args(["--heap-mb", "256", "--config", "num.partitions=2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the launcher starts");
    let mut line = String::new();
    let stdout = launcher.stdout.take().expect("its output");
    std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("bootstrap.servers=").map(str::to_owned);
    address.map(|address| (launcher, address))
}

#[tokio::test]
async fn broker_ends_with_its_launcher() -> Result<(), Error> {
    // Only checks whether Kafka can run here.
    if shared().await.is_none() {
        return Ok(());
    }
    let (mut launcher, address) = launch().expect("its address");
    assert!(std::net::TcpStream::connect(&address).is_ok());
    drop(launcher.stdin.take());
    assert!(launcher.wait().expect("its end").success());
    assert!(falls_silent(&address), "the broker outlived its launcher's input");

    let (mut launcher, address) = launch().expect("its address");
    launcher.kill().expect("killing the launcher");
    launcher.wait().expect("its end");
    assert!(falls_silent(&address), "the broker outlived its killed launcher");
    Ok(())
}

#[tokio::test]
async fn additional_listener_requires_authentication() -> Result<(), Error> {
    if !needs("3.5", "SCRAM credentials before the first start (KIP-900)") {
        return Ok(());
    }
    let plain = r#"org.apache.kafka.common.security.plain.PlainLoginModule required user_bob="secret";"#;
    let builder = Kafka::builder()
        .listener("WHO", "SASL_PLAINTEXT")
        .config("listener.name.who.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256")
        .config("listener.name.who.plain.sasl.jaas.config", plain)
        .config(
            "listener.name.who.scram-sha-256.sasl.jaas.config",
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        )
        .format_arg("--add-scram")
        .format_arg("SCRAM-SHA-256=[name=alice,password=wonder]");
    let Some(kafka) = or_skip(builder.start().await) else {
        return Ok(());
    };
    let address = kafka.bootstrap_of("WHO").expect("the listener's address");
    assert_eq!(kafka.bootstrap_of("NOBODY"), None);
    let topic = unique("who");
    kafka.create_topic(&topic, 1, 1, &[]).await?;
    let jaas =
        r#"org.apache.kafka.common.security.scram.ScramLoginModule required username="alice" password="wonder";"#;
    let scram =
        [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.jaas.config", jaas)];
    kafka.tools().produce(&topic, &[Message::value("through the plain one")], &[]).await?;
    let read = kafka.tools().at(&address).consume(&topic, 1, &scram).await?;
    assert_eq!(contents(read), [Message::value("through the plain one")]);

    // PLAIN only: Kafka 4.3 refuses librdkafka 2.0, which Debian has, with SCRAM credentials that
    // Java's client may use.
    let Some(kcat) = or_skip(Kcat::find(address)) else {
        return Ok(());
    };
    let login = |password| {
        [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "bob"),
            ("sasl.password", password),
        ]
    };
    assert_eq!(kcat.consume(&topic, &login("secret")).await?.len(), 1);
    let refused = kcat.consume(&topic, &login("wrong")).await;
    assert!(matches!(refused, Err(Error::Ended { .. })), "{refused:?}");
    Ok(())
}
