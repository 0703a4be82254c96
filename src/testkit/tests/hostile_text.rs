//! Tests with control characters in each text that a client reads from brokers or from members of
//! its group: none reaches an error or a log line unescaped.

use std::{
    collections::BTreeSet,
    error::Error as StdError,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use tracing::{Event, Metadata, Subscriber, span};

use super::client::{cluster, text};
use crate::{
    Admin, ApiKey, Consumer, ErrorCode, Producer, Record,
    admin::{NewTopic, TopicResults},
    consumer::{GroupProtocol, OffsetReset},
    log::capture::FieldText,
    net::Network,
    security::{Sasl, Security},
    testkit::{self, Cluster, Options, tampered::tampered_bytes},
    wire::{
        byte_string::ByteString,
        decoder::{Decode, Decoder, Rewrite},
        encoder::Encode,
        message::encode_body,
        messages::{
            self, FetchRequest, ProduceRequest, fetch_response,
            produce_response::{self, BatchIndexAndErrorMessage},
        },
        protocol::Request,
    },
};

const SECOND: Duration = Duration::from_secs(1);
/// CR, LF, ESC, DEL, a C1 control, and characters that reorder, separate and hide text.
const HOSTILE: &str = "evil\r\n\u{1b}[31m\u{7f}\u{9b}2J\u{202e}\u{2066}\u{2028}\u{2029}\u{200b}\u{feff}\0";

/// All that a program sees of a client besides its data: errors, and log lines down to TRACE.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Subscriber for Seen {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ottla") && !metadata.target().starts_with("ottla::testkit")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = FieldText(attributes.metadata().name().to_owned());
        attributes.record(&mut line);
        self.push(line.0);
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = FieldText(event.metadata().target().to_owned());
        event.record(&mut line);
        self.push(line.0);
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Seen {
    fn push(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn error(&self, error: &(dyn StdError + 'static)) {
        self.push(format!("{error}"));
        self.push(format!("{error:?}"));
        if let Some(source) = error.source() {
            self.error(source);
        }
    }

    fn result<T>(&self, result: Result<T, impl StdError + 'static>) {
        if let Err(error) = result {
            self.error(&error);
        }
    }

    /// Asserts that no text was seen unescaped; returns true if hostile text was seen at all.
    #[track_caller]
    fn check(&self, of: &str) -> bool {
        let seen = self.0.lock().unwrap();
        for text in &*seen {
            let raw = text.chars().find(|c| c.is_control() || HOSTILE.contains(*c) && !c.is_ascii());
            assert!(raw.is_none(), "{of}: {raw:?} in {text:?}");
        }
        seen.iter().any(|text| text.contains("evil"))
    }
}

/// Hostile text in strings of a response, and perhaps an error code.
#[derive(Clone, Debug)]
struct Hostile {
    key: ApiKey,
    strings: Strings,
    code: Option<ErrorCode>,
    /// The names of the string fields that the responses had.
    met: Arc<Mutex<BTreeSet<&'static str>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Strings {
    All,
    /// All except the strings by which a client finds the part that it asked for.
    AllButKeys,
    One(&'static str),
}

impl Rewrite for Hostile {
    fn text(&self, field: &'static str, was: Option<ByteString>) -> Option<ByteString> {
        self.met.lock().unwrap().insert(field);
        let changes = match self.strings {
            Strings::All => true,
            Strings::AllButKeys => !["key", "name", "topic", "group_id"].contains(&field),
            Strings::One(wanted) => wanted == field,
        };
        if changes { Some(format!("{}{HOSTILE}", was.unwrap_or_default()).into()) } else { was }
    }

    fn bytes(&self, field: &'static str, was: Bytes) -> Bytes {
        // Metadata of members is truncated, so that the leader has to report an error about a
        // member.
        if field == "metadata" && self.strings == Strings::All { was.slice(..was.len().min(7)) } else { was }
    }

    fn short(&self, field: &'static str, was: i16) -> i16 {
        if field == "error_code" { self.code.map_or(was, ErrorCode::code) } else { was }
    }
}

/// Changes the body of a response in a version.
type Change = fn(&Hostile, i16, Bytes) -> Bytes;

fn rewritten<R: Request<Response: Encode>>(hostile: &Hostile, version: i16, body: Bytes) -> Bytes {
    changed::<R>(hostile, version, body, |_| ())
}

fn changed<R: Request<Response: Encode>>(
    hostile: &Hostile,
    version: i16,
    body: Bytes,
    change: impl FnOnce(&mut R::Response),
) -> Bytes {
    let decoder = Decoder::new(body, version, version >= R::FLEXIBLE);
    let mut response = R::Response::decode(&mut decoder.rewriting(hostile.clone())).unwrap();
    change(&mut response);
    let mut out = BytesMut::new();
    encode_body(&mut out, &response, version).unwrap();
    out.freeze()
}

/// Adds errors of records and the address of another leader, which no healthy broker sends.
fn produced(hostile: &Hostile, version: i16, body: Bytes) -> Bytes {
    changed::<ProduceRequest>(hostile, version, body, |response| {
        for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
            partition.record_errors =
                vec![BatchIndexAndErrorMessage { batch_index: 0, batch_index_error_message: Some(text(HOSTILE)) }];
        }
        if version >= 10 {
            let (host, rack) = (text(HOSTILE), Some(text(HOSTILE)));
            response.node_endpoints = vec![produce_response::NodeEndpoint { node_id: 1, host, port: 1, rack }];
        }
    })
}

fn fetched(hostile: &Hostile, version: i16, body: Bytes) -> Bytes {
    changed::<FetchRequest>(hostile, version, body, |response| {
        if version >= 16 {
            let (host, rack) = (text(HOSTILE), Some(text(HOSTILE)));
            response.node_endpoints = vec![fetch_response::NodeEndpoint { node_id: 1, host, port: 1, rack }];
        }
    })
}

struct Program {
    bootstrap: String,
    network: Arc<dyn Network>,
    security: Security,
    seen: Seen,
}

impl Program {
    async fn administrates(&self) {
        let builder = Admin::builder(&self.bootstrap).network(self.network.clone()).security(self.security.clone());
        let admin = builder.request_timeout(2 * SECOND).default_api_timeout(3 * SECOND).build().await.unwrap();
        self.topics(admin.create_topics([NewTopic::new("orders", 1), NewTopic::new("new", 1)]).await);
        self.seen.result(admin.list_topics().await);
        self.seen.result(admin.describe_cluster().await);
        self.topics(admin.describe_topics(["orders"]).await);
        self.topics(admin.delete_topics(["new"]).await);
    }

    fn topics<T>(&self, results: crate::Result<TopicResults<T>>) {
        match results {
            Ok(topics) => {
                for error in topics.iter().filter_map(|topic| topic.result.as_ref().err()) {
                    self.seen.error(error);
                }
            }
            Err(error) => self.seen.error(&error),
        }
    }

    async fn produces(&self) {
        let builder = Producer::builder(&*self.bootstrap).network(self.network.clone()).security(self.security.clone());
        let builder = builder.request_timeout(2 * SECOND).delivery_timeout(4 * SECOND).max_block(4 * SECOND);
        let producer = builder.build().await.unwrap();
        for _ in 0..2 {
            match producer.send(Record::to("orders").with_value("x")).await {
                Ok(delivery) => self.seen.result(delivery.await),
                Err(error) => self.seen.error(&error),
            }
        }
        self.seen.result(producer.close(2 * SECOND).await);
    }

    async fn consumes(&self, protocol: GroupProtocol, topic: &str) {
        let builder = Consumer::builder(&*self.bootstrap).network(self.network.clone()).security(self.security.clone());
        let builder = builder.group("g").group_protocol(protocol).auto_offset_reset(OffsetReset::Earliest);
        let consumer = builder.build().await.unwrap();
        consumer.subscribe([topic]).unwrap();
        let reads = async {
            while let Some(next) = consumer.recv().await {
                self.seen.result(next);
                self.seen.push(format!("{:?}", consumer.status()));
                self.seen.result(consumer.commit().await);
            }
        };
        // Longer than a heartbeat interval, a session timeout, and an offset look-up.
        let _ = timeout(50 * SECOND, reads).await;
        self.seen.push(format!("{:?}", consumer.status()));
        self.seen.result(consumer.close(5 * SECOND).await);
    }
}

async fn fresh(sasl: Option<testkit::Sasl>) -> Cluster {
    let options = Options::new().brokers(2);
    let cluster = cluster(match sasl {
        Some(sasl) => options.sasl(sasl),
        None => options,
    })
    .await;
    cluster.create_topic("orders", 2).unwrap();
    cluster
}

/// Runs clients against a cluster with responses changed by `change`; returns true if the program
/// saw any of the hostile text.
async fn shows(change: Change, hostile: &Hostile) -> bool {
    let seen = Seen::default();
    // If there is a single subscriber `tracing` assumes that all threads have it: hence a second
    // one.
    let _second = tracing::Dispatch::new(seen.clone());
    let _told = tracing::subscriber::set_default(seen.clone());
    let users = || testkit::Sasl::new().user("alice", "wonder").max_reauth(5 * SECOND);
    let sasl = match hostile.key {
        // If PLAIN is not offered, the response lists the mechanisms that are.
        ApiKey::SaslHandshake => Some(users().mechanisms(["SCRAM-SHA-256"])),
        ApiKey::SaslAuthenticate => Some(users()),
        _ => None,
    };
    let security = match &sasl {
        Some(_) => Security::sasl_plaintext(Sasl::plain("alice", "wonder")),
        None => Security::plaintext(),
    };
    let consumes = sasl.is_none();
    let cluster = fresh(sasl).await;
    let changes = hostile.clone();
    let network = tampered_bytes(
        &cluster,
        move |key, version, body| {
            if key == changes.key { change(&changes, version, body) } else { body }
        },
    );
    let program = Program { bootstrap: cluster.bootstrap(), network, security, seen: seen.clone() };
    program.administrates().await;
    program.produces().await;
    if consumes {
        tokio::join!(
            program.consumes(GroupProtocol::Classic, "orders"),
            program.consumes(GroupProtocol::Classic, "^ord.*")
        );
        program.consumes(GroupProtocol::Consumer, "orders").await;
    }
    seen.check(&format!("{hostile:?}"))
}

/// APIs with text in their responses; true if a program is sure to see some of it in an error or a
/// log line.
const RESPONSES: [(ApiKey, Change, bool); 20] = [
    (ApiKey::ApiVersions, rewritten::<messages::ApiVersionsRequest>, false),
    (ApiKey::Metadata, rewritten::<messages::MetadataRequest>, true),
    (ApiKey::DescribeCluster, rewritten::<messages::DescribeClusterRequest>, false),
    (ApiKey::FindCoordinator, rewritten::<messages::FindCoordinatorRequest>, true),
    (ApiKey::InitProducerId, rewritten::<messages::InitProducerIdRequest>, false),
    (ApiKey::Produce, produced, true),
    (ApiKey::Fetch, fetched, false),
    (ApiKey::ListOffsets, rewritten::<messages::ListOffsetsRequest>, false),
    (ApiKey::OffsetForLeaderEpoch, rewritten::<messages::OffsetForLeaderEpochRequest>, false),
    (ApiKey::OffsetFetch, rewritten::<messages::OffsetFetchRequest>, false),
    (ApiKey::OffsetCommit, rewritten::<messages::OffsetCommitRequest>, false),
    (ApiKey::JoinGroup, rewritten::<messages::JoinGroupRequest>, true),
    (ApiKey::SyncGroup, rewritten::<messages::SyncGroupRequest>, true),
    (ApiKey::Heartbeat, rewritten::<messages::HeartbeatRequest>, false),
    (ApiKey::LeaveGroup, rewritten::<messages::LeaveGroupRequest>, false),
    (ApiKey::ConsumerGroupHeartbeat, rewritten::<messages::ConsumerGroupHeartbeatRequest>, true),
    (ApiKey::CreateTopics, rewritten::<messages::CreateTopicsRequest>, true),
    (ApiKey::DeleteTopics, rewritten::<messages::DeleteTopicsRequest>, true),
    (ApiKey::SaslHandshake, rewritten::<messages::SaslHandshakeRequest>, true),
    (ApiKey::SaslAuthenticate, rewritten::<messages::SaslAuthenticateRequest>, true),
];

#[tokio::test(start_paused = true)]
async fn hostile_text_is_seen_escaped() {
    let mut unseen = Vec::new();
    for (key, change, is_seen) in RESPONSES {
        // A retriable code, one that is not retriable, and one with invalid records.
        let codes = match key {
            ApiKey::SaslHandshake => vec![ErrorCode::UNSUPPORTED_SASL_MECHANISM],
            ApiKey::SaslAuthenticate => vec![ErrorCode::SASL_AUTHENTICATION_FAILED],
            ApiKey::Produce => vec![ErrorCode::REQUEST_TIMED_OUT, ErrorCode::INVALID_RECORD],
            _ => vec![ErrorCode::REQUEST_TIMED_OUT, ErrorCode::POLICY_VIOLATION],
        };
        let all = Hostile { key, strings: Strings::All, code: None, met: Arc::default() };
        let mut seen = shows(change, &all).await;
        for code in [None].into_iter().chain(codes.into_iter().map(Some)) {
            seen |= shows(change, &Hostile { strings: Strings::AllButKeys, code, ..all.clone() }).await;
        }
        if is_seen && !seen {
            unseen.push(key);
        }
        let met = all.met.lock().unwrap().clone();
        for field in met {
            shows(change, &Hostile { strings: Strings::One(field), ..all.clone() }).await;
        }
    }
    assert!(unseen.is_empty(), "a program sees none of the text in {unseen:?}");
}
