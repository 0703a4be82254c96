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

/// Builds an [`Admin`]. The defaults are those of Kafka's Java client.
///
/// [`build`](Self::build) checks every property of [`property`](Self::property) after the methods'
/// settings; a property overrides a method.
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

    /// Sets `client.id`, the name of this client in the brokers' logs and quotas. Default: `ottla`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.settings.client_id = id.into();
        self
    }

    /// Sets `request.timeout.ms`, the time for which one attempt waits for its response. Default:
    /// 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// Sets `default.api.timeout.ms`, the maximum duration of a call with all its attempts.
    /// Default: 60 s.
    pub fn default_api_timeout(mut self, timeout: Duration) -> Self {
        self.settings.default_api_timeout = timeout;
        self
    }

    /// Sets how connections are secured: TLS, SASL (`security.protocol` and its related
    /// properties). If it is set, [`build`](Self::build) refuses those properties. Default:
    /// [`Security::plaintext`].
    pub fn security(mut self, security: Security) -> Self {
        self.settings.security.give(security);
        self
    }

    /// Sets the network, which resolves names and opens connections. Default: TCP.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.settings.network = network;
        self
    }

    /// Sets any property by its Java or librdkafka name.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push(name, value);
        self
    }

    /// Sets several properties by name.
    pub fn properties<K: AsRef<str>, V: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        for (name, value) in pairs {
            self.properties.push(name.as_ref(), value.as_ref());
        }
        self
    }

    /// Makes the client. It contacts no broker yet, so that it succeeds while no broker can be
    /// reached.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a setting that is not
    /// allowed, or that contradicts another (the error for an unknown property names the nearest
    /// known one), and if there is no tokio runtime with timers and all that the network needs
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
