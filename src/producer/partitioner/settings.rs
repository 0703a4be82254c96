//! The partitioner's settings: their names, and the rules for their combinations.
//!
//! Sans-IO.

use std::time::Duration;

use super::Partitioner;
use crate::{
    config::parse::one_of,
    error::{Error, ErrorKind, Result},
};

/// The partitioner's settings as the user gave them.
#[derive(Clone, Debug)]
pub(crate) struct Partitioning {
    /// `partitioner` and `partitioner.class`.
    pub(crate) partitioner: Partitioner,
    /// `partitioner.ignore.keys`.
    pub(crate) ignore_keys: bool,
    /// `partitioner.adaptive.partitioning.enable`.
    pub(crate) adaptive: bool,
    /// `partitioner.availability.timeout.ms`; 0 is off.
    pub(crate) availability_timeout: Duration,
    /// `partitioner.rack.aware`.
    pub(crate) rack_aware: bool,
}

impl Default for Partitioning {
    fn default() -> Self {
        Self {
            partitioner: Partitioner::default(),
            ignore_keys: false,
            adaptive: true,
            availability_timeout: Duration::ZERO,
            rack_aware: false,
        }
    }
}

/// The values that [`named`] accepts.
pub(crate) const NAMES: &str = "random, consistent, consistent_random, murmur2, murmur2_random, fnv1a, fnv1a_random, or \
                                Java's RoundRobinPartitioner or DefaultPartitioner (instead of UniformStickyPartitioner, \
                                which Kafka 4 does not have either, set partitioner.ignore.keys=true)";

/// Returns the partitioner of a name: librdkafka's name, or a Java class, with or without its
/// package.
pub(crate) fn named(value: &str) -> Option<Partitioner> {
    const PACKAGE: &str = "org.apache.kafka.clients.producer.";
    let short = value.trim();
    let short = short.strip_prefix(PACKAGE).map_or(short, |class| class.strip_prefix("internals.").unwrap_or(class));
    // Constructors and not values, because one variant can hold what cannot be copied.
    type Make = fn() -> Partitioner;
    let known: [(&str, Make); 9] = [
        ("random", || Partitioner::Random),
        ("consistent", || Partitioner::Consistent),
        ("consistent_random", || Partitioner::ConsistentRandom),
        ("murmur2", || Partitioner::Murmur2),
        ("murmur2_random", || Partitioner::Murmur2Random),
        ("fnv1a", || Partitioner::Fnv1a),
        ("fnv1a_random", || Partitioner::Fnv1aRandom),
        ("RoundRobinPartitioner", || Partitioner::RoundRobin),
        ("DefaultPartitioner", || Partitioner::Murmur2Random),
    ];
    one_of(short, &known).map(|make| make())
}

impl Partitioning {
    /// Returns the time for which a broker may take no data before its partitions are left out;
    /// `None` if it is off.
    pub(crate) fn availability(&self) -> Option<Duration> {
        Some(self.availability_timeout).filter(|timeout| !timeout.is_zero())
    }

    /// Returns true if the choice depends on which broker leads a partition, and not only on
    /// whether there is a leader.
    pub(crate) fn heeds_leaders(&self) -> bool {
        self.rack_aware || self.availability().is_some() || matches!(self.partitioner, Partitioner::Custom(_))
    }

    /// Refuses settings that contradict each other. The error has the kind `Configuration` and
    /// names the properties.
    pub(crate) fn check(&self, client_rack: Option<&str>) -> Result<()> {
        use Partitioner::{Consistent, Custom, Fnv1a, Murmur2, Random, RoundRobin};
        let name = self.partitioner.name();
        let refuse = |message| Err(Error::new(ErrorKind::Configuration, message));
        let always_by_key = matches!(self.partitioner, Consistent | Murmur2 | Fnv1a);
        if self.ignore_keys && (always_by_key || matches!(self.partitioner, Custom(_))) {
            return refuse(format!(
                "partitioner.ignore.keys=true leaves the partitioner ({name}) nothing to choose by; leave one of them out"
            ));
        }
        let timeout = self.availability_timeout.as_millis();
        if timeout > 0 && !self.adaptive {
            return refuse(format!(
                "partitioner.availability.timeout.ms ({timeout}) needs partitioner.adaptive.partitioning.enable=true"
            ));
        }
        if timeout > 0 && (always_by_key || matches!(self.partitioner, Random | RoundRobin)) {
            return refuse(format!(
                "partitioner.availability.timeout.ms ({timeout}) has no effect with the partitioner {name}; leave it out"
            ));
        }
        if self.rack_aware && (always_by_key || matches!(self.partitioner, RoundRobin)) {
            return refuse(format!(
                "partitioner.rack.aware=true has no effect with the partitioner {name}; leave it out"
            ));
        }
        if self.rack_aware && client_rack.is_none_or(|rack| rack.trim().is_empty()) {
            return refuse("partitioner.rack.aware=true needs client.rack".to_owned());
        }
        Ok(())
    }
}
