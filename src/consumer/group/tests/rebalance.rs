use super::*;
use crate::{
    error::{ErrorCode, ErrorKind},
    testkit::on,
    wire::ApiKey,
};

#[tokio::test(start_paused = true)]
async fn single_member_owns_and_keeps_all_partitions() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    let before = cluster.requests(ApiKey::Heartbeat);
    sleep(SESSION * 5).await;
    assert!(cluster.requests(ApiKey::Heartbeat) >= before + 49);
    let heard = member.now();
    assert_eq!((heard.assigned, heard.revoked, heard.lost), (1, 0, 0));
    assert_eq!(cluster.group("g").unwrap().generation, 1);
}

#[tokio::test(start_paused = true)]
async fn remaining_member_takes_over_after_close() {
    let cluster = cluster(Options::new().brokers(3)).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(partitions("t", 0..4)).await;
    let mut second = Member::joined(&cluster, &["t"]);
    second.until("a share", |heard| heard.owned.len() == 2).await;
    let kept = first.until("a share", |heard| heard.owned.len() == 2).await;
    assert!(kept.owned.is_disjoint(&second.now().owned));
    assert_eq!((kept.revoked, kept.lost), (1, 0));

    second.handle.close(soon()).await.unwrap();
    assert_eq!(cluster.group("g").unwrap().members.len(), 1, "it left at once, not by its session");
    first.owns(partitions("t", 0..4)).await;
    assert_eq!(first.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn partitions_move_when_member_session_expires() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::joined(&cluster, &["t"]);
    let mut second = Member::joined(&cluster, &["t"]);
    first.until("a share", |heard| heard.owned.len() == 2).await;
    second.until("a share", |heard| heard.owned.len() == 2).await;
    drop(second);
    first.owns(partitions("t", 0..4)).await;
    assert_eq!(first.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn partitions_have_one_owner_under_churn() {
    let cluster = cluster(Options::new().brokers(2)).await;
    let mut members = Vec::new();
    for round in 0..6 {
        members.push(Member::joined(&cluster, &["t"]));
        if round % 3 == 2 {
            members.remove(0).handle.close(soon()).await.unwrap();
        }
    }
    sleep(Duration::from_secs(30)).await;
    let owned: Vec<TopicPartition> = members.iter().flat_map(|member| member.now().owned).collect();
    assert_eq!(owned.len(), 4);
    assert_eq!(owned.into_iter().collect::<BTreeSet<_>>(), partitions("t", 0..4));
}

#[tokio::test(start_paused = true)]
async fn slow_revocation_commits_and_loses_nothing() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(partitions("t", 0..4)).await;
    first.finishes_after(SESSION * 4);
    *first.habits.commits.lock().unwrap() = vec![(TopicPartition::new("t", 3), 42.into())];
    let mut second = Member::joined(&cluster, &["t"]);
    second.until("a share", |heard| heard.owned.len() == 2).await;
    first.until("a share", |heard| heard.owned.len() == 2).await;
    let heard = first.now();
    assert_eq!((heard.revoked, heard.lost, heard.errors.len()), (1, 0, 0));
    assert_eq!(cluster.committed("g", "t", 3), Some(42));
}

#[tokio::test(start_paused = true)]
async fn endless_revocation_loses_partitions_and_others_continue() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(partitions("t", 0..4)).await;
    first.finishes_after(LONG * 10);
    let mut second = Member::joined(&cluster, &["t"]);
    first.until("losing everything", |heard| heard.lost == 1).await;
    second.until("a share", |heard| heard.owned.len() == 2).await;
    first.until("a share", |heard| heard.owned.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn leaves_when_poll_timer_expires_then_rejoins() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    member.polls(false);
    let heard = member.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.lost, 1);
    assert_eq!(heard.errors[0].kind(), ErrorKind::NotAssigned);
    sleep(POLL_INTERVAL * 2).await;
    assert!(cluster.group("g").unwrap().members.is_empty());
    let refused = member.handle.commit(vec![(TopicPartition::new("t", 0), 1.into())], soon()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotAssigned);
    assert_eq!(member.now().errors.len(), 1, "told once");

    member.polls(true);
    member.owns(partitions("t", 0..4)).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_reader_stays_in_group() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    member.polls(false);
    let reading = member.handle.begin_poll();
    sleep(POLL_INTERVAL * 3).await;
    assert!(member.now().errors.is_empty());
    drop(reading);
    member.until("being told", |heard| !heard.errors.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn static_member_restarts_without_rebalance() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::with(&cluster, static_settings("a"));
    first.subscribe(&["t"]);
    let mut second = Member::with(&cluster, static_settings("b"));
    second.subscribe(&["t"]);
    let share = first.until("a share", |heard| heard.owned.len() == 2).await.owned;
    second.until("a share", |heard| heard.owned.len() == 2).await;
    let (generation, assigned) = (cluster.group("g").unwrap().generation, second.now().assigned);

    first.handle.close(soon()).await.unwrap();
    assert_eq!(cluster.group("g").unwrap().members.len(), 2, "it stays");
    let mut again = Member::with(&cluster, static_settings("a"));
    again.subscribe(&["t"]);
    again.owns(share).await;
    sleep(SESSION * 3).await;
    assert_eq!(cluster.group("g").unwrap().generation, generation);
    assert_eq!(second.now().assigned, assigned);
    assert_eq!(again.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn duplicate_instance_id_fences_older_member() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::with(&cluster, static_settings("a"));
    first.subscribe(&["t"]);
    first.owns(partitions("t", 0..4)).await;
    let mut second = Member::with(&cluster, static_settings("a"));
    second.subscribe(&["t"]);
    second.owns(partitions("t", 0..4)).await;
    let heard = first.until("its end", |heard| heard.fatal.is_some()).await;
    assert_eq!(heard.lost, 1);
    let error = first.handle.commit(vec![(TopicPartition::new("t", 0), 1.into())], soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    sleep(SESSION * 3).await;
    assert_eq!(second.now().owned.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn coordinator_move_causes_no_rebalance() {
    let cluster = cluster(Options::new().brokers(3)).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    let generation = cluster.group("g").unwrap().generation;
    for _ in 0..3 {
        let now = cluster.coordinator("g").unwrap();
        let next = cluster.brokers().into_iter().find(|&broker| broker != now).unwrap();
        cluster.move_coordinator("g", next).unwrap();
        member.handle.commit(vec![(TopicPartition::new("t", 0), 7.into())], soon()).await.unwrap();
        sleep(SESSION * 2).await;
    }
    let heard = member.now();
    assert_eq!((heard.assigned, heard.lost, heard.revoked), (1, 0, 0));
    assert_eq!(cluster.group("g").unwrap().generation, generation);
}

#[tokio::test(start_paused = true)]
async fn group_survives_failure_of_coordinator_broker() {
    let cluster = cluster(Options::new().brokers(3)).await;
    let mut first = Member::joined(&cluster, &["t"]);
    let mut second = Member::joined(&cluster, &["t"]);
    first.until("a share", |heard| heard.owned.len() == 2).await;
    second.until("a share", |heard| heard.owned.len() == 2).await;
    cluster.kill(cluster.coordinator("g").unwrap()).await.unwrap();
    sleep(SESSION * 3).await;
    assert_eq!((first.now().owned.len(), second.now().owned.len()), (2, 2));
    assert_eq!(cluster.group("g").unwrap().members.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn silent_coordinator_loses_partitions_after_session_timeout() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    let silence = cluster.fault(on(ApiKey::Heartbeat).forever().hang());
    member.until("losing everything", |heard| heard.lost == 1).await;
    silence.clear();
    member.owns(partitions("t", 0..4)).await;
}

#[tokio::test(start_paused = true)]
async fn changing_subscription_changes_assignment_without_loss() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("u", 2).unwrap();
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    member.subscribe(&["u"]);
    member.owns(partitions("u", 0..2)).await;
    member.handle.subscribe(None);
    member.owns(BTreeSet::new()).await;
    sleep(Duration::from_secs(1)).await;
    assert!(cluster.group("g").unwrap().members.is_empty());
    member.subscribe(&["t", "u"]);
    let mut both = partitions("t", 0..4);
    both.extend(partitions("u", 0..2));
    member.owns(both).await;
    assert_eq!(member.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn regex_follows_created_and_deleted_topics() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["^t", "^audit\\."]);
    member.owns(partitions("t", 0..4)).await;
    cluster.create_topic("audit.a", 1).unwrap();
    cluster.create_topic("other", 1).unwrap();
    let mut expected = partitions("t", 0..4);
    expected.extend(partitions("audit.a", 0..1));
    member.owns(expected.clone()).await;
    cluster.add_partitions("audit.a", 3).unwrap();
    expected.extend(partitions("audit.a", 0..3));
    member.owns(expected).await;
    cluster.delete_topic("audit.a").unwrap();
    member.owns(partitions("t", 0..4)).await;
    assert_eq!(member.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn assigns_topic_once_it_is_created() {
    let cluster = cluster(Options::new().auto_create(false)).await;
    let mut member = Member::joined(&cluster, &["later"]);
    member.until("an empty assignment", |heard| heard.assigned == 1).await;
    assert!(member.now().owned.is_empty());
    cluster.create_topic("later", 2).unwrap();
    member.owns(partitions("later", 0..2)).await;
}

#[tokio::test(start_paused = true)]
async fn joins_old_brokers_with_oldest_versions() {
    let oldest = [
        (ApiKey::JoinGroup, 0),
        (ApiKey::SyncGroup, 0),
        (ApiKey::Heartbeat, 0),
        (ApiKey::LeaveGroup, 0),
        (ApiKey::OffsetCommit, 2),
        (ApiKey::OffsetFetch, 1),
        (ApiKey::FindCoordinator, 0),
    ];
    let options = oldest.into_iter().fold(Options::new(), |options, (key, version)| options.max_version(key, version));
    let cluster = cluster(options).await;
    let mut first = Member::with(&cluster, static_settings("unknown there"));
    first.subscribe(&["t"]);
    let mut second = Member::joined(&cluster, &["t"]);
    first.until("a share", |heard| heard.owned.len() == 2).await;
    let owned = second.until("a share", |heard| heard.owned.len() == 2).await.owned;
    let partition = owned.first().unwrap().clone();
    second.handle.commit(vec![(partition.clone(), 5.into())], soon()).await.unwrap();
    let read = second.handle.committed(vec![partition.clone()], soon()).await.unwrap();
    assert_eq!(read[&partition], Some(5.into()));
    second.handle.close(soon()).await.unwrap();
    first.owns(partitions("t", 0..4)).await;
}

#[tokio::test(start_paused = true)]
async fn close_ends_at_deadline_without_coordinator() {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    cluster.kill(cluster.coordinator("g").unwrap()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let error = timeout(LONG, member.handle.close(deadline)).await.expect("it ends").unwrap_err();
    assert!(error.is_retriable(), "{error}");
    assert!(Instant::now() <= deadline + Duration::from_millis(10));
    // Closing again has no effect.
    member.handle.close(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn full_group_ends_the_member() {
    let cluster = cluster(Options::new().max_group_size(1)).await;
    let mut first = Member::joined(&cluster, &["t"]);
    first.owns(partitions("t", 0..4)).await;
    let mut second = Member::joined(&cluster, &["t"]);
    let heard = second.until("being told", |heard| heard.fatal.is_some()).await;
    assert_eq!(heard.fatal.and_then(|error| error.code()), Some(ErrorCode::GROUP_MAX_SIZE_REACHED));
    first.handle.close(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn regex_matches_ten_thousand_topics() {
    let cluster = cluster(Options::new()).await;
    for n in 0..10_000 {
        cluster.create_topic(&format!("many-{n}"), 1).unwrap();
    }
    let mut first = Member::joined(&cluster, &["^many-"]);
    first.until("owning all", |heard| heard.owned.len() == 10_000).await;
    let mut second = Member::joined(&cluster, &["^many-[0-4]"]);
    let second = second.until("a share, or none", |heard| heard.assigned > 0).await;
    let first = first.until("the rest", |heard| heard.assigned > 1).await;
    assert_eq!(first.owned.len() + second.owned.len(), 10_000);
    assert!(first.owned.is_disjoint(&second.owned));
}
