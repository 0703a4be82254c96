//! The fixture with the Kafkas of years past, since the client is to speak with all of them.
#![cfg(unix)]

use protocol_tests::{Error, Kafka, Message, or_skip, unique};

/// A console round trip with Kafka's own tools of that version, which also went through other packages and options.
async fn round_trip(version: &str) -> Result<(), Error> {
    let Some(kafka) = or_skip(Kafka::builder().version(version).start().await) else {
        return Ok(());
    };
    let topic = unique("old");
    kafka.create_topic(&topic, 2, 1, &[]).await?;
    assert_eq!(kafka.tools().describe_topic(&topic).await?.len(), 2);
    let sent = [Message::value("v").key("k"), Message::value("w").key("k")];
    kafka.tools().produce(&topic, &sent, &[("acks", "all")]).await?;
    let consumed = kafka.tools().consume(&topic, 2, &[]).await?;
    assert_eq!(consumed.into_iter().map(|record| record.message).collect::<Vec<_>>(), sent);
    Ok(())
}

#[tokio::test]
async fn kafka_4_0_round_trip() -> Result<(), Error> {
    round_trip("4.0.1").await
}

#[tokio::test]
async fn kafka_3_9_round_trip() -> Result<(), Error> {
    round_trip("3.9.1").await
}

#[tokio::test]
async fn kafka_3_7_round_trip() -> Result<(), Error> {
    round_trip("3.7.2").await
}

#[tokio::test]
async fn kafka_2_8_round_trip() -> Result<(), Error> {
    round_trip("2.8.2").await
}

#[tokio::test]
async fn a_version_that_cannot_be_had_or_run_is_said() {
    for (version, unavailable) in [("4.99.0", true), ("2.7.2", false), ("latest", false)] {
        match Kafka::builder().version(version).start().await {
            Ok(kafka) => panic!("{version} runs at {}", kafka.bootstrap()),
            Err(error) if error.is_unavailable() => assert!(unavailable, "{version}: {error}"),
            Err(error) => assert!(matches!(error, Error::Unfit(_)), "{version}: {error}"),
        }
    }
}
