//! Names that Kafka's Java clients or librdkafka know and the client at hand does not have. Each is
//! ignored or refused, with the reason.
//!
//! A name is refused if ignoring it would weaken security or delivery. All others are ignored, so
//! that one file serves every client, and one warning names them.

use Fate::{Always, Ignored, Refused};
use Owner::{Admin, All, Consumer, Producer, Reading, ShareConsumer};

use super::ClientKind;

/// The outcome for a property without an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The value asks for behaviour that the client has in any case.
    AsIs,
    /// The property is ignored, and named in the warning with this reason.
    Ignored(&'static str),
    /// The property is an error with this reason.
    Refused(&'static str),
}

/// The clients that have a property.
#[derive(Clone, Copy)]
enum Owner {
    All,
    Producer,
    Consumer,
    Admin,
    ShareConsumer,
    /// Producers and consumers.
    Reading,
}

#[derive(Clone, Copy)]
enum Fate {
    Ignored(&'static str),
    Refused(&'static str),
    /// These values ask for behaviour that the client has in any case; others are ignored or
    /// refused, for that reason.
    Always(&'static [&'static str], Otherwise, &'static str),
}

#[derive(Clone, Copy)]
enum Otherwise {
    Ignore,
    Refuse,
}

struct Row {
    owner: Owner,
    fate: Fate,
    names: &'static [&'static str],
}

const fn row(owner: Owner, fate: Fate, names: &'static [&'static str]) -> Row {
    Row { owner, fate, names }
}

impl Owner {
    fn includes(self, client: ClientKind) -> bool {
        match self {
            All => true,
            Producer => client == ClientKind::Producer,
            Consumer => client == ClientKind::Consumer,
            Admin => client == ClientKind::Admin,
            Reading => client != ClientKind::Admin,
            ShareConsumer => false,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Producer => "a producer's",
            Consumer => "a consumer's",
            Admin => "an admin client's",
            ShareConsumer => "a share consumer's",
            All | Reading => "a producer's or a consumer's",
        }
    }
}

const EMPTY: &str = "empty, which counts as not set";

/// Returns the outcome for a name that the client does not have, or `None` for one that Kafka does
/// not know either. The outcome has the name as Kafka writes it, or only its prefix if the rest is
/// the user's.
pub(super) fn verdict(client: ClientKind, name: &str, value: &str) -> Option<(&'static str, Verdict)> {
    for (prefix, reason) in PREFIXES {
        if name.starts_with(prefix) {
            return Some((
                prefix,
                if value.trim().is_empty() { Verdict::Ignored(EMPTY) } else { Verdict::Refused(reason) },
            ));
        }
    }
    let rows = || ROWS.iter().filter_map(|row| Some((row, row.names.iter().copied().find(|known| *known == name)?)));
    let own = rows().find(|(row, _)| row.owner.includes(client));
    let (row, name) = own.or_else(|| rows().next())?;
    let verdict = if !row.owner.includes(client) {
        Verdict::Ignored(row.owner.reason())
    } else if value.trim().is_empty() {
        Verdict::Ignored(EMPTY)
    } else {
        match row.fate {
            Ignored(reason) => Verdict::Ignored(reason),
            Refused(reason) => Verdict::Refused(reason),
            Always(values, ..) if values.iter().any(|always| value.trim().eq_ignore_ascii_case(always)) => {
                Verdict::AsIs
            }
            Always(_, Otherwise::Ignore, reason) => Verdict::Ignored(reason),
            Always(_, Otherwise::Refuse, reason) => Verdict::Refused(reason),
        }
    };
    Some((name, verdict))
}

/// Returns the reason why a value of a property that the client has is without effect, if it is.
pub(super) fn without_effect(client: ClientKind, name: &str, value: &str) -> Option<&'static str> {
    let value = value.trim();
    match name {
        "enable.metrics.push" if value.eq_ignore_ascii_case("true") => {
            Some("this version pushes no metrics; read them with `metrics()`")
        }
        "client.rack" | "metadata.max.idle.ms" | "allow.auto.create.topics" if client == ClientKind::Admin => {
            Some(Reading.reason())
        }
        "group.id" | "group.instance.id" | "group.remote.assignor" | "client.rack" | "transactional.id"
            if value.is_empty() =>
        {
            Some(EMPTY)
        }
        _ => None,
    }
}

/// Returns the reason why a security property is without effect under that `security.protocol`, if
/// it is.
pub(super) fn without_effect_under(protocol: &str, name: &str) -> Option<&'static str> {
    let protocol = protocol.trim().to_ascii_uppercase();
    let tls = name.starts_with("ssl.") || name == "enable.ssl.certificate.verification";
    match &*protocol {
        "PLAINTEXT" | "SASL_PLAINTEXT" if tls => Some("`security.protocol` is without TLS"),
        "PLAINTEXT" | "SSL" if name.starts_with("sasl.") => Some("`security.protocol` is without SASL"),
        _ => None,
    }
}

const SERDES: &str = "keys and values are bytes: serialize before sending and after receiving";
const JVM: &str = "names a class of the JVM";
const LIBRDKAFKA: &str = "librdkafka's own, without a counterpart";
const METRICS: &str = "metrics are read with `metrics()`";
const LOGS: &str = "logs go to `tracing`, and its subscriber selects levels and targets";
const IN_CODE: &str = "takes a function or an object, which is set in code";
const VALIDATOR: &str = "configures the validation of tokens, which is the broker's task";
const NOT_HERE: &str = "this version does not have it";
const BUFFERS: &str = "the operating system chooses the sizes of socket buffers";
const GSSAPI: &str = "GSSAPI is not built in; a crate that has it gives its mechanism to `Sasl::mechanism`";
const TLS_PARAMETERS: &str = "this version would not apply the restriction of TLS; restrict the `CryptoProvider` of `Tls`, and remove the property";
const TLS_PROVIDER: &str =
    "it chooses the library for TLS; set a `CryptoProvider` in `Tls` instead, and remove the property";
const HSM: &str = "keys come from PEM or PKCS #12 only; set `ssl.key.location` or `ssl.keystore.location` instead";
const ASSERTION: &str = "the token's assertion would lack its claims or its key; set `sasl.oauthbearer.assertion.claim.*` and \
                         `sasl.oauthbearer.assertion.private.key.file` instead";

/// Families of names that are refused as a whole.
const PREFIXES: &[(&str, &str)] = &[
    ("config.providers", "placeholders in values are not replaced; replace them before, and remove the property"),
    ("sasl.kerberos.", GSSAPI),
];

const ROWS: &[Row] = &[
    // ---- Security
    row(
        All,
        Refused("revoked certificates would be accepted, because this version has no revocation lists"),
        &["ssl.crl.location"],
    ),
    row(All, Refused(TLS_PARAMETERS), &["ssl.cipher.suites", "ssl.curves.list", "ssl.sigalgs.list"]),
    row(
        All,
        Refused(TLS_PROVIDER),
        &["security.providers", "ssl.engine.factory.class", "ssl.provider", "ssl.providers"],
    ),
    row(
        All,
        Always(
            &["PKIX", "SunX509"],
            Otherwise::Refuse,
            "it decides which certificates are trusted; rustls' rules are those of PKIX",
        ),
        &["ssl.trustmanager.algorithm"],
    ),
    row(
        All,
        Refused(
            "the system's stores are used if no authorities are configured; set `ssl.ca.location`, or remove the property",
        ),
        &["ssl.ca.certificate.stores"],
    ),
    row(
        All,
        Refused("it decides in code which certificates are trusted; remove the property"),
        &["ssl.certificate.verify_cb", "ssl_ca"],
    ),
    row(
        All,
        Refused(HSM),
        &["ssl.engine.id", "ssl.engine.location", "ssl_certificate", "ssl_engine_callback_data", "ssl_key"],
    ),
    row(
        All,
        Refused("it names a class of the JVM that logs in; set a `Mechanism` or a `TokenSource` in `Sasl` instead"),
        &["oauthbearer_token_refresh_cb", "sasl.login.class"],
    ),
    row(
        All,
        Refused(ASSERTION),
        &[
            "sasl.oauthbearer.assertion.jwt.template.file",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.template.file",
        ],
    ),
    row(
        All,
        Always(
            &["none"],
            Otherwise::Refuse,
            "this version has no tokens of cloud metadata services; pass a `TokenSource` to `Sasl::oauth_bearer`",
        ),
        &["sasl.oauthbearer.metadata.authentication.type"],
    ),
    row(
        All,
        Ignored(VALIDATOR),
        &[
            "sasl.oauthbearer.allow.unverified.audience",
            "sasl.oauthbearer.allow.unverified.issuer",
            "sasl.oauthbearer.clock.skew.seconds",
            "sasl.oauthbearer.expected.audience",
            "sasl.oauthbearer.expected.issuer",
            "sasl.oauthbearer.jwks.endpoint.refresh.ms",
            "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
            "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
            "sasl.oauthbearer.jwks.endpoint.url",
            "sasl.oauthbearer.jwt.validator.class",
            "sasl.oauthbearer.scope.claim.name",
            "sasl.oauthbearer.sub.claim.name",
        ],
    ),
    row(All, Ignored(JVM), &["ssl.keymanager.algorithm", "ssl.secure.random.implementation"]),
    // ---- Delivery
    row(
        Producer,
        Refused("build a `TransactionalProducer`, because a `Producer` sends its records outside of a transaction"),
        &["transactional.id"],
    ),
    row(Producer, Ignored("has no effect without `transactional.id`"), &["transaction.timeout.ms"]),
    row(
        Producer,
        Always(&["false"], Otherwise::Refuse, "this version takes no part in transactions of other systems (KIP-939)"),
        &["transaction.two.phase.commit.enable"],
    ),
    row(
        Producer,
        Always(
            &["false"],
            Otherwise::Refuse,
            "in this version a gap is not fatal: records after a failed one are sent",
        ),
        &["enable.gapless.guarantee"],
    ),
    row(
        Consumer,
        Always(
            &["true"],
            Otherwise::Refuse,
            "this version has no manual offset store: set `enable.auto.commit=false` and commit, or use a worker",
        ),
        &["enable.auto.offset.store"],
    ),
    row(
        Consumer,
        Refused("it has no effect in today's consumers; set `enable.auto.commit` instead"),
        &["auto.commit.enable"],
    ),
    row(
        Consumer,
        Always(
            &["broker"],
            Otherwise::Refuse,
            "only the group coordinator stores offsets; commit, or store them in the program and seek",
        ),
        &["offset.store.method"],
    ),
    row(
        Consumer,
        Refused("the excluded topics would be read; exclude them by the pattern of the subscription"),
        &["topic.blacklist"],
    ),
    row(
        Consumer,
        Always(&["consumer"], Otherwise::Refuse, "this version has no groups of other types"),
        &["group.protocol.type"],
    ),
    row(
        Consumer,
        Always(&["false"], Otherwise::Refuse, "in this version a broker without stable offsets is not an error"),
        &["internal.throw.on.fetch.stable.offset.unsupported"],
    ),
    row(
        Reading,
        Refused(
            "the interceptors would not run; set them in code (`ProducerBuilder::interceptor`), and remove the property",
        ),
        &["interceptor.classes", "interceptors"],
    ),
    row(All, Refused("the plugins would not run; remove the property"), &["plugin.library.paths"]),
    row(
        Producer,
        Refused(
            "records would go to other partitions; set the partitioner in code (`Partitioner::custom`), and remove the property",
        ),
        &["partitioner_cb"],
    ),
    row(
        Admin,
        Refused("this version does not connect to controllers directly (KIP-919); set `bootstrap.servers` instead"),
        &["bootstrap.controllers"],
    ),
    // ---- Java's, without effect here
    row(Producer, Ignored(SERDES), &["key.serializer", "value.serializer"]),
    row(Consumer, Ignored(SERDES), &["key.deserializer", "value.deserializer"]),
    row(Admin, Ignored("a call is repeated until `default.api.timeout.ms`"), &["retries"]),
    row(
        All,
        Ignored(METRICS),
        &[
            "auto.include.jmx.reporter",
            "metric.reporters",
            "metrics.num.samples",
            "metrics.recording.level",
            "metrics.sample.window.ms",
            "stats_cb",
        ],
    ),
    row(Producer, Ignored("configures the memory of the JVM"), &["buffer.memory.allocation.strategy"]),
    row(Consumer, Ignored(NOT_HERE), &["internal.leave.group.on.close"]),
    row(ShareConsumer, Ignored(NOT_HERE), &["share.acknowledgement.mode", "share.acquire.mode"]),
    row(
        All,
        Always(&["-1", "0"], Otherwise::Ignore, BUFFERS),
        &["receive.buffer.bytes", "send.buffer.bytes", "socket.receive.buffer.bytes", "socket.send.buffer.bytes"],
    ),
    // ---- librdkafka's, without effect here
    row(All, Always(&["0"], Otherwise::Ignore, METRICS), &["statistics.interval.ms"]),
    row(All, Always(&["false"], Otherwise::Ignore, NOT_HERE), &["socket.keepalive.enable"]),
    row(All, Always(&["true"], Otherwise::Ignore, "Nagle's algorithm is always off"), &["socket.nagle.disable"]),
    row(All, Always(&["any"], Otherwise::Ignore, "all addresses of a name are tried"), &["broker.address.family"]),
    row(
        All,
        Always(&["true"], Otherwise::Ignore, "brokers are always asked for their versions"),
        &["api.version.request"],
    ),
    row(All, Ignored(LOGS), &["debug", "log.connection.close", "log.queue", "log.thread.name", "log_cb", "log_level"]),
    row(Producer, Ignored("the buffer is bounded by bytes: `buffer.memory`"), &["queue.buffering.max.messages"]),
    row(Producer, Ignored("a batch is bounded by bytes: `batch.size`"), &["batch.num.messages"]),
    row(
        Consumer,
        Ignored("the read-ahead is bounded by bytes: `queued.max.messages.kbytes`"),
        &["queued.min.messages"],
    ),
    row(
        All,
        Ignored(IN_CODE),
        &[
            "background_event_cb",
            "closesocket_cb",
            "connect_cb",
            "default_topic_conf",
            "error_cb",
            "opaque",
            "open_cb",
            "resolve_cb",
            "socket_cb",
            "throttle_cb",
        ],
    ),
    row(Producer, Ignored(IN_CODE), &["dr_cb", "dr_msg_cb", "msg_order_cmp"]),
    row(Consumer, Ignored(IN_CODE), &["consume_cb", "offset_commit_cb", "rebalance_cb"]),
    row(
        All,
        Ignored(LIBRDKAFKA),
        &[
            "api.version.fallback.ms",
            "api.version.request.timeout.ms",
            "broker.address.ttl",
            "broker.version.fallback",
            "builtin.features",
            "client.software.name",
            "client.software.version",
            "enable.random.seed",
            "enabled_events",
            "internal.termination.signal",
            "message.copy.max.bytes",
            "reconnect.backoff.jitter.ms",
            "socket.blocking.max.ms",
            "socket.max.fails",
            "topic.blacklist",
            "topic.metadata.propagation.max.ms",
            "topic.metadata.refresh.fast.cnt",
            "topic.metadata.refresh.fast.interval.ms",
            "topic.metadata.refresh.sparse",
        ],
    ),
    row(
        Producer,
        Ignored(LIBRDKAFKA),
        &[
            "delivery.report.only.error",
            "produce.offset.report",
            "queue.buffering.backpressure.threshold",
            "queuing.strategy",
            "sticky.partitioning.linger.ms",
        ],
    ),
    row(
        Consumer,
        Ignored(LIBRDKAFKA),
        &[
            "consume.callback.max.messages",
            "coordinator.query.interval.ms",
            "fetch.error.backoff.ms",
            "fetch.queue.backoff.ms",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
    ),
    // ---- In the tables of one client, for the others
    row(
        Producer,
        Ignored(NOT_HERE),
        &[
            "acks",
            "batch.size",
            "buffer.memory",
            "compression.codec",
            "compression.gzip.level",
            "compression.level",
            "compression.lz4.level",
            "compression.type",
            "compression.zstd.level",
            "delivery.timeout.ms",
            "enable.idempotence",
            "linger.ms",
            "max.block.ms",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "max.request.size",
            "message.max.bytes",
            "message.send.max.retries",
            "message.timeout.ms",
            "partitioner",
            "partitioner.adaptive.partitioning.enable",
            "partitioner.availability.timeout.ms",
            "partitioner.class",
            "partitioner.ignore.keys",
            "partitioner.rack.aware",
            "queue.buffering.max.kbytes",
            "queue.buffering.max.ms",
            "request.required.acks",
            "retries",
        ],
    ),
    row(
        Consumer,
        Ignored(NOT_HERE),
        &[
            "auto.commit.interval.ms",
            "auto.offset.reset",
            "check.crcs",
            "enable.auto.commit",
            "enable.partition.eof",
            "exclude.internal.topics",
            "fetch.max.bytes",
            "fetch.max.connections",
            "fetch.max.wait.ms",
            "fetch.message.max.bytes",
            "fetch.min.bytes",
            "fetch.wait.max.ms",
            "group.id",
            "group.instance.id",
            "group.protocol",
            "group.remote.assignor",
            "heartbeat.interval.ms",
            "isolation.level",
            "max.decompressed.batch.bytes",
            "max.partition.fetch.bytes",
            "max.poll.interval.ms",
            "max.poll.records",
            "partition.assignment.strategy",
            "queued.max.messages.kbytes",
            "session.timeout.ms",
        ],
    ),
];
