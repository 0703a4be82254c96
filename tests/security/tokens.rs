//! Tokens from an endpoint: its responses, and the cost of an endpoint that is slow, down, or not
//! the right one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ottla::{
    ErrorKind,
    security::{JwtAlgorithm, JwtBearer, Oidc, Sasl, Security, Tls, TokenSource},
    testkit::MemoryNetwork,
    testkit::{Cluster, Options, certificates::*},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::*;

/// Returns a token that the test cluster accepts.
fn token(user: &str, seconds: u64) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds;
    let claims = format!("{{\"sub\":\"{user}\",\"exp\":{expires}}}");
    format!("{}.{}.", URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"), URL_SAFE_NO_PAD.encode(claims))
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn granted(user: &str) -> String {
    ok(&format!("{{\"access_token\":\"{}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}", token(user, 3600)))
}

/// Answers each request with the headers and body that `reply` makes, after a delay.
fn endpoint(
    network: &MemoryNetwork,
    delay: Duration,
    reply: impl Fn(&str, u32) -> String + Send + Sync + 'static,
) -> Arc<AtomicU32> {
    let mut listener = network.listen(SocketAddr::from(([127, 0, 0, 1], 80))).unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let reply = Arc::new(reply);
    tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            let (count, reply) = (count.clone(), reply.clone());
            tokio::spawn(async move {
                let mut request = Vec::new();
                loop {
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let length = text.split("Content-Length: ").nth(1).and_then(|rest| rest.split('\r').next());
                    let whole = text.split_once("\r\n\r\n").is_some_and(|(_, body)| {
                        body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
                    });
                    if whole {
                        let nth = count.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(delay).await;
                        // The client may have closed the connection.
                        let _ = stream.write_all(reply(&text, nth).as_bytes()).await;
                        return;
                    }
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            });
        }
    });
    asked
}

async fn guarded() -> (Cluster, MemoryNetwork) {
    let network = MemoryNetwork::new();
    let cluster = Cluster::start(Options::new().network(network.clone()).sasl(users())).await.unwrap();
    cluster.create_topic("orders", 2).unwrap();
    (cluster, network)
}

fn oidc(network: &MemoryNetwork) -> Oidc {
    Oidc::client_credentials("http://127.0.0.1/token?tenant=1", "me", "hunter2")
        .unwrap()
        .scope("kafka")
        .network(Arc::new(network.clone()))
}

fn security(source: impl TokenSource) -> Security {
    Security::sasl_plaintext(Sasl::oauth_bearer(source))
}

#[tokio::test(start_paused = true)]
async fn shares_one_token_between_all_clients() {
    let (cluster, network) = guarded().await;
    let asked = endpoint(&network, SECOND, |request, _| {
        assert!(request.starts_with("POST /token?tenant=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("Authorization: Basic {}", STANDARD.encode("me:hunter2"))), "{request}");
        assert!(request.ends_with("grant_type=client_credentials&scope=kafka"), "{request}");
        granted("alice")
    });
    let security = security(oidc(&network));
    works(&cluster.bootstrap(), cluster.network(), security).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "one token for all connections, and all clients of one `Security`");
}

#[tokio::test(start_paused = true)]
async fn properties_configure_client_credentials_grant() {
    let (cluster, network) = guarded().await;
    let asked = endpoint(&network, Duration::ZERO, |_, _| granted("alice"));
    let jaas = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=\"me\" \
                clientSecret=\"hunter2\" scope=\"kafka\";";
    let admin = cluster.admin().properties([
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1/token"),
        ("sasl.jaas.config", jaas),
    ]);
    assert!(!format!("{admin:?}").contains("hunter2"));
    assert_eq!(admin.build().await.unwrap().list_topics().await.unwrap().len(), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn endpoint_refusal_fails_immediately_with_status() {
    let (cluster, network) = guarded().await;
    endpoint(&network, Duration::ZERO, |_, _| {
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 26\r\n\r\n{\"error\":\"invalid_client\"}".to_owned()
    });
    let error = refused(&cluster, security(oidc(&network))).await.to_string();
    assert!(error.contains("http://127.0.0.1/token: it answered with status 401 invalid_client"), "{error}");
    assert!(!error.contains("tenant"), "the query is not shown: {error}");
}

#[tokio::test(start_paused = true)]
async fn retries_unreachable_endpoint_and_names_it() {
    let (cluster, network) = guarded().await;
    let client = admin(&cluster, security(oidc(&network))).await;
    let error = client.list_topics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("token endpoint: http://127.0.0.1/token: "), "{error}");
    // The endpoint comes back.
    endpoint(&network, Duration::ZERO, |_, nth| match nth {
        0 | 1 => "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => granted("alice"),
    });
    assert_eq!(client.list_topics().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn slow_endpoint_causes_timeout_error() {
    let (cluster, network) = guarded().await;
    endpoint(&network, 60 * SECOND, |_, _| granted("alice"));
    let source = oidc(&network).timeouts(SECOND, 2 * SECOND);
    let error = admin(&cluster, security(source)).await.list_topics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("the response took longer than 2000 ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn token_fetch_may_outlast_connection_setup() {
    let (cluster, network) = guarded().await;
    let asked = endpoint(&network, 14 * SECOND, |_, _| granted("alice"));
    let source = oidc(&network).timeouts(SECOND, 20 * SECOND);
    assert_eq!(admin(&cluster, security(source)).await.list_topics().await.unwrap().len(), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the request under way continues");
}

#[tokio::test(start_paused = true)]
async fn error_describes_invalid_endpoint_response() {
    for (answer, part) in [
        ("SSH-2.0-x\r\n".to_owned(), "not HTTP"),
        (ok("<html>"), "not JSON"),
        (ok("{}"), "no access_token"),
        (ok("{\"access_token\":\"opaque\"}"), "expires"),
        (ok(&format!("{{\"access_token\":\"{}\"}}", token("alice", 0))), "already expired"),
        (ok("{\"access_token\":\"a b\",\"expires_in\":60}"), "characters"),
    ] {
        let (cluster, network) = guarded().await;
        endpoint(&network, Duration::ZERO, move |_, _| answer.clone());
        let error = admin(&cluster, security(oidc(&network))).await.list_topics().await.unwrap_err();
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn sends_signed_assertion_to_endpoint() {
    for (key, algorithm) in [(CLIENT_KEY, JwtAlgorithm::Rs256), (SERVER_KEY, JwtAlgorithm::Es256)] {
        let key = TempFile::new(&format!("assertion-{algorithm:?}.key"), key);
        let (cluster, network) = guarded().await;
        endpoint(&network, Duration::ZERO, move |request, _| {
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(body.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="));
            let assertion = body.split("assertion=").nth(1).unwrap().split('&').next().unwrap();
            let parts: Vec<_> = assertion.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
            let (header, claims) = (String::from_utf8_lossy(&parts[0]), String::from_utf8_lossy(&parts[1]));
            let (name, size) = if algorithm == JwtAlgorithm::Rs256 { ("RS256", 256) } else { ("ES256", 64) };
            assert_eq!(header, format!("{{\"alg\":\"{name}\",\"typ\":\"JWT\",\"kid\":\"k1\"}}"));
            assert!(claims.contains("\"aud\":\"idp\"") && claims.contains("\"jti\":"), "{claims}");
            assert_eq!(parts[2].len(), size);
            granted("alice")
        });
        let source = JwtBearer::signed("http://127.0.0.1/token", key.path())
            .unwrap()
            .algorithm(algorithm)
            .key_id("k1")
            .claim("aud", "idp")
            .assertion_id(true)
            .network(Arc::new(network.clone()));
        assert_eq!(admin(&cluster, security(source)).await.list_topics().await.unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn sends_assertion_instead_of_client_secret() {
    let key = TempFile::new("client-assertion.key", CLIENT_KEY);
    let file = TempFile::new("client-assertion.jwt", "e30.e30.c2ln");
    // The default form is that of Java since 4.3 (KIP-1258); the JWT bearer grant is used if the
    // property asks for it.
    let retriever = ("sasl.oauthbearer.jwt.retriever.class", "org.apache.kafka.x.JwtBearerJwtRetriever");
    let id = ("sasl.oauthbearer.client.credentials.client.id", "me");
    for (settings, begin, end) in [
        (
            &[
                ("sasl.oauthbearer.assertion.private.key.file", key.path()),
                ("sasl.oauthbearer.assertion.claim.iss", "me"),
            ][..],
            "grant_type=client_credentials&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=ey",
            "",
        ),
        (
            &[("sasl.oauthbearer.assertion.file", file.path()), id, ("sasl.oauthbearer.scope", "kafka")],
            "grant_type=client_credentials&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=e30.e30.c2ln",
            "&client_id=me&scope=kafka",
        ),
        (
            &[("sasl.oauthbearer.assertion.file", file.path()), retriever],
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=e30.e30.c2ln",
            "",
        ),
    ] {
        let (cluster, network) = guarded().await;
        let asked = endpoint(&network, Duration::ZERO, move |request, _| {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(!head.contains("Authorization"), "{head}");
            assert!(body.starts_with(begin) && body.ends_with(end), "{body}");
            granted("alice")
        });
        let mut pairs = vec![
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1/token"),
        ];
        pairs.extend_from_slice(settings);
        let admin = cluster.admin().properties(pairs);
        assert_eq!(admin.build().await.unwrap().list_topics().await.unwrap().len(), 1);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_assertion_key_error_explains_cause() {
    let ec = TempFile::new("assertion-ec.key", SERVER_KEY);
    for (path, part) in [("/nowhere/key.pem", "/nowhere/key.pem"), (ec.path(), "cannot sign with RS256")] {
        let (cluster, network) = guarded().await;
        let source = JwtBearer::signed("http://127.0.0.1/token", path).unwrap().network(Arc::new(network.clone()));
        let error = refused(&cluster, security(source)).await.to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn rejects_endpoint_with_untrusted_certificate() {
    // A cluster under TLS stands for a web server: only its certificate matters.
    let network = MemoryNetwork::new();
    let web = Options::new().network(network.clone()).tls(ottla::testkit::Tls::new());
    let web = Cluster::start(web).await.unwrap();
    let cluster = Cluster::start(Options::new().network(network.clone()).sasl(users())).await.unwrap();
    let port = web.bootstrap().split(':').nth(1).unwrap().to_owned();
    let url = format!("https://127.0.0.1:{port}/token");
    let source = Oidc::client_credentials(&url, "me", "hunter2").unwrap();
    let source = source.tls(Tls::new().ca_pem(STRANGER)).unwrap().network(Arc::new(network.clone()));
    let error = refused(&cluster, security(source)).await.to_string();
    assert!(error.contains("not issued by an authority") && error.contains("token endpoint"), "{error}");
}
