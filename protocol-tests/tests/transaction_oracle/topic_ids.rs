//! TxnOffsetCommit 6, which names topics by id and has codes of its own for groups and members
//! (KIP-1319). The crate that encodes the other requests does not know it.

use bytes::{Buf, BytesMut};
use kafka_protocol::{
    messages::{MetadataRequest, metadata_request::MetadataRequestTopic},
    protocol::Encodable,
};

use crate::{
    offsets,
    producer::{Producer, V2},
    reading::Member,
    script::{Script, error, text},
};

const TXN_OFFSET_COMMIT: i16 = 28;

type TopicId = [u8; 16];

/// Members and groups of both protocols, and topics that do not exist.
pub(crate) async fn members_and_groups(script: &mut Script) {
    let mut producer = Producer::new(script, "A", V2);
    script.init(&mut producer).await;
    let topic = topic_id(script).await;
    commit(script, &producer, "group", "an unknown topic", [7; 16], &Member::NONE).await;
    commit(script, &producer, "absent", "an absent group", topic, &Member::new("stranger", 3)).await;
    commit(script, &producer, "absent", "an absent group, no member", topic, &Member::new("", 3)).await;
    commit(script, &producer, "absent", "no member", topic, &Member::NONE).await;
    commit(script, &producer, "absent", "a member of a group without members", topic, &Member::new("m", 3)).await;
    let member = offsets::join(script, "classic").await;
    let id = &*member.id;
    for (what, member) in [
        ("a classic member", member.clone()),
        ("a classic member's former generation", Member::new(id, member.generation - 1)),
        ("an unknown classic member", Member::new("stranger", member.generation)),
    ] {
        commit(script, &producer, "classic", what, topic, &member).await;
    }
    let epoch = offsets::join_consumer_group(script, "consumer").await;
    for (what, member) in [
        ("a consumer", Member::new("member", epoch)),
        ("a consumer's former epoch", Member::new("member", epoch - 1)),
        ("a consumer's later epoch", Member::new("member", epoch + 1)),
        ("an unknown consumer", Member::new("stranger", epoch)),
        ("no consumer", Member::NONE),
    ] {
        commit(script, &producer, "consumer", what, topic, &member).await;
    }
    commit(script, &producer.at_epoch(producer.epoch + 1), "consumer", "a later epoch", topic, &Member::NONE).await;
    script.end_fully(&mut producer, true).await;
    for group in ["absent", "classic", "consumer"] {
        script.committed(group).await;
    }
}

async fn topic_id(script: &mut Script) -> TopicId {
    let topic = MetadataRequestTopic::default().with_name(Some(text(&script.topic()).into()));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    script.connection.call(&request, 12).await.topics[0].topic_id.into_bytes()
}

/// Sends the request for partition 0, which is that of version 5 with the id in the place of the
/// name.
async fn commit(script: &mut Script, producer: &Producer, group: &str, what: &str, topic: TopicId, member: &Member) {
    let request = script.offset_commit(producer, group, (0, 5), member);
    let mut body = BytesMut::new();
    request.encode(&mut body, 5).expect("a request");
    let name = script.topic();
    let start = body.windows(name.len()).position(|part| part == name.as_bytes()).expect("the topic's name");
    // A short text has one byte of length before it.
    assert!(name.len() < 127, "{name}");
    let body = [&body[..start - 1], &topic, &body[start + name.len()..]].concat();
    let mut response = script.connection.exchange(TXN_OFFSET_COMMIT, 6, (2, 1), &body).await;
    // The throttle time, one topic with its id, one partition with its number, the code, no tags.
    assert_eq!(response.len(), 4 + 1 + 16 + 1 + 4 + 2 + 3, "{response:?}");
    response.advance(4 + 1 + 16 + 1 + 4);
    script.note(format!("TxnOffsetCommit 6 of {what}"), error(response.get_i16()));
}
