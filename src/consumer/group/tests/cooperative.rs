//! Tests of the classic protocol with each of its assignors.

use std::{collections::BTreeSet, sync::Arc};

use tokio::time::sleep;

use super::*;
use crate::{
    ApiKey, ErrorCode, TopicPartition,
    consumer::{
        OffsetAndMetadata,
        group::{
            GroupSettings,
            assignor::{
                Assignments, Assignor, CooperativeStickyAssignor, GroupSubscription, RangeAssignor, RoundRobinAssignor,
                StickyAssignor, defaults,
            },
        },
    },
    error::BoxError,
    testkit::on,
};

const SESSION: Duration = Duration::from_secs(10);

fn with(assignors: Vec<Arc<dyn Assignor>>) -> GroupSettings {
    GroupSettings { assignors, ..settings(GroupProtocol::Classic) }
}

fn cooperative() -> GroupSettings {
    with(vec![Arc::new(CooperativeStickyAssignor)])
}

fn joined(cluster: &Cluster, settings: GroupSettings) -> Member {
    let member = Member::with(cluster, GroupProtocol::Classic, settings);
    member.subscribe(&["t"]);
    member
}

/// Waits until each member has its number of partitions, and everything has one owner.
async fn share(members: &mut [Member], each: &[usize]) {
    for _ in 0..10_000 {
        let owned: Vec<_> = members.iter().map(|member| member.now().owned).collect();
        let all: BTreeSet<_> = owned.iter().flatten().collect();
        if owned.iter().map(BTreeSet::len).eq(each.iter().copied()) && all.len() == each.iter().sum::<usize>() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it never came to {each:?}: {:?}", members.iter().map(Member::now).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn rebalance_revokes_only_moving_partitions() {
    let cluster = cluster(Options::new()).await;
    let mut first = joined(&cluster, cooperative());
    first.owns(partitions("t", 0..4)).await;
    let mut second = joined(&cluster, cooperative());
    second.owns(partitions("t", 2..4)).await;
    let heard = first.owns(partitions("t", 0..2)).await;
    assert_eq!((heard.revoked, heard.lost), (1, 0), "only what moved");
    second.handle.close(soon()).await.unwrap();
    let heard = first.owns(partitions("t", 0..4)).await;
    assert_eq!((heard.revoked, heard.lost), (1, 0), "nothing of what it had");
    assert_eq!(cluster.group("g").unwrap().protocol.as_deref(), Some("cooperative-sticky"));
}

#[tokio::test(start_paused = true)]
async fn every_assignor_shares_partitions_and_takes_over() {
    let strategies: [Vec<Arc<dyn Assignor>>; 5] = [
        vec![Arc::new(RoundRobinAssignor)],
        vec![Arc::new(StickyAssignor)],
        vec![Arc::new(CooperativeStickyAssignor)],
        defaults(),
        vec![Arc::new(Backwards)],
    ];
    for assignors in strategies {
        let cluster = cluster(Options::new()).await;
        let mut members: Vec<Member> = (0..2).map(|_| joined(&cluster, with(assignors.clone()))).collect();
        share(&mut members, &[2, 2]).await;
        members.push(joined(&cluster, with(assignors.clone())));
        for member in &mut members {
            member.until("a share", |heard| (1..3).contains(&heard.owned.len())).await;
        }
        members.pop();
        share(&mut members, &[2, 2]).await;
        members.pop();
        share(&mut members, &[4]).await;
    }
}

/// A custom strategy.
#[derive(Debug)]
struct Backwards;

impl Assignor for Backwards {
    fn name(&self) -> &str {
        "backwards"
    }

    fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError> {
        let mut assignments = Assignments::new();
        let mut takers = group.members.iter().rev().cycle();
        for (topic, partitions) in &group.topics {
            for partition in 0..partitions.len() {
                let taker = takers.next().ok_or("the group has no members")?;
                let partition = TopicPartition::new(topic.clone(), i32::try_from(partition)?);
                assignments.entry(taker.member_id.clone()).or_default().push(partition);
            }
        }
        Ok(assignments)
    }
}

#[tokio::test(start_paused = true)]
async fn commits_kept_partitions_during_rebalance() {
    let cluster = cluster(Options::new()).await;
    let mut first = joined(&cluster, cooperative());
    first.owns(partitions("t", 0..4)).await;
    // The response to its next join is late: meanwhile the group moves to the next generation.
    let late = cluster.fault(on(ApiKey::JoinGroup).skip(2).delay_response(Duration::from_secs(7)));
    let mut second = joined(&cluster, cooperative());
    let kept = || vec![(TopicPartition::new("t", 0), OffsetAndMetadata::new(5))];
    let mut committed = 0;
    while late.hits() == 0 || committed < 20 {
        first.handle.commit(kept(), soon()).await.unwrap();
        committed += 1;
        sleep(Duration::from_millis(500)).await;
    }
    second.owns(partitions("t", 2..4)).await;
    let heard = first.owns(partitions("t", 0..2)).await;
    assert!(heard.errors.is_empty() && heard.lost == 0, "{heard:?}");
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
    let moved = vec![(TopicPartition::new("t", 3), OffsetAndMetadata::new(1))];
    assert_eq!(first.handle.commit(moved, soon()).await.unwrap_err().kind(), crate::ErrorKind::NotAssigned);
}

#[tokio::test(start_paused = true)]
async fn rolling_restarts_migrate_eager_to_cooperative() {
    let cluster = cluster(Options::new()).await;
    let range = || with(vec![Arc::new(RangeAssignor)]);
    let mut members = vec![joined(&cluster, range()), joined(&cluster, range())];
    share(&mut members, &[2, 2]).await;
    for next in [with(defaults()), cooperative()] {
        for _ in 0..2 {
            members.remove(0).handle.close(soon()).await.unwrap();
            members.push(joined(&cluster, next.clone()));
            share(&mut members, &[2, 2]).await;
        }
    }
    assert_eq!(cluster.group("g").unwrap().protocol.as_deref(), Some("cooperative-sticky"));
    members.push(joined(&cluster, cooperative()));
    share(&mut members, &[2, 1, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn restarted_static_member_regains_its_partitions() {
    let cluster = cluster(Options::new()).await;
    let fixed = |id: &str| GroupSettings { group_instance_id: Some(id.into()), ..cooperative() };
    let mut first = joined(&cluster, fixed("a"));
    let mut second = joined(&cluster, fixed("b"));
    first.until("two", |heard| heard.owned.len() == 2).await;
    let had = second.until("two", |heard| heard.owned.len() == 2).await.owned;
    let generation = cluster.group("g").unwrap().generation;
    second.handle.close(soon()).await.unwrap();
    drop(second);
    sleep(SESSION / 2).await;
    let mut second = joined(&cluster, fixed("b"));
    second.owns(had).await;
    assert_eq!(cluster.group("g").unwrap().generation, generation, "no other member was disturbed");
}

#[tokio::test(start_paused = true)]
async fn kept_partitions_are_lost_on_session_timeout() {
    let cluster = cluster(Options::new()).await;
    let mut first = joined(&cluster, cooperative());
    first.owns(partitions("t", 0..4)).await;
    // The member joins a rebalance, and from then on gets no response.
    let silence = cluster.fault(on(ApiKey::JoinGroup).skip(2).forever().hang());
    let beats = cluster.fault(on(ApiKey::Heartbeat).skip(3).forever().hang());
    let _second = joined(&cluster, cooperative());
    let heard = first.until("a loss", |heard| heard.lost > 0).await;
    assert!(heard.owned.is_empty());
    silence.clear();
    beats.clear();
    first.until("owning again", |heard| !heard.owned.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn reports_group_without_common_assignor() {
    let cluster = cluster(Options::new()).await;
    let mut first = joined(&cluster, with(vec![Arc::new(RangeAssignor)]));
    first.owns(partitions("t", 0..4)).await;
    let mut second = joined(&cluster, cooperative());
    let heard = second.until("an error", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.errors[0].code(), Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
    assert_eq!(first.now().owned.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn rejoins_when_coordinator_moves_or_forgets_group() {
    for assignors in [defaults(), vec![Arc::new(CooperativeStickyAssignor) as Arc<dyn Assignor>]] {
        let cluster = cluster(Options::new().brokers(3)).await;
        let mut members: Vec<Member> = (0..2).map(|_| joined(&cluster, with(assignors.clone()))).collect();
        share(&mut members, &[2, 2]).await;
        for broker in cluster.brokers() {
            cluster.move_coordinator("g", broker).unwrap();
            sleep(SESSION).await;
        }
        share(&mut members, &[2, 2]).await;
        assert!(members.iter().all(|member| member.now().lost == 0), "a move takes nothing away");
        cluster.forget_group("g").unwrap();
        for member in &mut members {
            member.until("a loss", |heard| heard.lost > 0).await;
        }
        share(&mut members, &[2, 2]).await;
        // Also during a rebalance.
        members.push(joined(&cluster, with(assignors.clone())));
        sleep(Duration::from_millis(200)).await;
        cluster.forget_group("g").unwrap();
        for member in &mut members {
            member.until("a share", |heard| (1..3).contains(&heard.owned.len())).await;
        }
        members.pop();
        share(&mut members, &[2, 2]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn commit_refused_during_rebalance_succeeds_afterwards() {
    let cluster = cluster(Options::new()).await;
    let mut first = joined(&cluster, cooperative());
    first.owns(partitions("t", 0..4)).await;
    // All have joined, and the assignment takes a while; the response to the commit arrives after
    // it.
    cluster.fault(on(ApiKey::SyncGroup).times(2).delay(Duration::from_secs(4)));
    cluster.fault(on(ApiKey::OffsetCommit).times(1).delay_response(Duration::from_secs(6)));
    let mut second = joined(&cluster, cooperative());
    while cluster.group("g").unwrap().state != "CompletingRebalance" {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let kept: Vec<_> = (0..2).map(|n| (TopicPartition::new("t", n), OffsetAndMetadata::new(7))).collect();
    first.handle.commit(kept, soon()).await.unwrap();
    assert_eq!((cluster.committed("g", "t", 0), cluster.committed("g", "t", 1)), (Some(7), Some(7)));
    second.owns(partitions("t", 2..4)).await;
    let heard = first.owns(partitions("t", 0..2)).await;
    assert_eq!((heard.revoked, heard.lost), (1, 0));
    let generation = cluster.group("g").unwrap().generation;
    sleep(2 * SESSION).await;
    assert_eq!(cluster.group("g").unwrap().generation, generation, "no member rejoined because of it");
    assert_eq!(generation, 3, "one to find out what moves, and one to move it");
}
