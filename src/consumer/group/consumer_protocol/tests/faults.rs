use tokio::time::sleep;

use super::{members::*, *};
use crate::{
    testkit::{Cluster, Fault, Options, on},
    wire::ApiKey,
};

/// Joins, commits and fetches the offset in spite of a fault, and stays for a while.
async fn gets_through(cluster: &Cluster, what: &str, fault: Fault) {
    let fault = cluster.fault(fault);
    let mut member = Member::joined(cluster, &["t"]);
    member.until(what, |heard| heard.owned.len() == 4).await;
    let partition = TopicPartition::new("t", 0);
    let mut tries = 0;
    while let Err(error) = member.handle.commit(vec![(partition.clone(), 11.into())], soon()).await {
        tries += 1;
        assert!(tries < 60, "{what}: {error}");
        sleep(Duration::from_secs(1)).await;
    }
    let read = member.handle.committed(vec![partition.clone()], soon()).await.unwrap();
    assert_eq!(read[&partition], Some(11.into()), "{what}");
    sleep(SESSION).await;
    member.owns(set("t", 0..4)).await;
    assert!(fault.hits() > 0, "{what}: the fault was met");
    assert!(member.now().fatal.is_none(), "{what}");
    fault.clear();
    member.handle.close(soon()).await.unwrap();
}

const ASKED: [ApiKey; 4] =
    [ApiKey::FindCoordinator, ApiKey::ConsumerGroupHeartbeat, ApiKey::OffsetCommit, ApiKey::OffsetFetch];

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
async fn rejoins_after_member_is_fenced() {
    let codes = [
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::FENCED_MEMBER_EPOCH,
        ErrorCode::STALE_MEMBER_EPOCH,
        ErrorCode::GROUP_ID_NOT_FOUND,
    ];
    for code in codes {
        // At the join, and later.
        for skip in [0, 3] {
            if (skip, code) == (0, ErrorCode::GROUP_ID_NOT_FOUND) {
                continue;
            }
            let cluster = cluster(Options::new()).await;
            let fault = on(ApiKey::ConsumerGroupHeartbeat).skip(skip).times(3).error(code);
            gets_through(&cluster, &format!("heartbeat {code} after {skip}"), fault).await;
        }
        let cluster = cluster(Options::new()).await;
        gets_through(&cluster, &format!("commit {code}"), on(ApiKey::OffsetCommit).error(code)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn recovers_from_lost_or_slow_responses() {
    for key in ASKED {
        for (what, fault) in [
            ("request lost", on(key).times(2).drop_connection()),
            ("answer lost", on(key).times(2).act_then_drop()),
            ("answer cut", on(key).times(1).truncate_response()),
            ("slow", on(key).times(2).delay(Duration::from_secs(3))),
            ("refused though carried out", on(key).times(2).act_then_error(ErrorCode::COORDINATOR_NOT_AVAILABLE)),
        ] {
            let cluster = cluster(Options::new()).await;
            gets_through(&cluster, &format!("{key} {what}"), fault).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_members_settle_after_lost_response() {
    for skip in 0..8 {
        for fault in [
            on(ApiKey::ConsumerGroupHeartbeat).skip(skip).act_then_drop(),
            on(ApiKey::ConsumerGroupHeartbeat).skip(skip).drop_connection(),
            on(ApiKey::ConsumerGroupHeartbeat).skip(skip).act_then_error(ErrorCode::NOT_COORDINATOR),
        ] {
            let cluster = cluster(Options::new()).await;
            let fault = cluster.fault(fault);
            let mut first = Member::joined(&cluster, &["t"]);
            let mut second = Member::joined(&cluster, &["t"]);
            first.owns_so_many(2).await;
            second.owns_so_many(2).await;
            sleep(Duration::from_secs(60)).await;
            assert_eq!(fault.hits(), 1);
            one_owner_each(&[&first, &second]);
            assert_eq!(first.now().owned.len() + second.now().owned.len(), 4, "after {skip}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reports_permanent_error_once_and_rejoins() {
    let codes = [
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::new(9_999),
    ];
    for code in codes {
        let cluster = cluster(Options::new()).await;
        cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).times(1).error(code));
        let mut member = Member::joined(&cluster, &["t"]);
        let heard = member.owns(set("t", 0..4)).await;
        assert_eq!(heard.errors.iter().map(Error::code).collect::<Vec<_>>(), [Some(code)]);
    }
}

#[tokio::test(start_paused = true)]
async fn topic_authorization_error_costs_no_partitions() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    let fault = cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).times(5).error(code));
    fault.reached(5).await;
    sleep(SESSION).await;
    let heard = member.now();
    assert_eq!(heard.errors.iter().map(Error::code).collect::<Vec<_>>(), [Some(code)]);
    assert_eq!((heard.owned.len(), heard.lost), (4, 0));
}
