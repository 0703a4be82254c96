//! Where tokens come from, and how long they are kept.

mod cache;
mod claims;
mod file;
#[cfg(feature = "tls")]
mod jwt;
mod oidc;
mod refresh;
mod unsecured;

use std::{fmt, time::SystemTime};

pub(crate) use cache::TokenCache;
pub use file::TokenFile;
#[cfg(feature = "tls")]
pub use jwt::{JwtAlgorithm, JwtBearer};
pub use oidc::Oidc;
pub(crate) use refresh::RefreshSettings;
pub use unsecured::UnsecuredToken;

use super::Secret;
use crate::{error::Result, net::BoxFuture};

/// A bearer token, with when it expires.
#[derive(Clone, Debug)]
pub struct Token {
    value: Secret,
    expires: SystemTime,
}

impl Token {
    /// A token that expires then.
    pub fn new(value: impl Into<Secret>, expires: SystemTime) -> Self {
        Self { value: value.into(), expires }
    }

    /// The token itself.
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// When it expires.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }
}

/// Gets tokens: of an identity provider, out of a file, from whoever issues them.
///
/// What it gives is kept until shortly before it expires (`sasl.login.refresh.*`), for all
/// connections of a client, and asked for anew in time; a token that is still good goes on being
/// used while a new one cannot be had.
///
/// The error of a source decides what the client does: after a temporary one it asks again with a
/// growing backoff (`sasl.login.retry.backoff.ms`), while a permanent one ends what waits for a
/// connection.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use ottla::{
///     Error,
///     net::BoxFuture,
///     security::{Sasl, Security, Token, TokenSource},
/// };
///
/// #[derive(Debug)]
/// struct Vault;
///
/// impl Vault {
///     /// Status and body of its answer.
///     async fn ask(&self) -> std::io::Result<(u16, String)> {
///         # Ok((200, "token".to_owned()))
///     }
/// }
///
/// impl TokenSource for Vault {
///     fn token(&self) -> BoxFuture<'_, ottla::Result<Token>> {
///         Box::pin(async move {
///             let answer = self.ask().await;
///             match answer.map_err(|error| Error::network("the vault cannot be reached").with_source(error))? {
///                 (200, token) => Ok(Token::new(token, SystemTime::now() + Duration::from_secs(600))),
///                 // Trying again does not cure it.
///                 (401 | 403, _) => Err(Error::authentication("the vault refuses this service: renew its role")),
///                 // The vault may recover.
///                 (status, _) => Err(Error::network(format!("the vault answered with status {status}"))),
///             }
///         })
///     }
/// }
///
/// let security = Security::sasl_plaintext(Sasl::oauth_bearer(Vault));
/// # let _ = security;
/// ```
pub trait TokenSource: fmt::Debug + Send + Sync + 'static {
    /// A new token. Called once at a time, in a task of its own.
    ///
    /// # Errors
    /// [`Error::authentication`](crate::Error::authentication) where trying again cannot help,
    /// [`Error::network`](crate::Error::network) or [`Error::timeout`](crate::Error::timeout) where
    /// it may.
    fn token(&self) -> BoxFuture<'_, Result<Token>>;
}
