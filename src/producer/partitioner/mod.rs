//! Chooses a record's partition: the one that the record names, the one of its key's hash, the
//! sticky partition of the current turn, or the choice of a custom partitioner.
//!
//! Sans-IO.

mod availability;
mod chooser;
mod crc32;
mod custom;
mod fnv1a;
mod load;
mod murmur2;
mod settings;
mod sticky;
#[cfg(test)]
mod tests;
mod weights;

use std::{fmt, sync::Arc};

pub use self::custom::{CustomPartitioner, PartitionChoice, TopicSnapshot};
pub(crate) use self::{
    availability::{Availability, AvailabilityCheck},
    chooser::{Choice, Chooser},
    custom::Leader,
    load::{BrokerUnavailable, PartitionLoad},
    settings::{NAMES, Partitioning, named},
    sticky::{Sticky, turn_is_over},
};

/// Chooses the partition of a record that names none (`partitioner`, Java: `partitioner.class`).
///
/// A record that does name one ([`Record::partition`](crate::Record::partition)) goes there,
/// regardless of the partitioner.
///
/// If a record may go to *any* partition, its topic's records stay with one partition until that
/// has had its share of `batch.size` bytes, at most 64 KiB (as expected after compression), so that
/// batches are full; then another partition has its turn (KIP-480, KIP-794). The next partition is
/// random: partitions without a leader are left out, those with fewer waiting batches come more
/// often (`partitioner.adaptive.partitioning.enable`), those of a broker that takes no data are
/// left out (`partitioner.availability.timeout.ms`), and those with a leader in the producer's rack
/// are preferred (`partitioner.rack.aware`, KIP-1123).
///
/// The names are librdkafka's, and a key goes to the partition to which librdkafka sends it. In the
/// table, *any* stands for what librdkafka calls "random": it behaves like librdkafka unless
/// `sticky.partitioning.linger.ms` is 0 there. Only [`Random`](Self::Random) draws a partition for
/// each record.
///
/// | partitioner | a key | an empty key | no key |
/// |---|---|---|---|
/// | `random` | random | random | random |
/// | `consistent` | CRC-32 | CRC-32 (0) | as the empty key |
/// | `consistent_random` | CRC-32 | any | any |
/// | `murmur2` | murmur2 | murmur2 | as the empty key |
/// | `murmur2_random` (default) | murmur2 | murmur2 | any |
/// | `fnv1a` | FNV-1a | FNV-1a | as the empty key |
/// | `fnv1a_random` | FNV-1a | FNV-1a | any |
/// | `RoundRobinPartitioner` | in turn | in turn | in turn |
///
/// When partitions are added to a topic, keys move, because hashes are taken modulo their number.
/// Records that were sent before stay in their partitions.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Partitioner {
    /// A random partition for each record, with or without a key. Batches are small;
    /// [`Murmur2Random`](Self::Murmur2Random) with `partitioner.ignore.keys=true` spreads as evenly
    /// at a lower cost.
    Random,
    /// CRC-32 of the key; a record without a key is treated like one with an empty key.
    Consistent,
    /// CRC-32 of the key; without a key, or with an empty one, any partition. librdkafka's default.
    ConsistentRandom,
    /// Murmur2 of the key; a record without a key is treated like one with an empty key.
    Murmur2,
    /// Murmur2 of the key, including an empty one; without a key any partition. This is what the
    /// Java client does, and the default.
    #[default]
    Murmur2Random,
    /// FNV-1a of the key, like Sarama's hash partitioner; a record without a key is treated like
    /// one with an empty key.
    Fnv1a,
    /// FNV-1a of the key, including an empty one; without a key any partition.
    Fnv1aRandom,
    /// The next partition in turn for each record, with or without a key: among the partitions with
    /// a leader, or among all if none has one. Like Java's `RoundRobinPartitioner`. Batches are
    /// small.
    RoundRobin,
    /// A custom partitioner; see [`CustomPartitioner`].
    Custom(Arc<dyn CustomPartitioner>),
}

impl Partitioner {
    /// Returns a partitioner that calls a [`CustomPartitioner`].
    pub fn custom(partitioner: impl CustomPartitioner + 'static) -> Self {
        Self::Custom(Arc::new(partitioner))
    }

    /// Returns its name as a property's value.
    fn name(&self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Consistent => "consistent",
            Self::ConsistentRandom => "consistent_random",
            Self::Murmur2 => "murmur2",
            Self::Murmur2Random => "murmur2_random",
            Self::Fnv1a => "fnv1a",
            Self::Fnv1aRandom => "fnv1a_random",
            Self::RoundRobin => "RoundRobinPartitioner",
            Self::Custom(_) => "the user's own",
        }
    }
}

impl fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Custom(partitioner) => f.debug_tuple("Custom").field(partitioner).finish(),
            known => f.write_str(known.name()),
        }
    }
}

/// The choice of a partitioner for a record that names no partition.
#[derive(Debug)]
enum Rule<'a> {
    Partition(usize),
    /// The partition of the current turn.
    Any,
    /// A random partition, for this record alone.
    Random,
    /// The next partition in turn, for this record alone.
    Next,
    /// The choice of the custom partitioner.
    Ask(&'a dyn CustomPartitioner),
}

impl Partitioning {
    /// Returns the rule for a record with that key, in a topic with that number of partitions.
    // By force, because a call for each record costs more than the match.
    #[inline(always)]
    fn rule(&self, key: Option<&[u8]>, partitions: usize) -> Rule<'_> {
        let key = key.filter(|_| !self.ignore_keys);
        let hashed = |hash: fn(&[u8], usize) -> usize, key: &[u8]| Rule::Partition(hash(key, partitions));
        match (&self.partitioner, key) {
            (Partitioner::Murmur2Random, Some(key)) => hashed(murmur2::partition, key),
            (Partitioner::Murmur2Random | Partitioner::Fnv1aRandom | Partitioner::ConsistentRandom, None) => Rule::Any,
            (Partitioner::ConsistentRandom, Some([])) => Rule::Any,
            (Partitioner::ConsistentRandom, Some(key)) => hashed(crc32::partition, key),
            (Partitioner::Fnv1aRandom, Some(key)) => hashed(fnv1a::partition, key),
            (Partitioner::Murmur2, key) => hashed(murmur2::partition, key.unwrap_or_default()),
            (Partitioner::Consistent, key) => hashed(crc32::partition, key.unwrap_or_default()),
            (Partitioner::Fnv1a, key) => hashed(fnv1a::partition, key.unwrap_or_default()),
            (Partitioner::Random, _) => Rule::Random,
            (Partitioner::RoundRobin, _) => Rule::Next,
            (Partitioner::Custom(custom), _) => Rule::Ask(&**custom),
        }
    }
}

/// Returns the hash modulo a number of partitions (not 0), in 32 bits, because these are sufficient
/// and fastest.
fn modulo(hash: u32, partitions: usize) -> usize {
    (hash % u32::try_from(partitions).unwrap_or(u32::MAX).max(1)) as usize
}
