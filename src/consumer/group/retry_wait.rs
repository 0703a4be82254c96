//! The wait between two attempts of one call.

use crate::cluster::{Backoff, Client};
use rand::{SeedableRng, rngs::StdRng};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The waits between attempts of one call.
pub(crate) struct RetryWait {
    backoff: Backoff,
    rng: StdRng,
}

impl RetryWait {
    pub(crate) fn new(client: &Client) -> Self {
        let settings = client.settings();
        Self {
            backoff: Backoff::new(settings.retry_backoff, settings.retry_backoff_max),
            rng: StdRng::seed_from_u64(settings.seed.unwrap_or_else(rand::random)),
        }
    }

    pub(crate) async fn wait(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        sleep(self.backoff.next(&mut self.rng).min(left).max(Duration::from_millis(1))).await;
    }
}
