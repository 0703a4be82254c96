//! One token for all connections of a client, replaced before it expires.

use std::{fmt, sync::Arc, time::SystemTime};

use rand::RngExt;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

use super::{RefreshSettings, Token, TokenSource};
use crate::{
    error::{Error, ErrorKind, Result},
    log::{Limiter, Origin, event},
};

/// Keeps a source's token. Single-flight: callers that arrive while the token is being replaced
/// wait for the same request. A caller that is cancelled does not stop the request.
pub(crate) struct TokenCache {
    source: Arc<dyn TokenSource>,
    settings: RefreshSettings,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    token: Option<Token>,
    /// The expiry on tokio's clock, which does not jump when the machine's clock is set.
    expires: Option<Instant>,
    refresh: Option<Instant>,
    failure: Option<Error>,
    failures: u32,
    not_before: Option<Instant>,
    lines: Limiter<()>,
}

impl TokenCache {
    pub(crate) fn new(source: impl TokenSource, settings: RefreshSettings) -> Self {
        Self { source: Arc::new(source), settings, kept: Arc::default() }
    }

    /// Returns a token that is valid now.
    ///
    /// # Cancel safety
    /// Safe: a request in progress continues, and its token is kept for the next caller.
    pub(crate) async fn token(&self) -> Result<Token> {
        let kept = Arc::clone(&self.kept).lock_owned().await;
        let now = Instant::now();
        if let Some(token) = &kept.token
            && kept.refresh.is_some_and(|refresh| now < refresh)
        {
            return Ok(token.clone());
        }
        if let Some(failure) = &kept.failure
            && kept.not_before.is_some_and(|until| now < until)
        {
            return kept.still_good(now).ok_or_else(|| failure.clone());
        }
        let (origin, fetching) = (Origin::current(), fetch(Arc::clone(&self.source), self.settings, kept));
        let fetching = tokio::spawn(async move { origin.scope(fetching).await });
        fetching.await.map_err(|error| {
            Error::new(ErrorKind::Internal, "the token source ended without an answer").with_source(error)
        })?
    }

    /// Drops the token, so that the next caller gets a new one. A request for a token that is in
    /// progress is not affected.
    pub(crate) fn forget(&self) {
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = Kept::default();
        }
    }
}

async fn fetch(
    source: Arc<dyn TokenSource>,
    settings: RefreshSettings,
    mut kept: OwnedMutexGuard<Kept>,
) -> Result<Token> {
    let fetched = source.token().await;
    let now = Instant::now();
    let fetched = fetched.and_then(|token| match token.expires().duration_since(SystemTime::now()) {
        Ok(lifetime) if !lifetime.is_zero() => Ok((token, lifetime)),
        _ => Err(Error::new(ErrorKind::Authentication, "the token source returned a token that has already expired")),
    });
    match fetched {
        Ok((token, lifetime)) => {
            let refresh = settings.refresh_after(lifetime, rand::rng().random());
            let (lifetime_s, refresh_s) = (lifetime.as_secs(), refresh.as_secs());
            event!(DEBUG, Origin::current(), lifetime_s, refresh_s, "the token source returned a new OAuth token");
            *kept = Kept {
                token: Some(token.clone()),
                expires: now.checked_add(lifetime),
                refresh: now.checked_add(refresh),
                ..Kept::default()
            };
            Ok(token)
        }
        Err(error) => {
            kept.failures = kept.failures.saturating_add(1);
            kept.not_before = now.checked_add(settings.retry_after(kept.failures));
            kept.failure = Some(error.clone());
            match kept.still_good(now) {
                Some(token) => {
                    if let Some(suppressed) = kept.lines.admit((), now.into_std()) {
                        event!(
                            WARN, Origin::current(), %error, suppressed,
                            "the OAuth token could not be renewed; the client uses the old one until it expires, and asks the source again"
                        );
                    }
                    Ok(token)
                }
                None => Err(error),
            }
        }
    }
}

impl Kept {
    fn still_good(&self, now: Instant) -> Option<Token> {
        self.token.clone().filter(|_| self.expires.is_none_or(|expires| now < expires))
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::net::BoxFuture;

    /// Returns tokens with this lifetime, and fails from call number `fails_from` on (counted from
    /// 0). Each call takes two seconds.
    #[derive(Debug)]
    struct Source {
        asked: Arc<AtomicU32>,
        lifetime: Duration,
        fails_from: u32,
    }

    impl TokenSource for Source {
        fn token(&self) -> BoxFuture<'_, Result<Token>> {
            Box::pin(async move {
                let asked = self.asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(2)).await;
                if asked >= self.fails_from {
                    return Err(Error::new(ErrorKind::Network, "the token endpoint is down"));
                }
                Ok(Token::new(format!("token{asked}"), SystemTime::now() + self.lifetime))
            })
        }
    }

    fn cache(lifetime: u64, fails_from: u32) -> (TokenCache, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let source = Source { asked: asked.clone(), lifetime: Duration::from_secs(lifetime), fails_from };
        (TokenCache::new(source, RefreshSettings::default()), asked)
    }

    async fn value(cache: &TokenCache) -> String {
        cache.token().await.unwrap().value().expose_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn shares_one_token_and_refreshes_before_expiry() {
        let (cache, asked) = cache(1000, u32::MAX);
        let (a, b) = tokio::join!(value(&cache), value(&cache));
        assert_eq!((a.as_str(), b.as_str()), ("token0", "token0"));
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(value(&cache).await, "token0");
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(value(&cache).await, "token1");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_caller_does_not_cancel_fetch() {
        let (cache, asked) = cache(1000, u32::MAX);
        assert!(tokio::time::timeout(Duration::from_secs(1), cache.token()).await.is_err());
        assert_eq!(value(&cache).await, "token0");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_refresh_keeps_token_until_expiry() {
        let (cache, asked) = cache(1000, 1);
        assert_eq!(value(&cache).await, "token0");
        tokio::time::advance(Duration::from_secs(900)).await;
        assert_eq!(value(&cache).await, "token0");
        assert_eq!(value(&cache).await, "token0");
        assert_eq!(asked.load(Ordering::Relaxed), 2, "the source is not asked again during the backoff");
        tokio::time::advance(Duration::from_secs(200)).await;
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
    }

    #[tokio::test(start_paused = true)]
    async fn forgetting_token_causes_new_fetch() {
        let (cache, asked) = cache(1000, u32::MAX);
        assert_eq!(value(&cache).await, "token0");
        cache.forget();
        assert_eq!((value(&cache).await.as_str(), asked.load(Ordering::Relaxed)), ("token1", 2));
    }

    #[tokio::test(start_paused = true)]
    async fn rejects_token_that_arrives_expired() {
        let (cache, _) = cache(0, u32::MAX);
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains("expired"), "{error}");
    }
}
