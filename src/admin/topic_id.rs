use std::fmt;

use uuid::Uuid;

/// The id of a topic: stays the same for as long as the topic lives; a topic created anew under the
/// same name has another (KIP-516). Shown as Kafka's tools show it, in 22 letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// `None` for the nil id, which brokers without topic ids give.
    pub(super) fn new(id: Uuid) -> Option<Self> {
        (!id.is_nil()).then(|| Self(id.into_bytes()))
    }

    /// The sixteen bytes on the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// Base64 with the alphabet for URLs, unpadded.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        // 128 bits in steps of 6 from the top, four zeros behind them to fill the last.
        let bits = u128::from_be_bytes(self.0);
        for digit in 0..22u32 {
            let shift = 122 - i64::from(digit) * 6;
            let six = if shift >= 0 { bits >> shift } else { bits << -shift } & 63;
            let letter = ALPHABET.get(six as usize).copied().unwrap_or_default();
            fmt::Write::write_char(f, char::from(letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_ids_in_kafka_base64_form() {
        // Kafka's own two reserved ids: 0 and 1.
        assert_eq!(TopicId([0; 16]).to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let one = TopicId::new(Uuid::from_u128(1)).unwrap();
        assert_eq!(one.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(TopicId([0xff; 16]).to_string(), "_____________________w");
        assert_eq!(TopicId(*b"sixteen letters!").to_string(), "c2l4dGVlbiBsZXR0ZXJzIQ");
        assert_eq!(TopicId::new(Uuid::nil()), None);
    }
}
