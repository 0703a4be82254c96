//! The parts that a reader reads of each record, so that no client is measured for records that are
//! not read.

/// Sums over all values that were read; the driver knows the expected ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    /// Sum of the lengths of the values.
    pub bytes: u64,
    /// Sum of their first bytes.
    pub firsts: u64,
}

impl Tally {
    #[inline]
    pub fn look_at(&mut self, value: Option<&[u8]>) {
        let value = value.unwrap_or_default();
        self.records += 1;
        self.bytes += value.len() as u64;
        self.firsts += u64::from(value.first().copied().unwrap_or_default());
    }
}
