//! Tests of the SASL mechanisms, with and without TLS.

use ottla::{
    ErrorCode, ErrorKind, Record,
    security::{Sasl, Security, UnsecuredToken},
    testkit::{self, Options, on},
};

use crate::common::*;

fn mechanisms() -> [Sasl; 4] {
    [
        Sasl::plain("alice", "wonder"),
        Sasl::scram_sha_256("alice", "wonder"),
        Sasl::scram_sha_512("büro,=", "pässwörd,="),
        Sasl::oauth_bearer(UnsecuredToken::new("alice")),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_authenticates_without_tls() {
    for sasl in mechanisms() {
        let cluster = cluster(Options::new().sasl(users())).await;
        works(&cluster.bootstrap(), cluster.network(), Security::sasl_plaintext(sasl)).await;
        assert!(cluster.journal().iter().any(|request| request.principal.starts_with("User:")));
    }
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_authenticates_over_tls() {
    for sasl in mechanisms() {
        let cluster = cluster(Options::new().tls(testkit::Tls::new()).sasl(users())).await;
        works(&cluster.bootstrap(), cluster.network(), Security::sasl_ssl(sasl, trusting())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_fail_with_authentication_error() {
    for sasl in [
        Sasl::plain("alice", "hunter2"),
        Sasl::plain("nobody", "wonder"),
        Sasl::scram_sha_256("alice", "hunter2"),
        Sasl::scram_sha_512("nobody", "wonder"),
        Sasl::oauth_bearer(UnsecuredToken::new("nobody")),
    ] {
        let cluster = cluster(Options::new().sasl(users())).await;
        let name = sasl.name().to_owned();
        let error = refused(&cluster, Security::sasl_plaintext(sasl)).await.to_string();
        assert!(error.contains(&name) && error.contains("refuses the credentials"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn error_lists_mechanisms_of_broker() {
    let cluster = cluster(Options::new().sasl(users().mechanisms(["SCRAM-SHA-512"]))).await;
    let error = refused(&cluster, Security::sasl_plaintext(Sasl::plain("alice", "wonder"))).await.to_string();
    assert!(error.contains("no mechanism PLAIN") && error.contains("SCRAM-SHA-512"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rejects_broker_with_too_few_iterations() {
    let cluster = cluster(Options::new().sasl(users().scram_iterations(100))).await;
    let error = refused(&cluster, Security::sasl_plaintext(Sasl::scram_sha_256("alice", "wonder"))).await.to_string();
    assert!(error.contains("100 iterations"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn sasl_on_plain_listener_fails_immediately() {
    let cluster = cluster(Options::new()).await;
    let error = refused(&cluster, Security::sasl_plaintext(Sasl::plain("alice", "wonder"))).await.to_string();
    assert!(error.contains("PLAINTEXT or SSL"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn error_says_that_listener_requires_sasl() {
    let cluster = cluster(Options::new().sasl(users())).await;
    let error = admin(&cluster, Security::plaintext()).await.list_topics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("require SASL"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn works_with_sasl_authenticate_version_0() {
    let options = Options::new().sasl(users()).max_version(ottla::ApiKey::SaslAuthenticate, 0);
    let cluster = cluster(options).await;
    works(&cluster.bootstrap(), cluster.network(), Security::sasl_plaintext(Sasl::plain("alice", "wonder"))).await;
}

#[tokio::test(start_paused = true)]
async fn unanswered_authentication_ends_with_timeout_error() {
    for key in [ottla::ApiKey::SaslHandshake, ottla::ApiKey::SaslAuthenticate] {
        let cluster = cluster(Options::new().sasl(users())).await;
        cluster.fault(on(key).forever().hang());
        let security = Security::sasl_plaintext(Sasl::plain("alice", "wonder"));
        let error = admin(&cluster, security).await.list_topics().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("authentication with SASL took longer than"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_after_garbage_or_dropped_connection() {
    let security = || Security::sasl_plaintext(Sasl::scram_sha_256("alice", "wonder"));
    for key in [ottla::ApiKey::SaslHandshake, ottla::ApiKey::SaslAuthenticate] {
        let cluster = cluster(Options::new().sasl(users())).await;
        for bytes in [&[0, 0, 0, 4, 0, 0, 0, 9][..], &[0xff; 8], &[0, 0, 0, 5, 0, 0, 0, 0, 1], b"HTTP/1.1 400\r\n\r\n"]
        {
            cluster.fault(on(key).respond_garbage(bytes.to_vec()));
        }
        cluster.fault(on(key).drop_connection());
        cluster.fault(on(key).truncate_response());
        // The seventh attempt succeeds.
        let topics = admin(&cluster, security()).await.list_topics().await.unwrap();
        assert_eq!(topics.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn denied_user_receives_authorization_error() {
    let cluster = cluster(Options::new().sasl(users())).await;
    let denial = on(ottla::ApiKey::Produce).topic("orders").user("alice").forever();
    cluster.fault(denial.error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let security = Security::sasl_plaintext(Sasl::plain("alice", "wonder"));
    let producer = cluster.producer().security(security);
    let producer = producer.build().await.unwrap();
    let error = producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    let security = Security::sasl_plaintext(Sasl::plain("büro,=", "pässwörd,="));
    let producer = cluster.producer().security(security);
    let producer = producer.build().await.unwrap();
    producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap();
}
