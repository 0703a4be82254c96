//! Trusted certificates.

use rustls::{RootCertStore, pki_types::CertificateDer};

use super::failure;

/// The trust anchors, and the trusted certificates in the form in which they were given.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) anchors: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

impl Default for Trust {
    fn default() -> Self {
        Self { anchors: RootCertStore::empty(), certificates: Vec::new() }
    }
}

impl Trust {
    /// Adds public certificate authorities (Mozilla's list).
    pub(super) fn add_web(&mut self) {
        self.anchors.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }

    /// Adds a certificate. `Err` says why it cannot be used.
    pub(super) fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), String> {
        self.anchors.add(certificate.clone()).map_err(|error| failure::certificate_described(&error))?;
        self.certificates.push(certificate);
        Ok(())
    }

    /// Adds all certificates of a file. `Err` says which certificate cannot be used, and why.
    pub(super) fn add_all(
        &mut self,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<(), String> {
        for (place, certificate) in certificates.into_iter().enumerate() {
            self.add(certificate).map_err(|why| format!("certificate {} in it: {why}", place + 1))?;
        }
        Ok(())
    }

    /// Returns true if a certificate is, byte for byte, one of the given ones.
    pub(super) fn holds(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|one| one.as_ref() == certificate.as_ref())
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}
