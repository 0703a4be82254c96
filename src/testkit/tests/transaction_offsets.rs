//! Tests of offsets that are committed in transactions.

use super::{
    client::{Client, text},
    groups::{beat, commit, joined},
    transactional_producer::{Protocol, TransactionalProducer, V1, V2, committed, started},
};
use crate::{
    ApiKey, ErrorCode,
    testkit::{Options, on},
    wire::messages::{OffsetFetchRequest, TxnOffsetCommitRequest},
};

/// Sends TxnOffsetCommit with the group added before; returns the error.
async fn commit_as(
    producer: &mut TransactionalProducer,
    version: i16,
    change: impl FnOnce(&mut TxnOffsetCommitRequest),
) -> ErrorCode {
    let mut request = producer.offsets_request("g", 5);
    change(&mut request);
    assert_eq!(producer.add_group("g", 4).await, 0);
    let response = producer.client.call(&request, version).await;
    ErrorCode::new(response.topics[0].partitions[0].error_code)
}

#[tokio::test(start_paused = true)]
async fn offsets_count_once_the_transaction_is_committed() {
    for protocol in [V1, V2] {
        let (cluster, mut producer) = started(Options::new(), protocol).await;
        let mut client = Client::to(&cluster, 1).await;
        client.call(&commit("g", "", -1, 3), 8).await;
        assert_eq!(producer.send_offset("g", 5).await, 0);
        assert_eq!(cluster.transaction("tx").unwrap().groups, ["g"]);
        assert_eq!((cluster.committed("g", "t", 0), cluster.pending_offset("g", "t", 0)), (Some(3), Some(5)));
        assert_eq!(committed(&mut client, "g", false).await, (3, 0));
        assert_eq!(committed(&mut client, "g", true).await, (-1, ErrorCode::UNSTABLE_OFFSET_COMMIT.code()));
        let all = OffsetFetchRequest { group_id: text("g"), topics: None, require_stable: true, ..Default::default() };
        let all = client.call(&all, 7).await;
        let unstable = &all.topics[0].partitions[0];
        assert_eq!(unstable.error_code, ErrorCode::UNSTABLE_OFFSET_COMMIT.code());
        assert_eq!(producer.end(true).await, 0);
        assert_eq!(committed(&mut client, "g", true).await, (5, 0));
        assert_eq!(cluster.pending_offset("g", "t", 0), None);
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_of_aborted_transaction_are_discarded() {
    for protocol in [V1, V2] {
        let (cluster, mut producer) = started(Options::new(), protocol).await;
        let mut client = Client::to(&cluster, 1).await;
        assert_eq!(producer.send_offset("g", 5).await, 0);
        assert_eq!(producer.end(false).await, 0);
        assert_eq!(committed(&mut client, "g", true).await, (-1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn later_commit_outside_of_transaction_stays() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    let mut client = Client::to(&cluster, 1).await;
    assert_eq!(producer.send_offset("g", 5).await, 0);
    client.call(&commit("g", "", -1, 9), 8).await;
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(cluster.committed("g", "t", 0), Some(9));
    assert_eq!(producer.send_offset("g", 6).await, 0);
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(cluster.committed("g", "t", 0), Some(6));
}

#[tokio::test(start_paused = true)]
async fn offsets_are_refused_if_group_was_not_added() {
    let (_cluster, mut producer) = started(Options::new(), V1).await;
    for (version, error) in [
        (0, ErrorCode::INVALID_TXN_STATE),
        (3, ErrorCode::INVALID_TXN_STATE),
        (4, ErrorCode::TRANSACTION_ABORTABLE),
        (5, ErrorCode::NONE),
    ] {
        producer.protocol = Protocol { offsets: version, ..V1 };
        assert_eq!(producer.commit_offset("g", 5).await, error.code(), "v{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn producer_of_older_epoch_is_fenced_by_group() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    assert_eq!(producer.send_offset("g", 5).await, 0);
    let mut zombie = producer.offsets_request("g", 1);
    assert_eq!(producer.end(true).await, 0);
    for version in 0..=5 {
        let response = producer.client.call(&zombie, version).await;
        let error = response.topics[0].partitions[0].error_code;
        assert_eq!(error, ErrorCode::INVALID_PRODUCER_EPOCH.code(), "v{version}");
    }
    zombie.group_id = text("another");
    let response = producer.client.call(&zombie, 5).await;
    let error = response.topics[0].partitions[0].error_code;
    assert_eq!(error, ErrorCode::INVALID_PRODUCER_EPOCH.code(), "the transaction coordinator's answer");
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn classic_member_and_generation_are_checked() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    let mut client = Client::to(&cluster, 1).await;
    let unknown = |request: &mut TxnOffsetCommitRequest| request.generation_id_or_member_epoch = 4;
    assert_eq!(commit_as(&mut producer, 4, unknown).await, ErrorCode::ILLEGAL_GENERATION);
    let member = joined(&mut client, "g", 5).await;
    let (id, generation) = (member.member_id.clone(), member.generation_id);
    let named = |member: &str, generation: i32| {
        let member = text(member);
        move |request: &mut TxnOffsetCommitRequest| {
            request.member_id = member;
            request.generation_id_or_member_epoch = generation;
        }
    };
    assert_eq!(commit_as(&mut producer, 4, named(&id, generation - 1)).await, ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(commit_as(&mut producer, 4, named("stranger", generation)).await, ErrorCode::UNKNOWN_MEMBER_ID);
    let fenced = |request: &mut TxnOffsetCommitRequest| request.group_instance_id = Some(text("i"));
    assert_eq!(commit_as(&mut producer, 4, fenced).await, ErrorCode::UNKNOWN_MEMBER_ID, "no such instance");
    assert_eq!(commit_as(&mut producer, 4, |_| ()).await, ErrorCode::NONE, "no member is named");
    let during_rebalance = commit_as(&mut producer, 4, named(&id, generation)).await;
    assert_eq!(during_rebalance, ErrorCode::NONE, "the group waits for the assignment");
}

#[tokio::test(start_paused = true)]
async fn member_epoch_is_checked_by_version() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    let mut client = Client::to(&cluster, 1).await;
    let id = cluster.shared.lock().topics.get("t").unwrap().id;
    let member = client.call(&beat("g", "m"), 1).await;
    assert_eq!((member.error_code, member.member_epoch), (0, 1));
    let named = |member: &'static str, epoch: i32| {
        move |request: &mut TxnOffsetCommitRequest| {
            request.member_id = text(member);
            request.generation_id_or_member_epoch = epoch;
            request.topics[0].topic_id = id;
        }
    };
    for (version, stale) in
        [(4, ErrorCode::ILLEGAL_GENERATION), (5, ErrorCode::ILLEGAL_GENERATION), (6, ErrorCode::STALE_MEMBER_EPOCH)]
    {
        assert_eq!(commit_as(&mut producer, version, named("m", 1)).await, ErrorCode::NONE, "v{version}");
        assert_eq!(commit_as(&mut producer, version, named("m", 2)).await, stale, "v{version}");
        let stranger = commit_as(&mut producer, version, named("n", 1)).await;
        assert_eq!(stranger, ErrorCode::UNKNOWN_MEMBER_ID, "v{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn topics_are_named_by_id_in_version_six() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    let id = cluster.shared.lock().topics.get("t").unwrap().id;
    assert_eq!(commit_as(&mut producer, 6, |_| ()).await, ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(commit_as(&mut producer, 6, |request| request.topics[0].topic_id = id).await, ErrorCode::NONE);
    assert_eq!(cluster.pending_offset("g", "t", 0), Some(5));
    let unknown = commit_as(&mut producer, 6, |request| {
        request.topics[0].topic_id = id;
        request.group_id = text("h");
        request.generation_id_or_member_epoch = 4;
    });
    assert_eq!(unknown.await, ErrorCode::GROUP_ID_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn unknown_partitions_and_long_notes_are_refused() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    let unknown = commit_as(&mut producer, 4, |request| request.topics[0].partitions[0].partition_index = 7);
    assert_eq!(unknown.await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let long = commit_as(&mut producer, 4, |request| {
        request.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(5000)));
    });
    assert_eq!(long.await, ErrorCode::OFFSET_METADATA_TOO_LARGE);
    assert_eq!(cluster.pending_offset("g", "t", 0), None);
    assert_eq!(commit_as(&mut producer, 4, |request| request.group_id = text("")).await, ErrorCode::INVALID_GROUP_ID);
}

#[tokio::test(start_paused = true)]
async fn loading_coordinator_is_translated_for_old_versions() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    cluster.fault(on(ApiKey::TxnOffsetCommit).times(2).error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    assert_eq!(commit_as(&mut producer, 1, |_| ()).await, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(commit_as(&mut producer, 2, |_| ()).await, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    assert_eq!(commit_as(&mut producer, 2, |_| ()).await, ErrorCode::NONE);
}
