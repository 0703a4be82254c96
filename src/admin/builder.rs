use std::{sync::Arc, time::Duration};

use super::Admin;
use crate::{
    cluster::{Client, ClientSettings, client_properties},
    config::{apply, parse::list},
    error::Result,
    log::Origin,
    net::Network,
    security::Security,
};

/// The settings of an [`Admin`]; defaults are those of Kafka's Java client.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct AdminBuilder {
    settings: ClientSettings,
}

impl AdminBuilder {
    pub(super) fn new(bootstrap: &str) -> Self {
        Self {
            settings: ClientSettings {
                bootstrap_servers: list(bootstrap).map(str::to_owned).collect(),
                connections_max_idle: Duration::from_secs(300),
                allow_auto_create_topics: false,
                ..ClientSettings::default()
            },
        }
    }

    /// Properties by Kafka's names, over what was set so far.
    ///
    /// # Errors
    /// As [`Admin::from_properties`].
    pub fn properties<K: AsRef<str>, V: AsRef<str>>(
        mut self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        apply(&mut self.settings, &[client_properties()], properties)?;
        Ok(self)
    }

    /// `client.id`: what the brokers' logs and quotas call this client. Default: `ottla`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.settings.client_id = id.into();
        self
    }

    /// `request.timeout.ms`: how long one attempt waits for its answer. Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// `default.api.timeout.ms`: how long a call may take with all its attempts. Default: 60 s.
    pub fn default_api_timeout(mut self, timeout: Duration) -> Self {
        self.settings.default_api_timeout = timeout;
        self
    }

    /// How connections are secured: TLS, SASL (`security.protocol` and what belongs to it). Rules the properties out that
    /// say the same. Default: [`Security::plaintext`].
    pub fn security(mut self, security: Security) -> Self {
        self.settings.security.give(security);
        self
    }

    /// How names are resolved and connections made. Default: TCP.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.settings.network = network;
        self
    }

    /// Makes the client. No broker is asked yet, so that this works also while none can be reached.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for settings that are wrong or contradict each other.
    ///
    /// # Cancel safety
    /// Safe: nothing is started before the future is ready.
    pub async fn build(mut self) -> Result<Admin> {
        self.settings.check()?;
        self.settings.origin = Origin::new(&self.settings.client_id, "admin", None);
        Ok(Admin { client: Client::open(self.settings).await? })
    }
}
