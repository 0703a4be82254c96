//! The consumer's memory, counted in bytes: a fetch reserves its maximum before it is sent, and what arrives stays charged
//! until the reader has it.
//!
//! Every broker that is read from has an account with an equal share of the whole, so that partitions whose reader is slow
//! (or which are paused) can keep back their own broker at most. An account with nothing charged to it always gets its
//! smallest wish, so that a batch larger than the share still comes through; so has one whose room is kept by what cannot be
//! read now, while the reader has nothing else (`fetcher` says when).

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
};

/// What is called when an account that had refused a wish has room again.
pub(super) type Wake = Box<dyn Fn() + Send + Sync>;

/// The part of a share, as its reciprocal, that fetches leave free: for what is copied out of a large response so that it
/// can go.
const KEPT_FREE: usize = 16;
/// The same where batches are decompressed ahead of the reader.
const KEPT_FREE_TO_OPEN: usize = 2;

/// The share of one broker.
pub(super) struct Account {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// Whether batches are decompressed ahead.
    opens: AtomicBool,
    /// The most that was ever charged.
    #[cfg(test)]
    peak: AtomicUsize,
    /// The wish that was refused last, in bytes; 0: none.
    starved: AtomicUsize,
    wake: Wake,
}

impl Account {
    /// Charges `want` bytes, or as many of them as there is room for but at least `least`; `None` when there is not that
    /// much. The account then calls its waker once, as soon as there is.
    pub(super) fn reserve(self: &Arc<Self>, want: usize, least: usize) -> Option<Charge> {
        self.try_reserve(want, least).or_else(|| {
            self.starved.store(least.min(want).max(1), SeqCst);
            // What was released before the mark was set woke nobody: look again.
            self.try_reserve(want, least)
        })
    }

    fn try_reserve(self: &Arc<Self>, want: usize, least: usize) -> Option<Charge> {
        let least = least.min(want);
        let limit = self.limit_of_fetches();
        let mut granted = 0;
        let charged = self.used.fetch_update(SeqCst, SeqCst, |used| {
            let room = limit.saturating_sub(used);
            granted = if used == 0 { want.min(room.max(least)) } else { want.min(room) };
            (granted >= least).then(|| used.saturating_add(granted))
        });
        charged.ok()?;
        self.note_peak();
        Some(Charge { account: self.clone(), bytes: granted })
    }

    /// Whether a wish was refused, and there has not been room for it since.
    pub(super) fn is_starved(&self) -> bool {
        self.starved.load(Relaxed) > 0
    }

    /// Charges bytes that are there already, whether there is room or not.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, SeqCst);
        self.note_peak();
        Charge { account: self.clone(), bytes }
    }

    /// The same where there is room for them.
    pub(super) fn charge_if_room(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let limit = self.limit();
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        self.used.fetch_update(SeqCst, SeqCst, more).ok()?;
        self.note_peak();
        Some(Charge { account: self.clone(), bytes })
    }

    /// Whether what comes is decompressed ahead, and needs room for that as well.
    pub(super) fn set_opens(&self, opens: bool) {
        self.opens.store(opens, Relaxed);
    }

    /// The share, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Whether so many bytes more would stay within the share.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.used.load(Relaxed).saturating_add(bytes) <= self.limit.load(Relaxed)
    }

    /// Whether a fetch of so many bytes would be let through.
    pub(super) fn has_room_to_fetch(&self, bytes: usize) -> bool {
        self.used.load(Relaxed).saturating_add(bytes) <= self.limit_of_fetches()
    }

    /// Bytes charged now.
    pub(super) fn used(&self) -> usize {
        self.used.load(SeqCst)
    }

    /// What reserving alone never goes beyond.
    fn limit_of_fetches(&self) -> usize {
        let limit = self.limit();
        limit - limit / if self.opens.load(Relaxed) { KEPT_FREE_TO_OPEN } else { KEPT_FREE }
    }

    fn note_peak(&self) {
        #[cfg(test)]
        self.peak.fetch_max(self.used(), SeqCst);
    }

    fn release(&self, bytes: usize) {
        let left = self.used.fetch_sub(bytes, SeqCst).saturating_sub(bytes);
        let wish = self.starved.load(SeqCst);
        if wish > 0
            && (left == 0 || left.saturating_add(wish) <= self.limit_of_fetches())
            && self.starved.swap(0, SeqCst) > 0
        {
            (self.wake)();
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}/{})", self.used.load(Relaxed), self.limit.load(Relaxed))
    }
}

/// Bytes charged to an account until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    /// Charges another number of bytes instead.
    pub(super) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.account.used.fetch_add(bytes - self.bytes, SeqCst);
            self.account.note_peak();
        } else if bytes < self.bytes {
            self.account.release(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

/// All accounts, sharing the whole equally.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    accounts: HashMap<i32, Arc<Account>>,
}

impl Budget {
    pub(super) fn new(total: usize) -> Self {
        Self { total, accounts: HashMap::new() }
    }

    /// The account of a broker, opened if need be.
    pub(super) fn account(&mut self, node: i32, wake: impl FnOnce() -> Wake) -> Arc<Account> {
        let account = self.accounts.entry(node).or_insert_with(|| {
            Arc::new(Account {
                limit: 0.into(),
                used: 0.into(),
                opens: false.into(),
                #[cfg(test)]
                peak: 0.into(),
                starved: 0.into(),
                wake: wake(),
            })
        });
        let account = account.clone();
        self.share_out();
        account
    }

    /// Nothing is read from that broker any more. Its share goes to the others once what came from it has been read.
    pub(super) fn leave(&mut self, node: i32) {
        if self.accounts.get(&node).is_some_and(|account| account.used() == 0) {
            self.accounts.remove(&node);
            self.share_out();
        }
    }

    fn share_out(&self) {
        let share = self.total / self.accounts.len().max(1);
        for account in self.accounts.values() {
            account.limit.store(share, Relaxed);
            if account.starved.swap(0, SeqCst) > 0 {
                (account.wake)();
            }
        }
    }

    /// Bytes charged now, of all accounts.
    pub(super) fn used(&self) -> usize {
        self.accounts.values().map(|account| account.used()).sum()
    }

    /// The most that was charged to each account at any time, together.
    #[cfg(test)]
    pub(super) fn peak(&self) -> usize {
        self.accounts.values().map(|account| account.peak.load(SeqCst)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> (Arc<AtomicUsize>, Wake) {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        (count, Box::new(move || _ = seen.fetch_add(1, SeqCst)))
    }

    #[test]
    fn a_share_is_never_exceeded_by_reserving_and_its_waker_is_called_once() {
        let mut budget = Budget::new(216);
        let (woken, wake) = counted();
        let one = budget.account(1, || wake);
        let _other = budget.account(2, || counted().1);
        let first = one.reserve(80, 10).unwrap();
        assert_eq!(first.bytes(), 80);
        let second = one.reserve(80, 10).unwrap();
        assert_eq!((one.limit(), second.bytes()), (108, 22), "as much as there is room for, but for what is kept free");
        assert!(one.reserve(80, 10).is_none());
        assert_eq!(one.used(), 102);
        assert!(one.has_room_for(6) && !one.has_room_for(7));
        assert!(one.charge_if_room(7).is_none());
        assert_eq!(one.charge_if_room(6).map(|charge| charge.bytes()), Some(6));
        drop(second);
        assert!(one.reserve(80, 40).is_none());
        assert_eq!(woken.load(SeqCst), 1, "room for the first wish, not yet for the second");
        drop(first);
        assert_eq!((one.used(), woken.load(SeqCst)), (0, 2));
    }

    #[test]
    fn an_empty_account_gives_the_least_even_beyond_its_share() {
        let mut budget = Budget::new(10);
        let one = budget.account(1, || counted().1);
        let mut charge = one.reserve(500, 100).unwrap();
        assert_eq!(charge.bytes(), 100);
        charge.resize(3000);
        assert_eq!(budget.used(), 3000);
        assert!(one.reserve(1, 1).is_none());
        charge.resize(4);
        assert_eq!(one.reserve(100, 1).unwrap().bytes(), 6);
    }

    #[test]
    fn a_broker_that_left_gives_its_share_back_when_it_is_empty() {
        let mut budget = Budget::new(100);
        let one = budget.account(1, || counted().1);
        let two = budget.account(2, || counted().1);
        let held = two.charge(70);
        budget.leave(2);
        assert!(!one.has_room_for(51));
        drop(held);
        budget.leave(2);
        assert!(one.has_room_for(100));
    }

    proptest::proptest! {
        /// However reservations, arrivals and releases are mixed, reserving alone never goes beyond the share.
        #[test]
        fn reservations_stay_within_the_share(ops in proptest::collection::vec((0..3u8, 1..60usize, 1..30usize), 1..60)) {
            let mut budget = Budget::new(100);
            let account = budget.account(1, || counted().1);
            let mut held: Vec<Charge> = Vec::new();
            for (op, want, least) in ops {
                match op {
                    0 | 1 => {
                        let before = account.used();
                        if let Some(charge) = account.reserve(want, least) {
                            proptest::prop_assert!(charge.bytes() >= least.min(want) && charge.bytes() <= want);
                            proptest::prop_assert!(account.used() <= 94 || before == 0);
                            held.push(charge);
                        } else {
                            proptest::prop_assert!(before > 0 && before + least.min(want) > 94);
                        }
                    }
                    _ => { held.pop(); }
                }
                proptest::prop_assert_eq!(account.used(), held.iter().map(Charge::bytes).sum::<usize>());
            }
        }
    }
}
