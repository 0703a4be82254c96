//! Certificates and keys of real installations: the supported forms, and the error texts for the
//! others.

use std::sync::Arc;

use ottla::{
    Admin, Error, ErrorKind,
    security::{Security, Tls},
    testkit::{self, Cluster},
};

use crate::common::*;

macro_rules! field {
    ($name:literal) => {
        include_str!(concat!("certificates/", $name))
    };
}

const AUTHORITY: &str = field!("authority.pem");
const SELF_SIGNED: &str = field!("self-signed.pem");
const CLIENT: &str = field!("client.pem");
const CLIENT_KEY: &str = field!("client.key");

/// Starts a broker with that certificate.
async fn broker(chain: &str, key: &str) -> Cluster {
    tls_cluster(testkit::Tls::new().certificate(chain, key)).await
}

async fn lets_in(cluster: &Cluster, tls: Tls) {
    works(&cluster.bootstrap(), cluster.network(), Security::ssl(tls)).await;
}

/// Checks that the client refuses the broker, with an error that contains all of `parts` and no
/// `Debug` output.
async fn is_refused(cluster: &Cluster, tls: Tls, parts: &[&str]) {
    let error = refused(cluster, Security::ssl(tls)).await;
    says(&error, parts);
}

fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    for debug in ["Context", "Other(", "Error", "Some(", "UsedAs", "Unsupported", " { "] {
        assert!(!text.contains(debug), "{debug:?} is in: {text}");
    }
}

fn trusts(pem: &str) -> Tls {
    Tls::new().ca_pem(pem)
}

async fn build(tls: Tls) -> ottla::Result<Admin> {
    Admin::builder("localhost:1").security(Security::ssl(tls)).build().await
}

async fn is_misconfigured(tls: Tls, parts: &[&str]) {
    let error = build(tls).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    says(&error, parts);
    let shown = format!("{error:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("MIG"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn accepts_trusted_self_signed_broker_certificate() {
    for (chain, key) in [(SELF_SIGNED, field!("self-signed.key")), (field!("keytool.pem"), field!("keytool.key"))] {
        let cluster = broker(chain, key).await;
        for tls in [trusts(chain), trusts(chain).only_tls_1_2(), trusts(chain).dangerously_accept_any_host_name()] {
            lets_in(&cluster, tls).await;
        }
        lets_in(&cluster, trusts(&format!("{AUTHORITY}{chain}"))).await;
        is_refused(&cluster, trusts(AUTHORITY), &["ssl.ca.location"]).await;
    }
    // A certificate that was issued by an authority is also trusted by itself.
    lets_in(&broker(field!("ed25519.pem"), field!("ed25519.key")).await, trusts(field!("ed25519.pem"))).await;
}

#[tokio::test(start_paused = true)]
async fn checks_name_and_dates_of_self_signed() {
    let elsewhere = broker(field!("self-signed-elsewhere.pem"), field!("self-signed-elsewhere.key")).await;
    let trusting = || trusts(field!("self-signed-elsewhere.pem"));
    is_refused(&elsewhere, trusting(), &["elsewhere.example", "ssl.endpoint.identification.algorithm"]).await;
    lets_in(&elsewhere, trusting().dangerously_accept_any_host_name()).await;
    let expired = broker(field!("self-signed-expired.pem"), field!("self-signed-expired.key")).await;
    let trusting = trusts(field!("self-signed-expired.pem"));
    is_refused(&expired, trusting.clone(), &["expired", "2024-02-01"]).await;
    is_refused(&expired, trusting.dangerously_accept_any_host_name(), &["expired"]).await;
}

#[tokio::test(start_paused = true)]
async fn accepts_any_certificate_with_verification_disabled() {
    for (chain, key) in [
        (SELF_SIGNED, field!("self-signed.key")),
        (field!("version-1.pem"), field!("version-1.key")),
        (field!("critical.pem"), field!("critical.key")),
        (field!("client-only.pem"), field!("client-only.key")),
        (field!("self-signed-expired.pem"), field!("self-signed-expired.key")),
        (field!("keytool.pem"), field!("keytool.key")),
    ] {
        let cluster = broker(chain, key).await;
        for tls in [Tls::new(), Tls::new().only_tls_1_2(), Tls::new().only_tls_1_3()] {
            let security = Security::ssl(tls.dangerously_accept_any_certificate());
            assert_eq!(admin(&cluster, security).await.list_topics().await.unwrap().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn error_explains_rejected_broker_certificate() {
    for (chain, key, trusted, parts) in [
        (
            field!("common-name.pem"),
            field!("common-name.key"),
            AUTHORITY,
            &["127.0.0.1", "subjectAltName", "ssl.endpoint.identification.algorithm"][..],
        ),
        (field!("version-1.pem"), field!("version-1.key"), AUTHORITY, &["version 1", "subjectAltName"]),
        (field!("version-1.pem"), field!("version-1.key"), field!("version-1.pem"), &["version 1", "subjectAltName"]),
        (
            field!("authority-as-broker.pem"),
            field!("authority-as-broker.key"),
            AUTHORITY,
            &["CA:TRUE", "CA:FALSE", "ssl.ca.location"],
        ),
        (field!("client-only.pem"), field!("client-only.key"), AUTHORITY, &["serverAuth"]),
        (field!("critical.pem"), field!("critical.key"), AUTHORITY, &["critical extension"]),
        (field!("sha1.pem"), field!("sha1.key"), AUTHORITY, &["ecdsa-with-SHA1"]),
        (
            field!("signed-by-p521.pem"),
            field!("signed-by-p521.key"),
            field!("authority-p521.pem"),
            &["P-521", "crypto_provider"],
        ),
    ] {
        is_refused(&broker(chain, key).await, trusts(trusted), parts).await;
    }
}

#[tokio::test(start_paused = true)]
async fn accepts_version_1_certificate_trusted_directly() {
    let cluster = broker(field!("version-1.pem"), field!("version-1.key")).await;
    lets_in(&cluster, trusts(field!("version-1.pem")).dangerously_accept_any_host_name()).await;
    is_refused(&cluster, trusts(AUTHORITY).dangerously_accept_any_host_name(), &["version 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn reads_encrypted_client_keys_with_password() {
    for key in [
        field!("encrypted-pbe-sha1-3des.key"),
        field!("encrypted-pbes2-3des.key"),
        field!("encrypted-pbes2-sha1.key"),
        field!("encrypted-pbes2-sha512.key"),
        field!("encrypted-scrypt.key"),
    ] {
        build(trusts(AUTHORITY).client_certificate_pem(CLIENT, key).client_key_password("ottla")).await.unwrap();
        let wrong = trusts(AUTHORITY).client_certificate_pem(CLIENT, key).client_key_password("hunter2");
        is_misconfigured(wrong, &["password", "ssl.key.password"]).await;
        is_misconfigured(trusts(AUTHORITY).client_certificate_pem(CLIENT, key), &["is encrypted", "ssl.key.password"])
            .await;
    }
    let utf8 = trusts(AUTHORITY).client_certificate_pem(CLIENT, field!("encrypted-pbe-sha1-3des-utf8.key"));
    build(utf8.client_key_password("wörd")).await.unwrap();
    let cluster = tls_cluster(testkit::Tls::new().require_client_certificate(AUTHORITY)).await;
    let tls = trusting().client_certificate_pem(CLIENT, field!("encrypted-pbe-sha1-3des.key"));
    lets_in(&cluster, tls.client_key_password("ottla")).await;
}

#[tokio::test]
async fn error_names_unsupported_key_encryption() {
    for (key, name) in [
        (field!("encrypted-pbe-sha1-2des.key"), "pbeWithSHA1And2-KeyTripleDES-CBC"),
        (field!("encrypted-pbe-sha1-rc2.key"), "pbeWithSHA1And40BitRC2-CBC"),
        (field!("encrypted-pbe-sha1-rc4.key"), "pbeWithSHA1And128BitRC4"),
        (field!("encrypted-pbe-md5-des.key"), "pbeWithMD5AndDES-CBC"),
        (field!("encrypted-pbes2-des.key"), "DES-CBC"),
        (field!("encrypted-pbes2-rc2.key"), "RC2-CBC"),
        (field!("encrypted-pbes2-camellia.key"), "CAMELLIA-256-CBC"),
        (field!("encrypted-pbes2-aria.key"), "1.2.410.200046.1.1.12"),
    ] {
        let tls = trusts(AUTHORITY).client_certificate_pem(CLIENT, key).client_key_password("ottla");
        is_misconfigured(tls, &[name, "openssl pkcs8 -topk8 -v2 aes-256-cbc"]).await;
    }
}

#[tokio::test]
async fn error_names_unusable_client_key_type() {
    for (key, name) in [
        (field!("p521.key"), "P-521"),
        (field!("p521-sec1.key"), "P-521"),
        (field!("secp256k1.key"), "secp256k1"),
        (field!("rsa-1024.key"), "RSA of 1024 bits"),
        (field!("rsa-1024-pkcs1.key"), "RSA of 1024 bits"),
        (field!("rsa-pss.key"), "RSASSA-PSS"),
        (field!("ed448.key"), "Ed448"),
        (field!("dsa.key"), "DSA"),
    ] {
        let tls = trusts(AUTHORITY).client_certificate_pem(CLIENT, key);
        is_misconfigured(tls, &[name, "RSA", "P-256", "P-384", "Ed25519", "Tls::crypto_provider"]).await;
    }
    let other = trusts(AUTHORITY).client_certificate_pem(format!("{AUTHORITY}{CLIENT}"), CLIENT_KEY);
    is_misconfigured(other, &["does not belong", "certificate 2"]).await;
}

#[tokio::test(start_paused = true)]
async fn presents_client_certificate_of_version_1() {
    let tls = trusting().client_certificate_pem(field!("version-1.pem"), field!("version-1.key"));
    lets_in(&tls_cluster(testkit::Tls::new()).await, tls).await;
}

/// Returns a crypto provider for brokers that also signs with Ed25519 under TLS 1.2.
fn with_ed25519() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls_graviola::default_provider();
    for suite in &mut provider.cipher_suites {
        if let rustls::SupportedCipherSuite::Tls12(known) = *suite {
            let common = rustls::crypto::CipherSuiteCommon {
                suite: known.common.suite,
                hash_provider: known.common.hash_provider,
                confidentiality_limit: known.common.confidentiality_limit,
            };
            let sign = &[rustls::SignatureScheme::ED25519];
            let extended = rustls::Tls12CipherSuite { common, sign, ..*known };
            *suite = rustls::SupportedCipherSuite::Tls12(Box::leak(Box::new(extended)));
        }
    }
    Arc::new(provider)
}

#[tokio::test(start_paused = true)]
async fn accepts_ed25519_broker_in_both_versions() {
    let broker = testkit::Tls::new().certificate(field!("ed25519.pem"), field!("ed25519.key"));
    let cluster = tls_cluster(broker.crypto_provider(with_ed25519())).await;
    for tls in [trusts(AUTHORITY).only_tls_1_2(), trusts(AUTHORITY).only_tls_1_3()] {
        lets_in(&cluster, tls).await;
    }
}

/// Returns a crypto provider for brokers without one signature scheme.
fn without(scheme: rustls::SignatureScheme) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls_graviola::default_provider();
    let mapping: Vec<_> =
        provider.signature_verification_algorithms.mapping.iter().copied().filter(|(one, _)| *one != scheme).collect();
    provider.signature_verification_algorithms.mapping = Box::leak(mapping.into_boxed_slice());
    Arc::new(provider)
}

#[tokio::test(start_paused = true)]
async fn error_names_key_type_broker_rejects() {
    let broker = testkit::Tls::new().crypto_provider(without(rustls::SignatureScheme::ED25519));
    let cluster = tls_cluster(broker.require_client_certificate(AUTHORITY)).await;
    let tls = trusting().client_certificate_pem(field!("ed25519.pem"), field!("ed25519.key"));
    for tls in [tls.clone(), tls.only_tls_1_2()] {
        is_refused(&cluster, tls, &["Ed25519", "signature scheme", "RSA_PSS_SHA256"]).await;
    }
    for tls in [trusting(), trusting().only_tls_1_2()] {
        is_refused(&cluster, tls, &["client certificate", "none is configured"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn error_names_missing_common_algorithms() {
    let mut provider = rustls_graviola::default_provider();
    provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::secp384r1);
    let cluster = tls_cluster(testkit::Tls::new().crypto_provider(Arc::new(provider))).await;
    let mut other = rustls_graviola::default_provider();
    other.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519);
    let tls = trusting().crypto_provider(Arc::new(other));
    for tls in [tls.clone(), tls.only_tls_1_2()] {
        let error = refused(&cluster, Security::ssl(tls)).await;
        says(&error, &["in common", "X25519", "RSA_PSS_SHA256", "P-521"]);
        assert!(!error.to_string().contains("client certificate"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_pem_files_with_any_encoding() {
    let cluster = tls_cluster(testkit::Tls::new().certificate(SELF_SIGNED, field!("self-signed.key"))).await;
    let latin_1 = [b"# Beh\xf6rde\r\n\xff\x00".as_slice(), SELF_SIGNED.replace('\n', "\r\n").as_bytes()].concat();
    let bom = format!("\u{feff}{SELF_SIGNED}").into_bytes();
    let old = SELF_SIGNED.replace("CERTIFICATE", "X509 CERTIFICATE").into_bytes();
    let behind_a_key = format!("{CLIENT_KEY}Bag Attributes\n    friendlyName: x\n{SELF_SIGNED}").into_bytes();
    for bytes in [latin_1, bom, old, behind_a_key] {
        lets_in(&cluster, Tls::new().ca_pem(bytes)).await;
    }
    let latin_1 = |pem: &str| [b"Beh\xf6rde\n".as_slice(), pem.as_bytes()].concat();
    build(Tls::new().client_certificate_pem(latin_1(CLIENT), latin_1(CLIENT_KEY))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn respects_purpose_of_openssl_trusted_certificates() {
    build(trusts(field!("trusted.pem"))).await.unwrap();
    let cluster = broker(field!("ed25519.pem"), field!("ed25519.key")).await;
    lets_in(&cluster, trusts(field!("trusted.pem"))).await;
    for pem in [field!("trusted-rejected.pem"), field!("trusted-for-mail.pem")] {
        is_misconfigured(trusts(pem), &["TRUSTED CERTIFICATE", "serverAuth"]).await;
        // The other certificate of the file is still trusted.
        lets_in(&cluster, trusts(&format!("{pem}{AUTHORITY}"))).await;
    }
    build(Tls::new().client_certificate_pem(field!("trusted-rejected.pem"), CLIENT_KEY)).await.err().unwrap();
}

#[tokio::test]
async fn error_names_other_certificate_file_formats() {
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let der = |pem: &str| {
        let pem = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes());
        let der: rustls::pki_types::CertificateDer<'_> = pem.unwrap();
        der.to_vec()
    };
    for (bytes, parts) in [
        (field!("authority.p7b").as_bytes().to_vec(), &["PKCS#7", "openssl pkcs7 -print_certs"][..]),
        ([vec![0xff, 0xfe], utf_16(AUTHORITY)].concat(), &["UTF-16", "iconv"]),
        (utf_16(AUTHORITY), &["UTF-16"]),
        (der(AUTHORITY), &["DER", "openssl x509 -inform DER"]),
        (include_bytes!("../../src/testkit/certificates/client.p12").to_vec(), &["PKCS#12", "ssl.truststore.type"]),
        (vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2], &["JKS", "keytool"]),
        (vec![0xce, 0xce, 0xce, 0xce, 0, 0, 0, 2], &["JCEKS", "keytool"]),
        (CLIENT_KEY.as_bytes().to_vec(), &["no CERTIFICATE", "PRIVATE KEY"]),
        (b"/etc/kafka/ca.pem".to_vec(), &["no BEGIN line"]),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_vec(), &["certificate 1 in it", "DER"]),
    ] {
        is_misconfigured(Tls::new().ca_pem(bytes), parts).await;
    }
}
