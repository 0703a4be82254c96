//! A connection that sends single requests, encoded by the crate `kafka-protocol`, to a real broker
//! or to one of the testkit.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::LONG;

pub(crate) struct Connection {
    stream: TcpStream,
    sent: i32,
}

impl Connection {
    /// Connects to the first of the addresses.
    pub(crate) async fn open(bootstrap: &str) -> Self {
        let address = bootstrap.split(',').next().unwrap_or_default();
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket without delay");
        Self { stream, sent: 0 }
    }

    /// Sends a request and returns its response.
    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap_or_else(|error| panic!("request {} v{version}: {error:#}", R::KEY));
        let headers = (R::header_version(version), R::Response::header_version(version));
        let mut response = self.exchange(R::KEY, version, headers, &body).await;
        let decoded = R::Response::decode(&mut response, version);
        decoded.unwrap_or_else(|error| panic!("response {} v{version}: {error:#}", R::KEY))
    }

    /// Sends an encoded request and returns the body of its response. `headers` are the versions of
    /// the two headers.
    pub(crate) async fn exchange(&mut self, api: i16, version: i16, headers: (i16, i16), body: &[u8]) -> Bytes {
        self.sent += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_static_str("oracle")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, headers.0).expect("a header");
        frame.extend_from_slice(body);
        let exchange = async {
            self.stream.write_i32(frame.len() as i32).await?;
            self.stream.write_all(&frame).await?;
            let length = self.stream.read_i32().await?;
            let mut response = vec![0; usize::try_from(length).unwrap_or_default()];
            self.stream.read_exact(&mut response).await?;
            std::io::Result::Ok(Bytes::from(response))
        };
        let answered = timeout(LONG, exchange).await.unwrap_or_else(|_| panic!("no answer to {api} v{version}"));
        let mut response = answered.unwrap_or_else(|error| panic!("request {api} v{version}: {error}"));
        let header = ResponseHeader::decode(&mut response, headers.1).expect("a response header");
        assert_eq!(header.correlation_id, self.sent, "responses come in order");
        response.copy_to_bytes(response.remaining())
    }
}
