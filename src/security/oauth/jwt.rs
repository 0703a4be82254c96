//! Tokens for an assertion that the client signs itself (RFC 7523): by the JWT bearer grant
//! (KIP-1139), or by the client credentials grant, in which the assertion replaces the secret
//! (KIP-1258).

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use rand::RngExt;
use rustls::{SignatureScheme, crypto::CryptoProvider};
use zeroize::Zeroizing;

use super::{Token, TokenSource, file, oidc::Endpoint};
use crate::{
    error::{Error, ErrorKind, Result},
    net::{BoxFuture, Network},
    security::{
        FilePath, Hidden, Secret, Tls,
        json::quoted,
        tls::{described, provider, signing_key},
    },
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The algorithm that signs an assertion (`sasl.oauthbearer.assertion.algorithm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtAlgorithm {
    /// RSA with SHA-256 (PKCS#1 v1.5). The default.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// Gets tokens for an assertion, which is signed here, or read from a file that another program
/// renews.
///
/// The assertion is the grant itself (Java's `JwtBearerJwtRetriever`, KIP-1139), or, after
/// [`client_assertion`](Self::client_assertion), the client's proof in the client credentials grant
/// (KIP-1258).
#[derive(Clone, Debug)]
pub struct JwtBearer {
    endpoint: Endpoint,
    assertion: Assertion,
    grant: Grant,
    scope: Hidden<Option<String>>,
}

#[derive(Clone, Debug)]
enum Grant {
    JwtBearer,
    /// The client credentials grant, with the client's id if the endpoint wants it beside the
    /// assertion.
    ClientCredentials(Hidden<Option<String>>),
}

#[derive(Clone, Debug)]
enum Assertion {
    File(FilePath),
    Signed(Box<Signed>),
}

#[derive(Clone, Debug)]
struct Signed {
    key_file: FilePath,
    passphrase: Option<Secret>,
    algorithm: JwtAlgorithm,
    key_id: Hidden<Option<String>>,
    claims: Hidden<Vec<(String, String)>>,
    lifetime: Duration,
    not_before: Duration,
    unique: bool,
    provider: Arc<CryptoProvider>,
}

impl JwtBearer {
    /// Signs assertions with the private key of a PEM file
    /// (`sasl.oauthbearer.assertion.private.key.file`), which is read again for each assertion.
    ///
    /// # Errors
    /// `Configuration` if the URL is malformed, and without a crypto provider.
    pub fn signed(token_endpoint: &str, private_key_file: impl Into<PathBuf>) -> Result<Self> {
        let signed = Signed {
            key_file: FilePath::new(private_key_file),
            passphrase: None,
            algorithm: JwtAlgorithm::Rs256,
            key_id: Hidden(None),
            claims: Hidden::default(),
            lifetime: Duration::from_secs(300),
            not_before: Duration::from_secs(60),
            unique: false,
            provider: provider(None)?,
        };
        let endpoint = Endpoint::new(token_endpoint)?;
        Ok(Self {
            endpoint,
            assertion: Assertion::Signed(Box::new(signed)),
            grant: Grant::JwtBearer,
            scope: Hidden(None),
        })
    }

    /// Reads the assertion from a file (`sasl.oauthbearer.assertion.file`), which is read again for
    /// each token.
    ///
    /// # Errors
    /// `Configuration` if the URL is malformed, and without a crypto provider.
    pub fn from_file(token_endpoint: &str, assertion_file: impl Into<PathBuf>) -> Result<Self> {
        let assertion = Assertion::File(FilePath::new(assertion_file));
        Ok(Self { endpoint: Endpoint::new(token_endpoint)?, assertion, grant: Grant::JwtBearer, scope: Hidden(None) })
    }

    fn signing(mut self, change: impl FnOnce(&mut Signed)) -> Self {
        if let Assertion::Signed(signed) = &mut self.assertion {
            change(signed);
        }
        self
    }

    /// Sets the passphrase of an encrypted key
    /// (`sasl.oauthbearer.assertion.private.key.passphrase`).
    pub fn passphrase(self, passphrase: impl Into<Secret>) -> Self {
        self.signing(|signed| signed.passphrase = Some(passphrase.into()))
    }

    /// Sets the signature algorithm (`sasl.oauthbearer.assertion.algorithm`). Default:
    /// [`JwtAlgorithm::Rs256`].
    pub fn algorithm(self, algorithm: JwtAlgorithm) -> Self {
        self.signing(|signed| signed.algorithm = algorithm)
    }

    /// Sets the header `kid`, which identifies one of the client's keys. Default: none.
    pub fn key_id(self, id: impl Into<String>) -> Self {
        self.signing(|signed| signed.key_id = Hidden(Some(id.into())))
    }

    /// Adds a claim with a text, mostly `aud`, `iss` or `sub`
    /// (`sasl.oauthbearer.assertion.claim.*`).
    pub fn claim(self, name: impl Into<String>, value: impl AsRef<str>) -> Self {
        self.signing(|signed| signed.claims.0.push((name.into(), quoted(value.as_ref()))))
    }

    /// Sets the time for which an assertion is valid
    /// (`sasl.oauthbearer.assertion.claim.exp.seconds`). Default: 300 s.
    pub fn assertion_lifetime(self, lifetime: Duration) -> Self {
        self.signing(|signed| signed.lifetime = lifetime)
    }

    /// Sets the time before its creation from which an assertion is valid, to allow for clock
    /// differences (`sasl.oauthbearer.assertion.claim.nbf.seconds`). Default: 60 s.
    pub fn assertion_not_before(self, before: Duration) -> Self {
        self.signing(|signed| signed.not_before = before)
    }

    /// Sets whether each assertion has a unique id (claim `jti`,
    /// `sasl.oauthbearer.assertion.claim.jti.include`). Default: false.
    pub fn assertion_id(self, include: bool) -> Self {
        self.signing(|signed| signed.unique = include)
    }

    /// Sets the crypto provider that signs. Default: like that of [`Tls::crypto_provider`].
    pub fn crypto_provider(self, provider: Arc<CryptoProvider>) -> Self {
        self.signing(|signed| signed.provider = provider)
    }

    /// Uses the client credentials grant, in which the assertion is the client's proof in place of
    /// a secret (`client_assertion`, also called `private_key_jwt`; RFC 7523, section 2.2;
    /// KIP-1258). Default: the JWT bearer grant.
    pub fn client_assertion(mut self) -> Self {
        if matches!(self.grant, Grant::JwtBearer) {
            self.grant = Grant::ClientCredentials(Hidden(None));
        }
        self
    }

    /// Sends the client's id beside the assertion, for endpoints that do not take it from the claim
    /// `sub` (`sasl.oauthbearer.client.credentials.client.id`). Implies
    /// [`client_assertion`](Self::client_assertion). Default: none.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.grant = Grant::ClientCredentials(Hidden(Some(id.into())));
        self
    }

    /// Sets the `scope` of the request (`sasl.oauthbearer.scope`). Default: none.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Hidden(Some(scope.into()));
        self
    }

    /// Sets the timeouts of connecting and of the response (`sasl.login.connect.timeout.ms`,
    /// `sasl.login.read.timeout.ms`). Default: 10 s each.
    pub fn timeouts(mut self, connect: Duration, read: Duration) -> Self {
        self.endpoint.timeouts(connect, read);
        self
    }

    /// Sets the TLS settings of the endpoint, such as the trusted authorities. Default:
    /// [`Tls::new`], which trusts public certificate authorities.
    ///
    /// # Errors
    /// `Configuration` without a crypto provider.
    pub fn tls(mut self, tls: Tls) -> Result<Self> {
        self.endpoint.tls(tls)?;
        Ok(self)
    }

    /// Sets the network for connections to the endpoint. Default: TCP.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.endpoint.http.network = network;
        self
    }

    async fn fetch(&self) -> Result<Token> {
        let assertion = match &self.assertion {
            Assertion::File(path) => file::read(path).await.map_err(|error| error.context("assertion"))?,
            Assertion::Signed(signed) => {
                let key = file::read(&signed.key_file).await.map_err(|error| error.context("assertion's key"))?;
                signed.assertion(&key, SystemTime::now(), rand::rng().random())?
            }
        };
        let assertion = assertion.expose_str().unwrap_or_default();
        let mut fields = match &self.grant {
            Grant::JwtBearer => vec![("grant_type", JWT_BEARER), ("assertion", assertion)],
            Grant::ClientCredentials(id) => {
                let mut fields = vec![
                    ("grant_type", "client_credentials"),
                    ("client_assertion_type", ASSERTION_TYPE),
                    ("client_assertion", assertion),
                ];
                fields.extend(id.as_deref().map(|id| ("client_id", id)));
                fields
            }
        };
        fields.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        self.endpoint.ask(Vec::new(), &fields, &[]).await
    }
}

impl TokenSource for JwtBearer {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        Box::pin(self.fetch())
    }
}

impl Signed {
    fn assertion(&self, key: &Secret, now: SystemTime, id: u128) -> Result<Secret> {
        let failed = |why: String| {
            let message = format!("assertion: {}: {why}", self.key_file);
            Error::new(ErrorKind::Authentication, message)
        };
        let (algorithm, scheme) = match self.algorithm {
            JwtAlgorithm::Rs256 => ("RS256", SignatureScheme::RSA_PKCS1_SHA256),
            JwtAlgorithm::Es256 => ("ES256", SignatureScheme::ECDSA_NISTP256_SHA256),
        };
        let key_id = self.key_id.as_ref().map_or_else(String::new, |id| format!(",\"kid\":{}", quoted(id)));
        let header = format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"{key_id}}}");
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims: Vec<String> =
            self.claims.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        claims.push(format!("\"iat\":{seconds}"));
        claims.push(format!("\"exp\":{}", seconds.saturating_add(self.lifetime.as_secs())));
        claims.push(format!("\"nbf\":{}", seconds.saturating_sub(self.not_before.as_secs())));
        if self.unique {
            claims.push(format!("\"jti\":\"{id:032x}\""));
        }
        let claims = format!("{{{}}}", claims.join(","));
        let mut assertion = Zeroizing::new(format!("{}.{}", BASE64.encode(header), BASE64.encode(claims)).into_bytes());

        let key = signing_key(key.expose(), self.passphrase.as_ref(), &self.provider).map_err(failed)?;
        let signer = key.choose_scheme(&[scheme]);
        let signer = signer.ok_or_else(|| failed(format!("the key cannot sign with {algorithm}")))?;
        let mut signature = signer.sign(&assertion).map_err(|error| failed(described(&error)))?;
        if self.algorithm == JwtAlgorithm::Es256 {
            signature = raw_ecdsa(&signature).ok_or_else(|| failed("the signature is malformed".to_owned()))?;
        }
        assertion.push(b'.');
        assertion.extend_from_slice(BASE64.encode(signature).as_bytes());
        Ok(assertion.to_vec().into())
    }
}

/// Converts a P-256 signature from DER, which TLS uses, to the form of a JWT: the two numbers side
/// by side (RFC 7518, 3.4).
fn raw_ecdsa(der: &[u8]) -> Option<Vec<u8>> {
    let [0x30, _, rest @ ..] = der else { return None };
    let mut rest = rest;
    let mut out = Vec::with_capacity(64);
    for _ in 0..2 {
        let [0x02, length, tail @ ..] = rest else { return None };
        let number = tail.get(..usize::from(*length))?;
        rest = tail.get(usize::from(*length)..)?;
        let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let number = number.get(first..)?;
        out.resize(out.len() + 32_usize.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
    }
    rest.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_der_ecdsa_signature_to_raw() {
        let der = [&[0x30, 0x0b, 0x02, 0x03, 0x00, 0x80, 0x01, 0x02, 0x04, 1, 2, 3, 4][..]].concat();
        let raw = raw_ecdsa(&der).unwrap();
        assert_eq!((raw.len(), &raw[29..32], &raw[60..]), (64, &[0, 0x80, 0x01][..], &[1, 2, 3, 4][..]));
        for broken in [&der[..5], &[], &[0x31, 0], &[0x30, 2, 2, 9]] {
            assert_eq!(raw_ecdsa(broken), None);
        }
    }
}
