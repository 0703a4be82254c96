//! The consumer's settings, with Java's defaults, and checks for settings that contradict each
//! other.

use std::{sync::Arc, time::Duration};

use crate::consumer::group::{
    GroupSettings,
    assignor::{self, Assignor},
};
use crate::{
    cluster::{ClientSettings, show_millis},
    config::{ClientKind, Configure, Limit, parse::FOREVER},
    error::{Error, ErrorKind, Result},
    record::check_topic_name,
};

/// The position at which a partition starts if there is no committed offset, or if its offset is no
/// longer in the log (`auto.offset.reset`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetReset {
    /// The first record that is still in the log.
    Earliest,
    /// The offset after the last record, so that only later records are read. The default.
    #[default]
    Latest,
    /// The position is not reset: reading returns a [`NoOffset`](ErrorKind::NoOffset) error, and
    /// the partition waits for a seek.
    None,
    /// The first record that is not older than this duration, counted back from now (KIP-1106); the
    /// end if there is none.
    ByDuration(Duration),
}

/// Visibility of the records of open and aborted transactions (`isolation.level`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsolationLevel {
    /// All records in the log are delivered, including those of aborted transactions. The default.
    #[default]
    ReadUncommitted,
    /// Only records of committed transactions and records outside of transactions are delivered;
    /// the consumer reads no further than the last stable offset.
    ReadCommitted,
}

/// The protocol by which a group assigns partitions (`group.protocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// One of the members assigns the partitions, by a strategy that all members support; known to
    /// every broker. The default.
    #[default]
    Classic,
    /// The group coordinator assigns the partitions (KIP-848; Kafka 4.0 or newer): members give up
    /// and take over only the partitions that move, and the brokers match regular expressions. A
    /// classic group in which all members use Kafka's own strategies can be migrated while it runs,
    /// member by member, and back.
    Consumer,
}

/// Settings of a consumer.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerSettings {
    pub(crate) client: ClientSettings,
    /// `group.id`.
    pub(crate) group_id: Option<Arc<str>>,
    /// `group.instance.id`.
    pub(crate) group_instance_id: Option<Arc<str>>,
    /// `group.protocol`.
    pub(crate) group_protocol: GroupProtocol,
    /// `group.remote.assignor`: the coordinator's assignor that assigns the partitions; `None` for
    /// its own choice.
    pub(crate) group_remote_assignor: Option<Arc<str>>,
    /// `auto.offset.reset`.
    pub(crate) auto_offset_reset: OffsetReset,
    /// `enable.auto.commit`; has no effect without a group.
    pub(crate) enable_auto_commit: bool,
    /// `auto.commit.interval.ms`.
    pub(crate) auto_commit_interval: Duration,
    /// `fetch.min.bytes`.
    pub(crate) fetch_min_bytes: i32,
    /// `fetch.max.bytes`, of one response.
    pub(crate) fetch_max_bytes: i32,
    /// `fetch.max.wait.ms`.
    pub(crate) fetch_max_wait: Duration,
    /// `max.partition.fetch.bytes`, of one partition in one response. `None` if the user sets none:
    /// then Java's default and, for few partitions on a connection with a long round trip, more.
    pub(crate) max_partition_fetch_bytes: Option<i32>,
    /// `fetch.max.connections`, to each broker.
    pub(crate) fetch_max_connections: u8,
    /// `max.poll.records`.
    pub(crate) max_poll_records: usize,
    /// `max.poll.interval.ms`.
    pub(crate) max_poll_interval: Duration,
    /// `session.timeout.ms`.
    pub(crate) session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub(crate) heartbeat_interval: Duration,
    /// `partition.assignment.strategy`, in the order of preference.
    pub(crate) assignors: Vec<Arc<dyn Assignor>>,
    /// `isolation.level`.
    pub(crate) isolation_level: IsolationLevel,
    /// `enable.partition.eof`.
    pub(crate) enable_partition_eof: bool,
    /// `check.crcs`.
    pub(crate) check_crcs: bool,
    /// `exclude.internal.topics`.
    pub(crate) exclude_internal_topics: bool,
    /// `topic.metadata.propagation.max.ms` (librdkafka).
    pub(crate) topic_propagation_max: Duration,
    /// `queued.max.messages.kbytes`, in bytes: the most that may be fetched ahead of the reader, of
    /// all partitions together.
    pub(crate) queued_max_bytes: usize,
    /// `max.decompressed.batch.bytes`: the size of the largest batch, decompressed, that is
    /// accepted.
    pub(crate) max_decompressed_batch_bytes: usize,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            client: ClientSettings::default(),
            group_id: None,
            group_instance_id: None,
            group_protocol: GroupProtocol::default(),
            group_remote_assignor: None,
            auto_offset_reset: OffsetReset::default(),
            enable_auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            fetch_min_bytes: 1,
            fetch_max_bytes: 52_428_800,
            fetch_max_wait: Duration::from_millis(500),
            max_partition_fetch_bytes: None,
            fetch_max_connections: 4,
            max_poll_records: 500,
            max_poll_interval: Duration::from_secs(300),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            assignors: assignor::defaults(),
            isolation_level: IsolationLevel::default(),
            enable_partition_eof: false,
            check_crcs: true,
            exclude_internal_topics: true,
            topic_propagation_max: Duration::from_secs(30),
            queued_max_bytes: 65_536 * 1024,
            max_decompressed_batch_bytes: 128 * 1024 * 1024,
        }
    }
}

impl AsMut<ClientSettings> for ConsumerSettings {
    fn as_mut(&mut self) -> &mut ClientSettings {
        &mut self.client
    }
}

impl Configure for ConsumerSettings {
    const CLIENT: ClientKind = ClientKind::Consumer;

    fn note(&mut self, property: &'static str) {
        self.client.given.note(property);
    }

    fn client_id(&self) -> &str {
        &self.client.client_id
    }
}

/// Properties that only the classic protocol can use.
const CLASSIC_ONLY: [&str; 3] = ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"];

/// Bytes that a response may have besides its records; librdkafka reserves as many.
const ANSWER_OVERHEAD: usize = 512;

fn contradiction(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

impl ConsumerSettings {
    /// Rejects settings that contradict each other or make reading impossible, and adjusts defaults
    /// to the settings that were given.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.group_id.as_deref() == Some("") {
            return Err(contradiction("group.id is empty: give it a name, or leave it out to read without a group"));
        }
        if self.group_id.as_deref().is_some_and(|id| i16::try_from(id.len()).is_err()) {
            return Err(contradiction("group.id is longer than the protocol allows (32767 bytes)"));
        }
        if let Some(id) = &self.group_instance_id
            && let Err(error) = check_topic_name(id)
        {
            // Kafka applies the rule for topic names to them.
            return Err(contradiction(format!("group.instance.id {id:?} is not allowed: {error}")).with_source(error));
        }
        if self.group_instance_id.is_some() && self.group_id.is_none() {
            return Err(contradiction("group.instance.id is set but group.id is not: a static member needs its group"));
        }
        match self.group_protocol {
            GroupProtocol::Consumer => {
                if let Some(name) = CLASSIC_ONLY.iter().find(|name| self.client.given.has(name)) {
                    return Err(contradiction(format!(
                        "{name} has no meaning with group.protocol=consumer, where the group's coordinator decides: leave it out"
                    )));
                }
            }
            GroupProtocol::Classic if self.group_remote_assignor.is_some() => {
                return Err(contradiction(
                    "group.remote.assignor has no meaning with group.protocol=classic: set group.protocol=consumer, or \
                     leave it out",
                ));
            }
            GroupProtocol::Classic => {}
        }
        self.reconcile()?;
        self.check_assignors()?;
        let not_zero = [
            ("auto.commit.interval.ms", self.auto_commit_interval.is_zero() && self.enable_auto_commit),
            ("heartbeat.interval.ms", self.heartbeat_interval.is_zero()),
            ("max.poll.interval.ms", self.max_poll_interval.is_zero()),
            ("fetch.max.connections", self.fetch_max_connections == 0),
            ("max.poll.records", self.max_poll_records == 0),
            ("max.partition.fetch.bytes", self.max_partition_fetch_bytes.is_some_and(|bytes| bytes <= 0)),
            ("fetch.max.bytes", self.fetch_max_bytes <= 0),
            ("queued.max.messages.kbytes", self.queued_max_bytes == 0),
            ("max.decompressed.batch.bytes", self.max_decompressed_batch_bytes == 0),
        ];
        match not_zero.iter().find(|(_, zero)| *zero) {
            Some((name, _)) => Err(contradiction(format!("{name} must be more than 0"))),
            None if self.fetch_min_bytes < 0 => Err(contradiction("fetch.min.bytes must not be negative")),
            None => Ok(()),
        }
    }

    /// Adjusts defaults to the settings that limit them, and rejects contradictions.
    fn reconcile(&mut self) -> Result<()> {
        // A third by default, so that two heartbeats may be lost.
        self.client.given.reconcile(
            Limit { name: "heartbeat.interval.ms", value: &mut self.heartbeat_interval },
            Limit { name: "session.timeout.ms", value: &mut self.session_timeout },
            |heartbeat, session| heartbeat < session,
            (|session| session / 3, |heartbeat| heartbeat.saturating_mul(3).min(FOREVER)),
            show_millis,
            &self.client.origin,
        )?;
        self.client.given.reconcile(
            Limit { name: "fetch.min.bytes", value: &mut self.fetch_min_bytes },
            Limit { name: "fetch.max.bytes", value: &mut self.fetch_max_bytes },
            |min, max| min <= max,
            (|max| max, |min| min),
            |bytes| bytes,
            &self.client.origin,
        )?;
        let mut fetched = usize::try_from(self.fetch_max_bytes).unwrap_or(0);
        self.client.given.reconcile(
            Limit { name: "fetch.max.bytes", value: &mut fetched },
            Limit { name: "receive.message.max.bytes", value: &mut self.client.receive_message_max_bytes },
            |fetched, received| fetched.saturating_add(ANSWER_OVERHEAD) <= received,
            (|received| received.saturating_sub(ANSWER_OVERHEAD), |fetched| fetched.saturating_add(ANSWER_OVERHEAD)),
            |bytes| bytes,
            &self.client.origin,
        )?;
        self.fetch_max_bytes = i32::try_from(fetched).unwrap_or(i32::MAX).min(self.fetch_max_bytes);
        Ok(())
    }

    fn check_assignors(&self) -> Result<()> {
        let names: Vec<&str> = self.assignors.iter().map(|assignor| assignor.name()).collect();
        if names.is_empty() {
            return Err(contradiction("partition.assignment.strategy must name at least one assignor"));
        }
        for (at, name) in names.iter().enumerate() {
            if name.is_empty() || i16::try_from(name.len()).is_err() {
                let message = format!("partition.assignment.strategy: {name:?} is not a valid name of an assignor");
                return Err(contradiction(message));
            }
            if names.iter().take(at).any(|earlier| earlier == name) {
                return Err(contradiction(format!("partition.assignment.strategy names {name} twice")));
            }
        }
        Ok(())
    }

    /// Returns the settings of the membership, if there is a group.
    pub(crate) fn group(&self) -> Option<GroupSettings> {
        Some(GroupSettings {
            group_id: self.group_id.clone()?,
            group_instance_id: self.group_instance_id.clone(),
            session_timeout: self.session_timeout,
            heartbeat_interval: self.heartbeat_interval,
            max_poll_interval: self.max_poll_interval,
            assignors: self.assignors.clone(),
            client_rack: self.client.client_rack.clone(),
            exclude_internal_topics: self.exclude_internal_topics,
            origin: self.client.origin.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::config::settings::*;

    #[test]
    fn defaults_are_valid_and_conflicts_name_property() {
        assert!(ConsumerSettings::default().check().is_ok());
        type Break = fn(&mut ConsumerSettings);
        let broken: [(&str, Break); 9] = [
            ("partition.assignment.strategy", |s| s.assignors.clear()),
            ("partition.assignment.strategy", |s| s.assignors.extend(assignor::defaults())),
            ("group.instance.id", |s| s.group_instance_id = Some("i".into())),
            ("group.id", |s| s.group_id = Some("".into())),
            ("group.remote.assignor", |s| s.group_remote_assignor = Some("range".into())),
            ("session.timeout.ms", |s| {
                s.group_protocol = GroupProtocol::Consumer;
                s.note("session.timeout.ms");
            }),
            ("max.poll.records", |s| s.max_poll_records = 0),
            ("fetch.max.connections", |s| s.fetch_max_connections = 0),
            ("max.partition.fetch.bytes", |s| s.max_partition_fetch_bytes = Some(0)),
        ];
        for (name, break_it) in broken {
            let mut settings = ConsumerSettings::default();
            break_it(&mut settings);
            let error = settings.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
