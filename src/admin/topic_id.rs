use std::fmt;

use uuid::Uuid;

/// The id of a topic. It stays the same as long as the topic exists; a topic that is deleted and
/// created again under its name has another id (KIP-516). It is displayed like in Kafka's tools, as
/// 22 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// Returns `None` for the nil id, which brokers without topic ids send.
    pub(super) fn new(id: Uuid) -> Option<Self> {
        (!id.is_nil()).then(|| Self(id.into_bytes()))
    }

    /// Returns the sixteen bytes on the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// Writes base64 with the alphabet for URLs, without padding.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        // The 128 bits in steps of 6 from the top; four zero bits fill the last step.
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
