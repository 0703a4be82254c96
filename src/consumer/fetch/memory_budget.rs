//! The consumer's memory for fetched data, in bytes: a fetch reserves its largest response before
//! it is sent, and a response stays charged until the reader has received it.
//!
//! Every broker that is read from has a quota, an equal share of the total, so that partitions with
//! a slow reader (or that are paused) can only block their own broker. Shares change as brokers
//! come and go, and data that was fetched under a larger share remains until it is read, so a fetch
//! must fit into the total as well. Until then the quota that exceeds its share grants nothing, and
//! memory that it releases goes to the others. A quota with no reservation always grants its
//! minimum, so that a batch larger than the share can still be fetched. A quota that is blocked by
//! data that cannot be read now does so too while the reader has nothing else (`planner` decides
//! this).
//!
//! Sans-IO.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
};

/// Called when a quota that had refused a reservation has room again.
pub(crate) type QuotaWaker = Box<dyn Fn() + Send + Sync>;

/// The part of a share, as its reciprocal, that fetches leave free: batches are copied there out of
/// a large response so that it can be released.
const KEPT_FREE: usize = 16;
/// The part that fetches leave free if batches are decompressed ahead of the reader.
const KEPT_FREE_TO_OPEN: usize = 2;

/// The total that all quotas share.
struct TotalMemory {
    total: usize,
    used: AtomicUsize,
    /// Largest number of bytes charged so far.
    #[cfg(test)]
    peak: AtomicUsize,
    /// Smallest minimum of the reservations that were refused because the total was used up, in
    /// bytes; `usize::MAX` if there is none.
    smallest_refused: AtomicUsize,
    quotas: Mutex<Vec<Weak<BrokerQuota>>>,
}

impl TotalMemory {
    /// Returns the bytes that fetches may still reserve.
    fn room(&self) -> usize {
        (self.total - self.total / KEPT_FREE).saturating_sub(self.used.load(SeqCst))
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.used.load(Relaxed).saturating_add(bytes) <= self.total
    }

    fn add(&self, bytes: usize) {
        let _used = self.used.fetch_add(bytes, SeqCst).saturating_add(bytes);
        #[cfg(test)]
        self.peak.fetch_max(_used, SeqCst);
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, SeqCst);
        let spec = self.smallest_refused.load(SeqCst);
        if spec != usize::MAX && spec <= self.room() && self.smallest_refused.swap(usize::MAX, SeqCst) != usize::MAX {
            self.wake();
        }
    }

    /// Wakes all quotas that have room in their shares.
    #[cold]
    fn wake(&self) {
        let quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        quotas.iter().filter_map(Weak::upgrade).for_each(|quota| quota.wake_if_room());
    }
}

/// The share of one broker.
pub(crate) struct BrokerQuota {
    pool: Arc<TotalMemory>,
    limit: AtomicUsize,
    used: AtomicUsize,
    /// True if batches are decompressed ahead of the reader.
    decompresses: AtomicBool,
    /// Smallest minimum of the reservations that were refused since there was room last, in bytes;
    /// `usize::MAX` if there is none. Several connections to the broker may have been refused, and
    /// room that is too small for one may be enough for another.
    smallest_refused: AtomicUsize,
    wake: QuotaWaker,
}

impl BrokerQuota {
    /// Reserves `want` bytes, or what is free if that is at least `least`; returns `None` if less
    /// is free. The quota then calls its waker once, as soon as there is room. Only one thread at a
    /// time reserves, over all quotas.
    pub(crate) fn reserve(self: &Arc<Self>, want: usize, least: usize) -> Option<Reservation> {
        let reserved = self.try_reserve(want, least).or_else(|| {
            let spec = least.min(want).max(1);
            self.smallest_refused.fetch_min(spec, SeqCst);
            if spec > self.pool.room() {
                self.pool.smallest_refused.fetch_min(spec, SeqCst);
            }
            // Memory that was released before the marks were set woke no task: try again.
            self.try_reserve(want, least)
        });
        if reserved.is_some() {
            self.smallest_refused.store(usize::MAX, SeqCst);
        }
        reserved
    }

    fn try_reserve(self: &Arc<Self>, want: usize, least: usize) -> Option<Reservation> {
        let least = least.min(want);
        let limit = self.fetch_limit();
        let mut granted = 0;
        let charged = self.used.fetch_update(SeqCst, SeqCst, |used| {
            let room = limit.saturating_sub(used).min(self.pool.room());
            granted = if used == 0 { want.min(room.max(least)) } else { want.min(room) };
            (granted >= least).then(|| used.saturating_add(granted))
        });
        charged.ok()?;
        self.pool.add(granted);
        Some(Reservation { quota: self.clone(), bytes: granted })
    }

    /// Returns true if a reservation was refused, and there has not been room for it since.
    pub(crate) fn is_starved(&self) -> bool {
        self.smallest_refused.load(Relaxed) < usize::MAX
    }

    /// Charges bytes that are already in memory, even beyond the quota.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.add(bytes);
        Reservation { quota: self.clone(), bytes }
    }

    /// Charges bytes that are already in memory if they fit.
    pub(crate) fn charge_if_room(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let limit = self.limit();
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit && self.pool.has_room_for(bytes));
        self.used.fetch_update(SeqCst, SeqCst, more).ok()?;
        self.pool.add(bytes);
        Some(Reservation { quota: self.clone(), bytes })
    }

    /// Sets if fetched batches are decompressed ahead, which needs room as well.
    pub(crate) fn set_decompresses(&self, opens: bool) {
        self.decompresses.store(opens, Relaxed);
    }

    /// Returns the share, in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Returns true if `bytes` more bytes fit into the share and into the total.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.used.load(Relaxed).saturating_add(bytes) <= self.limit.load(Relaxed) && self.pool.has_room_for(bytes)
    }

    /// Returns true if more than the share is charged, because the share was larger before.
    pub(crate) fn exceeds_share(&self) -> bool {
        self.used() > self.limit()
    }

    /// Returns true if a fetch of `bytes` bytes fits into the total, without regard to the share.
    pub(crate) fn total_has_room_for(&self, bytes: usize) -> bool {
        bytes <= self.pool.room()
    }

    /// Returns true if a fetch of `bytes` bytes would be granted.
    pub(crate) fn has_room_to_fetch(&self, bytes: usize) -> bool {
        self.share_has_room_for(bytes) && self.total_has_room_for(bytes)
    }

    fn share_has_room_for(&self, bytes: usize) -> bool {
        self.used.load(SeqCst).saturating_add(bytes) <= self.fetch_limit()
    }

    /// Returns the bytes charged now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(SeqCst)
    }

    /// Returns the limit of what reservations may use of the share, unless the quota is empty.
    fn fetch_limit(&self) -> usize {
        let limit = self.limit();
        limit - limit / if self.decompresses.load(Relaxed) { KEPT_FREE_TO_OPEN } else { KEPT_FREE }
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, SeqCst);
        self.pool.add(bytes);
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, SeqCst);
        self.pool.release(bytes);
        self.wake_if_room();
    }

    /// Calls the waker if a reservation was refused and there is room for it now.
    fn wake_if_room(&self) {
        let spec = self.smallest_refused.load(SeqCst);
        if spec == usize::MAX || !(self.used() == 0 || self.share_has_room_for(spec)) {
            return;
        }
        if self.used() > 0 && !self.total_has_room_for(spec) {
            self.pool.smallest_refused.fetch_min(spec, SeqCst);
            // As above: memory that was released before the mark was set woke no task.
            if !self.total_has_room_for(spec) {
                return;
            }
        }
        if self.smallest_refused.swap(usize::MAX, SeqCst) < usize::MAX {
            (self.wake)();
        }
    }
}

impl fmt::Debug for TotalMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}/{})", self.used.load(Relaxed), self.total)
    }
}

impl fmt::Debug for BrokerQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}/{})", self.used.load(Relaxed), self.limit.load(Relaxed))
    }
}

/// Bytes charged to a quota until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    quota: Arc<BrokerQuota>,
    bytes: usize,
}

impl Reservation {
    /// Changes the number of bytes charged.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.quota.add(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.quota.release(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn quota(&self) -> &Arc<BrokerQuota> {
        &self.quota
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quota.release(self.bytes);
    }
}

/// The quotas of all brokers, which share the total equally.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    pool: Arc<TotalMemory>,
    quotas: HashMap<i32, Arc<BrokerQuota>>,
}

impl MemoryBudget {
    pub(crate) fn new(total: usize) -> Self {
        let pool = TotalMemory {
            total,
            used: 0.into(),
            #[cfg(test)]
            peak: 0.into(),
            smallest_refused: usize::MAX.into(),
            quotas: Mutex::default(),
        };
        Self { pool: Arc::new(pool), quotas: HashMap::new() }
    }

    /// Returns a broker's quota, and creates it if needed.
    pub(crate) fn quota(&mut self, node: i32, wake: impl FnOnce() -> QuotaWaker) -> Arc<BrokerQuota> {
        let quota = self.quotas.entry(node).or_insert_with(|| {
            let quota = Arc::new(BrokerQuota {
                pool: self.pool.clone(),
                limit: 0.into(),
                used: 0.into(),
                decompresses: false.into(),
                smallest_refused: usize::MAX.into(),
                wake: wake(),
            });
            let mut quotas = self.pool.quotas.lock().unwrap_or_else(PoisonError::into_inner);
            quotas.retain(|known| known.strong_count() > 0);
            quotas.push(Arc::downgrade(&quota));
            quota
        });
        let quota = quota.clone();
        self.divide();
        quota
    }

    /// Closes the quota of a broker that is no longer read from, if all of its data was read; its
    /// share goes to the others.
    pub(crate) fn close_quota(&mut self, node: i32) {
        if self.quotas.get(&node).is_some_and(|quota| quota.used() == 0) {
            self.quotas.remove(&node);
            self.divide();
        }
    }

    fn divide(&self) {
        let share = self.pool.total / self.quotas.len().max(1);
        for quota in self.quotas.values() {
            quota.limit.store(share, Relaxed);
            if quota.smallest_refused.swap(usize::MAX, SeqCst) < usize::MAX {
                (quota.wake)();
            }
        }
    }

    /// Returns the bytes charged now, over all quotas.
    pub(crate) fn used(&self) -> usize {
        self.pool.used.load(SeqCst)
    }

    /// Returns the largest number of bytes charged so far.
    #[cfg(test)]
    pub(crate) fn peak(&self) -> usize {
        self.pool.peak.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::fetch::memory_budget::*;

    fn counted() -> (Arc<AtomicUsize>, QuotaWaker) {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        (count, Box::new(move || _ = seen.fetch_add(1, SeqCst)))
    }

    #[test]
    fn reservations_respect_share_and_wake_once() {
        let mut budget = MemoryBudget::new(216);
        let (woken, wake) = counted();
        let one = budget.quota(1, || wake);
        let _other = budget.quota(2, || counted().1);
        let first = one.reserve(80, 10).unwrap();
        assert_eq!(first.bytes(), 80);
        let second = one.reserve(80, 10).unwrap();
        assert_eq!((one.limit(), second.bytes()), (108, 22), "all that is free, without the reserve");
        assert!(one.reserve(80, 10).is_none());
        assert_eq!(one.used(), 102);
        assert!(one.has_room_for(6) && !one.has_room_for(7));
        assert!(one.charge_if_room(7).is_none());
        assert_eq!(one.charge_if_room(6).map(|reservation| reservation.bytes()), Some(6));
        drop(second);
        assert!(one.reserve(80, 40).is_none());
        assert_eq!(woken.load(SeqCst), 1, "room for the first reservation, not yet for the second");
        drop(first);
        assert_eq!((one.used(), woken.load(SeqCst)), (0, 2));
    }

    #[test]
    fn smaller_refused_reservation_is_woken_first() {
        let mut budget = MemoryBudget::new(1600);
        let (woken, wake) = counted();
        let one = budget.quota(1, || wake);
        let mut first = one.reserve(1500, 1500).unwrap();
        assert!(one.reserve(100, 100).is_none() && one.reserve(900, 900).is_none());
        first.resize(1350);
        assert_eq!(woken.load(SeqCst), 1, "there is room for the smaller one");
        assert!(one.reserve(900, 900).is_none());
        first.resize(1200);
        assert_eq!(woken.load(SeqCst), 1);
        first.resize(500);
        assert_eq!(woken.load(SeqCst), 2);
    }

    #[test]
    fn empty_account_gets_minimum_beyond_share() {
        let mut budget = MemoryBudget::new(10);
        let one = budget.quota(1, || counted().1);
        let mut reservation = one.reserve(500, 100).unwrap();
        assert_eq!(reservation.bytes(), 100);
        reservation.resize(3000);
        assert_eq!(budget.used(), 3000);
        assert!(one.reserve(1, 1).is_none());
        reservation.resize(4);
        assert_eq!(one.reserve(100, 1).unwrap().bytes(), 6);
    }

    #[test]
    fn departed_broker_returns_share_when_empty() {
        let mut budget = MemoryBudget::new(100);
        let one = budget.quota(1, || counted().1);
        let two = budget.quota(2, || counted().1);
        let held = two.charge(70);
        budget.close_quota(2);
        assert!(!one.has_room_for(51));
        drop(held);
        budget.close_quota(2);
        assert!(one.has_room_for(100));
    }

    #[test]
    fn shrinking_shares_never_exceed_total() {
        let mut budget = MemoryBudget::new(1600);
        let wakers: Vec<_> = (0..3).map(|_| counted()).collect();
        let woken = |node: usize| wakers[node].0.load(SeqCst);
        let wakes = |node: usize| {
            let count = wakers[node].0.clone();
            move || -> QuotaWaker { Box::new(move || _ = count.fetch_add(1, SeqCst)) }
        };
        let left = budget.quota(0, wakes(0));
        let mut of_the_left: Vec<Reservation> = std::iter::from_fn(|| left.reserve(100, 100)).collect();
        assert_eq!(left.used(), 1500);
        // Leaders move: all of the data is still unread.
        let one = budget.quota(1, wakes(1));
        budget.close_quota(0);
        let first = one.reserve(400, 50).unwrap();
        assert_eq!(first.bytes(), 50, "its minimum, so that reading goes on");
        assert!(one.reserve(400, 50).is_none() && one.is_starved());
        let other = budget.quota(2, wakes(2));
        let second = other.reserve(400, 50).unwrap();
        assert!(one.reserve(400, 100).is_none() && other.reserve(400, 150).is_none());
        assert!(budget.used() <= 1600 && !one.has_room_for(1) && one.charge_if_room(1).is_none());
        assert!(left.exceeds_share() && left.reserve(1, 1).is_none(), "more than its share is used");
        let before = (woken(0), woken(1), woken(2));
        of_the_left.pop();
        assert_eq!((woken(0), woken(1), woken(2)), before, "no room for a reservation yet");
        of_the_left.pop();
        assert_eq!((woken(0), woken(1), woken(2)), (before.0, before.1 + 1, before.2), "room for the smaller one");
        of_the_left.pop();
        assert_eq!(woken(2), before.2 + 1);
        let more = one.reserve(400, 100).unwrap();
        assert_eq!(more.bytes(), 200, "up to what fetches may use of the total");
        assert!(other.reserve(400, 150).is_none());
        drop(first);
        assert_eq!(woken(2), before.2 + 1, "no room for the refused one");
        drop(more);
        assert_eq!(woken(2), before.2 + 2, "woken by memory of any quota");
        // The rest of the first broker's data is read: the others get its share.
        drop((of_the_left, second));
        budget.close_quota(0);
        assert_eq!((budget.used(), one.limit()), (0, 800));
        assert_eq!(one.reserve(2000, 1).unwrap().bytes(), 750);
    }

    proptest::proptest! {
        /// As brokers come and go, fetches never exceed the total except by each quota's minimum,
        /// and a refused reservation is woken once it would be granted.
        #[test]
        fn reservations_stay_within_total_and_wake_refused(ops in proptest::collection::vec((0..4u8, 0..4usize, 1..400usize, 1..20usize), 1..100)) {
            let mut budget = MemoryBudget::new(1000);
            let mut quotas: Vec<Arc<BrokerQuota>> = Vec::new();
            let counts: Vec<_> = (0..4).map(|_| Arc::new(AtomicUsize::new(0))).collect();
            let mut held: Vec<(usize, Reservation)> = Vec::new();
            let mut refused = [None; 4];
            for (op, node, want, least) in ops {
                let count = counts[node].clone();
                let wake = || -> QuotaWaker { Box::new(move || _ = count.fetch_add(1, SeqCst)) };
                match op {
                    0 | 1 => {
                        let quota = budget.quota(node as i32, wake);
                        let (seen, before) = (counts[node].load(SeqCst), budget.used());
                        let alone = quota.used() == 0;
                        match quota.reserve(want, least) {
                            Some(reservation) => {
                                let smallest = alone && reservation.bytes() <= least;
                                proptest::prop_assert!(smallest || before + reservation.bytes() <= 1000 - 1000 / 16);
                                held.push((node, reservation));
                                refused[node] = None;
                            }
                            None => refused[node] = Some((seen, least.min(want))),
                        }
                        quotas.push(quota);
                    }
                    2 if !held.is_empty() => drop(held.remove(want % held.len())),
                    _ => budget.close_quota(node as i32),
                }
                proptest::prop_assert_eq!(budget.used(), held.iter().map(|(_, reservation)| reservation.bytes()).sum::<usize>());
                for (node, refused) in refused.iter().enumerate() {
                    let Some((seen, spec)) = refused else { continue };
                    let Some(quota) = budget.quotas.get(&(node as i32)) else { continue };
                    let would = quota.used() == 0 || quota.has_room_to_fetch(*spec);
                    proptest::prop_assert!(!would || counts[node].load(SeqCst) > *seen, "the refused broker is woken");
                }
            }
        }

        /// In any order of reservations, arrivals and releases, reservations alone never exceed the
        /// share.
        #[test]
        fn reservations_stay_within_the_share(ops in proptest::collection::vec((0..3u8, 1..60usize, 1..30usize), 1..60)) {
            let mut budget = MemoryBudget::new(100);
            let quota = budget.quota(1, || counted().1);
            let mut held: Vec<Reservation> = Vec::new();
            for (op, want, least) in ops {
                match op {
                    0 | 1 => {
                        let before = quota.used();
                        if let Some(reservation) = quota.reserve(want, least) {
                            proptest::prop_assert!(reservation.bytes() >= least.min(want) && reservation.bytes() <= want);
                            proptest::prop_assert!(quota.used() <= 94 || before == 0);
                            held.push(reservation);
                        } else {
                            proptest::prop_assert!(before > 0 && before + least.min(want) > 94);
                        }
                    }
                    _ => { held.pop(); }
                }
                proptest::prop_assert_eq!(quota.used(), held.iter().map(Reservation::bytes).sum::<usize>());
            }
        }
    }
}
