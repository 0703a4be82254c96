//! The scenarios: clients that together send each API.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::stage::{GROUP, Playing, Stage, TOPIC};
use crate::{
    Admin, Consumer, Offset, Record, TopicPartition,
    admin::NewTopic,
    consumer::{ConsumerBuilder, GroupProtocol, OffsetReset},
    producer::{Acks, ProducerBuilder},
    record::GroupMetadata,
    security::{Sasl, Security},
};

const SECOND: Duration = Duration::from_secs(1);

fn partitions() -> [TopicPartition; 2] {
    [TopicPartition::new(TOPIC, 0), TopicPartition::new(TOPIC, 1)]
}

// ---- producers

pub(super) fn idempotent_producer(stage: Stage) -> Playing {
    Box::pin(async move { produce(stage.producer(), &stage).await })
}

pub(super) fn plain_producer(stage: Stage) -> Playing {
    Box::pin(async move { produce(stage.producer().idempotence(false), &stage).await })
}

pub(super) fn producer_without_acks(stage: Stage) -> Playing {
    Box::pin(async move { produce(stage.producer().acks(Acks::None), &stage).await })
}

pub(super) fn authenticated_producer(stage: Stage) -> Playing {
    let security = Security::sasl_plaintext(Sasl::plain("alice", "secret"));
    Box::pin(async move { produce(stage.producer().security(security), &stage).await })
}

/// Sends a record every two seconds.
async fn produce(builder: ProducerBuilder, stage: &Stage) {
    let Some(producer) = stage.ear.result(builder.build().await) else { return };
    let producer = Arc::new(producer);
    while !stage.is_over() {
        let (producer, ear) = (producer.clone(), stage.ear.clone());
        tokio::spawn(async move {
            if let Some(delivery) = ear.result(producer.send(Record::to(TOPIC).with_value("v")).await)
                && ear.result(delivery.await).is_some()
            {
                ear.works();
            }
        });
        sleep(2 * SECOND).await;
    }
}

/// Sends a record to each of sixty partitions.
pub(super) fn producer_to_many(stage: Stage) -> Playing {
    Box::pin(async move {
        stage.cluster.add_partitions(TOPIC, MANY).unwrap();
        let Some(producer) = stage.ear.result(stage.producer().build().await) else { return };
        for partition in 0..MANY {
            let sent = producer.send(Record::to(TOPIC).with_partition(partition).with_value("v")).await;
            if let Some(delivery) = stage.ear.result(sent) {
                let ear = stage.ear.clone();
                tokio::spawn(async move { ear.result(delivery.await) });
            }
        }
        tokio::time::sleep_until(stage.ends).await;
    })
}

const MANY: i32 = 60;

pub(super) fn transactional_producer(stage: Stage) -> Playing {
    Box::pin(async move { transact(2, &stage).await })
}

pub(super) fn transactional_producer_of_first_protocol(stage: Stage) -> Playing {
    Box::pin(async move { transact(1, &stage).await })
}

/// Commits a transaction over two partitions, with offsets, every two seconds.
async fn transact(level: i16, stage: &Stage) {
    stage.cluster.set_feature("transaction.version", level);
    let builder = stage.producer().transactional_id("tx");
    let Some(mut producer) = stage.ear.result(builder.build().await) else { return };
    while !stage.is_over() {
        if let Some(transaction) = stage.ear.result(producer.begin().await) {
            for partition in [0, 1] {
                let record = Record::to(TOPIC).with_partition(partition).with_value("v");
                if let Some(delivery) = stage.ear.result(transaction.send(record).await) {
                    let ear = stage.ear.clone();
                    tokio::spawn(async move { ear.result(delivery.await) });
                }
            }
            let offsets = partitions().map(|partition| (partition, 1));
            let group = GroupMetadata::without_member(GROUP);
            stage.ear.result(transaction.send_offsets(offsets, &group).await);
            let committed = transaction.commit().await.map_err(|error| error.error().clone());
            if stage.ear.result(committed).is_some() {
                stage.ear.works();
            }
        }
        sleep(2 * SECOND).await;
    }
}

// ---- consumers

/// Reads until the end, and checks the status meanwhile.
async fn read(consumer: &Consumer, stage: &Stage) {
    let mut look = stage.ends - super::stage::PLAYED + SECOND;
    loop {
        let until = look.min(stage.ends);
        match timeout_at(until, consumer.recv()).await {
            Ok(Some(next)) => {
                if stage.ear.result(next).is_some() {
                    stage.ear.works();
                }
            }
            // The end of the scenario.
            Ok(None) => tokio::time::sleep_until(until).await,
            Err(_) => {}
        }
        if Instant::now() >= stage.ends {
            return;
        }
        if Instant::now() >= look {
            stage.ear.look_at(consumer);
            // More records to read, so that there is more to commit.
            for partition in [0, 1] {
                stage.append(partition);
            }
            // Not in step with the retries: their last error shows only between them.
            look += Duration::from_millis(1700);
        }
    }
}

async fn assigned(builder: ConsumerBuilder, stage: &Stage) {
    let Some(consumer) = stage.ear.result(builder.build().await) else { return };
    stage.ear.result(consumer.assign(partitions().map(|partition| (partition, Offset::Beginning))));
    read(&consumer, stage).await;
    stage.ear.result(consumer.close(5 * SECOND).await);
}

pub(super) fn assigned_consumer(stage: Stage) -> Playing {
    Box::pin(async move { assigned(stage.consumer(), &stage).await })
}

/// Reads sixty partitions.
pub(super) fn consumer_of_many(stage: Stage) -> Playing {
    Box::pin(async move {
        stage.cluster.add_partitions(TOPIC, MANY).unwrap();
        let Some(consumer) = stage.ear.result(stage.consumer().build().await) else { return };
        let all = (0..MANY).map(|partition| (TopicPartition::new(TOPIC, partition), Offset::Beginning));
        stage.ear.result(consumer.assign(all));
        read(&consumer, &stage).await;
    })
}

/// Reads while the leaders change, so that the position is validated.
pub(super) fn consumer_behind_elections(stage: Stage) -> Playing {
    Box::pin(async move {
        let cluster = stage.cluster.clone();
        tokio::spawn(async move {
            sleep(5 * SECOND).await;
            for partition in [0, 1] {
                cluster.move_leader(TOPIC, partition, 1).unwrap();
                cluster.move_leader(TOPIC, partition, 2).unwrap();
            }
        });
        assigned(stage.consumer(), &stage).await;
    })
}

/// Reads manually assigned partitions, with positions in a group.
pub(super) fn assigned_consumer_with_group(stage: Stage) -> Playing {
    Box::pin(async move {
        let builder = stage.consumer().group(GROUP).auto_commit_interval(5 * SECOND);
        let Some(consumer) = stage.ear.result(builder.auto_offset_reset(OffsetReset::Earliest).build().await) else {
            return;
        };
        stage.ear.result(consumer.assign(partitions().map(|partition| (partition, Offset::Beginning))));
        read(&consumer, &stage).await;
        stage.ear.result(consumer.close(5 * SECOND).await);
    })
}

async fn subscribed(builder: ConsumerBuilder, stage: &Stage) {
    let builder = builder.group(GROUP).auto_offset_reset(OffsetReset::Earliest);
    let builder = builder.auto_commit_interval(5 * SECOND);
    let Some(consumer) = stage.ear.result(builder.build().await) else { return };
    stage.ear.result(consumer.subscribe([TOPIC]));
    read(&consumer, stage).await;
    stage.ear.result(consumer.close(5 * SECOND).await);
}

pub(super) fn classic_member(stage: Stage) -> Playing {
    Box::pin(async move { subscribed(stage.consumer(), &stage).await })
}

pub(super) fn static_classic_member(stage: Stage) -> Playing {
    Box::pin(async move { subscribed(stage.consumer().group_instance_id("i"), &stage).await })
}

pub(super) fn consumer_protocol_member(stage: Stage) -> Playing {
    Box::pin(async move { subscribed(stage.consumer().group_protocol(GroupProtocol::Consumer), &stage).await })
}

pub(super) fn static_consumer_protocol_member(stage: Stage) -> Playing {
    let builder = stage.consumer().group_protocol(GroupProtocol::Consumer).group_instance_id("i");
    Box::pin(async move { subscribed(builder, &stage).await })
}

/// Commits manually and looks offsets up, one call after the other.
pub(super) fn calls_of_consumer(stage: Stage) -> Playing {
    Box::pin(async move {
        let builder = stage.consumer().group(GROUP).auto_commit(false);
        let Some(consumer) = stage.ear.result(builder.build().await) else { return };
        let consumer = Arc::new(consumer);
        let now = std::time::SystemTime::UNIX_EPOCH;
        let times = partitions().map(|partition| (partition, now));
        let ear = &stage.ear;
        let all = async {
            tokio::join!(
                async { ear.result(consumer.beginning_offsets(partitions()).await) },
                async { ear.result(consumer.end_offsets(partitions()).await) },
                async { ear.result(consumer.offsets_for_times(times).await) },
                async { ear.result(consumer.committed(partitions()).await) },
                async { ear.result(consumer.partitions_for(TOPIC).await) },
                async { ear.result(consumer.list_topics().await) },
                async { ear.result(consumer.commit_offsets(partitions().map(|partition| (partition, 1))).await) },
            )
        };
        all.await;
        ear.result(consumer.close(5 * SECOND).await);
    })
}

// ---- admin

pub(super) fn admin(stage: Stage) -> Playing {
    Box::pin(async move {
        let builder = Admin::builder(stage.cluster.bootstrap()).network(stage.network.clone());
        let Some(admin) = stage.ear.result(builder.build().await) else { return };
        let ear = &stage.ear;
        tokio::join!(
            async { ear.result(admin.describe_cluster().await) },
            async { ear.result(admin.list_topics().await) },
            async {
                if let Some(described) = ear.result(admin.describe_topics([TOPIC]).await) {
                    described.into_iter().for_each(|topic| _ = ear.result(topic.result));
                }
            },
            async {
                if let Some(created) = ear.result(admin.create_topics([NewTopic::new("new", 1)]).await) {
                    created.into_iter().for_each(|topic| _ = ear.result(topic.result));
                }
            },
            async {
                sleep(SECOND).await;
                if let Some(deleted) = ear.result(admin.delete_topics([TOPIC]).await) {
                    deleted.into_iter().for_each(|topic| _ = ear.result(topic.result));
                }
            },
        );
    })
}
