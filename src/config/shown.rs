//! The part of a property that errors and `Debug` may show: its name if it looks like one, and its
//! value if the property is on a list of harmless ones and the value looks like one of theirs.

use super::parse;

/// Properties that have numbers or switches as values. All others may hold a secret, or contain one
/// by mistake.
const HARMLESS: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.interval.ms",
    "batch.num.messages",
    "batch.size",
    "buffer.memory",
    "check.crcs",
    "compression.gzip.level",
    "compression.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "connections.max.idle.ms",
    "default.api.timeout.ms",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.metrics.push",
    "enable.partition.eof",
    "enable.ssl.certificate.verification",
    "exclude.internal.topics",
    "fetch.max.bytes",
    "fetch.max.connections",
    "fetch.max.wait.ms",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "heartbeat.interval.ms",
    "linger.ms",
    "max.block.ms",
    "max.decompressed.batch.bytes",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "max.poll.records",
    "max.request.size",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.cluster.check.enable",
    "metadata.max.age.ms",
    "metadata.max.idle.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "partitioner.adaptive.partitioning.enable",
    "partitioner.availability.timeout.ms",
    "partitioner.ignore.keys",
    "partitioner.rack.aware",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.login.connect.timeout.ms",
    "sasl.login.read.timeout.ms",
    "sasl.login.refresh.buffer.seconds",
    "sasl.login.refresh.min.period.seconds",
    "sasl.login.refresh.window.factor",
    "sasl.login.refresh.window.jitter",
    "sasl.login.retry.backoff.max.ms",
    "sasl.login.retry.backoff.ms",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.header.urlencode",
    "session.timeout.ms",
    "socket.connection.setup.timeout.max.ms",
    "socket.connection.setup.timeout.ms",
    "socket.timeout.ms",
    "topic.metadata.refresh.interval.ms",
];

/// Returns the value of a property in the form that an error may show.
pub(crate) fn value(name: &str, value: &str) -> String {
    let harmless = HARMLESS.contains(&name) && (is_number(value) || parse::boolean(value).is_some());
    if harmless { format!("\"{value}\"") } else { "(hidden)".to_owned() }
}

/// Returns true for a number, with an optional sign, fraction and unit, that is not longer than a
/// number is.
fn is_number(value: &str) -> bool {
    let value = value.trim();
    let unsigned = value.strip_prefix(['-', '+']).unwrap_or(value);
    let digits = unsigned.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = unsigned.len() - digits.len();
    let digits = digits.trim_end();
    !digits.is_empty()
        && digits.len() <= 20
        && unit <= 3
        && digits.chars().all(|c| matches!(c, '0'..='9' | '.' | '_' | ','))
}

/// Returns the name of an unknown property in the form that an error may show, or `None` if it does
/// not look like a name, because a line of a key, for example, was read as a name. Digits are
/// accepted only in names of several words.
pub(super) fn name(name: &str) -> Option<&str> {
    let word = |word: &str| {
        let digits = word.chars().filter(char::is_ascii_digit).count();
        !word.is_empty() && digits <= 2 && word.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
    };
    let parts = name.contains(['.', '_', '-']) || !name.contains(|c: char| c.is_ascii_digit());
    (name.len() <= 64 && parts && name.split('.').all(word)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_plain_values_and_hides_others() {
        for shown in ["5", " -1", "1.5", "5s", "10 MB", "1_000", "true"] {
            assert_eq!(value("linger.ms", shown), format!("\"{shown}\""));
        }
        for hidden in ["", "soon", "hunter2", "2hunter", "123456789012345678901", "5 hunter", "-", "ms"] {
            assert_eq!(value("linger.ms", hidden), "(hidden)");
        }
        for name in ["sasl.password", "client.id", "sasl.pasword", "LINGER.MS", "transaction.timeout.ms"] {
            assert_eq!(value(name, "5"), "(hidden)");
        }
    }

    #[test]
    fn shows_only_names_shaped_like_properties() {
        for shown in ["linger.mss", "colour", "spring.kafka.sasl.username", "group-id", "linger_ms"] {
            assert_eq!(name(shown), Some(shown));
        }
        for hidden in
            ["", "Blorvex7", "leading8blank", "eyJh.eyJz.c2ln", "a b", "a9b8c7d6", "pass=word", "x\ny", &"x".repeat(65)]
        {
            assert_eq!(name(hidden), None);
        }
    }
}
