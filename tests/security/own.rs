//! Token sources and mechanisms of the program: the client's reaction to their errors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ottla::{
    Error, ErrorKind, Result,
    net::BoxFuture,
    security::{Exchange, Mechanism, Sasl, Security, Step, Token, TokenSource},
    testkit::{Cluster, Options},
};

use crate::common::*;

/// Fails `failures` times with the result of `error`, and then returns a token for alice.
#[derive(Debug)]
struct Vault {
    asked: Arc<AtomicU32>,
    failures: u32,
    error: fn() -> Error,
}

impl Vault {
    fn new(failures: u32, error: fn() -> Error) -> (Self, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        (Self { asked: asked.clone(), failures, error }, asked)
    }
}

impl TokenSource for Vault {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        Box::pin(async move {
            if self.asked.fetch_add(1, Ordering::Relaxed) < self.failures {
                return Err((self.error)());
            }
            let expires = SystemTime::now() + Duration::from_secs(3600);
            let seconds = expires.duration_since(UNIX_EPOCH).unwrap().as_secs();
            let claims = URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"alice\",\"exp\":{seconds}}}"));
            Ok(Token::new(format!("{}.{claims}.", URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}")), expires))
        })
    }
}

async fn guarded() -> Cluster {
    cluster(Options::new().sasl(users())).await
}

#[tokio::test(start_paused = true)]
async fn retries_token_source_after_retriable_error() {
    for error in [
        || Error::network("the vault is sealed").with_source("status 503"),
        || Error::timeout("the vault is slow"),
        || Error::authentication("the role is not there yet").with_retriable(true),
    ] as [fn() -> Error; 3]
    {
        let cluster = guarded().await;
        let (vault, asked) = Vault::new(3, error);
        let admin = admin(&cluster, Security::sasl_plaintext(Sasl::oauth_bearer(vault))).await;
        assert_eq!(admin.list_topics().await.unwrap().len(), 1);
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn permanent_token_source_error_fails_immediately() {
    for error in [
        || Error::authentication("the vault refuses\r\nthis service").with_source("status 403"),
        || Error::network("the vault refuses\r\nthis service").with_retriable(false),
    ] as [fn() -> Error; 2]
    {
        let cluster = guarded().await;
        let (vault, _) = Vault::new(u32::MAX, error);
        let error = refused(&cluster, Security::sasl_plaintext(Sasl::oauth_bearer(vault))).await;
        assert!(error.to_string().contains(r"SASL OAUTHBEARER: the vault refuses\r\nthis service"), "{error}");
    }
}

/// A mechanism with the name PLAIN that fails when the exchange begins, or, if `begins` is true, in
/// its first step.
#[derive(Debug)]
struct Own {
    begins: bool,
}

struct Refuses;

impl Mechanism for Own {
    fn name(&self) -> &str {
        "PLAIN"
    }

    fn begin<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Box<dyn Exchange>>> {
        Box::pin(async move {
            match self.begins {
                true => Ok(Box::new(Refuses) as Box<dyn Exchange>),
                false => Err(Error::authentication(format!("no ticket for {host}"))),
            }
        })
    }
}

impl Exchange for Refuses {
    fn next(&mut self, _: Option<&[u8]>) -> Result<Step> {
        Err(Error::authentication("no ticket for this exchange"))
    }
}

#[tokio::test(start_paused = true)]
async fn permanent_mechanism_error_fails_immediately() {
    for begins in [false, true] {
        let cluster = guarded().await;
        let error = refused(&cluster, Security::sasl_plaintext(Sasl::mechanism(Own { begins }))).await;
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains("SASL PLAIN: no ticket for "), "{error}");
    }
}
