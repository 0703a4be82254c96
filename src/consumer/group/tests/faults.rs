use super::*;
use crate::{
    error::ErrorCode,
    testkit::{Fault, on},
    wire::ApiKey,
};

/// Joins, commits and fetches the offset in spite of a fault, and stays for a while.
async fn gets_through(cluster: &Cluster, what: &str, fault: Fault) {
    let fault = cluster.fault(fault);
    let mut member = Member::joined(cluster, &["t"]);
    member.until(what, |heard| heard.owned.len() == 4).await;
    let partition = TopicPartition::new("t", 0);
    let mut tries = 0;
    // A commit may hit a rebalance that the fault caused (which waits for the session of a member
    // that came again under another id); then the consumer has to commit again.
    while let Err(error) = member.handle.commit(vec![(partition.clone(), 11.into())], soon()).await {
        tries += 1;
        assert!(tries < 60, "{what}: {error}");
        sleep(Duration::from_secs(1)).await;
    }
    let read = member.handle.committed(vec![partition.clone()], soon()).await.unwrap();
    assert_eq!(read[&partition], Some(11.into()), "{what}");
    sleep(SESSION * 2).await;
    member.owns(partitions("t", 0..4)).await;
    assert!(fault.hits() > 0, "{what}: the fault was met");
    assert!(member.now().fatal.is_none(), "{what}");
    fault.clear();
    member.handle.close(soon()).await.unwrap();
}

const ASKED: [ApiKey; 6] = [
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::SyncGroup,
    ApiKey::Heartbeat,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
];

#[tokio::test(start_paused = true)]
async fn waits_for_loading_or_moved_coordinator() {
    let codes =
        [ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::NOT_COORDINATOR];
    for key in ASKED {
        for code in codes {
            let cluster = cluster(Options::new().brokers(2)).await;
            gets_through(&cluster, &format!("{key} {code}"), on(key).times(3).error(code)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rejoins_after_membership_error_in_any_request() {
    let codes = [ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::ILLEGAL_GENERATION, ErrorCode::REBALANCE_IN_PROGRESS];
    for key in [ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::Heartbeat, ApiKey::OffsetCommit] {
        for code in codes {
            let cluster = cluster(Options::new()).await;
            gets_through(&cluster, &format!("{key} {code}"), on(key).times(3).error(code)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reports_permanent_error_once_and_rejoins() {
    let codes = [
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ErrorCode::INVALID_SESSION_TIMEOUT,
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::new(9_999),
    ];
    for key in [ApiKey::JoinGroup, ApiKey::SyncGroup] {
        for code in codes {
            let cluster = cluster(Options::new()).await;
            cluster.fault(on(key).times(1).error(code));
            let mut member = Member::joined(&cluster, &["t"]);
            member.owns(partitions("t", 0..4)).await;
            let codes: Vec<_> = member.now().errors.iter().map(Error::code).collect();
            assert_eq!(codes, [Some(code)], "{key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reconnects_after_connection_or_response_loss() {
    for key in ASKED {
        let cluster = cluster(Options::new()).await;
        gets_through(&cluster, &format!("{key} dropped"), on(key).times(2).drop_connection()).await;
        gets_through(&cluster, &format!("{key} answer dropped"), on(key).times(2).act_then_drop()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn recovers_from_truncated_responses() {
    for key in [ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::Heartbeat] {
        let cluster = cluster(Options::new()).await;
        cluster.fault(on(key).times(1).truncate_response());
        let mut member = Member::joined(&cluster, &["t"]);
        member.owns(partitions("t", 0..4)).await;
        sleep(SESSION * 2).await;
        member.owns(partitions("t", 0..4)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_responses_keep_membership() {
    for key in ASKED {
        let cluster = cluster(Options::new()).await;
        let slow = on(key).times(2).delay(Duration::from_secs(3));
        gets_through(&cluster, &format!("slow {key}"), slow).await;
    }
}

#[tokio::test(start_paused = true)]
async fn waits_for_unreachable_broker_to_return() {
    let cluster = cluster(Options::new()).await;
    let broker = cluster.brokers()[0];
    cluster.kill(broker).await.unwrap();
    let mut member = Member::joined(&cluster, &["t"]);
    sleep(SESSION * 5).await;
    assert_eq!(member.now().assigned, 0);
    cluster.restart(broker).await.unwrap();
    member.owns(partitions("t", 0..4)).await;
}
