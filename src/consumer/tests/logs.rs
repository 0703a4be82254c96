//! Logs as brokers have them, for tests of the sans-IO modules: infinite, and with only offset and
//! epoch for each record.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::{
    Compression,
    consumer::test_batches::{Sort, batch, built, noise},
};

/// Number of records in a batch.
pub(super) const BATCH: i64 = 4;

/// The form of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// Compressed, and decompressed by the reader.
    Small,
    /// Compressed, and decompressed in advance, on threads that may block.
    Heavy,
}

impl Form {
    fn template(self) -> &'static [u8] {
        static TEMPLATES: [OnceLock<Bytes>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
        let (at, make): (usize, fn() -> Bytes) = match self {
            Form::Plain => (0, || batch(0, BATCH, Sort::Plain)),
            Form::Small => (1, || built(0, BATCH, Sort::Plain, Compression::Gzip(1), "v")),
            Form::Heavy => (2, || built(0, BATCH, Sort::Plain, Compression::Lz4, &noise(12_000))),
        };
        TEMPLATES[at].get_or_init(make)
    }
}

/// Epochs with their first offsets.
type Epochs = Vec<(i32, i64)>;

/// One partition's log, as each of its leaders had it.
#[derive(Clone, Debug)]
pub(super) struct Log {
    form: Form,
    /// By leader epoch; the last is the present state.
    history: Vec<(i32, Epochs)>,
    /// The offset after the last record that was ever sent to a consumer.
    given: i64,
}

impl Log {
    /// Creates a log with a first leader of that epoch.
    pub(super) fn new(form: Form, epoch: i32) -> Self {
        Self { form, history: vec![(epoch, vec![(epoch, 0)])], given: 0 }
    }

    /// Loses everything from that offset on; a leader of that epoch writes it again.
    pub(super) fn cut(&mut self, epoch: i32, at: i64) {
        let mut epochs = self.now().clone();
        epochs.retain(|(_, start)| *start < at);
        epochs.push((epoch, at));
        self.history.push((epoch, epochs));
    }

    /// Returns the offset that number of batches before the end of the records sent; a cut there
    /// loses some of them, or none.
    pub(super) fn before_end(&self, batches: i64) -> i64 {
        (self.given / BATCH - batches).max(0) * BATCH
    }

    fn now(&self) -> &Epochs {
        &self.history.last().expect("there is always one").1
    }

    fn as_of(&self, leader_epoch: i32) -> &Epochs {
        let state = self.history.iter().rev().find(|(epoch, _)| *epoch <= leader_epoch);
        state.map_or(&self.history[0].1, |(_, epochs)| epochs)
    }

    /// Returns the epoch of the record at that offset.
    pub(super) fn epoch_at(&self, offset: i64) -> i32 {
        epoch_at(self.now(), offset)
    }

    /// Returns the newest epoch up to this one, and its end offset.
    pub(super) fn end_of(&self, epoch: i32) -> (i32, i64) {
        let next = self.now().iter().position(|(known, _)| *known > epoch);
        let Some(next) = next else { return (epoch, i64::MAX) };
        let end = self.now()[next].1;
        next.checked_sub(1).map_or((epoch, end), |floor| (self.now()[floor].0, end))
    }

    /// Returns that number of batches from the one that holds the offset, as they were in that
    /// leader epoch.
    pub(super) fn read(&mut self, offset: i64, batches: i64, leader_epoch: i32) -> Bytes {
        let first = offset - offset.rem_euclid(BATCH);
        let epochs = self.as_of(leader_epoch).clone();
        self.given = self.given.max(first + batches * BATCH);
        let template = self.form.template();
        let mut out = Vec::with_capacity(template.len() * batches as usize);
        for i in 0..batches {
            let base = first + i * BATCH;
            let mut batch = template.to_vec();
            batch[..8].copy_from_slice(&base.to_be_bytes());
            batch[12..16].copy_from_slice(&epoch_at(&epochs, base).to_be_bytes());
            out.extend(batch);
        }
        out.into()
    }
}

fn epoch_at(epochs: &Epochs, offset: i64) -> i32 {
    epochs.iter().rev().find(|(_, start)| *start <= offset).map_or(-1, |(epoch, _)| *epoch)
}
