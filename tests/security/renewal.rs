//! Replacing certificates and keys while a client runs.

use ottla::{
    Record,
    security::{Security, Tls},
    testkit::{self, certificates::*},
};

use crate::common::*;

#[tokio::test(start_paused = true)]
async fn new_connections_use_replaced_certificate_files() {
    let (ca, chain, key) = (
        TempFile::new("renewed-ca.pem", AUTHORITY),
        TempFile::new("renewed-client.pem", CLIENT),
        TempFile::new("renewed-client.key", CLIENT_KEY),
    );
    let cluster = tls_cluster(testkit::Tls::new().require_client_certificate(AUTHORITY)).await;
    let tls = Tls::new().ca_file(ca.path()).client_certificate_files(chain.path(), key.path());
    let producer = cluster.producer().security(Security::ssl(tls));
    let producer = producer.build().await.unwrap();
    let mut sent = 0;
    let mut send = async || {
        for _ in 0..10 {
            producer.send(Record::to("orders").with_partition(0).with_value("x")).await.unwrap().await.unwrap();
            sent += 1;
        }
        assert_eq!(cluster.records("orders", 0).unwrap().len(), sent);
    };
    send().await;

    // The brokers move to another authority, and the client too: first it trusts both.
    ca.write(&format!("{AUTHORITY}{STRANGER}"));
    let strangers = testkit::Tls::new()
        .certificate(SERVER_OF_A_STRANGER, SERVER_OF_A_STRANGER_KEY)
        .require_client_certificate(format!("{AUTHORITY}{STRANGER}"));
    cluster.replace_tls(&strangers).unwrap();
    cluster.disconnect(1);
    send().await;

    // Files that are half replaced do not stop the client.
    chain.write("-----BEGIN CERTIFICATE-----\nhalf");
    cluster.disconnect(1);
    send().await;
    key.write(CLIENT_OF_A_STRANGER_KEY);
    cluster.disconnect(1);
    send().await;
    chain.write(CLIENT_OF_A_STRANGER);
    cluster.replace_tls(&strangers.require_client_certificate(STRANGER)).unwrap();
    cluster.disconnect(1);
    send().await;
    assert_eq!(producer.metrics().records_failed(), 0);
}
