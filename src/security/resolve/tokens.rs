//! OAUTHBEARER by properties: Java's (KIP-768, KIP-1139), librdkafka's, and the options of Java's login module.

use std::{sync::Arc, time::Duration};

use super::{SecurityProperties, configuration, mechanism::module, refused};
use crate::{
    config::parse,
    error::Result,
    net::{BoxFuture, Network},
    security::{
        OauthBearer, Oidc, Sasl, Token, TokenFile, TokenSource, UnsecuredToken, jaas::Jaas, oauth::RefreshSettings,
    },
};

const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";

const OPTIONS: [&str; 7] =
    ["clientId", "clientSecret", "scope", "extension_*", "unsecuredLogin*", "ssl.*", "serviceName"];

/// A source of any kind.
#[derive(Debug)]
struct Any(Box<dyn TokenSource>);

impl TokenSource for Any {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        self.0.token()
    }
}

pub(super) fn oauth_bearer(
    properties: &SecurityProperties,
    jaas: Option<&Jaas>,
    network: &Arc<dyn Network>,
) -> Result<Sasl> {
    if let Some(jaas) = jaas {
        module(jaas, "OAuthBearerLoginModule", &OPTIONS)?;
    }
    let source = Any(source(properties, jaas, network)?);
    let mut mechanism = OauthBearer::with_refresh(source, refresh(properties)?);
    let below =
        jaas.into_iter().flat_map(|jaas| jaas.below("extension_").chain(jaas.below("unsecuredLoginExtension_")));
    for (name, value) in below {
        mechanism = mechanism.extension(name, value);
    }
    for pair in parse::list(properties.text("sasl.oauthbearer.extensions").unwrap_or_default()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| refused("sasl.oauthbearer.extensions", pair, "name=value, with commas between them"))?;
        mechanism = mechanism.extension(name.trim(), value.trim());
    }
    Ok(Sasl::mechanism(mechanism))
}

fn refresh(properties: &SecurityProperties) -> Result<RefreshSettings> {
    let java = RefreshSettings::default();
    let name = |end: &str| format!("sasl.login.refresh.{end}");
    Ok(RefreshSettings {
        window_factor: properties.fraction(&name("window.factor"), (0.5, 1.0), java.window_factor)?,
        window_jitter: properties.fraction(&name("window.jitter"), (0.0, 0.25), java.window_jitter)?,
        min_period: properties.seconds(&name("min.period.seconds"), java.min_period)?,
        buffer: properties.seconds(&name("buffer.seconds"), java.buffer)?,
        retry_backoff: properties.millis("sasl.login.retry.backoff.ms", java.retry_backoff)?,
        retry_backoff_max: properties.millis("sasl.login.retry.backoff.max.ms", java.retry_backoff_max)?,
    })
}

fn source(
    properties: &SecurityProperties,
    jaas: Option<&Jaas>,
    network: &Arc<dyn Network>,
) -> Result<Box<dyn TokenSource>> {
    if let Some(url) = properties.text(ENDPOINT) {
        if let Some(path) = url.strip_prefix("file:") {
            return Ok(Box::new(TokenFile::new(path.strip_prefix("//").unwrap_or(path))));
        }
        return match is_jwt_bearer(properties)? {
            true => jwt_bearer(properties, jaas, network, url),
            false => client_credentials(properties, jaas, network, url),
        };
    }
    if properties.boolean("enable.sasl.oauthbearer.unsecure.jwt", false)? {
        return Ok(Box::new(unsecured_of_librdkafka(properties)?));
    }
    if let Some(jaas) = jaas.filter(|jaas| jaas.below("unsecuredLogin").next().is_some()) {
        return Ok(Box::new(unsecured_of_java(jaas)?));
    }
    Err(configuration(format!(
        "OAUTHBEARER needs tokens: set `{ENDPOINT}` (https:// or file:), or give a source of your own with \
         `Sasl::oauth_bearer`"
    )))
}

/// Which grant is meant: as the retriever's class says, else by what is there for it.
fn is_jwt_bearer(properties: &SecurityProperties) -> Result<bool> {
    let name = "sasl.oauthbearer.jwt.retriever.class";
    if let Some(class) = properties.text(name) {
        return match class.rsplit('.').next().unwrap_or_default() {
            "JwtBearerJwtRetriever" => Ok(true),
            "ClientCredentialsJwtRetriever" => Ok(false),
            "DefaultJwtRetriever" => Ok(has_assertion(properties)),
            _ => {
                Err(refused(name, class, "DefaultJwtRetriever, ClientCredentialsJwtRetriever or JwtBearerJwtRetriever"))
            }
        };
    }
    let name = "sasl.oauthbearer.grant.type";
    match properties.text(name) {
        None => Ok(has_assertion(properties)),
        Some("client_credentials") => Ok(false),
        Some(grant) if grant.ends_with("jwt-bearer") => Ok(true),
        Some(grant) => Err(refused(name, grant, "client_credentials, urn:ietf:params:oauth:grant-type:jwt-bearer")),
    }
}

fn has_assertion(properties: &SecurityProperties) -> bool {
    ["sasl.oauthbearer.assertion.file", "sasl.oauthbearer.assertion.private.key.file"]
        .iter()
        .any(|name| properties.text(name).is_some())
}

fn timeouts(properties: &SecurityProperties) -> Result<(Duration, Duration)> {
    let default = Duration::from_secs(10);
    Ok((
        properties.millis("sasl.login.connect.timeout.ms", default)?,
        properties.millis("sasl.login.read.timeout.ms", default)?,
    ))
}

fn scope(properties: &SecurityProperties, jaas: Option<&Jaas>) -> Option<String> {
    let scope = properties.text("sasl.oauthbearer.scope").or_else(|| jaas?.text("scope"));
    scope.map(str::to_owned)
}

fn client_credentials(
    properties: &SecurityProperties,
    jaas: Option<&Jaas>,
    network: &Arc<dyn Network>,
    url: &str,
) -> Result<Box<dyn TokenSource>> {
    let id = "sasl.oauthbearer.client.credentials.client.id";
    let secret = "sasl.oauthbearer.client.credentials.client.secret";
    let missing = |name: &str| {
        configuration(format!(
            "property `{name}` is missing, which client credentials need (`clientId` and \
                               `clientSecret` of `sasl.jaas.config` do as well)"
        ))
    };
    let client = properties.text(id).or_else(|| jaas?.text("clientId")).ok_or_else(|| missing(id))?;
    let secret =
        properties.secret(secret).or_else(|| jaas?.get("clientSecret").cloned()).ok_or_else(|| missing(secret))?;
    let (connect, read) = timeouts(properties)?;
    let mut oidc = Oidc::client_credentials(url, client, secret)?
        .urlencode_header(properties.boolean("sasl.oauthbearer.header.urlencode", false)?)
        .timeouts(connect, read)
        .network(Arc::clone(network));
    if let Some(scope) = scope(properties, jaas) {
        oidc = oidc.scope(scope);
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = super::tls::https(properties, jaas) {
        oidc = oidc.tls(tls)?;
    }
    Ok(Box::new(oidc))
}

#[cfg(feature = "tls")]
fn jwt_bearer(
    properties: &SecurityProperties,
    jaas: Option<&Jaas>,
    network: &Arc<dyn Network>,
    url: &str,
) -> Result<Box<dyn TokenSource>> {
    use crate::security::{JwtAlgorithm, JwtBearer};

    let name = |end: &str| format!("sasl.oauthbearer.assertion.{end}");
    let (connect, read) = timeouts(properties)?;
    let mut source = match (properties.text(&name("file")), properties.text(&name("private.key.file"))) {
        (Some(file), None) => JwtBearer::from_file(url, file)?,
        (None, Some(key)) => {
            let algorithm = name("algorithm");
            let algorithm = match properties.text(&algorithm) {
                None => JwtAlgorithm::Rs256,
                Some(value) => parse::one_of(value, &[("RS256", JwtAlgorithm::Rs256), ("ES256", JwtAlgorithm::Es256)])
                    .ok_or_else(|| refused(&algorithm, value, "RS256 or ES256"))?,
            };
            let mut source = JwtBearer::signed(url, key)?
                .algorithm(algorithm)
                .assertion_lifetime(properties.seconds(&name("claim.exp.seconds"), Duration::from_secs(300))?)
                .assertion_not_before(properties.seconds(&name("claim.nbf.seconds"), Duration::from_secs(60))?)
                .assertion_id(properties.boolean(&name("claim.jti.include"), false)?);
            if let Some(passphrase) = properties.secret(&name("private.key.passphrase")) {
                source = source.passphrase(passphrase);
            }
            for claim in ["aud", "iss", "sub"] {
                if let Some(value) = properties.text(&name(&format!("claim.{claim}"))) {
                    source = source.claim(claim, value);
                }
            }
            source
        }
        (Some(_), Some(_)) => {
            return Err(configuration(format!(
                "properties `{}` and `{}` are both set; give one of them",
                name("file"),
                name("private.key.file")
            )));
        }
        (None, None) => {
            return Err(configuration(format!(
                "property `{}` is missing, which the JWT bearer grant needs (or `{}`)",
                name("private.key.file"),
                name("file")
            )));
        }
    };
    source = source.timeouts(connect, read).network(Arc::clone(network));
    if let Some(scope) = scope(properties, jaas) {
        source = source.scope(scope);
    }
    if let Some(tls) = super::tls::https(properties, jaas) {
        source = source.tls(tls)?;
    }
    Ok(Box::new(source))
}

#[cfg(not(feature = "tls"))]
fn jwt_bearer(
    _properties: &SecurityProperties,
    _jaas: Option<&Jaas>,
    _network: &Arc<dyn Network>,
    _url: &str,
) -> Result<Box<dyn TokenSource>> {
    Err(configuration("the JWT bearer grant needs the feature `tls` of this crate, which signs"))
}

/// `unsecuredLoginStringClaim_sub="alice"` and its kind (KIP-255).
fn unsecured_of_java(jaas: &Jaas) -> Result<UnsecuredToken> {
    let mut source = UnsecuredToken::empty();
    let number = |name: &str, value: &str| {
        let parsed = value.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        parsed.ok_or_else(|| configuration(format!("property `sasl.jaas.config`: `{name}` is not a number")))
    };
    for (name, value) in jaas.below("unsecuredLoginStringClaim_") {
        source = source.claim(name, value);
    }
    for (name, value) in jaas.below("unsecuredLoginNumberClaim_") {
        source = source.number_claim(name, number(name, value)?);
    }
    for (name, value) in jaas.below("unsecuredLoginListClaim_") {
        // The first character is what stands between the others.
        let mut values = value.chars();
        let between = values.next().unwrap_or('|');
        source = source.list_claim(name, values.as_str().split(between));
    }
    if let Some(seconds) = jaas.text("unsecuredLoginLifetimeSeconds") {
        let seconds = number("unsecuredLoginLifetimeSeconds", seconds)?;
        source = source.lifetime(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(3600)));
    }
    if jaas.below("unsecuredLoginStringClaim_").next().is_none() {
        let message = "property `sasl.jaas.config`: the unsecured token has no principal \
                       (unsecuredLoginStringClaim_sub)";
        return Err(configuration(message));
    }
    Ok(source)
}

/// `sasl.oauthbearer.config=principal=alice scope=a,b lifeSeconds=60`.
fn unsecured_of_librdkafka(properties: &SecurityProperties) -> Result<UnsecuredToken> {
    let name = "sasl.oauthbearer.config";
    let allowed = "principal=… and, with spaces between them, principalClaimName=…, scope=…,…, scopeClaimName=…, \
                   lifeSeconds=…";
    let config =
        properties.text(name).ok_or_else(|| configuration(format!("property `{name}` is missing: {allowed}")))?;
    let mut pairs = config.split_whitespace().filter_map(|pair| pair.split_once('=')).collect::<Vec<_>>();
    let mut take = |wanted: &str| {
        let at = pairs.iter().position(|(name, _)| *name == wanted)?;
        Some(pairs.swap_remove(at).1)
    };
    let wrong = || configuration(format!("property `{name}` is not allowed; allowed: {allowed}"));
    let principal = take("principal").ok_or_else(wrong)?;
    let mut source = UnsecuredToken::empty().claim(take("principalClaimName").unwrap_or("sub"), principal);
    let scope_claim = take("scopeClaimName").unwrap_or("scope");
    if let Some(scope) = take("scope") {
        source = source.list_claim(scope_claim, scope.split(','));
    }
    if let Some(seconds) = take("lifeSeconds") {
        source = source.lifetime(Duration::from_secs(parse::within(seconds, 1..=315_360_000).ok_or_else(wrong)?));
    }
    if pairs.is_empty() { Ok(source) } else { Err(wrong()) }
}
