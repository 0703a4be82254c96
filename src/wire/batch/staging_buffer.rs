//! Collects small records in a few kilobytes that stay in the nearest cache, before they are copied
//! to a batch's body.

use crate::wire::batch::BodyBuffer;
use crate::wire::crc::Running;

/// Capacity of the stage in bytes.
pub(crate) const STAGE: usize = 4096;
/// Records that may need more than this are not staged, because they would gain nothing.
const STAGED: usize = STAGE / 4;
/// Number of bytes that are checksummed at a time: few enough to be in a near cache still, and
/// enough for the processor's full speed.
const SUMMED_AT_ONCE: usize = 16 * 1024;

/// A body that is being written.
///
/// The memory of a body was last read by the thread that sent it, so its cache lines have to be
/// transferred from there when the body is written again. Small records that are written one by
/// one, each after an atomic step (releasing a lock waits for the writes before it), would wait for
/// a transfer each time. So small records are collected on a stage, which stays in the nearest
/// cache, and many of them are copied into the body at once.
///
/// For the same reason a body that is sent uncompressed is checksummed while it grows, and not when
/// all of it has left the caches.
#[derive(Debug)]
pub(super) struct StagedBody {
    /// The stage. If its capacity is 0, all records go straight into the body.
    stage: Vec<u8>,
    body: BodyBuffer,
    /// Number of bytes at the front of the body that `sum` covers.
    summed: usize,
    sum: Running,
    sums: bool,
}

impl StagedBody {
    /// Makes an empty body. `sums` is true if the checksum is to be computed while the body grows.
    pub(super) fn new(body: BodyBuffer, stage: Vec<u8>, sums: bool) -> Self {
        Self { stage, body, summed: 0, sum: Running::default(), sums }
    }

    /// Returns the number of bytes so far.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.body.len() + self.stage.len()
    }

    /// Returns the buffer to which the next `bytes` bytes are to be appended; it has capacity for
    /// them.
    #[inline]
    pub(super) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if bytes <= STAGED && self.stage.capacity() - self.stage.len() >= bytes {
            return &mut self.stage;
        }
        self.make_room(bytes)
    }

    #[cold]
    fn make_room(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.leave_stage();
        if self.sums && self.body.len() - self.summed >= SUMMED_AT_ONCE {
            self.sum_up();
        }
        if bytes <= STAGED && bytes <= self.stage.capacity() {
            return &mut self.stage;
        }
        self.body.reserve(bytes);
        &mut self.body
    }

    fn leave_stage(&mut self) {
        self.body.extend_from_slice(&self.stage);
        self.stage.clear();
    }

    /// Moves everything into the body, and returns the stage's memory for another batch.
    pub(super) fn take_stage(&mut self) -> Vec<u8> {
        self.leave_stage();
        std::mem::take(&mut self.stage)
    }

    fn sum_up(&mut self) {
        if let Some(rest) = self.body.get(self.summed..) {
            self.sum.add(rest);
            self.summed = self.body.len();
        }
    }

    /// Returns the body with everything in it.
    pub(super) fn into_body(mut self) -> BodyBuffer {
        self.leave_stage();
        self.body
    }

    /// Returns the body with everything in it, and its CRC-32C.
    pub(super) fn into_summed(mut self) -> (BodyBuffer, u32) {
        self.leave_stage();
        self.sum_up();
        (self.body, self.sum.sum())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;

    use crate::wire::batch::staging_buffer::*;
    use crate::wire::crc::castagnoli;

    #[test]
    fn appends_chunks_of_any_size_in_order() {
        for stage in [0, 16, STAGE] {
            let mut body = StagedBody::new(BodyBuffer::with_capacity(0), Vec::with_capacity(stage), false);
            let mut expected = Vec::new();
            for (i, size) in [3, 1, 4000, 5, 4096, 0, 7, 1500, 1025, 30].into_iter().enumerate() {
                let bytes = vec![i as u8; size];
                body.room(size + 32).extend_from_slice(&bytes);
                expected.extend_from_slice(&bytes);
                assert_eq!(body.len(), expected.len());
            }
            let memory = body.take_stage();
            assert_eq!((memory.len(), memory.capacity()), (0, stage), "it never grows");
            body.room(2).extend_from_slice(b"xy");
            expected.extend_from_slice(b"xy");
            assert_eq!(body.into_body().deref(), &expected);
        }
    }

    #[test]
    fn checksum_covers_all_appended_bytes() {
        for sums in [false, true] {
            for stage in [0, STAGE] {
                let mut body = StagedBody::new(BodyBuffer::with_capacity(0), Vec::with_capacity(stage), sums);
                assert_eq!(StagedBody::new(BodyBuffer::with_capacity(0), Vec::new(), sums).into_summed().1, 0);
                for i in 0..1000 {
                    let size = i * 37 % 1500 + if i % 100 == 0 { 40_000 } else { 0 };
                    body.room(size).extend_from_slice(&vec![i as u8; size]);
                }
                assert_eq!(body.summed > 0, sums, "it is summed while it grows");
                body.take_stage();
                let (bytes, sum) = body.into_summed();
                assert_eq!(sum, castagnoli(&bytes));
            }
        }
    }
}
