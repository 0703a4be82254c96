//! Tests the secrets as contents of files, and in responses of servers that repeat the request.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use ottla::{
    Admin,
    net::MemoryNetwork,
    security::{JwtBearer, Oidc, Security, Tls, TokenFile, TokenSource},
    testkit::certificates::*,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    capture,
    list::{SECRETS, leaked},
};

/// A protocol, the property that names the file, and the properties beside it.
type Place<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A file that is deleted at the end of the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ottla-secrets-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn check(leaks: &mut BTreeSet<String>, place: &str, secret: &str, text: &str) {
    if let Some(part) = leaked(secret, text) {
        leaks.insert(format!("{place}: {part:?} in {:?}", text.chars().take(300).collect::<String>()));
    }
}

#[tokio::test]
async fn errors_and_logs_hide_file_contents() {
    capture::start();
    let mut leaks = BTreeSet::new();
    let (file, chain, p12) = (TempFile::new("content"), TempFile::new("chain.pem"), TempFile::new("store.p12"));
    std::fs::write(&chain.0, CLIENT).unwrap();
    let (path, chain_path, p12_path) = (file.path(), chain.path(), p12.path());
    let client: &[(&str, &str)] = &[("sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1:1/token")];
    let places: [Place<'_>; 12] = [
        ("SSL", "ssl.ca.location", &[]),
        ("SSL", "ssl.truststore.location", &[]),
        ("SSL", "ssl.truststore.location", &[("ssl.truststore.type", "PKCS12"), ("ssl.truststore.password", "x")]),
        ("SSL", "ssl.certificate.location", &[("ssl.key.location", chain_path)]),
        ("SSL", "ssl.key.location", &[("ssl.certificate.location", chain_path)]),
        ("SSL", "ssl.keystore.location", &[]),
        ("SSL", "ssl.keystore.location", &[("ssl.keystore.type", "PKCS12"), ("ssl.keystore.password", "x")]),
        ("SSL", "ssl.keystore.location", &[("ssl.keystore.type", "PEM"), ("ssl.key.password", "x")]),
        ("SASL_PLAINTEXT", "sasl.oauthbearer.assertion.file", client),
        ("SASL_PLAINTEXT", "sasl.oauthbearer.assertion.private.key.file", client),
        (
            "SASL_PLAINTEXT",
            "https.ca.location",
            &[
                ("sasl.oauthbearer.token.endpoint.url", "https://127.0.0.1:1/token"),
                ("sasl.oauthbearer.client.credentials.client.id", "a"),
                ("sasl.oauthbearer.client.credentials.client.secret", "b"),
            ],
        ),
        ("SASL_PLAINTEXT", "sasl.oauthbearer.token.endpoint.url", &[]),
    ];
    for secret in SECRETS {
        std::fs::write(&file.0, secret).unwrap();
        std::fs::write(&p12.0, secret).unwrap();
        for (protocol, name, beside) in places {
            let value = match name {
                "sasl.oauthbearer.token.endpoint.url" => format!("file:{path}"),
                _ if beside.iter().any(|(_, value)| *value == "PKCS12") => p12_path.to_owned(),
                _ => path.to_owned(),
            };
            let mut pairs = vec![("security.protocol", protocol), (name, &value)];
            if protocol != "SSL" {
                pairs.push(("sasl.mechanism", "OAUTHBEARER"));
            }
            pairs.extend_from_slice(beside);
            let builder = Admin::builder("127.0.0.1:9092").network(Arc::new(MemoryNetwork::new()));
            match builder.properties(pairs).build().await {
                Err(error) => check(&mut leaks, name, secret, &capture::shown(&error)),
                Ok(admin) => check(&mut leaks, name, secret, &format!("{admin:?}")),
            }
        }
        let sources: [Box<dyn TokenSource>; 3] = [
            Box::new(TokenFile::new(path)),
            Box::new(JwtBearer::from_file("http://127.0.0.1:1/token", path).unwrap()),
            Box::new(JwtBearer::signed("http://127.0.0.1:1/token", path).unwrap()),
        ];
        for source in sources {
            let error = source.token().await.unwrap_err();
            check(&mut leaks, "token source", secret, &format!("{source:?} {}", capture::shown(&error)));
        }
    }
    let log = capture::log();
    SECRETS.iter().for_each(|secret| check(&mut leaks, "log", secret, &log));
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
}

#[tokio::test]
async fn errors_and_logs_hide_mistaken_paths() {
    capture::start();
    let mut leaks = BTreeSet::new();
    for secret in SECRETS {
        let given = [
            Tls::new().ca_file(secret),
            Tls::new().client_certificate_files(secret, secret),
            Tls::new().client_certificate_pem(CLIENT, secret),
            Tls::new().client_certificate_pem(secret, CLIENT_KEY),
            Tls::new().ca_pem(secret),
            Tls::new().client_certificate_pem(CLIENT, CLIENT_KEY_ENCRYPTED).client_key_password(secret),
            #[cfg(feature = "pkcs12")]
            Tls::new().ca_pkcs12_file(secret, secret),
            #[cfg(feature = "pkcs12")]
            Tls::new().client_certificate_pkcs12_file(secret, secret),
        ];
        for tls in given {
            let builder = Admin::builder("127.0.0.1:9092").security(Security::ssl(tls));
            let shown = format!("{builder:?} {builder:#?}");
            check(&mut leaks, "builder", secret, &shown);
            if let Err(error) = builder.build().await {
                check(&mut leaks, "error", secret, &capture::shown(&error));
            }
        }
        let sources: [Box<dyn TokenSource>; 3] = [
            Box::new(TokenFile::new(secret)),
            Box::new(JwtBearer::from_file("http://127.0.0.1:1/token", secret).unwrap()),
            Box::new(
                JwtBearer::signed("http://127.0.0.1:1/token", secret).unwrap().claim("sub", secret).key_id(secret),
            ),
        ];
        for source in sources {
            let error = source.token().await.unwrap_err();
            check(&mut leaks, "token source", secret, &format!("{source:?} {}", capture::shown(&error)));
        }
        if let Err(error) = Oidc::client_credentials(secret, secret, secret) {
            check(&mut leaks, "token URL", secret, &capture::shown(&error));
        }
    }
    let log = capture::log();
    SECRETS.iter().for_each(|secret| check(&mut leaks, "log", secret, &log));
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
}

/// Starts a token endpoint that repeats the secret in its response.
fn repeating(network: &MemoryNetwork, secret: &'static str) -> tokio::task::JoinHandle<()> {
    let mut listener = network.listen("127.0.0.1:80".parse().unwrap()).unwrap();
    tokio::spawn(async move {
        let mut turn = 0;
        while let Ok(mut stream) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request).await;
            let quoted = format!("{secret:?}");
            let body = match turn % 3 {
                0 => format!("{{\"error\":\"invalid_client\",\"error_description\":{quoted}}}"),
                1 => format!("<html>{secret}</html>"),
                _ => format!("{{\"error\":{quoted}}}"),
            };
            turn += 1;
            let answer = format!("HTTP/1.1 401 {}\r\nContent-Length: {}\r\n\r\n{body}", "No", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn hides_secrets_repeated_by_token_endpoint() {
    capture::start();
    let mut leaks = BTreeSet::new();
    for secret in SECRETS {
        let network = MemoryNetwork::new();
        let server = repeating(&network, secret);
        let url = "http://127.0.0.1/token?key=query4secret";
        let oidc = Oidc::client_credentials(url, secret, secret).unwrap().scope(secret);
        let oidc = oidc.network(Arc::new(network.clone()));
        for _ in 0..3 {
            let error = oidc.token().await.unwrap_err();
            check(&mut leaks, "token endpoint", secret, &format!("{oidc:?} {}", capture::shown(&error)));
        }
        server.abort();
    }
    let log = capture::log();
    SECRETS.iter().for_each(|secret| check(&mut leaks, "log", secret, &log));
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
}
