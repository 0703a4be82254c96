//! Unsigned tokens, for tests and for brokers that accept them, as Kafka's brokers do by default.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use super::{Token, TokenSource};
use crate::{
    error::Result,
    net::BoxFuture,
    security::{Hidden, json::quoted},
};

/// Creates unsecured JWS tokens (RFC 7515, appendix A.5). Not for production: without a signature,
/// any client can claim any principal.
#[derive(Clone, Debug)]
pub struct UnsecuredToken {
    claims: Hidden<Vec<(String, String)>>,
    lifetime: Duration,
}

impl UnsecuredToken {
    /// Creates tokens for a principal, which becomes the claim `sub`.
    pub fn new(principal: impl AsRef<str>) -> Self {
        Self { claims: Hidden::default(), lifetime: Duration::from_secs(3600) }.claim("sub", principal)
    }

    pub(crate) fn empty() -> Self {
        Self { claims: Hidden::default(), lifetime: Duration::from_secs(3600) }
    }

    /// Adds a claim with a text.
    pub fn claim(mut self, name: impl Into<String>, value: impl AsRef<str>) -> Self {
        self.claims.0.push((name.into(), quoted(value.as_ref())));
        self
    }

    /// Adds a claim with a list of texts, such as `scope`.
    pub fn list_claim<T: AsRef<str>>(mut self, name: impl Into<String>, values: impl IntoIterator<Item = T>) -> Self {
        let values: Vec<String> = values.into_iter().map(|value| quoted(value.as_ref())).collect();
        self.claims.0.push((name.into(), format!("[{}]", values.join(","))));
        self
    }

    pub(crate) fn number_claim(mut self, name: impl Into<String>, value: f64) -> Self {
        self.claims.0.push((name.into(), value.to_string()));
        self
    }

    /// Sets the lifetime of each token. Default: an hour; at most ten years.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }
}

impl TokenSource for UnsecuredToken {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        let now = SystemTime::now();
        let expires = now + self.lifetime.min(Duration::from_secs(10 * 365 * 86_400));
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut claims: Vec<String> =
            self.claims.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        claims.push(format!("\"iat\":{:.3},\"exp\":{:.3}", seconds(now), seconds(expires)));
        let claims = format!("{{{}}}", claims.join(","));
        let token = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims));
        Box::pin(async move { Ok(Token::new(token, expires)) })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::claims::expiry, *};
    use crate::security::json::Json;

    #[tokio::test]
    async fn token_contains_configured_claims_and_lifetime() {
        let source = UnsecuredToken::new("ali\"ce").list_claim("scope", ["a", "b"]).lifetime(Duration::from_secs(60));
        let token = source.token().await.unwrap();
        let text = token.value().expose_str().unwrap();
        let parts: Vec<&str> = text.split('.').collect();
        assert_eq!((parts[0], parts[2]), ("eyJhbGciOiJub25lIn0", ""));
        let claims = Json::parse(&BASE64.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(claims.text("sub"), Some("ali\"ce"));
        let (from, to) = (claims.number("iat").unwrap(), claims.number("exp").unwrap());
        assert!((to - from - 60.0).abs() < 0.002, "{from} {to}");
        // The claim has a precision of a millisecond.
        let said = expiry(token.value()).unwrap();
        let kept = token.expires();
        assert!(said.max(kept).duration_since(said.min(kept)).unwrap() < Duration::from_millis(2));
        assert!(matches!(claims.get("scope"), Some(Json::List(scopes)) if scopes.len() == 2));
    }
}
