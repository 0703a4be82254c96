//! Tokens from the token endpoint of an identity provider: OAuth's client credentials grant
//! (KIP-768).

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::{Token, TokenSource, claims};
use crate::{
    error::{Error, ErrorKind, Result},
    log::{Origin, event},
    net::{BoxFuture, Network, Tcp},
    security::{
        Hidden, Secret,
        http::{Http, Request, Response, Url, encoded, form},
        json::Json,
        scrubbed,
    },
};

/// A token endpoint with the settings that all grants share.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    url: Url,
    pub(super) http: Http,
}

/// Gets tokens for a client's id and secret.
#[derive(Clone, Debug)]
pub struct Oidc {
    endpoint: Endpoint,
    client_id: Hidden<String>,
    client_secret: Secret,
    scope: Hidden<Option<String>>,
    urlencode: bool,
}

impl Oidc {
    /// Uses the token endpoint at that URL (`sasl.oauthbearer.token.endpoint.url`).
    ///
    /// # Errors
    /// `Configuration` if the URL is malformed, and for https without a crypto provider.
    pub fn client_credentials(
        token_endpoint: &str,
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> Result<Self> {
        Ok(Self {
            endpoint: Endpoint::new(token_endpoint)?,
            client_id: Hidden(client_id.into()),
            client_secret: client_secret.into(),
            scope: Hidden(None),
            urlencode: false,
        })
    }

    /// Sets the `scope` of the request (`sasl.oauthbearer.scope`). Default: none.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Hidden(Some(scope.into()));
        self
    }

    /// Sets whether id and secret are URL-encoded in the header, as RFC 6749 requires but not every
    /// provider expects (`sasl.oauthbearer.header.urlencode`). Default: false.
    pub fn urlencode_header(mut self, encode: bool) -> Self {
        self.urlencode = encode;
        self
    }

    /// Sets the timeouts of connecting and of the response (`sasl.login.connect.timeout.ms`,
    /// `sasl.login.read.timeout.ms`). Default: 10 s each.
    pub fn timeouts(mut self, connect: Duration, read: Duration) -> Self {
        self.endpoint.timeouts(connect, read);
        self
    }

    /// Sets the TLS settings of the endpoint, such as the trusted authorities. Default:
    /// [`Tls::new`](crate::security::Tls::new), which trusts public certificate authorities.
    ///
    /// # Errors
    /// `Configuration` without a crypto provider.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::security::Tls) -> Result<Self> {
        self.endpoint.tls(tls)?;
        Ok(self)
    }

    /// Sets the network for connections to the endpoint. Default: TCP.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.endpoint.http.network = network;
        self
    }

    async fn fetch(&self) -> Result<Token> {
        let secret = self.client_secret.expose_str().unwrap_or_default();
        let credentials = match self.urlencode {
            true => Zeroizing::new(format!("{}:{}", encoded(&self.client_id), *Zeroizing::new(encoded(secret)))),
            false => Zeroizing::new(format!("{}:{secret}", *self.client_id)),
        };
        let basic = Zeroizing::new(format!("Basic {}", *Zeroizing::new(BASE64.encode(&*credentials))));
        let mut fields = vec![("grant_type", "client_credentials")];
        fields.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let secrets = [secret, self.client_id.as_str(), basic.as_str()];
        self.endpoint.ask(vec![("Authorization", basic.clone())], &fields, &secrets).await
    }
}

impl TokenSource for Oidc {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        Box::pin(self.fetch())
    }
}

impl Endpoint {
    pub(super) fn new(url: &str) -> Result<Self> {
        let malformed = |why: String| {
            let message = format!("property `sasl.oauthbearer.token.endpoint.url`: {why}");
            Error::new(ErrorKind::Configuration, message)
        };
        let url = Url::parse(url).map_err(malformed)?;
        if !url.is_secure() && !url.is_local() {
            event!(
                WARN, Origin::current(), %url,
                "the token endpoint is not secured by TLS, so secrets and tokens can be read on the network; use an https URL"
            );
        }
        let endpoint = Self { url, http: Http::new(Arc::new(Tcp)) };
        #[cfg(feature = "tls")]
        if endpoint.url.is_secure() {
            let mut endpoint = endpoint;
            endpoint.tls(crate::security::Tls::new())?;
            return Ok(endpoint);
        }
        Ok(endpoint)
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(&mut self, tls: crate::security::Tls) -> Result<()> {
        self.http.tls = Some(Arc::new(crate::security::tls::Connector::new(tls)?));
        Ok(())
    }

    pub(super) fn timeouts(&mut self, connect: Duration, read: Duration) {
        (self.http.connect_timeout, self.http.read_timeout) = (connect, read);
    }

    /// Posts a form, and reads the token from the response. Errors do not repeat the values of
    /// `fields` and `secrets`, even if the endpoint does.
    pub(super) async fn ask(
        &self,
        mut headers: Vec<(&'static str, Zeroizing<String>)>,
        fields: &[(&str, &str)],
        secrets: &[&str],
    ) -> Result<Token> {
        for (name, value) in [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")] {
            headers.push((name, Zeroizing::new(value.to_owned())));
        }
        let request = Request { method: "POST", url: &self.url, headers, body: form(fields) };
        let response = self.http.ask(request).await.map_err(|error| error.context("token endpoint"))?;
        let own = fields.iter().filter(|(name, _)| !matches!(*name, "grant_type" | "client_assertion_type"));
        let own = own.map(|(_, value)| *value);
        let secrets: Vec<&str> = secrets.iter().copied().chain(own).collect();
        token(&response, &secrets).map_err(|error| error.context(format_args!("token endpoint {}", self.url)))
    }
}

fn token(response: &Response, secrets: &[&str]) -> Result<Token> {
    let json = Json::parse(&response.body);
    if response.status != 200 {
        let said = |name: &str| {
            let said = json.as_ref().and_then(|json| json.text(name));
            said.map(|said| scrubbed(said, 200, secrets.iter().copied())).unwrap_or_default()
        };
        let (error, description) = (said("error"), said("error_description"));
        let message = format!("it answered with status {} {error} {description}", response.status);
        // A failure that the client did not cause may be over soon.
        let passing = matches!(response.status, 408 | 429 | 500..=599);
        let kind = if passing { ErrorKind::Network } else { ErrorKind::Authentication };
        return Err(Error::new(kind, message.trim_end()));
    }
    let malformed = |what: &str| Error::new(ErrorKind::Authentication, format!("its answer {what}"));
    let json = json.ok_or_else(|| malformed("is not JSON"))?;
    // Like Java, which accepts either of them, in this order.
    let value = json.secret("access_token").or_else(|| json.secret("id_token"));
    let value = value.ok_or_else(|| malformed("holds no access_token"))?;
    // The token's own expiry has priority, because the broker reads it.
    if let Some(expires) = claims::expiry(&value) {
        return Ok(Token::new(value, expires));
    }
    let lifetime = json.number("expires_in").and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let expires = lifetime.and_then(|lifetime| std::time::SystemTime::now().checked_add(lifetime));
    let expires = expires.ok_or_else(|| malformed("does not say when the token expires (exp, expires_in)"))?;
    Ok(Token::new(value, expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Result<Token> {
        token(&Response { status, body: Zeroizing::new(body.as_bytes().to_vec()) }, &[])
    }

    #[test]
    fn reads_token_and_lifetime_from_response() {
        let token = answered(200, r#"{"access_token":"opaque","expires_in":"60"}"#).unwrap();
        assert_eq!(token.value().expose_str(), Some("opaque"));
        let left = token.expires().duration_since(std::time::SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(50));
    }

    #[test]
    fn error_escapes_control_characters_of_endpoint() {
        let body = r#"{"error":"a\r\nb","error_description":"\u001b[31mred\u202e"}"#;
        let error = answered(400, body).unwrap_err().to_string();
        assert!(error.ends_with(r"status 400 a\r\nb \u{1b}[31mred\u{202e}"), "{error}");
    }

    #[test]
    fn error_kind_follows_status_and_body() {
        for (status, body, kind, part) in [
            (
                401,
                r#"{"error":"invalid_client","error_description":"no"}"#,
                ErrorKind::Authentication,
                "invalid_client no",
            ),
            (400, "<html>", ErrorKind::Authentication, "status 400"),
            (503, "", ErrorKind::Network, "status 503"),
            (429, "{}", ErrorKind::Network, "status 429"),
            (200, "<html>", ErrorKind::Authentication, "not JSON"),
            (200, "{}", ErrorKind::Authentication, "no access_token"),
            (200, r#"{"access_token":"t"}"#, ErrorKind::Authentication, "expires"),
            (200, r#"{"access_token":"t","expires_in":1e300}"#, ErrorKind::Authentication, "expires"),
        ] {
            let error = answered(status, body).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
