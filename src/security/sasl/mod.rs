//! SASL: authentication of a client. One file for each mechanism.

#[cfg(feature = "aws-msk-iam")]
mod msk_iam;
#[cfg(feature = "oauth")]
mod oauthbearer;
mod plain;
mod scram;

use std::{fmt, sync::Arc};

#[cfg(feature = "aws-msk-iam")]
pub use msk_iam::AwsMskIam;
#[cfg(feature = "oauth")]
pub use oauthbearer::OauthBearer;
pub use plain::Plain;
pub use scram::{Scram, ScramHash};

use super::Secret;
use crate::{error::Result, net::BoxFuture};

/// A SASL mechanism with its credentials.
///
/// [`Sasl`] has constructors for the built-in mechanisms. A crate with another
/// mechanism, such as GSSAPI, implements this trait and passes the mechanism to
/// [`Sasl::mechanism`](super::Sasl::mechanism).
pub trait Mechanism: fmt::Debug + Send + Sync + 'static {
    /// Returns the mechanism's name in the SaslHandshake request, such as `SCRAM-SHA-256`.
    fn name(&self) -> &str;

    /// Begins an exchange with one broker; `host` is the host name by which the client connects.
    /// The client calls it for each connection, and again for each re-authentication (KIP-368). The
    /// future is dropped when `socket.connection.setup.timeout.ms` has passed.
    ///
    /// # Errors
    /// [`Error::authentication`](crate::Error::authentication) if trying again cannot help,
    /// [`Error::network`](crate::Error::network) or [`Error::timeout`](crate::Error::timeout) if it
    /// may.
    fn begin<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Box<dyn Exchange>>>;

    /// Reports that a broker refused the credentials of an exchange. A mechanism that keeps
    /// credentials which may have been replaced since, such as a token of a file, drops them here,
    /// so that the next exchange uses the new ones. Default: does nothing.
    fn refused(&self) {}
}

/// One authentication in progress: the client's side of a mechanism. An exchange does no IO. It may
/// compute for long, because the client calls it on a blocking thread, not on a task that drives
/// connections.
pub trait Exchange: Send + 'static {
    /// Returns the next step. `challenge` is `None` at the beginning, then the broker's answer to
    /// the last step.
    ///
    /// # Errors
    /// [`Error::authentication`](crate::Error::authentication) if the broker's answer is not valid.
    fn next(&mut self, challenge: Option<&[u8]>) -> Result<Step>;
}

/// The next step of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The bytes to send to the broker in a SaslAuthenticate request.
    Send(Secret),
    /// The end of the exchange: the broker has proved what the mechanism requires.
    Done,
}

/// Authenticates a client: a [`Mechanism`] that all connections of the client share.
#[derive(Clone, Debug)]
pub struct Sasl(Arc<dyn Mechanism>);

impl Sasl {
    /// Uses PLAIN, which sends name and password in clear text. Without TLS, the password can be
    /// read on the network.
    pub fn plain(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::mechanism(Plain::new(username, password))
    }

    /// Uses SCRAM-SHA-256 (RFC 5802, RFC 7677): the password is never sent, and the broker proves
    /// that it knows the password, too.
    pub fn scram_sha_256(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::mechanism(Scram::new(ScramHash::Sha256, username, password))
    }

    /// Uses SCRAM-SHA-512, which differs from SCRAM-SHA-256 only in its hash.
    pub fn scram_sha_512(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::mechanism(Scram::new(ScramHash::Sha512, username, password))
    }

    /// Uses OAUTHBEARER (KIP-255) with tokens of this source, which are kept until shortly before
    /// they expire.
    #[cfg(feature = "oauth")]
    pub fn oauth_bearer(source: impl super::TokenSource) -> Self {
        Self::mechanism(OauthBearer::new(source))
    }

    /// Uses AWS_MSK_IAM, with credentials from the places in which AWS's own tools look for them.
    #[cfg(feature = "aws-msk-iam")]
    pub fn aws_msk_iam() -> Self {
        Self::mechanism(AwsMskIam::new())
    }

    /// Uses any other mechanism, or one of the above with more settings.
    pub fn mechanism(mechanism: impl Mechanism) -> Self {
        Self(Arc::new(mechanism))
    }

    /// Returns the mechanism's name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    pub(crate) async fn begin(&self, host: &str) -> Result<Box<dyn Exchange>> {
        self.0.begin(host).await
    }

    pub(crate) fn refused(&self) {
        self.0.refused();
    }
}
