//! The tokio runtime that a client's tasks run on.
//!
//! Tokio has no API that says which drivers a runtime was built with, and a missing driver panics
//! when it is used. So each driver is used once, inside `catch_unwind`, before any task of the
//! client depends on it.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tokio::runtime::Handle;

use super::Network;
use crate::error::{Error, ErrorKind, Result};

/// Returns the current runtime, which runs the tasks of `owner` ("a producer").
///
/// # Errors
/// Kind `Configuration` if there is no runtime, or if it has no timers.
pub(crate) fn runtime(owner: &str) -> Result<Handle> {
    let runtime = Handle::try_current().map_err(|error| {
        let message =
            format!("{owner} needs a tokio runtime: create it inside one (`#[tokio::main]`, `Runtime::block_on`)");
        Error::new(ErrorKind::Configuration, message).with_source(error)
    })?;
    if catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_err() {
        let message = format!(
            "{owner} needs timers, and this tokio runtime has none: build it with `enable_time()` or `enable_all()`"
        );
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    Ok(runtime)
}

/// Checks that the current runtime has all that connections over this network need.
///
/// # Errors
/// Kind `Configuration`; the message names the missing part.
pub(crate) fn check_network(network: &dyn Network) -> Result<()> {
    network.check_runtime().map_err(|error| Error::new(ErrorKind::Configuration, error.to_string()).with_source(error))
}

/// Checks that the current runtime has IO.
///
/// # Errors
/// The runtime has no IO.
pub(super) fn check_io() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    // If the system gives no socket for the check, the first connection reports the error.
    let Ok(socket) = socket else { return Ok(()) };
    match catch_unwind(AssertUnwindSafe(|| tokio::net::UdpSocket::from_std(socket).map(drop))) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other(
            "TCP needs IO, and this tokio runtime has none: build it with `enable_io()` or `enable_all()`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::{Builder, Runtime};

    use crate::{
        Admin, Consumer, Error, ErrorKind, Producer, Record, Result,
        net::{MemoryNetwork, Network, Tcp},
    };

    const CLIENTS: [&str; 3] = ["producer", "consumer", "admin"];

    async fn build(client: &str, network: Arc<dyn Network>) -> Result<()> {
        match client {
            "producer" => Producer::builder("127.0.0.1:1").network(network).build().await.map(drop),
            "consumer" => Consumer::builder("127.0.0.1:1").network(network).build().await.map(drop),
            _ => Admin::builder("127.0.0.1:1").network(network).build().await.map(drop),
        }
    }

    fn refused(result: Result<()>, needs: &str) {
        let error: Error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(needs), "{error}");
    }

    fn runtime(builder: &mut Builder) -> Runtime {
        builder.build().unwrap()
    }

    #[test]
    fn clients_reject_runtime_without_timers() {
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            let runtime = runtime(builder.worker_threads(1).enable_io());
            for client in CLIENTS {
                refused(runtime.block_on(build(client, Arc::new(MemoryNetwork::new()))), "enable_time");
            }
        }
    }

    #[test]
    fn only_tcp_rejects_runtime_without_io() {
        let runtime = runtime(Builder::new_current_thread().enable_time());
        for client in CLIENTS {
            refused(runtime.block_on(build(client, Arc::new(Tcp))), "enable_io");
            runtime.block_on(build(client, Arc::new(MemoryNetwork::new()))).unwrap();
        }
    }

    #[test]
    fn clients_reject_missing_tokio_runtime() {
        for client in CLIENTS {
            let built = futures_util::FutureExt::now_or_never(build(client, Arc::new(Tcp)));
            refused(built.expect("nothing to wait for"), "tokio runtime");
        }
    }

    #[test]
    fn calls_fail_closed_after_runtime_ends() {
        let whole = || runtime(Builder::new_multi_thread().worker_threads(1).enable_all());
        let first = whole();
        let network = || Arc::new(MemoryNetwork::new());
        let (producer, consumer, admin) = first.block_on(async {
            let producer = Producer::builder("127.0.0.1:1").network(network()).build().await.unwrap();
            let consumer = Consumer::builder("127.0.0.1:1").group("g").network(network()).build().await.unwrap();
            let admin = Admin::builder("127.0.0.1:1").network(network()).build().await.unwrap();
            consumer.subscribe(["t"]).unwrap();
            (producer, consumer, admin)
        });
        drop(first);
        let record = || Record::to("t").with_value("x");
        assert_eq!(producer.try_send(record()).unwrap_err().error().kind(), ErrorKind::Closed);
        whole().block_on(async {
            assert_eq!(producer.send(record()).await.unwrap_err().kind(), ErrorKind::Closed);
            assert!(!matches!(consumer.recv().await, Some(Ok(_))));
            assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Closed);
        });
        drop((producer, consumer, admin));
    }

    #[test]
    fn worker_rejects_runtime_without_timers() {
        let whole = runtime(Builder::new_multi_thread().worker_threads(1).enable_all());
        let network = Arc::new(MemoryNetwork::new());
        let builder = Consumer::builder("127.0.0.1:1").group("g").network(network);
        let consumer = whole.block_on(builder.build()).unwrap();
        consumer.subscribe(["t"]).unwrap();
        let bare = runtime(&mut Builder::new_current_thread());
        refused(bare.block_on(async { consumer.worker().start(|_| async {}).map(drop) }), "enable_time");
    }

    #[cfg(feature = "testkit")]
    #[test]
    fn testkit_error_names_missing_runtime_feature() {
        use crate::testkit::{Cluster, Options};

        let bare = runtime(&mut Builder::new_current_thread());
        refused(bare.block_on(Cluster::start(Options::new().in_memory())).map(drop), "enable_time");
        let timers = runtime(Builder::new_current_thread().enable_time());
        refused(timers.block_on(Cluster::start(Options::new())).map(drop), "enable_io");
        timers.block_on(Cluster::start(Options::new().in_memory())).map(drop).unwrap();
        let none = futures_util::FutureExt::now_or_never(Cluster::start(Options::new().in_memory()));
        refused(none.expect("nothing to wait for").map(drop), "tokio runtime");
    }
}
