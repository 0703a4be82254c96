//! What a client's connections go through between `connect` and their first request.

use std::io;

use crate::security::{Sasl, Security};
use crate::{
    error::{Error, Result},
    net::Stream,
};

/// A [`Security`] that was checked.
#[derive(Debug)]
pub(crate) struct ConnectionSecurity {
    #[cfg(feature = "tls")]
    tls: Option<crate::security::tls::Connector>,
    sasl: Option<Sasl>,
}

impl ConnectionSecurity {
    /// # Errors
    /// `Configuration` for TLS where there is no cryptography for it.
    pub(crate) fn new(security: Security) -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "tls")]
            tls: security.tls.map(crate::security::tls::Connector::new).transpose()?,
            sasl: security.sasl,
        })
    }

    /// Reads what is in files, so that building a client says what is wrong with them.
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

    /// The stream to that host, under TLS if it is asked for.
    ///
    /// # Errors
    /// `Authentication` where the two do not accept each other, `Network` where the stream broke.
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

/// What a failed read or write says of TLS: that a peer does not accept this client comes behind
/// the handshake.
pub(crate) fn tls_failure(error: &io::Error) -> Option<Error> {
    #[cfg(feature = "tls")]
    return crate::security::tls::tls_failure(error);
    #[cfg(not(feature = "tls"))]
    {
        let _ = error;
        None
    }
}
