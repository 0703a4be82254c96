//! Tests of interceptors: their calls, and their changes to records.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{
    ErrorKind,
    producer::{DeliveryReport, ProducerInterceptor},
};

/// Adds a header with its name, and counts its calls.
#[derive(Debug)]
struct Stamp {
    name: &'static str,
    seen: AtomicU64,
    panics: bool,
}

impl Stamp {
    fn new(name: &'static str, panics: bool) -> Arc<Self> {
        Arc::new(Self { name, seen: AtomicU64::new(0), panics })
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl ProducerInterceptor for Stamp {
    fn on_send(&self, record: &mut Record<'_>) {
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        record.add_header(self.name, number.to_string());
        assert!(!self.panics, "this one cannot look at a record");
    }
}

fn headers(cluster: &Cluster, partition: i32) -> Vec<Vec<String>> {
    let records = cluster.records(TOPIC, partition).unwrap().into_iter();
    let named = records.map(|record| record.headers.iter().map(|header| header.name.to_string()).collect());
    named.collect()
}

#[tokio::test(start_paused = true)]
async fn every_send_method_calls_interceptors_in_order() {
    let cluster = cluster(1).await;
    let (first, second) = (Stamp::new("first", false), Stamp::new("second", false));
    let producer = builder(&cluster).interceptor(first.clone()).interceptor(second.clone()).build().await.unwrap();
    producer.send(Record::to(TOPIC).with_value("0").with_header("own", "x")).await.unwrap().await.unwrap();
    producer.try_send(Record::to(TOPIC).with_value("1").with_header("own", "x")).unwrap().await.unwrap();
    let many = (2..10).map(|_| Record::to(TOPIC).with_value("n").with_header("own", "x"));
    assert!(producer.send_batch(many).await.await.iter().all(|result| result.is_ok()));
    assert_eq!((first.seen(), second.seen()), (10, 10));
    assert_eq!(headers(&cluster, 0), vec![vec!["own", "first", "second"]; 10]);
}

#[tokio::test(start_paused = true)]
async fn retried_record_is_intercepted_once_per_producer() {
    let cluster = cluster(1).await;
    let (one, other) = (Stamp::new("one", false), Stamp::new("other", false));
    let small = builder(&cluster).buffer_memory(400).interceptor(one.clone()).build().await.unwrap();
    let value = "x".repeat(250);
    let delivery = small.try_send(Record::to(TOPIC).with_value(&value)).unwrap();
    let refused = small.try_send(Record::to(TOPIC).with_value(&value)).unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::BufferFull);
    let refused = small.try_send(refused.into_record()).unwrap_err();
    assert_eq!(one.seen(), 2);
    delivery.await.unwrap();
    let kept = refused.into_record();
    small.send(kept.clone()).await.unwrap().await.unwrap();
    assert_eq!(one.seen(), 2);
    let second = builder(&cluster).interceptor(other.clone()).build().await.unwrap();
    second.send(kept).await.unwrap().await.unwrap();
    assert_eq!((one.seen(), other.seen()), (2, 1));
    assert_eq!(headers(&cluster, 0), [vec!["one"], vec!["one"], vec!["one", "other"]]);
}

/// Sends every record to one partition of one topic, with another value.
#[derive(Debug)]
struct Redirect;

impl ProducerInterceptor for Redirect {
    fn on_send(&self, record: &mut Record<'_>) {
        let value = format!("{}:{:?}", record.topic(), record.key());
        record.set_topic(TOPIC);
        record.set_key(None);
        record.set_partition(Some(2));
        record.set_value(Some(value.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn sends_record_as_changed_by_interceptor() {
    let cluster = cluster(3).await;
    let producer = builder(&cluster).interceptor(Redirect).build().await.unwrap();
    let at = producer.send(Record::to("not a topic!").with_key("k").with_partition(-1)).await.unwrap().await.unwrap();
    assert_eq!((&*at.topic, at.partition), (TOPIC, 2));
    assert_eq!(log(&cluster, 2), ["not a topic!:Some([107])"]);
}

#[tokio::test(start_paused = true)]
async fn interceptor_panic_stops_neither_record_nor_others() {
    let cluster = cluster(1).await;
    let (bad, good) = (Stamp::new("bad", true), Stamp::new("good", false));
    let producer = builder(&cluster).interceptor(bad.clone()).interceptor(good.clone()).build().await.unwrap();
    delivered(send_numbers(&producer, 0..3).await).await;
    assert_eq!((bad.seen(), good.seen()), (3, 3));
    assert_eq!(log(&cluster, 0), numbers(0..3));
    assert_eq!(headers(&cluster, 0), vec![vec!["bad", "good"]; 3]);
}

/// Records its calls.
#[derive(Debug, Default)]
struct Told {
    tags: Mutex<Vec<(Option<u64>, bool)>>,
    panics: bool,
}

impl ProducerInterceptor for Told {
    fn on_send(&self, record: &mut Record<'_>) {
        let number = record.value().map(|value| String::from_utf8_lossy(value).parse().unwrap());
        record.set_tag(number);
    }

    fn on_acknowledgement(&self, report: &DeliveryReport) {
        self.tags.lock().unwrap().push((report.tag, report.result.is_ok()));
        assert!(!self.panics, "this one cannot look at a result");
    }
}

#[tokio::test(start_paused = true)]
async fn result_reaches_interceptors_before_callback() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let bad = Arc::new(Told { panics: true, ..Told::default() });
    let good = Arc::new(Told::default());
    let by_callback = Arc::new(Mutex::new(Vec::new()));
    let (sink, before) = (by_callback.clone(), good.clone());
    let producer = builder(&cluster)
        .max_block(ms(1000))
        .interceptor(bad.clone())
        .interceptor(good.clone())
        .on_delivery(move |report| {
            assert!(before.tags.lock().unwrap().iter().any(|(tag, _)| *tag == report.tag), "interceptors come first");
            sink.lock().unwrap().push((report.tag, report.result.is_ok()));
        })
        .build()
        .await
        .unwrap();
    let mut deliveries = send_numbers(&producer, 0..5).await;
    deliveries.push(producer.send(Record::to("nowhere").with_value("5")).await.unwrap());
    assert_eq!(results(deliveries).await.iter().filter(|result| result.is_ok()).count(), 5);
    let expected: Vec<_> = (0..6).map(|tag| (Some(tag), tag < 5)).collect();
    assert_eq!(*good.tags.lock().unwrap(), expected);
    assert_eq!(*bad.tags.lock().unwrap(), expected);
    assert_eq!(*by_callback.lock().unwrap(), expected);
}
