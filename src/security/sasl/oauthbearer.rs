//! OAUTHBEARER (RFC 7628, KIP-255).

use super::{Exchange, Mechanism, Step};
use crate::{
    error::{Error, ErrorKind, Result},
    net::BoxFuture,
    security::{
        Hidden, Secret,
        oauth::{RefreshSettings, TokenCache, TokenSource},
        scrubbed,
    },
};

/// OAUTHBEARER: a token from an issuer that the broker trusts.
#[derive(Debug)]
pub struct OauthBearer {
    tokens: TokenCache,
    extensions: Hidden<Vec<(String, String)>>,
}

impl OauthBearer {
    /// Uses tokens of this source. They are kept, and renewed before they expire.
    pub fn new(source: impl TokenSource) -> Self {
        Self::with_refresh(source, RefreshSettings::default())
    }

    pub(crate) fn with_refresh(source: impl TokenSource, refresh: RefreshSettings) -> Self {
        Self { tokens: TokenCache::new(source, refresh), extensions: Hidden::default() }
    }

    /// Adds a SASL extension (KIP-342), such as Confluent Cloud's `logicalCluster` and
    /// `identityPoolId`: a name of letters, and a value of printable characters.
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.0.push((name.into(), value.into()));
        self
    }

    fn message(&self, token: &Secret) -> Result<Secret> {
        let malformed = |what: String| Error::new(ErrorKind::Authentication, format!("OAUTHBEARER: {what}"));
        // The characters that a header may hold (RFC 6750): any other could end the header.
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        if token.is_empty() || !token.expose().iter().all(plain) {
            return Err(malformed("the token is empty, or holds characters that a bearer token cannot".to_owned()));
        }
        let mut message = b"n,,\x01auth=Bearer ".to_vec();
        message.extend_from_slice(token.expose());
        message.push(1);
        for (at, (name, value)) in self.extensions.iter().enumerate() {
            let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic()) && name != "auth";
            let allowed = |c: char| matches!(c, ' '..='~' | '\t' | '\r' | '\n');
            if !named || value.is_empty() || !value.chars().all(allowed) {
                let at = at + 1;
                return Err(malformed(format!("extension {at} has a name or a value that is not allowed")));
            }
            message.extend_from_slice(format!("{name}={value}\x01").as_bytes());
        }
        message.push(1);
        Ok(message.into())
    }
}

impl Mechanism for OauthBearer {
    fn name(&self) -> &str {
        "OAUTHBEARER"
    }

    fn begin<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Result<Box<dyn Exchange>>> {
        Box::pin(async move {
            let token = self.tokens.token().await?;
            Ok(Box::new(Bearer { message: self.message(token.value())?, refused: None }) as Box<dyn Exchange>)
        })
    }

    fn refused(&self) {
        self.tokens.forget();
    }
}

struct Bearer {
    message: Secret,
    refused: Option<String>,
}

impl Exchange for Bearer {
    fn next(&mut self, challenge: Option<&[u8]>) -> Result<Step> {
        match challenge {
            None => Ok(Step::Send(self.message.clone())),
            Some(b"") if self.refused.is_none() => Ok(Step::Done),
            Some(why) => {
                if let Some(why) = &self.refused {
                    let message = format!("OAUTHBEARER: the broker refused the token: {why}");
                    return Err(Error::new(ErrorKind::Authentication, message));
                }
                // A refusal comes as a challenge, which the client has to acknowledge (RFC 7628,
                // 3.2.3).
                let why = String::from_utf8_lossy(why);
                self.refused = Some(scrubbed(&why, 200, sent_parts(self.message.expose())));
                Ok(Step::Send(vec![1].into()))
            }
        }
    }
}

/// Returns the values of a message between its control characters: the token of the header, and the
/// values of the extensions.
fn sent_parts(message: &[u8]) -> impl Iterator<Item = &str> {
    let parts = message.split(|byte| *byte < b' ').filter_map(|part| std::str::from_utf8(part).ok());
    parts.filter_map(|part| Some(part.split_once("Bearer ").or_else(|| part.split_once('='))?.1))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::security::Token;

    #[derive(Debug)]
    struct Fixed(&'static str);

    impl TokenSource for Fixed {
        fn token(&self) -> BoxFuture<'_, Result<Token>> {
            let token = Token::new(self.0, SystemTime::now() + Duration::from_secs(3600));
            Box::pin(async move { Ok(token) })
        }
    }

    #[tokio::test]
    async fn first_message_has_rfc_7628_form() {
        let mechanism = OauthBearer::new(Fixed("a.b.c")).extension("logicalCluster", "lkc-1");
        let mut exchange = mechanism.begin("broker").await.unwrap();
        let wanted = b"n,,\x01auth=Bearer a.b.c\x01logicalCluster=lkc-1\x01\x01";
        assert_eq!(exchange.next(None).unwrap(), Step::Send(wanted.to_vec().into()));
        assert_eq!(exchange.next(Some(b"")).unwrap(), Step::Done);
    }

    #[tokio::test]
    async fn acknowledges_refusal_and_reports_its_status() {
        let mut exchange = OauthBearer::new(Fixed("t")).begin("broker").await.unwrap();
        exchange.next(None).unwrap();
        let refusal = br#"{"status":"invalid_token"}"#;
        assert_eq!(exchange.next(Some(refusal)).unwrap(), Step::Send(vec![1].into()));
        let error = exchange.next(Some(b"")).unwrap_err();
        assert!(error.to_string().contains("invalid_token"), "{error}");
    }

    #[tokio::test]
    async fn rejects_tokens_and_extensions_breaking_message() {
        for mechanism in [
            OauthBearer::new(Fixed("a\x01b")),
            OauthBearer::new(Fixed("")),
            OauthBearer::new(Fixed("t")).extension("auth", "x"),
            OauthBearer::new(Fixed("t")).extension("a1", "x"),
            OauthBearer::new(Fixed("t")).extension("a", "x\x01y"),
        ] {
            let error = mechanism.begin("broker").await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Authentication);
        }
    }
}
