use tokio::time::{sleep, timeout};

use super::{members::*, *};
use crate::{
    consumer::GroupState,
    error::ErrorKind,
    testkit::{Options, on},
    wire::ApiKey,
};

#[tokio::test(start_paused = true)]
async fn single_member_owns_and_keeps_all_partitions() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    let before = cluster.requests(ApiKey::ConsumerGroupHeartbeat);
    sleep(SESSION * 5).await;
    assert!(cluster.requests(ApiKey::ConsumerGroupHeartbeat) >= before + 44);
    let heard = member.now();
    assert_eq!((heard.assigned, heard.revoked, heard.lost), (1, 0, 0));
    let group = cluster.consumer_group("g").unwrap();
    assert_eq!((group.state, group.epoch, group.members.len()), ("Stable", 1, 1));
    match member.handle.status().state {
        GroupState::Stable { member_id, generation } => {
            assert_eq!((&*member_id, generation), (&*group.members[0].member_id, 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(cluster.requests(ApiKey::JoinGroup), 0);
}

#[tokio::test(start_paused = true)]
async fn joining_member_revokes_only_moving_partitions() {
    let cluster = cluster(Options::new().brokers(3)).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(set("t", 0..4)).await;
    let mut second = Member::joined(&cluster, &["t"]);
    second.owns_so_many(2).await;
    let kept = first.owns_so_many(2).await;
    assert!(kept.is_disjoint(&second.now().owned));
    let heard = first.now();
    assert_eq!((heard.assigned, heard.revoked, heard.lost), (1, 1, 0), "only what moves was touched");

    second.handle.close(soon()).await.unwrap();
    assert_eq!(cluster.consumer_group("g").unwrap().members.len(), 1, "it left at once, not by its session");
    first.owns(set("t", 0..4)).await;
    assert_eq!(first.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn partitions_move_when_member_session_expires() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::joined(&cluster, &["t"]);
    let mut second = Member::joined(&cluster, &["t"]);
    first.owns_so_many(2).await;
    second.owns_so_many(2).await;
    drop(second);
    first.owns(set("t", 0..4)).await;
    assert_eq!(first.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn partitions_have_one_owner_under_churn() {
    let cluster = cluster(Options::new().brokers(2)).await;
    let mut members = Vec::new();
    for round in 0..9 {
        members.push(Member::joined(&cluster, &["t"]));
        if round % 3 == 2 {
            members.remove(0).handle.close(soon()).await.unwrap();
        }
        sleep(Duration::from_secs(round % 4)).await;
        one_owner_each(&members.iter().collect::<Vec<_>>());
    }
    sleep(Duration::from_secs(60)).await;
    let owned: BTreeSet<_> = members.iter().flat_map(|member| member.now().owned).collect();
    assert_eq!(owned, set("t", 0..4));
    one_owner_each(&members.iter().collect::<Vec<_>>());
    assert_eq!(members.iter().map(|member| member.now().lost).sum::<u32>(), 0);
}

#[tokio::test(start_paused = true)]
async fn uses_server_assignor_and_reports_unsupported() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("u", 4).unwrap();
    let member = || Member::with(&cluster, group_settings(None), Some("range"));
    let (mut first, mut second) = (member(), member());
    first.subscribe(&["t", "u"]);
    second.subscribe(&["t", "u"]);
    let (one, other) = (first.owns_so_many(4).await, second.owns_so_many(4).await);
    let low: BTreeSet<_> = set("t", 0..2).into_iter().chain(set("u", 0..2)).collect();
    assert!(one == low || other == low, "{one:?} {other:?}");
    assert_eq!(cluster.consumer_group("g").unwrap().assignor, "range");

    let mut third = Member::with(&cluster, group_settings(None), Some("sticky"));
    third.subscribe(&["t"]);
    let heard = third.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.errors[0].code(), Some(ErrorCode::UNSUPPORTED_ASSIGNOR));
}

#[tokio::test(start_paused = true)]
async fn slow_revocation_commits_and_loses_nothing() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(set("t", 0..4)).await;
    first.finishes_after(Duration::from_secs(100));
    *first.habits.commits.lock().unwrap() =
        (0..4).map(|n| (TopicPartition::new("t", n), (40 + i64::from(n)).into())).collect();
    let mut second = Member::joined(&cluster, &["t"]);
    let begun = tokio::time::Instant::now();
    let gained = second.owns_so_many(2).await;
    assert!(begun.elapsed() >= Duration::from_secs(100), "nothing is taken before it was given up");
    let heard = first.now();
    assert_eq!((heard.revoked, heard.lost, heard.errors.len()), (1, 0, 0), "{:?}", heard.errors);
    for partition in gained {
        let committed = cluster.committed("g", "t", partition.partition);
        assert_eq!(committed, Some(40 + i64::from(partition.partition)));
    }
}

#[tokio::test(start_paused = true)]
async fn endless_revocation_loses_only_moving_partitions() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(set("t", 0..4)).await;
    first.finishes_after(Duration::from_secs(100_000));
    let mut second = Member::joined(&cluster, &["t"]);
    let heard = first.until("losing", |heard| heard.lost == 1).await;
    assert_eq!(heard.owned.len(), 2, "what stays is not touched");
    second.owns_so_many(2).await;
    one_owner_each(&[&first, &second]);
    assert_eq!(cluster.consumer_group("g").unwrap().members.len(), 2, "it was not given up");
}

#[tokio::test(start_paused = true)]
async fn leaves_when_poll_timer_expires_then_rejoins() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    member.polls(false);
    let heard = member.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!((heard.lost, heard.errors[0].kind()), (1, ErrorKind::NotAssigned));
    sleep(POLL_INTERVAL * 2).await;
    assert!(cluster.consumer_group("g").unwrap().members.is_empty());
    assert!(matches!(member.handle.status().state, GroupState::WaitingForReader));
    let refused = member.handle.commit(vec![(TopicPartition::new("t", 0), 1.into())], soon()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotAssigned);
    assert_eq!(member.now().errors.len(), 1, "told once");
    member.polls(true);
    member.owns(set("t", 0..4)).await;
}

#[tokio::test(start_paused = true)]
async fn static_member_restarts_without_rebalance() {
    let cluster = cluster(Options::new()).await;
    let member = |name| Member::with(&cluster, group_settings(Some(name)), None);
    let (mut first, mut second) = (member("a"), member("b"));
    first.subscribe(&["t"]);
    second.subscribe(&["t"]);
    let share = first.owns_so_many(2).await;
    second.owns_so_many(2).await;
    let (epoch, assigned) = (cluster.consumer_group("g").unwrap().epoch, second.now().assigned);

    first.handle.close(soon()).await.unwrap();
    assert_eq!(cluster.consumer_group("g").unwrap().members.len(), 2, "it stays");
    sleep(Duration::from_secs(30)).await;
    let mut again = member("a");
    again.subscribe(&["t"]);
    again.owns(share).await;
    sleep(SESSION * 3).await;
    assert_eq!(cluster.consumer_group("g").unwrap().epoch, epoch);
    assert_eq!((second.now().assigned, again.now().lost), (assigned, 0));
}

#[tokio::test(start_paused = true)]
async fn static_member_waits_for_unreleased_instance() {
    let cluster = cluster(Options::new()).await;
    let member = || Member::with(&cluster, group_settings(Some("a")), None);
    let mut first = member();
    first.subscribe(&["t"]);
    first.owns(set("t", 0..4)).await;
    drop(first);
    let mut again = member();
    again.subscribe(&["t"]);
    let heard = again.owns(set("t", 0..4)).await;
    assert!(heard.fatal.is_none());
    let told: Vec<_> = heard.errors.iter().map(Error::code).collect();
    assert_eq!(told, [Some(ErrorCode::UNRELEASED_INSTANCE_ID)], "told once while it waits");
}

#[tokio::test(start_paused = true)]
async fn fenced_static_member_rejoins_at_once() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::with(&cluster, group_settings(Some("a")), None);
    member.subscribe(&["t"]);
    member.owns(set("t", 0..4)).await;
    for code in [ErrorCode::FENCED_MEMBER_EPOCH, ErrorCode::UNKNOWN_MEMBER_ID] {
        let lost = member.now().lost;
        cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).error(code));
        member.until("losing everything", |heard| heard.lost == lost + 1).await;
        let begun = tokio::time::Instant::now();
        member.owns(set("t", 0..4)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait for its own session");
    }
    assert!(member.now().errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn duplicate_instance_id_waits_for_first_member() {
    let cluster = cluster(Options::new()).await;
    let member = || Member::with(&cluster, group_settings(Some("a")), None);
    let mut first = member();
    first.subscribe(&["t"]);
    first.owns(set("t", 0..4)).await;
    let mut second = member();
    second.subscribe(&["t"]);
    second.until("being told", |heard| !heard.errors.is_empty()).await;
    sleep(SESSION * 3).await;
    assert_eq!((first.now().owned.len(), second.now().owned.len(), first.now().lost), (4, 0, 0));
    first.handle.close(soon()).await.unwrap();
    second.owns(set("t", 0..4)).await;
}

#[tokio::test(start_paused = true)]
async fn coordinator_move_or_failure_keeps_assignment() {
    let cluster = cluster(Options::new().brokers(3)).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    let epoch = cluster.consumer_group("g").unwrap().epoch;
    for _ in 0..3 {
        let now = cluster.coordinator("g").unwrap();
        let next = cluster.brokers().into_iter().find(|&broker| broker != now).unwrap();
        cluster.move_coordinator("g", next).unwrap();
        member.handle.commit(vec![(TopicPartition::new("t", 0), 7.into())], soon()).await.unwrap();
        sleep(SESSION).await;
    }
    cluster.kill(cluster.coordinator("g").unwrap()).await.unwrap();
    sleep(SESSION * 2).await;
    let heard = member.now();
    assert_eq!((heard.assigned, heard.lost, heard.revoked), (1, 0, 0));
    assert_eq!(cluster.consumer_group("g").unwrap().epoch, epoch);
}

#[tokio::test(start_paused = true)]
async fn silent_coordinator_loses_partitions_after_session_timeout() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    let silence = cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).forever().hang());
    member.until("losing everything", |heard| heard.lost == 1).await;
    silence.clear();
    member.owns(set("t", 0..4)).await;
}

#[tokio::test(start_paused = true)]
async fn changing_subscription_changes_assignment_without_loss() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("u", 2).unwrap();
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    member.subscribe(&["u"]);
    member.owns(set("u", 0..2)).await;
    member.handle.subscribe(None);
    member.owns(BTreeSet::new()).await;
    sleep(Duration::from_secs(1)).await;
    assert!(cluster.consumer_group("g").unwrap().members.is_empty());
    member.subscribe(&["t", "u"]);
    member.owns(set("t", 0..4).into_iter().chain(set("u", 0..2)).collect()).await;
    assert_eq!(member.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn regex_picks_up_new_topics_and_partitions() {
    let cluster = cluster(Options::new().auto_create(false)).await;
    let mut member = Member::joined(&cluster, &["^t$", "^audit\\.", "plain"]);
    member.owns(set("t", 0..4)).await;
    let regex = &cluster.consumer_group("g").unwrap().members[0].regex;
    assert_eq!(regex, ".*(?:(?:^t$)|(?:^audit\\.)).*");
    cluster.create_topic("audit.a", 1).unwrap();
    cluster.create_topic("my-audit.a", 1).unwrap();
    cluster.create_topic("plain", 1).unwrap();
    let mut expected: BTreeSet<_> = set("t", 0..4).into_iter().chain(set("plain", 0..1)).collect();
    expected.extend(set("audit.a", 0..1));
    member.owns(expected.clone()).await;
    cluster.add_partitions("audit.a", 3).unwrap();
    expected.extend(set("audit.a", 0..3));
    member.owns(expected).await;
    member.subscribe(&["t"]);
    member.owns(set("t", 0..4)).await;
    assert_eq!(cluster.consumer_group("g").unwrap().members[0].regex, "");
    assert_eq!(member.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn reports_invalid_regex_and_retries() {
    let cluster = cluster(Options::new()).await;
    cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).error(ErrorCode::INVALID_REGULAR_EXPRESSION));
    let mut member = Member::joined(&cluster, &["^t"]);
    let heard = member.owns(set("t", 0..4)).await;
    assert_eq!(heard.errors[0].code(), Some(ErrorCode::INVALID_REGULAR_EXPRESSION));
}

#[tokio::test(start_paused = true)]
async fn sends_topic_names_when_broker_lacks_regex() {
    let cluster = cluster(Options::new().max_version(ApiKey::ConsumerGroupHeartbeat, 0)).await;
    let mut member = Member::joined(&cluster, &["^t", "^audit"]);
    member.owns(set("t", 0..4)).await;
    cluster.create_topic("audit", 1).unwrap();
    member.owns(set("t", 0..4).into_iter().chain(set("audit", 0..1)).collect()).await;
    assert_eq!(member.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn assigns_topic_when_created_and_recreated() {
    let cluster = cluster(Options::new().auto_create(false)).await;
    let mut member = Member::joined(&cluster, &["later"]);
    member.until("an empty assignment", |heard| heard.assigned == 1).await;
    cluster.create_topic("later", 2).unwrap();
    member.owns(set("later", 0..2)).await;
    let revoked = member.now().revoked;
    cluster.delete_topic("later").unwrap();
    cluster.create_topic("later", 3).unwrap();
    member.owns(set("later", 0..3)).await;
    assert_eq!(member.now().revoked, revoked + 1, "what was there before was given up");
}

#[tokio::test(start_paused = true)]
async fn waits_for_metadata_of_assigned_topic() {
    let cluster = cluster(Options::new()).await;
    // One expression, so that topics are not searched again once it has found one.
    let mut member = Member::joined(&cluster, &["^t$|^late$"]);
    member.owns(set("t", 0..4)).await;
    // The brokers' metadata lags behind the coordinator's.
    let lag = cluster.fault(on(ApiKey::Metadata).topic("late").forever().error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    cluster.create_topic("late", 2).unwrap();
    sleep(SESSION).await;
    assert_eq!(member.now().owned, set("t", 0..4));
    assert!(matches!(member.handle.status().state, GroupState::Rebalancing), "it is missing something");
    assert!(lag.hits() > 3, "it is asked for again and again: {}", lag.hits());
    lag.clear();
    member.owns(set("t", 0..4).into_iter().chain(set("late", 0..2)).collect()).await;
    assert_eq!((member.now().lost, member.now().revoked), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn commit_retries_stale_epoch_and_rejects_unowned() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    // The epoch rises without the member's knowledge.
    cluster.create_topic("u", 1).unwrap();
    let mut other = Member::joined(&cluster, &["u"]);
    other.owns(set("u", 0..1)).await;
    sleep(Duration::from_secs(20)).await;
    let stale = cluster.fault(on(ApiKey::OffsetCommit).times(2).error(ErrorCode::STALE_MEMBER_EPOCH));
    let before = cluster.requests(ApiKey::ConsumerGroupHeartbeat);
    member.handle.commit(vec![(TopicPartition::new("t", 1), 5.into())], soon()).await.unwrap();
    assert_eq!((stale.hits(), cluster.committed("g", "t", 1)), (2, Some(5)));
    assert!(cluster.requests(ApiKey::ConsumerGroupHeartbeat) > before, "the new epoch is asked for at once");
    let refused = member.handle.commit(vec![(TopicPartition::new("u", 0), 5.into())], soon()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotAssigned);
    assert_eq!(cluster.committed("g", "u", 0), None);
    let read = member.handle.committed(vec![TopicPartition::new("t", 1)], soon()).await.unwrap();
    assert_eq!(read[&TopicPartition::new("t", 1)], Some(5.into()));
}

#[tokio::test(start_paused = true)]
async fn full_group_ends_the_member() {
    let cluster = cluster(Options::new().max_group_size(1)).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(set("t", 0..4)).await;
    let mut second = Member::joined(&cluster, &["t"]);
    let heard = second.until("being told", |heard| heard.fatal.is_some()).await;
    assert_eq!(heard.fatal.and_then(|error| error.code()), Some(ErrorCode::GROUP_MAX_SIZE_REACHED));
    first.handle.close(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reports_cluster_without_consumer_protocol() {
    let cluster = cluster(Options::new().max_version(ApiKey::ConsumerGroupHeartbeat, -1)).await;
    let mut member = Member::joined(&cluster, &["t"]);
    let heard = member.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.errors[0].kind(), ErrorKind::UnsupportedVersion);
    assert!(heard.errors[0].to_string().contains("group.protocol=classic"), "{}", heard.errors[0]);
}

#[tokio::test(start_paused = true)]
async fn close_ends_at_deadline_without_coordinator() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(set("t", 0..4)).await;
    cluster.kill(cluster.coordinator("g").unwrap()).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let closed = timeout(Duration::from_secs(100), member.handle.close(deadline)).await.expect("it ends");
    assert!(closed.unwrap_err().is_retriable());
    assert!(tokio::time::Instant::now() <= deadline + Duration::from_millis(10));
    member.handle.close(soon()).await.unwrap();
}

/// The first attempt to leave is refused, the member joins again under the same id, and only then
/// is the attempt repeated.
#[tokio::test(start_paused = true)]
async fn retried_leave_does_not_remove_rejoined_member() {
    for instance in [None, Some("a")] {
        for poll_interval_passes in [false, true] {
            for moves in [false, true] {
                let cluster = cluster(Options::new()).await;
                let mut member = Member::with(&cluster, group_settings(instance), None);
                member.subscribe(&["t"]);
                member.owns(set("t", 0..4)).await;
                // By then the member has reported the partitions that it owns.
                sleep(Duration::from_secs(1)).await;
                let leave = on(ApiKey::ConsumerGroupHeartbeat);
                let plant = || {
                    cluster.fault(if moves {
                        leave.clone().error(ErrorCode::NOT_COORDINATOR)
                    } else {
                        leave.clone().drop_connection()
                    })
                };
                let (leave, lost) = if poll_interval_passes {
                    member.polls(false);
                    // The member's last heartbeat before it leaves is answered: the fault is set
                    // after it.
                    sleep(POLL_INTERVAL - Duration::from_millis(2_400)).await;
                    let leave = plant();
                    member.until("being put out", |heard| heard.lost == 1).await;
                    sleep(Duration::from_millis(10)).await;
                    member.polls(true);
                    drop(member.handle.begin_poll());
                    (leave, 1)
                } else {
                    let leave = plant();
                    member.handle.subscribe(None);
                    leave.reached(1).await;
                    member.subscribe(&["t"]);
                    (leave, 0)
                };
                let what = format!("{instance:?} {poll_interval_passes} {moves}");
                leave.reached(1).await;
                member.owns(set("t", 0..4)).await;
                sleep(SESSION).await;
                assert_eq!(member.now().lost, lost, "{what}: {:?}", member.now().errors);
                member.owns(set("t", 0..4)).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rejoins_when_coordinator_forgets_group() {
    let cluster = cluster(Options::new()).await;
    let (mut first, mut second) = (Member::joined(&cluster, &["t"]), Member::joined(&cluster, &["t"]));
    first.owns_so_many(2).await;
    second.owns_so_many(2).await;
    first.handle.commit(vec![(first.now().owned.first().unwrap().clone(), 7.into())], soon()).await.unwrap();
    cluster.forget_group("g").unwrap();
    assert!(cluster.consumer_group("g").is_none());
    first.until("losing everything", |heard| heard.lost == 1).await;
    second.until("losing everything", |heard| heard.lost == 1).await;
    first.owns_so_many(2).await;
    second.owns_so_many(2).await;
    sleep(SESSION).await;
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
