use std::{sync::Arc, time::Duration};

use super::Admin;
use crate::{
    cluster::{Client, ClientSettings, client_properties},
    config::{Pairs, apply, parse::list},
    error::Result,
    log::Origin,
    net::Network,
    security::Security,
};

/// Settings for an [`Admin`]. Defaults are those of Kafka's Java client.
///
/// Every property of [`property`](Self::property) is checked by [`build`](Self::build), after the
/// methods' settings and over them.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct AdminBuilder {
    settings: ClientSettings,
    properties: Pairs,
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
            properties: Pairs::default(),
        }
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

    /// How connections are secured: TLS, SASL (`security.protocol` and what belongs to it). Rules
    /// the properties out that say the same. Default: [`Security::plaintext`].
    pub fn security(mut self, security: Security) -> Self {
        self.settings.security.give(security);
        self
    }

    /// How names are resolved and connections made. Default: TCP.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.settings.network = network;
        self
    }

    /// Any property by its Java or librdkafka name.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push(name, value);
        self
    }

    /// Several properties by name.
    pub fn properties<K: AsRef<str>, V: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        for (name, value) in pairs {
            self.properties.push(name.as_ref(), value.as_ref());
        }
        self
    }

    /// Makes the client. No broker is asked yet, so that this works also while none can be reached.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a setting that cannot be
    /// used, or that contradicts another (an unknown property is named together with the nearest
    /// known one), and without a tokio runtime that has timers and what the network needs
    /// (`enable_all()`).
    ///
    /// # Cancel safety
    /// Safe: nothing is started before the future is ready.
    pub async fn build(mut self) -> Result<Admin> {
        apply(&mut self.settings, &[client_properties()], self.properties.iter())?;
        self.settings.origin = Origin::new(&self.settings.client_id, "admin", None);
        self.settings.check()?;
        Ok(Admin { client: Client::open(self.settings).await? })
    }
}
