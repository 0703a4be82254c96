//! Tests of each source of credentials, on a network in memory.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{AwsSource, CredentialCache, Sources};
use crate::{error::ErrorKind, net::MemoryNetwork, security::Secret};

/// Serves `answers` on an address: each to requests that begin with its start and contain its
/// header; everything else gets 404.
fn serve(
    network: &MemoryNetwork,
    address: &str,
    answers: &'static [(&'static str, u16, &'static str)],
) -> Arc<AtomicU32> {
    let address: SocketAddr = address.parse().unwrap();
    let mut listener = network.listen(address).unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            count.fetch_add(1, Ordering::Relaxed);
            let request = String::from_utf8_lossy(&request);
            let answer = answers.iter().find(|(start, ..)| {
                let (line, header) = start.split_once('|').unwrap_or((start, ""));
                request.starts_with(line) && request.contains(header)
            });
            let (status, body) = answer.map_or((404, ""), |(_, status, body)| (*status, *body));
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    asked
}

fn sources(network: &MemoryNetwork, environment: &[(&str, &str)]) -> Sources {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), Secret::from(*value)));
    Sources::of(environment.collect::<HashMap<_, _>>(), Arc::new(network.clone())).unwrap()
}

struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ottla-aws-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const NOWHERE: (&str, &str) = ("HOME", "/nowhere");

#[tokio::test(start_paused = true)]
async fn reads_credentials_from_environment_variables() {
    let network = MemoryNetwork::new();
    let keys = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("AWS_SESSION_TOKEN", "ST")];
    let found = sources(&network, &keys).credentials().await.unwrap();
    assert_eq!((found.access_key_id(), found.session_token().unwrap().expose()), ("AK", &b"ST"[..]));
    assert!(!format!("{found:?}").contains("hunter2"));
    let error = sources(&network, &keys[..1]).credentials().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn reads_profiles_from_credentials_and_config_files() {
    let network = MemoryNetwork::new();
    let credentials = File::new("credentials", "[default]\naws_access_key_id=D\naws_secret_access_key=s\n");
    let config = File::new(
        "config",
        "[profile dev]\naws_access_key_id=V\naws_secret_access_key=hunter2\n[profile sso]\nsso_session=x\n",
    );
    let files = [("AWS_SHARED_CREDENTIALS_FILE", credentials.path()), ("AWS_CONFIG_FILE", config.path())];
    let of = |profile: &str| {
        let sources = sources(&network, &files);
        if profile.is_empty() { sources } else { sources.with_profile(profile) }
    };
    assert_eq!(of("").credentials().await.unwrap().access_key_id(), "D");
    assert_eq!(of("dev").credentials().await.unwrap().access_key_id(), "V");
    for (profile, part) in [("none", "does not exist"), ("sso", "`sso_session`")] {
        let error = of(profile).credentials().await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn exchanges_web_identity_token_at_sts() {
    let network = MemoryNetwork::new();
    let token = File::new("token", "hunter2\n");
    let answer = "<AssumeRoleWithWebIdentityResponse><Credentials><AccessKeyId>AK</AccessKeyId>\
                  <SecretAccessKey>s</SecretAccessKey><SessionToken>ST</SessionToken>\
                  <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResponse>";
    let answers = Box::leak(Box::new([("POST / ", 200, answer)]));
    serve(&network, "127.0.0.1:80", answers);
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1"),
    ];
    let found = sources(&network, &environment).credentials().await.unwrap();
    assert_eq!((found.access_key_id(), found.session_token().unwrap().expose()), ("AK", &b"ST"[..]));

    let network = MemoryNetwork::new();
    let refusal = "<Error><Code>ExpiredTokenException</Code><Message>Token expired</Message></Error>";
    serve(&network, "127.0.0.1:80", Box::leak(Box::new([("POST / ", 400, refusal)])));
    let error = sources(&network, &environment).credentials().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("ExpiredTokenException Token expired"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

const JSON: &str = r#"{"AccessKeyId":"AK","SecretAccessKey":"s","Token":"ST","Expiration":"2099-01-01T00:00:00Z"}"#;

#[tokio::test(start_paused = true)]
async fn fetches_credentials_from_container_endpoint() {
    let network = MemoryNetwork::new();
    serve(&network, "169.254.170.2:80", &[("GET /creds?id=1 |Authorization: hunter2\r\n", 200, JSON)]);
    let environment = [
        NOWHERE,
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/creds?id=1"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hunter2"),
    ];
    let found = sources(&network, &environment).credentials().await.unwrap();
    assert_eq!(found.access_key_id(), "AK");
    let error = sources(&network, &environment[..2]).credentials().await.unwrap_err();
    assert!(error.to_string().contains("status 404"), "{error}");
    let far = [NOWHERE, ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/creds")];
    let error = sources(&network, &far).credentials().await.unwrap_err();
    assert!(error.to_string().contains("neither https nor of this machine"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn fetches_instance_credentials_once_with_session_token() {
    let network = MemoryNetwork::new();
    let roles = "GET /latest/meta-data/iam/security-credentials/ |X-aws-ec2-metadata-token: TOKEN\r\n";
    let role = "GET /latest/meta-data/iam/security-credentials/my%2Frole |X-aws-ec2-metadata-token: TOKEN\r\n";
    let answers =
        Box::leak(Box::new([("PUT /latest/api/token ", 200, "TOKEN"), (roles, 200, "my/role\n"), (role, 200, JSON)]));
    let asked = serve(&network, "169.254.169.254:80", answers);
    let cache = CredentialCache::new(AwsSource::found(sources(&network, &[NOWHERE])));
    for _ in 0..3 {
        assert_eq!(cache.credentials().await.unwrap().access_key_id(), "AK");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "credentials are kept while they are valid");
}

#[tokio::test(start_paused = true)]
async fn missing_credentials_error_names_metadata_service() {
    let network = MemoryNetwork::new();
    let error = sources(&network, &[NOWHERE]).credentials().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("instance metadata service"), "{error}");
    let off = [NOWHERE, ("AWS_EC2_METADATA_DISABLED", "true")];
    let error = sources(&network, &off).credentials().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("switched off"), "{error}");
}

#[path = "../../../tests/secrets/list.rs"]
mod list;

/// Returns everything that an attempt to find credentials shows.
async fn shown(sources: Sources) -> String {
    let shown = format!("{sources:?}");
    match sources.credentials().await {
        Ok(credentials) => format!("{shown} {credentials:?}"),
        Err(error) => format!("{shown} {error} {error:?} {:?}", std::error::Error::source(&error)),
    }
}

#[tokio::test]
async fn errors_and_debug_hide_credential_secrets() {
    for secret in list::SECRETS {
        let network = MemoryNetwork::new();
        let body: &'static str = secret;
        // STS, a container's endpoint and the instance's metadata repeat the secret.
        let answers: &'static [_] = Box::leak(Box::new([
            ("POST", 403, Box::leak(format!("<Error><Code>{body}</Code></Error>").into_boxed_str()) as &str),
            ("PUT", 200, body),
            ("GET", 200, body),
        ]));
        let no_file = File::new("nothing", "");
        let content = File::new("content", secret);
        let profile =
            format!("[default]\naws_access_key_id={secret}\nrole_arn={secret}\n[{secret}]\nsso_session={secret}\n");
        let profile = File::new("profile", &profile);
        serve(&network, "127.0.0.1:80", answers);
        serve(&network, "169.254.169.254:80", answers);
        let config = [("AWS_CONFIG_FILE", no_file.path()), ("AWS_SHARED_CREDENTIALS_FILE", no_file.path())];
        for environment in [
            &[("AWS_ACCESS_KEY_ID", secret)][..],
            &[("AWS_ACCESS_KEY_ID", secret), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_SESSION_TOKEN", secret)],
            &[("AWS_SHARED_CREDENTIALS_FILE", profile.path())],
            &[("AWS_SHARED_CREDENTIALS_FILE", profile.path()), ("AWS_PROFILE", secret)],
            &[("AWS_SHARED_CREDENTIALS_FILE", content.path()), ("AWS_CONFIG_FILE", content.path())],
            &[("AWS_SHARED_CREDENTIALS_FILE", secret), ("AWS_PROFILE", secret)],
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", content.path()),
                ("AWS_ROLE_ARN", secret),
                ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1"),
            ],
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", secret), ("AWS_ROLE_ARN", secret), ("AWS_REGION", secret)],
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", content.path()), ("AWS_ROLE_ARN", "r"), ("AWS_ENDPOINT_URL_STS", secret)],
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/c"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN", secret),
            ],
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/c"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", secret),
            ],
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", secret)],
            &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", secret)],
            &[],
        ] {
            let environment: Vec<_> = config.iter().chain(environment).copied().collect();
            let shown = shown(sources(&network, &environment)).await;
            assert_eq!(list::leaked(secret, &shown), None, "{:?}: {shown}", environment.last());
        }
        let shown = shown(sources(&network, &config).with_profile(secret)).await;
        assert_eq!(list::leaked(secret, &shown), None, "{shown}");
    }
}
