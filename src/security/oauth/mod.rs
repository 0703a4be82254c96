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
/// What it gives is kept until shortly before it expires (`sasl.login.refresh.*`), for all connections of a client, and
/// asked for anew in time; a token that is still good goes on being used while a new one cannot be had.
pub trait TokenSource: fmt::Debug + Send + Sync + 'static {
    /// A new token. Called once at a time, in a task of its own.
    ///
    /// # Errors
    /// Of kind [`Authentication`](crate::ErrorKind::Authentication) where trying again cannot help, of kind
    /// [`Network`](crate::ErrorKind::Network) or [`Timeout`](crate::ErrorKind::Timeout) where it may.
    fn token(&self) -> BoxFuture<'_, Result<Token>>;
}
