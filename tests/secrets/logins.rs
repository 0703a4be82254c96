//! Tests the secrets as credentials of successful and failed logins.

use std::collections::BTreeSet;

use ottla::{
    Admin,
    security::{OauthBearer, Sasl, Security, Token, TokenSource},
    testkit::{self, Cluster, Options},
};

use crate::{
    capture,
    list::{SECRETS, leaked},
};

#[derive(Debug)]
struct Given(&'static str);

impl TokenSource for Given {
    fn token(&self) -> ottla::net::BoxFuture<'_, ottla::Result<Token>> {
        let expires = std::time::SystemTime::now() + std::time::Duration::from_secs(600);
        let token = Token::new(self.0, expires);
        Box::pin(async move { Ok(token) })
    }
}

fn check(leaks: &mut BTreeSet<String>, place: &str, secret: &str, text: &str) {
    if let Some(part) = leaked(secret, text) {
        leaks.insert(format!("{place}: {part:?} in {:?}", text.chars().take(300).collect::<String>()));
    }
}

async fn attempt(cluster: &Cluster, sasl: Sasl) -> (bool, String) {
    let security = Security::sasl_plaintext(sasl);
    let builder = Admin::builder(cluster.bootstrap()).network(cluster.network()).security(security);
    let shown = format!("{builder:?} {builder:#?}");
    let admin = builder.build().await.unwrap();
    let shown = format!("{shown} {admin:?}");
    match admin.list_topics().await {
        Ok(_) => (true, shown),
        Err(error) => (false, shown + &capture::shown(&error)),
    }
}

#[tokio::test(start_paused = true)]
async fn errors_and_logs_hide_login_credentials() {
    capture::start();
    let mut leaks = BTreeSet::new();
    let mut let_in = 0;
    for (turn, secret) in SECRETS.into_iter().enumerate() {
        let sasl = testkit::Sasl::new().user("alice", secret).user("bob", "bob's");
        let cluster = Cluster::start(Options::new().in_memory().sasl(sasl)).await.unwrap();
        let logins = [
            Sasl::plain("alice", secret),
            Sasl::plain("bob", secret),
            Sasl::plain(secret, secret),
            // Deriving a key takes long, so each secret is tested with one of the two hashes.
            if turn % 2 == 0 { Sasl::scram_sha_256("bob", secret) } else { Sasl::scram_sha_512("alice", secret) },
            Sasl::scram_sha_256(secret, "x"),
            Sasl::mechanism(OauthBearer::new(OwnDebug(Given(secret))).extension("tenant", secret)),
        ];
        for sasl in logins {
            let (ok, shown) = attempt(&cluster, sasl).await;
            let_in += usize::from(ok);
            check(&mut leaks, "login", secret, &shown);
        }
    }
    assert!(let_in >= 40, "{let_in} logins succeeded");
    let log = capture::log();
    assert!(log.contains("ottla::cluster"), "the log is not captured");
    SECRETS.iter().for_each(|secret| check(&mut leaks, "log", secret, &log));
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
}

/// Replaces the source's derived `Debug`, because a user's own source shows whatever its own
/// `Debug` shows.
struct OwnDebug(Given);

impl std::fmt::Debug for OwnDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnDebug")
    }
}

impl TokenSource for OwnDebug {
    fn token(&self) -> ottla::net::BoxFuture<'_, ottla::Result<Token>> {
        self.0.token()
    }
}
