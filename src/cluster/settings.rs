use std::{sync::Arc, time::Duration};

use super::address::Address;
use crate::{
    config::{ClientKind, Configure, Given, Limit},
    error::{Error, ErrorKind, Result},
    log::Origin,
    net::{Network, Tcp},
    security::SecurityProperties,
};

/// Settings that every client has. Defaults are Java's.
#[derive(Clone, Debug)]
pub(crate) struct ClientSettings {
    /// `bootstrap.servers`: host:port each.
    pub(crate) bootstrap_servers: Vec<String>,
    /// `client.id`.
    pub(crate) client_id: String,
    /// `client.rack`.
    pub(crate) client_rack: Option<String>,
    /// `bootstrap.resolve.timeout.ms`; `None` for no bound.
    pub(crate) bootstrap_resolve_timeout: Option<Duration>,
    /// `request.timeout.ms`; after [`check`](Self::check), `socket.timeout.ms` if that was set.
    pub(crate) request_timeout: Duration,
    /// `socket.timeout.ms`, until [`check`](Self::check).
    pub(crate) socket_timeout: Option<Duration>,
    /// `request.timeout.ms` if `socket.timeout.ms` was set as well: time for which a broker waits
    /// for acknowledgements, as in librdkafka.
    pub(crate) ack_timeout: Option<Duration>,
    /// `default.api.timeout.ms`: longest time of a call with all its retries, unless the call says
    /// otherwise.
    pub(crate) default_api_timeout: Duration,
    /// `retry.backoff.ms` and `retry.backoff.max.ms`.
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    /// `reconnect.backoff.ms` and `reconnect.backoff.max.ms`.
    pub(crate) reconnect_backoff: Duration,
    pub(crate) reconnect_backoff_max: Duration,
    /// `socket.connection.setup.timeout.ms` and `….max.ms`.
    pub(crate) connection_setup_timeout: Duration,
    pub(crate) connection_setup_timeout_max: Duration,
    /// `connections.max.idle.ms`.
    pub(crate) connections_max_idle: Duration,
    /// `metadata.max.age.ms`.
    pub(crate) metadata_max_age: Duration,
    /// `topic.metadata.refresh.interval.ms`, until [`check`](Self::check): metadata is asked for
    /// again after the shorter of the two.
    pub(crate) metadata_refresh: Option<Duration>,
    /// `metadata.max.idle.ms`: topics that were not used for this time are no longer asked for.
    pub(crate) metadata_max_idle: Duration,
    /// `metadata.recovery.strategy=rebootstrap` and `….rebootstrap.trigger.ms`; `None` for the
    /// strategy `none`.
    pub(crate) metadata_rebootstrap_trigger: Option<Duration>,
    /// `metadata.cluster.check.enable`: tells brokers which cluster and node a connection is meant
    /// for (KIP-1242). Without effect if the recovery strategy is `none`.
    pub(crate) metadata_cluster_check: bool,
    /// `allow.auto.create.topics`: true if asking for a topic may create it (producers: true).
    pub(crate) allow_auto_create_topics: bool,
    /// `receive.message.max.bytes` (librdkafka): the largest response that is accepted.
    pub(crate) receive_message_max_bytes: usize,
    /// Most requests in flight on one connection.
    pub(crate) max_in_flight_per_connection: usize,
    /// `security.protocol`, `ssl.*`, `sasl.*`, or what a builder was given.
    pub(crate) security: SecurityProperties,
    /// Resolves and connects to addresses.
    pub(crate) network: Arc<dyn Network>,
    /// Seeds all jitter; chosen by the system unless a test sets it.
    pub(crate) seed: Option<u64>,
    /// The properties that were set.
    pub(crate) given: Given,
    /// Fields that log lines name the client by; set when the client is built, because `client.id`
    /// may be set until then.
    pub(crate) origin: Origin,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: "ottla".to_owned(),
            client_rack: None,
            bootstrap_resolve_timeout: None,
            request_timeout: Duration::from_secs(30),
            socket_timeout: None,
            ack_timeout: None,
            default_api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            connection_setup_timeout: Duration::from_secs(10),
            connection_setup_timeout_max: Duration::from_secs(30),
            connections_max_idle: Duration::from_secs(540),
            metadata_max_age: Duration::from_secs(300),
            metadata_refresh: None,
            metadata_max_idle: Duration::from_secs(300),
            metadata_rebootstrap_trigger: Some(Duration::from_secs(300)),
            metadata_cluster_check: true,
            allow_auto_create_topics: true,
            receive_message_max_bytes: 100_000_000,
            max_in_flight_per_connection: 100,
            security: SecurityProperties::default(),
            network: Arc::new(Tcp),
            seed: None,
            given: Given::default(),
            origin: Origin::default(),
        }
    }
}

impl ClientSettings {
    /// Checks the settings without the network, and adjusts defaults to the properties that were
    /// set. Errors are of kind `Configuration` and name the property.
    pub(crate) fn check(&mut self) -> Result<()> {
        Address::parse_all(&self.bootstrap_servers)?;
        self.join_synonyms();
        for ((low, value), (high, max)) in [
            (("retry.backoff.ms", &mut self.retry_backoff), ("retry.backoff.max.ms", &mut self.retry_backoff_max)),
            (
                ("reconnect.backoff.ms", &mut self.reconnect_backoff),
                ("reconnect.backoff.max.ms", &mut self.reconnect_backoff_max),
            ),
            (
                ("socket.connection.setup.timeout.ms", &mut self.connection_setup_timeout),
                ("socket.connection.setup.timeout.max.ms", &mut self.connection_setup_timeout_max),
            ),
        ] {
            let (low, high) = (Limit { name: low, value }, Limit { name: high, value: max });
            self.given.reconcile(
                low,
                high,
                |low, high| low <= high,
                (|high| high, |low| low),
                show_millis,
                &self.origin,
            )?;
        }
        for (name, value) in [
            ("request.timeout.ms", self.request_timeout),
            ("default.api.timeout.ms", self.default_api_timeout),
            ("socket.connection.setup.timeout.ms", self.connection_setup_timeout),
        ] {
            if value.is_zero() {
                return Err(configuration(format!("property `{name}` is 0; allowed: milliseconds, 1 or more")));
            }
        }
        if self.max_in_flight_per_connection == 0 {
            return Err(configuration("a connection must be allowed at least one request in flight".to_owned()));
        }
        Ok(())
    }

    /// Merges librdkafka's properties into Java's of nearly equal meaning; may be called
    /// repeatedly.
    pub(crate) fn join_synonyms(&mut self) {
        if let Some(socket) = self.socket_timeout.take() {
            self.ack_timeout = self.given.has("request.timeout.ms").then_some(self.request_timeout);
            self.request_timeout = socket;
            self.given.note("request.timeout.ms");
        }
        if let Some(refresh) = self.metadata_refresh.take() {
            let max_age = Some(self.metadata_max_age).filter(|_| self.given.has("metadata.max.age.ms"));
            self.metadata_max_age = max_age.map_or(refresh, |max_age| max_age.min(refresh));
            self.given.note("metadata.max.age.ms");
        }
    }
}

/// Lets the common properties be set both on settings that contain these and on these alone.
impl AsMut<ClientSettings> for ClientSettings {
    fn as_mut(&mut self) -> &mut ClientSettings {
        self
    }
}

impl Configure for ClientSettings {
    const CLIENT: ClientKind = ClientKind::Admin;

    fn note(&mut self, property: &'static str) {
        self.given.note(property);
    }

    fn client_id(&self) -> &str {
        &self.client_id
    }
}

/// Formats a time for errors.
pub(crate) fn show_millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn configuration(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::{super::client_properties, *};
    use crate::config::apply;

    fn applied(pairs: &[(&str, &str)]) -> Result<ClientSettings> {
        let mut settings = ClientSettings::default();
        apply(&mut settings, &[client_properties()], pairs.iter().copied())?;
        Ok(settings)
    }

    #[test]
    fn every_property_sets_its_field() {
        let mut settings = applied(&[
            ("bootstrap.servers", "a:1, b:2"),
            ("client.id", "me"),
            ("client.rack", "r1"),
            ("client.dns.lookup", "use_all_dns_ips"),
            ("socket.timeout.ms", "1"),
            ("default.api.timeout.ms", "2"),
            ("retry.backoff.ms", "3"),
            ("retry.backoff.max.ms", "4"),
            ("reconnect.backoff.ms", "5"),
            ("reconnect.backoff.max.ms", "6"),
            ("socket.connection.setup.timeout.ms", "7"),
            ("socket.connection.setup.timeout.max.ms", "8"),
            ("connections.max.idle.ms", "9"),
            ("metadata.max.age.ms", "10"),
            ("metadata.max.idle.ms", "11"),
            ("metadata.recovery.rebootstrap.trigger.ms", "12"),
            ("metadata.cluster.check.enable", "false"),
            ("allow.auto.create.topics", "false"),
            ("receive.message.max.bytes", "1013"),
            ("security.protocol", "plaintext"),
            ("enable.metrics.push", "false"),
            ("bootstrap.resolve.timeout.ms", "13"),
        ])
        .unwrap();
        settings.check().unwrap();
        let millis = Duration::from_millis;
        assert_eq!(settings.bootstrap_servers, ["a:1", "b:2"]);
        assert_eq!((settings.client_id.as_str(), settings.client_rack.as_deref()), ("me", Some("r1")));
        assert_eq!(
            [
                settings.request_timeout,
                settings.default_api_timeout,
                settings.retry_backoff,
                settings.retry_backoff_max,
                settings.reconnect_backoff,
                settings.reconnect_backoff_max,
                settings.connection_setup_timeout,
                settings.connection_setup_timeout_max,
                settings.connections_max_idle,
                settings.metadata_max_age,
                settings.metadata_max_idle,
                settings.metadata_rebootstrap_trigger.unwrap(),
                settings.bootstrap_resolve_timeout.unwrap(),
            ],
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13].map(millis)
        );
        assert!(!settings.allow_auto_create_topics && !settings.metadata_cluster_check);
        assert_eq!(settings.receive_message_max_bytes, 1013);
        let unbounded = applied(&[("bootstrap.resolve.timeout.ms", "0")]).unwrap();
        assert_eq!(unbounded.bootstrap_resolve_timeout, None);
    }

    #[test]
    fn combines_librdkafka_synonyms_of_java_properties() {
        let checked = |pairs: &[(&str, &str)]| {
            let mut settings = applied(pairs).unwrap();
            settings.bootstrap_servers.push("a:1".to_owned());
            settings.check().unwrap();
            settings.check().unwrap();
            settings
        };
        let millis = Duration::from_millis;
        let timeouts = |settings: ClientSettings| (settings.request_timeout, settings.ack_timeout);
        let (request, socket) = (("request.timeout.ms", "3"), ("socket.timeout.ms", "6"));
        assert_eq!(timeouts(checked(&[request])), (millis(3), None));
        assert_eq!(timeouts(checked(&[socket])), (millis(6), None));
        assert_eq!(timeouts(checked(&[request, socket])), (millis(6), Some(millis(3))));
        assert_eq!(timeouts(checked(&[socket, request])), (millis(6), Some(millis(3))));
        let (age, refresh) = (("metadata.max.age.ms", "900000"), ("topic.metadata.refresh.interval.ms", "300001"));
        assert_eq!(checked(&[age]).metadata_max_age, millis(900_000));
        assert_eq!(checked(&[refresh]).metadata_max_age, millis(300_001));
        assert_eq!(checked(&[refresh, age]).metadata_max_age, millis(300_001));
        let never = ("topic.metadata.refresh.interval.ms", "-1");
        assert_eq!(checked(&[never, age]).metadata_max_age, millis(900_000));
    }

    #[test]
    fn recovery_settings_are_independent_of_order() {
        const STRATEGY: &str = "metadata.recovery.strategy";
        const TRIGGER: &str = "metadata.recovery.rebootstrap.trigger.ms";
        let trigger = |pairs: &[(&str, &str)]| applied(pairs).unwrap().metadata_rebootstrap_trigger;
        assert_eq!(trigger(&[(STRATEGY, "none"), (TRIGGER, "5")]), None);
        assert_eq!(trigger(&[(TRIGGER, "5"), (STRATEGY, "none")]), None);
        assert_eq!(trigger(&[(STRATEGY, "rebootstrap"), (TRIGGER, "5")]), Some(Duration::from_millis(5)));
        assert_eq!(trigger(&[(TRIGGER, "5"), (STRATEGY, "rebootstrap")]), Some(Duration::from_millis(5)));
        assert_eq!(trigger(&[(STRATEGY, "rebootstrap")]), Some(Duration::from_secs(300)));
    }

    #[test]
    fn error_names_unsupported_or_invalid_value() {
        for (pair, part) in [
            (("client.dns.lookup", "resolve_canonical_bootstrap_servers_only"), "use_all_dns_ips"),
            (("sasl.kerberos.service.name", "kafka"), "known to Kafka but not supported here"),
            (("bootstrap.servers", " , "), "host:port"),
            (("request.timeout.ms", "0"), "1 or more"),
        ] {
            let error = applied(&[pair]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn rejects_contradictory_or_missing_settings() {
        let servers = ("bootstrap.servers", "a:1");
        let backoffs = [servers, ("retry.backoff.ms", "2000"), ("retry.backoff.max.ms", "1000")];
        let error = applied(&backoffs).unwrap().check().unwrap_err();
        assert!(
            error.to_string().contains("`retry.backoff.ms` (2000 ms) does not fit `retry.backoff.max.ms` (1000 ms)"),
            "{error}"
        );
        let error = ClientSettings::default().check().unwrap_err();
        assert!(error.to_string().contains("bootstrap.servers is empty"), "{error}");
        let error = applied(&[("bootstrap.servers", "a:1,b")]).unwrap().check().unwrap_err();
        assert!(error.to_string().contains("\"b\" has no port"), "{error}");
    }
}
