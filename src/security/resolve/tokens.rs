//! The properties of OAUTHBEARER: Java's (KIP-768, KIP-1139, KIP-1258), librdkafka's, and the
//! options of Java's login module.

use std::{sync::Arc, time::Duration};

use super::{Reading, configuration, refused};
#[cfg(feature = "tls")]
use crate::security::{JwtAlgorithm, JwtBearer};
use crate::{
    config::parse,
    error::Result,
    net::{BoxFuture, Network},
    security::{
        OauthBearer, Oidc, Sasl, Token, TokenFile, TokenSource, UnsecuredToken, jaas::Jaas, oauth::RefreshSettings,
    },
};

const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";

const RETRIEVER: &str = "sasl.oauthbearer.jwt.retriever.class";
const GRANT: &str = "sasl.oauthbearer.grant.type";
const CLIENT_ID: &str = "sasl.oauthbearer.client.credentials.client.id";
const CLIENT_SECRET: &str = "sasl.oauthbearer.client.credentials.client.secret";
#[cfg(feature = "tls")]
const ASSERTION_FILE: &str = "sasl.oauthbearer.assertion.file";
#[cfg(feature = "tls")]
const KEY_FILE: &str = "sasl.oauthbearer.assertion.private.key.file";
#[cfg(feature = "tls")]
const ISSUER: &str = "sasl.oauthbearer.assertion.claim.iss";

/// Options of Java's login module.
pub(super) const OPTIONS: [&str; 13] = [
    "clientId",
    "clientSecret",
    "scope",
    "extension_*",
    "unsecuredLoginStringClaim_*",
    "unsecuredLoginNumberClaim_*",
    "unsecuredLoginListClaim_*",
    "unsecuredLoginExtension_*",
    "unsecuredLoginLifetimeSeconds",
    "unsecuredLoginPrincipalClaimName",
    "unsecuredLoginScopeClaimName",
    "ssl.*",
    "serviceName",
];

/// A source of any type.
#[derive(Debug)]
struct Any(Box<dyn TokenSource>);

impl TokenSource for Any {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        self.0.token()
    }
}

pub(super) fn oauth_bearer(
    properties: &Reading<'_>,
    jaas: Option<&Jaas>,
    network: &Arc<dyn Network>,
    unused: &mut Vec<String>,
) -> Result<Sasl> {
    let source = Any(source(properties, jaas, network, unused)?);
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

fn refresh(properties: &Reading<'_>) -> Result<RefreshSettings> {
    let java = RefreshSettings::default();
    let name = |end: &str| format!("sasl.login.refresh.{end}");
    Ok(RefreshSettings {
        window_factor: properties.fraction(&name("window.factor"), (0.5, 1.0), java.window_factor)?,
        window_jitter: properties.fraction(&name("window.jitter"), (0.0, 0.25), java.window_jitter)?,
        min_period: properties.seconds(&name("min.period.seconds"), 900, java.min_period)?,
        buffer: properties.seconds(&name("buffer.seconds"), 3600, java.buffer)?,
        retry_backoff: properties.millis("sasl.login.retry.backoff.ms", java.retry_backoff)?,
        retry_backoff_max: properties.millis("sasl.login.retry.backoff.max.ms", java.retry_backoff_max)?,
    })
}

fn source(
    properties: &Reading<'_>,
    jaas: Option<&Jaas>,
    network: &Arc<dyn Network>,
    unused: &mut Vec<String>,
) -> Result<Box<dyn TokenSource>> {
    let url = properties.text(ENDPOINT);
    let method = "sasl.oauthbearer.method";
    match (properties.text(method), url) {
        (None, _) | (Some("oidc"), Some(_)) | (Some("default"), None) => {}
        (Some("oidc"), None) => {
            return Err(configuration(format!("property `{method}` is oidc, which needs `{ENDPOINT}`")));
        }
        (Some("default"), Some(_)) => {
            return Err(configuration(format!(
                "property `{method}` is default, which uses no endpoint; set it to oidc, or leave out `{ENDPOINT}`"
            )));
        }
        (Some(value), _) => return Err(refused(method, value, "default or oidc")),
    }
    if let Some(url) = url {
        let grant = grant(properties, url)?;
        if let Grant::File(path) = grant {
            return Ok(Box::new(TokenFile::new(path)));
        }
        let endpoint = Endpoint { url, network, timeouts: timeouts(properties)?, scope: scope(properties, jaas) };
        return match grant {
            Grant::JwtBearer => endpoint.jwt_bearer(properties, jaas, unused),
            _ => endpoint.client_credentials(properties, jaas, unused),
        };
    }
    if properties.boolean("enable.sasl.oauthbearer.unsecure.jwt", false)? {
        return Ok(Box::new(unsecured_of_librdkafka(properties)?));
    }
    if let Some(jaas) = jaas.filter(|jaas| jaas.has_below("unsecuredLogin")) {
        return Ok(Box::new(unsecured_of_java(jaas)?));
    }
    Err(configuration(format!(
        "OAUTHBEARER needs tokens: set `{ENDPOINT}` (https:// or file:), or pass your own source to \
         `Sasl::oauth_bearer`"
    )))
}

/// The method by which tokens are obtained.
#[derive(Clone, Copy)]
enum Grant<'a> {
    File(&'a str),
    ClientCredentials,
    JwtBearer,
}

/// Returns the method by Java's retriever class (KIP-1139), or by librdkafka's grant type. The
/// default is client credentials, or a file if the URL names one.
fn grant<'a>(properties: &Reading<'_>, url: &'a str) -> Result<Grant<'a>> {
    let file = url.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path));
    let by_default = file.map_or(Grant::ClientCredentials, Grant::File);
    let needs_endpoint = |name: &str, grant| match file {
        None => Ok(grant),
        Some(_) => Err(configuration(format!("property `{name}` asks for an endpoint, and `{ENDPOINT}` names a file"))),
    };
    let retriever = properties.text(RETRIEVER);
    let by_retriever = match retriever.map(|class| class.rsplit('.').next().unwrap_or_default()) {
        None | Some("DefaultJwtRetriever") => None,
        Some("JwtBearerJwtRetriever") => Some(needs_endpoint(RETRIEVER, Grant::JwtBearer)?),
        Some("ClientCredentialsJwtRetriever") => Some(needs_endpoint(RETRIEVER, Grant::ClientCredentials)?),
        Some("FileJwtRetriever") if file.is_some() => Some(by_default),
        Some("FileJwtRetriever") => {
            return Err(configuration(format!(
                "property `{RETRIEVER}` reads a file, and `{ENDPOINT}` names none (file:)"
            )));
        }
        Some(class) => {
            let allowed =
                "DefaultJwtRetriever, ClientCredentialsJwtRetriever, JwtBearerJwtRetriever or FileJwtRetriever";
            return Err(refused(RETRIEVER, class, allowed));
        }
    };
    let by_grant = match properties.text(GRANT) {
        None => None,
        Some("client_credentials") => Some(needs_endpoint(GRANT, Grant::ClientCredentials)?),
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer" | "jwt-bearer" | "jwt_bearer") => {
            Some(needs_endpoint(GRANT, Grant::JwtBearer)?)
        }
        Some(grant) => {
            return Err(refused(GRANT, grant, "client_credentials or urn:ietf:params:oauth:grant-type:jwt-bearer"));
        }
    };
    match (by_retriever, by_grant) {
        (Some(Grant::JwtBearer), Some(Grant::ClientCredentials))
        | (Some(Grant::ClientCredentials), Some(Grant::JwtBearer)) => Err(configuration(format!(
            "properties `{RETRIEVER}` and `{GRANT}` ask for different grants; set one of them"
        ))),
        (retriever, grant) => Ok(retriever.or(grant).unwrap_or(by_default)),
    }
}

fn timeouts(properties: &Reading<'_>) -> Result<(Duration, Duration)> {
    let default = Duration::from_secs(10);
    Ok((
        properties.millis("sasl.login.connect.timeout.ms", default)?,
        properties.millis("sasl.login.read.timeout.ms", default)?,
    ))
}

fn scope(properties: &Reading<'_>, jaas: Option<&Jaas>) -> Option<String> {
    let scope = properties.text("sasl.oauthbearer.scope").or_else(|| jaas?.text("scope"));
    scope.map(str::to_owned)
}

fn client_id<'a>(properties: &Reading<'a>, jaas: Option<&'a Jaas>) -> Option<&'a str> {
    properties.text(CLIENT_ID).or_else(|| jaas?.text("clientId"))
}

/// A token endpoint with the settings that all grants share.
struct Endpoint<'a> {
    url: &'a str,
    network: &'a Arc<dyn Network>,
    timeouts: (Duration, Duration),
    scope: Option<String>,
}

impl Endpoint<'_> {
    /// Returns a source of the client credentials grant: with an assertion if there is one
    /// (KIP-1258), else with the client's secret. As in Java, a file with an assertion takes
    /// precedence over an assertion that is signed here, and both over a secret.
    fn client_credentials(
        self,
        properties: &Reading<'_>,
        jaas: Option<&Jaas>,
        unused: &mut Vec<String>,
    ) -> Result<Box<dyn TokenSource>> {
        let client_secret = || properties.secret(CLIENT_SECRET).or_else(|| jaas?.get("clientSecret").cloned());
        #[cfg(feature = "tls")]
        {
            let has = |name| properties.has(name);
            let has_secret =
                || properties.has(CLIENT_SECRET) || jaas.is_some_and(|jaas| jaas.has_below("clientSecret"));
            // Java signs an assertion if there is an issuer; a key alone would have no effect
            // there.
            if has(ASSERTION_FILE) || has(ISSUER) || (has(KEY_FILE) && !has_secret()) {
                let source = self.assertion(properties)?.client_assertion();
                let source = match client_id(properties, jaas) {
                    Some(id) => source.client_id(id),
                    None => source,
                };
                return Ok(Box::new(self.reach(source, properties, jaas, unused)?));
            }
        }
        let missing = |name: &str| {
            configuration(format!(
                "property `{name}` is missing, which client credentials need (`clientId` and `clientSecret` of \
                 `sasl.jaas.config` do as well), unless there is an assertion (sasl.oauthbearer.assertion.*)"
            ))
        };
        let id = client_id(properties, jaas).ok_or_else(|| missing(CLIENT_ID))?;
        let secret = client_secret().ok_or_else(|| missing(CLIENT_SECRET))?;
        let mut oidc = Oidc::client_credentials(self.url, id, secret)?
            .urlencode_header(properties.boolean("sasl.oauthbearer.header.urlencode", false)?)
            .timeouts(self.timeouts.0, self.timeouts.1)
            .network(Arc::clone(self.network));
        if let Some(scope) = self.scope {
            oidc = oidc.scope(scope);
        }
        #[cfg(feature = "tls")]
        if is_https(self.url)
            && let Some(tls) = super::tls::https(properties, jaas, unused)?
        {
            oidc = oidc.tls(tls)?;
        }
        #[cfg(not(feature = "tls"))]
        let _ = unused;
        Ok(Box::new(oidc))
    }

    /// Returns a source of the JWT bearer grant.
    #[cfg(feature = "tls")]
    fn jwt_bearer(
        self,
        properties: &Reading<'_>,
        jaas: Option<&Jaas>,
        unused: &mut Vec<String>,
    ) -> Result<Box<dyn TokenSource>> {
        let source = self.assertion(properties)?;
        Ok(Box::new(self.reach(source, properties, jaas, unused)?))
    }

    #[cfg(not(feature = "tls"))]
    fn jwt_bearer(
        self,
        _properties: &Reading<'_>,
        _jaas: Option<&Jaas>,
        _unused: &mut Vec<String>,
    ) -> Result<Box<dyn TokenSource>> {
        Err(configuration("the JWT bearer grant needs the feature `tls` of this crate for signing"))
    }

    /// Returns a source with the assertion of a file, or with one that is signed here.
    #[cfg(feature = "tls")]
    fn assertion(&self, properties: &Reading<'_>) -> Result<JwtBearer> {
        if let Some(file) = properties.text(ASSERTION_FILE) {
            return JwtBearer::from_file(self.url, file);
        }
        let Some(key) = properties.text(KEY_FILE) else {
            return Err(configuration(format!(
                "property `{KEY_FILE}` is missing, which an assertion needs (or `{ASSERTION_FILE}`)"
            )));
        };
        let name = |end: &str| format!("sasl.oauthbearer.assertion.{end}");
        let algorithm = name("algorithm");
        let algorithm = match properties.text(&algorithm) {
            None => JwtAlgorithm::Rs256,
            Some(value) => parse::one_of(value, &[("RS256", JwtAlgorithm::Rs256), ("ES256", JwtAlgorithm::Es256)])
                .ok_or_else(|| refused(&algorithm, value, "RS256 or ES256"))?,
        };
        let mut source = JwtBearer::signed(self.url, key)?
            .algorithm(algorithm)
            .assertion_lifetime(properties.seconds(&name("claim.exp.seconds"), 86_400, Duration::from_secs(300))?)
            .assertion_not_before(properties.seconds(&name("claim.nbf.seconds"), 3600, Duration::from_secs(60))?)
            .assertion_id(properties.boolean(&name("claim.jti.include"), false)?);
        if let Some(passphrase) = properties.secret(&name("private.key.passphrase")) {
            source = source.passphrase(passphrase);
        }
        for claim in ["aud", "iss", "sub"] {
            if let Some(value) = properties.text(&name(&format!("claim.{claim}"))) {
                source = source.claim(claim, value);
            }
        }
        Ok(source)
    }

    #[cfg(feature = "tls")]
    fn reach(
        self,
        source: JwtBearer,
        properties: &Reading<'_>,
        jaas: Option<&Jaas>,
        unused: &mut Vec<String>,
    ) -> Result<JwtBearer> {
        let mut source = source.timeouts(self.timeouts.0, self.timeouts.1).network(Arc::clone(self.network));
        if let Some(scope) = self.scope {
            source = source.scope(scope);
        }
        if is_https(self.url)
            && let Some(tls) = super::tls::https(properties, jaas, unused)?
        {
            source = source.tls(tls)?;
        }
        Ok(source)
    }
}

#[cfg(feature = "tls")]
fn is_https(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

/// Reads Java's options of unsecured tokens, such as `unsecuredLoginStringClaim_sub="alice"`
/// (KIP-255).
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
        // The first character of the value is the separator of the list.
        let mut values = value.chars();
        let between = values.next().unwrap_or('|');
        source = source.list_claim(name, values.as_str().split(between));
    }
    if let Some(seconds) = jaas.text("unsecuredLoginLifetimeSeconds") {
        let seconds = number("unsecuredLoginLifetimeSeconds", seconds)?;
        source = source.lifetime(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(3600)));
    }
    let principal = jaas.text("unsecuredLoginPrincipalClaimName").unwrap_or("sub");
    if jaas.below("unsecuredLoginStringClaim_").all(|(name, _)| name != principal) {
        let message = "property `sasl.jaas.config`: the unsecured token has no principal: set \
                       `unsecuredLoginStringClaim_sub`, or the claim that `unsecuredLoginPrincipalClaimName` names";
        return Err(configuration(message));
    }
    Ok(source)
}

/// Reads librdkafka's settings of unsecured tokens, such as
/// `sasl.oauthbearer.config=principal=alice scope=a,b lifeSeconds=60`.
fn unsecured_of_librdkafka(properties: &Reading<'_>) -> Result<UnsecuredToken> {
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
