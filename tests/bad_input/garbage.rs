//! Invalid responses to each kind of request in turn: no record is lost or duplicated, and a client
//! that cannot continue reports an error.

use ottla::{
    ApiKey, ErrorKind, Record,
    consumer::OffsetReset,
    testkit::{Fault, on},
};

use crate::common::*;

/// Returns faults that replace a response.
fn answers(key: ApiKey) -> [(&'static str, Fault); 7] {
    [
        ("garbage", on(key).respond_garbage(&b"\xff\x00garbage"[..])),
        ("a negative length", on(key).respond_garbage(&[0x80, 0, 0, 0][..])),
        ("a frame of 2 GiB", on(key).respond_garbage(&[0x7f, 0xff, 0xff, 0xff][..])),
        ("an empty frame", on(key).respond_garbage(&[0; 4][..])),
        ("a strange correlation id", on(key).respond_garbage(&[0, 0, 0, 8, 0x7f, 1, 1, 1, 0, 0, 0, 0][..])),
        ("a frame without its end", on(key).respond_garbage(&[0, 0, 1, 0, 0, 0][..])),
        ("half an answer", on(key).truncate_response()),
    ]
}

#[tokio::test(start_paused = true)]
async fn producer_delivers_once_despite_garbage_responses() {
    for key in [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce] {
        for (what, fault) in answers(key) {
            let cluster = cluster().await;
            cluster.create_topic("t", 1).unwrap();
            let fault = cluster.fault(fault.times(2));
            let producer = producer(&cluster).build().await.unwrap();
            for n in 0..5 {
                let delivery = producer.send(Record::to("t").with_value(n.to_string())).await.unwrap();
                in_time(delivery).await.unwrap_or_else(|error| panic!("{key}: {what}: {error}"));
            }
            assert!(fault.hits() >= 1, "{key}: {what}");
            assert_eq!(log(&cluster, "t", 0), [0, 1, 2, 3, 4], "{key}: {what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn member_reads_once_despite_garbage_responses() {
    let keys = [
        ApiKey::ApiVersions,
        ApiKey::Metadata,
        ApiKey::FindCoordinator,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::Heartbeat,
        ApiKey::OffsetFetch,
        ApiKey::ListOffsets,
        ApiKey::Fetch,
    ];
    for key in keys {
        for (what, fault) in answers(key) {
            let cluster = cluster().await;
            cluster.create_topic("t", 1).unwrap();
            append(&cluster, "t", 0, 0..5);
            let fault = cluster.fault(fault.times(1));
            let builder = consumer(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
            let consumer = builder.build().await.unwrap();
            consumer.subscribe(["t"]).unwrap();
            let mut seen = Vec::new();
            let quiet = tokio::time::Instant::now() + 500 * SECOND;
            while seen.len() < 10 && tokio::time::Instant::now() < quiet {
                // An error that cannot be fixed by retrying is reported, and then the consumer
                // continues.
                match in_time(consumer.recv()).await.expect("the consumer is not closed") {
                    Ok(record) => seen.push(number(&record)),
                    Err(error) => {
                        let kinds = [ErrorKind::Protocol, ErrorKind::Timeout, ErrorKind::Network];
                        assert!(kinds.contains(&error.kind()), "{key}: {what}: {error}");
                    }
                }
                if seen.len() == 5 {
                    tokio::time::sleep(5 * SECOND).await;
                    append(&cluster, "t", 0, 5..10);
                }
            }
            assert_eq!(seen, (0..10).collect::<Vec<_>>(), "{key}: {what}");
            assert!(fault.hits() >= 1, "{key}: {what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn admin_retries_or_reports_garbage_response() {
    for (what, fault) in answers(ApiKey::Metadata) {
        let cluster = cluster().await;
        cluster.create_topic("t", 1).unwrap();
        let admin = admin(&cluster).build().await.unwrap();
        admin.list_topics().await.unwrap();
        cluster.fault(fault.times(1));
        match in_time(admin.list_topics()).await {
            Ok(topics) => assert_eq!(topics.len(), 1, "{what}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}"),
        }
        assert_eq!(in_time(admin.list_topics()).await.unwrap().len(), 1, "{what}: afterwards");
    }
}
