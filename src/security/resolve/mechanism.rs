//! The properties `sasl.mechanism` and the credentials for it.

use std::sync::Arc;

#[cfg(feature = "oauth")]
use super::tokens;
use super::{Reading, configuration, refused};
#[cfg(feature = "aws-msk-iam")]
use crate::security::{AwsMskIam, aws::is_region};
use crate::{
    config::parse,
    error::Result,
    net::Network,
    security::{Plain, Sasl, Scram, ScramHash, Secret, jaas::Jaas},
};

const MECHANISMS: &str = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM";

/// Returns the mechanism, and adds the options of the login module that have no effect to `unused`.
#[cfg_attr(not(feature = "oauth"), expect(unused_variables, reason = "the token endpoint's network"))]
pub(super) fn sasl(properties: &Reading<'_>, network: &Arc<dyn Network>, unused: &mut Vec<String>) -> Result<Sasl> {
    let Some(name) = properties.text("sasl.mechanism") else {
        return Err(configuration(format!("property `sasl.mechanism` is missing; it is {MECHANISMS}")));
    };
    let mechanism = name.to_ascii_uppercase();
    handlers(properties, &mechanism)?;
    let jaas = properties.secret("sasl.jaas.config");
    let jaas = jaas.as_ref().and_then(Secret::expose_str).map(Jaas::parse).transpose();
    let jaas = jaas.map_err(|why| configuration(format!("property `sasl.jaas.config`: {why}")))?;
    let jaas = jaas.as_ref();
    let (wanted, known): (&str, &[&str]) = match mechanism.as_str() {
        "PLAIN" => ("PlainLoginModule", &PASSWORD_OPTIONS),
        "SCRAM-SHA-256" | "SCRAM-SHA-512" => ("ScramLoginModule", &PASSWORD_OPTIONS),
        #[cfg(feature = "oauth")]
        "OAUTHBEARER" => ("OAuthBearerLoginModule", &tokens::OPTIONS),
        #[cfg(not(feature = "oauth"))]
        "OAUTHBEARER" => return Err(not_built_in("OAUTHBEARER", "oauth")),
        #[cfg(feature = "aws-msk-iam")]
        "AWS_MSK_IAM" => ("IAMLoginModule", &AWS_OPTIONS),
        #[cfg(not(feature = "aws-msk-iam"))]
        "AWS_MSK_IAM" => return Err(not_built_in("AWS_MSK_IAM", "aws-msk-iam")),
        "GSSAPI" => {
            return Err(configuration(
                "property `sasl.mechanism`: GSSAPI is not built in; use a crate with an implementation, and pass it to \
                 `Sasl::mechanism`",
            ));
        }
        _ => return Err(refused("sasl.mechanism", name, MECHANISMS)),
    };
    if let Some(jaas) = jaas {
        module(jaas, wanted, known)?;
    }
    let sasl = match mechanism.as_str() {
        "PLAIN" => {
            let (username, password) = credentials(properties, jaas)?;
            Sasl::mechanism(Plain::new(username, password))
        }
        "SCRAM-SHA-256" => scram(properties, jaas, ScramHash::Sha256)?,
        #[cfg(feature = "oauth")]
        "OAUTHBEARER" => tokens::oauth_bearer(properties, jaas, network, unused)?,
        #[cfg(feature = "aws-msk-iam")]
        "AWS_MSK_IAM" => msk_iam(jaas)?,
        _ => scram(properties, jaas, ScramHash::Sha512)?,
    };
    unused.extend(jaas.into_iter().flat_map(|jaas| jaas.unread(known)));
    Ok(sasl)
}

#[cfg(not(all(feature = "oauth", feature = "aws-msk-iam")))]
fn not_built_in(mechanism: &str, feature: &str) -> crate::error::Error {
    configuration(format!(
        "property `sasl.mechanism`: {mechanism} is not built in; enable the feature `{feature}` of the crate `ottla`"
    ))
}

const PASSWORD_OPTIONS: [&str; 4] = ["username", "password", "tokenauth", "serviceName"];

#[cfg(feature = "aws-msk-iam")]
const AWS_OPTIONS: [&str; 6] =
    ["awsProfileName", "awsStsRegion", "awsDebugCreds", "awsMaxRetries", "awsMaxBackOffTimeMs", "awsRole*"];

/// Java classes with a built-in counterpart, and their mechanisms.
const HANDLERS: [(&str, &str); 2] =
    [("OAuthBearerLoginCallbackHandler", "OAUTHBEARER"), ("IAMClientCallbackHandler", "AWS_MSK_IAM")];

fn handlers(properties: &Reading<'_>, mechanism: &str) -> Result<()> {
    for name in ["sasl.login.callback.handler.class", "sasl.client.callback.handler.class"] {
        let Some(class) = properties.text(name) else { continue };
        let class = class.rsplit('.').next().unwrap_or_default();
        match HANDLERS.iter().find(|(known, _)| *known == class) {
            Some((_, of)) if *of == mechanism => {}
            Some((known, of)) => {
                return Err(configuration(format!("property `{name}`: {known} belongs to the mechanism {of}")));
            }
            None => {
                return Err(configuration(format!(
                    "property `{name}`: it names a class of the JVM that has no counterpart here; pass the client a \
                     `TokenSource` or a `Mechanism`"
                )));
            }
        }
    }
    Ok(())
}

/// Checks that the login module is the one that the mechanism needs, and that it knows all options.
fn module(jaas: &Jaas, wanted: &str, known: &[&str]) -> Result<()> {
    if jaas.module != wanted {
        return Err(configuration(format!(
            "property `sasl.jaas.config`: its module is another one, and the mechanism needs {wanted}"
        )));
    }
    match jaas.stranger(known) {
        None => Ok(()),
        Some(at) => Err(configuration(format!(
            "property `sasl.jaas.config`: option {at} is not known, and may be a part of a value that should be in \
             quotes; {wanted} has the options {}",
            known.join(", ")
        ))),
    }
}

fn credentials(properties: &Reading<'_>, jaas: Option<&Jaas>) -> Result<(String, Secret)> {
    let own = (properties.raw("sasl.username"), properties.secret("sasl.password"));
    match (own, jaas) {
        ((None, None), Some(jaas)) => {
            let missing = |name: &str| configuration(format!("property `sasl.jaas.config`: it has no `{name}`"));
            let username = jaas.text("username").ok_or_else(|| missing("username"))?;
            let password = jaas.get("password").ok_or_else(|| missing("password"))?;
            Ok((username.to_owned(), password.clone()))
        }
        ((None, None), None) => Err(configuration(
            "the mechanism needs credentials: set `sasl.jaas.config`, or `sasl.username` and `sasl.password`",
        )),
        (_, Some(_)) => Err(configuration(
            "both `sasl.jaas.config` and `sasl.username` or `sasl.password` are set; set one of them",
        )),
        ((Some(username), Some(password)), None) => Ok((username.to_owned(), password)),
        ((None, _), None) => Err(configuration("property `sasl.password` is set without `sasl.username`")),
        ((_, None), None) => Err(configuration("property `sasl.username` is set without `sasl.password`")),
    }
}

fn scram(properties: &Reading<'_>, jaas: Option<&Jaas>, hash: ScramHash) -> Result<Sasl> {
    let (username, password) = credentials(properties, jaas)?;
    let token = match jaas.and_then(|jaas| jaas.text("tokenauth")) {
        None => false,
        Some(value) => parse::boolean(value).ok_or_else(|| {
            configuration(format!("property `sasl.jaas.config`: `tokenauth` is not {}", parse::BOOLEAN))
        })?,
    };
    Ok(Sasl::mechanism(Scram::new(hash, username, password).delegation_token(token)))
}

#[cfg(feature = "aws-msk-iam")]
fn msk_iam(jaas: Option<&Jaas>) -> Result<Sasl> {
    let mut mechanism = AwsMskIam::new();
    let Some(jaas) = jaas else { return Ok(Sasl::mechanism(mechanism)) };
    if jaas.has_below("awsRole") {
        return Err(configuration(
            "property `sasl.jaas.config`: `awsRole…` asks to assume a role, which is not built in; pass the role's \
             credentials with `AwsMskIam::credentials`, or by a web identity (AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN)",
        ));
    }
    if let Some(profile) = jaas.text("awsProfileName") {
        mechanism = mechanism.profile(profile);
    }
    if let Some(region) = jaas.text("awsStsRegion") {
        if !is_region(region) {
            return Err(configuration(
                "property `sasl.jaas.config`: `awsStsRegion` is not the name of a region, such as eu-west-1",
            ));
        }
        mechanism = mechanism.sts_region(region);
    }
    Ok(Sasl::mechanism(mechanism))
}
