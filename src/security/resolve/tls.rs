//! The properties `ssl.*`.

use std::path::Path;

#[cfg(feature = "oauth")]
use super::SecurityProperties;
use super::{Reading, configuration, refused};
#[cfg(feature = "oauth")]
use crate::security::jaas::Jaas;
use crate::{
    config::parse,
    error::Result,
    security::{FilePath, Secret, Tls, tls::Source},
};

pub(super) fn tls(properties: &Reading<'_>) -> Result<Tls> {
    let tls = identity(properties, roots(properties, Tls::new())?)?;
    let tls = versions(properties, tls)?;
    verification(properties, tls)
}

fn roots(properties: &Reading<'_>, mut tls: Tls) -> Result<Tls> {
    if let Some(path) = properties.text("ssl.ca.location") {
        // librdkafka's value for the certificates of the system.
        tls = if path == "probe" { system(tls)? } else { tls.ca_file(path) };
    }
    for name in ["ssl.ca.pem", "ssl.truststore.certificates"] {
        if let Some(pem) = properties.secret(name) {
            tls = tls.ca_pem(pem);
        }
    }
    if let Some(path) = properties.text("ssl.truststore.location") {
        tls = match store(properties, "ssl.truststore.type", path)? {
            Store::Pem => tls.ca_file(path),
            Store::Pkcs12 => trust_pkcs12(tls, path, properties.secret("ssl.truststore.password"))?,
        };
    }
    Ok(tls)
}

#[cfg(feature = "native-roots")]
fn system(tls: Tls) -> Result<Tls> {
    Ok(tls.native_roots())
}

#[cfg(not(feature = "native-roots"))]
fn system(_tls: Tls) -> Result<Tls> {
    let message = "property `ssl.ca.location`: `probe` needs the feature `native-roots` of this crate; leave it out to \
                   trust public certificate authorities";
    Err(configuration(message))
}

#[cfg(feature = "pkcs12")]
fn trust_pkcs12(tls: Tls, path: &str, password: Option<Secret>) -> Result<Tls> {
    Ok(tls.ca_pkcs12_file(path, password.unwrap_or_default()))
}

#[cfg(not(feature = "pkcs12"))]
fn trust_pkcs12(_tls: Tls, path: &str, _password: Option<Secret>) -> Result<Tls> {
    Err(no_pkcs12(path))
}

#[cfg(feature = "pkcs12")]
fn identify_pkcs12(tls: Tls, path: &str, password: Option<Secret>) -> Result<Tls> {
    Ok(tls.client_certificate_pkcs12_file(path, password.unwrap_or_default()))
}

#[cfg(not(feature = "pkcs12"))]
fn identify_pkcs12(_tls: Tls, path: &str, _password: Option<Secret>) -> Result<Tls> {
    Err(no_pkcs12(path))
}

#[cfg(not(feature = "pkcs12"))]
fn no_pkcs12(path: &str) -> crate::error::Error {
    configuration(format!(
        "{}: PKCS#12 stores need the feature `pkcs12` of this crate; enable it, or convert the store to PEM",
        FilePath::new(path)
    ))
}

enum Store {
    Pem,
    Pkcs12,
}

/// Returns the kind of a store: by the property, else by the extension of the file.
fn store(properties: &Reading<'_>, property: &str, path: &str) -> Result<Store> {
    const JKS: &str =
        "only Java reads JKS; convert it to PKCS#12 (`keytool -importkeystore -deststoretype PKCS12`) or PEM";
    match properties.text(property) {
        Some(kind) if kind.eq_ignore_ascii_case("JKS") => Err(configuration(format!("property `{property}`: {JKS}"))),
        Some(kind) => parse::one_of(kind, &[("PEM", true), ("PKCS12", false)])
            .map(|pem| if pem { Store::Pem } else { Store::Pkcs12 })
            .ok_or_else(|| refused(property, kind, "PEM or PKCS12")),
        None => {
            let ending = Path::new(path).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            match ending.to_ascii_lowercase().as_str() {
                "jks" => Err(configuration(format!("{}: {JKS}", FilePath::new(path)))),
                "p12" | "pfx" | "pkcs12" => Ok(Store::Pkcs12),
                _ => Ok(Store::Pem),
            }
        }
    }
}

fn identity(properties: &Reading<'_>, tls: Tls) -> Result<Tls> {
    let file = |name: &str| properties.text(name).map(Source::file);
    let pem = |name: &str| properties.secret(name).map(Source::Text);
    let mut found: Vec<(&str, Source, Option<Source>)> = Vec::new();
    for (name, chain) in [
        ("ssl.certificate.location", file("ssl.certificate.location")),
        ("ssl.certificate.pem", pem("ssl.certificate.pem")),
        ("ssl.keystore.certificate.chain", pem("ssl.keystore.certificate.chain")),
    ] {
        let key = || file("ssl.key.location").or_else(|| pem("ssl.key.pem")).or_else(|| pem("ssl.keystore.key"));
        found.extend(chain.map(|chain| (name, chain, key())));
    }
    let mut tls = tls;
    if let Some(path) = properties.text("ssl.keystore.location") {
        let source = Source::file(path);
        match store(properties, "ssl.keystore.type", path)? {
            Store::Pem => found.push(("ssl.keystore.location", source.clone(), Some(source))),
            Store::Pkcs12 if found.is_empty() => {
                let password =
                    properties.secret("ssl.keystore.password").or_else(|| properties.secret("ssl.key.password"));
                return identify_pkcs12(tls, path, password);
            }
            Store::Pkcs12 => found.push(("ssl.keystore.location", source, None)),
        }
    }
    match found.as_slice() {
        [] => {
            match ["ssl.key.location", "ssl.key.pem", "ssl.keystore.key"].iter().find(|n| properties.text(n).is_some())
            {
                None => return Ok(tls),
                Some(name) => {
                    return Err(configuration(format!(
                        "property `{name}` is set without its certificate (ssl.certificate.location, \
                     ssl.keystore.certificate.chain)"
                    )));
                }
            }
        }
        [(name, _, None)] => {
            return Err(configuration(format!(
                "property `{name}` is set without its key (ssl.key.location, ssl.keystore.key)"
            )));
        }
        [(_, chain, Some(key))] => tls = tls.identity(chain.clone(), key.clone()),
        [(one, ..), (other, ..), ..] => {
            return Err(configuration(format!(
                "properties `{one}` and `{other}` both name a client certificate; set one of them"
            )));
        }
    }
    // The key's password of a PEM key store may be in either property.
    let password = properties.secret("ssl.key.password").or_else(|| properties.secret("ssl.keystore.password"));
    Ok(match password {
        Some(password) => tls.client_key_password(password),
        None => tls,
    })
}

fn versions(properties: &Reading<'_>, tls: Tls) -> Result<Tls> {
    let name = "ssl.enabled.protocols";
    let version = |name: &str, value: &str| {
        let known = [("TLSv1.2", 2), ("TLSv1.3", 3)];
        parse::one_of(value, &known).ok_or_else(|| refused(name, value, "TLSv1.3, TLSv1.2"))
    };
    // Java's `ssl.protocol` limits the newest version; `ssl.enabled.protocols` lists the versions
    // that are offered.
    let newest = properties.text("ssl.protocol").filter(|value| !value.eq_ignore_ascii_case("TLS"));
    let newest = newest.map(|value| version("ssl.protocol", value)).transpose()?.unwrap_or(3);
    let enabled = match properties.text(name) {
        None => vec![2, 3],
        Some(value) => parse::list(value).map(|value| version(name, value)).collect::<Result<Vec<i32>>>()?,
    };
    let has = |version| version <= newest && enabled.contains(&version);
    match (has(2), has(3)) {
        (true, true) => Ok(tls),
        (true, false) => Ok(tls.only_tls_1_2()),
        (false, true) => Ok(tls.only_tls_1_3()),
        (false, false) => Err(configuration(format!("property `{name}` and `ssl.protocol` leave no version of TLS"))),
    }
}

fn verification(properties: &Reading<'_>, tls: Tls) -> Result<Tls> {
    let name = "ssl.endpoint.identification.algorithm";
    let tls = match properties.raw(name).map(str::trim) {
        None => tls,
        Some(value) if value.eq_ignore_ascii_case("https") => tls,
        // Java's value is empty, librdkafka's is `none`.
        Some(value) if value.is_empty() || value.eq_ignore_ascii_case("none") => tls.dangerously_accept_any_host_name(),
        Some(value) => return Err(refused(name, value, "https, or nothing to accept any host name")),
    };
    Ok(match properties.boolean("enable.ssl.certificate.verification", true)? {
        true => tls,
        false => tls.dangerously_accept_any_certificate(),
    })
}

#[cfg(feature = "oauth")]
/// Properties of TLS that a login module accepts as options for its token endpoint.
const NAMES: [&str; 13] = [
    "ssl.enabled.protocols",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.protocol",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

#[cfg(feature = "oauth")]
/// Returns the TLS settings of a token endpoint: the `ssl.*` among a login module's options, and
/// `https.ca.*`. Adds options that have no effect to `unused`.
///
/// # Errors
/// `Configuration` for an option that is not known, or not allowed.
pub(super) fn https(properties: &Reading<'_>, jaas: Option<&Jaas>, unused: &mut Vec<String>) -> Result<Option<Tls>> {
    let mut options = SecurityProperties::default();
    for (name, value) in jaas.into_iter().flat_map(|jaas| jaas.below("ssl.")) {
        let known = NAMES.iter().find(|known| known.strip_prefix("ssl.") == Some(name)).ok_or_else(|| {
            let names = NAMES.join(", ");
            configuration(format!(
                "property `sasl.jaas.config`: one of its `ssl.` options is not known; allowed: {names}"
            ))
        })?;
        options.set(known, value);
    }
    let mut result = None;
    if options.any().is_some() {
        let options = Reading::new(&options);
        let in_jaas = |error: crate::error::Error| error.context("property `sasl.jaas.config`");
        result = Some(tls(&options).map_err(in_jaas)?);
        unused.extend(options.unread().into_iter().map(|name| format!("{name} of sasl.jaas.config")));
    }
    if let Some(path) = properties.text("https.ca.location") {
        result = Some(result.unwrap_or_else(Tls::new).ca_file(path));
    }
    if let Some(pem) = properties.secret("https.ca.pem") {
        result = Some(result.unwrap_or_else(Tls::new).ca_pem(pem));
    }
    Ok(result)
}
