//! How a client knows whom it talks to, and how it says who it is: TLS, SASL, tokens.
//!
//! A [`Security`] is given to a builder, or comes from properties by Java's or librdkafka's names
//! (`security.protocol`, `ssl.*`, `sasl.*`).
//!
//! ```no_run
//! use ottla::{Producer, security::{Sasl, Security, Tls}};
//!
//! # async fn example(password: String) -> ottla::Result<()> {
//! let security = Security::sasl_ssl(Sasl::scram_sha_512("alice", password), Tls::new());
//! let producer = Producer::builder("broker:9093").security(security).build().await?;
//! # Ok(()) }
//! ```
//!
//! A wrong password, a mechanism that the broker does not have, and a certificate that is not
//! accepted are errors of kind [`Authentication`](crate::ErrorKind::Authentication), which calls
//! get at once. The client goes on trying, since a password, a token or a user at the broker may be
//! corrected meanwhile, but seldom, so that no account is locked: after a refused login no
//! connection of the client logs in for 10 s, and for twice as long after each further one, up to
//! ten minutes. A broker that refuses what the others accept, or whose certificate is not accepted,
//! waits alone, up to a minute. Each refused login is one WARN. Connecting, TLS and SASL together
//! have `socket.connection.setup.timeout.ms`.
//!
//! Where a broker limits how long an authentication holds (`connections.max.reauth.ms`, or a
//! token's end), the client authenticates again on the same connection (KIP-368) once what is under
//! way there is answered.
//!
//! Secrets are kept as [`Secret`]s: never shown, and zeroed when they are dropped. A client's
//! private key is zeroed, too, in all the forms that it has on its way to the built-in cryptography
//! and there. Not zeroed are a PKCS#12 store's (`p12-keystore` frees it as it is), and what a
//! provider of the user's own keeps.

mod aws;
mod connection_security;
#[cfg(feature = "tls")]
pub mod hosted;
mod http;
mod jaas;
mod json;
mod oauth;
mod properties;
mod resolve;
mod sasl;
mod secret;
mod shown;
mod time;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use crate::security::connection_security::{ConnectionSecurity, tls_failure};
pub use aws::AwsCredentials;
#[cfg(feature = "tls")]
pub use oauth::{JwtAlgorithm, JwtBearer};
pub use oauth::{Oidc, Token, TokenFile, TokenSource, UnsecuredToken};
pub(crate) use properties::SecurityProperties;
/// The version of rustls whose `CryptoProvider` [`Tls::crypto_provider`] takes.
#[cfg(feature = "tls")]
pub use rustls;
pub use sasl::{AwsMskIam, Exchange, Mechanism, OauthBearer, Plain, Sasl, Scram, ScramHash, Step};
pub use secret::Secret;
pub(crate) use shown::scrubbed;
use shown::{FilePath, Hidden};
#[cfg(feature = "tls")]
pub use tls::Tls;

/// How the connections of a client are secured: Kafka's `security.protocol` with all that belongs
/// to it.
#[derive(Clone, Debug, Default)]
pub struct Security {
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    sasl: Option<Sasl>,
}

impl Security {
    /// `PLAINTEXT`: neither TLS nor SASL. The default.
    pub fn plaintext() -> Self {
        Self::default()
    }

    /// `SSL`: TLS, with a client certificate where one is given.
    #[cfg(feature = "tls")]
    pub fn ssl(tls: Tls) -> Self {
        Self { tls: Some(tls), sasl: None }
    }

    /// `SASL_PLAINTEXT`: SASL without TLS.
    pub fn sasl_plaintext(sasl: Sasl) -> Self {
        Self {
            #[cfg(feature = "tls")]
            tls: None,
            sasl: Some(sasl),
        }
    }

    /// The value of `security.protocol` that stands for it.
    pub(crate) fn protocol(&self) -> &'static str {
        #[cfg(feature = "tls")]
        let tls = self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        let tls = false;
        match (tls, self.sasl.is_some()) {
            (false, false) => "PLAINTEXT",
            (true, false) => "SSL",
            (false, true) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        }
    }

    /// `SASL_SSL`: SASL under TLS.
    #[cfg(feature = "tls")]
    pub fn sasl_ssl(sasl: Sasl, tls: Tls) -> Self {
        Self { tls: Some(tls), sasl: Some(sasl) }
    }
}
