use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::{
    membership_changes::{Seen, each_record_is_read_once},
    world::{PARTITIONS, World, rules},
    *,
};
use crate::{
    Compression, ErrorKind,
    consumer::{
        PartitionStream,
        buffer::fetched_batch::HEAVY,
        lock::lock,
        subscription::rules::ConsumerRules,
        test_batches::{Sort, built, noise},
    },
    testkit::Options,
};

/// Creates a topic with ten records in each of `partitions` partitions, read from the beginning.
async fn wide(cluster: &Cluster, partitions: i32) -> Consumer {
    cluster.create_topic("t", partitions).unwrap();
    for partition in 0..partitions {
        append(cluster, "t", partition, 0..10);
    }
    let consumer = consumer(cluster).await;
    consumer.assign((0..partitions).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    consumer
}

async fn member(cluster: &Cluster) -> Consumer {
    subscribed(group_builder(cluster, GroupProtocol::Classic).auto_commit_interval(SECOND), &["t"]).await
}

async fn assigned(consumer: &Consumer, count: usize) {
    for _ in 0..120 {
        if consumer.assignment().len() == count {
            return;
        }
        tokio::time::sleep(SECOND).await;
    }
    panic!("not {count} partitions: {:?}", consumer.assignment());
}

async fn of(stream: &mut PartitionStream) -> i64 {
    let next = tokio::time::timeout(60 * SECOND, stream.recv()).await.expect("a record within a minute");
    let record = next.expect("not the end").expect("a record");
    assert_eq!(&record.topic_partition(), stream.partition());
    record.offset
}

#[tokio::test(start_paused = true)]
async fn each_stream_reads_only_its_partition() {
    let cluster = cluster(2).await;
    let consumer = wide(&cluster, 4).await;
    let tasks = [0, 2, 3].map(|partition| {
        let stream = consumer.split_partition(&tp("t", partition)).unwrap();
        tokio::spawn(stream.take(10).map_ok(|record| record.offset).try_collect::<Vec<_>>())
    });
    let others: Vec<_> = consumer.stream().take(10).try_collect().await.unwrap();
    assert!(others.iter().all(|record| record.partition == 1), "{others:?}");
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), (0..10).collect::<Vec<_>>());
    }
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn stream_continues_position_and_returns_unread_records() {
    let cluster = cluster(1).await;
    let consumer = wide(&cluster, 1).await;
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    assert_eq!(consumer.split_partition(&tp("t", 0)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(consumer.split_partition(&tp("t", 1)).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!((of(&mut stream).await, of(&mut stream).await), (2, 3));
    drop(stream);
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.iter().map(|record| record.offset()).take(2).collect::<Vec<_>>(), [4, 5]);
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    assert_eq!(records.iter().count(), 0, "what the poll still holds is withheld");
    assert_eq!(of(&mut stream).await, 6);
    drop(records);
    assert_eq!(of(&mut stream).await, 7);
    drop(stream);
    assert_eq!(numbers(&consumer, 2).await, [8, 9]);
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn dropped_waiting_futures_lose_nothing() {
    let cluster = cluster(1).await;
    let consumer = Arc::new(wide(&cluster, 2).await);
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    for expected in 0..10 {
        assert_eq!(of(&mut stream).await, expected);
    }
    for n in 10..15 {
        assert!(tokio::time::timeout(SECOND, stream.recv()).await.is_err());
        assert!(stream.next().now_or_never().is_none());
        append(&cluster, "t", 0, n..n + 1);
        assert_eq!(of(&mut stream).await, n);
    }
    assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
    // Splits a partition off while another task waits, and drops the stream while that task waits.
    let other = consumer.clone();
    let waiting = tokio::spawn(async move { other.recv().await.unwrap().unwrap() });
    tokio::time::sleep(SECOND).await;
    let mut late = consumer.split_partition(&tp("t", 1)).unwrap();
    append(&cluster, "t", 1, 10..11);
    assert_eq!(of(&mut late).await, 10);
    assert!(!waiting.is_finished());
    drop(late);
    append(&cluster, "t", 1, 11..12);
    assert_eq!(tokio::time::timeout(60 * SECOND, waiting).await.unwrap().unwrap().offset, 11);
}

#[tokio::test(start_paused = true)]
async fn seek_and_pause_apply_to_streams() {
    let cluster = cluster(1).await;
    let consumer = wide(&cluster, 1).await;
    let partition = tp("t", 0);
    let mut stream = consumer.split_partition(&partition).unwrap();
    assert_eq!(of(&mut stream).await, 0);
    consumer.pause([&partition]).unwrap();
    assert!(tokio::time::timeout(10 * SECOND, stream.recv()).await.is_err(), "paused");
    consumer.resume([&partition]).unwrap();
    assert_eq!(of(&mut stream).await, 1);
    consumer.seek(&partition, 7).unwrap();
    assert_eq!((of(&mut stream).await, consumer.position(&partition)), (7, Some(8)));
    consumer.pause([&partition]).unwrap();
    drop(stream);
    assert!(is_quiet(&consumer).await);
    consumer.resume([&partition]).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [8, 9]);
}

#[tokio::test(start_paused = true)]
async fn commits_only_records_finished_by_stream() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let consumer = member(&cluster).await;
    assigned(&consumer, 1).await;
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    for expected in 0..3 {
        assert_eq!(of(&mut stream).await, expected);
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(cluster.committed("g", "t", 0), Some(expected), "the record in hand is not done");
    }
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(2), "the consumer cannot know that it is finished");
    stream.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(3));
    assert_eq!(of(&mut stream).await, 3);
    drop(stream);
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(3), "dropping is not asking for the next");
}

#[tokio::test(start_paused = true)]
async fn revocation_waits_for_stream_then_ends_it() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..5);
    append(&cluster, "t", 1, 0..5);
    let first = member(&cluster).await;
    assigned(&first, 2).await;
    let mut streams = [0, 1].map(|partition| first.split_partition(&tp("t", partition)).unwrap());
    for stream in &mut streams {
        assert_eq!(of(stream).await, 0);
    }
    let second = member(&cluster).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(second.assignment(), [], "the first member's streams still hold records");
    let (mut ended, mut kept) = (0, 0);
    for mut stream in streams {
        // The stream either ends here or stays: then the other partition's record still delays the
        // rebalance.
        match tokio::time::timeout(60 * SECOND, stream.recv()).await {
            Ok(None) => ended += 1,
            Ok(Some(record)) => panic!("handed out while the group takes all back: {record:?}"),
            Err(_) => kept += 1,
        }
        assert!(stream.recv().now_or_never().is_none_or(|next| next.is_none()), "the end stays the end");
    }
    assert_eq!((ended, kept), (2, 0), "an eager assignor takes all partitions back");
    assigned(&second, 1).await;
    assigned(&first, 1).await;
    let mine = first.assignment();
    let mut again = first.split_partition(&mine[0]).unwrap();
    assert_eq!(of(&mut again).await, 1, "what was done was committed");
    assert_eq!(next(&second).await.offset, 1);
}

#[tokio::test(start_paused = true)]
async fn revocation_waits_for_record_read_before_stream() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    let first = member(&cluster).await;
    assert_eq!(next(&first).await.offset, 0);
    let mut stream = first.split_partition(&tp("t", 0)).unwrap();
    let second = member(&cluster).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(second.assignment(), [], "what was read before is in the stream's hand");
    assert!(stream.recv().await.is_none(), "nothing more is handed out");
    let (one, other) = (async { next(&first).await.offset }, async { next(&second).await.offset });
    let offset = tokio::select! { offset = one => offset, offset = other => offset };
    assert_eq!(offset, 0, "it was never done");
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_does_not_delay_revocation() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    let first = member(&cluster).await;
    assigned(&first, 1).await;
    let mut stream = first.split_partition(&tp("t", 0)).unwrap();
    assert_eq!((of(&mut stream).await, of(&mut stream).await), (0, 1));
    let second = member(&cluster).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(second.assignment(), []);
    drop(stream);
    let reader = async { next(&second).await.offset };
    let owner = async { next(&first).await.offset };
    let offset = tokio::select! { offset = reader => offset, offset = owner => offset };
    assert_eq!(offset, 1, "the record that was in hand comes again");
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_partition_or_consumer() {
    let cluster = cluster(1).await;
    let consumer = wide(&cluster, 3).await;
    let mut streams = [0, 1, 2].map(|partition| consumer.split_partition(&tp("t", partition)).unwrap());
    assert_eq!(of(&mut streams[0]).await, 0);
    consumer.assign([(tp("t", 0), 5), (tp("t", 1), 5)]).unwrap();
    for stream in &mut streams {
        assert!(stream.recv().await.is_none(), "assigned again, or no longer");
    }
    assert_eq!(streams[0].commit().await.unwrap_err().kind(), ErrorKind::NotAssigned);
    let again = consumer.split_partition(&tp("t", 0)).unwrap();
    drop(streams);
    let waiting = tokio::spawn(async move { again.skip(5).next().await });
    tokio::time::sleep(SECOND).await;
    assert!(!waiting.is_finished(), "an old stream that is dropped does not undo a newer one");
    let mut last = consumer.split_partition(&tp("t", 1)).unwrap();
    consumer.close(SECOND).await.unwrap();
    assert!(waiting.await.unwrap().is_none() && last.recv().await.is_none());
    drop(consumer);
    assert_eq!(last.commit().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn unread_stream_does_not_block_others() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 4).unwrap();
    let value = vec![7; 10_000];
    for partition in 0..4 {
        for _ in 0..50 {
            cluster.append("t", partition, &[Record::to("t").with_value(&value[..])]).unwrap();
        }
    }
    let builder = builder(&cluster).queued_max_bytes(100_000).max_partition_fetch_bytes(60_000);
    let consumer = builder.build().await.unwrap();
    consumer.assign((0..3).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    let _unread = [0, 1].map(|partition| consumer.split_partition(&tp("t", partition)).unwrap());
    // The prefetched data of the two fills the whole memory limit.
    tokio::time::sleep(60 * SECOND).await;
    for offset in 0..50 {
        assert_eq!(next(&consumer).await.offset, offset);
    }
    consumer.assign([0, 1, 2, 3].map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    let mut unread = [0, 1].map(|partition| consumer.split_partition(&tp("t", partition)).unwrap());
    let mut third = consumer.split_partition(&tp("t", 3)).unwrap();
    tokio::time::sleep(60 * SECOND).await;
    for offset in 0..50 {
        assert_eq!(of(&mut third).await, offset, "beside streams that are not read, and a reader that does not come");
    }
    for stream in &mut unread {
        for offset in 0..50 {
            assert_eq!(of(stream).await, offset, "nothing is lost or doubled by it");
        }
    }
    for offset in 0..50 {
        assert_eq!(next(&consumer).await.offset, offset);
    }
}

/// Like `unread_stream_does_not_block_others`, but with batches that are decompressed in
/// advance: those of a stream that is not being read do not block another reader.
#[tokio::test(start_paused = true)]
async fn unread_stream_does_not_block_decompression() {
    let contents = noise(30_000) + &"0123456789".repeat(6_000);
    let batch = built(0, 10, Sort::Plain, Compression::Lz4, &contents);
    assert!(batch.len() > HEAVY);
    for room in 1..=12 {
        let options = Options::new().brokers(1).in_memory().sink(true).default_partitions(4);
        let cluster = Cluster::start(options.prepared("t", vec![batch.clone()])).await.unwrap();
        let builder = builder(&cluster).queued_max_bytes(room * batch.len() / 2).max_poll_records(10);
        let consumer = builder.build().await.unwrap();
        consumer.assign((0..4).map(|partition| (tp("t", partition), 0))).unwrap();
        let _unread = [0, 1].map(|partition| consumer.split_partition(&tp("t", partition)).unwrap());
        tokio::time::sleep(60 * SECOND).await;
        let mut third = consumer.split_partition(&tp("t", 3)).unwrap();
        for offset in 0..50 {
            assert_eq!(of(&mut third).await, offset, "room for {room} halves");
        }
        for offset in 0..50 {
            assert_eq!(next(&consumer).await.offset, offset, "room for {room} halves");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stream_poll_returns_uniterated_records_on_drop() {
    let cluster = cluster(1).await;
    let consumer = wide(&cluster, 2).await;
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    let offsets = |records: &crate::consumer::Records| records.iter().map(|record| record.offset()).collect::<Vec<_>>();
    let records = stream.poll(60 * SECOND).await.unwrap().unwrap();
    assert_eq!(records.iter().take(3).count(), 3);
    assert_eq!(stream.recv().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(stream.poll(SECOND).await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    drop(records);
    assert_eq!(of(&mut stream).await, 3);
    let records = stream.poll(60 * SECOND).await.unwrap().unwrap();
    let mut iter = records.iter();
    assert_eq!(iter.next().unwrap().offset(), 4);
    drop(stream);
    assert!(iter.next().is_none(), "withheld, since the consumer's reader goes on");
    drop(iter);
    let mut seen = numbers(&consumer, 15).await;
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]);
    drop(records);
    let mut stream = consumer.split_partition(&tp("t", 1)).unwrap();
    assert!(stream.poll(SECOND).await.unwrap().unwrap().is_empty());
    assert!(stream.poll(Duration::ZERO).await.unwrap().unwrap().is_empty());
    append(&cluster, "t", 1, 10..12);
    assert_eq!(offsets(&stream.poll(60 * SECOND).await.unwrap().unwrap()), [10, 11]);
    consumer.unsubscribe().unwrap();
    assert!(stream.poll(60 * SECOND).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn revocation_waits_for_stream_polled_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    let first = member(&cluster).await;
    assigned(&first, 1).await;
    let mut stream = first.split_partition(&tp("t", 0)).unwrap();
    let records = stream.poll(60 * SECOND).await.unwrap().unwrap();
    assert_eq!(records.iter().take(2).count(), 2);
    let second = member(&cluster).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(second.assignment(), []);
    drop(records);
    assert!(stream.poll(60 * SECOND).await.is_none());
    let (one, other) = (async { next(&first).await.offset }, async { next(&second).await.offset });
    let offset = tokio::select! { offset = one => offset, offset = other => offset };
    assert_eq!(offset, 2, "what was iterated is done, what was not comes again");
}

/// Like the test with one reader: members come and go while records are written, and each record is
/// read once and in order.
#[tokio::test(start_paused = true)]
async fn each_record_is_read_once_with_streams() {
    let work = |consumer: Arc<Consumer>, seen: Seen| {
        tokio::spawn(async move {
            while let Some(stream) = consumer.next_partition().await {
                let mut stream = stream.unwrap();
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut polls = 0;
                    while polls < 1000 {
                        polls += 1;
                        // Borrowed and owned records in turn.
                        if polls % 2 == 0 {
                            let Some(records) = stream.poll(SECOND).await else { return };
                            for record in &records.unwrap() {
                                seen.send((record.partition(), number(&record.to_owned()))).unwrap();
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        } else {
                            let Some(record) = stream.recv().await else { return };
                            let record = record.unwrap();
                            seen.send((record.partition, number(&record))).unwrap();
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                });
            }
        })
    };
    each_record_is_read_once(async |cluster, _| Arc::new(member(cluster).await), work).await;
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_streams_until_timeout() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..5);
    append(&cluster, "t", 1, 0..5);
    let consumer = member(&cluster).await;
    let mut quick = consumer.next_partition().await.unwrap().unwrap();
    let mut stuck = consumer.next_partition().await.unwrap().unwrap();
    assert_eq!((quick.partition(), stuck.partition()), (&tp("t", 0), &tp("t", 1)));
    assert_eq!((of(&mut quick).await, of(&mut stuck).await), (0, 0));
    let working = tokio::spawn(async move {
        tokio::time::sleep(2 * SECOND).await;
        quick.recv().await.is_none()
    });
    let begun = tokio::time::Instant::now();
    consumer.close(10 * SECOND).await.unwrap();
    assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
    assert!(working.await.unwrap(), "the stream ended");
    assert_eq!(cluster.committed("g", "t", 0), Some(1), "what was finished in time is committed");
    assert_eq!(cluster.committed("g", "t", 1), Some(0), "what was not is not");
    assert!(consumer.next_partition().await.is_none());
}

#[test]
fn slow_stream_does_not_block_waiting_one() {
    // Memory for a few batches of a broker; two of its partitions are split off.
    let mut world = World::new(ConsumerRules { partition_bytes: 2000, queued_bytes: 3000, ..rules() });
    let (_, slow) = world.buffer.split(&tp("t", 0), false).unwrap();
    let (_, quick) = world.buffer.split(&tp("t", 2), false).unwrap();
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let mut read = Vec::new();
    let mut read_on = |world: &World, read: &mut Vec<i64>| {
        while let std::task::Poll::Ready(Some(Ok(record))) = world.buffer.poll_record(&mut lock(&quick), cx) {
            read.push(record.offset);
        }
    };
    read_on(&world, &mut read);
    for _ in 0..20 {
        // One of the readers waits all the time, and the other never polls.
        assert!(world.waiting.contains_key(&0) || world.send(0).is_some(), "after {} records", read.len());
        world.answer(0, 1);
        read_on(&world, &mut read);
    }
    assert_eq!(read, (0..read.len() as i64).collect::<Vec<_>>(), "in order, none twice");
    assert!(read.len() >= 40, "{} records", read.len());
    drop(slow);
}

#[test]
fn waiting_consumer_fetches_nothing_beyond_budget() {
    let fetched = |listens: bool| {
        let mut world = World::new(ConsumerRules { partition_bytes: 2000, queued_bytes: 3000, ..rules() });
        let split: Vec<_> =
            (0..PARTITIONS).map(|partition| world.buffer.split(&tp("t", partition), true).unwrap()).collect();
        let answered = (0..40).take_while(|_| {
            if listens {
                world.buffer.with_state_and_readers(|state| state.register_waker(std::task::Waker::noop()));
            }
            let sent = world.send(0).is_some();
            sent.then(|| world.answer(0, 1));
            sent
        });
        let answered = answered.count();
        drop(split);
        answered
    };
    assert_eq!(fetched(true), fetched(false));
}

#[test]
fn evicts_unread_when_only_decompression_has_room() {
    let mut world = World::new(rules());
    let (_, slow) = world.buffer.split(&tp("t", 0), false).unwrap();
    let (_, quick) = world.buffer.split(&tp("t", 2), false).unwrap();
    assert!(world.send(0).is_some());
    world.answer(0, 1);
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    while world.buffer.poll_record(&mut lock(&quick), cx).is_ready() {}
    let unread =
        |world: &World| world.buffer.with_state(|state| state.partitions.get(&tp("t", 0)).unwrap().queue.bytes());
    assert!(unread(&world) > 0);
    let _filled = world.buffer.with_state(|state| {
        let quota = state.connections.get(&0.into()).unwrap().quota.clone();
        quota.set_decompresses(true);
        let filled = quota.charge(quota.limit() * 3 / 4 - quota.used());
        assert!(quota.has_room_for(100) && quota.reserve(100, 100).is_none());
        filled
    });
    let later = world.now + 2 * SECOND;
    world.buffer.with_state(|state| state.planner().evict_unread(0.into(), 100, later));
    assert_eq!(unread(&world), 0, "data that is not being read is evicted");
    drop(slow);
}

#[test]
fn removed_partition_leaves_rotation() {
    let mut world = World::new(rules());
    assert!(world.send(0).is_some());
    world.answer(0, 1);
    world.buffer.with_state_and_readers(|state| {
        assert!(state.delivery.turns().next().is_some());
        let partitions = state.partitions.names();
        partitions.iter().for_each(|partition| state.remove(partition));
        assert!(state.delivery.turns().next().is_none());
    });
}

#[tokio::test(start_paused = true)]
async fn marker_does_not_finish_record_before_it() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let records = [Record::to("t").with_value("0")];
    cluster.append_in_transaction("t", 0, 7, &records).unwrap();
    cluster.end_transaction("t", 0, 7, true).unwrap();
    let builder = group_builder(&cluster, GroupProtocol::Classic);
    let consumer = subscribed(builder.auto_commit_interval(SECOND), &["t"]).await;
    let in_hand = next(&consumer).await;
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    assert!(tokio::time::timeout(10 * SECOND, stream.recv()).await.is_err(), "there is the marker only");
    assert_eq!(cluster.committed("g", "t", 0).unwrap_or(0), 0, "{} is still in hand", number(&in_hand));
    cluster.append("t", 0, &records).unwrap();
    assert_eq!(tokio::time::timeout(10 * SECOND, stream.recv()).await.unwrap().unwrap().unwrap().offset, 2);
    assert!(tokio::time::timeout(10 * SECOND, stream.recv()).await.is_err());
    assert_eq!(cluster.committed("g", "t", 0), Some(3), "now it is done");
}
