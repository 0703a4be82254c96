use std::time::Duration;

use rand::rngs::StdRng;

/// Exponential backoff with jitter (KIP-580): `min(max, U[0.8, 1.2] · initial · 2^n)`.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    _initial: Duration,
    _max: Duration,
    _attempts: u32,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self { _initial: initial, _max: max, _attempts: 0 }
    }

    /// The wait before the next attempt; counts it.
    pub(crate) fn next(&mut self, rng: &mut StdRng) -> Duration {
        let _ = rng;
        unimplemented!()
    }

    /// Starts anew after a success.
    pub(crate) fn reset(&mut self) {
        unimplemented!()
    }
}
