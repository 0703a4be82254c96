use std::{sync::Arc, time::Duration};

use crate::net::{Network, Tcp};

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
    /// How addresses are found and connected to.
    pub(crate) network: Arc<dyn Network>,
    /// Seeds all jitter; from the system where a test does not set it.
    pub(crate) seed: Option<u64>,
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
            network: Arc::new(Tcp),
            seed: None,
        }
    }
}
