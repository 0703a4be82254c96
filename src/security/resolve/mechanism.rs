//! `sasl.mechanism` and the credentials for it.

use std::sync::Arc;

use super::{SecurityProperties, configuration, tokens};
use crate::{
    error::Result,
    net::Network,
    security::{AwsMskIam, Plain, Sasl, Scram, ScramHash, Secret, jaas::Jaas},
};

const MECHANISMS: &str = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM";

pub(super) fn sasl(properties: &SecurityProperties, network: &Arc<dyn Network>) -> Result<Sasl> {
    let Some(mechanism) = properties.text("sasl.mechanism") else {
        return Err(configuration(format!("property `sasl.mechanism` is missing; it is {MECHANISMS}")));
    };
    for name in ["sasl.login.callback.handler.class", "sasl.client.callback.handler.class"] {
        if let Some(class) = properties.text(name) {
            let known = ["OAuthBearerLoginCallbackHandler", "IAMClientCallbackHandler"];
            if !known.contains(&class.rsplit('.').next().unwrap_or_default()) {
                return Err(configuration(format!(
                    "property `{name}`: it names a class of the JVM that has no counterpart here; give the client a \
                     `TokenSource` or a `Mechanism`"
                )));
            }
        }
    }
    let jaas = properties.secret("sasl.jaas.config");
    let jaas = jaas.as_ref().and_then(Secret::expose_str).map(Jaas::parse).transpose();
    let jaas = jaas.map_err(|why| configuration(format!("property `sasl.jaas.config`: {why}")))?;
    let jaas = jaas.as_ref();
    match mechanism.to_ascii_uppercase().as_str() {
        "PLAIN" => {
            let (username, password, _) = credentials(properties, jaas, "PlainLoginModule")?;
            Ok(Sasl::mechanism(Plain::new(username, password)))
        }
        "SCRAM-SHA-256" => scram(properties, jaas, ScramHash::Sha256),
        "SCRAM-SHA-512" => scram(properties, jaas, ScramHash::Sha512),
        "OAUTHBEARER" => tokens::oauth_bearer(properties, jaas, network),
        "AWS_MSK_IAM" => msk_iam(jaas),
        "GSSAPI" => Err(configuration(
            "property `sasl.mechanism`: GSSAPI is not built in; a crate that has it gives its mechanism to \
             `Sasl::mechanism`",
        )),
        _ => Err(super::refused("sasl.mechanism", mechanism, MECHANISMS)),
    }
}

/// A login module that is the one that the mechanism needs, with no option that nobody knows.
pub(super) fn module(jaas: &Jaas, wanted: &str, known: &[&str]) -> Result<()> {
    if jaas.module != wanted {
        return Err(configuration(format!(
            "property `sasl.jaas.config`: its module is another one, and the mechanism needs {wanted}"
        )));
    }
    match jaas.stranger(known) {
        None => Ok(()),
        Some(at) => Err(configuration(format!(
            "property `sasl.jaas.config`: option {at} is not known, and may be a part of a value that should stand in \
             quotes; {wanted} has {}",
            known.join(", ")
        ))),
    }
}

fn credentials(properties: &SecurityProperties, jaas: Option<&Jaas>, wanted: &str) -> Result<(String, Secret, bool)> {
    let own = (properties.raw("sasl.username"), properties.secret("sasl.password"));
    match (own, jaas) {
        ((None, None), Some(jaas)) => {
            module(jaas, wanted, &["username", "password", "tokenauth", "serviceName"])?;
            let missing = |name: &str| configuration(format!("property `sasl.jaas.config`: it has no `{name}`"));
            let username = jaas.text("username").ok_or_else(|| missing("username"))?;
            let password = jaas.get("password").ok_or_else(|| missing("password"))?;
            let token = jaas.text("tokenauth").is_some_and(|token| token.eq_ignore_ascii_case("true"));
            Ok((username.to_owned(), password.clone(), token))
        }
        ((None, None), None) => Err(configuration(
            "the mechanism needs credentials: set `sasl.jaas.config`, or `sasl.username` and `sasl.password`",
        )),
        (_, Some(_)) => Err(configuration(
            "both `sasl.jaas.config` and `sasl.username` or `sasl.password` are set; give one of them",
        )),
        ((Some(username), Some(password)), None) => Ok((username.to_owned(), password, false)),
        ((None, _), None) => Err(configuration("property `sasl.password` is set without `sasl.username`")),
        ((_, None), None) => Err(configuration("property `sasl.username` is set without `sasl.password`")),
    }
}

fn scram(properties: &SecurityProperties, jaas: Option<&Jaas>, hash: ScramHash) -> Result<Sasl> {
    let (username, password, token) = credentials(properties, jaas, "ScramLoginModule")?;
    Ok(Sasl::mechanism(Scram::new(hash, username, password).delegation_token(token)))
}

fn msk_iam(jaas: Option<&Jaas>) -> Result<Sasl> {
    let mut mechanism = AwsMskIam::new();
    if let Some(jaas) = jaas {
        let known = ["awsProfileName", "awsStsRegion", "awsDebugCreds", "awsMaxRetries", "awsMaxBackOffTimeMs"];
        module(jaas, "IAMLoginModule", &known)?;
        if let Some(profile) = jaas.text("awsProfileName") {
            mechanism = mechanism.profile(profile);
        }
        if let Some(region) = jaas.text("awsStsRegion") {
            mechanism = mechanism.sts_region(region);
        }
    }
    Ok(Sasl::mechanism(mechanism))
}
