//! The brokers' side of TLS.

use std::sync::Arc;

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
    version,
};

use super::certificates;
use crate::error::{Error, ErrorKind, Result};

/// TLS of a cluster's brokers. The defaults are [`certificates::SERVER`] and no client
/// certificates.
#[derive(Clone, Debug)]
pub struct Tls {
    chain: String,
    key: String,
    client_authority: Option<String>,
    only_1_3: bool,
    provider: Option<Arc<CryptoProvider>>,
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

impl Tls {
    /// Creates settings with [`certificates::SERVER`].
    pub fn new() -> Self {
        Self {
            chain: certificates::SERVER.to_owned(),
            key: certificates::SERVER_KEY.to_owned(),
            client_authority: None,
            only_1_3: false,
            provider: None,
        }
    }

    /// Sets another certificate and its key, as PEM.
    pub fn certificate(mut self, chain: impl Into<String>, key: impl Into<String>) -> Self {
        (self.chain, self.key) = (chain.into(), key.into());
        self
    }

    /// Requires of every client a certificate issued by that authority
    /// (`ssl.client.auth=required`), given as PEM.
    pub fn require_client_certificate(mut self, authority: impl Into<String>) -> Self {
        self.client_authority = Some(authority.into());
        self
    }

    /// Allows TLS 1.3 only. Default: 1.3 and 1.2, whichever a client prefers.
    pub fn only_tls_1_3(mut self) -> Self {
        self.only_1_3 = true;
        self
    }

    /// Sets the cryptography to use. Default: graviola if it has code for the processor, else the
    /// process's default.
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>> {
        let wrong = |error: String| Error::new(ErrorKind::Configuration, format!("TLS of the testkit: {error}"));
        let provider = self.provider.clone().map_or_else(provider, Ok)?;
        let certificates = |pem: &str| -> Result<Vec<CertificateDer<'static>>> {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<std::result::Result<_, _>>()
                .map_err(|error| wrong(error.to_string()))
        };
        let versions: &[&SupportedProtocolVersion] =
            if self.only_1_3 { &[&version::TLS13] } else { rustls::DEFAULT_VERSIONS };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| wrong(error.to_string()))?;
        let builder = match &self.client_authority {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem)? {
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(error.to_string()))?)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| wrong(error.to_string()))?;
        let certified = CertifiedKey::new(certificates(&self.chain)?, key);
        // rustls does not read certificates of version 1; a broker may present one, so that alone
        // is not an error.
        if certified.keys_match() == Err(InconsistentKeys::KeyMismatch.into()) {
            return Err(wrong("the key does not belong to the certificate".to_owned()));
        }
        Ok(Arc::new(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))))
    }
}

fn provider() -> Result<Arc<CryptoProvider>> {
    // The same choice as the client's (`security/tls/provider`), on which the testkit does not
    // depend.
    #[cfg(target_arch = "x86_64")]
    let able = {
        use std::arch::is_x86_feature_detected as has;
        has!("aes")
            && has!("pclmulqdq")
            && has!("bmi1")
            && has!("bmi2")
            && has!("adx")
            && has!("avx2")
            && has!("popcnt")
    };
    #[cfg(target_arch = "aarch64")]
    let able = {
        use std::arch::is_aarch64_feature_detected as has;
        has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
    };
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if able {
        return Ok(Arc::new(rustls_graviola::default_provider()));
    }
    let none =
        || Error::new(ErrorKind::Configuration, "TLS of the testkit: no cryptography provider for this processor");
    CryptoProvider::get_default().map(Arc::clone).ok_or_else(none)
}
