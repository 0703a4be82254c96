//! AWS Signature Version 4, limited to presigned requests without a body.
//!
//! Sans-IO.

use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::AwsCredentials;
use crate::security::time::stamp;
use crate::security::{Secret, http::encoded};

fn hmac(key: &[u8], message: &str) -> Zeroizing<Vec<u8>> {
    // HMAC takes keys of every length.
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else { return Zeroizing::default() };
    mac.update(message.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A presigned request: the parameters of its query in the order that the signature requires. The
/// signature itself is the last one.
pub(crate) struct Presigned {
    pub(crate) parameters: Vec<(String, Secret)>,
}

/// Presigns `GET https://host/?Action=…`, valid for `expires` seconds.
pub(crate) fn presigned(
    credentials: &AwsCredentials,
    (service, region, host): (&str, &str, &str),
    action: &str,
    expires: u32,
    now: SystemTime,
) -> Presigned {
    let stamp = stamp(now);
    let date = stamp.get(..8).unwrap_or_default();
    let scope = format!("{date}/{region}/{service}/aws4_request");
    // Sorted by name, because the signature covers them in this order.
    let mut parameters: Vec<(&str, Zeroizing<String>)> = vec![
        ("Action", Zeroizing::new(action.to_owned())),
        ("X-Amz-Algorithm", Zeroizing::new("AWS4-HMAC-SHA256".to_owned())),
        ("X-Amz-Credential", Zeroizing::new(format!("{}/{scope}", credentials.access_key_id()))),
        ("X-Amz-Date", Zeroizing::new(stamp.clone())),
        ("X-Amz-Expires", Zeroizing::new(expires.to_string())),
    ];
    if let Some(token) = credentials.session_token() {
        parameters.push(("X-Amz-Security-Token", Zeroizing::new(token.expose_str().unwrap_or_default().to_owned())));
    }
    parameters.push(("X-Amz-SignedHeaders", Zeroizing::new("host".to_owned())));

    let pair = |(name, value): &(&str, Zeroizing<String>)| format!("{}={}", encoded(name), encoded(value));
    let query = Zeroizing::new(parameters.iter().map(pair).collect::<Vec<_>>().join("&"));
    // The hash of an empty body.
    let body = hex(&Sha256::digest(b""));
    let request = Zeroizing::new(format!("GET\n/\n{}\nhost:{host}\n\nhost\n{body}", *query));
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));

    let mut first = Zeroizing::new(b"AWS4".to_vec());
    first.extend_from_slice(credentials.secret_access_key().expose());
    let key = [date, region, service, "aws4_request"].iter().fold(first, |key, part| hmac(&key, part));
    let signature = hex(&hmac(&key, &to_sign));

    let mut parameters: Vec<(String, Secret)> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), Secret::from(value.as_bytes()))).collect();
    parameters.push(("X-Amz-Signature".to_owned(), signature.into()));
    Presigned { parameters }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// The expected signatures were computed by botocore's `SigV4QueryAuth` for the same request,
    /// credentials and time.
    #[test]
    fn presigned_signature_equals_that_of_botocore() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let host = "b-1.example.kafka.eu-west-1.amazonaws.com";
        let signature = |credentials: AwsCredentials| {
            let presigned =
                presigned(&credentials, ("kafka-cluster", "eu-west-1", host), "kafka-cluster:Connect", 900, now);
            presigned.parameters.last().unwrap().1.expose_str().unwrap().to_owned()
        };
        let credentials = AwsCredentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        assert_eq!(signature(credentials.clone()), "7b561ad440dafd8bb9fc396ced888b685b12b08a6cc3ba55bfcfb70c767a1bd8");
        assert_eq!(
            signature(credentials.with_session_token("FwoGZXIvYXdzE/+=x")),
            "142177df8cf9046e37a1273b0f005623e314b14f14e6c9da04e8b923e3aeeff3"
        );
    }
}
