//! Resolves properties to a [`Security`], or to an error.

mod mechanism;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "oauth")]
mod tokens;

use std::sync::Arc;

use super::{
    Security,
    properties::{Reading, SecurityProperties, configuration, refused},
};
use crate::{
    config::parse,
    error::Result,
    log::{Origin, event},
    net::Network,
};

impl SecurityProperties {
    /// Returns the security that the properties describe; tokens are fetched over this network.
    /// Properties and options without effect are logged in one WARN.
    ///
    /// # Errors
    /// `Configuration`, naming the property.
    pub(crate) fn resolve(&self, network: &Arc<dyn Network>) -> Result<Security> {
        let (security, unused) = self.resolve_all(network)?;
        if !unused.is_empty() {
            event!(
                WARN,
                Origin::current(),
                unused = unused.join(", "),
                "properties have no effect, because security.protocol, sasl.mechanism and the source of \
                 tokens decide which properties are used; remove the unused ones, or correct the others"
            );
        }
        Ok(security)
    }

    /// Returns the security, and the names of the properties and options without effect.
    fn resolve_all(&self, network: &Arc<dyn Network>) -> Result<(Security, Vec<String>)> {
        if let Some(given) = self.given() {
            return match self.any() {
                None => Ok((given.clone(), Vec::new())),
                Some(name) => Err(configuration(format!(
                    "property `{name}` is set beside a `Security` of the builder; use only one of the two ways"
                ))),
            };
        }
        let properties = &Reading::new(self);
        let (tls, sasl) = match properties.text("security.protocol") {
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
            // Java connects in plain text in this case, but the other properties ask for something
            // else.
            None => match self.any_other() {
                None => return Ok((Security::plaintext(), Vec::new())),
                Some(name) => {
                    return Err(configuration(format!(
                        "property `{name}` is set, but `security.protocol` is not; set it to SSL, SASL_PLAINTEXT or \
                         SASL_SSL (PLAINTEXT to ignore `{name}`)"
                    )));
                }
            },
        };
        let mut security = Security::plaintext();
        let mut unused = Vec::new();
        if sasl {
            security.sasl = Some(mechanism::sasl(properties, network, &mut unused)?);
        }
        #[cfg(feature = "tls")]
        if tls {
            security.tls = Some(self::tls::tls(properties)?);
        }
        #[cfg(not(feature = "tls"))]
        if tls {
            return Err(configuration("property `security.protocol`: TLS needs the feature `tls` of this crate"));
        }
        unused.extend(properties.unread().into_iter().map(str::to_owned));
        Ok((security, unused))
    }
}
