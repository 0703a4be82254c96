//! TLS: trusted certificates, the client's certificate, and their renewal.

mod certificate;
mod client_certificate;
mod client_config;
mod connector;
mod der;
mod encrypted_key;
mod explained_stream;
mod failure;
mod key;
mod key_kind;
mod material;
mod names;
mod openssl_trust;
mod pem;
#[cfg(feature = "pkcs12")]
mod pkcs12;
mod provider;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod signing;
mod trust;
mod verify;

use std::{path::PathBuf, sync::Arc};

use rustls::crypto::CryptoProvider;

pub(crate) use connector::Connector;
#[cfg(feature = "oauth")]
pub(crate) use failure::described;
pub(crate) use failure::tls_failure;
#[cfg(feature = "oauth")]
pub(crate) use key::signing_key;
#[cfg(feature = "oauth")]
pub(crate) use provider::provider;

use super::{FilePath, Secret};

/// Configures TLS 1.2 and 1.3 by [rustls](super::rustls). By default, a broker's certificate must
/// be issued by a public certificate authority (Mozilla's list), and for the host name to which the
/// client connects. The client does not send ALPN.
///
/// Files are read again for each new connection: a certificate, a key or an authority that was
/// replaced is used from then on, and open connections are not affected. If a file can no longer be
/// read, the client logs a WARN and uses the contents that it read before.
///
/// ```no_run
/// use ottla::{
///     Producer,
///     security::{Security, Tls},
/// };
///
/// # async fn example() -> ottla::Result<()> {
/// let tls = Tls::new()
///     .ca_file("/etc/kafka/ca.pem")
///     .client_certificate_files("client.pem", "client.key");
/// let producer =
///     Producer::builder("broker:9093").security(Security::ssl(tls)).build().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Tls {
    roots: Vec<Roots>,
    identity: Option<Identity>,
    versions: Versions,
    verification: Verification,
    provider: Option<Arc<CryptoProvider>>,
}

/// The source of certificates or keys: a file, or text in the configuration.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(FilePath),
    Text(Secret),
}

impl Source {
    pub(crate) fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(FilePath::new(path))
    }
}

/// Trusted authorities.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    Web,
    #[cfg(feature = "native-roots")]
    System,
    Pem(Source),
    #[cfg(feature = "pkcs12")]
    Pkcs12(Source, Secret),
}

/// The client's certificates with their key.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Pem {
        chain: Source,
        key: Source,
        password: Option<Secret>,
    },
    #[cfg(feature = "pkcs12")]
    Pkcs12(Source, Secret),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Versions {
    #[default]
    Both,
    Only12,
    Only13,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verification {
    #[default]
    Full,
    WithoutHostName,
    None,
}

impl Tls {
    /// Creates a configuration that trusts public certificate authorities (Mozilla's list), without
    /// a client certificate.
    pub fn new() -> Self {
        Self::default()
    }

    fn trust(mut self, roots: Roots) -> Self {
        self.roots.push(roots);
        self
    }

    /// Trusts the certificates in a PEM file in place of public authorities (`ssl.ca.location`,
    /// `ssl.truststore.location`). May be called several times; calls of this and the other
    /// functions that add trusted certificates add up.
    ///
    /// A certificate in the file is also trusted as the broker's own certificate, without an
    /// authority above it, so that a self-signed certificate is trusted by its own file. Its host
    /// name and its dates are still verified. OpenSSL's `TRUSTED CERTIFICATE` is left out if its
    /// settings exclude servers. Text outside the blocks is ignored.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.trust(Roots::Pem(Source::file(path)))
    }

    /// Trusts the certificates in a PEM text in place of public authorities (`ssl.ca.pem`,
    /// `ssl.truststore.certificates`).
    pub fn ca_pem(self, pem: impl Into<Secret>) -> Self {
        self.trust(Roots::Pem(Source::Text(pem.into())))
    }

    /// Trusts public authorities (Mozilla's list) in addition to the given ones.
    pub fn web_roots(self) -> Self {
        self.trust(Roots::Web)
    }

    /// Trusts the authorities of the operating system in place of public authorities (Mozilla's
    /// list).
    #[cfg(feature = "native-roots")]
    pub fn native_roots(self) -> Self {
        self.trust(Roots::System)
    }

    /// Trusts the certificates in a PKCS#12 file in place of public authorities
    /// (`ssl.truststore.location` of type PKCS12).
    #[cfg(feature = "pkcs12")]
    pub fn ca_pkcs12_file(self, path: impl Into<PathBuf>, password: impl Into<Secret>) -> Self {
        self.trust(Roots::Pkcs12(Source::file(path), password.into()))
    }

    /// Sets the client certificate: a PEM file with the chain, which begins with the client's own
    /// certificate, and a PEM file with its key (PKCS#8, PKCS#1 or SEC1; an encrypted key needs
    /// [`client_key_password`](Self::client_key_password)). They may be one file.
    ///
    /// The built-in crypto provider signs with RSA of 2048 to 8192 bits, EC on the curves P-256 and
    /// P-384, and Ed25519. If a broker asks for a certificate but accepts none of the key's
    /// signature schemes, the client sends no certificate, like Java, and logs one WARN.
    pub fn client_certificate_files(self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity(Source::file(chain), Source::file(key))
    }

    /// Sets the client certificate like
    /// [`client_certificate_files`](Self::client_certificate_files), but from PEM texts
    /// (`ssl.keystore.certificate.chain` and `ssl.keystore.key`; librdkafka's `ssl.certificate.pem`
    /// and `ssl.key.pem`).
    pub fn client_certificate_pem(self, chain: impl Into<Secret>, key: impl Into<Secret>) -> Self {
        self.identity(Source::Text(chain.into()), Source::Text(key.into()))
    }

    /// Sets the client certificate with its key from a PKCS#12 file (`ssl.keystore.location` of
    /// type PKCS12).
    #[cfg(feature = "pkcs12")]
    pub fn client_certificate_pkcs12_file(mut self, path: impl Into<PathBuf>, password: impl Into<Secret>) -> Self {
        self.identity = Some(Identity::Pkcs12(Source::file(path), password.into()));
        self
    }

    pub(crate) fn identity(mut self, chain: Source, key: Source) -> Self {
        self.identity = Some(Identity::Pem { chain, key, password: None });
        self
    }

    /// Sets the password of an encrypted key (PKCS#8, `BEGIN ENCRYPTED PRIVATE KEY`;
    /// `ssl.key.password`). Has an effect only after the certificate and its key were set.
    ///
    /// Supported schemes are PBES2 (AES or triple DES, by PBKDF2 or scrypt) and PKCS#12's triple
    /// DES (`PBE-SHA1-3DES`, which Java's PEM stores support). For any other scheme, the error
    /// names the scheme and the command that converts the key.
    pub fn client_key_password(mut self, secret: impl Into<Secret>) -> Self {
        if let Some(Identity::Pem { password, .. }) = &mut self.identity {
            *password = Some(secret.into());
        }
        self
    }

    /// Uses TLS 1.2 only. Default: 1.3, and 1.2 with brokers that do not support 1.3.
    pub fn only_tls_1_2(mut self) -> Self {
        self.versions = Versions::Only12;
        self
    }

    /// Uses TLS 1.3 only.
    pub fn only_tls_1_3(mut self) -> Self {
        self.versions = Versions::Only13;
        self
    }

    /// Accepts a certificate of a trusted authority for any host name (an empty
    /// `ssl.endpoint.identification.algorithm`): the owner of any certificate of such an authority
    /// can impersonate the broker.
    pub fn dangerously_accept_any_host_name(mut self) -> Self {
        self.verification = Verification::WithoutHostName;
        self
    }

    /// Accepts any certificate (`enable.ssl.certificate.verification=false`): the broker only
    /// proves that it has the certificate's key. A device between this client and the broker can
    /// read and change everything.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.verification = Verification::None;
        self
    }

    /// Sets the crypto provider. Default: [graviola](https://docs.rs/graviola)'s if the processor
    /// has the instructions that it needs (x86_64 and aarch64 of the last ten years), else the
    /// provider that the process installed as rustls' default. If there is neither, building the
    /// client fails.
    ///
    /// The default does not support keys on P-521, RSASSA-PSS keys and DSA keys. Set a provider
    /// that supports them, such as `rustls::crypto::aws_lc_rs::default_provider()` (which compiles
    /// C), to use such keys.
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }
}
