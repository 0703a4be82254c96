//! The settings of a producer, their defaults (Java's), and the rules for their combinations.

use std::{sync::Arc, time::Duration};

use super::{ProducerInterceptor, callback::DeliveryCallback, partitioner::Partitioning};
use crate::producer::buffer_pool::BufferPool;
use crate::{
    cluster::ClientSettings,
    config::{ClientKind, Configure, parse::FOREVER},
    error::{Error, ErrorKind, Result},
    log::event,
    wire::{Compression, codec::CompressionSettings},
};

/// The acknowledgement that a record waits for (`acks`).
///
/// The list is complete: Kafka knows these three values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Acks {
    /// Waits for no acknowledgement (`acks=0`): a record counts as delivered when it was written to
    /// the connection, and its offset is not known.
    None,
    /// Waits for the leader (`acks=1`): the record is lost if the leader fails before its followers
    /// have it.
    Leader,
    /// Waits for all in-sync replicas (`acks=all`). The default.
    #[default]
    All,
}

impl Acks {
    pub(crate) fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// Settings of a producer, as they were given.
#[derive(Clone, Debug)]
pub(crate) struct ProducerSettings {
    pub(crate) client: ClientSettings,
    /// `acks`.
    pub(crate) acks: Acks,
    /// `batch.size`.
    pub(crate) batch_size: usize,
    /// `linger.ms`.
    pub(crate) linger: Duration,
    /// `buffer.memory`.
    pub(crate) buffer_memory: usize,
    /// `max.block.ms`.
    pub(crate) max_block: Duration,
    /// `delivery.timeout.ms`; `None` if it was not set.
    pub(crate) delivery_timeout: Option<Duration>,
    /// `max.request.size`.
    pub(crate) max_request_size: usize,
    /// `max.in.flight.requests.per.connection`.
    pub(crate) max_in_flight: usize,
    /// `enable.idempotence`; `None` if it was not set.
    pub(crate) idempotence: Option<bool>,
    /// `retries`.
    pub(crate) retries: u32,
    /// `transactional.id`; `None` for a producer without transactions.
    pub(crate) transactional_id: Option<Arc<str>>,
    /// `transaction.timeout.ms`.
    pub(crate) transaction_timeout: Duration,
    /// `compression.type` and its levels.
    pub(crate) compression: CompressionSettings,
    /// `partitioner` and the properties that begin with it.
    pub(crate) partitioning: Partitioning,
    /// Interceptors in the order in which they are called.
    pub(crate) interceptors: Vec<Arc<dyn ProducerInterceptor>>,
    /// Callback for every result.
    pub(crate) on_delivery: Option<DeliveryCallback>,
}

/// Settings that are derived from others, as in Java.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) idempotent: bool,
    pub(crate) delivery_timeout: Duration,
    /// Time for which the answer to a produce request is waited for.
    pub(crate) request_timeout: Duration,
    /// Time for which a broker waits for acknowledgements.
    pub(crate) ack_timeout: Duration,
    pub(crate) compression: Compression,
}

const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// The lowest value to which `request.timeout.ms` is lowered.
const SHORTEST_REQUEST: Duration = Duration::from_millis(1);
/// Batches that a broker remembers for each producer and partition, to recognize duplicates.
const MAX_IDEMPOTENT_IN_FLIGHT: usize = 5;

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            client: ClientSettings::default(),
            acks: Acks::All,
            batch_size: 256 * 1024,
            linger: Duration::from_millis(5),
            buffer_memory: 33_554_432,
            max_block: Duration::from_secs(60),
            delivery_timeout: None,
            max_request_size: 1_048_576,
            max_in_flight: 5,
            idempotence: None,
            retries: i32::MAX as u32,
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
            compression: CompressionSettings::default(),
            partitioning: Partitioning::default(),
            interceptors: Vec::new(),
            on_delivery: None,
        }
    }
}

impl AsMut<ClientSettings> for ProducerSettings {
    fn as_mut(&mut self) -> &mut ClientSettings {
        &mut self.client
    }
}

impl Configure for ProducerSettings {
    const CLIENT: ClientKind = ClientKind::Producer;

    fn note(&mut self, property: &'static str) {
        self.client.given.note(property);
    }

    fn client_id(&self) -> &str {
        &self.client.client_id
    }
}

fn contradiction(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

impl ProducerSettings {
    /// Refuses settings that contradict each other or allow nothing, and derives the rest.
    pub(crate) fn check(&mut self) -> Result<Derived> {
        self.client.join_synonyms();
        let client = &mut self.client;
        let own = [&mut self.linger, &mut self.max_block, &mut self.partitioning.availability_timeout]
            .into_iter()
            .chain(&mut self.delivery_timeout);
        let common = [&mut client.request_timeout, &mut client.retry_backoff, &mut client.retry_backoff_max];
        // Bounded so that adding one to a time can never overflow.
        for duration in own.chain(common).chain([&mut client.metadata_max_idle, &mut self.transaction_timeout]) {
            *duration = (*duration).min(FOREVER);
        }
        let not_zero = [
            ("buffer.memory", self.buffer_memory),
            ("max.request.size", self.max_request_size),
            ("max.in.flight.requests.per.connection", self.max_in_flight),
        ];
        if let Some((name, _)) = not_zero.iter().find(|(_, value)| *value == 0) {
            return Err(contradiction(format!("{name} must be more than 0")));
        }
        if self.buffer_memory > BufferPool::MAX {
            return Err(contradiction(format!("buffer.memory must not be more than {} bytes here", BufferPool::MAX)));
        }
        if self.max_request_size > i32::MAX as usize || self.batch_size > i32::MAX as usize {
            return Err(contradiction("max.request.size and batch.size must not be more than 2147483647 bytes"));
        }
        self.partitioning.check(self.client.client_rack.as_deref())?;
        let (delivery_timeout, request_timeout) = self.timeouts()?;
        if self.transactional_id.is_some() {
            self.check_transactions(delivery_timeout)?;
        }
        Ok(Derived {
            idempotent: self.idempotent()?,
            delivery_timeout,
            request_timeout,
            ack_timeout: self.client.ack_timeout.unwrap_or(request_timeout),
            compression: self.compression.resolve()?,
        })
    }

    /// Returns the value of another setting that idempotence needs and that is not set so.
    fn against_idempotence(&self) -> Option<&'static str> {
        if self.acks != Acks::All {
            Some("acks=all")
        } else if self.retries == 0 {
            Some("retries of 1 or more")
        } else if self.max_in_flight > MAX_IDEMPOTENT_IN_FLIGHT {
            Some("max.in.flight.requests.per.connection of 5 or less")
        } else {
            None
        }
    }

    /// Refuses settings that transactions rule out. None of these values is a default, so each was
    /// set.
    fn check_transactions(&self, delivery_timeout: Duration) -> Result<()> {
        let against =
            if self.idempotence == Some(false) { Some("enable.idempotence=true") } else { self.against_idempotence() };
        if let Some(needed) = against {
            return Err(contradiction(format!("transactional.id needs {needed}")));
        }
        let id = self.transactional_id.as_deref().unwrap_or_default();
        if i16::try_from(id.len()).is_err() {
            return Err(contradiction("transactional.id is longer than the protocol allows (32767 bytes)"));
        }
        let timeout = self.transaction_timeout.as_millis();
        if timeout == 0 || i32::try_from(timeout).is_err() {
            return Err(contradiction(format!(
                "transaction.timeout.ms ({timeout}) must be at least 1 and at most 2147483647"
            )));
        }
        if delivery_timeout > self.transaction_timeout {
            event!(
                INFO,
                self.client.origin,
                "delivery.timeout.ms is {} ms and transaction.timeout.ms {timeout} ms: the coordinator may abort a \
                 transaction while its records are still being retried",
                delivery_timeout.as_millis()
            );
        }
        Ok(())
    }

    /// Returns true if the producer is idempotent: unless idempotence was switched off, or other
    /// settings rule it out and it was not requested explicitly.
    fn idempotent(&self) -> Result<bool> {
        match (self.idempotence, self.against_idempotence()) {
            (Some(false), _) => Ok(false),
            (_, None) => Ok(true),
            (None, Some(needed)) => {
                event!(INFO, self.client.origin, "idempotence is off because it needs {needed}");
                Ok(false)
            }
            (Some(true), Some(needed)) => Err(contradiction(format!("enable.idempotence=true needs {needed}"))),
        }
    }

    /// Returns `delivery.timeout.ms`, and the time for which the answer to a produce request is
    /// waited for. A batch has to be able to linger and to be answered once within
    /// `delivery.timeout.ms`. The values that were not set are adapted: `delivery.timeout.ms` is
    /// raised; if it was set, `linger.ms` and `request.timeout.ms` are lowered, the latter for
    /// produce requests only.
    fn timeouts(&mut self) -> Result<(Duration, Duration)> {
        let request = self.client.request_timeout;
        let least = (self.linger + request).min(FOREVER);
        let given = match self.delivery_timeout {
            Some(given) if given < least => given,
            given => return Ok((given.unwrap_or(DELIVERY_TIMEOUT.max(least)), request)),
        };
        let request_given = self.client.given.has("request.timeout.ms");
        let linger = if self.client.given.has("linger.ms") {
            self.linger
        } else {
            let for_request = if request_given { request } else { SHORTEST_REQUEST };
            self.linger.min(given.saturating_sub(for_request) / 2)
        };
        let for_request = if request_given { request } else { given.saturating_sub(linger).min(request) };
        if for_request < SHORTEST_REQUEST.min(request) || linger + for_request > given {
            return Err(contradiction(format!(
                "delivery.timeout.ms ({}) must be at least linger.ms + request.timeout.ms ({} + {}): raise it, or lower \
                 one of these",
                given.as_millis(),
                self.linger.as_millis(),
                request.as_millis()
            )));
        }
        event!(
            INFO,
            self.client.origin,
            "because delivery.timeout.ms is {} ms, batches linger for at most {} ms and a produce request times out \
             after {} ms",
            given.as_millis(),
            linger.as_millis(),
            for_request.as_millis()
        );
        self.linger = linger;
        Ok((given, for_request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ProducerSettings)) -> Result<Derived> {
        let mut settings = ProducerSettings::default();
        change(&mut settings);
        settings.check()
    }

    #[test]
    fn defaults_match_java_client() {
        let derived = check(|_| {}).unwrap();
        assert!(derived.idempotent);
        assert_eq!(derived.delivery_timeout, Duration::from_secs(120));
        assert_eq!(derived.compression, Compression::None);
    }

    #[test]
    fn conflicting_setting_disables_idempotence_unless_explicit() {
        let ways: [fn(&mut ProducerSettings); 3] =
            [|s| s.acks = Acks::Leader, |s| s.retries = 0, |s| s.max_in_flight = 6];
        for way in ways {
            assert!(!check(way).unwrap().idempotent);
            let error = check(|s| {
                way(s);
                s.idempotence = Some(true);
            })
            .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().starts_with("enable.idempotence=true needs "), "{error}");
        }
        assert!(!check(|s| s.idempotence = Some(false)).unwrap().idempotent);
    }

    #[test]
    fn transactions_refuse_settings_against_idempotence() {
        type Way = (fn(&mut ProducerSettings), &'static str);
        let ways: [Way; 7] = [
            (|s| s.acks = Acks::Leader, "transactional.id needs acks=all"),
            (|s| s.retries = 0, "transactional.id needs retries of 1 or more"),
            (|s| s.max_in_flight = 6, "transactional.id needs max.in.flight.requests.per.connection of 5 or less"),
            (|s| s.idempotence = Some(false), "transactional.id needs enable.idempotence=true"),
            (|s| s.transaction_timeout = Duration::from_micros(999), "transaction.timeout.ms (0) must be"),
            (|s| s.transaction_timeout = Duration::from_millis(1 << 31), "transaction.timeout.ms (2147483648) must be"),
            (|s| s.transactional_id = Some("i".repeat(1 << 15).into()), "transactional.id is longer"),
        ];
        let transactional = |s: &mut ProducerSettings| s.transactional_id = Some("t".into());
        assert!(check(transactional).unwrap().idempotent);
        for (way, message) in ways {
            let error = check(|s| {
                transactional(s);
                way(s);
            })
            .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }

    #[test]
    fn delivery_timeout_covers_linger_and_request_timeout() {
        let both = |name| {
            check(move |s| {
                s.delivery_timeout = Some(Duration::from_secs(5));
                s.linger = Duration::from_secs(5);
                s.client.given.note(name);
            })
        };
        let error = both("linger.ms").unwrap_err();
        assert!(error.to_string().contains("delivery.timeout.ms (5000)"), "{error}");
        assert!(both("request.timeout.ms").is_err());
        let lowered = both("acks").unwrap();
        assert_eq!(lowered.delivery_timeout, Duration::from_secs(5));
        assert!(lowered.request_timeout > Duration::from_secs(2));
        let short = check(|s| s.delivery_timeout = Some(Duration::from_millis(1))).unwrap();
        assert_eq!(short.request_timeout, Duration::from_millis(1));
        assert!(check(|s| s.delivery_timeout = Some(Duration::ZERO)).is_err());
        let adjusted = check(|s| s.client.request_timeout = Duration::from_secs(200)).unwrap();
        assert_eq!(adjusted.delivery_timeout, Duration::from_millis(200_005));
        assert!(check(|s| s.delivery_timeout = Some(Duration::from_millis(30_005))).is_ok());
        assert!(check(|s| s.linger = Duration::MAX).is_ok(), "no sum may overflow");
    }

    #[test]
    fn rejects_zero_and_excessive_limits() {
        let ways: [fn(&mut ProducerSettings); 4] = [
            |s| s.buffer_memory = 0,
            |s| s.max_request_size = 0,
            |s| s.max_in_flight = 0,
            |s| s.buffer_memory = usize::MAX,
        ];
        for way in ways {
            assert_eq!(check(way).unwrap_err().kind(), ErrorKind::Configuration);
        }
    }
}
