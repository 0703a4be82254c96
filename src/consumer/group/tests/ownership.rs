//! Scenarios of partitions that members own, release and take over.

use std::collections::BTreeSet;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{
    consumer::GroupState,
    error::{ErrorCode, ErrorKind},
    record::TopicPartition,
    testkit::on,
    tests::{for_each_group_protocol, heartbeat},
    wire::ApiKey,
};

for_each_group_protocol!(
    single_member_owns_and_keeps_all_partitions,
    remaining_member_takes_over_after_close,
    partitions_move_when_member_session_expires,
    partitions_have_one_owner_under_churn,
    slow_revocation_commits_and_loses_nothing,
    endless_revocation_loses_partitions_and_others_continue,
    leaves_when_poll_timer_expires_then_rejoins,
    waiting_reader_stays_in_group,
    coordinator_move_causes_no_rebalance,
    group_survives_failure_of_coordinator_broker,
    silent_coordinator_loses_partitions_after_session_timeout,
    rejoins_when_coordinator_forgets_group,
    close_ends_at_deadline_without_coordinator,
    full_group_ends_the_member,
    retried_leave_does_not_remove_rejoined_member,
);

async fn single_member_owns_and_keeps_all_partitions(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, protocol).await;
    let before = cluster.requests(heartbeat(protocol));
    sleep(session(protocol) * 5).await;
    // One a second; in the consumer protocol one in five, as the brokers ask for.
    let expected = if protocol == GroupProtocol::Classic { 49 } else { 44 };
    assert!(cluster.requests(heartbeat(protocol)) >= before + expected);
    let heard = member.now();
    assert_eq!((heard.assigned, heard.revoked, heard.lost), (1, 0, 0));
    let group = group(&cluster);
    assert_eq!((group.state, group.generation, group.members.len()), ("Stable", 1, 1));
    match member.handle.status().state {
        GroupState::Stable { member_id, generation } => {
            assert_eq!((&*member_id, generation), (&*group.members[0].member_id, 1));
        }
        other => panic!("{other:?}"),
    }
    if protocol == GroupProtocol::Consumer {
        assert_eq!(cluster.requests(ApiKey::JoinGroup), 0);
    }
}

async fn remaining_member_takes_over_after_close(protocol: GroupProtocol) {
    let cluster = cluster(Options::new().brokers(3)).await;
    let mut first = settled(&cluster, protocol).await;
    let mut second = Member::joined(&cluster, protocol, &["t"]);
    second.owns_so_many(2).await;
    let kept = first.owns_so_many(2).await;
    assert!(kept.is_disjoint(&second.now().owned));
    let heard = first.now();
    // A member of the classic protocol with an eager assignor gives up everything.
    let assigned = if protocol == GroupProtocol::Classic { 2 } else { 1 };
    assert_eq!((heard.assigned, heard.revoked, heard.lost), (assigned, 1, 0));

    second.handle.close(soon()).await.unwrap();
    assert_eq!(group(&cluster).members.len(), 1, "it left at once, not by its session");
    first.owns(partitions("t", 0..4)).await;
    assert_eq!(first.now().lost, 0);
}

async fn partitions_move_when_member_session_expires(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let [mut first, second] = two_settled(&cluster, protocol).await;
    drop(second);
    first.owns(partitions("t", 0..4)).await;
    assert_eq!(first.now().lost, 0);
}

async fn partitions_have_one_owner_under_churn(protocol: GroupProtocol) {
    for pauses in [true, false] {
        let cluster = cluster(Options::new().brokers(2)).await;
        let mut members = Vec::new();
        for round in 0..9 {
            members.push(Member::joined(&cluster, protocol, &["t"]));
            if round % 3 == 2 {
                members.remove(0).handle.close(soon()).await.unwrap();
            }
            if pauses {
                sleep(SECOND * (round % 4)).await;
            }
            one_owner_each(&members.iter().collect::<Vec<_>>());
        }
        sleep(SECOND * 60).await;
        let owned: BTreeSet<_> = members.iter().flat_map(|member| member.now().owned).collect();
        assert_eq!(owned, partitions("t", 0..4));
        one_owner_each(&members.iter().collect::<Vec<_>>());
        assert_eq!(members.iter().map(|member| member.now().lost).sum::<u32>(), 0);
    }
}

async fn slow_revocation_commits_and_loses_nothing(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut first = settled(&cluster, protocol).await;
    first.finishes_after(SECOND * 100);
    first.commits((0..4).map(|n| (TopicPartition::new("t", n), (40 + i64::from(n)).into())).collect());
    let begun = Instant::now();
    let mut second = Member::joined(&cluster, protocol, &["t"]);
    let gained = second.owns_so_many(2).await;
    assert!(begun.elapsed() >= SECOND * 100, "nothing is taken before it was given up");
    first.owns_so_many(2).await;
    let heard = first.now();
    assert_eq!((heard.revoked, heard.lost, heard.errors.len()), (1, 0, 0), "{:?}", heard.errors);
    for partition in gained {
        let committed = cluster.committed("g", "t", partition.partition);
        assert_eq!(committed, Some(40 + i64::from(partition.partition)));
    }
}

/// An eager member of the classic protocol loses everything, one of the consumer protocol only the
/// partitions that move.
async fn endless_revocation_loses_partitions_and_others_continue(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut first = settled(&cluster, protocol).await;
    first.finishes_after(LONG * 10);
    let mut second = Member::joined(&cluster, protocol, &["t"]);
    let heard = first.until("losing", |heard| heard.lost == 1).await;
    assert_eq!(heard.owned.len(), if protocol == GroupProtocol::Classic { 0 } else { 2 });
    second.owns_so_many(2).await;
    first.owns_so_many(2).await;
    one_owner_each(&[&first, &second]);
    assert_eq!(group(&cluster).members.len(), 2, "it was not given up");
}

async fn leaves_when_poll_timer_expires_then_rejoins(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut member = settled(&cluster, protocol).await;
    member.polls(false);
    let heard = member.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!((heard.lost, heard.errors[0].kind()), (1, ErrorKind::NotAssigned));
    sleep(POLL_INTERVAL * 2).await;
    assert_eq!(group(&cluster).members.len(), 0);
    assert!(matches!(member.handle.status().state, GroupState::WaitingForReader));
    let refused = member.handle.commit(vec![(TopicPartition::new("t", 0), 1.into())], soon()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotAssigned);
    assert_eq!(member.now().errors.len(), 1, "told once");

    member.polls(true);
    member.owns(partitions("t", 0..4)).await;
}

async fn waiting_reader_stays_in_group(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut member = settled(&cluster, protocol).await;
    member.polls(false);
    let reading = member.handle.begin_poll();
    sleep(POLL_INTERVAL * 3).await;
    assert!(member.now().errors.is_empty());
    drop(reading);
    member.until("being told", |heard| !heard.errors.is_empty()).await;
}

async fn coordinator_move_causes_no_rebalance(protocol: GroupProtocol) {
    let cluster = cluster(Options::new().brokers(3)).await;
    let member = settled(&cluster, protocol).await;
    let before = group(&cluster).generation;
    for _ in 0..3 {
        let now = cluster.coordinator("g").unwrap();
        let next = cluster.brokers().into_iter().find(|&broker| broker != now).unwrap();
        cluster.move_coordinator("g", next).unwrap();
        member.handle.commit(vec![(TopicPartition::new("t", 0), 7.into())], soon()).await.unwrap();
        sleep(session(protocol) * 2).await;
    }
    let heard = member.now();
    assert_eq!((heard.assigned, heard.lost, heard.revoked), (1, 0, 0));
    assert_eq!(group(&cluster).generation, before);
}

async fn group_survives_failure_of_coordinator_broker(protocol: GroupProtocol) {
    let cluster = cluster(Options::new().brokers(3)).await;
    let [first, second] = two_settled(&cluster, protocol).await;
    let before = group(&cluster).generation;
    cluster.kill(cluster.coordinator("g").unwrap()).await.unwrap();
    sleep(session(protocol) * 3).await;
    assert_eq!((first.now().owned.len(), second.now().owned.len()), (2, 2));
    assert_eq!((first.now().lost, second.now().lost), (0, 0));
    let group = group(&cluster);
    assert_eq!((group.generation, group.members.len()), (before, 2));
}

async fn silent_coordinator_loses_partitions_after_session_timeout(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut member = settled(&cluster, protocol).await;
    let silence = cluster.fault(on(heartbeat(protocol)).forever().hang());
    member.until("losing everything", |heard| heard.lost == 1).await;
    silence.clear();
    member.owns(partitions("t", 0..4)).await;
}

async fn rejoins_when_coordinator_forgets_group(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let [mut first, mut second] = two_settled(&cluster, protocol).await;
    first.handle.commit(vec![(first.now().owned.first().unwrap().clone(), 7.into())], soon()).await.unwrap();
    cluster.forget_group("g").unwrap();
    assert_eq!(group(&cluster).members.len(), 0);
    first.until("losing everything", |heard| heard.lost == 1).await;
    second.until("losing everything", |heard| heard.lost == 1).await;
    first.owns_so_many(2).await;
    second.owns_so_many(2).await;
    sleep(session(protocol)).await;
    one_owner_each(&[&first, &second]);
    assert_eq!((first.now().lost, second.now().lost), (1, 1));
    // A member that commits before it has noticed gets an error, and nothing is committed for other
    // members.
    cluster.forget_group("g").unwrap();
    let owned = first.now().owned.first().unwrap().clone();
    let refused = first.handle.commit(vec![(owned, 9.into())], soon()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotAssigned, "{refused}");
    first.owns_so_many(2).await;
}

async fn close_ends_at_deadline_without_coordinator(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, protocol).await;
    cluster.kill(cluster.coordinator("g").unwrap()).await.unwrap();
    let deadline = Instant::now() + SECOND * 5;
    let error = timeout(LONG, member.handle.close(deadline)).await.expect("it ends").unwrap_err();
    assert!(error.is_retriable(), "{error}");
    assert!(Instant::now() <= deadline + Duration::from_millis(10));
    // Closing again has no effect.
    member.handle.close(soon()).await.unwrap();
}

async fn full_group_ends_the_member(protocol: GroupProtocol) {
    let cluster = cluster(Options::new().max_group_size(1)).await;
    let first = settled(&cluster, protocol).await;
    let mut second = Member::joined(&cluster, protocol, &["t"]);
    let heard = second.until("being told", |heard| heard.fatal.is_some()).await;
    assert_eq!(heard.fatal.and_then(|error| error.code()), Some(ErrorCode::GROUP_MAX_SIZE_REACHED));
    first.handle.close(soon()).await.unwrap();
}

/// The first attempt to leave is refused, the member joins again (in the consumer protocol under
/// the same id), and only then is the attempt repeated.
async fn retried_leave_does_not_remove_rejoined_member(protocol: GroupProtocol) {
    // A static member of the classic protocol does not say that it leaves.
    let (leave, instances) = match protocol {
        GroupProtocol::Classic => (on(ApiKey::LeaveGroup), &[None][..]),
        GroupProtocol::Consumer => (on(ApiKey::ConsumerGroupHeartbeat), &[None, Some("a")][..]),
    };
    for instance in instances {
        for poll_interval_passes in [false, true] {
            for moves in [false, true] {
                let cluster = cluster(Options::new()).await;
                let mut member = match instance {
                    Some(instance) => Member::fixed(&cluster, protocol, instance),
                    None => Member::joined(&cluster, protocol, &["t"]),
                };
                member.owns(partitions("t", 0..4)).await;
                // By then the member has reported the partitions that it owns.
                sleep(SECOND).await;
                let leave = || {
                    let leave = leave.clone();
                    cluster.fault(if moves { leave.error(ErrorCode::NOT_COORDINATOR) } else { leave.drop_connection() })
                };
                let (leave, lost) = if poll_interval_passes {
                    member.polls(false);
                    // The member's last heartbeat before it leaves is answered: the fault is set
                    // after it.
                    sleep(POLL_INTERVAL - Duration::from_millis(2_400)).await;
                    let leave = leave();
                    member.until("being put out", |heard| heard.lost == 1).await;
                    sleep(Duration::from_millis(10)).await;
                    member.polls(true);
                    drop(member.handle.begin_poll());
                    (leave, 1)
                } else {
                    let leave = leave();
                    member.handle.subscribe(None);
                    leave.reached(1).await;
                    member.subscribe(&["t"]);
                    (leave, 0)
                };
                let what = format!("{instance:?} {poll_interval_passes} {moves}");
                leave.reached(1).await;
                member.owns(partitions("t", 0..4)).await;
                sleep(session(protocol)).await;
                assert_eq!(member.now().lost, lost, "{what}: {:?}", member.now().errors);
                member.owns(partitions("t", 0..4)).await;
            }
        }
    }
}
