//! Sources of credentials in the order of AWS's own tools: environment, web identity, profile
//! files, a container's endpoint, the instance's metadata service.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use zeroize::Zeroizing;

use super::{AwsCredentials, parse_time, profile::profile};
use crate::{
    error::{Error, ErrorKind, Result, clean},
    net::Network,
    security::{
        FilePath, Hidden, Secret,
        http::{Http, Request, Url, encoded},
        json::Json,
        scrubbed,
    },
};

const CONTAINER: &str = "http://169.254.170.2";
const INSTANCE: &str = "http://169.254.169.254";

/// An environment in which credentials are looked for.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The variables that concern AWS, some of which are secrets.
    environment: HashMap<String, Secret>,
    profile: Hidden<Option<String>>,
    region: Hidden<Option<String>>,
    http: Http,
    /// The client for the metadata service, with timeouts of two seconds, because the service
    /// answers immediately on EC2 and never elsewhere.
    instance: Http,
}

impl Sources {
    /// Creates the sources of this process.
    ///
    /// # Errors
    /// `Configuration` without a crypto provider for https.
    pub(crate) fn of_process(network: Arc<dyn Network>) -> Result<Self> {
        let wanted = |name: &str| name.starts_with("AWS_") || matches!(name, "HOME" | "USERPROFILE");
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| wanted(name))?;
            Some((name, Secret::from(value.into_string().ok().filter(|value| !value.is_empty())?)))
        });
        Self::of(environment.collect(), network)
    }

    pub(crate) fn of(environment: HashMap<String, Secret>, network: Arc<dyn Network>) -> Result<Self> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "set with TLS only"))]
        let mut http = Http::new(network);
        #[cfg(feature = "tls")]
        {
            http.tls = Some(Arc::new(crate::security::tls::Connector::new(crate::security::Tls::new())?));
        }
        let quick = Duration::from_secs(2);
        let instance = Http { connect_timeout: quick, read_timeout: quick, ..http.clone() };
        Ok(Self { environment, profile: Hidden(None), region: Hidden(None), http, instance })
    }

    pub(crate) fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Hidden(Some(profile.into()));
        self
    }

    pub(crate) fn with_sts_region(mut self, region: impl Into<String>) -> Self {
        self.region = Hidden(Some(region.into()));
        self
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.environment.get(name).and_then(Secret::expose_str)
    }

    /// # Errors
    /// `Authentication` that names the places without credentials, or the mistake in one of them;
    /// `Network` or `Timeout` if the place that has them does not answer.
    pub(crate) async fn credentials(&self) -> Result<AwsCredentials> {
        // A profile that the user named in the configuration is the only source.
        if self.profile.is_none() {
            if let Some(id) = self.var("AWS_ACCESS_KEY_ID") {
                let secret = self.environment.get("AWS_SECRET_ACCESS_KEY");
                let secret = secret.ok_or_else(|| refuse("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"))?;
                let credentials = AwsCredentials::new(id, secret.clone());
                return Ok(match self.environment.get("AWS_SESSION_TOKEN") {
                    Some(token) => credentials.with_session_token(token.clone()),
                    None => credentials,
                });
            }
            if let (Some(file), Some(role)) = (self.var("AWS_WEB_IDENTITY_TOKEN_FILE"), self.var("AWS_ROLE_ARN")) {
                let session = self.var("AWS_ROLE_SESSION_NAME").unwrap_or("ottla");
                return self.web_identity(Path::new(file), role, session).await;
            }
        }
        if let Some(credentials) = self.of_profile().await? {
            return Ok(credentials);
        }
        if let Some(url) = self.container()? {
            return self.of_container(&url).await;
        }
        if self.var("AWS_EC2_METADATA_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true")) {
            return Err(refuse(format!("{NOWHERE}; the instance's metadata service is switched off")));
        }
        self.of_instance().await.map_err(|error| error.context(format_args!("{NOWHERE}; instance metadata service")))
    }

    // ---- files

    fn file(&self, variable: &str, name: &str) -> Option<PathBuf> {
        if let Some(path) = self.var(variable) {
            return Some(path.into());
        }
        let home = self.var("HOME").or_else(|| self.var("USERPROFILE"))?;
        Some(Path::new(home).join(".aws").join(name))
    }

    async fn of_profile(&self) -> Result<Option<AwsCredentials>> {
        let name = self.profile.as_deref().or_else(|| self.var("AWS_PROFILE"));
        let asked = name.is_some();
        let shown = match (self.profile.is_some(), asked) {
            (true, _) => "the profile that the client was given (awsProfileName)",
            (false, true) => "the profile of AWS_PROFILE",
            (false, false) => "the profile \"default\"",
        };
        let name = name.unwrap_or("default");
        let paths = [self.file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), self.file("AWS_CONFIG_FILE", "config")];
        let mut settings: Vec<(String, Secret)> = Vec::new();
        for path in paths.into_iter().flatten() {
            let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
            // A file that does not exist is not an error here: a missing profile that the user
            // asked for is reported below.
            let Ok(Ok(bytes)) = read else { continue };
            let bytes = Zeroizing::new(bytes);
            settings.extend(profile(&String::from_utf8_lossy(&bytes), name).unwrap_or_default());
        }
        let get = |wanted: &str| settings.iter().find(|(name, value)| name == wanted && !value.is_empty());
        let text = |wanted: &str| get(wanted).and_then(|(_, value)| value.expose_str());
        if let (Some(id), Some((_, secret))) = (text("aws_access_key_id"), get("aws_secret_access_key")) {
            let credentials = AwsCredentials::new(id, secret.clone());
            return Ok(Some(match get("aws_session_token") {
                Some((_, token)) => credentials.with_session_token(token.clone()),
                None => credentials,
            }));
        }
        if let (Some(file), Some(role)) = (text("web_identity_token_file"), text("role_arn")) {
            let session = text("role_session_name").unwrap_or("ottla");
            return self.web_identity(Path::new(file), role, session).await.map(Some);
        }
        let other = ["role_arn", "sso_session", "sso_start_url", "credential_process"];
        if let Some(other) = other.iter().find(|name| get(name).is_some()) {
            let message = format!("AWS: {shown} asks for `{other}`, which this version does not support");
            return Err(refuse(message));
        }
        if asked {
            return Err(refuse(format!("AWS: {shown} does not exist, or has no aws_access_key_id")));
        }
        Ok(None)
    }

    // ---- web identity

    async fn web_identity(&self, file: &Path, role: &str, session: &str) -> Result<AwsCredentials> {
        let token = tokio::task::spawn_blocking({
            let file = file.to_owned();
            move || std::fs::read_to_string(file)
        });
        let failed = |error| refuse(format!("web identity token {}: {error}", FilePath::new(file)));
        let token = token.await.map_err(std::io::Error::other).and_then(|read| read).map_err(failed)?;
        let token = Zeroizing::new(token);
        let region = self.region.as_deref().or_else(|| self.var("AWS_REGION"));
        if region.is_some_and(|region| !is_region(region)) {
            return Err(refuse("AWS_REGION (or awsStsRegion) is not the name of a region, such as eu-west-1"));
        }
        let host = region.map_or("sts.amazonaws.com".to_owned(), |region| format!("sts.{region}.amazonaws.com"));
        let host = self.var("AWS_ENDPOINT_URL_STS").map_or(format!("https://{host}"), str::to_owned);
        let url = Url::parse(&format!("{}/", host.trim_end_matches('/'))).map_err(refuse)?;
        let body = crate::security::http::form(&[
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session),
            ("WebIdentityToken", token.trim()),
        ]);
        let headers = vec![
            ("Accept", Zeroizing::new("application/xml".to_owned())),
            ("Content-Type", Zeroizing::new("application/x-www-form-urlencoded".to_owned())),
        ];
        let response = self.http.ask(Request { method: "POST", url: &url, headers, body }).await?;
        let text = String::from_utf8_lossy(&response.body);
        let said = |name: &str| element(&text, name);
        if response.status != 200 {
            let why = [said("Code"), said("Message")].map(Option::unwrap_or_default).join(" ");
            let why = scrubbed(&why, 200, [token.as_str()]);
            return Err(status(&url, response.status, &why));
        }
        let missing = || refuse(format!("{url}: its answer holds no credentials"));
        let id = said("AccessKeyId").ok_or_else(missing)?;
        let credentials = AwsCredentials::new(id, said("SecretAccessKey").ok_or_else(missing)?)
            .with_session_token(said("SessionToken").ok_or_else(missing)?);
        Ok(credentials.expiring(said("Expiration").and_then(parse_time)))
    }

    // ---- endpoints

    fn container(&self) -> Result<Option<Url>> {
        let url = match self.var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            Some(path) if path.starts_with('/') => format!("{CONTAINER}{path}"),
            // Without the `/`, the text would become a part of the host name.
            Some(_) => return Err(refuse("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with `/`")),
            None => match self.var("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
                Some(url) => url.to_owned(),
                None => return Ok(None),
            },
        };
        // The path is hidden, because an identifier in it is all that some containers need to get
        // credentials.
        let url = Url::parse(&url).map_err(|why| refuse(format!("container credentials: {why}")))?.hide_path();
        if !url.is_secure() && !url.is_local() {
            return Err(refuse(format!("container credentials: {url} is neither https nor of this machine")));
        }
        Ok(Some(url))
    }

    async fn of_container(&self, url: &Url) -> Result<AwsCredentials> {
        let token = match self.var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => {
                let file = file.to_owned();
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await;
                let failed = |error| refuse(format!("container authorization token: {error}"));
                Some(Zeroizing::new(read.map_err(std::io::Error::other).and_then(|read| read).map_err(failed)?))
            }
            None => self.var("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|token| Zeroizing::new(token.to_owned())),
        };
        let mut headers = Vec::new();
        if let Some(token) = token {
            let token = Zeroizing::new(token.trim().to_owned());
            if token.contains(['\r', '\n']) {
                return Err(refuse("container authorization token: it has more than one line"));
            }
            headers.push(("Authorization", token));
        }
        let body = Zeroizing::default();
        let response = self.http.ask(Request { method: "GET", url, headers, body }).await?;
        if response.status != 200 {
            return Err(status(url, response.status, ""));
        }
        of_json(url, &response.body)
    }

    async fn of_instance(&self) -> Result<AwsCredentials> {
        let base = self.var("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(INSTANCE).trim_end_matches('/');
        let ask = async |method, path: &str, header: (&'static str, &str)| {
            let url = Url::parse(&format!("{base}/latest/{path}")).map_err(refuse)?.hide_path();
            let headers = vec![(header.0, Zeroizing::new(header.1.to_owned()))];
            let request = Request { method, url: &url, headers, body: Zeroizing::default() };
            let response = self.instance.ask(request).await?;
            if response.status == 200 { Ok((url, response.body)) } else { Err(status(&url, response.status, "")) }
        };
        let (_, token) = ask("PUT", "api/token", ("X-aws-ec2-metadata-token-ttl-seconds", "21600")).await?;
        let token = std::str::from_utf8(&token).ok().filter(|token| token.bytes().all(|b| b.is_ascii_graphic()));
        let token = ("X-aws-ec2-metadata-token", token.ok_or_else(|| refuse("its session token is malformed"))?);
        let (_, roles) = ask("GET", "meta-data/iam/security-credentials/", token).await?;
        let role = String::from_utf8_lossy(&roles);
        let role = role.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = encoded(role.ok_or_else(|| refuse("the instance has no role"))?);
        let (url, answer) = ask("GET", &format!("meta-data/iam/security-credentials/{role}"), token).await?;
        of_json(&url, &answer)
    }
}

/// Returns true if a text can be the name of a region, and so a part of a host name.
pub(crate) fn is_region(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
}

const NOWHERE: &str = "AWS credentials: neither in the environment, nor in a profile, nor from a container's endpoint";

fn of_json(url: &Url, bytes: &[u8]) -> Result<AwsCredentials> {
    let missing = || refuse(format!("{url}: its answer holds no credentials"));
    let json = Json::parse(bytes).ok_or_else(missing)?;
    let secret = json.secret("SecretAccessKey").ok_or_else(missing)?;
    let credentials = AwsCredentials::new(json.text("AccessKeyId").ok_or_else(missing)?, secret);
    let credentials = match json.secret("Token") {
        Some(token) => credentials.with_session_token(token),
        None => credentials,
    };
    Ok(credentials.expiring(json.text("Expiration").and_then(parse_time)))
}

/// Returns the text of an XML element. It reads only the plain XML of STS: no attributes, no
/// nesting of the same name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

fn status(url: &Url, status: u16, why: &str) -> Error {
    let passing = matches!(status, 408 | 429 | 500..=599);
    let kind = if passing { ErrorKind::Network } else { ErrorKind::Authentication };
    Error::new(kind, format!("{url}: it answered with status {status} {}", clean(why)).trim_end())
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Authentication, why.to_string())
}
