//! Records on their way into a batch's body, by way of a few kilobytes that stay near.

use super::BodyBuffer;

/// What a stage holds.
pub(crate) const STAGE: usize = 4096;

/// A body that is being written.
///
/// The memory of a body was last read by the thread that sent it, so that its cache lines have to be fetched from there when
/// it is written again. One small record after the other, each behind an atomic step (a lock that is let go waits for the
/// writes before it), would wait for its own lines each time. So small records are put together on a stage, which stays in
/// the nearest cache, and go into the body many at once.
#[derive(Debug)]
pub(super) struct StagedBody {
    /// Without memory of its own there is no stage: all goes straight into the body.
    stage: Vec<u8>,
    body: BodyBuffer,
}

impl StagedBody {
    pub(super) fn new(body: BodyBuffer, stage: Vec<u8>) -> Self {
        Self { stage, body }
    }

    /// Bytes so far.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.body.len() + self.stage.len()
    }

    /// Where the next so many bytes are to be written, behind all before them; there is room for them.
    #[inline]
    pub(super) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.stage.capacity() - self.stage.len() >= bytes {
            return &mut self.stage;
        }
        self.make_room(bytes)
    }

    #[cold]
    fn make_room(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.leave_stage();
        // One that fills the stage gains nothing by it.
        if bytes <= self.stage.capacity() / 4 {
            return &mut self.stage;
        }
        self.body.reserve(bytes);
        &mut self.body
    }

    fn leave_stage(&mut self) {
        self.body.extend_from_slice(&self.stage);
        self.stage.clear();
    }

    /// Puts everything into the body, and gives the stage's memory for another.
    pub(super) fn take_stage(&mut self) -> Vec<u8> {
        self.leave_stage();
        std::mem::take(&mut self.stage)
    }

    /// The body, with everything in it.
    pub(super) fn into_body(mut self) -> BodyBuffer {
        self.leave_stage();
        self.body
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;

    use super::*;

    #[test]
    fn bytes_of_any_sizes_come_into_the_body_in_their_order() {
        for stage in [0, 16, STAGE] {
            let mut body = StagedBody::new(BodyBuffer::with_capacity(0), Vec::with_capacity(stage));
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
}
