//! Accepted certificates, refused certificates, and peers without TLS.

use ottla::{
    Admin, ErrorKind,
    security::{Security, Tls},
    testkit::{self, Cluster, Options, certificates::*},
};

use crate::common::*;

fn mutual() -> testkit::Tls {
    testkit::Tls::new().require_client_certificate(AUTHORITY)
}

async fn lets_in(cluster: &Cluster, tls: Tls) {
    works(&cluster.bootstrap(), cluster.network(), Security::ssl(tls)).await;
}

async fn is_refused(cluster: &Cluster, tls: Tls, part: &str) {
    let error = refused(cluster, Security::ssl(tls)).await.to_string();
    assert!(error.contains("TLS") && error.contains(part), "{part:?} is missing in: {error}");
}

#[tokio::test(start_paused = true)]
async fn connects_with_every_supported_version() {
    for tls in [trusting(), trusting().only_tls_1_2(), trusting().only_tls_1_3()] {
        lets_in(&tls_cluster(testkit::Tls::new()).await, tls).await;
    }
}

#[tokio::test(start_paused = true)]
async fn tls13_broker_rejects_tls12_client() {
    let cluster = tls_cluster(testkit::Tls::new().only_tls_1_3()).await;
    lets_in(&cluster, trusting()).await;
    lets_in(&cluster, trusting().only_tls_1_3()).await;
    is_refused(&cluster, trusting().only_tls_1_2(), "").await;
}

#[tokio::test(start_paused = true)]
async fn accepts_client_certificates_in_every_format() {
    for tls in [
        trusting().client_certificate_pem(CLIENT, CLIENT_KEY),
        trusting().client_certificate_pem(CLIENT, CLIENT_KEY).only_tls_1_2(),
        trusting().client_certificate_pem(CLIENT, CLIENT_KEY_ENCRYPTED).client_key_password("ottla"),
        trusting().client_certificate_pem(CLIENT, include_str!("../../src/testkit/certificates/client-pkcs1.key")),
        // An EC key in SEC1, and then certificate and key in one text.
        trusting().client_certificate_pem(SERVER, include_str!("../../src/testkit/certificates/server-sec1.key")),
        trusting().client_certificate_pem(format!("{CLIENT_KEY}{CLIENT}"), format!("{CLIENT_KEY}{CLIENT}")),
    ] {
        lets_in(&tls_cluster(mutual()).await, tls).await;
    }
}

#[tokio::test(start_paused = true)]
async fn broker_rejects_missing_or_foreign_client_certificate() {
    let cluster = tls_cluster(mutual()).await;
    for tls in [trusting(), trusting().only_tls_1_2()] {
        is_refused(&cluster, tls, "client certificate").await;
    }
    let stranger = trusting().client_certificate_pem(CLIENT_OF_A_STRANGER, CLIENT_OF_A_STRANGER_KEY);
    is_refused(&cluster, stranger.clone(), "refused this client").await;
    is_refused(&cluster, stranger.only_tls_1_2(), "refused this client").await;
}

#[tokio::test(start_paused = true)]
async fn error_names_reason_for_rejected_broker() {
    let with = |chain, key| testkit::Tls::new().certificate(chain, key);
    let expired = tls_cluster(with(SERVER_EXPIRED, SERVER_EXPIRED_KEY)).await;
    is_refused(&expired, trusting(), "expired on 2024-02-01").await;
    let foreign = tls_cluster(with(SERVER_OF_A_STRANGER, SERVER_OF_A_STRANGER_KEY)).await;
    is_refused(&foreign, trusting(), "not issued by an authority that is trusted").await;
    // Public authorities have issued none of the certificates.
    is_refused(&tls_cluster(testkit::Tls::new()).await, Tls::new(), "not issued by an authority").await;
    let elsewhere = tls_cluster(with(SERVER_ELSEWHERE, SERVER_ELSEWHERE_KEY)).await;
    is_refused(&elsewhere, trusting(), "elsewhere.example").await;

    // Each check can be turned off alone.
    lets_in(&elsewhere, trusting().dangerously_accept_any_host_name()).await;
    is_refused(&foreign, trusting().dangerously_accept_any_host_name(), "not issued by").await;
    is_refused(&expired, trusting().dangerously_accept_any_host_name(), "expired on 2024-02-01").await;
    for cluster in [expired, foreign, elsewhere] {
        let admin = admin(&cluster, Security::ssl(Tls::new().dangerously_accept_any_certificate())).await;
        assert_eq!(admin.list_topics().await.unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn plaintext_to_tls_listener_fails_immediately() {
    let cluster = tls_cluster(testkit::Tls::new()).await;
    let error = refused(&cluster, Security::plaintext()).await.to_string();
    assert!(error.contains("asks for TLS") && error.contains("SASL_SSL"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn error_names_listener_without_tls() {
    // Like Kafka, the broker reads the TLS greeting as a length above all limits, and closes the
    // connection.
    let cluster = cluster(Options::new()).await;
    let error = admin(&cluster, Security::ssl(trusting())).await.list_topics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("a listener without TLS"), "{error}");
}

#[tokio::test]
async fn build_error_names_invalid_certificate_file() {
    let empty = TempFile::new("empty.pem", "");
    let binary = TempFile::new("jks", "");
    std::fs::write(&binary.0, [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2]).unwrap();
    let key = TempFile::new("key.pem", CLIENT_KEY);
    for (tls, part) in [
        (Tls::new().ca_file("/nowhere/ca.pem"), "/nowhere/ca.pem"),
        (Tls::new().ca_file(empty.path()), "it is empty"),
        (Tls::new().ca_file(binary.path()), "JKS"),
        (Tls::new().ca_file(key.path()), "no CERTIFICATE"),
        (Tls::new().ca_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"), "given as text"),
        (Tls::new().client_certificate_files("/nowhere/c.pem", key.path()), "/nowhere/c.pem"),
        (Tls::new().client_certificate_pem(CLIENT, SERVER_KEY), "does not belong"),
        (Tls::new().client_certificate_pem(CLIENT, CLIENT), "no private key"),
        (Tls::new().client_certificate_pem(CLIENT, "hunter2"), "not PEM"),
        (Tls::new().client_certificate_pem(CLIENT, CLIENT_KEY_ENCRYPTED), "ssl.key.password"),
        (
            Tls::new().client_certificate_pem(CLIENT, CLIENT_KEY_ENCRYPTED).client_key_password("hunter2"),
            "the password (ssl.key.password) does not open",
        ),
        (
            Tls::new()
                .client_certificate_pem(CLIENT, include_str!("../../src/testkit/certificates/client-legacy.key"))
                .client_key_password("ottla"),
            "openssl pkcs8 -topk8",
        ),
    ] {
        let error = Admin::builder("localhost:1").security(Security::ssl(tls)).build().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[cfg(feature = "pkcs12")]
#[tokio::test(start_paused = true)]
async fn reads_certificates_from_pkcs12_stores() {
    let store = |name: &str| format!("{}/src/testkit/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    let cluster = tls_cluster(mutual()).await;
    let tls = Tls::new()
        .ca_pkcs12_file(store("authority.p12"), "ottla")
        .client_certificate_pkcs12_file(store("client.p12"), "ottla");
    lets_in(&cluster, tls).await;
    for (tls, part) in [
        (Tls::new().client_certificate_pkcs12_file(store("client.p12"), "hunter2"), "the password does not open"),
        (Tls::new().client_certificate_pkcs12_file(store("authority.p12"), "ottla"), "no private key"),
        (Tls::new().client_certificate_pkcs12_file(store("client.pem"), "ottla"), "to PEM"),
    ] {
        let error = Admin::builder("localhost:1").security(Security::ssl(tls)).build().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
