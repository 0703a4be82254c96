use std::{sync::Arc, time::Duration};

use super::address::Address;
use crate::{
    error::{Error, ErrorKind, Result},
    log::Origin,
    net::{Network, Tcp},
    security::SecurityProperties,
};

/// What every client has to know, whatever it is for. Defaults are Java's.
#[derive(Clone, Debug)]
pub(crate) struct ClientSettings {
    /// `bootstrap.servers`: host:port each.
    pub(crate) bootstrap_servers: Vec<String>,
    /// `client.id`.
    pub(crate) client_id: String,
    /// `client.rack`.
    pub(crate) client_rack: Option<String>,
    /// `request.timeout.ms`.
    pub(crate) request_timeout: Duration,
    /// `default.api.timeout.ms`: how long a call may take with all its retries where nothing else is said.
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
    /// `metadata.max.idle.ms`: topics that nobody used for so long are no longer asked for.
    pub(crate) metadata_max_idle: Duration,
    /// `metadata.recovery.strategy=rebootstrap` and `….rebootstrap.trigger.ms`; `None` for the strategy `none`.
    pub(crate) metadata_rebootstrap_trigger: Option<Duration>,
    /// `allow.auto.create.topics`: whether asking for a topic may create it (producers: yes).
    pub(crate) allow_auto_create_topics: bool,
    /// `receive.message.max.bytes` (librdkafka): the largest response that is accepted.
    pub(crate) receive_message_max_bytes: usize,
    /// Requests that may be on their way on one connection.
    pub(crate) max_in_flight_per_connection: usize,
    /// `security.protocol`, `ssl.*`, `sasl.*`, or what a builder was given.
    pub(crate) security: SecurityProperties,
    /// How addresses are found and connected to.
    pub(crate) network: Arc<dyn Network>,
    /// Seeds all jitter; from the system where a test does not set it.
    pub(crate) seed: Option<u64>,
    /// What log lines say of the client; set when it is built, because `client.id` may be set until then.
    pub(crate) origin: Origin,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: "ottla".to_owned(),
            client_rack: None,
            request_timeout: Duration::from_secs(30),
            default_api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            connection_setup_timeout: Duration::from_secs(10),
            connection_setup_timeout_max: Duration::from_secs(30),
            connections_max_idle: Duration::from_secs(540),
            metadata_max_age: Duration::from_secs(300),
            metadata_max_idle: Duration::from_secs(300),
            metadata_rebootstrap_trigger: Some(Duration::from_secs(300)),
            allow_auto_create_topics: true,
            receive_message_max_bytes: 100_000_000,
            max_in_flight_per_connection: 100,
            security: SecurityProperties::default(),
            network: Arc::new(Tcp),
            seed: None,
            origin: Origin::default(),
        }
    }
}

impl ClientSettings {
    /// Checks what can be checked without the network; errors are of kind `Configuration` and name the property.
    pub(crate) fn check(&self) -> Result<()> {
        Address::parse_all(&self.bootstrap_servers)?;
        for (name, value, max) in [
            ("retry.backoff", self.retry_backoff, self.retry_backoff_max),
            ("reconnect.backoff", self.reconnect_backoff, self.reconnect_backoff_max),
            ("socket.connection.setup.timeout", self.connection_setup_timeout, self.connection_setup_timeout_max),
        ] {
            if value > max {
                return Err(configuration(format!(
                    "property `{name}.ms` ({} ms) is larger than `{name}.max.ms` ({} ms); raise the latter",
                    value.as_millis(),
                    max.as_millis()
                )));
            }
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
}

/// So that the common properties can be set on what holds these settings and on these settings alone.
impl AsMut<ClientSettings> for ClientSettings {
    fn as_mut(&mut self) -> &mut ClientSettings {
        self
    }
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
        let settings = applied(&[
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
            ("allow.auto.create.topics", "false"),
            ("receive.message.max.bytes", "1013"),
            ("security.protocol", "plaintext"),
            ("enable.metrics.push", "false"),
        ])
        .unwrap();
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
            ],
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map(millis)
        );
        assert!(!settings.allow_auto_create_topics);
        assert_eq!(settings.receive_message_max_bytes, 1013);
        assert!(settings.check().is_ok());
    }

    #[test]
    fn recovery_does_not_depend_on_the_order() {
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
    fn what_is_not_there_yet_is_said() {
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
    fn contradictions_are_named() {
        let servers = ("bootstrap.servers", "a:1");
        let error = applied(&[servers, ("retry.backoff.ms", "2000")]).unwrap().check().unwrap_err();
        assert!(
            error.to_string().contains("`retry.backoff.ms` (2000 ms) is larger than `retry.backoff.max.ms`"),
            "{error}"
        );
        let error = ClientSettings::default().check().unwrap_err();
        assert!(error.to_string().contains("bootstrap.servers is empty"), "{error}");
        let error = applied(&[("bootstrap.servers", "a:1,b")]).unwrap().check().unwrap_err();
        assert!(error.to_string().contains("\"b\" has no port"), "{error}");
    }
}
