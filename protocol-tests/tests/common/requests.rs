//! Requests that a broker started with `log_requests` has logged.

use std::time::Duration;

use protocol_tests::Kafka;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(60);

/// Returns the log's lines of one API's requests that name the group; waits until there are `count`
/// of them.
pub(crate) async fn logged(kafka: &Kafka, api: &str, group: &str, count: usize) -> Vec<String> {
    let (api, group) = (format!("\"requestApiKeyName\":\"{api}\""), format!("\"{group}\""));
    let found = async {
        loop {
            let log = std::fs::read(kafka.node(0).log()).unwrap();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().filter(|line| line.contains(&api) && line.contains(&group)).collect();
            if lines.len() >= count {
                return lines.into_iter().map(str::to_owned).collect();
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(LONG, found).await.unwrap_or_else(|_| panic!("fewer than {count} requests of {api} for {group}"))
}
