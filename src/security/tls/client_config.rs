//! From what was read to what rustls takes.

use std::sync::Arc;

use rustls::{ClientConfig, SupportedProtocolVersion, crypto::CryptoProvider, version};

use super::{
    Tls, Verification, Versions,
    material::{Raw, configuration},
    verify::Lenient,
};
use crate::error::Result;

pub(super) fn client_config(tls: &Tls, raw: &Raw, provider: &Arc<CryptoProvider>) -> Result<ClientConfig> {
    let versions: &[&SupportedProtocolVersion] = match tls.versions {
        Versions::Both => &[&version::TLS13, &version::TLS12],
        Versions::Only12 => &[&version::TLS12],
        Versions::Only13 => &[&version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| configuration(format!("TLS: the provider cannot do what is asked: {error}")))?;
    // The key goes on to its provider at once, which erases it.
    let material = raw.parse(tls)?;
    let roots = Arc::new(material.roots);
    let lenient = |roots| Arc::new(Lenient { roots, provider: Arc::clone(provider) });
    let builder = match tls.verification {
        Verification::Full => builder.with_root_certificates(roots),
        Verification::WithoutHostName => builder.dangerous().with_custom_certificate_verifier(lenient(Some(roots))),
        Verification::None => builder.dangerous().with_custom_certificate_verifier(lenient(None)),
    };
    match material.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            configuration(match error {
                rustls::Error::InconsistentKeys(_) => {
                    "client certificate: the key does not belong to the certificate".to_owned()
                }
                error => format!("client certificate: {error}"),
            })
        }),
    }
}
