//! The brokers' side of SASL: users, and one connection's authentication. It shares no code with
//! the client's side, so that a mistake in one does not hide in the other.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use crate::{error::ErrorCode, wire::ApiKey};

/// SASL of a cluster's brokers: the users that may connect, and the mechanisms. PLAIN,
/// SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER (with unsecured tokens, the `sub` of which is the
/// user) are all offered by default.
#[derive(Clone, Debug)]
pub struct Sasl {
    users: BTreeMap<String, String>,
    mechanisms: Vec<String>,
    iterations: u32,
    max_reauth: Option<Duration>,
}

impl Default for Sasl {
    fn default() -> Self {
        Self::new()
    }
}

impl Sasl {
    /// Creates the settings without users.
    pub fn new() -> Self {
        let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"].map(str::to_owned).to_vec();
        Self { users: BTreeMap::new(), mechanisms, iterations: 4096, max_reauth: None }
    }

    /// Adds a user. A user that is named by a token needs no password.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.insert(name.into(), password.into());
        self
    }

    /// Sets the mechanisms that are offered (`sasl.enabled.mechanisms`).
    pub fn mechanisms<M: Into<String>>(mut self, mechanisms: impl IntoIterator<Item = M>) -> Self {
        self.mechanisms = mechanisms.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the number of iterations that SCRAM asks for (default: 4096). Kafka allows no fewer; a
    /// lower value tests whether a client refuses it.
    pub fn scram_iterations(mut self, iterations: u32) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets the maximum time for which an authentication holds (`connections.max.reauth.ms`,
    /// KIP-368; default: for ever, and no longer than the token is valid). A connection that sends
    /// another request after that is closed.
    pub fn max_reauth(mut self, time: Duration) -> Self {
        self.max_reauth = Some(time);
        self
    }
}

/// One connection's authentication.
#[derive(Debug)]
pub(crate) struct Gate {
    sasl: Option<Arc<Sasl>>,
    state: State,
    /// The user that was authenticated last, and the time until which that holds.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    user: String,
    until: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Idle,
    Begun(Mechanism),
    Scram(Scram),
    /// The reason was sent; whatever comes next is refused with it.
    Refusing(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Scram256,
    Scram512,
    OauthBearer,
}

#[derive(Debug)]
struct Scram {
    mechanism: Mechanism,
    user: String,
    first_bare: String,
    server_first: String,
    nonce: String,
    salted: Option<Vec<u8>>,
}

impl Gate {
    pub(crate) fn new(sasl: Option<Arc<Sasl>>) -> Self {
        Self { sasl, state: State::Idle, known: None }
    }

    /// Returns true if a request may be served now.
    pub(crate) fn admits(&self, key: ApiKey, now: Instant) -> bool {
        match key {
            _ if self.sasl.is_none() => true,
            ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => true,
            // As with Kafka: before the handshake, and again after an authentication; during one,
            // no other request is allowed.
            ApiKey::ApiVersions if self.known.is_none() => matches!(self.state, State::Idle),
            _ => {
                let idle = matches!(self.state, State::Idle);
                idle && self.known.as_ref().is_some_and(|known| known.until.is_none_or(|until| now < until))
            }
        }
    }

    /// Returns true if every request is served, now and later.
    pub(crate) fn is_open(&self) -> bool {
        self.sasl.is_none()
    }

    /// Returns the principal, in Kafka's form.
    pub(crate) fn principal(&self) -> Arc<str> {
        self.known.as_ref().map_or_else(|| "User:ANONYMOUS".into(), |known| format!("User:{}", known.user).into())
    }

    pub(crate) fn handshake(&mut self, mechanism: &str) -> Result<(), (ErrorCode, Vec<String>)> {
        let Some(sasl) = &self.sasl else { return Err((ErrorCode::ILLEGAL_SASL_STATE, Vec::new())) };
        let known = match mechanism {
            "PLAIN" => Some(Mechanism::Plain),
            "SCRAM-SHA-256" => Some(Mechanism::Scram256),
            "SCRAM-SHA-512" => Some(Mechanism::Scram512),
            "OAUTHBEARER" => Some(Mechanism::OauthBearer),
            _ => None,
        };
        match known.filter(|_| sasl.mechanisms.iter().any(|enabled| enabled == mechanism)) {
            Some(mechanism) => {
                self.state = State::Begun(mechanism);
                Ok(())
            }
            None => Err((ErrorCode::UNSUPPORTED_SASL_MECHANISM, sasl.mechanisms.clone())),
        }
    }

    /// Returns the response's bytes, and the number of milliseconds for which the authentication
    /// holds (0: for ever, or not authenticated yet).
    pub(crate) fn authenticate(
        &mut self,
        message: &[u8],
        (now, wall_millis): (Instant, i64),
    ) -> Result<(Vec<u8>, i64), (ErrorCode, String)> {
        let failed = |why: &str| (ErrorCode::SASL_AUTHENTICATION_FAILED, why.to_owned());
        let illegal = || (ErrorCode::ILLEGAL_SASL_STATE, "SaslAuthenticate without SaslHandshake".to_owned());
        let sasl = self.sasl.clone().ok_or_else(illegal)?;
        let (user, answer, token_left) = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => return Err(illegal()),
            State::Refusing(why) => return Err(failed(&why)),
            State::Begun(Mechanism::Plain) => {
                let user = plain(&sasl, message).ok_or_else(|| failed("Invalid username or password"))?;
                (user, Vec::new(), None)
            }
            State::Begun(Mechanism::OauthBearer) => match bearer(&sasl, message, wall_millis) {
                Some((user, left)) => (user, Vec::new(), Some(left)),
                None => {
                    let why = "{\"status\":\"invalid_token\"}";
                    self.state = State::Refusing(why.to_owned());
                    return Ok((why.into(), 0));
                }
            },
            State::Begun(mechanism) => {
                let scram = Scram::begin(&sasl, mechanism, message).ok_or_else(|| failed("Invalid SCRAM message"))?;
                let answer = scram.server_first.clone().into_bytes();
                self.state = State::Scram(scram);
                return Ok((answer, 0));
            }
            State::Scram(scram) => {
                let why = "Authentication failed due to invalid credentials with SASL mechanism SCRAM";
                let answer = scram.finish(message).ok_or_else(|| failed(why))?;
                (scram.user, answer, None)
            }
        };
        // A connection cannot change its user.
        if self.known.as_ref().is_some_and(|known| known.user != user) {
            return Err(failed("Cannot change principals during re-authentication"));
        }
        let holds = match (sasl.max_reauth, token_left) {
            (Some(max), Some(left)) => Some(max.min(left)),
            (max, left) => max.or(left),
        };
        self.known = Some(Known { user, until: holds.and_then(|holds| now.checked_add(holds)) });
        let millis = holds.map_or(0, |holds| i64::try_from(holds.as_millis()).unwrap_or(i64::MAX));
        Ok((answer, millis))
    }
}

fn plain(sasl: &Sasl, message: &[u8]) -> Option<String> {
    let mut parts = std::str::from_utf8(message).ok()?.split('\0');
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    (sasl.users.get(user)? == password && parts.next().is_none()).then(|| user.to_owned())
}

/// Returns the user of an unsecured token, and the time for which it is still valid.
fn bearer(sasl: &Sasl, message: &[u8], wall_millis: i64) -> Option<(String, Duration)> {
    let message = std::str::from_utf8(message).ok()?.strip_prefix("n,,\x01")?.strip_suffix("\x01\x01")?;
    let token = message.split('\x01').find_map(|pair| pair.strip_prefix("auth=Bearer "))?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims = String::from_utf8(claims).ok()?;
    let behind = |name: &str| claims.split_once(&format!("\"{name}\":")).map(|(_, rest)| rest);
    let user = behind("sub")?.strip_prefix('"')?.split('"').next()?.to_owned();
    let expires: f64 = behind("exp")?.split([',', '}']).next()?.trim().parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in it")]
    let left = Duration::try_from_secs_f64(expires - wall_millis as f64 / 1000.0).ok()?;
    (sasl.users.contains_key(&user) && !left.is_zero()).then_some((user, left))
}

fn hmac(mechanism: Mechanism, key: &[u8], message: &[u8]) -> Vec<u8> {
    fn run<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    }
    match mechanism {
        Mechanism::Scram512 => run::<Hmac<Sha512>>(key, message),
        _ => run::<Hmac<Sha256>>(key, message),
    }
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

impl Scram {
    fn begin(sasl: &Sasl, mechanism: Mechanism, message: &[u8]) -> Option<Self> {
        let first_bare = std::str::from_utf8(message).ok()?.strip_prefix("n,,")?;
        let mut parts = first_bare.split(',');
        let user = parts.next()?.strip_prefix("n=")?.replace("=2C", ",").replace("=3D", "=");
        let nonce = format!("{}BROKER", parts.next()?.strip_prefix("r=")?);
        let salt = format!("salt of {user}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&salt), sasl.iterations);
        let salted = sasl.users.get(&user).map(|password| {
            let mut last = hmac(mechanism, password.as_bytes(), &[salt.as_bytes(), &[0, 0, 0, 1]].concat());
            let mut sum = last.clone();
            for _ in 1..sasl.iterations {
                last = hmac(mechanism, password.as_bytes(), &last);
                sum = xor(&sum, &last);
            }
            sum
        });
        Some(Self { mechanism, user, first_bare: first_bare.to_owned(), server_first, nonce, salted })
    }

    /// Returns the final message if the proof is right.
    fn finish(&self, message: &[u8]) -> Option<Vec<u8>> {
        let message = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let proof = STANDARD.decode(proof).ok()?;
        let salted = self.salted.as_ref().filter(|_| without_proof == format!("c=biws,r={}", self.nonce))?;
        let whole = format!("{},{},{without_proof}", self.first_bare, self.server_first);
        let stored = |client_key: &[u8]| match self.mechanism {
            Mechanism::Scram512 => Sha512::digest(client_key).to_vec(),
            _ => Sha256::digest(client_key).to_vec(),
        };
        let stored_key = stored(&hmac(self.mechanism, salted, b"Client Key"));
        let client_key = xor(&proof, &hmac(self.mechanism, &stored_key, whole.as_bytes()));
        if proof.len() != stored_key.len() || stored(&client_key) != stored_key {
            return None;
        }
        let server_key = hmac(self.mechanism, salted, b"Server Key");
        let signature = hmac(self.mechanism, &server_key, whole.as_bytes());
        Some(format!("v={}", STANDARD.encode(signature)).into_bytes())
    }
}
