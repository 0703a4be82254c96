//! A client's private key is nowhere in the memory of the process once the client is dropped. The
//! test has a process of its own, in which no other thread holds a key.
#![cfg(all(feature = "tls", target_os = "linux"))]

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ottla::{
    Admin,
    security::{Security, Tls},
    testkit::{self, Cluster, Options, certificates::AUTHORITY},
};
use zeroize::{Zeroize, Zeroizing};

/// Number of bytes of a key that one search looks for.
const WINDOW: usize = 16;
/// The searched bytes are kept XORed with this, so that the search does not find its own copy.
const MASK: u8 = 0x5a;

/// Parts of a key: of its PEM text, of its DER, and of the latter reversed, as numbers are in
/// memory.
struct Needles(Vec<(&'static str, [u8; WINDOW])>);

fn masked(bytes: &[u8]) -> [u8; WINDOW] {
    std::array::from_fn(|at| bytes[at] ^ MASK)
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/testkit/certificates").join(name)
}

fn read(name: &str) -> Zeroizing<Vec<u8>> {
    let mut file = File::open(file(name)).unwrap();
    let mut bytes = Zeroizing::new(vec![0; file.metadata().unwrap().len() as usize]);
    file.read_exact(&mut bytes).unwrap();
    bytes
}

impl Needles {
    /// Takes parts of a key in plain PEM.
    #[inline(never)]
    fn of(name: &str) -> Self {
        let text = read(name);
        let mut digits = Zeroizing::new(Vec::with_capacity(text.len()));
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"-")) {
            digits.extend_from_slice(line);
        }
        let mut der = Zeroizing::new(vec![0; digits.len()]);
        let length = STANDARD.decode_slice(&*digits, &mut der).unwrap();
        let mut needles = Vec::new();
        // The front of an RSA key is public, and the number of an elliptic-curve key is in the
        // first half.
        let places: &[usize] = if length > 500 { &[35, 50, 60, 70, 80, 90] } else { &[27, 33] };
        for percent in places {
            let at = length * percent / 100;
            needles.push(("DER", masked(&der[at..])));
            let mut backwards: [u8; WINDOW] = der[at..at + WINDOW].try_into().unwrap();
            backwards.reverse();
            needles.push(("number", masked(&backwards)));
            backwards.zeroize();
            // The part is within one line of 64 digits.
            let digit = at * 4 / 3;
            needles.push(("PEM", masked(&digits[digit - digit % 64 + (digit % 64).min(64 - WINDOW)..])));
        }
        Self(needles)
    }

    /// Returns the kinds of needles that are found in writable memory.
    #[inline(never)]
    fn found(&self) -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut memory = File::open("/proc/self/mem").unwrap();
        let mut buffer = Zeroizing::new(vec![0_u8; 1 << 20]);
        let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len();
        let mut found = Vec::new();
        for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("rw"))) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (from, to) = (usize::from_str_radix(from, 16).unwrap(), usize::from_str_radix(to, 16).unwrap());
            let mut at = from;
            while at < to {
                if own.contains(&at) {
                    at = own.end;
                    continue;
                }
                let end = if at < own.start { to.min(own.start) } else { to };
                let size = (end - at).min(buffer.len());
                memory.seek(SeekFrom::Start(at as u64)).unwrap();
                // A region that was unmapped meanwhile is not memory any more.
                if memory.read_exact(&mut buffer[..size]).is_ok() {
                    self.search(&buffer[..size], line, at - from, &mut found);
                }
                // A window that crosses the end of a piece is in the next piece too.
                at += if size == buffer.len() { size - WINDOW } else { size };
            }
        }
        found
    }

    fn search(&self, bytes: &[u8], region: &str, offset: usize, found: &mut Vec<String>) {
        for (what, needle) in &self.0 {
            let first = needle[0] ^ MASK;
            let mut from = 0;
            while let Some(next) = bytes[from..].iter().position(|byte| *byte == first) {
                let at = from + next;
                let window = bytes.get(at..at + WINDOW);
                if window.is_some_and(|window| window.iter().zip(needle).all(|(byte, masked)| byte ^ MASK == *masked)) {
                    found.push(format!("{what} at {:#x} of {region}", offset + at));
                }
                from = at + 1;
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Connects under mutual TLS, or only makes a client.
#[inline(never)]
fn uses(tls: Tls, connects: bool) {
    runtime().block_on(async {
        if connects {
            let options = Options::new().in_memory().tls(testkit::Tls::new().require_client_certificate(AUTHORITY));
            let cluster = Cluster::start(options).await.unwrap();
            let builder = Admin::builder(cluster.bootstrap()).network(cluster.network());
            let admin = builder.security(Security::ssl(tls.ca_pem(AUTHORITY))).build().await.unwrap();
            assert!(admin.list_topics().await.unwrap().is_empty());
        } else {
            drop(Admin::builder("127.0.0.1:9").security(Security::ssl(tls)).build().await.unwrap());
        }
        // The tasks of connections end after their client.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    });
}

/// Returns a text as a user passes it.
fn text(name: &str) -> ottla::security::Secret {
    ottla::security::Secret::from(&read(name)[..])
}

#[test]
fn private_key_leaves_memory_after_drop() {
    let rsa = Needles::of("client.key");
    // Checks that the search finds a copy.
    let copy = read("client.key");
    assert!(rsa.found().iter().any(|found| found.starts_with("PEM")));
    drop(copy);
    assert_eq!(rsa.found(), Vec::<String>::new(), "before any client");

    for connects in [false, true] {
        uses(Tls::new().client_certificate_files(file("client.pem"), file("client.key")), connects);
        assert_eq!(rsa.found(), Vec::<String>::new(), "a file; connects: {connects}");
    }
    uses(Tls::new().client_certificate_pem(text("client.pem"), text("client.key")), true);
    assert_eq!(rsa.found(), Vec::<String>::new(), "a text");
    uses(Tls::new().client_certificate_files(file("client.pem"), file("client-pkcs1.key")), true);
    assert_eq!(rsa.found(), Vec::<String>::new(), "PKCS#1");
    let encrypted = Tls::new().client_certificate_files(file("client.pem"), file("client-encrypted.key"));
    uses(encrypted.client_key_password("ottla"), true);
    assert_eq!(rsa.found(), Vec::<String>::new(), "encrypted PKCS#8");

    let ec = Needles::of("server-renewed.key");
    uses(Tls::new().client_certificate_files(file("server-renewed.pem"), file("server-renewed.key")), true);
    assert_eq!(ec.found(), Vec::<String>::new(), "P-256");

    // The key comes as text by properties: a builder keeps the pairs too.
    runtime().block_on(async {
        let (chain, key) = (read("client.pem"), read("client.key"));
        let pairs = [
            ("security.protocol", "SSL"),
            ("ssl.keystore.certificate.chain", std::str::from_utf8(&chain).unwrap()),
            ("ssl.keystore.key", std::str::from_utf8(&key).unwrap()),
        ];
        let mut builder = ottla::Producer::builder("127.0.0.1:9");
        for (name, value) in pairs {
            builder = builder.property(name, value);
        }
        drop(builder.build().await.unwrap());
        drop(Admin::builder("127.0.0.1:9").properties(pairs).build().await.unwrap());
    });
    assert_eq!(rsa.found(), Vec::<String>::new(), "properties");
}
