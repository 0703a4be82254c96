//! Statistics over several rounds.

/// The distribution of the values of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// The interquartile range: the width of the middle half.
    pub iqr: f64,
}

impl Stats {
    /// Returns the statistics, or `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { median: quantile(&values, 0.5), min, max, iqr: quantile(&values, 0.75) - quantile(&values, 0.25) })
    }
}

/// Interpolates between two values; `sorted` is not empty.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * share;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_median_range_and_interquartile_range() {
        let odd = Stats::of([5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!(odd, Stats { median: 3.0, min: 1.0, max: 5.0, iqr: 2.0 });
        let even = Stats::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(even, Stats { median: 2.5, min: 1.0, max: 4.0, iqr: 1.5 });
        assert_eq!(Stats::of([7.0]).unwrap(), Stats { median: 7.0, min: 7.0, max: 7.0, iqr: 0.0 });
        assert_eq!(Stats::of([]), None);
    }

    #[test]
    fn single_slow_round_keeps_median() {
        assert_eq!(Stats::of([10.0, 10.0, 1.0]).unwrap().median, 10.0);
    }
}
