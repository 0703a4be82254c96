//! Offsets of groups that are committed in transactions.

use bytes::Bytes;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, JoinGroupRequest, SyncGroupRequest, join_group_request::JoinGroupRequestProtocol,
    sync_group_request::SyncGroupRequestAssignment,
};

use crate::{
    producer::{Producer, Protocol},
    reading::Member,
    script::{Script, error, text},
};

/// Pending offsets, and commits outside of the transaction before and behind them.
pub(crate) async fn pending(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    script.committed("group").await;
    script.commit_outside("group", 3).await;
    script.send_offset(&producer, "group", 5).await;
    script.describe("A, with a group", &producer.transactional_id).await;
    script.committed("group").await;
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
    script.send_offset(&producer, "group", 6).await;
    script.end_fully(&mut producer, false).await;
    script.committed("group").await;
    script.send_offset(&producer, "group", 7).await;
    script.commit_outside("group", 9).await;
    script.committed("group").await;
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
    script.send_offset(&producer, "group", 8).await;
    script.send_offset(&producer, "group", 4).await;
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
}

/// Groups, partitions and metadata that a coordinator refuses.
pub(crate) async fn refused(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    let version = protocol.offsets;
    if protocol.adds {
        script.add_offsets(&producer, "group", 4).await;
        script.add_offsets(&producer, "", 4).await;
    }
    script.commit_offset_as(&producer, "group", (7, 5), &Member::NONE, version).await;
    script.commit_offset_as(&producer, "", (0, 5), &Member::NONE, version).await;
    script.commit_offset_as(&producer, "group", (0, -1), &Member::NONE, version).await;
    let mut long = script.offset_commit(&producer, "group", (0, 5), &Member::NONE);
    long.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(5000)));
    script.commit_in_transaction(&producer, "with long metadata", &long, &Member::NONE, version).await;
    let other = Producer { id: producer.id + 7_000, ..producer.clone() };
    script.commit_offset(&other, "group", 5).await;
    script.commit_offset(&producer.at_epoch(4), "group", 5).await;
    let unknown = Producer { transactional_id: script.name("unknown"), ..producer.clone() };
    script.commit_offset(&unknown, "group", 5).await;
    let nameless = Producer { transactional_id: String::new(), ..producer.clone() };
    script.commit_offset(&nameless, "group", 5).await;
    script.commit_offset(&producer, "group", 5).await;
    script.commit_offset(&nameless, "group", 6).await;
    script.describe("A, with a group", &producer.transactional_id).await;
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
}

/// Members of a group of the classic protocol, and members that it does not know.
pub(crate) async fn classic_members(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    if protocol.adds {
        for group in ["group", "empty"] {
            script.add_offsets(&producer, group, 4).await;
        }
    }
    let version = protocol.offsets;
    for member in [Member::NONE, Member::new("", 4), Member::new("stranger", 4), Member::new("stranger", -1)] {
        script.commit_offset_as(&producer, "empty", (0, 5), &member, version).await;
    }
    let member = join(script, "group").await;
    let id = &*member.id;
    let foreign = Member { instance: Some("instance"), ..member.clone() };
    for member in [
        Member::NONE,
        member.clone(),
        Member::new(id, member.generation - 1),
        Member::new(id, member.generation + 1),
        Member::new(id, -1),
        Member::new("", member.generation),
        Member::new("stranger", member.generation),
        foreign,
    ] {
        script.commit_offset_as(&producer, "group", (0, 5), &member, version).await;
    }
    // Versions before 3 have no field for the member.
    script.commit_offset_as(&producer, "group", (0, 7), &Member::NONE, 2).await;
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
}

/// Joins a classic group as its only member, and assigns nothing.
pub(crate) async fn join(script: &mut Script, group: &str) -> Member {
    let group = text(&script.name(group));
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default()
        .with_group_id(group.clone().into())
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol.with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]))]);
    let joined = script.connection.call(&request, 3).await;
    script.note("JoinGroup 3", format!("{}, generation {}", error(joined.error_code), joined.generation_id));
    let assignment = SyncGroupRequestAssignment::default().with_member_id(joined.member_id.clone());
    let request = SyncGroupRequest::default()
        .with_group_id(group.into())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    let synced = script.connection.call(&request, 2).await;
    script.note("SyncGroup 2", error(synced.error_code));
    Member::new(joined.member_id.to_string(), joined.generation_id)
}

/// A member of a group of the consumer protocol (KIP-848), in its own and in other epochs.
pub(crate) async fn consumer_members(script: &mut Script, protocol: Protocol) {
    let mut producer = Producer::new(script, "A", protocol);
    script.init(&mut producer).await;
    if protocol.adds {
        script.add_offsets(&producer, "group", 4).await;
    }
    let epoch = join_consumer_group(script, "group").await;
    let members = [
        ("no member", Member::NONE),
        ("its epoch", Member::new("member", epoch)),
        ("an older epoch", Member::new("member", epoch - 1)),
        ("a later epoch", Member::new("member", epoch + 1)),
        ("no epoch", Member::new("member", -1)),
        ("an unnamed member", Member::new("", epoch)),
        ("an unknown member", Member::new("stranger", epoch)),
    ];
    for (what, member) in members {
        let request = script.offset_commit(&producer, "group", (0, 5), &member);
        let response = script.connection.call(&request, protocol.offsets).await;
        let code = error(response.topics[0].partitions[0].error_code);
        script.note(format!("TxnOffsetCommit {} of {what}", protocol.offsets), code);
    }
    script.end_fully(&mut producer, true).await;
    script.committed("group").await;
}

/// Joins a group of the consumer protocol with a member called `member`; returns its epoch.
pub(crate) async fn join_consumer_group(script: &mut Script, group: &str) -> i32 {
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text(&script.name(group)).into())
        .with_member_id(text("member"))
        .with_rebalance_timeout_ms(30_000)
        .with_subscribed_topic_names(Some(vec![text(&script.topic()).into()]))
        .with_topic_partitions(Some(Vec::new()));
    let joined = script.connection.call(&request, 1).await;
    script.note("ConsumerGroupHeartbeat 1", error(joined.error_code));
    joined.member_epoch
}
