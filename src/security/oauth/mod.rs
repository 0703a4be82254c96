//! OAuth: sources of bearer tokens, and the cache that keeps a token.

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

/// A bearer token with its expiry.
#[derive(Clone, Debug)]
pub struct Token {
    value: Secret,
    expires: SystemTime,
}

impl Token {
    /// Creates a token that expires at that time.
    pub fn new(value: impl Into<Secret>, expires: SystemTime) -> Self {
        Self { value: value.into(), expires }
    }

    /// Returns the token's text.
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// Returns the time at which the token expires.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }
}

/// Gets tokens from an issuer, such as an identity provider, or from a file.
///
/// The client keeps a token for all its connections, and asks for a new one shortly before it
/// expires (`sasl.login.refresh.*`). While no new token is available, the client goes on using the
/// old one until it expires.
///
/// The error of a source decides what the client does: after a temporary error it asks again with a
/// growing backoff (`sasl.login.retry.backoff.ms`), while a permanent error fails the calls that
/// wait for a connection.
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
///     /// Returns status and body of the vault's response.
///     async fn ask(&self) -> std::io::Result<(u16, String)> {
///         # Ok((200, "token".to_owned()))
///     }
/// }
///
/// impl TokenSource for Vault {
///     fn token(&self) -> BoxFuture<'_, ottla::Result<Token>> {
///         Box::pin(async move {
///             let answer = self.ask().await;
///             match answer.map_err(|error| {
///                 Error::network("the vault cannot be reached").with_source(error)
///             })? {
///                 (200, token) => {
///                     Ok(Token::new(token, SystemTime::now() + Duration::from_secs(600)))
///                 }
///                 // Trying again does not help.
///                 (401 | 403, _) => Err(Error::authentication(
///                     "the vault refuses this service: renew its role",
///                 )),
///                 // The vault may recover.
///                 (status, _) => Err(Error::network(format!(
///                     "the vault answered with status {status}"
///                 ))),
///             }
///         })
///     }
/// }
///
/// let security = Security::sasl_plaintext(Sasl::oauth_bearer(Vault));
/// # let _ = security;
/// ```
pub trait TokenSource: fmt::Debug + Send + Sync + 'static {
    /// Returns a new token. The client has at most one call running at a time, in a task of its
    /// own.
    ///
    /// # Errors
    /// [`Error::authentication`](crate::Error::authentication) if trying again cannot help,
    /// [`Error::network`](crate::Error::network) or [`Error::timeout`](crate::Error::timeout) if it
    /// may.
    fn token(&self) -> BoxFuture<'_, Result<Token>>;
}
