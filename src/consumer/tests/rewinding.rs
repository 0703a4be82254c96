//! Tests of reading again from the committed offsets, as after an aborted transaction.

use std::pin::pin;

use super::{
    world::{World, rules},
    *,
};
use crate::{
    ApiKey, ErrorCode, ErrorKind, Result,
    consumer::{
        ManualReader, ManualReaderEvent, OffsetAndMetadata,
        group::CommittedOffsets,
        subscription::offset_query::{OffsetQuery, OffsetRequest},
    },
    testkit::{
        on,
        tests::transactional_producer::{Protocol, TransactionalProducer, V1, V2},
    },
    tests::until,
};

for_each_group_protocol!(
    aborted_records_come_again_once_in_order,
    committed_records_do_not_come_again,
    open_transaction_holds_its_partition_only,
    markers_that_come_late_hold_rewind,
    seek_during_rewind_takes_precedence,
    late_answer_does_not_undo_seek,
    revoked_partition_ends_rewind,
    dropped_rewind_continues_in_background,
);

/// Starts a cluster with a topic `t` of two partitions of ten records each, a member of the group
/// `g` that commits nothing by itself, and a transactional producer.
async fn started(group_protocol: GroupProtocol, protocol: Protocol) -> (Cluster, Consumer, TransactionalProducer) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..10);
    append(&cluster, "t", 1, 100..110);
    let consumer = subscribed(member(&cluster, group_protocol), &["t"]).await;
    let producer = TransactionalProducer::init(&cluster, "tx", protocol).await;
    (cluster, consumer, producer)
}

fn member(cluster: &Cluster, protocol: GroupProtocol) -> ConsumerBuilder {
    group_builder(cluster, protocol).auto_commit(false)
}

/// Reads until `count` records of that partition have come, and returns them.
async fn numbers_of(consumer: &Consumer, partition: i32, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let record = next(consumer).await;
        if record.partition == partition {
            numbers.push(number(&record));
        }
    }
    numbers
}

/// Sends the offset of t[0] up to which its records were read.
async fn send_offset(producer: &mut TransactionalProducer, consumer: &Consumer, offset: i64) {
    assert_eq!(producer.send_offset_of(&consumer.group_metadata().unwrap(), offset).await, 0);
}

/// Rewinds t[0] on a task of its own.
fn rewind(consumer: &Consumer) -> tokio::task::JoinHandle<Result<()>> {
    let consumer = consumer.clone();
    tokio::spawn(async move { consumer.rewind_to_committed([&tp("t", 0)]).await })
}

async fn aborted_records_come_again_once_in_order(group_protocol: GroupProtocol) {
    for protocol in [V1, V2] {
        let (_cluster, consumer, mut producer) = started(group_protocol, protocol).await;
        assert_eq!(numbers_of(&consumer, 0, 3).await, [0, 1, 2]);
        send_offset(&mut producer, &consumer, 3).await;
        assert_eq!(producer.end(true).await, 0);
        for _ in 0..3 {
            assert_eq!(numbers_of(&consumer, 0, 4).await, [3, 4, 5, 6]);
            send_offset(&mut producer, &consumer, 7).await;
            assert_eq!(producer.end(false).await, 0);
            consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap();
        }
        assert_eq!(numbers_of(&consumer, 0, 7).await, [3, 4, 5, 6, 7, 8, 9], "{protocol:?}");
        while !consumer.poll(10 * SECOND).await.unwrap().iter().all(|record| record.partition() == 0) {}
        assert!(is_quiet(&consumer).await, "{protocol:?}");
    }
}

async fn committed_records_do_not_come_again(group_protocol: GroupProtocol) {
    let (cluster, consumer, mut producer) = started(group_protocol, V2).await;
    assert_eq!(numbers_of(&consumer, 0, 3).await, [0, 1, 2]);
    send_offset(&mut producer, &consumer, 3).await;
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(numbers_of(&consumer, 0, 1).await, [3]);
    // The outcome is unknown to the reader; the group tells it.
    consumer.rewind_to_committed(&consumer.assignment()).await.unwrap();
    assert_eq!(consumer.status().partitions[&tp("t", 0)].committed, Some(3));
    assert_eq!(numbers_of(&consumer, 0, 7).await, [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(numbers_of(&consumer, 1, 1).await[0] % 10, number_after(&consumer, 1) - 1, "t[1] began again");
    assert_eq!(cluster.committed("g", "t", 1), None);
}

/// Returns the position of a partition.
fn number_after(consumer: &Consumer, partition: i32) -> i64 {
    consumer.position(&tp("t", partition)).unwrap()
}

async fn open_transaction_holds_its_partition_only(group_protocol: GroupProtocol) {
    for (protocol, commits) in [(V1, true), (V1, false), (V2, true), (V2, false)] {
        let (cluster, consumer, mut producer) = started(group_protocol, protocol).await;
        assert_eq!(numbers_of(&consumer, 0, 5).await, [0, 1, 2, 3, 4]);
        send_offset(&mut producer, &consumer, 5).await;
        assert_eq!(cluster.pending_offset("g", "t", 0), Some(5));
        let rewinding = consumer.clone();
        let rewinding = tokio::spawn(async move {
            let partitions = [tp("t", 0), tp("t", 1)];
            rewinding.rewind_to_committed(&partitions).await
        });
        tokio::time::sleep(SECOND).await;
        let others = tokio::time::timeout(5 * SECOND, numbers_of(&consumer, 1, 10));
        assert_eq!(others.await.expect("t[1] does not wait"), (100..110).collect::<Vec<_>>());
        assert!(is_quiet(&consumer).await, "nothing of t[0]");
        assert!(!rewinding.is_finished());
        let status = consumer.status().partitions.remove(&tp("t", 0)).unwrap();
        assert_eq!((status.waiting.name(), status.position), ("backing_off", None), "{status:?}");
        assert_eq!(producer.end(commits).await, 0);
        rewinding.await.unwrap().unwrap();
        let first = if commits { 5 } else { 0 };
        assert_eq!(numbers_of(&consumer, 0, 3).await, [first, first + 1, first + 2], "{protocol:?}");
    }
}

/// The coordinator answers EndTxn before the group has the offsets.
async fn markers_that_come_late_hold_rewind(group_protocol: GroupProtocol) {
    let (cluster, consumer, mut producer) = started(group_protocol, V2).await;
    cluster.set_marker_delay(5 * SECOND);
    assert_eq!(numbers_of(&consumer, 0, 5).await, [0, 1, 2, 3, 4]);
    send_offset(&mut producer, &consumer, 5).await;
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(cluster.pending_offset("g", "t", 0), Some(5), "its marker is not written yet");
    consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap();
    assert_eq!(numbers_of(&consumer, 0, 2).await, [5, 6]);
}

async fn seek_during_rewind_takes_precedence(group_protocol: GroupProtocol) {
    let (_cluster, consumer, mut producer) = started(group_protocol, V2).await;
    assert_eq!(numbers_of(&consumer, 0, 5).await, [0, 1, 2, 3, 4]);
    send_offset(&mut producer, &consumer, 2).await;
    let rewinding = rewind(&consumer);
    tokio::time::sleep(SECOND).await;
    consumer.seek(&tp("t", 0), 7).unwrap();
    rewinding.await.unwrap().unwrap();
    assert_eq!(numbers_of(&consumer, 0, 1).await, [7]);
    assert_eq!(producer.end(true).await, 0);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(numbers_of(&consumer, 0, 2).await, [8, 9]);
    assert_eq!(number_after(&consumer, 0), 10);
}

async fn late_answer_does_not_undo_seek(group_protocol: GroupProtocol) {
    let (cluster, consumer, mut producer) = started(group_protocol, V2).await;
    assert_eq!(numbers_of(&consumer, 0, 5).await, [0, 1, 2, 3, 4]);
    send_offset(&mut producer, &consumer, 2).await;
    assert_eq!(producer.end(true).await, 0);
    let late = cluster.fault(on(ApiKey::OffsetFetch).delay_response(5 * SECOND).times(1));
    let rewinding = rewind(&consumer);
    late.reached(1).await;
    consumer.seek(&tp("t", 0), 7).unwrap();
    rewinding.await.unwrap().unwrap();
    assert_eq!(numbers_of(&consumer, 0, 1).await, [7]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(numbers_of(&consumer, 0, 2).await, [8, 9]);
    // An answer to the first of two rewinds is not taken for the second one.
    let late = cluster.fault(on(ApiKey::OffsetFetch).delay_response(5 * SECOND).times(1));
    let first = rewind(&consumer);
    late.reached(1).await;
    send_offset(&mut producer, &consumer, 6).await;
    assert_eq!(producer.end(true).await, 0);
    consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(numbers_of(&consumer, 0, 1).await, [6]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(numbers_of(&consumer, 0, 3).await, [7, 8, 9]);
}

/// The reader reads nothing while it waits; the rebalance continues all the same.
async fn revoked_partition_ends_rewind(group_protocol: GroupProtocol) {
    let (cluster, first, mut producer) = started(group_protocol, V2).await;
    assert_eq!(numbers_of(&first, 0, 5).await, [0, 1, 2, 3, 4]);
    send_offset(&mut producer, &first, 5).await;
    let rewinding = first.clone();
    let rewinding = tokio::spawn(async move {
        let partitions = [tp("t", 0), tp("t", 1)];
        rewinding.rewind_to_committed(&partitions).await
    });
    tokio::time::sleep(SECOND).await;
    let second = subscribed(member(&cluster, group_protocol), &["t"]).await;
    until("each member has a partition", || first.assignment().len() == 1 && second.assignment().len() == 1).await;
    let kept = group_protocol == GroupProtocol::Consumer && first.assignment() == [tp("t", 0)];
    tokio::time::sleep(SECOND).await;
    assert_eq!(rewinding.is_finished(), !kept, "{group_protocol:?}");
    let (of_zero, of_one) = match first.assignment() == [tp("t", 0)] {
        true => (&first, &second),
        false => (&second, &first),
    };
    assert!(is_quiet(of_zero).await, "the transaction is open");
    assert_eq!(numbers(of_one, 10).await, (100..110).collect::<Vec<_>>());
    assert_eq!(producer.end(true).await, 0);
    rewinding.await.unwrap().unwrap();
    assert_eq!(numbers(of_zero, 5).await, [5, 6, 7, 8, 9]);
    assert!(is_quiet(of_zero).await && is_quiet(of_one).await);
}

async fn dropped_rewind_continues_in_background(group_protocol: GroupProtocol) {
    let (_cluster, consumer, mut producer) = started(group_protocol, V2).await;
    assert_eq!(numbers_of(&consumer, 0, 5).await, [0, 1, 2, 3, 4]);
    send_offset(&mut producer, &consumer, 3).await;
    let partition = tp("t", 0);
    drop(consumer.rewind_to_committed([&partition]));
    assert_eq!(numbers_of(&consumer, 0, 1).await, [5], "it was never polled");
    tokio::time::timeout(SECOND, consumer.rewind_to_committed([&partition])).await.unwrap_err();
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(numbers_of(&consumer, 0, 2).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn rewind_withholds_records_that_readers_hold() {
    let (_cluster, consumer, _producer) = started(GroupProtocol::Classic, V2).await;
    let partitions = consumer.clone();
    let all = || partitions.assignment();
    let records = consumer.poll(60 * SECOND).await.unwrap();
    let mut iter = records.iter();
    iter.next().unwrap();
    consumer.rewind_to_committed(&all()).await.unwrap();
    assert!(iter.next().is_none(), "records of the poll");
    drop(iter);
    drop(records);
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    for offset in 0..3 {
        assert_eq!(stream.recv().await.unwrap().unwrap().offset, offset);
    }
    {
        let waiting = consumer.clone();
        let mut receiving = pin!(stream.recv());
        waiting.rewind_to_committed([&tp("t", 0)]).await.unwrap();
        let again = receiving.as_mut().await.unwrap().unwrap();
        assert_eq!(again.offset, 0, "records of a stream");
    }
    drop(stream);
    assert_eq!(numbers_of(&consumer, 0, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn manual_reader_gets_records_again_after_rewind() {
    let (_cluster, consumer, _producer) = started(GroupProtocol::Consumer, V2).await;
    let reader = ManualReader::new(consumer.clone(), || None).unwrap();
    let partition = loop {
        match reader.next().await {
            ManualReaderEvent::Partition(partition) if *partition.partition() == tp("t", 0) => break partition,
            ManualReaderEvent::Partition(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let receive = async |max| {
        let mut records = Vec::new();
        let mark = partition.receive(max, usize::MAX, &mut records).await.unwrap().unwrap();
        (mark, records.iter().map(number).collect::<Vec<_>>())
    };
    let (old, numbers) = receive(4).await;
    assert_eq!(numbers, [0, 1, 2, 3]);
    old.complete_to(2);
    consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap();
    assert!(old.is_over());
    let (new, numbers) = receive(2).await;
    assert_eq!(numbers, [0, 1]);
    new.complete_to(1);
    old.complete_to(4);
    let completed = consumer.shared.buffer.with_state(|state| state.completed_offsets(Some(&[tp("t", 0)])));
    assert_eq!(completed[0].1.offset, 1, "the older mark moves nothing");
}

#[tokio::test(start_paused = true)]
async fn partition_without_offset_follows_reset_policy() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    for (policy, expected) in
        [(OffsetReset::Earliest, Some(0)), (OffsetReset::Latest, Some(5)), (OffsetReset::None, None)]
    {
        let builder = builder(&cluster).group("g").auto_commit(false).auto_offset_reset(policy);
        let consumer = builder.build().await.unwrap();
        consumer.assign([(tp("t", 0), 3)]).unwrap();
        assert_eq!(numbers(&consumer, 1).await, [3]);
        consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap();
        if expected.is_none() {
            assert_eq!(next_error(&consumer, 60).await.kind(), ErrorKind::NoOffset);
        }
        tokio::time::sleep(SECOND).await;
        assert_eq!(consumer.position(&tp("t", 0)), expected, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rewind_skips_unassigned_and_needs_group() {
    let (_cluster, consumer, _producer) = started(GroupProtocol::Classic, V2).await;
    consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap();
    assert_eq!(numbers_of(&consumer, 0, 1).await, [0]);
    consumer.rewind_to_committed([&tp("t", 7), &tp("u", 0)]).await.unwrap();
    consumer.rewind_to_committed([]).await.unwrap();
    assert_eq!(numbers_of(&consumer, 0, 1).await, [1], "nothing else has moved");
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap_err().kind(), ErrorKind::Closed);
    let other = super::cluster(1).await;
    let alone = reading(&other, "t", 3).await;
    let refused = alone.rewind_to_committed([&tp("t", 0)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert_eq!(numbers(&alone, 3).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn close_ends_rewind_with_closed() {
    let (_cluster, consumer, mut producer) = started(GroupProtocol::Consumer, V2).await;
    assert_eq!(numbers_of(&consumer, 0, 2).await, [0, 1]);
    send_offset(&mut producer, &consumer, 2).await;
    let rewinding = rewind(&consumer);
    tokio::time::sleep(SECOND).await;
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(rewinding.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn rewind_retries_coordinator_errors() {
    let (cluster, consumer, _producer) = started(GroupProtocol::Classic, V2).await;
    assert_eq!(numbers_of(&consumer, 0, 2).await, [0, 1]);
    cluster.fault(on(ApiKey::OffsetFetch).whole_response().times(2).error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    cluster.fault(on(ApiKey::OffsetFetch).whole_response().skip(2).times(2).error(ErrorCode::NOT_COORDINATOR));
    cluster.fault(on(ApiKey::OffsetFetch).skip(4).times(1).drop_connection());
    consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap();
    assert_eq!(numbers_of(&consumer, 0, 2).await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn refused_rewind_ends_at_once_and_recovers() {
    let (cluster, consumer, _producer) = started(GroupProtocol::Classic, V2).await;
    assert_eq!(numbers_of(&consumer, 0, 2).await, [0, 1]);
    let forbidden = on(ApiKey::OffsetFetch).whole_response().forever().error(ErrorCode::GROUP_AUTHORIZATION_FAILED);
    let forbidden = cluster.fault(forbidden);
    let refused = tokio::time::timeout(5 * SECOND, consumer.rewind_to_committed([&tp("t", 0)])).await.expect("soon");
    let refused = refused.unwrap_err();
    assert_eq!((refused.kind(), refused.is_retriable()), (ErrorKind::Authorization, false), "{refused}");
    assert!(forbidden.hits() < 3, "{} requests", forbidden.hits());
    forbidden.clear();
    let read = async {
        loop {
            match consumer.recv().await.unwrap() {
                Ok(record) if record.partition == 0 => return number(&record),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Authorization, "{error}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(60 * SECOND, read).await.expect("it was requested again"), 0);
}

// ---- the state alone

fn zero() -> TopicPartition {
    tp("t", 0)
}

/// Returns the OffsetFetch that is due.
fn due(world: &World) -> Vec<OffsetQuery<()>> {
    let now = world.now;
    let mut due = world.buffer.with_state(|state| state.due_offset_requests(now));
    match (due.pop(), due.pop()) {
        (Some(OffsetRequest::Committed(asked)), None) => asked,
        other => panic!("{other:?}"),
    }
}

fn answer(world: &World, asked: &[OffsetQuery<()>], answer: Result<Option<i64>>) {
    let offset = answer.map(|offset| offset.map(OffsetAndMetadata::new));
    let offsets = asked.iter().map(|asked| (asked.partition.clone(), offset.clone())).collect::<CommittedOffsets>();
    world.buffer.with_state(|state| state.handle_committed_offsets(asked, Ok(offsets), world.now));
}

/// Rewinds t[0] and returns the partitions to wait for.
fn begin(world: &World) -> Vec<(TopicPartition, u64)> {
    world.buffer.with_state_and_readers(|state| state.rewind_to_committed([&zero()]))
}

/// Returns true while the rewind waits.
fn waits(world: &World, rewound: &mut Vec<(TopicPartition, u64)>) -> Result<bool> {
    world.buffer.with_state(|state| state.retain_rewinding(rewound)).map(|()| !rewound.is_empty())
}

#[test]
fn rewind_ends_with_answer_of_its_seek_epoch() {
    let world = World::new(rules());
    let mut first = begin(&world);
    let stale = due(&world);
    assert!(waits(&world, &mut first).unwrap());
    let mut second = begin(&world);
    assert!(!waits(&world, &mut first).unwrap(), "another rewind has replaced it");
    answer(&world, &stale, Ok(Some(9)));
    assert!(waits(&world, &mut second).unwrap(), "the answer was read before");
    let asked = due(&world);
    answer(&world, &asked, Ok(Some(4)));
    assert!(!waits(&world, &mut second).unwrap());
    assert_eq!(world.buffer.with_state(|state| state.partitions.get(&zero()).unwrap().next_offset()), Some(4));
}

#[test]
fn rewind_ends_when_partition_is_sought_or_gone() {
    let gone: [fn(&World); 3] = [
        |world| world.buffer.with_state_and_readers(|state| state.seek(&zero(), Offset::At(2)).unwrap()),
        |world| world.buffer.with_state_and_readers(|state| state.remove(&zero())),
        |world| world.buffer.with_state_and_readers(|state| state.end(None)),
    ];
    for end in gone {
        let world = World::new(rules());
        let mut rewound = begin(&world);
        assert!(waits(&world, &mut rewound).unwrap());
        end(&world);
        assert!(!waits(&world, &mut rewound).unwrap());
    }
}

#[test]
fn only_lasting_errors_end_rewind() {
    let world = World::new(rules());
    for (code, lasts) in [
        (ErrorCode::UNSTABLE_OFFSET_COMMIT, false),
        (ErrorCode::UNKNOWN_TOPIC_ID, false),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, true),
    ] {
        let mut rewound = begin(&world);
        let asked = due(&world);
        answer(&world, &asked, Err(crate::Error::broker(code, "offset of t[0]")));
        match waits(&world, &mut rewound) {
            Ok(waits) => assert!(waits && !lasts, "{code}"),
            Err(error) => assert!(lasts && error.code() == Some(code), "{error}"),
        }
    }
}

#[test]
fn unknown_offset_forgets_last_committed_one() {
    let world = World::new(rules());
    let committed =
        |world: &World| world.buffer.with_state(|state| state.partitions.get(&zero()).unwrap().commits.offset());
    for offset in [Some(4), None] {
        begin(&world);
        let asked = due(&world);
        answer(&world, &asked, Ok(offset));
        assert_eq!(committed(&world), offset);
    }
}
