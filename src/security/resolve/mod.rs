//! From properties to a [`Security`], or to what is wrong with them.

mod mechanism;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;
mod tokens;

use std::sync::Arc;

use super::{
    Security,
    properties::{SecurityProperties, configuration, refused},
};
use crate::{config::parse, error::Result, net::Network};

impl SecurityProperties {
    /// What the properties mean together; tokens are fetched over this network.
    ///
    /// # Errors
    /// `Configuration`, naming the property.
    pub(crate) fn resolve(&self, network: &Arc<dyn Network>) -> Result<Security> {
        if let Some(given) = self.given() {
            return match self.any() {
                None => Ok(given.clone()),
                Some(name) => Err(configuration(format!(
                    "property `{name}` is set beside a `Security` of the builder; say all of it in one of the two ways"
                ))),
            };
        }
        let (tls, sasl) = match self.text("security.protocol") {
            Some(protocol) => {
                let protocols = [
                    ("PLAINTEXT", (false, false)),
                    ("SSL", (true, false)),
                    ("SASL_PLAINTEXT", (false, true)),
                    ("SASL_SSL", (true, true)),
                ];
                let allowed = "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL";
                parse::one_of(protocol, &protocols).ok_or_else(|| refused("security.protocol", protocol, allowed))?
            }
            // Java connects in plain text then, and whoever wrote the rest wonders.
            None => match self.any_other() {
                None => return Ok(Security::plaintext()),
                Some(name) => {
                    return Err(configuration(format!(
                        "property `{name}` is set, but `security.protocol` is not; set it to SSL, SASL_PLAINTEXT or \
                         SASL_SSL (PLAINTEXT to ignore `{name}`)"
                    )));
                }
            },
        };
        let mut security = Security::plaintext();
        if sasl {
            security.sasl = Some(mechanism::sasl(self, network)?);
        }
        #[cfg(feature = "tls")]
        if tls {
            security.tls = Some(self::tls::tls(self)?);
        }
        #[cfg(not(feature = "tls"))]
        if tls {
            return Err(configuration("property `security.protocol`: TLS needs the feature `tls` of this crate"));
        }
        Ok(security)
    }
}
