//! TLS and SASL of a client's connections, between `connect` and the first request.

use std::io;

use crate::security::{Sasl, Security};
use crate::{
    error::{Error, Result},
    net::Stream,
};

/// A [`Security`] that is checked and ready to use.
#[derive(Debug)]
pub(crate) struct ConnectionSecurity {
    #[cfg(feature = "tls")]
    tls: Option<crate::security::tls::Connector>,
    sasl: Option<Sasl>,
}

impl ConnectionSecurity {
    /// # Errors
    /// `Configuration` for TLS without a crypto provider.
    pub(crate) fn new(security: Security) -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "tls")]
            tls: security.tls.map(crate::security::tls::Connector::new).transpose()?,
            sasl: security.sasl,
        })
    }

    /// Reads the files that the configuration names, so that building a client reports errors in
    /// them.
    ///
    /// # Errors
    /// `Configuration`, naming the file.
    pub(crate) async fn prepare(&self) -> Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.prepare().await?;
        }
        Ok(())
    }

    /// Returns the stream to that host, under TLS if it is configured.
    ///
    /// # Errors
    /// `Authentication` if client and server do not accept each other, `Network` if the stream
    /// broke.
    pub(crate) async fn secure(&self, stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.connect(stream, host).await;
        }
        let _ = host;
        Ok(stream)
    }

    pub(crate) fn sasl(&self) -> Option<&Sasl> {
        self.sasl.as_ref()
    }
}

/// Returns the TLS failure behind a failed read or write. In TLS 1.3 a peer refuses a client
/// certificate only after the client has finished the handshake, so the refusal arrives with a
/// later read or write.
pub(crate) fn tls_failure(error: &io::Error) -> Option<Error> {
    #[cfg(feature = "tls")]
    return crate::security::tls::tls_failure(error);
    #[cfg(not(feature = "tls"))]
    {
        let _ = error;
        None
    }
}
