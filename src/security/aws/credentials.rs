//! AWS credentials, kept until shortly before they expire.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::Mutex;

use super::sources::Sources;
use crate::{
    error::Result,
    log::{Limiter, Origin, event},
    security::{Hidden, Secret},
};

/// Credentials are renewed this long before they expire.
const MARGIN: Duration = Duration::from_secs(300);

/// An access key of AWS, with the session token if it is a temporary one.
#[derive(Clone, Debug)]
pub struct AwsCredentials {
    access_key_id: Hidden<String>,
    secret_access_key: Secret,
    session_token: Option<Secret>,
    expires: Option<SystemTime>,
}

impl AwsCredentials {
    /// Creates credentials of a long-lived access key.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<Secret>) -> Self {
        Self {
            access_key_id: Hidden(access_key_id.into()),
            secret_access_key: secret_access_key.into(),
            session_token: None,
            expires: None,
        }
    }

    /// Adds the session token of a temporary access key.
    pub fn with_session_token(mut self, token: impl Into<Secret>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    pub(super) fn expiring(mut self, expires: Option<SystemTime>) -> Self {
        self.expires = expires;
        self
    }

    pub(super) fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub(super) fn secret_access_key(&self) -> &Secret {
        &self.secret_access_key
    }

    pub(super) fn session_token(&self) -> Option<&Secret> {
        self.session_token.as_ref()
    }

    fn is_good_at(&self, time: SystemTime) -> bool {
        self.expires.is_none_or(|expires| time < expires)
    }
}

/// The source of credentials.
#[derive(Clone, Debug)]
pub(crate) enum AwsSource {
    Given(AwsCredentials),
    /// The places in which AWS's own tools look.
    Found(Arc<Sources>),
}

impl AwsSource {
    pub(crate) fn found(sources: Sources) -> Self {
        Self::Found(Arc::new(sources))
    }
}

/// Keeps the credentials for all connections of a client.
#[derive(Debug)]
pub(crate) struct CredentialCache {
    source: AwsSource,
    kept: Mutex<Option<AwsCredentials>>,
    refused: std::sync::Mutex<Limiter<()>>,
}

impl CredentialCache {
    pub(crate) fn new(source: AwsSource) -> Self {
        Self { source, kept: Mutex::new(None), refused: std::sync::Mutex::default() }
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Limiter<()>> {
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns credentials that are valid now. Credentials without an expiry are read again on each
    /// call.
    ///
    /// # Cancel safety
    /// Safe: a cancelled caller ends its request to the sources, and the next caller starts a new
    /// one.
    pub(crate) async fn credentials(&self) -> Result<AwsCredentials> {
        let sources = match &self.source {
            AwsSource::Given(credentials) => return Ok(credentials.clone()),
            AwsSource::Found(sources) => sources,
        };
        let mut kept = self.kept.lock().await;
        let now = SystemTime::now();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.expires.is_some() && kept.is_good_at(now + MARGIN)) {
            return Ok(kept.clone());
        }
        match (sources.credentials().await, kept.as_ref()) {
            (Ok(new), _) => Ok(kept.insert(new).clone()),
            (Err(error), Some(before)) if before.expires.is_some() && before.is_good_at(now) => {
                let before = before.clone();
                if let Some(suppressed) = self.refused().admit((), std::time::Instant::now()) {
                    event!(
                        WARN, Origin::current(), %error, suppressed,
                        "the AWS credentials could not be renewed; the client uses the old ones until they expire, and asks the sources again"
                    );
                }
                Ok(before)
            }
            (Err(error), _) => Err(error),
        }
    }
}
