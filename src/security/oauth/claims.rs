//! Claims of a token. Nothing is verified here, because verification is up to the broker.
//!
//! Sans-IO.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use super::Token;
use crate::{
    error::{Error, ErrorKind, Result},
    security::{Secret, json::Json},
};

/// Returns seconds since 1970 as a time; `None` if the time cannot be represented.
pub(super) fn time(seconds: f64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// Returns the claim `exp` of a JWT; `None` if the token is not a JWT or has no such claim.
pub(super) fn expiry(token: &Secret) -> Option<SystemTime> {
    let claims = token.expose_str()?.trim().split('.').nth(1)?;
    let claims = zeroize::Zeroizing::new(BASE64.decode(claims.trim_end_matches('=')).ok()?);
    time(Json::parse(&claims)?.number("exp")?)
}

/// Returns a JWT with the expiry of its claim `exp`; `whence` names the token's origin in the
/// error.
pub(super) fn jwt(token: Secret, whence: &str) -> Result<Token> {
    match expiry(&token) {
        Some(expires) => Ok(Token::new(token, expires)),
        None => {
            let message = format!("{whence}: the content is not a JWT with a claim `exp`");
            Err(Error::new(ErrorKind::Authentication, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_expiry_only_from_valid_claims() {
        let token = |claims: &str| Secret::from(format!("e30.{}.x", BASE64.encode(claims)));
        assert_eq!(expiry(&token(r#"{"exp":1700000000}"#)), time(1_700_000_000.0));
        for opaque in [token("{}"), token(r#"{"exp":-1}"#), token(r#"{"exp":1e300}"#), token("no"), "opaque".into()] {
            assert_eq!(expiry(&opaque), None);
            let error = jwt(opaque, "file x").unwrap_err();
            assert!(error.to_string().starts_with("file x: "), "{error}");
        }
    }
}
