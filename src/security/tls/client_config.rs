//! Builds the configuration of rustls from the bytes that were read.

use std::sync::Arc;

use rustls::{ClientConfig, SupportedProtocolVersion, crypto::CryptoProvider, version};

use super::{
    Tls, Verification, Versions,
    client_certificate::{ClientCertificate, certified},
    failure,
    material::{Raw, configuration},
    verify::Verifier,
};
use crate::error::Result;

pub(super) fn client_config(tls: &Tls, raw: &Raw, provider: &Arc<CryptoProvider>) -> Result<ClientConfig> {
    let versions: &[&SupportedProtocolVersion] = match tls.versions {
        Versions::Both => &[&version::TLS13, &version::TLS12],
        Versions::Only12 => &[&version::TLS12],
        Versions::Only13 => &[&version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions).map_err(
        |error| {
            configuration(format!(
                "TLS: the crypto provider does not support this TLS version: {}",
                failure::described(&error)
            ))
        },
    )?;
    // The key is passed to its provider at once, which erases it.
    let material = raw.parse(tls)?;
    let verifier = Verifier {
        trust: (tls.verification != Verification::None).then_some(material.trust),
        host_name: tls.verification == Verification::Full,
        provider: Arc::clone(provider),
    };
    let identity = material.identity.map(|(chain, key)| certified(chain, key, provider)).transpose();
    let identity = identity.map_err(|why| configuration(format!("client certificate: {why}")))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(builder.with_client_cert_resolver(Arc::new(ClientCertificate(identity.map(Arc::new)))))
}
