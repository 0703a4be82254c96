//! What was fetched of one partition and waits for its reader, in the log's order.

use std::{collections::VecDeque, sync::Arc};

use super::{budget::Charge, lease::Lease, part::Part, walk::Step};
use crate::{error::Error, wire::batch::RawBatch};

/// Compressed batches from this size on are opened ahead, on threads that may block.
pub(super) const HEAVY: usize = 32 * 1024;
/// How many times its size a batch may become, as long as nothing is known of its partition's.
pub(super) const GROWTH: usize = 4;
/// How many batches of a partition are opened ahead.
const AHEAD: usize = 2;

/// One thing that waits.
#[derive(Debug)]
pub(super) enum Held {
    /// A batch as it came.
    Raw(RawBatch, Arc<Charge>),
    /// A batch that is being opened elsewhere.
    Opening,
    /// A batch that was opened ahead, or of which the reader gave the rest back.
    Open(Part),
    /// Nothing to hand out.
    Skip,
    /// Here the fetched bytes cannot be read.
    Broken(Error),
    /// The broker has nothing at this offset: too old, or beyond the log's end.
    OutOfRange,
    /// Here was the log's end.
    End,
}

#[derive(Debug)]
struct Entry {
    held: Held,
    /// As fetched.
    bytes: usize,
    /// The offset from which it was read.
    start: i64,
    /// Where reading goes on behind it.
    end: i64,
}

/// What the reader takes over.
#[derive(Debug)]
pub(super) enum Taken {
    Raw {
        lease: Arc<Lease>,
        batch: RawBatch,
        charge: Arc<Charge>,
        /// What lies before came with another batch.
        start: i64,
        end: i64,
    },
    Open(Part),
    Skip {
        lease: Arc<Lease>,
        end: i64,
    },
    /// `end`: behind the batch that cannot be read, where that is known.
    Broken {
        lease: Arc<Lease>,
        error: Error,
        end: i64,
    },
    OutOfRange {
        lease: Arc<Lease>,
    },
    End {
        lease: Arc<Lease>,
        at: i64,
    },
}

impl Taken {
    pub(super) fn lease(&self) -> &Arc<Lease> {
        match self {
            Taken::Open(part) => &part.lease,
            Taken::Raw { lease, .. }
            | Taken::Skip { lease, .. }
            | Taken::Broken { lease, .. }
            | Taken::OutOfRange { lease }
            | Taken::End { lease, .. } => lease,
        }
    }
}

/// A batch to be opened on a thread that may block.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lease: Arc<Lease>,
    pub(super) batch: RawBatch,
    pub(super) charge: Arc<Charge>,
    /// What lies before came with another batch.
    pub(super) start: i64,
    pub(super) end: i64,
    /// For what it may become, until that is known.
    pub(super) opening: Charge,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    heavy: usize,
    /// How many times its size the last batch became that was opened ahead, rounded up; 0 where
    /// none was.
    growth: usize,
}

pub(super) fn is_heavy(batch: &RawBatch) -> bool {
    batch.header.is_compressed() && batch.bytes().len() > HEAVY
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that wait, as they were fetched.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self { growth: self.growth, ..Self::default() };
    }

    /// Appends what a fetch from that offset brought.
    pub(super) fn push(&mut self, steps: Vec<Step>, mut start: i64, charge: &Arc<Charge>) {
        for step in steps {
            let (held, bytes, end) = match step {
                Step::Batch(batch) => {
                    let (bytes, end) = (batch.bytes().len(), batch.header.next_offset());
                    self.heavy += usize::from(is_heavy(&batch));
                    (Held::Raw(batch, charge.clone()), bytes, end)
                }
                Step::Skip(to) => (Held::Skip, 0, to),
                Step::Broken { error, end } => (Held::Broken(error), 0, end.unwrap_or(start).max(start)),
            };
            // A broker answers from the batch on that holds the offset: what lies before it is no
            // news.
            if end > start || matches!(held, Held::Broken(_)) {
                self.bytes += bytes;
                self.entries.push_back(Entry { held, bytes, start, end });
                start = end;
            }
        }
    }

    /// Appends that the broker has nothing at the offset behind all this.
    pub(super) fn push_out_of_range(&mut self, at: i64) {
        self.entries.push_back(Entry { held: Held::OutOfRange, bytes: 0, start: at, end: at });
    }

    /// Appends that this is the log's end.
    pub(super) fn push_end(&mut self, at: i64) {
        self.entries.push_back(Entry { held: Held::End, bytes: 0, start: at, end: at });
    }

    /// Appends that there is nothing to hand out before that offset.
    pub(super) fn push_skip(&mut self, to: i64) {
        self.entries.push_back(Entry { held: Held::Skip, bytes: 0, start: to, end: to });
    }

    /// Appends that what follows cannot be read; up to before `end`, where that is known.
    pub(super) fn push_broken(&mut self, error: Error, at: i64, end: Option<i64>) {
        let end = end.unwrap_or(at).max(at);
        self.entries.push_back(Entry { held: Held::Broken(error), bytes: 0, start: at, end });
    }

    /// Takes back what the reader did not hand out.
    pub(super) fn give_back(&mut self, taken: Taken) {
        let mut start = taken.lease().handed();
        let (held, bytes, end) = match taken {
            Taken::Raw { batch, charge, start: from, end, .. } => {
                let bytes = batch.bytes().len();
                self.heavy += usize::from(is_heavy(&batch));
                start = start.max(from);
                (Held::Raw(batch, charge), bytes, end)
            }
            Taken::Open(part) => {
                let (bytes, end) = (part.bytes, part.end);
                start = start.max(part.start);
                (Held::Open(part), bytes, end)
            }
            Taken::Skip { end, .. } => (Held::Skip, 0, end),
            Taken::Broken { error, end, .. } => (Held::Broken(error), 0, end),
            Taken::OutOfRange { .. } => (Held::OutOfRange, 0, start),
            Taken::End { at, .. } => (Held::End, 0, at),
        };
        self.bytes += bytes;
        self.entries.push_front(Entry { held, bytes, start, end });
    }

    /// Takes from the front until `records` are reached; what is being opened, and what should be,
    /// is not taken. An end of the readable is only taken first. Gives the number of records taken.
    pub(super) fn take(&mut self, lease: &Arc<Lease>, records: usize, out: &mut Vec<Taken>) -> usize {
        let mut count = 0;
        let mut first = true;
        while count < records && self.is_readable() {
            match self.entries.front().map(|entry| &entry.held) {
                Some(Held::Broken(_) | Held::OutOfRange | Held::End) if !first => break,
                _ => {}
            }
            let Some(Entry { held, bytes, start, end }) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(bytes);
            first = false;
            let lease = lease.clone();
            out.push(match held {
                Held::Raw(batch, charge) => {
                    // How many a message set's wrapper holds is not known yet.
                    count += usize::try_from(batch.header.record_count).unwrap_or(0).max(1);
                    Taken::Raw { lease, batch, charge, start, end }
                }
                Held::Open(part) => {
                    count += part.left;
                    Taken::Open(part)
                }
                Held::Skip | Held::Opening => Taken::Skip { lease, end },
                Held::Broken(error) => Taken::Broken { lease, error, end },
                Held::OutOfRange => Taken::OutOfRange { lease },
                Held::End => Taken::End { lease, at: end },
            });
        }
        count
    }

    /// Whether the reader can take something now.
    pub(super) fn is_readable(&self) -> bool {
        match self.entries.front().map(|entry| &entry.held) {
            None | Some(Held::Opening) => false,
            Some(Held::Raw(batch, _)) => !is_heavy(batch),
            Some(_) => true,
        }
    }

    /// Whether something here is to be opened ahead.
    pub(super) fn has_heavy(&self) -> bool {
        self.heavy > 0
    }

    /// The next batch to be opened ahead. The one at the front if it is `needed` now; others only
    /// where there is room for what they may become.
    pub(super) fn start_job(&mut self, lease: &Arc<Lease>, needed: bool) -> Option<Job> {
        let growth = if self.growth == 0 { GROWTH } else { self.growth };
        for (i, entry) in self.entries.iter_mut().take(AHEAD).enumerate() {
            let Held::Raw(batch, charge) = &entry.held else { continue };
            if !is_heavy(batch) {
                continue;
            }
            let bytes = batch.bytes().len().saturating_mul(growth);
            let opening = match charge.account().charge_if_room(bytes) {
                Some(opening) => opening,
                None if needed && i == 0 => charge.account().charge(bytes),
                None => return None,
            };
            let Held::Raw(batch, charge) = std::mem::replace(&mut entry.held, Held::Opening) else { continue };
            self.heavy = self.heavy.saturating_sub(1);
            return Some(Job { lease: lease.clone(), batch, charge, start: entry.start, end: entry.end, opening });
        }
        None
    }

    /// The batch that ends there was opened; whether it is still wanted.
    pub(super) fn opened(&mut self, end: i64, held: Held) -> bool {
        let mut entries = self.entries.iter_mut();
        match entries.find(|entry| entry.end == end && matches!(entry.held, Held::Opening)) {
            Some(entry) => {
                if let Held::Open(part) = &held {
                    self.growth = part.records.size().div_ceil(entry.bytes.max(1)).max(1);
                }
                entry.held = held;
                true
            }
            None => false,
        }
    }

    /// Drops what can be fetched anew, and says from which offset. What was `opened` goes only
    /// where it is asked for: it took work.
    pub(super) fn evict(&mut self, opened: bool) -> Option<i64> {
        let goes = |held: &Held| match held {
            Held::Raw(..) | Held::Opening => true,
            Held::Open(_) => opened,
            Held::Skip | Held::Broken(_) | Held::OutOfRange | Held::End => false,
        };
        let keep = self.entries.iter().take_while(|entry| !goes(&entry.held)).count();
        let start = self.entries.get(keep)?.start;
        for entry in self.entries.drain(keep..) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
        self.heavy = 0;
        Some(start)
    }

    /// Every response that something here keeps in memory, with the bytes of it that are still
    /// needed.
    pub(super) fn pinned(&self) -> impl Iterator<Item = (&Arc<Charge>, usize)> {
        self.entries.iter().filter_map(|entry| match &entry.held {
            Held::Raw(batch, charge) => Some((charge, batch.bytes().len())),
            Held::Open(part) => Some((part.charge(), part.records.size())),
            _ => None,
        })
    }

    /// Copies out of their responses what `picked` says.
    pub(super) fn copy_out(&mut self, picked: impl Fn(&Arc<Charge>) -> bool) {
        for entry in &mut self.entries {
            match &mut entry.held {
                Held::Raw(batch, charge) if picked(charge) => {
                    *batch = batch.detached();
                    *charge = Arc::new(charge.account().charge(batch.bytes().len()));
                }
                Held::Open(part) if picked(part.charge()) => *part = part.copied_out(),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        consumer::{
            budget::{Account, Budget},
            part::Opening,
            settings::IsolationLevel,
            test_batches::{Sort, batch, built, noise},
            walk::walk,
        },
        record::TopicPartition,
        wire::{Compression, batch::Decompressor},
    };

    fn account(limit: usize) -> Arc<Account> {
        Budget::new(limit).account(1, || Box::new(|| ()))
    }

    fn lease() -> Arc<Lease> {
        Arc::new(Lease::new(TopicPartition::new("t", 0), 1, 0, 0, -1))
    }

    /// A queue with these batches of one response, and the response's charge.
    fn filled(account: &Arc<Account>, batches: &[bytes::Bytes], response: usize) -> (Queue, Arc<Charge>) {
        let charge = Arc::new(account.charge(response));
        let mut queue = Queue::default();
        let walk = walk(batches.concat().into(), IsolationLevel::ReadUncommitted, &[]);
        queue.push(walk.steps, 0, &charge);
        (queue, charge)
    }

    #[test]
    fn what_is_copied_out_no_longer_keeps_its_response() {
        let account = account(1 << 20);
        let one = batch(0, 3, Sort::Plain);
        let (mut queue, charge) = filled(&account, std::slice::from_ref(&one), 100_000);
        let pinned: Vec<_> = queue.pinned().map(|(charge, needed)| (charge.bytes(), needed)).collect();
        assert_eq!(pinned, [(100_000, one.len())]);
        queue.copy_out(|picked| Arc::ptr_eq(picked, &charge));
        drop(charge);
        assert_eq!(account.used(), one.len());
        let mut out = Vec::new();
        assert_eq!(queue.take(&lease(), 10, &mut out), 3);
        let [Taken::Raw { batch, .. }] = &out[..] else { panic!("{out:?}") };
        assert_eq!(batch.bytes(), &one);
        drop(out);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn what_is_dropped_says_from_where_to_fetch_it_anew() {
        let account = account(1 << 20);
        let (mut queue, charge) = filled(&account, &[batch(5, 3, Sort::Plain), batch(8, 2, Sort::Plain)], 1000);
        drop(charge);
        queue.take(&lease(), 1, &mut Vec::new());
        assert_eq!((queue.evict(false), queue.bytes(), queue.is_empty()), (Some(8), 0, true));
        assert_eq!((queue.evict(false), account.used()), (None, 0));
    }

    #[test]
    fn what_comes_back_alone_is_fetched_anew_from_its_own_start() {
        let account = account(1 << 20);
        let (mut queue, _charge) = filled(&account, &[batch(5, 3, Sort::Plain), batch(8, 2, Sort::Plain)], 1000);
        let lease = lease();
        let mut out = Vec::new();
        assert_eq!(queue.take(&lease, 10, &mut out), 5);
        let Some(Taken::Raw { batch, charge, start, end, .. }) = out.pop() else { panic!("{out:?}") };
        let opening = Opening { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
        let part =
            Part::open(&lease, &batch, start..end, charge, &mut Decompressor::default(), &opening).unwrap().unwrap();
        // The reader still has the batch before it, of which nothing was handed out.
        queue.give_back(Taken::Open(part));
        assert_eq!(queue.evict(true), Some(8));
    }

    #[test]
    fn what_comes_back_opened_counts_as_what_was_fetched() {
        for compression in [Compression::None, Compression::Gzip(1)] {
            let account = account(1 << 20);
            let fetched = built(5, 30, Sort::Plain, compression, "some text");
            let (mut queue, _charge) = filled(&account, std::slice::from_ref(&fetched), 1000);
            let lease = lease();
            for _ in 0..3 {
                assert_eq!(queue.bytes(), fetched.len());
                let mut out = Vec::new();
                assert_eq!(queue.take(&lease, 100, &mut out), 30);
                assert_eq!(queue.bytes(), 0);
                queue.give_back(match out.pop() {
                    Some(Taken::Raw { batch, charge, start, end, .. }) => {
                        let opening =
                            Opening { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
                        let part =
                            Part::open(&lease, &batch, start..end, charge, &mut Decompressor::default(), &opening);
                        Taken::Open(part.unwrap().unwrap())
                    }
                    other => other.unwrap(),
                });
            }
        }
    }

    #[test]
    fn what_was_opened_is_dropped_only_where_that_is_asked_for() {
        let account = account(1 << 20);
        let heavy = built(5, 10, Sort::Plain, Compression::Lz4, &noise(40_000));
        let (mut queue, charge) = filled(&account, &[heavy, batch(15, 2, Sort::Plain)], 100_000);
        drop(charge);
        let lease = lease();
        let Job { batch, charge, start, end, opening, .. } = queue.start_job(&lease, true).unwrap();
        let opening_rules = Opening { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
        let part =
            Part::open(&lease, &batch, start..end, charge, &mut Decompressor::default(), &opening_rules).unwrap();
        drop((batch, opening));
        assert!(queue.opened(end, Held::Open(part.unwrap())));
        assert_eq!(queue.evict(false), Some(15));
        assert!(queue.is_readable() && account.used() > 0);
        assert_eq!((queue.evict(true), queue.is_empty(), account.used()), (Some(0), true, 0));
    }

    #[test]
    fn batches_are_opened_ahead_where_there_is_room_and_one_where_it_is_needed() {
        let heavy = built(0, 3, Sort::Plain, Compression::Gzip(1), &noise(60_000));
        assert!(heavy.len() > HEAVY);
        let roomy = account(10 * heavy.len());
        let (mut queue, _charge) = filled(&roomy, std::slice::from_ref(&heavy), heavy.len());
        assert!(queue.has_heavy() && !queue.is_readable());
        let job = queue.start_job(&lease(), false).expect("there is room");
        assert_eq!(job.opening.bytes(), GROWTH * heavy.len());
        assert!(!queue.is_readable() && !queue.has_heavy());
        assert!(queue.start_job(&lease(), true).is_none(), "it is being opened");

        let tight = account(2 * heavy.len());
        let (mut queue, _charge) = filled(&tight, std::slice::from_ref(&heavy), heavy.len());
        assert!(queue.start_job(&lease(), false).is_none());
        assert!(queue.start_job(&lease(), true).is_some());
    }
}
