//! Tests of the log lines for operators: joins, losses, resets and outages, with their causes, in
//! few lines.

use tracing::Level;

use super::*;
use crate::{ApiKey, ErrorCode, log::capture::Lines, testkit::on_any_of};

for_each_group_protocol!(logs_joins_and_position_resets_at_info, lost_partitions_name_reason_member_and_setting,);

async fn member(cluster: &Cluster, protocol: GroupProtocol) -> Consumer {
    subscribed(group_builder(cluster, protocol).client_id("c7"), &["t"]).await
}

#[tokio::test(start_paused = true)]
async fn outage_is_logged_repeatedly_until_its_end() {
    let lines = Lines::capture();
    let cluster = cluster(1).await;
    cluster.create_topic("t", 200).unwrap();
    let consumer = member(&cluster, GroupProtocol::Classic).await;
    assert!(is_quiet(&consumer).await);
    lines.clear();
    cluster.kill(1).await.unwrap();
    let down = tokio::time::timeout(300 * SECOND, async { while consumer.recv().await.is_some() {} }).await;
    assert!(down.is_err(), "an outage ends nothing");
    let warned = lines.with(Level::WARN, "no metadata");
    assert!((5..=8).contains(&warned.len()), "at once, after 10 s and every minute: {warned:#?}");
    assert!(warned[1..].iter().all(|line| line.contains("outage_ms=")), "{warned:#?}");
    cluster.restart(1).await.unwrap();
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(lines.with(Level::INFO, "metadata").iter().filter(|line| line.contains("outage_ms=")).count(), 1);
    let all = lines.all().into_iter().filter(|line| line.level <= Level::INFO);
    let all: Vec<String> = all.map(|line| line.text).collect();
    assert!(all.len() <= 45, "200 partitions are not 200 lines: {all:#?}");
    lines.assert_origin("client_id=c7 role=consumer group=g");
}

async fn logs_joins_and_position_resets_at_info(protocol: GroupProtocol) {
    let lines = Lines::capture();
    let cluster = cluster(1).await;
    cluster.create_topic("t", 200).unwrap();
    let consumer = member(&cluster, protocol).await;
    assert!(is_quiet(&consumer).await);
    let joined = lines.with(Level::INFO, "joined");
    assert!(joined.iter().any(|line| line.contains("member=") && line.contains("generation=")), "{joined:#?}");
    let assigned = lines.with(Level::INFO, "assigned");
    assert!(assigned.iter().any(|line| line.contains("count=200") && line.contains("and 195 more")), "{assigned:#?}");
    let reset = lines.with(Level::INFO, "reset");
    assert!(reset.len() == 1 && reset[0].contains("count=200"), "{reset:#?}");
    assert!(reset[0].contains("committed no offset") && reset[0].contains("earliest"), "{reset:#?}");
    consumer.close(SECOND).await.unwrap();
    lines.assert_origin("client_id=c7 role=consumer group=g");
}

async fn lost_partitions_name_reason_member_and_setting(protocol: GroupProtocol) {
    let lines = Lines::capture();
    let cluster = cluster(1).await;
    cluster.create_topic("t", 3).unwrap();
    append(&cluster, "t", 0, 0..10);
    let consumer = member(&cluster, protocol).await;
    assert_eq!(number(&next(&consumer).await), 0);
    let keys = [ApiKey::Heartbeat, ApiKey::ConsumerGroupHeartbeat];
    cluster.fault(on_any_of(keys).error(ErrorCode::UNKNOWN_MEMBER_ID).times(1));
    tokio::time::sleep(20 * SECOND).await;
    let lost = lines.with(Level::WARN, "lost");
    assert_eq!(lost.len(), 1, "{lost:#?}");
    for part in ["UNKNOWN_MEMBER_ID", "group=g", "member=", "generation=", "count=3", "session.timeout.ms"] {
        assert!(lost[0].contains(part), "{part} is not in {lost:#?}");
    }
    drop(consumer);

    lines.clear();
    let builder = group_builder(&cluster, protocol).group("p");
    let consumer = subscribed(builder.max_poll_interval(20 * SECOND), &["t"]).await;
    assert_eq!(number(&next(&consumer).await), 0);
    tokio::time::sleep(60 * SECOND).await;
    let lost = lines.with(Level::WARN, "lost");
    assert!(lost.len() == 1 && lost[0].contains("max.poll.interval.ms (20000 ms)"), "{lost:#?}");
}

#[tokio::test(start_paused = true)]
async fn stalled_partitions_are_one_line() {
    let lines = Lines::capture();
    let cluster = cluster(1).await;
    cluster.create_topic("t", 40).unwrap();
    cluster.fault(on_any_of([ApiKey::ListOffsets]).error(ErrorCode::LEADER_NOT_AVAILABLE).forever());
    let consumer = consumer(&cluster).await;
    consumer.assign((0..40).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    tokio::time::sleep(100 * SECOND).await;
    let stalled = lines.with(Level::WARN, "LEADER_NOT_AVAILABLE");
    assert!((2..=3).contains(&stalled.len()), "once, and again every minute: {stalled:#?}");
    assert!(stalled[0].contains("count=40") && stalled[0].contains("and 35 more"), "{stalled:#?}");
    cluster.clear_faults();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(lines.with(Level::INFO, "make progress again").len(), 1);
}
