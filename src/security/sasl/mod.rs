//! SASL: how a client says who it is. One file for each mechanism.

mod msk_iam;
mod oauthbearer;
mod plain;
mod scram;

use std::{fmt, sync::Arc};

pub use msk_iam::AwsMskIam;
pub use oauthbearer::OauthBearer;
pub use plain::Plain;
pub use scram::{Scram, ScramHash};

use super::Secret;
use crate::{error::Result, net::BoxFuture};

/// A SASL mechanism with its credentials.
///
/// Those that are built in are made by [`Sasl`](super::Sasl); a crate that has another one, such as
/// GSSAPI, implements this and hands it to [`Sasl::mechanism`](super::Sasl::mechanism).
pub trait Mechanism: fmt::Debug + Send + Sync + 'static {
    /// What it is called in the SaslHandshake request, such as `SCRAM-SHA-256`.
    fn name(&self) -> &str;

    /// Begins an exchange with one broker, by the host name that the client knows it by. Called for
    /// each connection, and again for each re-authentication (KIP-368). The future is dropped when
    /// `socket.connection.setup.timeout.ms` passes.
    ///
    /// # Errors
    /// [`Error::authentication`](crate::Error::authentication) where trying again cannot help,
    /// [`Error::network`](crate::Error::network) or [`Error::timeout`](crate::Error::timeout) where
    /// it may.
    fn begin<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Box<dyn Exchange>>>;

    /// Is called when a broker refused the credentials of an exchange. A mechanism that keeps
    /// credentials which may have been replaced since, such as a token of a file, drops them here,
    /// so that the next exchange has the new ones. Default: nothing.
    fn refused(&self) {}
}

/// One authentication under way: the client's side of a mechanism. Decides only, and may take its
/// time to compute: it is called off the tasks that drive connections.
pub trait Exchange: Send + 'static {
    /// What to say next. `None` at the beginning, then what the broker answered to the last step.
    ///
    /// # Errors
    /// [`Error::authentication`](crate::Error::authentication) when the broker's answer is not what
    /// it has to be.
    fn next(&mut self, challenge: Option<&[u8]>) -> Result<Step>;
}

/// What a mechanism does next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// These bytes go to the broker, as a SaslAuthenticate request.
    Send(Secret),
    /// The exchange is over, and the broker has proved what the mechanism asks of it.
    Done,
}

/// How a client authenticates: a [`Mechanism`], shared by all its connections.
#[derive(Clone, Debug)]
pub struct Sasl(Arc<dyn Mechanism>);

impl Sasl {
    /// PLAIN: name and password as they are. Only under TLS is the password safe from who listens.
    pub fn plain(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::mechanism(Plain::new(username, password))
    }

    /// SCRAM-SHA-256 (RFC 5802, RFC 7677): the password stays here, and the broker proves that it
    /// knows of it, too.
    pub fn scram_sha_256(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::mechanism(Scram::new(ScramHash::Sha256, username, password))
    }

    /// SCRAM-SHA-512.
    pub fn scram_sha_512(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::mechanism(Scram::new(ScramHash::Sha512, username, password))
    }

    /// OAUTHBEARER (KIP-255) with tokens of this source, which are kept until shortly before they
    /// expire.
    pub fn oauth_bearer(source: impl super::TokenSource) -> Self {
        Self::mechanism(OauthBearer::new(source))
    }

    /// AWS_MSK_IAM, with credentials found where AWS's own tools look for them.
    pub fn aws_msk_iam() -> Self {
        Self::mechanism(AwsMskIam::new())
    }

    /// Any other mechanism, or one of the above with more settings.
    pub fn mechanism(mechanism: impl Mechanism) -> Self {
        Self(Arc::new(mechanism))
    }

    /// The mechanism's name.
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
