//! Reuses the memory of batch bodies: it stays warm in the caches, and the allocator does not
//! return it to the system and request it again.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

/// Larger buffers are multiples of this size.
const GRAIN: usize = 4096;

/// The free memory for bodies; the buffer that came back last is used first.
#[derive(Clone, Debug)]
pub(crate) struct BodyPool(Arc<Idle>);

#[derive(Debug)]
struct Idle {
    /// Maximum number of bytes that are kept.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bodies: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer that returns to its pool when it is dropped, on any thread.
#[derive(Debug)]
pub(crate) struct BodyBuffer {
    bytes: Vec<u8>,
    home: Option<Arc<Idle>>,
}

impl BodyPool {
    /// Makes a pool that keeps at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Idle { limit, state: Mutex::default() }))
    }

    /// Returns an empty buffer for about `bytes` bytes.
    pub(crate) fn take(&self, bytes: usize) -> BodyBuffer {
        // Rounds the size up, so that batches of similar size can reuse each other's memory.
        let bytes = if bytes > GRAIN { bytes.next_multiple_of(GRAIN) } else { bytes };
        let found = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            // A small batch does not get a large buffer: open batches would take far more memory
            // than is charged for them.
            let fits = |body: &mut Vec<u8>| body.capacity() >= bytes && body.capacity() / 4 <= bytes;
            let found = state.bodies.pop_if(fits);
            state.bytes -= found.as_ref().map_or(0, Vec::capacity);
            found
        };
        let body = found.unwrap_or_else(|| Vec::with_capacity(bytes));
        BodyBuffer { bytes: body, home: Some(self.0.clone()) }
    }
}

impl BodyBuffer {
    /// Makes a buffer without a pool.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), home: None }
    }
}

impl Deref for BodyBuffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for BodyBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for BodyBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for BodyBuffer {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut state = home.state.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.capacity() > 0 && state.bytes + bytes.capacity() <= home.limit {
            state.bytes += bytes.capacity();
            state.bodies.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(pool: &BodyPool) -> usize {
        pool.0.state.lock().unwrap().bytes
    }

    #[test]
    fn reuses_memory_of_returned_buffer() {
        let pool = BodyPool::new(10_000);
        let mut body = pool.take(1000);
        body.extend_from_slice(&[1; 900]);
        let place = body.as_ptr();
        drop(body);
        assert_eq!(idle(&pool), 1000);
        let again = pool.take(600);
        assert!(again.is_empty());
        assert_eq!((again.as_ptr(), idle(&pool)), (place, 0));
    }

    #[test]
    fn limits_idle_bytes_and_avoids_oversized_buffers() {
        let pool = BodyPool::new(2500);
        let bodies: Vec<BodyBuffer> = (0..3).map(|_| pool.take(1000)).collect();
        drop(bodies);
        assert_eq!(idle(&pool), 2000);
        assert_eq!(pool.take(100).capacity(), 100);
        assert!(pool.take(3000).capacity() >= 3000);
    }

    #[test]
    fn reuses_buffer_for_slightly_larger_request() {
        let pool = BodyPool::new(1 << 20);
        let place = pool.take(16_000).as_ptr();
        assert_eq!(pool.take(16_300).as_ptr(), place);
    }
}
