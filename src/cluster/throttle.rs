//! The throttle time of responses.
//!
//! Sans-IO.

use crate::wire::{ApiKey, messages::throttled_from};

/// Reads the throttle time, for which the broker asks this client to be silent (KIP-219), from the
/// front of a response's body.
///
/// Nearly every response begins with `throttle_time_ms`. Produce has the field at its end, so it is
/// read with the rest of that response. ApiVersions has it at the end, too, and is only sent at
/// connect.
pub(super) fn throttle_time_ms(key: ApiKey, version: i16, body: &[u8]) -> i32 {
    if throttled_from(key).is_none_or(|first| version < first) {
        return 0;
    }
    body.first_chunk().map_or(0, |field| i32::from_be_bytes(*field).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_throttle_time_at_response_start() {
        let body = [0, 0, 4, 0xd2, 9];
        for (key, first) in [(ApiKey::Fetch, 4), (ApiKey::Metadata, 3), (ApiKey::DescribeCluster, 0)] {
            assert_eq!(throttle_time_ms(key, first, &body), 1234, "{key}");
            assert_eq!(throttle_time_ms(key, first - 1, &body), 0, "{key}");
            assert_eq!(throttle_time_ms(key, first, &body[..2]), 0, "{key}, cut off");
            assert_eq!(throttle_time_ms(key, first, &[0xff; 4]), 0, "{key}, negative");
        }
        for key in [ApiKey::Produce, ApiKey::ApiVersions, ApiKey::SaslHandshake] {
            assert_eq!(throttle_time_ms(key, 20, &body), 0, "{key} has it elsewhere or nowhere");
        }
    }
}
