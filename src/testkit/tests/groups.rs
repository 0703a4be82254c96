//! Tests of groups over the wire, in all versions; the group's state has its own tests beside it.

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::client::{Client, cluster, text};
use crate::{
    ApiKey, ErrorCode,
    testkit::{Options, on},
    wire::messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DescribeGroupsRequest,
        HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
        OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
};

pub(super) fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol { name: text("range"), metadata: Bytes::from_static(b"m") };
    JoinGroupRequest {
        group_id: text(group),
        member_id: text(member),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![protocol],
        ..Default::default()
    }
}

/// Joins, and if the broker asks for it comes back with the id that it assigned.
pub(super) async fn joined(client: &mut Client, group: &str, version: i16) -> JoinGroupResponse {
    let mut request = join(group, "");
    if version < 1 {
        request.rebalance_timeout_ms = -1;
    }
    let first = client.call(&request, version).await;
    if first.error_code != ErrorCode::MEMBER_ID_REQUIRED.code() {
        return first;
    }
    assert!(version >= 4);
    client.call(&JoinGroupRequest { member_id: first.member_id, ..request }, version).await
}

fn sync(group: &str, member: &str, generation: i32) -> SyncGroupRequest {
    let assignment = SyncGroupRequestAssignment { member_id: text(member), ..Default::default() };
    SyncGroupRequest {
        group_id: text(group),
        member_id: text(member),
        generation_id: generation,
        assignments: vec![SyncGroupRequestAssignment { assignment: Bytes::from_static(b"all"), ..assignment }],
        ..Default::default()
    }
}

fn heartbeat(group: &str, member: &str, generation: i32) -> HeartbeatRequest {
    let request = HeartbeatRequest { group_id: text(group), member_id: text(member), ..Default::default() };
    HeartbeatRequest { generation_id: generation, ..request }
}

pub(super) fn commit(group: &str, member: &str, generation: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
    let partition = OffsetCommitRequestPartition { committed_metadata: Some(text("note")), ..partition };
    OffsetCommitRequest {
        group_id: text(group),
        member_id: text(member),
        generation_id_or_member_epoch: generation,
        topics: vec![OffsetCommitRequestTopic { name: text("t"), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn classic_member_lifecycle_works_in_every_version() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    for version in 0..=9 {
        let group = format!("g{version}");
        let member = joined(&mut client, &group, version).await;
        assert_eq!((member.error_code, member.generation_id, member.members.len()), (0, 1, 1), "v{version}");
        assert_eq!(member.leader, member.member_id);
        assert_eq!(member.protocol_name, Some(text("range")));
        assert!(member.member_id.starts_with("tests-"));
        let id = member.member_id.as_str();
        let synced = client.call(&sync(&group, id, 1), version.min(5)).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        assert_eq!(client.call(&heartbeat(&group, id, 1), version.min(4)).await.error_code, 0);
        let commit_version = version.clamp(2, 9);
        let committed = client.call(&commit(&group, id, 1, 7), commit_version).await;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        let stale = client.call(&commit(&group, id, 0, 9), commit_version).await;
        assert_eq!(stale.topics[0].partitions[0].error_code, ErrorCode::ILLEGAL_GENERATION.code());
        assert_eq!(cluster.committed(&group, "t", 0), Some(7));
        let leave = LeaveGroupRequest { group_id: text(&group), ..Default::default() };
        let leave_version = version.min(5);
        let leave = match leave_version {
            3.. => LeaveGroupRequest {
                members: vec![MemberIdentity { member_id: member.member_id.clone(), ..Default::default() }],
                ..leave
            },
            _ => LeaveGroupRequest { member_id: member.member_id.clone(), ..leave },
        };
        let left = client.call(&leave, leave_version).await;
        assert_eq!((left.error_code, left.members.iter().map(|m| m.error_code).sum::<i16>()), (0, 0));
        assert_eq!(cluster.group(&group).unwrap().state, "Empty");
    }
}

#[tokio::test(start_paused = true)]
async fn join_waits_for_members_on_other_connections() {
    let cluster = cluster(Options::new()).await;
    let (mut first, mut second) = (Client::to(&cluster, 1).await, Client::to(&cluster, 1).await);
    let one = joined(&mut first, "g", 5).await;
    first.call(&sync("g", &one.member_id, 1), 3).await;
    let id = second.call(&join("g", ""), 5).await.member_id;
    second.send(&join("g", &id), 5).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let beat = first.call(&heartbeat("g", &one.member_id, 1), 3).await;
    assert_eq!(beat.error_code, ErrorCode::REBALANCE_IN_PROGRESS.code());
    let one = first.call(&join("g", &one.member_id), 5).await;
    let two = second.receive::<JoinGroupRequest>(5).await.unwrap();
    assert_eq!((one.generation_id, two.generation_id), (2, 2));
    assert_eq!((one.members.len(), two.members.len()), (2, 0));
    assert_eq!(two.leader, one.member_id);

    second.send(&SyncGroupRequest { assignments: Vec::new(), ..sync("g", &two.member_id, 2) }, 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.call(&SyncGroupRequest { member_id: one.member_id.clone(), ..sync("g", &two.member_id, 2) }, 3).await;
    let synced = second.receive::<SyncGroupRequest>(3).await.unwrap();
    assert_eq!(&synced.assignment[..], b"all");

    // The second goes silent; the first waits until it is removed.
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    first.call(&heartbeat("g", &one.member_id, 2), 3).await;
    let alone = first.call(&join("g", &one.member_id), 5).await;
    assert_eq!((alone.generation_id, alone.members.len()), (3, 1));
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn only_the_coordinator_serves_a_group() {
    let cluster = cluster(Options::new().brokers(2)).await;
    let coordinator = cluster.coordinator("g").unwrap();
    let other = 3 - coordinator;
    let at = |broker: i32| usize::try_from(broker).unwrap();
    let mut client = Client::to(&cluster, at(coordinator)).await;
    let mut stranger = Client::to(&cluster, at(other)).await;
    let refused = stranger.call(&join("g", ""), 5).await;
    assert_eq!(refused.error_code, ErrorCode::NOT_COORDINATOR.code());
    let one = joined(&mut client, "g", 5).await;
    client.call(&sync("g", &one.member_id, 1), 3).await;
    let mut waiting = Client::to(&cluster, at(coordinator)).await;
    waiting.send(&JoinGroupRequest { group_instance_id: Some(text("i")), ..join("g", "") }, 5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.move_coordinator("g", other).unwrap();
    let moved = waiting.receive::<JoinGroupRequest>(5).await.unwrap();
    assert_eq!(moved.error_code, ErrorCode::NOT_COORDINATOR.code());
    let refused = client.call(&heartbeat("g", &one.member_id, 1), 3).await;
    assert_eq!(refused.error_code, ErrorCode::NOT_COORDINATOR.code());
    let known = stranger.call(&heartbeat("g", &one.member_id, 1), 3).await;
    assert_eq!(known.error_code, ErrorCode::REBALANCE_IN_PROGRESS.code());
    assert_eq!(cluster.coordinator("g"), Some(other));
    cluster.kill(other).await.unwrap();
    assert_eq!(cluster.coordinator("g"), Some(coordinator));
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_and_fetched_without_membership() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 2).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let committed = client.call(&commit("g", "", -1, 42), 8).await;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    let mut elsewhere = commit("g", "", -1, 42);
    elsewhere.topics[0].name = text("nowhere");
    let refused = client.call(&elsewhere, 8).await;
    assert_eq!(refused.topics[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code());
    for version in 1..=7 {
        let asked = OffsetFetchRequestTopic { name: text("t"), partition_indexes: vec![0, 1] };
        let request = OffsetFetchRequest { group_id: text("g"), topics: Some(vec![asked]), ..Default::default() };
        let found = client.call(&request, version).await;
        let offsets: Vec<i64> = found.topics[0].partitions.iter().map(|found| found.committed_offset).collect();
        assert_eq!((found.error_code, offsets), (0, vec![42, -1]), "v{version}");
        assert_eq!(found.topics[0].partitions[0].metadata, Some(text("note")));
    }
    for version in 8..=9 {
        let asked = OffsetFetchRequestTopics { name: text("t"), partition_indexes: vec![0, 1], ..Default::default() };
        let some = OffsetFetchRequestGroup { group_id: text("g"), topics: Some(vec![asked]), ..Default::default() };
        let all = OffsetFetchRequestGroup { topics: None, ..some.clone() };
        let found = client.call(&OffsetFetchRequest { groups: vec![some, all], ..Default::default() }, version).await;
        let sizes: Vec<usize> = found.groups.iter().map(|group| group.topics[0].partitions.len()).collect();
        assert_eq!(sizes, [2, 1], "v{version}");
        assert_eq!(found.groups[1].topics[0].partitions[0].committed_offset, 42);
    }
    cluster.fault(on(ApiKey::OffsetCommit).group("g").error(ErrorCode::REBALANCE_IN_PROGRESS));
    let struck = client.call(&commit("g", "", -1, 43), 8).await;
    assert_eq!(struck.topics[0].partitions[0].error_code, ErrorCode::REBALANCE_IN_PROGRESS.code());
    assert_eq!(cluster.committed("g", "t", 0), Some(42));
    cluster.delete_topic("t").unwrap();
    assert_eq!(cluster.committed("g", "t", 0), None);
}

#[tokio::test(start_paused = true)]
async fn groups_are_listed_described_and_deleted() {
    let cluster = cluster(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    let member = joined(&mut client, "g", 5).await;
    client.call(&sync("g", &member.member_id, 1), 3).await;
    for version in 0..=5 {
        let listed = client.call(&ListGroupsRequest::default(), version).await;
        assert_eq!(listed.groups.len(), 1);
        assert_eq!(listed.groups[0].protocol_type.as_str(), "consumer");
    }
    let stable = ListGroupsRequest { states_filter: vec![text("empty")], ..Default::default() };
    assert!(client.call(&stable, 4).await.groups.is_empty());
    for version in 0..=6 {
        let asked = DescribeGroupsRequest { groups: vec![text("g"), text("none")], ..Default::default() };
        let described = client.call(&asked, version).await;
        assert_eq!(described.groups[0].group_state.as_str(), "Stable");
        assert_eq!(&described.groups[0].members[0].member_assignment[..], b"all");
        assert_eq!(described.groups[1].group_state.as_str(), "Dead");
    }
    for version in 0..=2 {
        let asked = DeleteGroupsRequest { groups_names: vec![text("g")] };
        assert_eq!(client.call(&asked, version).await.results[0].error_code, ErrorCode::NON_EMPTY_GROUP.code());
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = DeleteGroupsRequest { groups_names: vec![text("g")] };
    assert_eq!(client.call(&asked, 2).await.results[0].error_code, 0);
    assert!(cluster.group("g").is_none());
}

/// Returns a heartbeat that joins and subscribes to `t`.
pub(super) fn beat(group: &str, member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: text(group),
        member_id: text(member),
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec![text("t")]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn consumer_protocol_member_works_in_every_version() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 3).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    for version in 0..=1 {
        let group = format!("new{version}");
        // In version 0 the broker assigns the id.
        let asked = if version == 0 { "" } else { "mine" };
        let joined = client.call(&beat(&group, asked), version).await;
        assert_eq!((joined.error_code, joined.member_epoch, joined.heartbeat_interval_ms), (0, 1, 5_000));
        let id = joined.member_id.unwrap();
        assert_eq!(id.as_str() == "mine", version == 1);
        let given = joined.assignment.unwrap().topic_partitions;
        assert_eq!(given[0].partitions, [0, 1, 2]);
        let mut next = ConsumerGroupHeartbeatRequest {
            group_id: text(&group),
            member_id: id.clone(),
            member_epoch: 1,
            rebalance_timeout_ms: -1,
            ..Default::default()
        };
        let kept = client.call(&next, version).await;
        assert_eq!((kept.error_code, kept.member_epoch, kept.assignment), (0, 1, None));

        assert_eq!(client.call(&commit(&group, &id, 1, 7), 9).await.topics[0].partitions[0].error_code, 0);
        let stale = client.call(&commit(&group, &id, 0, 7), 9).await.topics[0].partitions[0].error_code;
        assert_eq!(stale, ErrorCode::STALE_MEMBER_EPOCH.code());
        let fetch = |epoch| {
            let asked = OffsetFetchRequestTopics { name: text("t"), partition_indexes: vec![0], ..Default::default() };
            let asked = OffsetFetchRequestGroup {
                group_id: text(&group),
                member_id: Some(id.clone()),
                member_epoch: epoch,
                topics: Some(vec![asked]),
            };
            OffsetFetchRequest { groups: vec![asked], ..Default::default() }
        };
        let found = client.call(&fetch(1), 9).await.groups.remove(0);
        assert_eq!((found.error_code, found.topics[0].partitions[0].committed_offset), (0, 7));
        let stale = client.call(&fetch(5), 9).await.groups.remove(0);
        assert_eq!(stale.error_code, ErrorCode::STALE_MEMBER_EPOCH.code());

        let described = ConsumerGroupDescribeRequest { group_ids: vec![text(&group)], ..Default::default() };
        let described = client.call(&described, version).await.groups.remove(0);
        assert_eq!((described.group_state.as_str(), described.group_epoch), ("Stable", 1));
        assert_eq!(described.members[0].assignment.topic_partitions[0].partitions, [0, 1, 2]);
        let listed = client.call(&ListGroupsRequest::default(), 5).await.groups;
        assert!(listed.iter().any(|known| known.group_id.as_str() == group && known.group_type.as_str() == "consumer"));
        let classic = DescribeGroupsRequest { groups: vec![text(&group)], ..Default::default() };
        assert_eq!(client.call(&classic, 5).await.groups[0].group_state.as_str(), "Dead");

        next.member_epoch = -1;
        assert_eq!(client.call(&next, version).await.error_code, 0);
        next.member_epoch = 1;
        assert_eq!(client.call(&next, version).await.error_code, ErrorCode::UNKNOWN_MEMBER_ID.code());
    }
    let nobody = client.call(&beat("new2", ""), 1).await;
    assert_eq!(nobody.error_code, ErrorCode::INVALID_REQUEST.code());
    let absent = ConsumerGroupHeartbeatRequest { member_epoch: 4, topic_partitions: None, ..beat("new3", "m") };
    assert_eq!(client.call(&absent, 1).await.error_code, ErrorCode::GROUP_ID_NOT_FOUND.code());
}
