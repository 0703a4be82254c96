//! The probability of each partition for the next turn: the fewer batches wait for it, the higher
//! (KIP-794).
//!
//! Sans-IO.

/// A partition, and the number of batches in its queue.
pub(super) type QueueLength = (u32, u32);

/// The table from which the next turn is drawn.
///
/// With queues of 0, 3 and 1 batches the weights are 4, 1 and 3 (the longest queue, plus one, minus
/// the partition's own), and the table is 4, 5, 8: of the numbers below 8, four stand for the first
/// partition, one for the second, three for the third. If all queues are equal there is no table,
/// and each partition is as likely as any other.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// Partitions in ascending order.
    partitions: Vec<u32>,
    /// Cumulative weights; empty if all queues are equal.
    cumulative: Vec<u64>,
}

impl Weights {
    /// Builds the table again, in the memory of the last one.
    pub(super) fn fill(&mut self, queues: &[QueueLength]) {
        self.partitions.clear();
        self.cumulative.clear();
        self.partitions.extend(queues.iter().map(|(partition, _)| *partition));
        let lengths = || queues.iter().map(|(_, length)| u64::from(*length));
        let longest = lengths().max().unwrap_or(0);
        if lengths().all(|length| length == longest) {
            return;
        }
        let mut sum = 0;
        self.cumulative.extend(lengths().map(|length| {
            sum += longest + 1 - length;
            sum
        }));
    }

    /// Returns the partition of a random number; `None` without partitions. `over` is the partition
    /// that had the last turn. If all queues are equal, it is not drawn again unless it is the only
    /// one: the distribution stays even, and no queue gets two turns in a row without a reason.
    pub(super) fn draw(&self, random: u64, over: u32) -> Option<u32> {
        if let Some(sum) = self.cumulative.last() {
            let number = random % sum;
            return self.partitions.get(self.cumulative.partition_point(|upto| *upto <= number)).copied();
        }
        let over = self.partitions.binary_search(&over).ok().filter(|_| self.partitions.len() > 1);
        let others = (self.partitions.len() - usize::from(over.is_some())) as u64;
        let at = (random.checked_rem(others)?) as usize;
        let at = at + usize::from(over.is_some_and(|over| at >= over));
        self.partitions.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(lengths: &[u32]) -> Weights {
        let mut weights = Weights::default();
        weights.fill(&(0..).zip(lengths.iter().copied()).collect::<Vec<_>>());
        weights
    }

    #[test]
    fn cumulative_weights_match_java_client() {
        assert_eq!(weights(&[0, 3, 1]).cumulative, [4, 5, 8]);
        assert_eq!(weights(&[5, 0, 3, 0, 1]).cumulative, [1, 7, 10, 16, 21]);
        let mut turns = [0; 5];
        let table = weights(&[5, 0, 3, 0, 1]);
        (0..42).for_each(|number| turns[table.draw(number, 1).unwrap() as usize] += 1);
        assert_eq!(turns, [2, 12, 6, 12, 10], "each number below the sum stands for one turn");
    }

    #[test]
    fn equal_queues_avoid_same_partition_twice() {
        for length in [0, 7, u32::MAX] {
            let table = weights(&[length; 4]);
            assert!(table.cumulative.is_empty());
            let turns: Vec<_> = (0..6).map(|number| table.draw(number, 2).unwrap()).collect();
            assert_eq!(turns, [0, 1, 3, 0, 1, 3]);
            let turns: Vec<_> = (0..4).map(|number| table.draw(number, u32::MAX).unwrap()).collect();
            assert_eq!(turns, [0, 1, 2, 3], "at the beginning no partition had a turn");
        }
        assert_eq!(weights(&[3]).draw(9, 0), Some(0));
        assert_eq!(weights(&[]).draw(9, 0), None);
    }

    proptest! {
        #[test]
        fn every_partition_gets_exactly_its_weight(lengths in prop::collection::vec(0u32..9, 2..12), from: u64) {
            let table = weights(&lengths);
            prop_assume!(!table.cumulative.is_empty());
            let longest = *lengths.iter().max().unwrap();
            let sum = *table.cumulative.last().unwrap();
            // Any consecutive numbers, as long as they do not overflow.
            let from = from % (u64::MAX - sum) / sum * sum;
            let mut turns = vec![0; lengths.len()];
            (from..from + sum).for_each(|number| turns[table.draw(number, 0).unwrap() as usize] += 1);
            let expected: Vec<u32> = lengths.iter().map(|length| longest + 1 - length).collect();
            prop_assert_eq!(turns, expected);
        }
    }
}
