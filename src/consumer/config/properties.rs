//! A consumer's properties by name: Java's names, and librdkafka's where they differ.

use std::{sync::Arc, time::Duration};

use crate::config::{
    Property,
    parse::{BOOLEAN, MILLIS, boolean, millis},
    table,
};
use crate::consumer::config::settings::{ConsumerSettings, GroupProtocol, IsolationLevel, OffsetReset};
use crate::consumer::group::assignor::{Assignor, named};

fn bytes(value: &str) -> Option<i32> {
    value.trim().parse().ok().filter(|bytes| *bytes >= 0)
}

const BYTES: &str = "bytes, 0 to 2147483647";

/// The properties of a consumer, in addition to those of every client.
pub(crate) static PROPERTIES: &[Property<ConsumerSettings>] = table! {
    // An empty name counts as none, as in librdkafka.
    "group.id", "a name", |s, v| s.group_id = name(v);
    "group.instance.id", "a name", |s, v| s.group_instance_id = name(v);
    "auto.offset.reset", "earliest, latest, none, or by_duration:<ISO 8601 duration, such as PT1H>", |s, v| s.auto_offset_reset = reset(v)?;
    "enable.auto.commit", BOOLEAN, |s, v| s.enable_auto_commit = boolean(v)?;
    "auto.commit.interval.ms", MILLIS, |s, v| s.auto_commit_interval = millis(v)?;
    "fetch.min.bytes", BYTES, |s, v| s.fetch_min_bytes = bytes(v)?;
    "fetch.max.bytes", BYTES, |s, v| s.fetch_max_bytes = bytes(v)?;
    "fetch.max.wait.ms" | "fetch.wait.max.ms", MILLIS, |s, v| s.fetch_max_wait = millis(v)?;
    "max.partition.fetch.bytes" | "fetch.message.max.bytes", BYTES, |s, v| s.max_partition_fetch_bytes = Some(bytes(v)?);
    "fetch.max.connections", "1 to 255", |s, v| s.fetch_max_connections = v.trim().parse().ok()?;
    "max.poll.records", "1 or more", |s, v| s.max_poll_records = v.trim().parse().ok()?;
    "max.poll.interval.ms", MILLIS, |s, v| s.max_poll_interval = millis(v)?;
    "session.timeout.ms", MILLIS, |s, v| s.session_timeout = millis(v)?;
    "heartbeat.interval.ms", MILLIS, |s, v| s.heartbeat_interval = millis(v)?;
    "partition.assignment.strategy", "range, roundrobin, sticky, cooperative-sticky, or the names of their classes in Java, with commas between them (pass an assignor of your own to the builder)", |s, v| s.assignors = strategies(v)?;
    "group.protocol", "classic or consumer", |s, v| s.group_protocol = protocol(v)?;
    "group.remote.assignor", "the name of an assignor of the brokers, such as uniform or range", |s, v| s.group_remote_assignor = name(v.trim());
    "isolation.level", "read_uncommitted or read_committed", |s, v| s.isolation_level = isolation(v)?;
    "enable.partition.eof", BOOLEAN, |s, v| s.enable_partition_eof = boolean(v)?;
    "check.crcs", BOOLEAN, |s, v| s.check_crcs = boolean(v)?;
    "exclude.internal.topics", BOOLEAN, |s, v| s.exclude_internal_topics = boolean(v)?;
    "topic.metadata.propagation.max.ms", MILLIS, |s, v| s.topic_propagation_max = millis(v)?;
    "queued.max.messages.kbytes", "kibibytes, 1 or more", |s, v| s.queued_max_bytes = v.trim().parse::<usize>().ok()?.checked_mul(1024)?;
    "max.decompressed.batch.bytes", "bytes, 1 or more", |s, v| s.max_decompressed_batch_bytes = v.trim().parse().ok()?;
};

fn name(value: &str) -> Option<Arc<str>> {
    (!value.trim().is_empty()).then(|| value.into())
}

fn protocol(value: &str) -> Option<GroupProtocol> {
    match value.trim().to_ascii_lowercase().as_str() {
        "classic" => Some(GroupProtocol::Classic),
        "consumer" => Some(GroupProtocol::Consumer),
        _ => None,
    }
}

fn isolation(value: &str) -> Option<IsolationLevel> {
    match value.trim().to_ascii_lowercase().as_str() {
        "read_uncommitted" => Some(IsolationLevel::ReadUncommitted),
        "read_committed" => Some(IsolationLevel::ReadCommitted),
        _ => None,
    }
}

/// Parses names of strategies as in librdkafka and class names as in Java, in the order of
/// preference.
fn strategies(value: &str) -> Option<Vec<Arc<dyn Assignor>>> {
    let names = value.trim().trim_start_matches('[').trim_end_matches(']').split(',').map(str::trim);
    names.map(|name| named(name.trim_start_matches("class ").trim())).collect()
}

fn reset(value: &str) -> Option<OffsetReset> {
    let value = value.trim();
    if let Some((name, duration)) = value.split_once(':') {
        return name.eq_ignore_ascii_case("by_duration").then(|| iso_duration(duration))?.map(OffsetReset::ByDuration);
    }
    match value.to_ascii_lowercase().as_str() {
        "earliest" | "smallest" | "beginning" => Some(OffsetReset::Earliest),
        "latest" | "largest" | "end" => Some(OffsetReset::Latest),
        "none" | "error" => Some(OffsetReset::None),
        _ => None,
    }
}

/// Parses an ISO 8601 duration, `PnDTnHnMn.nS`: days, hours, minutes and seconds, each once and in
/// this order; the seconds may have a fraction. It must not be negative, and at least one part must
/// be given.
fn iso_duration(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_uppercase();
    let rest = text.strip_prefix('P')?;
    let (days, time) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (rest, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut left = days;
    total = total.checked_add(take_unit(&mut left, 'D', 86_400)?)?;
    if !left.is_empty() {
        return None;
    }
    left = time;
    for (unit, seconds) in [('H', 3_600), ('M', 60), ('S', 1)] {
        total = total.checked_add(take_unit(&mut left, unit, seconds)?)?;
    }
    left.is_empty().then_some(total)
}

/// Removes `<number><unit>` from the front if it is there; only seconds may have a fraction.
fn take_unit(left: &mut &str, unit: char, seconds: u64) -> Option<Duration> {
    let Some((number, rest)) = left.split_once(unit) else { return Some(Duration::ZERO) };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (unit != 'S' && number.contains('.')) || fraction.len() > 9 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    *left = rest;
    let nanos: u32 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    Some(Duration::new(whole.parse::<u64>().ok()?.checked_mul(seconds)?, nanos))
}

#[cfg(test)]
mod tests {
    use crate::consumer::config::properties::*;

    fn set(name: &str, value: &str) -> Option<ConsumerSettings> {
        let mut settings = ConsumerSettings::default();
        let property = PROPERTIES.iter().find(|p| p.name == name || p.aliases.contains(&name)).expect("a property");
        (property.set)(&mut settings, value).map(|()| settings)
    }

    #[test]
    fn parses_valid_values_and_rejects_others() {
        assert_eq!(set("auto.offset.reset", "smallest").unwrap().auto_offset_reset, OffsetReset::Earliest);
        assert_eq!(set("isolation.level", "READ_COMMITTED").unwrap().isolation_level, IsolationLevel::ReadCommitted);
        assert_eq!(set("fetch.wait.max.ms", "7").unwrap().fetch_max_wait, Duration::from_millis(7));
        assert_eq!(set("queued.max.messages.kbytes", "2").unwrap().queued_max_bytes, 2048);
        let java = "org.apache.kafka.clients.consumer.RoundRobinAssignor, range";
        let assignors = set("partition.assignment.strategy", java).unwrap().assignors;
        assert_eq!(assignors.iter().map(|assignor| assignor.name()).collect::<Vec<_>>(), ["roundrobin", "range"]);
        assert_eq!(set("group.protocol", "CONSUMER").unwrap().group_protocol, GroupProtocol::Consumer);
        assert_eq!(set("group.remote.assignor", "range").unwrap().group_remote_assignor.as_deref(), Some("range"));
        assert_eq!(set("group.remote.assignor", " ").unwrap().group_remote_assignor, None);
        assert_eq!((set("group.id", "").unwrap().group_id, set("group.id", " ").unwrap().group_id), (None, None));
        assert_eq!(set("group.instance.id", "").unwrap().group_instance_id, None);
        for (name, value) in [
            ("group.protocol", "streams"),
            ("partition.assignment.strategy", "range,fair"),
            ("partition.assignment.strategy", ""),
            ("auto.offset.reset", "soon"),
            ("fetch.max.bytes", "-1"),
            ("isolation.level", "1"),
        ] {
            assert!(set(name, value).is_none(), "{name}={value}");
        }
    }

    #[test]
    fn rejects_properties_of_other_group_protocol() {
        let set = |pairs: &[(&str, &str)]| {
            let mut settings = ConsumerSettings::default();
            crate::config::apply(&mut settings, &[PROPERTIES], pairs.iter().copied()).unwrap();
            settings.check()
        };
        for name in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
            let value = if name.ends_with("strategy") { "range" } else { "9000" };
            let error = set(&[("group.protocol", "consumer"), (name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        assert!(set(&[("group.remote.assignor", "range")]).is_err());
        assert!(set(&[("group.remote.assignor", "range"), ("group.protocol", "consumer")]).is_ok());
        assert!(set(&[("group.protocol", "classic"), ("session.timeout.ms", "9000")]).is_ok());
    }

    #[test]
    fn durations_follow_iso_8601() {
        let seconds = Duration::from_secs;
        assert_eq!(iso_duration("PT1H"), Some(seconds(3600)));
        assert_eq!(iso_duration("P1DT2H3M4.5S"), Some(seconds(93_784) + Duration::from_millis(500)));
        assert_eq!(iso_duration("p2d"), Some(seconds(172_800)));
        assert_eq!(iso_duration("PT0.000000001S"), Some(Duration::from_nanos(1)));
        for bad in [
            "",
            "P",
            "PT",
            "P1",
            "1D",
            "P1DT",
            "PT1",
            "PT1.5H",
            "P-1D",
            "PT1S1H",
            "PT1.S",
            "PT.5S",
            "PT1HX",
            "P99999999999999999999D",
        ] {
            assert_eq!(iso_duration(bad), None, "{bad}");
        }
        assert_eq!(reset("by_duration:PT1M"), Some(OffsetReset::ByDuration(seconds(60))));
        assert_eq!(reset("by_duration:"), None);
    }
}
