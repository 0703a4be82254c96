//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), like Kafka's own clients: without channel
//! binding, and with names and passwords as their UTF-8 bytes (a client must not normalize them,
//! because Kafka's broker does not).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::{Exchange, Mechanism, Step};
use crate::{
    error::{Error, ErrorKind, Result, clean},
    net::BoxFuture,
    security::Secret,
};

/// With fewer iterations, guessing a password from a stolen exchange is too cheap (RFC 7677; also
/// Kafka's own minimum).
const MIN_ITERATIONS: u32 = 4096;
/// More iterations add no protection, but let a server keep this client busy.
const MAX_ITERATIONS: u32 = 1_000_000;
/// A server may add to the nonce, up to this length in bytes; anything longer is not a valid nonce.
const MAX_NONCE: usize = 1024;

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramHash {
    fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        fn run<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
            // HMAC takes keys of every length.
            let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Zeroizing::default() };
            parts.iter().for_each(|part| mac.update(part));
            Zeroizing::new(mac.finalize().into_bytes().to_vec())
        }
        match self {
            Self::Sha256 => run::<Hmac<Sha256>>(key, parts),
            Self::Sha512 => run::<Hmac<Sha512>>(key, parts),
        }
    }

    fn hash(self, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        })
    }

    /// Computes `Hi` of RFC 5802, which is PBKDF2 for one block.
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
        fn run<M: Mac + KeyInit + Clone>(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
            let Ok(keyed) = <M as KeyInit>::new_from_slice(password) else { return Zeroizing::default() };
            let round = |input: &[&[u8]]| {
                // The keyed state is computed only once, which saves half of the work of each
                // round.
                let mut mac = keyed.clone();
                input.iter().for_each(|part| mac.update(part));
                mac.finalize().into_bytes()
            };
            let mut last = round(&[salt, &1_u32.to_be_bytes()]);
            let mut sum = Zeroizing::new(last.to_vec());
            for _ in 1..iterations {
                last = round(&[&last]);
                sum.iter_mut().zip(&last).for_each(|(sum, byte)| *sum ^= byte);
            }
            sum
        }
        match self {
            Self::Sha256 => run::<Hmac<Sha256>>(password, salt, iterations),
            Self::Sha512 => run::<Hmac<Sha512>>(password, salt, iterations),
        }
    }
}

/// SCRAM with a name and a password, or with a delegation token (KIP-48).
#[derive(Clone, Debug)]
pub struct Scram {
    hash: ScramHash,
    username: Secret,
    password: Secret,
    delegation_token: bool,
}

impl Scram {
    /// Creates the mechanism with a name and a password.
    pub fn new(hash: ScramHash, username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { hash, username: username.into().into(), password: password.into(), delegation_token: false }
    }

    /// Sets whether name and password are the id and the HMAC of a delegation token
    /// (`tokenauth=true` of `sasl.jaas.config`). Default: false.
    pub fn delegation_token(mut self, is_one: bool) -> Self {
        self.delegation_token = is_one;
        self
    }

    /// Begins an exchange with the caller's nonce, so that tests can replay the examples of RFCs.
    fn exchange(&self, nonce: String) -> ScramExchange {
        let name = self.username.expose_str().unwrap_or_default().replace('=', "=3D").replace(',', "=2C");
        let extension = if self.delegation_token { ",tokenauth=true" } else { "" };
        ScramExchange {
            hash: self.hash,
            password: self.password.clone(),
            first_bare: format!("n={name},r={nonce}{extension}"),
            nonce,
            state: State::Begin,
        }
    }
}

impl Mechanism for Scram {
    fn name(&self) -> &str {
        match self.hash {
            ScramHash::Sha256 => "SCRAM-SHA-256",
            ScramHash::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn begin<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Result<Box<dyn Exchange>>> {
        // 144 random bits, in characters that need no escape.
        let nonce = BASE64.encode(rand::rng().random::<[u8; 18]>());
        Box::pin(async move { Ok(Box::new(self.exchange(nonce)) as Box<dyn Exchange>) })
    }
}

/// ```text
/// Begin ─ client-first ─▶ First ─ server-first / client-final ─▶ Final ─ server-final ─▶ Over
/// ```
struct ScramExchange {
    hash: ScramHash,
    password: Secret,
    first_bare: String,
    nonce: String,
    state: State,
}

enum State {
    Begin,
    First,
    /// The signature that the server has to send.
    Final(Zeroizing<Vec<u8>>),
    Over,
}

impl Exchange for ScramExchange {
    fn next(&mut self, challenge: Option<&[u8]>) -> Result<Step> {
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, challenge) {
            (State::Begin, None) => {
                self.state = State::First;
                Ok(Step::Send(format!("n,,{}", self.first_bare).into()))
            }
            (State::First, Some(challenge)) => {
                let (answer, signature) = self.answer(text(challenge)?)?;
                self.state = State::Final(signature);
                Ok(Step::Send(answer.into()))
            }
            (State::Final(signature), Some(challenge)) => {
                verify(text(challenge)?, &signature)?;
                Ok(Step::Done)
            }
            _ => Err(refuse("the broker continues after the end of the exchange")),
        }
    }
}

impl ScramExchange {
    /// Returns the client's final message in answer to the server's first one, and the signature
    /// that the server has to send back.
    fn answer(&self, server_first: &str) -> Result<(String, Zeroizing<Vec<u8>>)> {
        let ServerFirst { nonce, salt, iterations } = ServerFirst::parse(server_first)?;
        let ours = nonce.len() > self.nonce.len() && nonce.len() <= MAX_NONCE && nonce.starts_with(&self.nonce);
        if !ours {
            return Err(refuse("the broker's nonce does not extend this client's, or is too long"));
        }
        let salted = self.hash.salted(self.password.expose(), &salt, iterations);
        let client_key = self.hash.hmac(&salted, &[b"Client Key"]);
        let stored_key = self.hash.hash(&client_key);
        // `c=biws` is the header "n,," (no channel binding). The final message repeats the whole
        // nonce.
        let without_proof = format!("c=biws,r={nonce}");
        let message = [self.first_bare.as_bytes(), b",", server_first.as_bytes(), b",", without_proof.as_bytes()];
        let mut proof = self.hash.hmac(&stored_key, &message);
        proof.iter_mut().zip(client_key.iter()).for_each(|(proof, key)| *proof ^= key);
        let server_key = self.hash.hmac(&salted, &[b"Server Key"]);
        let signature = self.hash.hmac(&server_key, &message);
        Ok((format!("{without_proof},p={}", BASE64.encode(&*proof)), signature))
    }
}

struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a str) -> Result<Self> {
        let mut parts = message.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let malformed = || refuse("the broker's first message is not `r=…,s=…,i=…`");
        if message.starts_with("e=") {
            return Err(refused_by_server(message));
        }
        if message.starts_with("m=") {
            return Err(refuse("the broker asks for an extension (m=) that this client does not have"));
        }
        let nonce = part("r=").ok_or_else(malformed)?;
        let salt = part("s=").ok_or_else(malformed)?;
        let iterations = part("i=").ok_or_else(malformed)?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty());
        let salt = salt.ok_or_else(|| refuse("the broker's salt is empty or not base64"))?;
        let iterations: u32 = iterations.parse().map_err(|_| refuse("the broker's iteration count is not a number"))?;
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(refuse(format!(
                "the broker asks for {iterations} iterations; {MIN_ITERATIONS} to {MAX_ITERATIONS} are accepted"
            )));
        }
        Ok(Self { nonce, salt, iterations })
    }
}

fn verify(server_final: &str, signature: &[u8]) -> Result<()> {
    if server_final.starts_with("e=") {
        return Err(refused_by_server(server_final));
    }
    let theirs = server_final.split(',').next().and_then(|part| part.strip_prefix("v="));
    let theirs = theirs.ok_or_else(|| refuse("the broker's final message is not `v=…`"))?;
    let theirs = BASE64.decode(theirs).map_err(|_| refuse("the broker's signature is not base64"))?;
    // The comparison reads all bytes, so that its time does not reveal the first difference.
    let same = theirs.len() == signature.len()
        && theirs.iter().zip(signature).fold(0, |different, (theirs, ours)| different | (theirs ^ ours)) == 0;
    if same { Ok(()) } else { Err(refuse("the broker's signature is wrong: it does not know this password")) }
}

fn refused_by_server(message: &str) -> Error {
    let why = message.strip_prefix("e=").unwrap_or(message);
    refuse(format!("the broker says \"{}\"", clean(why)))
}

fn text(challenge: &[u8]) -> Result<&str> {
    std::str::from_utf8(challenge).map_err(|_| refuse("the broker's message is not text"))
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Authentication, format!("SCRAM: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn begun() -> ScramExchange {
        let mut exchange = Scram::new(ScramHash::Sha256, "user", "pencil").exchange(NONCE.to_owned());
        assert_eq!(sent(exchange.next(None)), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        exchange
    }

    fn sent(step: Result<Step>) -> String {
        match step.unwrap() {
            Step::Send(message) => message.expose_str().unwrap().to_owned(),
            Step::Done => panic!("the exchange ended instead of sending a message"),
        }
    }

    #[test]
    fn completes_exchange_of_rfc_7677_example() {
        let mut exchange = begun();
        assert_eq!(
            sent(exchange.next(Some(FIRST.as_bytes()))),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(exchange.next(Some(FINAL.as_bytes())).unwrap(), Step::Done);
        assert!(exchange.next(Some(b"")).is_err(), "a step after the end fails");
    }

    #[test]
    fn escapes_user_name_and_marks_tokens() {
        let scram = Scram::new(ScramHash::Sha512, "a=b,c", "x").delegation_token(true);
        assert_eq!(sent(scram.exchange("N".to_owned()).next(None)), "n,,n=a=3Db=2Cc,r=N,tokenauth=true");
        assert_eq!(scram.name(), "SCRAM-SHA-512");
        assert!(!format!("{:?}", Scram::new(ScramHash::Sha256, "u", "pencil")).contains("pencil"));
    }

    #[test]
    fn error_names_invalid_part_of_first_message() {
        let answer = |message: &str| begun().next(Some(message.as_bytes())).unwrap_err();
        for (message, part) in [
            ("r=other,s=W22Z,i=4096", "nonce"),
            (&*format!("r={NONCE},s=W22Z,i=4096"), "nonce"),
            (&*format!("r={NONCE}{},s=W22Z,i=4096", "x".repeat(2000)), "nonce"),
            (&*format!("r={NONCE}x,s=W22Z,i=4095"), "4095 iterations"),
            (&*format!("r={NONCE}x,s=W22Z,i=4000000000"), "4000000000 iterations"),
            (&*format!("r={NONCE}x,s=W22Z,i=-1"), "iteration count"),
            (&*format!("r={NONCE}x,s=%%,i=4096"), "salt"),
            (&*format!("r={NONCE}x,s=,i=4096"), "salt"),
            ("m=must,r=x,s=W22Z,i=4096", "extension"),
            ("e=unknown-user", "unknown-user"),
            ("", "first message"),
        ] {
            let error = answer(message);
            assert_eq!(error.kind(), ErrorKind::Authentication);
            assert!(!error.is_retriable() && error.to_string().contains(part), "{message}: {error}");
        }
        assert!(begun().next(Some(&[0xff])).unwrap_err().to_string().contains("not text"));
    }

    #[test]
    fn rejects_server_with_wrong_signature() {
        for (message, part) in [
            ("v=AAAATRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "signature is wrong"),
            ("v=6rriTRBi23WpRR", "signature"),
            ("v=!", "base64"),
            ("e=other-error", "other-error"),
            ("", "final message"),
        ] {
            let mut exchange = begun();
            sent(exchange.next(Some(FIRST.as_bytes())));
            let error = exchange.next(Some(message.as_bytes())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Authentication);
            assert!(error.to_string().contains(part), "{message}: {error}");
        }
    }
}
