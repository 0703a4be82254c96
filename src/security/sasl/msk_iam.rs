//! AWS_MSK_IAM: a presigned request to AWS, which the broker makes on behalf of the client.

use std::{sync::Arc, time::SystemTime};

use zeroize::Zeroizing;

use super::{Exchange, Mechanism, Step};
use crate::{
    error::{Error, ErrorKind, Result},
    net::{BoxFuture, Tcp},
    security::{
        Hidden, Secret,
        aws::{AwsCredentials, AwsSource, CredentialCache, Sources, presigned},
        json::{Json, quoted},
    },
};

/// Lifetime of a signature in seconds, the same as in AWS's own library.
const EXPIRES: u32 = 900;

/// AWS_MSK_IAM, for Amazon MSK.
///
/// Credentials come from the first place that has them, in the order of AWS's own tools: the
/// environment (`AWS_ACCESS_KEY_ID` …), a web identity (`AWS_WEB_IDENTITY_TOKEN_FILE`, as on EKS),
/// the profile files, a container's endpoint (ECS, EKS Pod Identity), the instance's metadata
/// service (IMDSv2). They are renewed before they expire. The region is read from the broker's host
/// name.
#[derive(Debug)]
pub struct AwsMskIam {
    region: Hidden<Option<String>>,
    profile: Hidden<Option<String>>,
    sts_region: Hidden<Option<String>>,
    given: Option<AwsCredentials>,
    credentials: std::sync::OnceLock<std::result::Result<CredentialCache, Error>>,
}

impl Default for AwsMskIam {
    fn default() -> Self {
        Self::new()
    }
}

impl AwsMskIam {
    /// Creates the mechanism with credentials from the places named above.
    pub fn new() -> Self {
        Self {
            region: Hidden(None),
            profile: Hidden(None),
            sts_region: Hidden(None),
            given: None,
            credentials: std::sync::OnceLock::new(),
        }
    }

    /// Uses these credentials instead of looking for some.
    pub fn credentials(mut self, credentials: AwsCredentials) -> Self {
        self.given = Some(credentials);
        self
    }

    /// Uses only the credentials of this profile in `~/.aws/credentials` or `~/.aws/config`
    /// (`awsProfileName`). Default: all sources, with the profile of `AWS_PROFILE` or `default`.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Hidden(Some(name.into()));
        self
    }

    /// Sets the cluster's region. Default: the region in the broker's host name, or `AWS_REGION`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Hidden(Some(region.into()));
        self
    }

    /// Sets the region of the STS endpoint that exchanges a web identity (`awsStsRegion`). Default:
    /// `AWS_REGION`, or the global endpoint.
    pub fn sts_region(mut self, region: impl Into<String>) -> Self {
        self.sts_region = Hidden(Some(region.into()));
        self
    }

    fn cache(&self) -> Result<&CredentialCache> {
        let make = || {
            let source = match &self.given {
                Some(given) => AwsSource::Given(given.clone()),
                None => {
                    let mut sources = Sources::of_process(Arc::new(Tcp))?;
                    if let Some(profile) = &*self.profile {
                        sources = sources.with_profile(profile);
                    }
                    if let Some(region) = &*self.sts_region {
                        sources = sources.with_sts_region(region);
                    }
                    AwsSource::found(sources)
                }
            };
            Ok(CredentialCache::new(source))
        };
        self.credentials.get_or_init(make).as_ref().map_err(Error::clone)
    }

    async fn message(&self, host: &str) -> Result<Secret> {
        let region = match &*self.region {
            Some(region) => region.clone(),
            None => region_of(host).or_else(|| std::env::var("AWS_REGION").ok()).ok_or_else(|| {
                let message = format!(
                    "AWS_MSK_IAM: the region cannot be read from the host name \"{host}\"; set AWS_REGION, or \
                     `AwsMskIam::region`"
                );
                Error::new(ErrorKind::Authentication, message)
            })?,
        };
        let credentials = self.cache()?.credentials().await.map_err(|error| error.context("AWS_MSK_IAM"))?;
        Ok(payload(&credentials, &region, host, SystemTime::now()))
    }
}

impl Mechanism for AwsMskIam {
    fn name(&self) -> &str {
        "AWS_MSK_IAM"
    }

    fn begin<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Box<dyn Exchange>>> {
        Box::pin(async move { Ok(Box::new(MskExchange(self.message(host).await?)) as Box<dyn Exchange>) })
    }
}

struct MskExchange(Secret);

impl Exchange for MskExchange {
    fn next(&mut self, challenge: Option<&[u8]>) -> Result<Step> {
        match challenge {
            None => Ok(Step::Send(self.0.clone())),
            // The broker's answer is a version and a request id. An empty answer comes from servers
            // that only imitate MSK, such as test brokers.
            Some(answer) if answer.is_empty() || Json::parse(answer).is_some() => Ok(Step::Done),
            Some(_) => Err(Error::new(ErrorKind::Authentication, "AWS_MSK_IAM: the broker's answer is not JSON")),
        }
    }
}

/// Returns the region in a host name like `b-1.name.x.c2.kafka.eu-west-1.amazonaws.com` or
/// `boot-x.c1.kafka-serverless.eu-west-1.amazonaws.com`.
fn region_of(host: &str) -> Option<String> {
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let service = labels.iter().position(|label| *label == "kafka" || *label == "kafka-serverless")?;
    let (region, domain) = (labels.get(service + 1)?, labels.get(service + 2)?);
    (*domain == "amazonaws").then(|| (*region).to_owned())
}

fn payload(credentials: &AwsCredentials, region: &str, host: &str, now: SystemTime) -> Secret {
    let signed = presigned(credentials, ("kafka-cluster", region, host), "kafka-cluster:Connect", EXPIRES, now);
    let size: usize = signed.parameters.iter().map(|(name, value)| name.len() + 2 * value.len() + 8).sum();
    let mut out = Zeroizing::new(String::with_capacity(size + host.len() + 128));
    let agent = concat!("ottla/", env!("CARGO_PKG_VERSION"));
    out.push_str("{\"version\":\"2020_10_22\"");
    let signed = signed
        .parameters
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.expose_str().unwrap_or_default()));
    let more = [("host".to_owned(), host), ("user-agent".to_owned(), agent)];
    for (name, value) in more.into_iter().chain(signed) {
        out.push(',');
        out.push_str(&quoted(&name));
        out.push(':');
        out.push_str(&Zeroizing::new(quoted(value)));
    }
    out.push('}');
    out.as_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn derives_region_from_broker_host_name() {
        for (host, region) in [
            ("b-1.example.x1.c2.kafka.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("boot-x.c1.kafka-serverless.us-east-2.amazonaws.com.", Some("us-east-2")),
            ("b-1.x.kafka.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("kafka.example.com", None),
            ("localhost", None),
        ] {
            assert_eq!(region_of(host).as_deref(), region, "{host}");
        }
    }

    #[test]
    fn payload_contains_presigned_request_as_json() {
        let credentials = AwsCredentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
            .with_session_token("FwoGZXIvYXdzE/+=x");
        let host = "b-1.example.kafka.eu-west-1.amazonaws.com";
        let payload = payload(&credentials, "eu-west-1", host, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let json = Json::parse(payload.expose()).unwrap();
        for (name, value) in [
            ("version", "2020_10_22"),
            ("host", host),
            ("action", "kafka-cluster:Connect"),
            ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
            ("x-amz-credential", "AKIDEXAMPLE/20231114/eu-west-1/kafka-cluster/aws4_request"),
            ("x-amz-date", "20231114T221320Z"),
            ("x-amz-expires", "900"),
            ("x-amz-security-token", "FwoGZXIvYXdzE/+=x"),
            ("x-amz-signedheaders", "host"),
            // Computed by botocore.
            ("x-amz-signature", "142177df8cf9046e37a1273b0f005623e314b14f14e6c9da04e8b923e3aeeff3"),
        ] {
            assert_eq!(json.text(name), Some(value), "{name}");
        }
        assert!(!payload.expose_str().unwrap().contains("wJalr"));
    }
}
