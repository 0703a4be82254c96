//! Scenarios of brokers that refuse, lose, cut or delay what a member asks for.

use tokio::time::sleep;

use super::*;
use crate::{
    error::{Error, ErrorCode},
    record::TopicPartition,
    testkit::{Fault, on},
    tests::for_each_group_protocol,
    wire::ApiKey,
};

for_each_group_protocol!(
    waits_for_loading_or_moved_coordinator,
    rejoins_after_membership_error_in_any_request,
    reports_permanent_error_once_and_rejoins,
    reconnects_after_connection_or_response_loss,
    recovers_from_truncated_responses,
    slow_responses_keep_membership,
    repeats_requests_refused_after_they_acted,
    two_members_settle_after_lost_response,
    waits_for_unreachable_broker_to_return,
);

/// Joins, commits and fetches the offset in spite of a fault, and stays for a while.
async fn gets_through(cluster: &Cluster, protocol: GroupProtocol, what: &str, fault: Fault) {
    let fault = cluster.fault(fault);
    let mut member = Member::joined(cluster, protocol, &["t"]);
    member.until(what, |heard| heard.owned.len() == 4).await;
    let partition = TopicPartition::new("t", 0);
    let mut tries = 0;
    // A commit may hit a rebalance that the fault caused (which waits for the session of a member
    // that came again under another id); then the consumer has to commit again.
    while let Err(error) = member.handle.commit(vec![(partition.clone(), 11.into())], soon()).await {
        tries += 1;
        assert!(tries < 60, "{what}: {error}");
        sleep(SECOND).await;
    }
    let read = member.handle.committed(vec![partition.clone()], soon()).await.unwrap();
    assert_eq!(read[&partition], Some(11.into()), "{what}");
    sleep(session(protocol) * 2).await;
    member.owns(partitions("t", 0..4)).await;
    assert!(fault.hits() > 0, "{what}: the fault was met");
    assert!(member.now().fatal.is_none(), "{what}");
    fault.clear();
    member.handle.close(soon()).await.unwrap();
}

/// Returns every request that a member sends.
fn requests(protocol: GroupProtocol) -> Vec<ApiKey> {
    let mut requests = vec![ApiKey::FindCoordinator, ApiKey::OffsetCommit, ApiKey::OffsetFetch];
    requests.extend(membership_requests(protocol));
    requests
}

/// Returns the requests by which a member joins a group and stays in it.
fn membership_requests(protocol: GroupProtocol) -> &'static [ApiKey] {
    match protocol {
        GroupProtocol::Classic => &[ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::Heartbeat],
        GroupProtocol::Consumer => &[ApiKey::ConsumerGroupHeartbeat],
    }
}

async fn waits_for_loading_or_moved_coordinator(protocol: GroupProtocol) {
    let codes =
        [ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::NOT_COORDINATOR];
    for key in requests(protocol) {
        for code in codes {
            let cluster = cluster(Options::new().brokers(2)).await;
            gets_through(&cluster, protocol, &format!("{key} {code}"), on(key).times(3).error(code)).await;
        }
    }
}

async fn rejoins_after_membership_error_in_any_request(protocol: GroupProtocol) {
    let codes = match protocol {
        GroupProtocol::Classic => {
            &[ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::ILLEGAL_GENERATION, ErrorCode::REBALANCE_IN_PROGRESS][..]
        }
        GroupProtocol::Consumer => &[
            ErrorCode::UNKNOWN_MEMBER_ID,
            ErrorCode::FENCED_MEMBER_EPOCH,
            ErrorCode::STALE_MEMBER_EPOCH,
            ErrorCode::GROUP_ID_NOT_FOUND,
        ],
    };
    for &code in codes {
        for &key in membership_requests(protocol) {
            // At the join, and later.
            for skip in [0, 3] {
                // A member that joins by a heartbeat creates the group.
                if (skip, code) == (0, ErrorCode::GROUP_ID_NOT_FOUND) {
                    continue;
                }
                // There is no fourth join.
                if skip > 0 && matches!(key, ApiKey::JoinGroup | ApiKey::SyncGroup) {
                    continue;
                }
                let cluster = cluster(Options::new()).await;
                let fault = on(key).skip(skip).times(3).error(code);
                gets_through(&cluster, protocol, &format!("{key} {code} after {skip}"), fault).await;
            }
        }
        let cluster = cluster(Options::new()).await;
        let times = if protocol == GroupProtocol::Classic { 3 } else { 1 };
        let fault = on(ApiKey::OffsetCommit).times(times).error(code);
        gets_through(&cluster, protocol, &format!("commit {code}"), fault).await;
    }
}

async fn reports_permanent_error_once_and_rejoins(protocol: GroupProtocol) {
    let own = match protocol {
        GroupProtocol::Classic => [ErrorCode::INCONSISTENT_GROUP_PROTOCOL, ErrorCode::INVALID_SESSION_TIMEOUT],
        GroupProtocol::Consumer => [ErrorCode::UNSUPPORTED_ASSIGNOR, ErrorCode::INVALID_REQUEST],
    };
    let both = [ErrorCode::GROUP_AUTHORIZATION_FAILED, ErrorCode::UNKNOWN_SERVER_ERROR, ErrorCode::new(9_999)];
    let keys = match protocol {
        GroupProtocol::Classic => &[ApiKey::JoinGroup, ApiKey::SyncGroup][..],
        GroupProtocol::Consumer => &[ApiKey::ConsumerGroupHeartbeat],
    };
    for &key in keys {
        for code in own.into_iter().chain(both) {
            let cluster = cluster(Options::new()).await;
            cluster.fault(on(key).times(1).error(code));
            let member = settled(&cluster, protocol).await;
            let codes: Vec<_> = member.now().errors.iter().map(Error::code).collect();
            assert_eq!(codes, [Some(code)], "{key}");
        }
    }
}

async fn reconnects_after_connection_or_response_loss(protocol: GroupProtocol) {
    for key in requests(protocol) {
        for (what, fault) in
            [("request lost", on(key).times(2).drop_connection()), ("response lost", on(key).times(2).act_then_drop())]
        {
            let cluster = cluster(Options::new()).await;
            gets_through(&cluster, protocol, &format!("{key} {what}"), fault).await;
        }
    }
}

async fn recovers_from_truncated_responses(protocol: GroupProtocol) {
    for key in requests(protocol) {
        let cluster = cluster(Options::new()).await;
        gets_through(&cluster, protocol, &format!("{key} cut"), on(key).times(1).truncate_response()).await;
    }
}

async fn slow_responses_keep_membership(protocol: GroupProtocol) {
    for key in requests(protocol) {
        let cluster = cluster(Options::new()).await;
        gets_through(&cluster, protocol, &format!("slow {key}"), on(key).times(2).delay(SECOND * 3)).await;
    }
}

async fn repeats_requests_refused_after_they_acted(protocol: GroupProtocol) {
    for key in requests(protocol) {
        let cluster = cluster(Options::new()).await;
        let fault = on(key).times(2).act_then_error(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        gets_through(&cluster, protocol, &format!("{key} refused though carried out"), fault).await;
    }
}

async fn two_members_settle_after_lost_response(protocol: GroupProtocol) {
    let asked = match protocol {
        GroupProtocol::Classic => &[(ApiKey::JoinGroup, 4), (ApiKey::SyncGroup, 3), (ApiKey::Heartbeat, 4)][..],
        GroupProtocol::Consumer => &[(ApiKey::ConsumerGroupHeartbeat, 8)],
    };
    for &(key, before) in asked {
        for skip in 0..before {
            for fault in [
                on(key).skip(skip).act_then_drop(),
                on(key).skip(skip).drop_connection(),
                on(key).skip(skip).act_then_error(ErrorCode::NOT_COORDINATOR),
            ] {
                let cluster = cluster(Options::new()).await;
                let fault = cluster.fault(fault);
                let [first, second] = two_settled(&cluster, protocol).await;
                sleep(SECOND * 60).await;
                assert_eq!(fault.hits(), 1, "{key} after {skip}");
                one_owner_each(&[&first, &second]);
                assert_eq!(first.now().owned.len() + second.now().owned.len(), 4, "{key} after {skip}");
            }
        }
    }
}

async fn waits_for_unreachable_broker_to_return(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let broker = cluster.brokers()[0];
    cluster.kill(broker).await.unwrap();
    let mut member = Member::joined(&cluster, protocol, &["t"]);
    sleep(session(protocol) * 5).await;
    assert_eq!(member.now().assigned, 0);
    cluster.restart(broker).await.unwrap();
    member.owns(partitions("t", 0..4)).await;
}
