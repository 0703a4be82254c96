//! The bytes of `buffer.memory`, reserved and released with one atomic operation while there is
//! room.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

/// The bytes that records may occupy from `send` to their result.
///
/// A reservation costs one atomic operation while there is room, and an open batch reserves in
/// advance for its next records. If there is no room, callers wait in the order in which they came;
/// no call overtakes a waiting one, so a large record is not starved by small ones.
#[derive(Debug)]
pub(crate) struct BufferPool {
    free: Semaphore,
    total: usize,
    waiting: AtomicUsize,
}

/// Bytes that were taken from a [`BufferPool`]; dropping the reservation releases them.
#[derive(Debug)]
pub(crate) struct BufferReservation {
    buffer_pool: Arc<BufferPool>,
    bytes: usize,
}

impl BufferPool {
    /// The largest buffer size that can be counted.
    pub(crate) const MAX: usize = Semaphore::MAX_PERMITS;

    pub(crate) fn new(total: usize) -> Self {
        let total = total.min(Self::MAX);
        Self { free: Semaphore::new(total), total, waiting: AtomicUsize::new(0) }
    }

    /// Takes the bytes if they are free and no call waits. The caller puts them into a
    /// [`BufferReservation`] or releases them.
    pub(crate) fn try_take(&self, bytes: u32) -> bool {
        match self.free.try_acquire_many(bytes) {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => false,
        }
    }

    /// Returns true if more than half is free, so that bytes may be taken in advance.
    fn has_spare_room(&self) -> bool {
        self.free.available_permits() > self.total / 2
    }

    /// Waits for the bytes; returns `false` once the pool is closed.
    ///
    /// The call counts as waiting at once and not only from its first poll, so that a task that is
    /// woken after the call sees it.
    ///
    /// Safe to drop: a dropped waiter leaves bytes that it already got to the next one.
    pub(crate) fn take(&self, bytes: u32) -> impl Future<Output = bool> {
        let waiting = WaiterCount::new(&self.waiting);
        async move {
            let _waiting = waiting;
            match self.free.acquire_many(bytes).await {
                Ok(permit) => {
                    permit.forget();
                    true
                }
                Err(_) => false,
            }
        }
    }

    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.free.add_permits(bytes);
        }
    }

    /// Returns true if a call waits. Batches then leave without waiting for their linger.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Closes the pool: waiting and later calls fail.
    pub(crate) fn close(&self) {
        self.free.close();
    }

    /// Returns the total number of bytes.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Returns the number of waiting calls.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the number of free bytes.
    pub(crate) fn free(&self) -> usize {
        self.free.available_permits()
    }
}

struct WaiterCount<'a>(&'a AtomicUsize);

impl<'a> WaiterCount<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaiterCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BufferReservation {
    /// Returns an empty reservation.
    pub(crate) fn empty(buffer_pool: &Arc<BufferPool>) -> Self {
        Self { buffer_pool: buffer_pool.clone(), bytes: 0 }
    }

    /// Returns a reservation of bytes that were taken before.
    pub(crate) fn of(buffer_pool: &Arc<BufferPool>, bytes: u32) -> Self {
        Self { buffer_pool: buffer_pool.clone(), bytes: bytes as usize }
    }

    /// Adds bytes that were taken before.
    pub(crate) fn add(&mut self, bytes: u32) {
        self.bytes += bytes as usize;
    }

    /// Takes `needed` more bytes, and up to `ahead` while more than half of the pool is free.
    /// Returns `false` if `needed` bytes are not free.
    pub(crate) fn grow(&mut self, needed: usize, ahead: usize) -> bool {
        let buffer_pool = &self.buffer_pool;
        let wish = if buffer_pool.has_spare_room() { needed.max(ahead) } else { needed };
        let take = |bytes: usize| u32::try_from(bytes).is_ok_and(|bytes| buffer_pool.try_take(bytes)).then_some(bytes);
        let taken = take(wish).or_else(|| if wish > needed { take(needed) } else { None });
        self.bytes += taken.unwrap_or(0);
        taken.is_some()
    }

    /// Moves all bytes of another reservation into this one.
    pub(crate) fn absorb(&mut self, mut other: BufferReservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Splits off that number of bytes, or all if there are fewer.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { buffer_pool: self.buffer_pool.clone(), bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for BufferReservation {
    fn drop(&mut self) {
        self.buffer_pool.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use crate::producer::buffer_pool::*;

    #[test]
    fn reservation_is_limited_and_freed_on_drop() {
        let buffer_pool = Arc::new(BufferPool::new(100));
        assert!(buffer_pool.try_take(60));
        assert!(!buffer_pool.try_take(41));
        let mut reserved = BufferReservation::of(&buffer_pool, 60);
        assert!(buffer_pool.try_take(10));
        reserved.add(10);
        let part = reserved.split(30);
        assert_eq!((reserved.bytes(), part.bytes(), buffer_pool.free()), (40, 30, 30));
        drop(part);
        assert_eq!(buffer_pool.free(), 60);
        drop(reserved);
        assert_eq!(buffer_pool.free(), 100);
    }

    #[test]
    fn serves_waiters_in_order_despite_cancelled_waiter() {
        let buffer_pool = BufferPool::new(100);
        assert!(buffer_pool.try_take(90));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut large = Box::pin(buffer_pool.take(50));
        assert!(buffer_pool.has_waiters(), "the call counts as waiting before its first poll");
        let mut small = Box::pin(buffer_pool.take(20));
        assert!(large.as_mut().poll(&mut cx).is_pending());
        assert!(small.as_mut().poll(&mut cx).is_pending());
        assert!(buffer_pool.has_waiters());
        assert!(!buffer_pool.try_take(5), "a new call must not overtake waiting ones");
        buffer_pool.release(20);
        assert!(small.as_mut().poll(&mut cx).is_pending(), "the first waiting call is served first");
        drop(large);
        assert!(small.as_mut().poll(&mut cx).is_ready());
        drop(small);
        assert!(!buffer_pool.has_waiters());
        assert_eq!(buffer_pool.free(), 10);
    }

    #[test]
    fn close_fails_waiters_and_new_reservations() {
        let buffer_pool = BufferPool::new(10);
        assert!(buffer_pool.try_take(10));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut waiter = Box::pin(buffer_pool.take(5));
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
        buffer_pool.close();
        assert_eq!(waiter.as_mut().poll(&mut cx), std::task::Poll::Ready(false));
        assert!(!buffer_pool.try_take(1));
    }

    #[test]
    fn concurrent_reservations_never_exceed_total_memory() {
        let buffer_pool = Arc::new(BufferPool::new(1000));
        let held = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for seed in 1..=4u32 {
                let (buffer_pool, held) = (buffer_pool.clone(), held.clone());
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for i in 0..2000u32 {
                            let bytes = 1 + (seed * 7919 + i * 104_729) % 600;
                            if !buffer_pool.try_take(bytes) {
                                assert!(buffer_pool.take(bytes).await);
                            }
                            let now = held.fetch_add(bytes as usize, Ordering::SeqCst) + bytes as usize;
                            assert!(now <= 1000, "{now} bytes were reserved at once");
                            held.fetch_sub(bytes as usize, Ordering::SeqCst);
                            buffer_pool.release(bytes as usize);
                        }
                    });
                });
            }
        });
        assert_eq!(buffer_pool.free(), 1000);
    }
}
