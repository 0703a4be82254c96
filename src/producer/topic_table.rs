//! The topics that `send` finds without a lock: an immutable table, replaced as a whole.
//!
//! Even the reference counting of a swapped pointer would cost a record a considerable part of its
//! time. So each thread keeps the table that it used last, and compares only a number to see if it
//! is still the newest.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::producer::topics::Topic;

/// Topics by name.
pub(super) type Table = HashMap<Arc<str>, Arc<Topic>, BuildHasherDefault<NameHasher>>;

/// Number of the next edition, over all tables of all producers, so that a thread cannot confuse
/// the tables of two producers.
static EDITIONS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static LAST: Cell<Option<(u64, Arc<Table>)>> = const { Cell::new(None) };
}

/// The newest table of one producer.
#[derive(Debug)]
pub(super) struct Tables {
    newest: ArcSwap<Table>,
    /// Edition of the newest table; written after it.
    edition: AtomicU64,
    #[cfg(test)]
    pub(super) published: AtomicU64,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            newest: ArcSwap::default(),
            edition: AtomicU64::new(EDITIONS.fetch_add(1, Ordering::Relaxed)),
            #[cfg(test)]
            published: AtomicU64::new(0),
        }
    }

    /// Returns the newest table, to be kept.
    pub(super) fn newest(&self) -> Arc<Table> {
        self.newest.load_full()
    }

    /// Returns the edition of the newest table: as long as the edition stays, so does the table.
    pub(super) fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    /// Calls `with` with the newest table, or one that was the newest when the call began.
    #[inline]
    pub(super) fn with<T>(&self, with: impl FnOnce(&Table) -> T) -> T {
        let edition = self.edition();
        // The table is taken out meanwhile: a nested call on this thread, inside of `with`, finds
        // none and loads the newest.
        let table = match LAST.try_with(Cell::take) {
            Ok(Some((known, table))) if known == edition => table,
            _ => self.newest(),
        };
        let result = with(&table);
        // A thread that is ending keeps no table.
        let _ = LAST.try_with(|last| last.set(Some((edition, table))));
        result
    }

    /// Publishes the next table; only one thread may do so at a time.
    pub(super) fn publish(&self, table: Table) {
        #[cfg(test)]
        self.published.fetch_add(1, Ordering::Relaxed);
        self.newest.store(Arc::new(table));
        self.edition.store(EDITIONS.fetch_add(1, Ordering::Relaxed), Ordering::Release);
    }
}

/// A hash for topic names, which are few and mostly short: eight bytes at a time, folded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NameHasher(u64);

impl NameHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        // The length distinguishes names that end in zeros.
        let tail = rest.iter().fold(bytes.len() as u64, |tail, byte| (tail << 8) | u64::from(*byte));
        self.mix(tail);
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        // This byte ends a string; its length is already in the hash.
        self.0 ^= u64::from(byte);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use crate::producer::topic_table::*;

    #[test]
    fn thread_reads_newest_table_of_each_producer() {
        let (one, other) = (Tables::new(), Tables::new());
        let has = |tables: &Tables| tables.with(|table| table.contains_key("orders"));
        assert!(!has(&one) && !has(&one));
        let topic = Topic::for_tests("orders");
        one.publish(Table::from_iter([(topic.name.clone(), topic)]));
        assert!(has(&one) && !has(&other) && has(&one));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(has(&one)));
        });
        one.with(|outer| {
            assert!(!has(&other), "a nested call sees its own producer's table");
            assert!(outer.contains_key("orders"));
        });
        one.publish(Table::default());
        assert!(!has(&one));
    }

    #[test]
    fn topic_name_hashes_cover_all_bits() {
        let hasher = BuildHasherDefault::<NameHasher>::default();
        let names = (0..20_000).map(|i| format!("team-{}.orders-{i}", i % 7));
        let hashes: Vec<u64> = names.map(|name| hasher.hash_one(&*name)).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), 20_000);
        // The map takes its place from the low bits and its tag from the high ones.
        for shift in [0, 57] {
            let mut counts = [0u32; 128];
            hashes.iter().for_each(|hash| counts[(hash >> shift) as usize & 127] += 1);
            assert!(counts.iter().all(|count| (80..250).contains(count)), "{counts:?}");
        }
    }
}
