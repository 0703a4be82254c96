//! Which partition a record goes to: the one it asks for, by its key's hash, the one that is having
//! its turn, or what the user's own partitioner says.
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

/// How a record that names no partition gets one (`partitioner`, `partitioner.class`).
///
/// A record that does name one ([`Record::partition`](crate::Record::partition)) goes there,
/// whatever the partitioner.
///
/// Where a record may go to *any* partition, its topic's records stay with one partition until that
/// has had its share of `batch.size` bytes, at most 64 KiB (as expected after compression), so that
/// batches are full; then the next one has its turn (KIP-480, KIP-794). Which one that is, is
/// random: partitions without a leader are left out, those with fewer waiting batches come more
/// often (`partitioner.adaptive.partitioning.enable`), those whose broker takes no data are left
/// out (`partitioner.availability.timeout.ms`), and those whose leader is nearby are preferred
/// (`partitioner.rack.aware`, KIP-1123).
///
/// The names are librdkafka's, and a key goes to the partition to which librdkafka sends it. What
/// librdkafka calls "random" is "any" here, as it is there unless `sticky.partitioning.linger.ms`
/// is 0; only [`Random`](Self::Random) itself draws for each record.
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
/// When a topic gets more partitions, keys move, because hashes are taken modulo their number;
/// records that were sent before stay where they are.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Partitioner {
    /// A random partition for each record, whatever its key. Batches are small;
    /// [`Murmur2Random`](Self::Murmur2Random) with `partitioner.ignore.keys=true` spreads as evenly
    /// for less.
    Random,
    /// CRC-32 of the key; a record without one is taken for one with an empty key.
    Consistent,
    /// CRC-32 of the key; without a key, or with an empty one, any partition. librdkafka's default.
    ConsistentRandom,
    /// Murmur2 of the key; a record without one is taken for one with an empty key.
    Murmur2,
    /// Murmur2 of the key, an empty one included; without a key any partition. This is the Java
    /// client's way, and the default.
    #[default]
    Murmur2Random,
    /// FNV-1a of the key, as Sarama's hash partitioner; a record without one is taken for one with
    /// an empty key.
    Fnv1a,
    /// FNV-1a of the key, an empty one included; without a key any partition.
    Fnv1aRandom,
    /// The next partition for each record, whatever its key: those with a leader, or all if none
    /// has one. What Java's `RoundRobinPartitioner` does. Batches are small.
    RoundRobin,
    /// The user's own; see [`CustomPartitioner`].
    Custom(Arc<dyn CustomPartitioner>),
}

impl Partitioner {
    /// The user's own.
    pub fn custom(partitioner: impl CustomPartitioner + 'static) -> Self {
        Self::Custom(Arc::new(partitioner))
    }

    /// Its name as a property's value.
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

/// What a partitioner says of a record that names no partition.
#[derive(Debug)]
enum Rule<'a> {
    Partition(usize),
    /// Whichever has its turn.
    Any,
    /// One at random, for this record alone.
    Random,
    /// The next one, for this record alone.
    Next,
    /// What the user says.
    Ask(&'a dyn CustomPartitioner),
}

impl Partitioning {
    /// The rule for a record with that key, in a topic of so many partitions.
    #[inline]
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

/// What a hash is modulo a number of partitions (not 0): 32 bits are enough, and the fastest.
fn modulo(hash: u32, partitions: usize) -> usize {
    (hash % u32::try_from(partitions).unwrap_or(u32::MAX).max(1)) as usize
}
