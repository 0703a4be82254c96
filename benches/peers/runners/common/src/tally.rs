//! What a reader looks at in each record, so that nobody is measured for records that nobody
//! touches.

/// The sums over all values that were read; the driver knows what they have to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    /// The lengths of the values.
    pub bytes: u64,
    /// Their first bytes, added up.
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
