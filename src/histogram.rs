//! Sans-IO.

use std::{fmt, time::Duration};

/// Each power of two has two to the power of this number of buckets.
const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;

/// Counts values by their size, in at most 976 counters whatever the values are.
///
/// Values below 32 are kept exactly. Above, each power of two is cut into 16 equal buckets, so a
/// value that is read back ([`quantile`](Self::quantile)) is at most 3.2 % off. Count, sum, mean
/// and maximum are exact. The unit is that of the field that holds the histogram.
///
/// ```
/// # use ottla::metrics::Histogram;
/// fn show(latency_micros: &Histogram) {
///     println!(
///         "p50 {} µs, p99 {} µs",
///         latency_micros.quantile(0.5),
///         latency_micros.quantile(0.99)
///     );
/// }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The buckets up to that of the largest value.
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of all values; it stops at `u64::MAX`.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Returns the largest value, or 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Returns the mean, or 0 if there are no values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// Returns the value that a share `q` of all values do not exceed: 0.5 for the median, 0.99 for
    /// the 99th percentile. Returns 0 if there are no values. A `q` outside of 0 to 1 counts as the
    /// nearer bound.
    pub fn quantile(&self, q: f64) -> u64 {
        // NaN counts as 0.
        let rank = ((self.count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(index).min(self.max);
            }
        }
        self.max
    }

    /// Returns the buckets that are not empty, in order: the largest value that each takes, and the
    /// number of its values. It serves to export the whole distribution.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let counted = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(index, count)| (largest(index), *count))
    }

    /// Adds the values of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        self.reserve(other.buckets.len());
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Returns the values that were added since `earlier`, a snapshot of the same histogram. The
    /// maximum of the result is read off the buckets, like a quantile, and is therefore not exact.
    #[must_use]
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let before = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        let mut buckets: Vec<u64> =
            self.buckets.iter().zip(before).map(|(now, then)| now.saturating_sub(then)).collect();
        let used = buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        buckets.truncate(used);
        let max = used.checked_sub(1).map_or(0, |last| largest(last).min(self.max));
        Histogram {
            buckets,
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum.saturating_sub(earlier.sum),
            max,
        }
    }

    pub(crate) fn record(&mut self, value: u64) {
        let index = index(value);
        self.reserve(index + 1);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// Records a time in microseconds.
    pub(crate) fn record_micros(&mut self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    fn reserve(&mut self, buckets: usize) {
        if self.buckets.len() < buckets {
            self.buckets.resize(buckets, 0);
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish()
    }
}

/// Returns the bucket of a value.
fn index(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

/// Returns the smallest value of a bucket, and the number of values that it covers.
fn bounds(index: usize) -> (u64, u64) {
    let index = index as u64;
    if index < 2 * SUB {
        return (index, 1);
    }
    let shift = index / SUB - 1;
    ((index % SUB + SUB) << shift, 1 << shift)
}

fn largest(index: usize) -> u64 {
    let (first, width) = bounds(index);
    first + (width - 1)
}

fn middle(index: usize) -> u64 {
    let (first, width) = bounds(index);
    first + (width - 1) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    /// Generates values of every size.
    fn value() -> impl Strategy<Value = u64> {
        (0u32..64, any::<u64>()).prop_map(|(shift, value)| value >> shift)
    }

    #[test]
    fn handles_values_at_bucket_boundaries() {
        for (value, expected) in [(0, 0), (15, 15), (16, 16), (31, 31), (32, 32), (33, 32), (34, 33), (u64::MAX, 975)] {
            assert_eq!(index(value), expected, "{value}");
        }
        assert_eq!(largest(975), u64::MAX);
        let empty = Histogram::default();
        assert_eq!((empty.count(), empty.mean(), empty.max(), empty.quantile(0.5)), (0, 0.0, 0, 0));
        assert_eq!(of(&[7]).quantile(f64::NAN), 7);
        let mut full = of(&[u64::MAX, u64::MAX]);
        full.merge(&of(&[u64::MAX]));
        assert_eq!((full.sum(), full.count(), full.quantile(1.0) <= full.max()), (u64::MAX, 3, true));
    }

    proptest! {
        #[test]
        fn bucket_width_bounds_relative_error(value in value()) {
            let (first, width) = bounds(index(value));
            prop_assert!(first <= value && value - first < width, "{first} + {width}");
            let read = middle(index(value));
            prop_assert!(read.abs_diff(value) as f64 <= value as f64 * 0.032, "{value} is read as {read}");
        }

        #[test]
        fn quantiles_stay_within_relative_error(mut values in prop::collection::vec(value(), 1..300), q in 0.0f64..=1.0) {
            let histogram = of(&values);
            values.sort_unstable();
            let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let read = histogram.quantile(q);
            prop_assert!(read.abs_diff(exact) as f64 <= exact as f64 * 0.032, "{exact} is read as {read}");
            prop_assert_eq!(histogram.max(), *values.last().unwrap());
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert!(histogram.buckets.len() <= 976);
            prop_assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), histogram.count());
        }

        #[test]
        fn merge_adds_and_since_subtracts_counts(
            before in prop::collection::vec(value(), 0..100),
            after in prop::collection::vec(value(), 0..100),
        ) {
            let earlier = of(&before);
            let mut merged = earlier.clone();
            merged.merge(&of(&after));
            let together = of(&[before, after.clone()].concat());
            prop_assert_eq!(&merged, &together);
            let since = together.since(&earlier);
            let alone = of(&after);
            prop_assert_eq!(since.count(), alone.count());
            prop_assert_eq!(&since.buckets, &alone.buckets);
            prop_assert!(since.max() >= alone.max() && since.max() <= together.max());
        }
    }
}
