//! TLS: whom to trust, who we are, and how it is renewed.

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
pub(crate) use failure::{described, tls_failure};
pub(crate) use key::signing_key;
pub(crate) use provider::provider;

use super::{FilePath, Secret};

/// TLS 1.2 and 1.3 by [rustls](super::rustls): certificates are verified against those of the web's
/// authorities, and against the host name that the broker is known by, unless something else is
/// said. Nothing is said of protocols above it (no ALPN).
///
/// Files are looked at again for each new connection: a certificate, a key or an authority that was
/// replaced is used from then on, and connections that are open go on. A file that cannot be read
/// any more is logged, and what it held before is used.
///
/// ```no_run
/// use ottla::{Producer, security::{Security, Tls}};
///
/// # async fn example() -> ottla::Result<()> {
/// let tls = Tls::new().ca_file("/etc/kafka/ca.pem").client_certificate_files("client.pem", "client.key");
/// let producer = Producer::builder("broker:9093").security(Security::ssl(tls)).build().await?;
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

/// Where bytes come from.
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

/// Authorities that are trusted.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    Web,
    #[cfg(feature = "native-roots")]
    System,
    Pem(Source),
    #[cfg(feature = "pkcs12")]
    Pkcs12(Source, Secret),
}

/// Certificates and the key that belongs to them.
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
    /// With the web's authorities (Mozilla's list), and without a client certificate.
    pub fn new() -> Self {
        Self::default()
    }

    fn trust(mut self, roots: Roots) -> Self {
        self.roots.push(roots);
        self
    }

    /// Trusts the certificates in a PEM file, in place of the web's (`ssl.ca.location`,
    /// `ssl.truststore.location`). May be called several times, as the others of its kind.
    ///
    /// A broker that shows one of these very certificates needs no authority above it, so that a
    /// self-signed one is trusted by its own file; its host name and its dates are verified all the
    /// same. OpenSSL's `TRUSTED CERTIFICATE` is left out where its settings exclude servers. Text
    /// outside the blocks is passed over.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.trust(Roots::Pem(Source::file(path)))
    }

    /// Trusts the authorities in a PEM text, in place of the web's (`ssl.ca.pem`,
    /// `ssl.truststore.certificates`).
    pub fn ca_pem(self, pem: impl Into<Secret>) -> Self {
        self.trust(Roots::Pem(Source::Text(pem.into())))
    }

    /// Trusts the web's authorities beside those that are given.
    pub fn web_roots(self) -> Self {
        self.trust(Roots::Web)
    }

    /// Trusts the authorities that the system trusts, in place of the web's.
    #[cfg(feature = "native-roots")]
    pub fn native_roots(self) -> Self {
        self.trust(Roots::System)
    }

    /// Trusts the authorities in a PKCS#12 file, in place of the web's (`ssl.truststore.location`
    /// of type PKCS12).
    #[cfg(feature = "pkcs12")]
    pub fn ca_pkcs12_file(self, path: impl Into<PathBuf>, password: impl Into<Secret>) -> Self {
        self.trust(Roots::Pkcs12(Source::file(path), password.into()))
    }

    /// Shows the broker a certificate: PEM files with the chain, the client's own first, and with
    /// its key (PKCS#8, PKCS#1 or SEC1; an encrypted one needs
    /// [`client_key_password`](Self::client_key_password)). They may be one file.
    ///
    /// The built-in cryptography signs with RSA of 2048 to 8192 bits, EC on the curves P-256 and
    /// P-384, and Ed25519. A broker that asks for a certificate and accepts none of the key's
    /// signature schemes is shown none, as in Java; a log line at WARN says so once.
    pub fn client_certificate_files(self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity(Source::file(chain), Source::file(key))
    }

    /// The same, from PEM texts.
    pub fn client_certificate_pem(self, chain: impl Into<Secret>, key: impl Into<Secret>) -> Self {
        self.identity(Source::Text(chain.into()), Source::Text(key.into()))
    }

    /// Shows the broker the certificate of a PKCS#12 file, with its key (`ssl.keystore.location` of
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

    /// The password of an encrypted key (PKCS#8, `BEGIN ENCRYPTED PRIVATE KEY`;
    /// `ssl.key.password`). Says something only after the certificate was given.
    ///
    /// Read are PBES2 (AES or triple DES, by PBKDF2 or scrypt) and PKCS#12's triple DES
    /// (`PBE-SHA1-3DES`, which Java's PEM stores read). Of others the error names the scheme and
    /// the command that converts the key.
    pub fn client_key_password(mut self, secret: impl Into<Secret>) -> Self {
        if let Some(Identity::Pem { password, .. }) = &mut self.identity {
            *password = Some(secret.into());
        }
        self
    }

    /// Speaks TLS 1.2 only. Default: 1.3, and 1.2 with brokers that have no other.
    pub fn only_tls_1_2(mut self) -> Self {
        self.versions = Versions::Only12;
        self
    }

    /// Speaks TLS 1.3 only.
    pub fn only_tls_1_3(mut self) -> Self {
        self.versions = Versions::Only13;
        self
    }

    /// Takes a certificate of a trusted authority whatever host it was made out to
    /// (`ssl.endpoint.identification.algorithm` that is empty): whoever has any certificate of such
    /// an authority can pass for the broker.
    pub fn dangerously_accept_any_host_name(mut self) -> Self {
        self.verification = Verification::WithoutHostName;
        self
    }

    /// Takes any certificate (`enable.ssl.certificate.verification=false`), whatever is in it: the
    /// broker only proves that it has the certificate's key. A device between this client and the
    /// broker can read and change everything.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.verification = Verification::None;
        self
    }

    /// The cryptography to use. Default: [graviola](https://docs.rs/graviola)'s where the processor
    /// has what it needs (x86_64 and aarch64 of the last ten years), else what the process
    /// installed as rustls' default, else building the client is an error.
    ///
    /// Keys on P-521, RSASSA-PSS keys and DSA are not among the default's. A provider that has
    /// them, such as `rustls::crypto::aws_lc_rs::default_provider()` (which compiles C), is given
    /// here.
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }
}
