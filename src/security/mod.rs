//! How a client knows whom it talks to, and how it says who it is: TLS, SASL, tokens.
//!
//! A [`Security`] is given to a builder, or comes from properties by Java's or librdkafka's names (`security.protocol`,
//! `ssl.*`, `sasl.*`).
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
//! What goes wrong is told at once and not tried again where trying again cannot help: a wrong password, a mechanism that
//! the broker does not have, a certificate that is not accepted. Such errors are of kind
//! [`Authentication`](crate::ErrorKind::Authentication). Connecting, TLS and SASL together have
//! `socket.connection.setup.timeout.ms`.
//!
//! Where a broker limits how long an authentication holds (`connections.max.reauth.ms`, or a token's end), the client
//! authenticates again on the same connection (KIP-368) once what is under way there is answered.
//!
//! Secrets are kept as [`Secret`]s: never shown, and zeroed when they are dropped.

mod aws;
mod guard;
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
mod time;
#[cfg(feature = "tls")]
mod tls;

pub use aws::AwsCredentials;
pub(crate) use guard::{Guard, tls_failure};
#[cfg(feature = "tls")]
pub use oauth::{JwtAlgorithm, JwtBearer};
pub use oauth::{Oidc, Token, TokenFile, TokenSource, UnsecuredToken};
pub(crate) use properties::SecurityProperties;
/// The version of rustls whose `CryptoProvider` [`Tls::crypto_provider`] takes.
#[cfg(feature = "tls")]
pub use rustls;
pub use sasl::{AwsMskIam, Exchange, Mechanism, OauthBearer, Plain, Sasl, Scram, ScramHash, Step};
pub use secret::Secret;
#[cfg(feature = "tls")]
pub use tls::Tls;

/// How the connections of a client are secured: Kafka's `security.protocol` with all that belongs to it.
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

    /// `SASL_SSL`: SASL under TLS.
    #[cfg(feature = "tls")]
    pub fn sasl_ssl(sasl: Sasl, tls: Tls) -> Self {
        Self { tls: Some(tls), sasl: Some(sasl) }
    }
}
