//! The two protocols of transactions.
//!
//! Sans-IO.

use std::time::Duration;

/// The feature whose finalized level decides on the protocol (KIP-584, KIP-890).
pub(crate) const FEATURE: &str = "transaction.version";

/// The first wait after CONCURRENT_TRANSACTIONS; it doubles. The markers of the previous
/// transaction are being written then, which takes a few milliseconds.
pub(crate) const MARKERS_WRITTEN: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The producer adds partitions and groups to the transaction before it writes to them.
    V1,
    /// Brokers add them with the first write, and each EndTxn raises the epoch (KIP-890).
    V2,
}

impl Protocol {
    /// Returns the protocol for a level of [`FEATURE`]. Brokers that do not name the feature use
    /// the first, also those of Kafka 4.
    pub(crate) fn of(level: Option<i16>) -> Self {
        if level.is_some_and(|level| level >= 2) { Self::V2 } else { Self::V1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_below_two_means_first_protocol() {
        for (level, protocol) in
            [(None, Protocol::V1), (Some(0), Protocol::V1), (Some(1), Protocol::V1), (Some(2), Protocol::V2)]
        {
            assert_eq!(Protocol::of(level), protocol, "{level:?}");
        }
    }
}
