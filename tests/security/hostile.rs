//! Servers that imitate a broker but do not know the password.

use std::{net::SocketAddr, sync::Arc};

use ottla::{
    Admin, ErrorKind,
    security::{Sasl, Security},
    testkit::MemoryNetwork,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// ApiVersions response, version 0: SaslHandshake, SaslAuthenticate, Metadata and ApiVersions
/// itself.
fn versions() -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 0, 4];
    for (key, max) in [(3, 1), (17, 1), (18, 0), (36, 0)] {
        for number in [key, 0, max] {
            body.extend_from_slice(&i16::to_be_bytes(number));
        }
    }
    body
}

async fn answer(stream: &mut DuplexStream, script: &[Vec<u8>]) -> std::io::Result<()> {
    let mut turn = 0;
    loop {
        let length = stream.read_i32().await?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut frame).await?;
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        let body = match key {
            // Newer versions are refused in version 0, with the list of supported ones.
            18 if frame[3] > 0 => [&[0, 35][..], &versions()[2..]].concat(),
            18 => versions(),
            17 => vec![0, 0, 0, 0, 0, 0],
            _ => {
                let message = script.get(turn).cloned().unwrap_or_default();
                turn += 1;
                let length = i32::try_from(message.len()).unwrap().to_be_bytes();
                // A response without an error (code 0, null message), with these bytes.
                [&[0, 0, 0xff, 0xff][..], &length, &message].concat()
            }
        };
        stream.write_i32(i32::try_from(body.len() + 4).unwrap()).await?;
        stream.write_all(&frame[4..8]).await?;
        stream.write_all(&body).await?;
    }
}

async fn told(sasl: Sasl, script: Vec<Vec<u8>>) -> ottla::Error {
    let network = MemoryNetwork::new();
    let mut listener = network.listen(SocketAddr::from(([127, 0, 0, 1], 9092))).unwrap();
    let server = tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            // The loop ends when the client closes the connection.
            let _ = answer(&mut stream, &script).await;
        }
    });
    let admin = Admin::builder("127.0.0.1:9092").network(Arc::new(network)).security(Security::sasl_plaintext(sasl));
    let error = admin.build().await.unwrap().list_topics().await.unwrap_err();
    server.abort();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    error
}

#[tokio::test(start_paused = true)]
async fn invalid_scram_response_fails_authentication() {
    let scram = || Sasl::scram_sha_256("alice", "hunter2");
    for (first, part) in [
        ("r=another,s=c2FsdA==,i=4096", "nonce"),
        ("r=,s=c2FsdA==,i=1", "1 iterations"),
        ("e=other-error", "other-error"),
        ("", "first message"),
        ("\u{0}\u{ff}", "first message"),
    ] {
        let error = told(scram(), vec![first.into()]).await;
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains("SCRAM"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn limits_number_of_authentication_exchanges() {
    #[derive(Debug)]
    struct Endless;
    impl ottla::security::Exchange for Endless {
        fn next(&mut self, _challenge: Option<&[u8]>) -> ottla::Result<ottla::security::Step> {
            Ok(ottla::security::Step::Send(b"more".to_vec().into()))
        }
    }
    impl ottla::security::Mechanism for Endless {
        fn name(&self) -> &str {
            "X-ENDLESS"
        }
        fn begin<'a>(
            &'a self,
            _host: &'a str,
        ) -> ottla::net::BoxFuture<'a, ottla::Result<Box<dyn ottla::security::Exchange>>> {
            Box::pin(async { Ok(Box::new(Self) as Box<dyn ottla::security::Exchange>) })
        }
    }
    let error = told(Sasl::mechanism(Endless), Vec::new()).await;
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("turns"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn refused_token_error_contains_broker_status() {
    let token = ottla::security::UnsecuredToken::new("alice");
    let refusal = br#"{"status":"invalid_token","scope":"kafka"}"#.to_vec();
    let error = told(Sasl::oauth_bearer(token), vec![refusal]).await;
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("invalid_token"), "{error}");
}

/// Answers like [`answer`] up to the request with that key. The response to that one announces
/// `announced` bytes and continues until the client hangs up. Returns the number of its bytes that
/// the client read.
async fn floods(stream: &mut DuplexStream, key: i16, announced: i32) -> std::io::Result<usize> {
    loop {
        let length = stream.read_i32().await?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut frame).await?;
        let asked = i16::from_be_bytes([frame[0], frame[1]]);
        if asked == key {
            stream.write_i32(announced).await?;
            let mut taken = 0;
            while stream.write_all(&[0; 1024]).await.is_ok() {
                taken += 1024;
            }
            return Ok(taken);
        }
        let body = match asked {
            18 if frame[3] > 0 => [&[0, 35][..], &versions()[2..]].concat(),
            18 => versions(),
            _ => vec![0, 0, 0, 0, 0, 0],
        };
        stream.write_i32(i32::try_from(body.len() + 4).unwrap()).await?;
        stream.write_all(&frame[4..8]).await?;
        stream.write_all(&body).await?;
    }
}

#[tokio::test(start_paused = true)]
async fn limits_response_size_before_authentication() {
    // The requests are ApiVersions without and with SASL, SaslHandshake, and SaslAuthenticate.
    for (key, sasl) in [(18, false), (18, true), (17, true), (36, true)] {
        let network = MemoryNetwork::new();
        let mut listener = network.listen(SocketAddr::from(([127, 0, 0, 1], 9092))).unwrap();
        let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let server = tokio::spawn(async move {
            while let Ok(mut stream) = listener.accept().await {
                if let Ok(taken) = floods(&mut stream, key, 99_000_000).await {
                    seen.fetch_max(taken, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        let security = match sasl {
            true => Security::sasl_plaintext(Sasl::plain("alice", "hunter2")),
            false => Security::plaintext(),
        };
        let admin = Admin::builder("127.0.0.1:9092").network(Arc::new(network)).security(security);
        let error = admin.build().await.unwrap().list_topics().await.unwrap_err();
        server.abort();
        let taken = most.load(std::sync::atomic::Ordering::Relaxed);
        assert!(taken <= 512 * 1024, "{taken} bytes were read for request {key}");
        let shown = error.to_string();
        assert!(shown.contains("99000000") && shown.contains("524288"), "{shown}");
        assert!(shown.contains("security.protocol") && shown.contains("port"), "{shown}");
    }
}
