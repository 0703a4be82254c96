//! Security of connections: TLS, SASL mechanisms, and tokens.
//!
//! A [`Security`] is passed to a builder, or is read from properties by Java's or librdkafka's
//! names (`security.protocol`, `ssl.*`, `sasl.*`).
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
//! return at once. The client goes on trying, because a password, a token or a user at the broker
//! may be corrected meanwhile, but rarely, so that no account is locked: after a refused login no
//! connection of the client logs in for 10 s, and the wait doubles with each further refusal, up to
//! ten minutes. If a broker refuses a login that the others accept, or its certificate is not
//! accepted, only the connections to that broker wait, up to a minute. Each refused login is logged
//! as one WARN. `socket.connection.setup.timeout.ms` limits connecting, TLS and SASL together.
//!
//! If a broker limits the time for which an authentication is valid (`connections.max.reauth.ms`,
//! or the token's expiry), the client authenticates again on the same connection (KIP-368) once the
//! requests in flight there are answered.
//!
//! Secrets are kept as [`Secret`]s: never shown, and zeroed when they are dropped. A client's
//! private key is zeroed, too, in every form that it has on its way to the built-in crypto provider
//! and inside it. Two copies are not zeroed: the key of a PKCS#12 store (`p12-keystore` frees it
//! without zeroing) and the key that a custom crypto provider keeps.

#[cfg(feature = "aws-msk-iam")]
mod aws;
// Of the modules that allow dead code, each of these features uses a part.
mod connection_security;
#[cfg(feature = "tls")]
pub mod hosted;
#[cfg(any(feature = "oauth", feature = "aws-msk-iam"))]
#[cfg_attr(not(all(feature = "oauth", feature = "aws-msk-iam", feature = "tls")), allow(dead_code))]
mod http;
#[cfg_attr(not(all(feature = "oauth", feature = "aws-msk-iam", feature = "tls")), allow(dead_code))]
mod jaas;
#[cfg(any(feature = "oauth", feature = "aws-msk-iam"))]
#[cfg_attr(not(all(feature = "oauth", feature = "aws-msk-iam", feature = "tls")), allow(dead_code))]
mod json;
#[cfg(feature = "oauth")]
mod oauth;
#[cfg_attr(not(all(feature = "oauth", feature = "aws-msk-iam", feature = "tls")), allow(dead_code))]
mod properties;
mod resolve;
mod sasl;
mod secret;
#[cfg_attr(not(all(feature = "oauth", feature = "aws-msk-iam", feature = "tls")), allow(dead_code))]
mod shown;
#[cfg(any(feature = "tls", feature = "oauth", feature = "aws-msk-iam"))]
#[cfg_attr(not(all(feature = "oauth", feature = "aws-msk-iam", feature = "tls")), allow(dead_code))]
mod time;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use crate::security::connection_security::{ConnectionSecurity, tls_failure};
#[cfg(feature = "aws-msk-iam")]
pub use aws::AwsCredentials;
#[cfg(all(feature = "oauth", feature = "tls"))]
pub use oauth::{JwtAlgorithm, JwtBearer};
#[cfg(feature = "oauth")]
pub use oauth::{Oidc, Token, TokenFile, TokenSource, UnsecuredToken};
pub(crate) use properties::SecurityProperties;
/// The version of rustls that defines the `CryptoProvider` of [`Tls::crypto_provider`].
#[cfg(feature = "tls")]
pub use rustls;
#[cfg(feature = "aws-msk-iam")]
pub use sasl::AwsMskIam;
#[cfg(feature = "oauth")]
pub use sasl::OauthBearer;
pub use sasl::{Exchange, Mechanism, Plain, Sasl, Scram, ScramHash, Step};
pub use secret::Secret;
pub(crate) use shown::scrubbed;
#[cfg_attr(not(all(feature = "oauth", feature = "aws-msk-iam", feature = "tls")), allow(unused_imports))]
use shown::{FilePath, Hidden};
#[cfg(feature = "tls")]
pub use tls::Tls;

/// Secures the connections of a client: Kafka's `security.protocol` with the settings of TLS and
/// SASL.
#[derive(Clone, Debug, Default)]
pub struct Security {
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    sasl: Option<Sasl>,
}

impl Security {
    /// Returns `PLAINTEXT`: neither TLS nor SASL. The default.
    pub fn plaintext() -> Self {
        Self::default()
    }

    /// Returns `SSL`: TLS, with a client certificate if one is given.
    #[cfg(feature = "tls")]
    pub fn ssl(tls: Tls) -> Self {
        Self { tls: Some(tls), sasl: None }
    }

    /// Returns `SASL_PLAINTEXT`: SASL without TLS.
    pub fn sasl_plaintext(sasl: Sasl) -> Self {
        Self {
            #[cfg(feature = "tls")]
            tls: None,
            sasl: Some(sasl),
        }
    }

    /// Returns the equivalent value of `security.protocol`.
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

    /// Returns `SASL_SSL`: SASL under TLS.
    #[cfg(feature = "tls")]
    pub fn sasl_ssl(sasl: Sasl, tls: Tls) -> Self {
        Self { tls: Some(tls), sasl: Some(sasl) }
    }
}
