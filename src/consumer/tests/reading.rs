use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};

use super::*;
use crate::ErrorKind;

#[tokio::test(start_paused = true)]
async fn reads_from_beginning_end_and_offset() {
    let cluster = cluster(1).await;
    for topic in ["a", "b", "c"] {
        cluster.create_topic(topic, 1).unwrap();
        append(&cluster, topic, 0, 0..5);
    }
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("a", 0), Offset::Beginning), (tp("b", 0), Offset::End), (tp("c", 0), Offset::At(3))]).unwrap();
    let mut seen = numbers(&consumer, 7).await;
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 3, 4, 4]);
    assert!(is_quiet(&consumer).await);
    assert_eq!(consumer.position(&tp("b", 0)), Some(5));
    append(&cluster, "b", 0, 5..6);
    let record = next(&consumer).await;
    assert_eq!((&*record.topic, record.offset, number(&record)), ("b", 5, 5));
    assert_eq!(consumer.assignment(), [tp("a", 0), tp("b", 0), tp("c", 0)]);
}

#[tokio::test(start_paused = true)]
async fn waiting_reader_receives_later_records() {
    let cluster = Arc::new(cluster(1).await);
    let consumer = reading(&cluster, "t", 0).await;
    let writer = cluster.clone();
    tokio::spawn(async move {
        tokio::time::sleep(100 * SECOND).await;
        append(&writer, "t", 0, 0..1);
    });
    let waited = tokio::time::timeout(200 * SECOND, consumer.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(number(&waited), 0);
}

#[tokio::test(start_paused = true)]
async fn records_keep_all_their_parts() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 0).await;
    let record = Record::to("t")
        .with_key("k")
        .with_header("h", "1")
        .with_header("h", "2")
        .with_null_header("n")
        .with_timestamp_millis(77);
    cluster.append("t", 0, &[record, Record::to("t").with_value("v")]).unwrap();
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.len(), 2);
    let first = records.iter().next().unwrap();
    assert_eq!((first.key(), first.value(), first.timestamp_millis()), (Some(&b"k"[..]), None, 77));
    let headers: Vec<_> = first.headers().map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec))).collect();
    let expected = [("h", Some(b"1".to_vec())), ("h", Some(b"2".to_vec())), ("n", None)];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value)));
    let owned = first.to_owned();
    assert_eq!((owned.offset, owned.key.as_deref(), owned.headers.len()), (0, Some(&b"k"[..]), 3));
    assert_eq!(owned.topic_partition(), tp("t", 0));
}

#[tokio::test(start_paused = true)]
async fn poll_without_records_returns_empty_batch() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 0).await;
    assert!(consumer.poll(Duration::ZERO).await.unwrap().is_empty());
    assert!(consumer.poll(3 * SECOND).await.unwrap().is_empty());
    let nothing_assigned = super::consumer(&cluster).await;
    assert!(nothing_assigned.poll(SECOND).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn uniterated_records_are_delivered_again() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 10).await;
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.len(), 10);
    let some: Vec<i64> = records.iter().take(4).map(|record| record.offset()).collect();
    assert_eq!(some, [0, 1, 2, 3]);
    assert_eq!(records.iter().count(), 10, "iterating again starts from the beginning");
    drop(records);
    append(&cluster, "t", 0, 10..20);
    let records = consumer.poll(60 * SECOND).await.unwrap();
    let some: Vec<i64> = records.iter().take(3).map(|record| record.offset()).collect();
    assert_eq!(some, [10, 11, 12]);
    drop(records);
    drop(consumer.poll(60 * SECOND).await.unwrap());
    let record = next(&consumer).await;
    assert_eq!(record.offset, 13);
    let rest: Vec<i64> = consumer.poll(60 * SECOND).await.unwrap().iter().map(|record| record.offset()).collect();
    assert_eq!(rest, [14, 15, 16, 17, 18, 19]);
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn poll_returns_at_most_max_poll_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..10);
    append(&cluster, "t", 1, 0..10);
    let consumer = builder(&cluster).max_poll_records(7).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    let mut seen: [Vec<i64>; 2] = [Vec::new(), Vec::new()];
    let mut counts = Vec::new();
    while seen[0].len() + seen[1].len() < 20 {
        let records = consumer.poll(60 * SECOND).await.unwrap();
        counts.push(records.len());
        for partition in records.partitions() {
            let offsets = partition.iter().map(|record| record.offset());
            seen[usize::try_from(partition.partition().partition).unwrap()].extend(offsets);
        }
    }
    assert!(counts.iter().all(|count| (1..=7).contains(count)), "{counts:?}");
    assert_eq!(seen, [(0..10).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>()]);
}

#[tokio::test(start_paused = true)]
async fn rejects_second_concurrent_reader() {
    let cluster = cluster(1).await;
    let consumer = Arc::new(reading(&cluster, "t", 2).await);
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(consumer.poll(SECOND).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(consumer.recv().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(consumer.stream().next().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(records.iter().count(), 2);
    drop(records);
    let other = consumer.clone();
    let waiting = tokio::spawn(async move { other.recv().await });
    tokio::time::sleep(SECOND).await;
    assert_eq!(consumer.recv().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    waiting.abort();
    let _ = waiting.await;
    append(&cluster, "t", 0, 2..3);
    assert_eq!(next(&consumer).await.offset, 2, "a reader that was dropped holds nothing back");
}

#[tokio::test(start_paused = true)]
async fn stream_delivers_same_records_in_order() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 300).await;
    let mut seen: Vec<i64> = consumer.stream().take(200).map_ok(|record| record.offset).try_collect().await.unwrap();
    seen.extend(consumer.stream().take(100).map_ok(|record| record.offset).try_collect::<Vec<_>>().await.unwrap());
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    consumer.close(SECOND).await.unwrap();
    assert!(consumer.stream().next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn seek_discards_buffered_and_polled_records() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 100).await;
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    consumer.seek(&tp("t", 0), 50).unwrap();
    assert_eq!(consumer.position(&tp("t", 0)), Some(50));
    assert_eq!(numbers(&consumer, 2).await, [50, 51]);
    let records = consumer.poll(60 * SECOND).await.unwrap();
    let mut iter = records.iter();
    assert_eq!(iter.next().unwrap().offset(), 52);
    consumer.seek(&tp("t", 0), Offset::Beginning).unwrap();
    assert!(iter.next().is_none(), "what the poll still holds is withheld");
    drop(iter);
    drop(records);
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    consumer.seek(&tp("t", 0), Offset::End).unwrap();
    assert!(is_quiet(&consumer).await);
    assert_eq!(consumer.position(&tp("t", 0)), Some(100));
    let error = consumer.seek(&tp("t", 1), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert_eq!(consumer.seek(&tp("t", 0), -1).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn paused_partitions_wait_and_lose_nothing() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..10);
    append(&cluster, "t", 1, 0..10);
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    let first = next(&consumer).await;
    let (paused, other) = (first.topic_partition(), tp("t", 1 - first.partition));
    consumer.pause([&paused]).unwrap();
    assert_eq!(consumer.paused(), std::slice::from_ref(&paused));
    for offset in 0..10 {
        let record = next(&consumer).await;
        assert_eq!((record.topic_partition(), record.offset), (other.clone(), offset));
    }
    append(&cluster, "t", paused.partition, 10..12);
    assert!(is_quiet(&consumer).await);
    consumer.resume([&paused, &other]).unwrap();
    for offset in 1..12 {
        let record = next(&consumer).await;
        assert_eq!((record.topic_partition(), record.offset), (paused.clone(), offset));
    }
    assert!(is_quiet(&consumer).await);
    assert_eq!(consumer.pause([&paused, &tp("t", 9)]).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert!(consumer.paused().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pausing_requeues_uniterated_polled_records() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 10).await;
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.iter().take(4).count(), 4);
    consumer.pause([&tp("t", 0)]).unwrap();
    drop(records);
    assert!(is_quiet(&consumer).await);
    consumer.resume([&tp("t", 0)]).unwrap();
    assert_eq!(numbers(&consumer, 6).await, [4, 5, 6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn assigning_again_replaces_previous_assignment() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "a", 5).await;
    cluster.create_topic("b", 1).unwrap();
    append(&cluster, "b", 0, 100..103);
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    consumer.assign([(tp("b", 0), 1)]).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [101, 102]);
    consumer.unsubscribe().unwrap();
    assert!(consumer.assignment().is_empty());
    for bad in [tp("b", -1), tp("no/name", 0)] {
        assert_eq!(consumer.assign([(bad, 0)]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(consumer.assign([(tp("b", 0), -7)]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(consumer.subscribe(["b"]).unwrap_err().kind(), ErrorKind::InvalidArgument, "without a group");
}

#[tokio::test(start_paused = true)]
async fn looks_up_offsets_and_topics() {
    let cluster = cluster(3).await;
    cluster.create_topic("t", 3).unwrap();
    for partition in 0..3 {
        for n in 0..=i64::from(partition) {
            let record = Record::to("t").with_value("v").with_timestamp_millis(1000 * n);
            cluster.append("t", partition, &[record]).unwrap();
        }
    }
    cluster.delete_records("t", 2, 1).unwrap();
    let consumer = consumer(&cluster).await;
    let all = [tp("t", 0), tp("t", 1), tp("t", 2)];
    let begin = consumer.beginning_offsets(all.clone()).await.unwrap();
    let end = consumer.end_offsets(all.clone()).await.unwrap();
    assert_eq!(all.clone().map(|tp| (begin[&tp], end[&tp])), [(0, 1), (0, 2), (1, 3)]);
    let at = std::time::UNIX_EPOCH + Duration::from_millis(1500);
    let state = consumer.offsets_for_times(all.clone().map(|tp| (tp, at))).await.unwrap();
    assert_eq!(state[&all[0]], None);
    assert_eq!(state[&all[2]].map(|state| (state.offset, state.timestamp_millis)), Some((2, 2000)));
    assert_eq!(consumer.partitions_for("t").await.unwrap().len(), 3);
    let topics = consumer.list_topics().await.unwrap();
    assert_eq!(topics.get("t").map(Vec::len), Some(3));
    let error = consumer.end_offsets([tp("t", 7)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
}

#[tokio::test(start_paused = true)]
async fn reads_from_brokers_with_old_fetch_versions() {
    for version in [4, 6, 7, 11, 12, 13] {
        let options = Options::new().brokers(2).in_memory().max_version(crate::ApiKey::Fetch, version);
        let cluster = Cluster::start(options).await.unwrap();
        cluster.create_topic("t", 4).unwrap();
        let consumer = consumer(&cluster).await;
        consumer.assign((0..4).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
        for round in 0..3 {
            for partition in 0..4 {
                append(&cluster, "t", partition, round * 10..round * 10 + 10);
            }
            let mut seen = numbers(&consumer, 40).await;
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, (round * 10..round * 10 + 10).collect::<Vec<_>>(), "v{version}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fetches_continue_while_one_thread_reads() {
    // Ten batches in each response; reading takes no time and never waits.
    let batches = vec![crate::consumer::test_batches::batch_of(0, 100, 1000)];
    let options = Options::new().in_memory().sink(true).prepared("t", batches);
    let cluster = Cluster::start(options).await.unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    let mut expected = 0;
    let mut dry = 0;
    for polls in 0..300 {
        let records = consumer.poll(60 * SECOND).await.unwrap();
        for record in &records {
            assert_eq!(record.offset(), expected);
            expected += 1;
        }
        drop(records);
        let queued = consumer.metrics().partitions[&tp("t", 0)].buffered_bytes;
        dry += usize::from(polls > 20 && queued == 0);
    }
    assert_eq!(dry, 0, "the reader came to the end of what was there {dry} times");
}
